"""ROSMAP: Alzheimer's disease from three kinds of molecular measurements."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lacunar.data.arrays import from_arrays
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits
from lacunar.datasets._card import with_card
from lacunar.datasets._folders import find_folder, numbers, read_table
from lacunar.errors import DataError

__all__ = ["rosmap"]

FILES = {"mrna": "1", "methylation": "2", "mirna": "3"}


def rosmap(
    folder: str | Path | None = None, pooled: bool = False, val: float = 0.15, seed: int = 0
) -> Splits | MultimodalDataset:
    """Three vector modalities of 200 features: ``mrna``, ``methylation`` and ``mirna``; patient or control.

    Args:
        folder: where ``1_tr.csv``, ``1_te.csv``, ``labels_tr.csv`` and their like lie.
        pooled: return all samples as one set, to be split anew, instead of the official train and test parts.
        val: share of the official train part that becomes the validation part, which the source does not have.
        seed: fixes the validation part.
    """
    expected = [f"{stem}_{part}.csv" for stem in ("1", "2", "3", "labels") for part in ("tr", "te")]
    place = find_folder("rosmap", folder, expected)
    read = {file: numbers(place / file, read_table(place / file, header=None)) for file in expected}
    counts = {part: len(read[f"labels_{part}.csv"]) for part in ("tr", "te")}
    for file, values in read.items():
        if len(values) != counts[file[-6:-4]]:
            raise DataError(
                f"rosmap: expected {counts[file[-6:-4]]} rows in {file} as in its labels, got {len(values)}."
            )
    target = np.concatenate([read["labels_tr.csv"], read["labels_te.csv"]]).astype(np.int64).ravel()
    data = from_arrays(
        {name: np.concatenate([read[f"{stem}_tr.csv"], read[f"{stem}_te.csv"]]) for name, stem in FILES.items()},
        target,
        ids=[f"{part}-{i:03d}" for part in ("tr", "te") for i in range(counts[part])],
        task="classification",
        name="rosmap",
    )
    result: Splits | MultimodalDataset = data
    if not pooled:
        rows = np.arange(len(target))
        official = {"train": rows[: counts["tr"]], "test": rows[counts["tr"] :]}
        result = data.split(indices=official, val=val, seed=seed)
    with_card(
        result,
        title="ROSMAP: Alzheimer's disease, multi-omics",
        source="ROSMAP cohort as prepared for MOGONET",
        licence="repository MIT; the cohort's own terms of use apply to the measurements",
        cautions=(
            "small: differences under .05 in accuracy mean nothing",
            "the features were chosen and scaled by the source, which does not say that the test part was left out",
        ),
    )
    return result
