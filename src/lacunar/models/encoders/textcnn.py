"""A convolutional encoder of text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lacunar.models.configurable import Configurable
from lacunar.models.encoders._sequence import embed, in_buckets, max_over_steps

__all__ = ["TextCNN"]


class TextCNN(Configurable):
    """Convolutions of several widths over the steps, each pooled to its largest value (Kim, 2014).

    Only windows that lie inside the real steps count; a row shorter than a kernel has one window, filled up with
    zeros.

    Args:
        in_features: width of a step; with ``vocabulary``, of a token's embedding.
        out_features: width C of the features.
        kernel_sizes: widths of the convolutions.
        channels: filters of each width; ``out_features`` when left out.
        dropout: rate before the last layer.
        vocabulary: number of tokens when the steps are integers.

    Shapes:
        ``(n, T, in_features)`` or tokens ``(n, T)``, lengths ``(n,)`` -> ``(n, out_features)``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_sizes: Sequence[int] = (3, 4, 5),
        channels: int | None = None,
        dropout: float = 0.0,
        vocabulary: int | None = None,
    ):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        channels = channels or out_features
        self.embedding = None if vocabulary is None else nn.Embedding(vocabulary, in_features)
        self.convolutions = nn.ModuleList(nn.Conv1d(in_features, channels, size) for size in kernel_sizes)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(channels * len(kernel_sizes), out_features)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features ``(n, C)`` of sequences ``x (n, T, F)`` of which ``lengths (n,)`` steps are real."""
        pooled = in_buckets(self._pool, embed(x, self.embedding, self.in_features, lengths), lengths)
        return functional.relu(self.project(self.dropout(pooled)))

    def _pool(self, x: Tensor, lengths: Tensor) -> Tensor:
        pooled = []
        for convolution in self.convolutions:
            size = int(convolution.kernel_size[0])  # type: ignore[index, arg-type]
            steps = functional.pad(x, (0, 0, 0, max(0, size - x.shape[1]))).transpose(1, 2)
            windows = (lengths - size + 1).clamp(min=1)
            pooled.append(functional.relu(max_over_steps(convolution(steps).transpose(1, 2), windows)))
        return torch.cat(pooled, dim=1)
