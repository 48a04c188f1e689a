"""A modality whose absent cells were filled in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lacunar.data.columns import Column, DenseColumn, RaggedColumn

__all__ = ["FilledColumn"]


class FilledColumn(Column):
    """The observed values of a column, and generated ones for the cells that it lacks.

    Args:
        observed: the column as it was.
        generated: one value for each absent cell, in the order of the samples: a tensor ``(n_absent, ...)``, or for
            sequences a list of tensors ``(T, ...)``.
    """

    def __init__(self, observed: Column, generated: Tensor | Sequence[Tensor]):
        absent = ~observed.present
        ragged = observed.kind in ("sequence", "tokens")
        store = torch.full((len(observed),), -1, dtype=torch.int64)
        store[absent] = torch.arange(int(absent.sum()))
        made: Column
        if ragged:
            made = RaggedColumn(observed.name, observed.kind, store, list(generated))
        else:
            assert isinstance(generated, Tensor)
            made = DenseColumn(observed.name, observed.kind, store, generated)
        self._init(observed, made)

    def _init(self, observed: Column, made: Column) -> None:
        some = observed.present | made.present
        super().__init__(observed.name, observed.kind, torch.where(some, torch.arange(len(some)), -1))
        self.observed, self.made = observed, made

    @property
    def shape(self) -> tuple[int, ...]:
        return getattr(self.observed, "shape_without_steps", self.observed.shape) if self._ragged else self.made.shape

    @property
    def _ragged(self) -> bool:
        return self.kind in ("sequence", "tokens")

    @property
    def generated(self) -> Tensor:
        """Which cells were filled in, boolean, shape ``(N,)``."""
        return self.made.present

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        made = self.generated[rows]
        order = torch.cat([(~made).nonzero(), made.nonzero()]).squeeze(1).argsort()
        first, steps = self.observed.take(rows[~made])
        second, more_steps = self.made.take(rows[made])
        second = second.to(first.dtype)
        if steps is None or more_steps is None:
            return torch.cat([first, second])[order], None
        longest = max(first.shape[1], second.shape[1])
        parts = [
            torch.cat([part, part.new_zeros(len(part), longest - part.shape[1], *part.shape[2:])], 1)
            for part in (first, second)
        ]
        return torch.cat(parts)[order], torch.cat([steps, more_steps])[order]

    def select(self, rows: Tensor) -> FilledColumn:
        return self._of(self.observed.select(rows), self.made.select(rows))

    def hide(self, keep: Tensor) -> FilledColumn:
        return self._of(self.observed.hide(keep), self.made.hide(keep))

    def _of(self, observed: Column, made: Column) -> FilledColumn:
        column = FilledColumn.__new__(FilledColumn)
        column._init(observed, made)
        return column

    def _like(self, position: Tensor) -> FilledColumn:
        return self.select(position)
