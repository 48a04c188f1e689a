"""Which samples each subset is trained on, so that subsets that are observed unequally often are compared fairly."""

from __future__ import annotations

import hashlib

import numpy as np

from lacunar.data.dataset import MultimodalDataset
from lacunar.lattice import Lattice

__all__ = ["balanced_order", "equal_size", "having", "rows_for"]


def having(data: MultimodalDataset, code: int) -> np.ndarray:
    """Positions of the samples that have all of a subset, int64."""
    present = data.present.numpy()
    members = [m for m in range(present.shape[1]) if code >> m & 1]
    return np.flatnonzero(present[:, members].all(axis=1))


def balanced_order(data: MultimodalDataset, seed: int) -> np.ndarray:
    """A random order of the samples whose every beginning holds the classes in nearly their proportions.

    It depends on ids and seed, not on the order of the samples, so that the samples of a smaller size are among those
    of a larger one.
    """
    key = [hashlib.sha256(f"{seed}\0{sample}".encode()).digest() for sample in data.ids.tolist()]
    order = np.array(sorted(range(len(key)), key=key.__getitem__), dtype=np.int64)
    if data.task is None or data.task.kind != "classification" or data.target is None:
        return order
    labels = data.target.numpy()[order]
    place = np.empty(len(order))
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        place[own] = (np.arange(len(own)) + 0.5) / len(own)
    return order[np.argsort(place, kind="stable")]


def rows_for(order: np.ndarray, rows: np.ndarray, labels: np.ndarray | None, size: int | None) -> np.ndarray:
    """The first ``size`` of some rows in an order; all of them when ``size`` is None.

    Where the classes are known, the first samples of each class among ``rows`` come as early as their share of
    ``rows`` says, so that no class is lost because the subset is observed more often in another.
    """
    wanted = order[np.isin(order, rows)]
    if labels is not None and len(wanted):
        own = labels[wanted]
        place = np.empty(len(wanted))
        for label in np.unique(own):
            mine = np.flatnonzero(own == label)
            place[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
        wanted = wanted[np.argsort(place, kind="stable")]
    return wanted if size is None else wanted[:size]


def equal_size(data: MultimodalDataset, lattice: Lattice, codes: list[int], fewest: int) -> int | None:
    """The smallest number of samples that a subset has, among those that have at least ``fewest``; None if none has."""
    counts = [len(having(data, code)) for code in codes]
    usable = [count for count in counts if count >= fewest]
    return min(usable) if usable else None
