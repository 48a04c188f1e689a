"""Encoders, completion, fusion and head as one model that predicts from every subset of modalities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lacunar.data.batch import Batch
from lacunar.errors import ConfigError, DataError
from lacunar.lattice import Lattice, Pairs
from lacunar.memory import fitting, peak_bytes
from lacunar.models.chain import takes_lengths
from lacunar.models.preprocessing import HALF, standardizes
from lacunar.tasks import Task

if TYPE_CHECKING:
    from lacunar.data.dataset import MultimodalDataset

__all__ = ["Features", "MultimodalModel", "SubsetOutput", "available_pairs", "input_facts"]


@dataclass
class Features:
    """What the encoders made of a batch.

    Attributes:
        h: features, exact zeros where a modality is absent, shape ``(B, M, C, *spatial)``.
        present: presence, boolean, shape ``(B, M)``.
        generated: which of the absent cells hold features that a completer made, boolean ``(B, M)``; None when none.
    """

    h: Tensor
    present: Tensor
    generated: Tensor | None = None

    def take(self, rows: Tensor, chosen: Tensor | None = None) -> Self:
        """Features of some of the rows, which may repeat, with fewer modalities.

        Args:
            rows: positions in the batch, int64, shape ``(n,)``.
            chosen: which modalities are left, boolean, shape ``(n, M)``; all when left out.
        """
        h, present = self.h[rows], self.present[rows]
        generated = None if self.generated is None else self.generated[rows]
        if chosen is not None:
            h = h.masked_fill(~chosen.view(*chosen.shape, *[1] * (h.ndim - 2)), 0.0)
            present = present & chosen
            generated = None if generated is None else generated & chosen
        return replace(self, h=h, present=present, generated=generated)

    def leaves(self) -> list[Tensor]:
        """Every tensor that carries gradients to the encoders."""
        return [self.h]

    def detached(self, requires_grad: bool = False) -> Self:
        """The same values as leaves of a graph of their own."""
        return replace(self, h=self.h.detach().requires_grad_(requires_grad))


@dataclass
class SubsetOutput:
    """What the model says of P (sample, subset) pairs.

    Attributes:
        pairs: which samples and which subsets.
        output: raw output of the head, shape ``(P, n_outputs, ...)``.
        completed: features after completion, shape ``(P, M, C, *spatial)``.
        fused: input of the head, shape ``(P, F, *spatial)``.
    """

    pairs: Pairs
    output: Tensor
    completed: Tensor
    fused: Tensor


#: What a subclass may do in its own way.
_COMPUTES = ("encode", "complete", "decode", "read", "predict", "predict_pairs", "forward")


class MultimodalModel(nn.Module):
    """One model for every subset: encoders, completion, fusion and head (Eq. 2 and 15 of MCE).

    Each encoder sees only the rows that have its modality. Its features are placed among exact zeros; every subset
    of what a sample has is then completed, fused and decoded from that single encoder pass.

    Args:
        encoders: for each modality, in lattice order, a module from ``(n, ...)`` to ``(n, C, *spatial)``. An encoder
            whose ``forward`` takes a second argument is given the lengths of its sequences.
        completion: a module from features ``(P, M, C, *spatial)`` and presence ``(P, M)`` to refined features of
            the same shape; None passes the features on as they are.
        fusion: a module from features and presence to ``(P, F, *spatial)``.
        head: a module from ``(P, F, *spatial)`` to ``(P, n_outputs, ...)``.
        task: what the output means; set by :func:`lacunar.fit` from the data when left out.
        inputs: for each modality the ``kind`` and ``shape`` of what the encoders were made for, so that other data
            are refused by name; set by :func:`lacunar.fit` when left out. See :func:`input_facts`.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        completion: nn.Module | None,
        fusion: nn.Module,
        head: nn.Module,
        task: Task | None = None,
        inputs: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        super().__init__()
        if not encoders:
            raise ConfigError("MultimodalModel: expected an encoder for each modality, got none.")
        self.lattice = Lattice(tuple(encoders))
        # ModuleDict refuses names with dots and names of its own methods, which data columns may well have.
        self.encoders = nn.ModuleList(encoders.values())
        self.completion, self.fusion, self.head = completion, fusion, head
        self.task = task
        self.inputs = None if inputs is None else {name: dict(facts) for name, facts in inputs.items()}
        for part in (completion, fusion):
            bind: Any = getattr(part, "bind", None)
            if bind is not None:
                bind(self.names)
        self._takes_lengths = [takes_lengths(encoder) for encoder in self.encoders]

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names in lattice order."""
        return self.lattice.names

    def encoder(self, name: str) -> nn.Module:
        """The encoder of one modality."""
        return self.encoders[self.names.index(name)]

    def encode(self, batch: Batch) -> Features:
        """Encode what is there, once.

        Raises:
            DataError: when the batch has other modalities, kinds or shapes than the model was made for.
            ConfigError: when the encoders disagree on the shape of their features.
        """
        self._check_inputs(batch)
        encoded = []
        for name, encoder, with_lengths in zip(self.names, self.encoders, self._takes_lengths):
            rows = self._rows(batch, name)
            if with_lengths and name in batch.lengths:
                encoded.append(encoder(rows, batch.lengths[name]))
            else:
                encoded.append(encoder(rows))
        shapes = {name: tuple(rows.shape[1:]) for name, rows in zip(self.names, encoded)}
        if len(set(shapes.values())) > 1:
            raise ConfigError(f"Encoders must agree on the shape of a sample's features, got {shapes}.")
        size, count = len(batch), len(self.names)
        cells = torch.cat([batch.rows(name) * count + m for m, name in enumerate(self.names)])
        rows = torch.cat(encoded)
        h = rows.new_zeros(size * count, *rows.shape[1:]).index_copy(0, cells, rows)
        return Features(h.view(size, count, *rows.shape[1:]), batch.present)

    def _rows(self, batch: Batch, name: str) -> Tensor:
        """Rows of a modality; data are in single precision, and the weights need not be."""
        rows = batch.inputs[name]
        if not rows.is_floating_point():
            return rows
        dtype = next((p.dtype for p in self.parameters() if p.is_floating_point()), rows.dtype)
        # Rounding comes after standardising, where nothing is lost by it.
        return rows.to(torch.float32 if dtype in HALF and standardizes(self.encoder(name)) else dtype)

    def complete(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        """Refine features and fill what is absent from what is there (Eq. 15).

        Args:
            tokens: features with zeros outside ``chosen``, shape ``(P, M, C, *spatial)``.
            chosen: which modalities may be used, boolean, shape ``(P, M)``.
        """
        return tokens if self.completion is None else self.completion(tokens, chosen)

    def decode(self, features: Features, pairs: Pairs) -> SubsetOutput:
        """Completion, fusion and head for (sample, subset) pairs, in one call."""
        chosen = self.lattice.decode(pairs.codes)
        tokens = features.h[pairs.rows]
        outside = ~chosen.view(*chosen.shape, *[1] * (tokens.ndim - 2))
        completed = self.complete(tokens.masked_fill(outside, 0.0), chosen)
        # After completion every token carries something; without it only the chosen ones do.
        usable = chosen if self.completion is None else torch.ones_like(chosen)
        fused = self.fusion(completed, usable)
        return SubsetOutput(pairs, self.head(fused), completed, fused)

    def read(
        self,
        features: Features,
        pairs: Pairs,
        extract: Callable[[SubsetOutput], tuple[Tensor, ...]],
        chunk: int | None = None,
    ) -> tuple[Tensor, ...]:
        """What ``extract`` takes from the output of each pair, with at most ``chunk`` pairs in memory at a time.

        When gradients are needed a chunk is computed again in the backward pass instead of being kept, so the peak
        is that of one chunk and of what ``extract`` returns.

        Args:
            features: of a batch.
            pairs: the (sample, subset) pairs, P of them.
            extract: from a :class:`SubsetOutput` to tensors with one row per pair.
            chunk: pairs at a time; None takes all at once.
        """
        total = len(pairs.rows)
        if chunk is None or total <= chunk:
            return extract(self.decode(features, pairs))

        def part(rows: Tensor, codes: Tensor) -> tuple[Tensor, ...]:
            return extract(self.decode(features, Pairs(rows, codes)))

        count = -(-total // chunk)
        cuts = [total * i // count for i in range(count + 1)]
        parts = []
        for i, (start, end) in enumerate(pairwise(cuts)):
            rows, codes = pairs.rows[start:end], pairs.codes[start:end]
            # The last chunk is the first that the backward pass needs: it may stay, as room for one is there.
            if torch.is_grad_enabled() and i < count - 1:
                parts.append(checkpoint(part, rows, codes, use_reentrant=False))
            else:
                parts.append(part(rows, codes))
        return tuple(torch.cat(pieces) for pieces in zip(*parts))

    def predict(self, features: Features, pairs: Pairs, chunk: int | None = None) -> Tensor:
        """Raw outputs ``(P, n_outputs, ...)`` of (sample, subset) pairs from features that are already there."""
        return self.read(features, pairs, lambda result: (result.output,), chunk)[0]

    def predict_pairs(self, batch: Batch, pairs: Pairs, chunk: int | None = None) -> Tensor:
        """Raw outputs ``(P, n_outputs, ...)`` of (sample, subset) pairs of a batch."""
        return self.predict(self.encode(batch), pairs, chunk)

    def forward(self, batch: Batch) -> Tensor:
        """Raw outputs ``(B, n_outputs, ...)`` from everything that each sample has.

        Raises:
            DataError: when a sample has nothing.
        """
        return self.predict(self.encode(batch), available_pairs(self.lattice, batch))

    def pairs_within(
        self,
        features: Features,
        megabytes: float,
        extract: Callable[[SubsetOutput], tuple[Tensor, ...]] = lambda result: (result.output,),
        most: int = 4096,
    ) -> int:
        """How many pairs at a time keep everything that a chunk makes within a memory bound.

        Measured: the peak of live tensor bytes, which includes the backward pass where gradients are on. Gradients of
        weights come on top. No random number is used up.

        Args:
            features: of a batch.
            megabytes: the bound.
            extract: what :meth:`read` will be given.
            most: pairs that are tried.
        """
        device = features.h.device
        available = self.lattice.encode(features.present)
        largest = features.present.sum(1).argsort(descending=True)  # first, so that few rows never seem too cheap
        needs_gradient = torch.is_grad_enabled()

        def peak(count: int) -> int:
            rows = largest[torch.arange(count, device=device) % len(largest)]
            codes = available[rows]
            own = features.detached(needs_gradient)

            def run() -> None:
                results = extract(self.decode(own, Pairs(rows, codes)))
                reached = [result.sum() for result in results if result.requires_grad]
                if reached:
                    torch.autograd.grad(torch.stack(reached).sum(), own.leaves(), allow_unused=True)

            return peak_bytes(run)

        with torch.random.fork_rng([device.index or 0] if device.type == "cuda" else []):
            return fitting(peak, megabytes * 2**20, most)

    def named_encoders(self) -> Iterable[tuple[str, nn.Module]]:
        """Pairs of modality name and encoder, in lattice order."""
        return zip(self.names, self.encoders)

    def configuration(self) -> dict[str, Any]:
        """The parts by name, as :func:`lacunar.save` writes them and the constructor takes them."""
        parts = {"encoders": dict(self.named_encoders()), "completion": self.completion}
        return {**parts, "fusion": self.fusion, "head": self.head, "task": self.task, "inputs": self.inputs}

    def with_parts(self, **parts: nn.Module | None) -> MultimodalModel:
        """The model with other parts in the place of its own; all else is shared, nothing is copied.

        A class that only adds a constructor gives a plain :class:`MultimodalModel` of the same parts.

        Args:
            parts: ``completion``, ``fusion`` or ``head``.

        Raises:
            ConfigError: a class with a constructor of its own that computes in its own way, too.
        """
        kind = type(self)
        if kind.__init__ is not MultimodalModel.__init__:
            own = [name for name in _COMPUTES if getattr(kind, name) is not getattr(MultimodalModel, name)]
            if own:
                raise ConfigError(
                    f"{kind.__name__} has a constructor and {', '.join(own)} of its own, which a method that brings "
                    f"{', '.join(parts)} cannot keep. Give the class a method with_parts(**parts) that returns the "
                    "model with these parts, or train it with a method that brings none, such as Joint or MCE."
                )
            kind = MultimodalModel
        return kind(**{**MultimodalModel.configuration(self), **parts})  # type: ignore[arg-type]

    def _check_inputs(self, batch: Batch) -> None:
        if batch.names != self.names:
            raise DataError(f"The model was built for the modalities {self.names}, the batch has {batch.names}.")
        dense = self.task is not None and self.task.kind == "segmentation"
        for name, facts in (self.inputs or {}).items():
            if not len(batch.inputs[name]):
                continue  # where nothing is there, nothing is known of its shape
            steps = facts["kind"] in ("sequence", "tokens")
            expected, found = tuple(facts["shape"]), tuple(batch.inputs[name].shape[1 + steps :])
            size = slice(1) if dense else slice(None)  # label maps may be of any size
            if expected[size] != found[size] or steps != (name in batch.lengths):
                raise DataError(
                    f"Modality {name!r}: the model was trained on {facts['kind']} samples of shape {expected}"
                    f"{' a step' if steps else ''}, these have {found}. "
                    "Give the same columns, or files of the same kind and size, as in training."
                )


def input_facts(data: MultimodalDataset) -> dict[str, dict[str, Any]]:
    """The kind and the shape of a sample (sequences without their steps) of each modality, as plain data."""
    return {name: {"kind": data.kinds[name], "shape": list(data.shapes[name])} for name in data.names}


def available_pairs(lattice: Lattice, batch: Batch) -> Pairs:
    """Each sample of a batch with everything it has, one pair per sample.

    Raises:
        DataError: when a sample has nothing.
    """
    codes = lattice.encode(batch.present)
    if (codes == 0).any():
        row = int(batch.index[codes == 0][0])
        raise DataError(
            f"Sample {row} has none of the modalities {lattice.names}: there is nothing to predict from. "
            "Leave it out, or use lacunar.predict, which gives such samples the prior and says so."
        )
    return Pairs(torch.arange(len(batch), device=batch.device), codes)
