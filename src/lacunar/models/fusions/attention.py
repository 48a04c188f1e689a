"""A learned query that attends over what is there."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lacunar.models.completion import divisor_of
from lacunar.models.configurable import Configurable

__all__ = ["AttentionFusion"]


class AttentionFusion(Configurable):
    """Each head weighs the tokens that are marked present, at every spatial position on its own.

    Args:
        features: width C of one modality.
        heads: attention heads, reduced to a divisor of ``features``.
        dropout: rate on the attention weights.

    Shapes:
        ``(P, M, C, *spatial)``, presence ``(P, M)`` -> ``(P, C, *spatial)``.
    """

    def __init__(self, features: int, heads: int = 4, dropout: float = 0.0):
        super().__init__()
        self.features = self.out_features = features
        self.heads = divisor_of(features, heads)
        self.norm = nn.LayerNorm(features)
        self.query = nn.Parameter(torch.randn(self.heads, features // self.heads) * 0.02)
        self.key_value = nn.Linear(features, 2 * features)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(features, features)

    def extra_repr(self) -> str:
        return f"{self.features}, heads={self.heads}"

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """Fused features of tokens ``h (P, M, C, *spatial)``; a row that has none attends to all its zeros."""
        usable = present | ~present.any(dim=1, keepdim=True)
        spatial = h.shape[3:]
        # What is absent is replaced, not multiplied: it may hold anything.
        outside = ~usable.view(*usable.shape, *[1] * (h.ndim - 2))
        tokens = h.masked_fill(outside, 0.0).flatten(3).movedim(2, -1) if spatial else h.masked_fill(outside, 0.0)
        keys, values = self.key_value(self.norm(tokens)).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        # (P, M[, positions], heads): few tokens, so plain sums are faster than batched products.
        scores = (keys * self.query).sum(-1) / math.sqrt(keys.shape[-1])
        blocked = ~usable.view(*usable.shape, *[1] * (scores.ndim - 2))
        weights = self.dropout(scores.masked_fill(blocked, -torch.inf).softmax(1))
        fused = self.project((weights.unsqueeze(-1) * values).sum(1).flatten(-2))
        return fused.movedim(-1, 1).unflatten(2, spatial) if spatial else fused
