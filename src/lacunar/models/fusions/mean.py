"""The mean of what is there."""

from __future__ import annotations

from torch import Tensor

from lacunar.models.configurable import Configurable

__all__ = ["MeanFusion"]


class MeanFusion(Configurable):
    """The mean of the tokens that are marked present; zeros for a row that has none.

    Args:
        features: width C of one modality.

    Shapes:
        ``(P, M, C, *spatial)``, presence ``(P, M)`` -> ``(P, C, *spatial)``.
    """

    def __init__(self, features: int):
        super().__init__()
        self.features = self.out_features = features

    def extra_repr(self) -> str:
        return f"{self.features}"

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """Fused features of tokens ``h (P, M, C, *spatial)``."""
        trailing = [1] * (h.ndim - 2)
        total = h.masked_fill(~present.view(*present.shape, *trailing), 0.0).sum(1)
        return total / present.sum(1).clamp(min=1).view(-1, *trailing)
