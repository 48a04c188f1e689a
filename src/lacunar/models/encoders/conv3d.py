"""A convolutional encoder of volumes that keeps their three dimensions, for segmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lacunar.errors import ConfigError, DataError, MissingExtraError
from lacunar.models.configurable import Configurable
from lacunar.models.encoders._norms import groups_of

__all__ = ["Conv3dEncoder", "residual_unit"]


def residual_unit(channels: int, width: int, stride: int = 1, dims: int = 3) -> nn.Module:
    """MONAI's residual unit of two convolutions, 3 wide, with GroupNorm, which accepts any number of rows.

    Raises:
        MissingExtraError: when MONAI is not installed.
    """
    try:
        from monai.networks.blocks import ResidualUnit
    except ImportError as error:
        raise MissingExtraError("monai", "medical", "The network for volumes and label maps") from error
    norm: Any = ("group", {"num_groups": groups_of(width)})
    return ResidualUnit(dims, channels, width, strides=stride, subunits=2, norm=norm, act="gelu")


class Conv3dEncoder(Configurable):
    """A U-Net of residual units down to the coarsest stage and back up to the resolution that is asked for.

    Stage ``i`` works at ``1 / 2^i`` of the resolution. On the way up, maps of the coarser stage are enlarged and
    joined with those of the finer one. With ``stride = 2 ** (len(widths) - 1)`` there is no way up.

    Args:
        in_channels: channels of a volume.
        out_features: channels C of the features.
        widths: maps of each stage, finest first.
        stride: of the features, a power of two: 2 gives features at half the resolution. Sides of a volume must
            divide by ``2 ** (len(widths) - 1)``.
        pool: average over the volume and return one vector, for labels and numbers instead of label maps.
        dims: 3 for volumes; 2 for images, for label maps of images.

    Shapes:
        ``(n, in_channels, D, H, W)`` -> ``(n, out_features, D / stride, H / stride, W / stride)``, or
        ``(n, out_features)`` when pooled; without the depth for images.

    Raises:
        MissingExtraError: when MONAI is not installed (``pip install 'lacunar[medical]'``).
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_features: int = 32,
        widths: Sequence[int] = (8, 16, 32),
        stride: int = 2,
        pool: bool = False,
        dims: int = 3,
    ):
        super().__init__()
        if stride not in [2**stage for stage in range(len(widths))]:
            raise ConfigError(
                f"Conv3dEncoder: {len(widths)} stages allow the strides "
                f"{', '.join(str(2**stage) for stage in range(len(widths)))}, got {stride}."
            )
        self.out_features, self.stride, self.pool = out_features, stride, pool
        self.divisor = 2 ** (len(widths) - 1)
        before = [in_channels, *widths]
        self.down = nn.ModuleList(
            residual_unit(channels, width, 1 if stage == 0 else 2, dims)
            for stage, (channels, width) in enumerate(zip(before, widths))
        )
        # Coarsest first, as they are applied.
        finer = list(widths[int(math.log2(stride)) : -1])[::-1]
        coarser = [widths[-1], *finer]
        self.up = nn.ModuleList(residual_unit(low + fine, fine, 1, dims) for low, fine in zip(coarser, finer))
        self.project = (nn.Conv3d if dims == 3 else nn.Conv2d)(coarser[-1], out_features, 1)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, pool={self.pool}"

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(n, C, d, h, w)`` or ``(n, C)`` of volumes ``x (n, channels, D, H, W)``.

        Raises:
            DataError: when a side of the volume does not divide by ``2 ** (len(widths) - 1)``.
        """
        if any(side % self.divisor for side in x.shape[2:]):
            raise DataError(
                f"Expected {'volumes' if x.ndim == 5 else 'images'} whose sides divide by {self.divisor}, got "
                f"{tuple(x.shape[2:])}. Choose another crop, or pad them."
            )
        stages = []
        for block in self.down:
            x = block(x)
            stages.append(x)
        stages.pop()
        for block in self.up:
            enlarged = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([enlarged, stages.pop()], dim=1))
        x = self.project(x)
        return x.flatten(2).mean(2) if self.pool else x
