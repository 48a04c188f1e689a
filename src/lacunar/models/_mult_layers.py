"""Attention over padded sequences, and the transformer stacks of MulT, whose results do not depend on padding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from lacunar.models.encoders._sequence import real_steps

__all__ = ["Attention", "Block", "Stack", "attention_mask", "positions"]


def positions(steps: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines of geometrically spaced wavelengths, one row per step, shape ``(steps, width)``."""
    half = (width + 1) // 2
    rates = torch.exp(torch.arange(half, device=like.device) * (-math.log(10_000.0) / max(half - 1, 1)))
    angles = torch.arange(steps, device=like.device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :width].to(like.dtype)


def attention_mask(
    query_lengths: Tensor, source_lengths: Tensor, queries: int, keys: int, causal: bool
) -> Tensor | None:
    """Which of the keys each query may look at, ``(n, 1, queries or 1, keys)``; None when that is all of them.

    Padded keys are never looked at. With ``causal`` the query at step i sees the keys up to ``i + |T_k - T_q|``,
    where T are the real lengths of the row. Every query sees the first key.
    """
    if not causal and source_lengths.device.type == "cpu" and bool((source_lengths >= keys).all()):
        return None
    seen = real_steps(source_lengths, keys)[:, None]
    if causal:
        reach = torch.arange(queries, device=seen.device) + (source_lengths - query_lengths).abs()[:, None]
        seen = seen & (torch.arange(keys, device=seen.device) <= reach[:, :, None])
    return seen[:, None]


class Attention(nn.Module):
    """Multi-head attention of queries ``(n, T_q, width)`` over a source ``(n, T_k, width)``; n may be 0.

    Args:
        width: of queries, source and result.
        heads: a divisor of ``width``.
        dropout: rate on the attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.source = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)
        for weight in (self.query.weight, *self.source.weight.chunk(2), self.project.weight):
            nn.init.xavier_uniform_(weight)
        for layer in (self.query, self.source, self.project):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        """``(n, T_q, width)``; ``mask`` says which keys each query sees, see :func:`attention_mask`."""
        queries = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        keys, values = self.source(source).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        rate = self.dropout if self.training else 0.0
        attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, dropout_p=rate)
        return self.project(attended.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Norm, attention, residual; norm, two layers four times as wide, residual.

    Without a source the queries look at themselves; a source goes through the same norm as the queries.
    """

    def __init__(self, width: int, heads: int, attention_dropout: float, dropout: float):
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads, attention_dropout)
        wide, narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for layer in (wide, narrow):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.ffn = nn.Sequential(nn.LayerNorm(width), wide, nn.ReLU(), nn.Dropout(dropout), narrow)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, source: Tensor | None, mask: Tensor | None, only: Tensor | None = None) -> Tensor:
        """Steps ``(n, T, width)`` after the block.

        Args:
            x: steps ``(n, T, width)``.
            source: what they look at, ``(n, T_k, width)``; None for themselves.
            mask: see :func:`attention_mask`.
            only: the one step of each row to compute, ``(n,)``: the result is ``(n, 1, width)``.
        """
        normed = self.attention_norm(x)
        keys = normed if source is None else self.attention_norm(source)
        if only is not None:
            rows = torch.arange(len(x), device=x.device)
            x, normed = x[rows, only][:, None], normed[rows, only][:, None]
            mask = mask if mask is None or mask.shape[2] == 1 else mask[rows, :, only][:, :, None]
        x = x + self.dropout(self.attention(normed, keys, mask))
        return x + self.dropout(self.ffn(x))


class Stack(nn.Module):
    """Blocks on scaled steps with positions, and a final norm.

    Args:
        width: of a step.
        heads: attention heads, a divisor of ``width``.
        layers: number of blocks, at least 1.
        attention_dropout: rate on attention weights.
        dropout: rate on what each part of a block adds, and inside its wide layers.
        embedding_dropout: rate on the steps with their positions.
        copies: how many vectors of equal width a step is made of; each gets the same position, so that their order
            means nothing.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        attention_dropout: float,
        dropout: float,
        embedding_dropout: float,
        copies: int = 1,
    ):
        super().__init__()
        self.width, self.copies = width, copies
        self.blocks = nn.ModuleList(Block(width, heads, attention_dropout, dropout) for _ in range(layers))
        self.dropout, self.norm = nn.Dropout(embedding_dropout), nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor,
        source: Tensor | None = None,
        source_lengths: Tensor | None = None,
        causal: bool = False,
        last: bool = False,
    ) -> Tensor:
        """Steps ``(n, T, width)`` that have looked at a source, or at themselves without one.

        Args:
            x: steps ``(n, T, width)`` of which ``lengths (n,)`` are real.
            lengths: at least 1.
            source: ``(n, T_k, width)``, the same in every block, of which ``source_lengths (n,)`` are real.
            source_lengths: at least 1.
            causal: see :func:`attention_mask`.
            last: only the last real step of each row, ``(n, width)``.
        """
        keys, steps = (x.shape[1], lengths) if source is None else (source.shape[1], source_lengths)
        assert steps is not None
        mask = attention_mask(lengths, steps, x.shape[1], keys, causal)
        x = self._placed(x)
        source = None if source is None else self._placed(source)
        for block in self.blocks[:-1]:
            x = block(x, source, mask)
        # Nothing but the read-out step is wanted of the last block, where most of the work would be lost.
        x = self.blocks[-1](x, source, mask, lengths - 1 if last else None)
        return self.norm(x.squeeze(1) if last else x)

    def _placed(self, x: Tensor) -> Tensor:
        code = positions(x.shape[1], self.width // self.copies, x).repeat(1, self.copies)
        return self.dropout(math.sqrt(self.width) * x + code)
