"""UCI Multiple Features: six descriptors of the same handwritten digits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lacunar.data.arrays import from_arrays
from lacunar.data.dataset import MultimodalDataset
from lacunar.datasets._card import with_card
from lacunar.datasets._folders import find_folder, numbers, read_table
from lacunar.errors import DataError, did_you_mean

__all__ = ["mfeat"]

VIEWS = ("fou", "fac", "kar", "pix", "zer", "mor")


def mfeat(folder: str | Path | None = None, views: Sequence[str] = VIEWS) -> MultimodalDataset:
    """Six vector modalities: Fourier, profile correlations, Karhunen-Loeve, pixel averages, Zernike, morphology.

    Args:
        folder: where ``mfeat-fou.csv`` and its like lie; see :func:`lacunar.datasets.load`.
        views: which descriptors, in this order; ``("fou", "zer", "mor")`` are the weak ones.

    Raises:
        DataError: an unknown view, missing or damaged files, or files whose labels disagree.
    """
    for view in views:
        if view not in VIEWS:
            raise DataError(f"mfeat: unknown view {view!r}.{did_you_mean(view, VIEWS)}")
    place = find_folder("mfeat", folder, [f"mfeat-{view}.csv" for view in views])
    modalities: dict[str, np.ndarray] = {}
    target: np.ndarray | None = None
    for view in views:
        # The last column is the label; the header only counts the columns.
        path = place / f"mfeat-{view}.csv"
        table = numbers(path, read_table(path))
        labels = table[:, -1].astype(np.int64)
        if target is not None and not np.array_equal(labels, target):
            raise DataError(f"mfeat: the labels in mfeat-{view}.csv differ from those in mfeat-{views[0]}.csv.")
        modalities[view], target = table[:, :-1], labels
    data = from_arrays(modalities, target, task="classification", name="mfeat")
    with_card(
        data,
        title="Multiple Features (UCI mfeat)",
        source="UCI Machine Learning Repository, Multiple Features, Dutch utility maps",
        licence="CC BY 4.0",
        cautions=(
            "all views describe the same scanned picture, so they are more redundant than sensors would be",
            "rows are ordered by class and no writer is known: several digits of one writer may lie in two parts",
        ),
    )
    return data
