"""Zeros where a modality is absent."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lacunar.generation.base import Completer

__all__ = ["ZeroCompleter"]


class ZeroCompleter(Completer):
    """Fills absent cells with zeros, in the units of the data.

    Inside a model absent features are zeros already, so that this is the same as not filling, unless a part of the
    model looks at presence: without a completion, :class:`lacunar.models.MeanFusion` leaves absent features out of its
    mean, and counts the zeros that were filled in.

    Args:
        seed: not used; nothing is random.
    """

    name: ClassVar[str] = "zero"
    standardise: ClassVar[bool] = False

    def _fit(self, views: list[Tensor], present: Tensor, target: Tensor | None) -> None:
        pass  # there is nothing to learn

    def _fill(self, views: list[Tensor], present: Tensor) -> list[Tensor]:
        return [torch.zeros_like(view) for view in views]
