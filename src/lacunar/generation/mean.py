"""The mean of the training data where a modality is absent."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lacunar.generation.base import Completer

__all__ = ["MeanCompleter"]


class MeanCompleter(Completer):
    """Fills absent cells with the mean of each column over the training samples that have the modality.

    The same for every sample: the filling that any other has to beat.

    Args:
        seed: not used; nothing is random.
    """

    name: ClassVar[str] = "mean"

    def _fit(self, views: list[Tensor], present: Tensor, target: Tensor | None) -> None:
        pass  # standardised values have the mean 0

    def _fill(self, views: list[Tensor], present: Tensor) -> list[Tensor]:
        return [torch.zeros_like(view) for view in views]
