"""Sample-level valuation: samples in which a modality contributes too little come back with that modality alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError, did_you_mean
from lacunar.lattice import MAX_TABLE
from lacunar.models.multimodal import MultimodalModel, SubsetOutput
from lacunar.objectives.base import Objective, Stage, batch_mean
from lacunar.objectives.ranges import Between, OneOf, Ranges
from lacunar.tasks import Task

__all__ = ["Resampling", "copies_of", "sample_values"]

#: Megabytes that predictions for several subsets may take at a time: outputs may be label maps.
MEMORY = 256.0
#: Contributions below these get one, two and three copies; the ideal is 1.
THRESHOLDS = (1.0, 0.4, -0.1)


class Resampling(Objective):
    r"""Valuation of each modality in each sample, and resampling of what contributes too little ("MBT-Sample" in MCE).

    ``v(S) = |S| score(S)`` on the subsets of what a sample has, with the score of the task (1 where the prediction
    is right); its exact Shapley values sum to the number of modalities where all together are right, 1 each being
    balanced. After a warm-up, before every epoch, ``level="sample"`` adds to the training set copies of a sample with
    all modalities but one absent: one where that contributes less than 1, two below .4, three below -.1.
    ``level="modality"`` estimates mean contributions on a part of the data, and adds copies of randomly drawn samples
    that keep only the modality with the smallest one. Copies never add up over epochs.

    The published release zeroes the other modalities' features; here they are absent, which is the same. Only
    modalities that a sample has are valued and copied.

    For every task and for incomplete training data, of 2 to 12 modalities. Stages: warm-up, then resampled.

    Args:
        level: ``"sample"`` or ``"modality"``.
        warmup: share of the epochs before the first valuation.
        strength: alpha of the modality level, which adds ``alpha * 2/3 * N * (largest - smallest mean contribution)``
            copies.
        part: share of the samples that the modality level values.
        keep_size: draw as many of the samples and copies as there were samples, so that an epoch has as many steps
            as for other methods; the published method lets epochs grow.
        label_smoothing: see :class:`Objective`.

    Raises:
        ConfigError: an option out of range.

    Attributes:
        diagnostics: ``phi``, the mean contributions ``(M,)``, and ``copies``, how many were added of each.

    References:
        Wei et al., *Enhancing Multimodal Cooperation via Sample-level Modality Valuation*, CVPR 2024,
        arXiv:2309.06255.
    """

    ranges: ClassVar[Ranges] = {"level": OneOf(("sample", "modality")), "strength": Between(0.2, 2.0)}

    copies: Tensor
    contribution: Tensor

    def __init__(
        self,
        level: Literal["sample", "modality"] = "sample",
        warmup: float = 5 / 60,
        strength: float = 0.5,
        part: float = 0.2,
        keep_size: bool = False,
        label_smoothing: float | None = None,
    ):
        if not 0 <= warmup < 1:
            raise ConfigError(f"Resampling: warmup: expected a share of the epochs in [0, 1), got {warmup}.")
        self.warmup = warmup
        super().__init__(label_smoothing)
        if level not in ("sample", "modality"):
            raise ConfigError(f"Resampling: unknown level {level!r}.{did_you_mean(level, ('sample', 'modality'))}")
        if not strength > 0 or not 0 < part <= 1:
            raise ConfigError(f"Resampling: expected strength > 0 and part in (0, 1], got {strength} and {part}.")
        self.level, self.strength, self.part, self.keep_size = level, float(strength), part, keep_size

    def stages(self) -> Sequence[Stage]:
        resampled = Stage("resampled", 1 - self.warmup)
        return (resampled,) if self.warmup == 0 else (Stage("warm-up", self.warmup), resampled)

    def setup(self, model: MultimodalModel, data: MultimodalDataset) -> None:
        super().setup(model, data)
        if not 2 <= len(data.names) <= MAX_TABLE:
            raise ConfigError(
                f"Resampling values every subset: expected 2 to {MAX_TABLE} modalities, got {len(data.names)}."
            )
        self.register_buffer("copies", torch.zeros(len(data), len(data.names), dtype=torch.int64))
        self.register_buffer("contribution", torch.zeros(len(data.names)))

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        self.diagnostics = {"phi": self.contribution.clone(), "copies": self.copies.sum(0).float()}
        return {"task": batch_mean(self.losses(model(batch), self._target(batch)))}

    def on_epoch_start(self, model: MultimodalModel, data: MultimodalDataset, epoch: int) -> None:
        if self.stage.name != "resampled":
            return
        if self.level == "sample":
            phi = sample_values(self, model, data)
            copies = copies_of(phi) * data.present
            self._note(phi, data.present)
        else:
            rows = torch.randperm(len(data))[: max(1, round(self.part * len(data)))]
            some = data.select(rows)
            phi = sample_values(self, model, some)
            mean = self._note(phi, some.present)
            copies = self._copies_by_modality(mean, some.present.any(0), data)
        self.copies.copy_(copies)

    def _note(self, phi: Tensor, present: Tensor) -> Tensor:
        mean = phi.sum(0) / present.sum(0).clamp(min=1)
        self.contribution.copy_(mean)
        return mean

    def _copies_by_modality(self, mean: Tensor, valued: Tensor, data: MultimodalDataset) -> Tensor:
        gap = (1 - mean)[valued]
        weak = int(valued.nonzero().squeeze(1)[gap.argmax()])
        chance = self.strength * float(gap.max() - gap.min()) * 2 / 3
        have = data.present[:, weak].nonzero().squeeze(1)
        copies = torch.zeros_like(self.copies, device="cpu")
        drawn = have[torch.randint(len(have), (int(chance * len(data)),))]
        copies[:, weak].index_add_(0, drawn, torch.ones_like(drawn))
        return copies

    def training_set(self, data: MultimodalDataset, epoch: int) -> MultimodalDataset:
        if self.stage.name != "resampled" or not self.copies.any():
            return data
        copies = self.copies.cpu()
        rows, which = copies.nonzero(as_tuple=True)
        times = copies[rows, which]
        rows, which = rows.repeat_interleave(times), which.repeat_interleave(times)
        keep = torch.zeros(len(rows), len(data.names), dtype=torch.bool)
        keep[torch.arange(len(rows)), which] = True
        everything = torch.cat([torch.arange(len(data)), rows])
        keep = torch.cat([torch.ones_like(data.present), keep])
        if self.keep_size:
            chosen = torch.randperm(len(everything))[: len(data)]
            everything, keep = everything[chosen], keep[chosen]
        return data.select(everything).hide(keep.numpy())

    def extra_repr(self) -> str:
        return f"level={self.level!r}, warmup={self.warmup:.3g}"


@torch.no_grad()
def sample_values(objective: Objective, model: MultimodalModel, data: MultimodalDataset) -> Tensor:
    """Exact Shapley values of ``v(S) = |S| score(S)`` on what each sample has, ``(N, M)``, on the CPU."""
    assert objective.task is not None
    training = model.training
    model.eval()
    device = next(iter(model.parameters())).device
    lattice, found, chunk = model.lattice, [], None
    for batch in data.batches():
        batch = batch.to(device)
        pairs = lattice.pairs(batch.present)
        features, target = model.encode(batch), objective._target(batch)

        def score(result: SubsetOutput, task: Task = objective.task, target: Tensor = target) -> tuple[Tensor]:
            return (task.score(result.output, target[result.pairs.rows]),)

        if chunk is None:
            chunk = model.pairs_within(features, MEMORY, score, most=64)
        (scores,) = model.read(features, pairs, score, chunk)
        values = scores.new_zeros(len(batch), len(lattice))
        values[pairs.rows, pairs.codes] = scores * lattice.size(pairs.codes)
        found.append(lattice.shapley(values, batch.present).cpu())
    model.train(training)
    return torch.cat(found)


def copies_of(phi: Tensor) -> Tensor:
    """How many copies a contribution asks for: 0 from 1 on, then 1, 2 below .4 and 3 below -.1; shaped like ``phi``."""
    limits = torch.tensor(sorted(THRESHOLDS), dtype=phi.dtype)
    rounded = torch.from_numpy(np.round(phi.numpy(), 6))  # Shapley values are exact up to rounding
    return len(THRESHOLDS) - torch.bucketize(rounded, limits, right=True)
