"""Sums in one order, so that a run on several threads can be repeated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["repeatable"]


@contextlib.contextmanager
def repeatable(accelerator: Any) -> Iterator[None]:
    """On a CPU let PyTorch add in one order: gradients of indexing are otherwise added as threads happen to come.

    Args:
        accelerator: as Lightning's Trainer takes it. On other devices all stays as the user has set it.
    """
    if accelerator != "cpu" and (accelerator != "auto" or torch.accelerator.is_available()):
        yield
        return
    was = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    checks: Any = torch.utils.deterministic
    filled = checks.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    checks.fill_uninitialized_memory = False  # takes time, and changes no number
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=only_warned)
        checks.fill_uninitialized_memory = filled
