"""TCGA breast cancer: subtype from four kinds of measurements."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lacunar.data.arrays import from_arrays
from lacunar.data.dataset import MultimodalDataset
from lacunar.datasets._card import with_card
from lacunar.datasets._folders import find_folder, numbers, read_table
from lacunar.errors import DataError

__all__ = ["tcga_brca"]

NAMES = ("rna", "methylation", "mirna", "clinical")


def tcga_brca(folder: str | Path | None = None) -> MultimodalDataset:
    """Four vector modalities, ``rna``, ``methylation``, ``mirna`` and ``clinical``, and five tumour subtypes.

    Rows are joined by patient id: a patient who is not in a table lacks that modality.

    Args:
        folder: where ``rna.csv``, ``methylation.csv``, ``mirna.csv``, ``clinical.csv`` and ``target.csv`` lie.

    Raises:
        DataError: missing or damaged files, a patient listed twice, or a clinical row with some empty cells.
    """
    place = find_folder("tcga_brca", folder, [f"{name}.csv" for name in (*NAMES, "target")])
    tables = {name: read_table(place / f"{name}.csv", index_col=0) for name in (*NAMES, "target")}
    for name, table in tables.items():
        if table.index.has_duplicates:
            twice = table.index[table.index.duplicated()][0]
            raise DataError(f"tcga_brca: patient {twice!r} occurs more than once in {name}.csv.")
    target = tables.pop("target")
    patients = target.index
    subtype = numbers(place / "target.csv", target.iloc[:, [0]])[:, 0]
    if np.isnan(subtype).any():
        patient = patients[np.flatnonzero(np.isnan(subtype))[0]]
        raise DataError(
            f"tcga_brca: expected a subtype for every patient, got an empty cell for {patient!r} in target.csv."
        )
    columns = {name: numbers(place / f"{name}.csv", table.reindex(patients)) for name, table in tables.items()}
    data = from_arrays(
        columns,
        subtype.astype(np.int64),
        ids=patients.tolist(),
        task="classification",
        name="tcga_brca",
    )
    unknown = [column for column in map(str, tables["clinical"].columns) if column.endswith("_nan")]
    coded = int((tables["clinical"][unknown] == 1).to_numpy().sum())
    with_card(
        data,
        title="TCGA breast cancer, multi-omics and clinical",
        source="The Cancer Genome Atlas, BRCA; features chosen by the source",
        licence="CC BY-NC-ND 4.0",
        cautions=(
            "uneven classes: report balanced accuracy beside accuracy",
            f"{coded} unknown clinical answers are coded by the source as categories of their own "
            f"({', '.join(unknown)}); numbers have no gap, and whether the source filled some is unknown",
            "the files number the subtypes and do not name them",
        ),
    )
    return data
