"""Normalisation that survives a batch of 0 or 1 rows."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from lacunar.errors import ConfigError


class GuardedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm that falls back to its running statistics when the batch has none of its own.

    With 0 rows the plain layer writes NaN into its running statistics, with a single value per channel it refuses.
    Fewer than two values per channel are normalised as in evaluation, and the statistics stay as they are.
    """

    def forward(self, input: Tensor) -> Tensor:
        values = input.shape[0] * math.prod(input.shape[2:])
        if not self.training or values > 1:
            return super().forward(input)
        return functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


def groups_of(channels: int) -> int:
    """Up to four groups of at least two channels: a group of one value cannot be normalised."""
    return next(groups for groups in (4, 3, 2, 1) if groups == 1 or (channels % groups == 0 and channels >= 2 * groups))


def norm2d(name: str, channels: int) -> nn.Module:
    """A normalisation layer over maps: ``"group"`` (knows no batch) or ``"batch"`` (guarded).

    Raises:
        ConfigError: for another name.
    """
    if name == "group":
        return nn.GroupNorm(groups_of(channels), channels)
    if name == "batch":
        return GuardedBatchNorm2d(channels)
    raise ConfigError(f"norm is 'group' or 'batch', got {name!r}.")
