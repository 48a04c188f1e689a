"""The validation mean over subsets, cheap enough for every epoch: one encoder pass, then all pairs at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import DataError
from lacunar.lattice import Lattice, Pairs
from lacunar.models.multimodal import MultimodalModel, SubsetOutput
from lacunar.parallel import total, world_size
from lacunar.training.sampler import GlobalBatches, load

__all__ = ["Validation", "Validator"]

#: Up to this many subsets all are validated; beyond (M > 6), a fixed choice of as many.
SUBSETS = 63


@dataclass(frozen=True)
class Validation:
    """What one validation found.

    Attributes:
        score: mean over subsets of the mean score of the samples that can show the subset.
        loss: the same of the task loss.
        scores: mean score of each subset, by label.
    """

    score: float
    loss: float
    scores: dict[str, float]


class Validator:
    """Scores a model on every subset of the validation samples.

    With more than six modalities 63 subsets stand for all: single modalities, all but one, everything, and the rest
    drawn once. The same subsets are used in every epoch.

    Args:
        data: the validation part.
        batch_size: samples at a time, over all processes.
        seed: draws the subsets when there are too many.
        rank, world: share of this process.
        num_workers: processes that load batches.
        memory: megabytes that completion, fusion and head may take for one chunk of pairs.
    """

    def __init__(
        self,
        data: MultimodalDataset,
        batch_size: int = 256,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        num_workers: int = 0,
        memory: float = 256.0,
    ):
        if data.target is None or data.task is None:
            raise DataError(f"Validation needs a target, and {data.name!r} has none.")
        self.data, self.task, self.lattice = data, data.task, data.lattice
        self.codes = validation_codes(self.lattice, seed)
        self.batches = GlobalBatches(len(data), batch_size, rank=rank, world=world, shuffle=False)
        self.num_workers, self.memory = num_workers, memory
        self._chunk: int | None = None

    def __call__(
        self,
        model: nn.Module,
        device: torch.device | str = "cpu",
        precision: AbstractContextManager | None = None,
        convert: Callable[[Batch], Batch] = lambda batch: batch,
    ) -> Validation:
        """Validate a model in evaluation mode, without gradient.

        Args:
            model: a :class:`MultimodalModel`, or anything with ``predict_pairs(batch, pairs)``.
            device: where it is.
            precision: context that predictions are made in.
            convert: gives a batch the floating type of the model.
        """
        sums = torch.zeros(3, len(self.codes), dtype=torch.float64)
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            with torch.no_grad(), precision or nullcontext():
                for batch in load(self.data, self.batches, self.num_workers):
                    self._add(sums, model, convert(batch.to(device)))
        finally:
            for module, mode in modes:
                module.training = mode
        if world_size() > 1:
            sums = total(sums.to(device)).cpu()
        seen = sums[2] > 0
        score, loss = sums[0, seen] / sums[2, seen], sums[1, seen] / sums[2, seen]
        labels = [self.lattice.label(int(code)) for code in self.codes[seen]]
        return Validation(float(score.mean()), float(loss.mean()), dict(zip(labels, score.tolist())))

    def _add(self, sums: Tensor, model: Any, batch: Batch) -> None:
        pairs = self.pairs(batch.present)
        target = batch.target
        assert target is not None

        def extract(result: SubsetOutput) -> tuple[Tensor, ...]:
            wanted, output = target[result.pairs.rows], _full(result.output)
            return self.task.score(output, wanted), self.task.loss(output, wanted, smoothing=0.0)

        if isinstance(model, MultimodalModel):
            features = model.encode(batch)
            if self._chunk is None and len(batch):
                self._chunk = model.pairs_within(features, self.memory, most=64)
            score, loss = model.read(features, pairs, extract, self._chunk)
        else:
            output, wanted = _full(model.predict_pairs(batch, pairs)), target[pairs.rows]
            score, loss = self.task.score(output, wanted), self.task.loss(output, wanted, smoothing=0.0)
        values = torch.stack([score.float(), loss.float(), torch.ones_like(loss, dtype=torch.float32)])
        column = torch.searchsorted(self.codes, pairs.codes.cpu())
        sums.index_add_(1, column, values.double().cpu() if values.device.type != "mps" else values.cpu().double())

    def pairs(self, present: Tensor) -> Pairs:
        """The (sample, subset) pairs of a batch that are validated."""
        if self.lattice.M <= 6:
            return self.lattice.pairs(present)
        codes = self.codes.to(present.device)
        absent = self.lattice.encode(~present)
        position, rows = (codes[:, None] & absent == 0).nonzero(as_tuple=True)
        return Pairs(rows, codes[position])


def validation_codes(lattice: Lattice, seed: int) -> Tensor:
    """Codes of the subsets that are validated, ascending."""
    full = 2**lattice.M - 1
    if full <= SUBSETS:
        return torch.arange(1, full + 1)
    chosen = {full, *(1 << m for m in range(lattice.M)), *(full ^ (1 << m) for m in range(lattice.M))}
    generator = torch.Generator().manual_seed(seed)
    while len(chosen) < SUBSETS:
        bits = torch.rand(lattice.M, generator=generator) < torch.rand(1, generator=generator)
        code = sum(1 << m for m in bits.nonzero().flatten().tolist())
        if code:
            chosen.add(code)
    return torch.tensor(sorted(chosen))


def _full(output: Tensor) -> Tensor:
    return output.float() if output.dtype in (torch.bfloat16, torch.float16) else output
