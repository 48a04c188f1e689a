"""From standardised numbers to the units of the target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lacunar.models.configurable import Configurable

__all__ = ["Rescale"]


class Rescale(Configurable):
    """``mean + std x``, the last step of a head for regression.

    Args:
        mean: of the target in the train split, one number per output.
        std: of the target in the train split, one number per output.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32))
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """``x (P, R)`` in the units of the target."""
        return self.mean + self.std * x  # type: ignore[operator]
