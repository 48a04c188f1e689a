"""The outputs of any model on every subset, batch by batch, within a memory bound."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lacunar.data.batch import Batch
from lacunar.errors import ConfigError, DataError
from lacunar.lattice import MAX_TABLE, Lattice, Pairs
from lacunar.memory import fitting, peak_bytes
from lacunar.models.multimodal import MultimodalModel

__all__ = [
    "MemoryLimit",
    "evaluation_mode",
    "feasible_pairs",
    "joint_model",
    "predict_in_pieces",
    "samples_of",
    "subset_codes",
    "subset_outputs",
    "takes_chunk",
]

DEFAULT_MEGABYTES = 64.0  # pieces that stay in a cache are decoded faster than larger ones
MANY = 2**30


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Dropout off, statistics fixed, no gradients; every module returns to the mode that it was in."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    if isinstance(model, nn.Module):
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, modes):
            module.training = mode


def joint_model(model: Any) -> MultimodalModel:
    """The model with encoders inside wrappers such as experts or a temperature.

    Raises:
        ConfigError: there is none.
    """
    inner = model
    while not isinstance(inner, MultimodalModel):
        wrapped = getattr(inner, "joint", None) or getattr(inner, "model", None)
        if wrapped is None:
            raise ConfigError(f"Expected a MultimodalModel, whose encoders and fusion can be read, got {type(model)}.")
        inner = wrapped
    return inner


def subset_codes(lattice: Lattice, budget: int = 256, seed: int = 0) -> tuple[list[int], bool]:
    """The non-empty subsets to score, small ones first, and whether these are all of them.

    Above 12 modalities: every single modality, everything but one, everything, and random subsets in which each size
    is equally likely, up to ``budget`` in all; all of them when there are no more.
    """
    M = lattice.M
    if M <= MAX_TABLE:
        return lattice.subsets, True
    full = (1 << M) - 1
    if budget >= full:
        return sorted(range(1, full + 1), key=lambda code: (code.bit_count(), code)), True
    chosen = {1 << m for m in range(M)} | {full} | {full & ~(1 << m) for m in range(M)}
    generator = np.random.default_rng(seed)
    while len(chosen) < budget:
        size = int(generator.integers(2, M - 1))
        members = generator.choice(M, size=size, replace=False)
        chosen.add(sum(1 << int(m) for m in members))
    return sorted(chosen, key=lambda code: (code.bit_count(), code)), False


def feasible_pairs(lattice: Lattice, present: Tensor, codes: Sequence[int]) -> Pairs:
    """The pairs of rows ``(B, M)`` with those of the given subsets that they have all of, sorted by code, then row."""
    wanted = torch.tensor(sorted(codes), dtype=torch.int64, device=present.device)
    missing = lattice.encode(~present)
    which, rows = (wanted[:, None] & missing == 0).nonzero(as_tuple=True)
    return Pairs(rows, wanted[which])


def subset_outputs(
    model: Any, data: Any, codes: Sequence[int], batch_size: int | None = None, memory: float | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Outputs of a model on all pairs of samples and subsets that the samples have all of.

    Args:
        model: a :class:`~lacunar.models.multimodal.MultimodalModel` (encoders run once per batch), anything with
            ``predict_pairs(batch, pairs)``, or any callable from a batch to outputs, one row per sample, which is then
            called once per subset on a batch in which everything else is absent.
        data: a data set.
        codes: the subsets.
        batch_size: samples per batch; ``data.rows_at_once`` when None.
        memory: bound in megabytes on the tensors that live at the same time while pairs are decoded; 64 when None.
            Features of a batch and the model itself come on top. Smaller batches bound the encoders.

    Yields:
        Positions in the data set ``(p,)``, codes ``(p,)`` and raw outputs ``(p, n_outputs, ...)``.
    """
    read = _reader(model)
    device = (
        next((parameter.device for parameter in model.parameters()), None) if hasattr(model, "parameters") else None
    )
    limit = MemoryLimit(DEFAULT_MEGABYTES if memory is None else memory)
    start = 0
    with evaluation_mode(model):
        for batch in data.batches(batch_size):
            batch = batch if device is None else batch.to(device)
            pairs = feasible_pairs(data.lattice, batch.present, codes)
            found = read(model, batch, pairs, limit) if len(pairs.rows) else ()
            for part, output in found:
                if len(output) != len(part.rows):
                    raise DataError(f"Expected one output for each of {len(part.rows)} samples, got {len(output)}.")
                yield part.rows + start, part.codes, output
            start += len(batch)


Reader = Callable[[Any, Batch, Pairs, "MemoryLimit"], Iterator[tuple[Pairs, Tensor]]]


def _reader(model: Any) -> Reader:
    own = isinstance(model, MultimodalModel) and type(model).predict_pairs is MultimodalModel.predict_pairs
    staged = hasattr(model, "encode") and hasattr(model, "predict") and not isinstance(model, MultimodalModel)
    if own or (staged and hasattr(model, "predict_pairs")):
        return _read_features
    if hasattr(model, "predict_pairs"):
        return _read_pairs
    if callable(model):
        return _read_callable
    raise ConfigError(f"Expected a model with predict_pairs, or a callable from a batch to outputs, got {type(model)}.")


def _read_features(model: Any, batch: Batch, pairs: Pairs, limit: MemoryLimit) -> Iterator[tuple[Pairs, Tensor]]:
    features = model.encode(batch)
    chunk = limit.chunk(pairs, lambda part: model.predict(features, part))
    for part in _pieces(pairs, chunk):
        yield part, model.predict(features, part)


def _read_pairs(model: Any, batch: Batch, pairs: Pairs, limit: MemoryLimit) -> Iterator[tuple[Pairs, Tensor]]:
    chunk = limit.chunk(pairs, lambda part: model.predict_pairs(batch, part))
    if takes_chunk(model):
        yield pairs, predict_in_pieces(model, batch, pairs, chunk)
        return
    for part in _pieces(pairs, chunk):
        yield part, model.predict_pairs(batch, part)


def takes_chunk(model: Any) -> bool:
    """Whether ``predict_pairs`` can be told how many pairs to decode at a time, from one pass of the encoders."""
    return "chunk" in inspect.signature(model.predict_pairs).parameters


def predict_in_pieces(model: Any, batch: Batch, pairs: Pairs, chunk: int | None) -> Tensor:
    """Outputs of all pairs, ``chunk`` at a time, as any model with ``predict_pairs`` can."""
    if chunk is None or chunk >= len(pairs.rows):
        return model.predict_pairs(batch, pairs)
    if takes_chunk(model):
        return model.predict_pairs(batch, pairs, chunk=chunk)
    return torch.cat([model.predict_pairs(batch, part) for part in _pieces(pairs, chunk)])


def _read_callable(model: Any, batch: Batch, pairs: Pairs, limit: MemoryLimit) -> Iterator[tuple[Pairs, Tensor]]:
    names = batch.names
    for code in pairs.codes.unique().tolist():
        rows = pairs.rows[pairs.codes == code]
        kept = [name for m, name in enumerate(names) if code >> m & 1]
        output = torch.as_tensor(model(samples_of(batch, rows).hide(kept)))
        yield Pairs(rows, torch.full_like(rows, code)), output.to(rows.device)


def samples_of(batch: Batch, rows: Tensor) -> Batch:
    """Some of the samples of a batch, in order."""
    keep = torch.zeros(len(batch), dtype=torch.bool, device=batch.device)
    keep[rows] = True
    stays = {name: keep[batch.rows(name)] for name in batch.names}
    return replace(
        batch,
        inputs={name: values[stays[name]] for name, values in batch.inputs.items()},
        present=batch.present[keep],
        target=None if batch.target is None else batch.target[keep],
        index=batch.index[keep],
        lengths={name: steps[stays[name]] for name, steps in batch.lengths.items()},
        generated=batch.generated[keep],
    )


def _pieces(pairs: Pairs, chunk: int) -> Iterator[Pairs]:
    for start in range(0, len(pairs.rows), chunk):
        yield Pairs(pairs.rows[start : start + chunk], pairs.codes[start : start + chunk])


class MemoryLimit:
    """How many pairs at a time keep what lives at once within a number of megabytes; measured on a few pairs."""

    def __init__(self, megabytes: float):
        if not megabytes > 0:
            raise ConfigError(f"memory: expected a positive number of megabytes, got {megabytes}.")
        self.bytes = megabytes * 2**20
        self.pairs: int | None = None

    def chunk(self, pairs: Pairs, decode: Callable[[Pairs], Any]) -> int:
        total = len(pairs.rows)
        if self.pairs is None and total > 1:  # the pairs of a single volume may be too many

            def peak(count: int) -> int:
                # The last pairs hold the largest subsets.
                return peak_bytes(lambda: decode(Pairs(pairs.rows[-count:], pairs.codes[-count:])))

            self.pairs = min(fitting(peak, self.bytes, min(total, 64)), MANY)
        return self.pairs or MANY
