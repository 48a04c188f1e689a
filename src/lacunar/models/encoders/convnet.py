"""A small convolutional encoder for images of any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lacunar.models.configurable import Configurable
from lacunar.models.encoders._norms import norm2d

__all__ = ["ConvNet"]


class ConvNet(Configurable):
    """3 x 3 convolutions that halve the image at every stage, pooled to one vector.

    Args:
        in_channels: channels of an image.
        out_features: width C of the features.
        widths: maps of each stage; all but the first halve the height and width.
        dropout: rate before the last layer.

    Shapes:
        ``(n, in_channels, height, width)`` -> ``(n, out_features)``.
    """

    def __init__(
        self, in_channels: int, out_features: int, widths: Sequence[int] = (32, 64, 128), dropout: float = 0.0
    ):
        super().__init__()
        self.out_features = out_features
        layers: list[nn.Module] = []
        channels = in_channels
        for stage, width in enumerate(widths):
            stride = 2 if stage else 1
            layers += [nn.Conv2d(channels, width, 3, stride, padding=1), norm2d("group", width), nn.GELU()]
            channels = width
        self.maps = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(2 * channels, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(n, C)`` of images ``x (n, channels, height, width)``."""
        maps = self.maps(x).flatten(2)
        return self.project(self.dropout(torch.cat([maps.mean(2), maps.max(2).values], dim=1)))
