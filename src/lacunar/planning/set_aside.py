"""Samples to select on, set aside from those to train on: whole groups where there are any."""

from __future__ import annotations

import numpy as np

from lacunar.data.allocation import allocate
from lacunar.data.dataset import MultimodalDataset

__all__ = ["set_aside", "ungrouped"]


def set_aside(data: MultimodalDataset, rows: np.ndarray, share: float, seed: int) -> np.ndarray | None:
    """Whole groups with about a share of some samples, classes spread evenly; what is left is of other groups.

    Args:
        data: with groups.
        rows: positions of the samples.
        share: of them, in (0, 1).
        seed: of the choice, which depends on the ids and not on their order.

    Returns:
        Positions, int64; None where the samples are of one group, so that it would have to be cut.
    """
    assert data.groups is not None
    groups = data.groups[rows]
    if len(np.unique(groups)) < 2:
        return None
    labels = None
    if data.task is not None and data.task.kind == "classification" and data.target is not None:
        labels = data.target.numpy()[rows]
    return rows[allocate(data.ids[rows], np.array([1 - share, share]), labels, groups, seed) == 1]


def ungrouped(data: MultimodalDataset) -> MultimodalDataset:
    """The same samples, each on its own: for those of one group, which cannot be cut otherwise."""
    alone = data.select(np.arange(len(data)))
    alone.groups = None
    return alone
