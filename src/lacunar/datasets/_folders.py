"""Finding and reading the files of a data set that is not shipped, with errors that say what to do."""

from __future__ import annotations

import gzip
import math
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lacunar.errors import DataError

__all__ = ["find_folder", "numbers", "read_arrays", "read_idx", "read_table"]

VARIABLE = "LACUNAR_DATA"


def find_folder(name: str, folder: str | Path | None, expected: Sequence[str]) -> Path:
    """The folder of a data set.

    Args:
        name: the data set, and its folder's name below the one that ``LACUNAR_DATA`` names.
        folder: where the files lie, or None to look there.
        expected: files that must exist, relative to the folder; a pattern such as ``"recordings/*.wav"`` must match
            at least one file.

    Raises:
        DataError: no folder is known, it does not exist, or files are missing from it.
    """
    wanted = ", ".join(expected)
    if folder is None:
        root = os.environ.get(VARIABLE)
        if not root:
            raise DataError(
                f"Data set {name!r} is not shipped with lacunar. Pass folder=..., or set the environment variable "
                f"{VARIABLE} to the folder that holds {name}/. Expected in it: {wanted}."
            )
        place, how = Path(root) / name, f"{VARIABLE}={root}"
    else:
        place, how = Path(folder), "folder="
    if not place.is_dir():
        raise DataError(f"Data set {name!r}: no folder {place} (from {how}). Expected a folder with: {wanted}.")
    missing = [pattern for pattern in expected if not any(place.glob(pattern))]
    if missing:
        raise DataError(f"Data set {name!r}: {place} has no {', '.join(missing)}. Expected: {wanted}.")
    return place


def read_table(path: Path, **options) -> pd.DataFrame:
    """A CSV file as a frame."""
    try:
        return pd.read_csv(path, **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from error


def numbers(path: Path, table: pd.DataFrame) -> np.ndarray:
    """The cells of a table as float64; ``path`` says in messages where it came from.

    Raises:
        DataError: a cell that holds no number; the message names its row and column.
    """
    try:
        return table.to_numpy(dtype=float)
    except (TypeError, ValueError):
        for column in table:
            odd = np.flatnonzero(pd.to_numeric(table[column], errors="coerce").isna() & table[column].notna())
            if len(odd):
                cell = table[column].iloc[odd[0]]
                raise DataError(
                    f"{path}: expected a number in column {column!r}, row {table.index[odd[0]]!r}, got {cell!r}. "
                    "The file is damaged; get it again."
                ) from None
        raise


def read_arrays(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Named arrays of an npz file; files that would need unpickling are refused."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            missing = [key for key in keys if key not in stored.files]
            if missing:
                raise DataError(f"{path}: expected the arrays {', '.join(keys)}; missing {', '.join(missing)}.")
            return {key: stored[key] for key in keys}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as numpy arrays without unpickling: {error}") from error


def read_idx(path: Path) -> np.ndarray:
    """An array in MNIST's gzipped IDX format, uint8."""
    try:
        with gzip.open(path, "rb") as file:
            raw = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as gzip: {error}") from error
    dimensions = raw[3] if len(raw) > 3 else 0
    if raw[:3] != b"\x00\x00\x08" or len(raw) < 4 + 4 * dimensions:
        raise DataError(f"{path} is not an IDX file of bytes.")
    shape = tuple(np.frombuffer(raw, dtype=">i4", count=dimensions, offset=4).tolist())
    values = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * dimensions)
    if values.size != math.prod(shape):
        raise DataError(f"{path}: expected {math.prod(shape)} values for shape {shape}, got {values.size}.")
    return values.reshape(shape)
