"""Reading a table from a file, as it is: ids stay text, and empty cells stay empty."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

from lacunar.errors import DataError, LacunarError, MissingExtraError

__all__ = ["read_table"]

# What counts as an empty cell of a text file, besides nothing at all.
NOTHING = ["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "-nan", "NULL", "null", "None"]


def read_table(path: Path, ids: list[str] | None = None, texts: list[str] | None = None) -> pd.DataFrame:
    """A CSV, TSV or Parquet file as a frame.

    Args:
        path: the file; its ending says what it is.
        ids: columns that are read as text in which nothing but an empty cell is missing (leading zeros and an id
            "NA" stay what they are). Elsewhere NA, NaN, null and None are empty cells too.
        texts: further columns that are read as text.

    Raises:
        DataError: no such file, or one that cannot be read.
        MissingExtraError: a Parquet file without pyarrow.
    """
    if not path.is_file():
        raise DataError(f"Table not found: {path}.")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            try:
                import pyarrow  # noqa: F401
            except ImportError as error:
                raise MissingExtraError("pyarrow", "parquet", "Reading Parquet tables") from error
            frame = pd.read_parquet(path)
            for column in ids or ():
                if column in frame:
                    frame[column] = frame[column].map(str, na_action="ignore")
            return frame
        if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
            raise DataError(f"{path}: expected a table as .csv, .tsv or .parquet.")
        separator = "," if path.suffix.lower() == ".csv" else "\t"
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file, delimiter=separator), [])
            other = next((mark for mark in ";\t," if len(header) == 1 and mark in header[0]), None)
            if other is not None:
                raise DataError(
                    f"{path}: the cells are separated by {other!r}, expected {separator!r}. "
                    "Save it with commas as .csv, or with tabs as .tsv."
                )
            for number, cells in enumerate(csv.reader(file, delimiter=separator), start=1):
                if cells and len(cells) != len(header):
                    raise DataError(
                        f"{path}: row {number} after the header has {len(cells)} cells, expected {len(header)}. "
                        "The file is damaged, or a text that holds the separator is not in quotes."
                    )
        repeated = [column for column in dict.fromkeys(header) if header.count(column) > 1]
        if repeated:
            raise DataError(f"{path}: more than one column is named {repeated[0]!r}. Rename them.")
        verbatim = set(ids or ())
        text = {column: str for column in header if column in verbatim or column in set(texts or ())}
        return pd.read_csv(
            path,
            sep=separator,
            encoding="utf-8-sig",
            dtype=text,
            keep_default_na=False,
            na_values={column: [""] if column in verbatim else NOTHING for column in header},
            index_col=False,
            low_memory=False,
        )
    except LacunarError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be read as a table ({reason}).") from error
