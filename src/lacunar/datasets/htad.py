"""HTAD: home tasks from a wrist accelerometer and a microphone."""

from __future__ import annotations

from pathlib import Path

from lacunar.data.arrays import from_arrays
from lacunar.data.dataset import MultimodalDataset
from lacunar.datasets._card import with_card
from lacunar.datasets._folders import find_folder, numbers, read_table
from lacunar.errors import DataError

__all__ = ["htad"]

PREFIXES = {"audio": "v1_", "accelerometer": "v2_"}


def htad(folder: str | Path | None = None) -> MultimodalDataset:
    """Two vector modalities, ``audio`` and ``accelerometer``, that complement each other; seven activities.

    Args:
        folder: where ``htad.csv`` lies; see :func:`lacunar.datasets.load`.
    """
    path = find_folder("htad", folder, ["htad.csv"]) / "htad.csv"
    table = read_table(path)
    columns = {name: [c for c in table.columns if c.startswith(prefix)] for name, prefix in PREFIXES.items()}
    for name, found in columns.items():
        if not found or "class" not in table:
            raise DataError(f"{path}: expected a column 'class' and columns {PREFIXES[name]}* for {name!r}.")
    data = from_arrays(
        {name: numbers(path, table[found]) for name, found in columns.items()},
        table["class"].tolist(),
        task="classification",
        name="htad",
    )
    with_card(
        data,
        title="HTAD: home-task activities",
        source="Garcia-Ceja et al., HTAD: a home-tasks activities dataset with wrist-accelerometer and audio features "
        "(doi:10.1007/978-3-030-67835-7_17)",
        licence="open for research and education; competitions and commercial use need written permission; cite the "
        "article",
        cautions=("the file names no person: windows of one person may lie in two parts of a random split",),
    )
    return data
