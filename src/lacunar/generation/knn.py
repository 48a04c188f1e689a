"""The average of the nearest training samples."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lacunar.arguments import at_least
from lacunar.generation.base import Completer

__all__ = ["KNNCompleter"]

#: Queries whose distances to all training rows are held at a time.
QUERIES = 256


class KNNCompleter(Completer):
    """Fills an absent modality with its average over the nearest training samples that have it.

    The distance of two samples is the mean over the modalities that both have of the mean squared difference of
    their standardised columns: wide modalities weigh no more than narrow ones, and samples that share much no more
    than samples that share little. A sample that shares nothing with any other gets the mean.

    Holds the training samples, in its state and in the files that it is saved to.

    Args:
        neighbours: how many samples are averaged; fewer where fewer have the modality.
        seed: not used; nothing is random.
    """

    name: ClassVar[str] = "knn"

    def __init__(self, neighbours: int = 10, seed: int = 0):
        super().__init__(seed)
        at_least(1, neighbours=neighbours)
        self.neighbours = neighbours

    def _fit(self, views: list[Tensor], present: Tensor, target: Tensor | None) -> None:
        self._keep("known", present)
        for m, view in enumerate(views):
            self._keep(f"rows{m}", view.nan_to_num(0.0))

    def _fill(self, views: list[Tensor], present: Tensor) -> list[Tensor]:
        made = [torch.zeros_like(view) for view in views]
        asked = (~present).any(1).nonzero().squeeze(1)
        for rows in asked.split(QUERIES):
            distance = self._distances([view[rows] for view in views], present[rows])
            for m in range(len(views)):
                lacking = ~present[rows, m]
                if lacking.any():
                    made[m][rows[lacking]] = self._average(m, distance[lacking])
        return made

    def _distances(self, views: list[Tensor], present: Tensor) -> Tensor:
        """Distances of queries to all training rows, ``(Q, N)``, infinite where they share no modality."""
        known: Tensor = self.known  # type: ignore[assignment]
        total = torch.zeros(len(present), len(known), device=present.device)
        shared = torch.zeros_like(total)
        for m, view in enumerate(views):
            both = present[:, m, None] & known[:, m]
            # Without products of matrices a distance does not depend on which other queries are asked for.
            gap = torch.cdist(view.detach().nan_to_num(0.0), self._rows_of(m), compute_mode=_EXACT)
            total += torch.where(both, gap.square() / view.shape[1], 0.0)
            shared += both
        return torch.where(shared > 0, total / shared.clamp(min=1), torch.inf)

    def _average(self, m: int, distance: Tensor) -> Tensor:
        has: Tensor = self.known[:, m]  # type: ignore[index]
        distance, rows = distance[:, has], self._rows_of(m)[has]
        near, which = distance.topk(min(self.neighbours, len(rows)), largest=False)
        weight = torch.isfinite(near).float()
        total = (rows[which] * weight[..., None]).sum(1)
        return total / weight.sum(1, keepdim=True).clamp(min=1)

    def _rows_of(self, m: int) -> Tensor:
        return getattr(self, f"rows{m}")


_EXACT = "donot_use_mm_for_euclid_dist"
