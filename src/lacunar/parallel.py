"""Sums over all processes, so that one process and many compute the same loss."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gather_rows", "process_rank", "total", "world_size"]


def process_rank() -> int:
    """Number of this process among those that a launcher has started, before and after they have met."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    return next((int(os.environ[name]) for name in ("RANK", "LOCAL_RANK") if name in os.environ), 0)


def world_size() -> int:
    """Number of processes that train together; 1 when training is not distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def total(values: Tensor) -> Tensor:
    """Sum of a tensor over all processes, without gradient."""
    values = values.detach()
    if world_size() == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes below each other, in order of rank; processes may have different numbers of rows."""
    if world_size() == 1:
        return rows
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    longest = max(int(count) for count in counts)
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    everywhere = [torch.zeros_like(padded) for _ in counts]
    dist.all_gather(everywhere, padded)
    return torch.cat([part[: int(count)] for part, count in zip(everywhere, counts)])
