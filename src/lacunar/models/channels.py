"""Layers along the channels of features, at every position of space alike."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lacunar.models.configurable import Configurable

__all__ = ["ChannelMLP", "ResidualCascade"]


class ChannelMLP(Configurable):
    """Linear layers with GELU between them, along the channels.

    Args:
        widths: of input, hidden layers and output.
        dropout: rate after each hidden layer.
        dim: the axis of the channels.

    Shapes:
        ``(..., C, *spatial)`` -> ``(..., C', *spatial)``.
    """

    def __init__(self, widths: Sequence[int], dropout: float = 0.0, dim: int = 1):
        super().__init__()
        self.dim = dim
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.GELU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers[:-2])

    def forward(self, x: Tensor) -> Tensor:
        """The layers applied to every position of ``x``."""
        return self.layers(x.movedim(self.dim, -1)).movedim(-1, self.dim)


class ResidualCascade(Configurable):
    """Autoencoders of which each corrects what those before have made (Tran et al., 2017).

    ``x_{i+1} = x_i + AE_i(x_i)``; the narrowest layers are the latents.

    Args:
        width: of input and output.
        hidden: widths on the way to the latents, the latents last; two thirds, a third and a sixth of the width when
            left out (384 features give 256, 128 and 64, as in MMIN).
        blocks: number of autoencoders.

    Shapes:
        ``(n, width, *spatial)`` -> output of the same shape, latents ``(n, blocks * hidden[-1], *spatial)``.
    """

    def __init__(self, width: int, hidden: Sequence[int] | None = None, blocks: int = 5):
        super().__init__()
        hidden = [max(2, round(width * share)) for share in (2 / 3, 1 / 3, 1 / 6)] if hidden is None else hidden
        self.down = nn.ModuleList([ChannelMLP([width, *hidden]) for _ in range(blocks)])
        self.up = nn.ModuleList([ChannelMLP([*reversed(hidden), width]) for _ in range(blocks)])
        self.latent_features = blocks * hidden[-1]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the cascade makes of ``x``, and its latents."""
        latents = []
        for down, up in zip(self.down, self.up):
            code = down(x)
            latents.append(code)
            x = x + up(nn.functional.gelu(code))
        return x, torch.cat(latents, 1)
