"""Reading a table from a file, as it is: ids stay text, and empty cells stay empty."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd

from lacunar.errors import DataError, LacunarError, MissingExtraError

__all__ = ["read_table"]

# What counts as an empty cell of a text file, besides nothing at all.
NOTHING = ["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "-nan", "NULL", "null", "None"]


def read_table(
    path: Path, ids: Collection[str] = (), texts: Mapping[str, Collection[str]] | None = None
) -> pd.DataFrame:
    """A CSV, TSV or Parquet file as a frame.

    Args:
        path: the file; its ending says what it is.
        ids: columns that are read as text in which nothing but an empty cell is missing (leading zeros and an id
            "NA" stay what they are). Elsewhere NA, NaN, null and None are empty cells too.
        texts: further columns, or patterns of them, that are read as text, each with words that are no empty cells
            there, such as a level "None".

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
            for column in ids:
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
        known = dict(texts or {})
        for pattern in [name for name in known if set("*?[") & set(name)]:
            known |= {
                column: known[pattern] for column in header if column not in known and fnmatchcase(column, pattern)
            }
        empty = {column: [word for word in NOTHING if word not in known.get(column, ())] for column in header}
        empty |= {column: [""] for column in ids}
        return pd.read_csv(
            path,
            sep=separator,
            encoding="utf-8-sig",
            dtype={column: str for column in header if column in ids or column in known},
            keep_default_na=False,
            na_values=empty,
            index_col=False,
            low_memory=False,
            skip_blank_lines=len(header) != 1,  # the empty cell of a single column is a blank line
        )
    except LacunarError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be read as a table ({reason}).") from error
