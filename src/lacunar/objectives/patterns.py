"""Random subsets of what samples have."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["random_patterns", "random_subsets"]


def random_subsets(present: Tensor) -> Tensor:
    """A subset of what each row has: a uniform size from 1 up, then a uniform subset of it, ``(B, M)`` boolean."""
    count = present.sum(1)
    size = 1 + (torch.rand(len(present), device=present.device) * count).long().clamp(max=count - 1)
    chance = torch.rand(present.shape, device=present.device).masked_fill(~present, 2.0)
    rank = chance.argsort(1).argsort(1)
    return present & (rank < size[:, None])


def random_patterns(present: Tensor, everything: bool) -> Tensor:
    """A uniformly drawn non-empty subset of what each row has, ``(B, M)``.

    Args:
        present: boolean, ``(B, M)``.
        everything: whether all that a row has may be shown; without, something is hidden of every row with more
            than one modality.
    """
    count = present.sum(1)
    patterns = (2**count - 1 - (count > 1).long() * (not everything)).clamp(min=1)
    code = 1 + (torch.rand(len(present), device=present.device, dtype=torch.float64) * patterns).long()
    # Bit k of the code speaks of the k-th modality that the row has.
    place = (present.long().cumsum(1) - 1).clamp(min=0)
    return present & (code[:, None] >> place & 1).bool()
