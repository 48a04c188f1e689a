"""The image network of the AudiovisionMNIST protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lacunar.errors import ConfigError
from lacunar.models.configurable import Configurable

__all__ = ["LeNet"]


class LeNet(Configurable):
    """Two 5 x 5 convolutions with pooling, then a linear layer to a common width.

    A 28 x 28 image gives the protocol's 160 numbers before the linear layer.

    Args:
        in_shape: shape (channels, height, width) of an image, at least 16 x 16.
        out_features: width C; None returns the flattened maps without a linear layer.
        dropout: rate after the second convolution.

    Shapes:
        ``(n, channels, height, width)`` -> ``(n, out_features)``.
    """

    def __init__(
        self,
        in_shape: Sequence[int] = (1, 28, 28),
        out_features: int | None = 128,
        dropout: float = 0.5,
    ):
        super().__init__()
        if len(in_shape) != 3 or min(in_shape[1:]) < 16:
            raise ConfigError(f"LeNet: expected images of 16 x 16 or more, got shape {tuple(in_shape)}.")
        self.maps = nn.Sequential(
            nn.Conv2d(in_shape[0], 5, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(5, 10, 5),
            nn.Dropout(dropout),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            width = math.prod(self.maps(torch.zeros(1, *in_shape)).shape[1:])
        self.align = nn.Identity() if out_features is None else nn.Linear(width, out_features)
        self.out_features = width if out_features is None else out_features

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(n, C)`` of images ``x (n, channels, height, width)``."""
        return self.align(self.maps(x))
