"""What the encoders of sequences share: nothing they return may depend on padding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lacunar.errors import DataError

SMALLEST_BUCKET = 16
BUCKETS = 4


def real_steps(lengths: Tensor, steps: int) -> Tensor:
    """Which of ``steps`` positions are real in each row, boolean, shape ``(n, steps)``."""
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(1)


def embed(x: Tensor, embedding: nn.Embedding | None, in_features: int, lengths: Tensor | None) -> Tensor:
    """Steps as vectors ``(n, T, in_features)`` with zeros where ``x`` is padding.

    Raises:
        DataError: for integer tokens without a vocabulary, for a token outside it, or steps of another width.
    """
    if embedding is not None:
        try:
            x = embedding(x.long())
        except IndexError:
            known = embedding.num_embeddings
            raise DataError(
                f"Expected tokens from 0 to {known - 1}, got {int(x.min())} to {int(x.max())}. "
                f"Build the encoder with vocabulary={int(x.max()) + 1} or more."
            ) from None
    elif not x.is_floating_point():
        raise DataError(
            f"Expected steps of {in_features} numbers, got integer tokens. Build the encoder with vocabulary=N."
        )
    elif x.ndim != 3 or x.shape[2] != in_features:
        raise DataError(f"Expected sequences of shape (n, T, {in_features}), got {tuple(x.shape)}.")
    if lengths is None:
        return x
    # Assignment, not a product: padding may hold NaN.
    return x.masked_fill(~real_steps(lengths, x.shape[1]).unsqueeze(2), 0.0)


def in_buckets(run: Callable[[Tensor, Tensor], Tensor], x: Tensor, lengths: Tensor | None) -> Tensor:
    """``run`` on rows of similar lengths at a time, each bucket cut to its own longest row.

    Padding costs as much as data. On a CPU the rows are sorted by length and cut into up to four buckets of at
    least 16 rows; on other devices lengths stay on the device, and one call serves all rows.

    Args:
        run: from ``(n, T, F)`` and lengths ``(n,)`` to ``(n, C)``.
        x: padded sequences, shape ``(n, T, F)``.
        lengths: real steps of each row, shape ``(n,)``; None when all steps are real.
    """
    count, steps = x.shape[:2]
    if lengths is None:
        return run(x, torch.full((count,), steps, device=x.device))
    lengths = lengths.clamp(min=1)
    if x.device.type != "cpu" or count == 0:
        return run(x, lengths)
    longest = int(lengths.max())
    buckets = min(BUCKETS, count // SMALLEST_BUCKET)
    if buckets < 2 or int(lengths.min()) == longest:
        return run(x[:, :longest], lengths)
    order = lengths.argsort(descending=True, stable=True)
    parts = [run(x[rows][:, : int(lengths[rows[0]])], lengths[rows]) for rows in order.chunk(buckets)]
    return torch.cat(parts)[order.argsort()]


def max_over_steps(x: Tensor, lengths: Tensor) -> Tensor:
    """Largest value over the real steps of ``x (n, T, C)``, shape ``(n, C)``."""
    outside = ~real_steps(lengths, x.shape[1]).unsqueeze(2)
    # ``max`` rather than ``amax``: its gradient goes to one step, and is cheaper.
    return x.masked_fill(outside, -torch.inf).max(1).values


def mean_over_steps(x: Tensor, lengths: Tensor) -> Tensor:
    """Mean over the real steps of ``x (n, T, C)``, shape ``(n, C)``."""
    real = real_steps(lengths, x.shape[1]).unsqueeze(2)
    return x.masked_fill(~real, 0.0).sum(1) / lengths.unsqueeze(1)
