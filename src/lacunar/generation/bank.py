"""A bank of vectors, one for each pattern of availability and each absent modality (Flex-MoE)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lacunar.arguments import at_least
from lacunar.errors import DataError
from lacunar.generation.base import Completer
from lacunar.lattice import MAX_TABLE, Lattice

__all__ = ["PatternBank"]


class PatternBank(Completer):
    """Fills an absent modality with a vector that depends on which modalities are there, and on nothing else.

    Constant per pattern: two samples with the same modalities get the same filling, so it carries no information
    about the sample beyond its pattern. Whatever a model gains from it, it gains because the vector tells the model
    what is missing, or from training, never because a missing value was recovered.

    An entry is the mean of the modality over the training samples that have it along with all of the pattern; where
    they are fewer than ``min_rows``, over all that have the modality. Fitted inside a model the entries are
    parameters, with these means to begin with, so that an optimiser can train them through ``complete_features``.

    Args:
        min_rows: fewest training samples for a mean of their own.
        seed: not used; nothing is random.
    """

    name: ClassVar[str] = "bank"

    def __init__(self, min_rows: int = 10, seed: int = 0):
        super().__init__(seed)
        at_least(1, min_rows=min_rows)
        self.min_rows = min_rows

    def _fit(self, views: list[Tensor], present: Tensor, target: Tensor | None) -> None:
        lattice = Lattice(self.names)
        if lattice.M > MAX_TABLE:
            raise DataError(
                f"PatternBank: {lattice.M} modalities have 2^{lattice.M} patterns, the bank holds those of up to "
                f"{MAX_TABLE}. Use the mean or ridge completer."
            )
        codes = lattice.encode(present)
        for m, view in enumerate(views):
            having = present[:, m]
            # Sums over the rows of each pattern, and how many there are; then over the rows that have it and more.
            rows = torch.cat([view[having], view.new_ones(int(having.sum()), 1)], 1)
            sums = view.new_zeros(2**lattice.M, rows.shape[1]).index_add(0, codes[having], rows)
            for bit in range(lattice.M):
                halves = sums.unflatten(0, (-1, 2, 2**bit))
                halves[:, 0] += halves[:, 1]
            count = sums[:, -1:]
            entries = torch.where(count >= self.min_rows, sums[:, :-1] / count.clamp(min=1), 0.0)
            self._keep(f"entries{m}", entries, learnable=self.inside_model)

    def _fill(self, views: list[Tensor], present: Tensor) -> list[Tensor]:
        codes = Lattice(self.names).encode(present)
        return [getattr(self, f"entries{m}")[codes] for m in range(len(views))]
