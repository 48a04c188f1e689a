"""All tokens side by side."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lacunar.errors import ConfigError
from lacunar.models.configurable import Configurable

__all__ = ["ConcatFusion"]


class ConcatFusion(Configurable):
    """The features of all modalities side by side, in lattice order, absent ones as they come.

    Args:
        features: width C of one modality.
        modalities: their number M; :class:`MultimodalModel` says it through :meth:`bind` when left out.

    Shapes:
        ``(P, M, C, *spatial)``, presence ``(P, M)`` -> ``(P, M * C, *spatial)``.
    """

    def __init__(self, features: int, modalities: int | None = None):
        super().__init__()
        self.features, self.modalities = features, modalities

    def bind(self, names: Sequence[str]) -> ConcatFusion:
        """Learn how many modalities there are; :class:`MultimodalModel` does it."""
        self.modalities = len(names)
        return self

    @property
    def out_features(self) -> int:
        """Width ``M * C`` of the result.

        Raises:
            ConfigError: before the number of modalities is known.
        """
        if self.modalities is None:
            raise ConfigError("ConcatFusion: its width is unknown until modalities= or bind(names) says how many.")
        return self.modalities * self.features

    def extra_repr(self) -> str:
        return f"{self.features}"

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """Fused features of tokens ``h (P, M, C, *spatial)``."""
        return h.flatten(1, 2)
