"""The completion module of MCE (Eq. 15): what is there refines itself and fills in what is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lacunar.errors import ConfigError
from lacunar.models.configurable import Configurable

__all__ = ["TokenTransformer", "divisor_of"]


#: Heads at least this wide go through the attention kernel of torch, which is as fast or faster there.
WIDE = 16


def divisor_of(number: int, at_most: int) -> int:
    """The largest divisor of ``number`` that is not above ``at_most``."""
    return next(d for d in range(min(at_most, number), 0, -1) if number % d == 0)


class TokenTransformer(Configurable):
    """One pre-norm transformer block over the M modality tokens, at each spatial position on its own.

    ``x = x + pos; x = x + drop(attention(LN x)); x = x + FFN(LN x)`` with attention without biases in its queries,
    keys and values, and a GELU in the FFN. Eq. 15 as printed leaves out the norms and a residual; the released code
    has them, and so has this. Absent tokens enter as zeros plus their position and are attended to like all others.

    Args:
        features: width C of one modality.
        heads: attention heads, reduced to a divisor of ``features``.
        hidden: width of the FFN; ``4 * features`` when left out.
        dropout: rate on what attention adds.
        modalities: their number M; :class:`MultimodalModel` says it through :meth:`bind` when left out.

    Shapes:
        ``(P, M, C, *spatial)``, presence ``(P, M)`` -> ``(P, M, C, *spatial)``.
    """

    def __init__(
        self,
        features: int,
        heads: int = 8,
        hidden: int | None = None,
        dropout: float = 0.1,
        modalities: int | None = None,
    ):
        super().__init__()
        self.features, self.heads = features, divisor_of(features, heads)
        # Sized by bind(); a parameter from the start, so that it keeps its place in the state.
        self.pos = nn.Parameter(torch.zeros(1, modalities or 0, features))
        self.attention_norm = nn.LayerNorm(features)
        self.qkv = nn.Linear(features, 3 * features, bias=False)
        self.project = nn.Linear(features, features)
        self.dropout = nn.Dropout(dropout)
        self.ffn = nn.Sequential(
            nn.LayerNorm(features),
            nn.Linear(features, hidden or 4 * features),
            nn.GELU(),
            nn.Linear(hidden or 4 * features, features),
        )

    def bind(self, names: Sequence[str]) -> TokenTransformer:
        """Size the positions for these modalities; doing it again for as many changes nothing.

        Raises:
            ConfigError: when the module already serves another number of modalities.
        """
        if self.pos.shape[1] == 0:
            self.pos = nn.Parameter(self.pos.new_zeros(1, len(names), self.features))
        elif self.pos.shape[1] != len(names):
            raise ConfigError(
                f"TokenTransformer: built for {self.pos.shape[1]} modalities, asked to serve {len(names)} "
                f"({', '.join(names)}). Give each model a completion module of its own."
            )
        return self

    def configuration(self) -> dict[str, Any]:
        """Constructor arguments, the number of modalities included once it is known."""
        return {**super().configuration(), "modalities": self.pos.shape[1] or None}

    def extra_repr(self) -> str:
        return f"{self.features}, heads={self.heads}, modalities={self.pos.shape[1]}"

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """Refined tokens of ``h (P, M, C, *spatial)``, which holds zeros where ``present (P, M)`` is False.

        Raises:
            ConfigError: for another number of modalities or features than the module was built for.
        """
        if h.shape[1:3] != self.pos.shape[1:]:
            built, got = tuple(self.pos.shape[1:]), tuple(h.shape[1:3])
            remedy = " Call bind(names) first." if built[0] == 0 else ""
            raise ConfigError(f"TokenTransformer: built for (M, C) = {built}, got {got}.{remedy}")
        spatial = h.shape[3:]
        # (M, positions, C): the M tokens of a position lie far apart, positions next to each other.
        tokens = (h.flatten(3).permute(1, 0, 3, 2) if spatial else h.transpose(0, 1)).flatten(1, -2)
        x = tokens + self.pos.squeeze(0).unsqueeze(1)
        x = x + self.dropout(self._attend(self.attention_norm(x)))
        x = x + self.ffn(x)
        if spatial:
            return (
                x.view(h.shape[1], len(h), math.prod(spatial), self.features).permute(1, 0, 3, 2).unflatten(3, spatial)
            )
        return x.transpose(0, 1)

    def _attend(self, x: Tensor) -> Tensor:
        """Multi-head attention across the tokens of each position, ``(M, N, C) -> (M, N, C)``."""
        return self._attend_wide(x) if self.features // self.heads >= WIDE else self._attend_narrow(x)

    def _attend_wide(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = qkv.permute(2, 1, 3, 0, 4).unbind(0)
        attended = functional.scaled_dot_product_attention(queries, keys, values)
        return self.project(attended.permute(2, 0, 1, 3).flatten(2))

    def _attend_narrow(self, x: Tensor) -> Tensor:
        # With two to ten tokens and narrow heads the kernel's products are tiny. Features first and positions last,
        # one token of keys at a time, they become long elementwise operations: about half the time of the block on
        # a CPU for label maps (15 pairs, 4 modalities, 16 channels, 20 x 20 x 20 positions, 8 heads).
        count, positions, features = x.shape
        width = features // self.heads
        qkv = functional.linear(self.qkv.weight, x.flatten(0, 1))
        queries, keys, values = qkv.view(3, self.heads, width, count, positions).unbind(0)
        queries = queries * width**-0.5
        scores = torch.stack([(queries * key.unsqueeze(2)).sum(1) for key in keys.unbind(2)])
        weights = scores.softmax(0).unsqueeze(2)
        attended = torch.zeros_like(queries)
        for weight, value in zip(weights.unbind(0), values.unbind(2)):
            attended = attended + weight * value.unsqueeze(2)
        return self.project(attended.reshape(features, count * positions).t()).view(count, positions, features)
