"""The network that removes noise from one modality, given any others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lacunar.models.configurable import Configurable

__all__ = ["Denoiser"]


class Denoiser(Configurable):
    """A multilayer perceptron for all modalities together.

    The available modalities are projected, added up with an embedding of each, and condition residual layers; absent
    ones are not read. Noise levels enter through fixed Fourier features.

    Args:
        sizes: width of each modality.
        hidden: width of the network.
        layers: residual layers.
        frequencies: of the noise level.
        dropout: inside the residual layers.
    """

    frequencies: Tensor

    def __init__(
        self, sizes: Sequence[int], hidden: int = 128, layers: int = 2, frequencies: int = 16, dropout: float = 0.1
    ):
        super().__init__()
        self.sizes = list(sizes)
        M = len(self.sizes)
        self.register_buffer("frequencies", 2.0 ** torch.linspace(-2, 4, frequencies) * math.pi)
        self.time = nn.Sequential(nn.Linear(2 * frequencies, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.project = nn.ModuleList(nn.Linear(size, hidden) for size in self.sizes)
        self.known = nn.Parameter(0.02 * torch.randn(M, hidden))
        self.read = nn.ModuleList(nn.Linear(size, hidden) for size in self.sizes)
        self.wanted = nn.Parameter(0.02 * torch.randn(M, hidden))
        self.condition = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden))
        self.layers = nn.ModuleList(_Layer(hidden, dropout) for _ in range(layers))
        self.write = nn.ModuleList(nn.Linear(hidden, size) for size in self.sizes)
        # A straight line from each source to each target, at target * M + source.
        self.direct = nn.ModuleList(nn.Linear(source, size, bias=False) for size in self.sizes for source in self.sizes)
        for layer in (*self.write, *self.direct):
            nn.init.zeros_(layer.weight)

    def context(self, values: Sequence[Tensor], sources: Tensor, target: int) -> tuple[Tensor, Tensor]:
        """What the sources say, once for all noise levels.

        Args:
            values: of each modality ``(n, d_m)``, finite where it is a source.
            sources: boolean, shape ``(n, M)``; the target itself is never read.
            target: number of the modality that is made.

        Returns:
            ``(n, hidden)`` for the network, and ``(n, d_target)`` straight from the sources.
        """
        n = len(sources)
        context = self.wanted[target].expand(n, -1)
        direct = context.new_zeros(n, self.sizes[target])
        for m, rows in enumerate(values):
            if m == target:
                continue
            there = sources[:, m, None]
            # Zeros replace what is absent before any layer, so that not even a gradient meets it.
            known = torch.where(there, rows, 0.0)
            context = context + torch.where(there, self.project[m](known) + self.known[m], 0.0)
            direct = direct + self.direct[target * len(self.sizes) + m](known)
        return self.condition(context), direct

    def forward(self, x: Tensor, level: Tensor, context: tuple[Tensor, Tensor], target: int) -> Tensor:
        """The clean value, the noise or whatever the loss asks for, ``(n, ..., d)``.

        Args:
            x: noised target ``(n, ..., d)``.
            level: noise level in [0, 1], of a shape that broadcasts to ``x.shape[:-1]``.
            context: from :meth:`context`, with axes of length one put in for the dots.
            target: number of the modality.
        """
        hidden, direct = context
        waves = level[..., None] * self.frequencies
        inner = self.read[target](x) + self.time(torch.cat([waves.sin(), waves.cos()], -1)) + hidden
        for layer in self.layers:
            inner = layer(inner)
        return self.write[target](nn.functional.silu(inner)) + direct


class _Layer(nn.Module):
    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.inner = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)
