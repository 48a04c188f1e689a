"""An encoder of vectors, or of anything flattened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lacunar.errors import ConfigError, DataError
from lacunar.models.configurable import Configurable

__all__ = ["MLP", "activation_named"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}


def activation_named(name: str) -> nn.Module:
    """A new activation module by its name.

    Raises:
        ConfigError: for an unknown name.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(f"Unknown activation {name!r}; expected one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]()


class MLP(Configurable):
    """Fully connected layers with LayerNorm, which knows no batch.

    Args:
        in_features: width of a row, or its shape; ``x`` is flattened from its second dimension on.
        out_features: width C of the features.
        hidden: widths of the layers before the last.
        dropout: rate after every layer but the last.
        activation: ``"gelu"``, ``"relu"``, ``"tanh"`` or ``"silu"``.
        norm: whether a LayerNorm follows every linear layer.

    Shapes:
        ``(n, in_features)`` or ``(n, ...)`` -> ``(n, out_features)``.
    """

    def __init__(
        self,
        in_features: int | Sequence[int],
        out_features: int,
        hidden: int | Sequence[int] = (128,),
        dropout: float = 0.0,
        activation: str = "gelu",
        norm: bool = True,
    ):
        super().__init__()
        self.in_features = in_features if isinstance(in_features, int) else math.prod(in_features)
        self.out_features = out_features
        widths = [self.in_features, *([hidden] if isinstance(hidden, int) else hidden), out_features]
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise(widths)):
            if i and dropout:
                layers.append(nn.Dropout(dropout))
            layers.append(nn.Linear(before, after))
            if norm:
                layers.append(nn.LayerNorm(after))
            layers.append(activation_named(activation))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(n, C)`` of rows ``x (n, ...)``."""
        if math.prod(x.shape[1:]) != self.in_features:
            raise DataError(f"Expected rows of {self.in_features} numbers, got shape {tuple(x.shape[1:])}.")
        return self.layers(x.reshape(len(x), self.in_features))
