"""The sound network of the AudiovisionMNIST protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from lacunar.errors import ConfigError
from lacunar.models.configurable import Configurable
from lacunar.models.encoders._norms import norm2d

__all__ = ["SoundNet"]


class SoundNet(Configurable):
    """Three 2 x 2 convolutions (32, 48, 20 maps) over a spectrogram: the protocol's "SNet+".

    The protocol normalises with BatchNorm, which makes a row's training loss depend on its batch-mates. The default
    is GroupNorm with four groups, which does not; ``norm="batch"`` is the protocol's, guarded so that a batch of 0
    or 1 rows neither fails nor spoils the running statistics. A 20 x 20 input gives the protocol's 320 numbers.

    Args:
        in_shape: shape (channels, height, width) of a spectrogram, at least 5 x 5.
        out_features: width C; None returns the flattened maps without a linear layer, as the protocol does.
        norm: ``"group"`` or ``"batch"``.
        dropout: rate after pooling.

    Shapes:
        ``(n, channels, height, width)`` -> ``(n, out_features)``.
    """

    def __init__(
        self,
        in_shape: Sequence[int] = (1, 20, 20),
        out_features: int | None = 128,
        norm: str = "group",
        dropout: float = 0.25,
    ):
        super().__init__()
        if len(in_shape) != 3 or min(in_shape[1:]) < 5:
            raise ConfigError(f"SoundNet: expected spectrograms of 5 x 5 or more, got {tuple(in_shape)}.")
        layers: list[nn.Module] = []
        channels = in_shape[0]
        for width in (32, 48, 20):
            layers += [nn.Conv2d(channels, width, 2), norm2d(norm, width), nn.ReLU()]
            channels = width
        self.maps = nn.Sequential(*layers, nn.MaxPool2d(2, stride=4), nn.Dropout(dropout), nn.Flatten())
        sides = [(side - 3 - 2) // 4 + 1 for side in in_shape[1:]]
        width = channels * math.prod(sides)
        self.align = nn.Identity() if out_features is None else nn.Linear(width, out_features)
        self.out_features = width if out_features is None else out_features

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(n, C)`` of spectrograms ``x (n, channels, height, width)``."""
        return self.align(self.maps(x))
