"""A batch that holds only what was observed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lacunar.errors import DataError, did_you_mean

__all__ = ["Batch", "collate"]


@dataclass
class Batch:
    """Samples with the modalities they have, packed: an absent modality has no row anywhere.

    Attributes:
        inputs: for each modality in lattice order, the ``n_m`` rows that exist, shape ``(n_m, ...)``, in the
            order of the samples that have it.
        present: presence of each modality in each sample, boolean, shape ``(B, M)``.
        target: encoded targets, shape ``(B, ...)``, or None when they are not known.
        index: row of each sample in the data set it came from, int64, shape ``(B,)``.
        lengths: for sequence modalities, how many steps of each packed row are real, int64, shape ``(n_m,)``.
        generated: which of the present cells a completer made up, boolean, shape ``(B, M)``; none when left out.
    """

    inputs: dict[str, Tensor]
    present: Tensor
    target: Tensor | None
    index: Tensor
    lengths: dict[str, Tensor] = field(default_factory=dict)
    generated: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.generated is None:
            self.generated = torch.zeros_like(self.present)

    def __len__(self) -> int:
        return self.present.shape[0]

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names in lattice order."""
        return tuple(self.inputs)

    @property
    def device(self) -> torch.device:
        return self.present.device

    def rows(self, name: str) -> Tensor:
        """Positions in the batch of the packed rows of one modality, int64, shape ``(n_m,)``."""
        return self.present[:, self.names.index(name)].nonzero().squeeze(1)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, as a DataLoader asks for."""
        return self._map(lambda tensor: tensor.pin_memory())

    def hide(self, keep: Tensor | Iterable[str]) -> Batch:
        """The same samples with fewer modalities.

        Args:
            keep: names of the modalities that stay, or a boolean ``(B, M)`` table of the cells that stay. A cell
                that is absent stays absent.
        """
        if not isinstance(keep, Tensor):
            kept = [keep] if isinstance(keep, str) else list(keep)
            for name in kept:
                if name not in self.inputs:
                    raise DataError(f"Unknown modality {name!r}.{did_you_mean(name, self.names)}")
            keep = torch.tensor([name in kept for name in self.names], device=self.device).expand_as(self.present)
        elif keep.shape != self.present.shape:
            raise DataError(f"Expected presence of shape {tuple(self.present.shape)}, got {tuple(keep.shape)}.")
        present = self.present & keep.to(self.device)
        inputs, lengths = {}, {}
        for m, (name, rows) in enumerate(self.inputs.items()):
            stays = present[:, m][self.present[:, m]]
            inputs[name] = rows[stays]
            if name in self.lengths:
                lengths[name] = self.lengths[name][stays]
        return replace(self, inputs=inputs, present=present, lengths=lengths, generated=self.generated & present)

    def fill(self, values: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None) -> Batch:
        """The same samples with absent cells filled in and flagged as generated.

        Args:
            values: for each modality to fill, one row for every sample that lacks it, in order, ``(n_absent, ...)``.
            lengths: for sequence modalities, how many steps of each of these rows are real.
        """
        inputs, steps, present = dict(self.inputs), dict(self.lengths), self.present.clone()
        for name, rows in values.items():
            if name not in inputs:
                raise DataError(f"Unknown modality {name!r}.{did_you_mean(name, self.names)}")
            m = self.names.index(name)
            absent = ~self.present[:, m]
            if len(rows) != int(absent.sum()):
                raise DataError(
                    f"Modality {name!r}: {int(absent.sum())} cells are absent, got {len(rows)} to fill them."
                )
            order = torch.cat([self.rows(name), absent.nonzero().squeeze(1)]).argsort()
            join = _concatenate_padded if name in steps else torch.cat
            inputs[name] = join([inputs[name], rows.to(inputs[name])])[order]
            if name in steps:
                if lengths is None or name not in lengths:
                    raise DataError(f"Modality {name!r}: sequences that fill it need their lengths.")
                steps[name] = torch.cat([steps[name], lengths[name].to(steps[name])])[order]
            present[:, m] = True
        generated = self.generated | (present & ~self.present)
        return replace(self, inputs=inputs, lengths=steps, present=present, generated=generated)

    def dense(self, fill: float = 0.0) -> dict[str, Tensor]:
        """Every modality with one row per sample, shape ``(B, ...)``, absent rows filled with ``fill``."""
        filled = {}
        for name, rows in self.inputs.items():
            everything = rows.new_full((len(self), *rows.shape[1:]), fill)
            filled[name] = everything.index_copy(0, self.rows(name), rows)
        return filled

    def _map(self, move) -> Batch:
        return Batch(
            inputs={name: move(rows) for name, rows in self.inputs.items()},
            present=move(self.present),
            target=None if self.target is None else move(self.target),
            index=move(self.index),
            lengths={name: move(steps) for name, steps in self.lengths.items()},
            generated=move(self.generated),
        )


def _concatenate_padded(parts: Sequence[Tensor]) -> Tensor:
    """Rows of several batches below each other; the shorter sequences are padded with zeros to the longest."""
    longest = max(part.shape[1] for part in parts)
    padded = []
    for part in parts:
        missing = longest - part.shape[1]
        padded.append(
            torch.cat([part, part.new_zeros(part.shape[0], missing, *part.shape[2:])], dim=1) if missing else part
        )
    return torch.cat(padded)


def collate(samples: Batch | Sequence[Batch]) -> Batch:
    """The ``collate_fn`` of a DataLoader over a :class:`MultimodalDataset`.

    The data set already answers a list of rows with one packed batch; single samples are joined here.
    """
    if isinstance(samples, Batch):
        return samples
    first = samples[0]
    if any(sample.names != first.names for sample in samples):
        raise DataError(f"Expected batches of the modalities {first.names}, got {[s.names for s in samples]}.")
    join = {name: _concatenate_padded if name in first.lengths else torch.cat for name in first.names}
    known = [sample.target for sample in samples if sample.target is not None]
    return Batch(
        inputs={name: join[name]([sample.inputs[name] for sample in samples]) for name in first.names},
        present=torch.cat([sample.present for sample in samples]),
        target=torch.cat(known) if len(known) == len(samples) else None,
        index=torch.cat([sample.index for sample in samples]),
        lengths={name: torch.cat([sample.lengths[name] for sample in samples]) for name in first.lengths},
        generated=torch.cat([sample.generated for sample in samples]),
    )
