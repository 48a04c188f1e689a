"""A data set from a table with one row per sample."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd

from lacunar.arguments import checked
from lacunar.data.arrays import from_arrays
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.modality_spec import ModalitySpec, parse_modalities
from lacunar.data.readers import column_from_files
from lacunar.errors import DataError, did_you_mean
from lacunar.tasks import Task
from lacunar.tasks.base import to_plain

__all__ = ["from_frame", "table_levels"]

logger = logging.getLogger(__name__)

MANY_LEVELS = 50
_BOOLEANS = {"true": 1.0, "false": 0.0}
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


@checked
def from_frame(
    frame: pd.DataFrame,
    modalities: Mapping[str, Any],
    target: str | Sequence[str] | None = None,
    *,
    id: str | None = None,
    group: str | None = None,
    subgroups: Sequence[str] | str = (),
    task: Task | str | None = None,
    root: str | os.PathLike[str] | None = None,
    name: str = "data",
    keep_empty: bool = False,
    reserved: Mapping[str, Sequence[str]] | None = None,
) -> MultimodalDataset:
    """A data set from a table with one row per sample.

    A modality is given by

    - a pattern over the column names, ``"rna_*"``, or a list of columns and patterns: a vector of their values;
    - ``{"columns": ..., "kind": ..., "shape": ..., "partial": ..., "categories": ..., "closed": ...}``: the same with
      options;
    - ``{"path": column, "reader": "npy", "kind": ..., "shape": ..., **options of the reader}``: a column of paths.

    A row whose cells are all empty does not have the modality. A row with some empty cells is an error unless
    ``partial`` says otherwise: ``"absent"`` takes the modality away from such rows, a number (or a mapping from
    column to number) fills them with that constant. Means are not offered: they would have to come from the train
    split, which a table does not know.

    Columns of text in a vector become one-hot columns, one for each level that ``categories`` lists, or else for each
    that occurs anywhere in the table (which levels exist is taken from all rows; no frequency is). Columns of
    numbers stay as they are: models scale them by the train split. Booleans are numbers, 1 and 0, also where cells are
    empty; dates are refused unless ``categories`` lists them. With ``closed: true`` every column without
    ``categories`` has to hold numbers.

    With ``kind: tokens`` a single column of text is read as characters.

    Args:
        frame: the table.
        modalities: for each modality where its values are, as above.
        target: the column to predict, or several; None when it is not known.
        id: column of unique sample ids; the index when left out.
        group: column of groups that no split may cut through.
        subgroups: columns to report results by.
        task: see :func:`lacunar.from_arrays`.
        root: folder that relative paths start from; the working directory when left out.
        name: what to call the data in reports.
        keep_empty: keep samples that have nothing.
        reserved: further columns that no modality may hold, by what they are for.

    Raises:
        DataError: a column that does not exist, is used twice or holds what it should not; a file that does not
            exist; empty target cells.
        ConfigError: an unknown option.
    """
    frame = _checked_frame(frame)
    targets = tuple(target) if isinstance(target, (list, tuple)) else () if target is None else (str(target),)
    subgroups = [subgroups] if isinstance(subgroups, str) else list(subgroups)
    roles = {"target": targets, "id": (id,) if id else (), "group": (group,) if group else ()}
    for role, wanted in {**roles, "subgroups": tuple(subgroups)}.items():
        for column in wanted:
            if column not in frame:
                raise DataError(f"{role}: no column {column!r} in the table.{did_you_mean(column, frame.columns)}")
    specs = parse_modalities(modalities, list(frame.columns), {**roles, **(reserved or {})})
    ids = _ids(frame, id)
    values = {
        spec.name: _files(spec, frame, ids, root) if spec.reader else _values(spec, frame, ids)
        for spec in specs.values()
    }
    kinds = {spec.name: spec.kind for spec in specs.values() if spec.kind and not spec.reader}
    groups = None
    if group is not None:
        if frame[group].isna().any():
            row = int(np.flatnonzero(frame[group].isna())[0])
            raise DataError(f"group: column {group!r} is empty for id {ids[row]!r}. Every sample needs a group.")
        groups = frame[group].astype(str).to_numpy()
    return from_arrays(
        values,
        _target(frame, targets, ids),
        ids=ids,
        groups=groups,
        subgroups=frame[subgroups].reset_index(drop=True) if subgroups else None,
        task=task,
        kinds=kinds,
        name=name,
        keep_empty=keep_empty,
    )


def table_levels(spec: ModalitySpec, frame: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The levels of the columns of a modality that hold text: as declared, or as they occur in the table."""
    if spec.reader is not None or _is_text(spec, frame):
        return {}
    frame = _checked_frame(frame)
    ids = _ids(frame, None)
    levels = {}
    for column in spec.columns:
        listed = spec.categories.get(column) or _cells(spec, column, frame[column], ids)[2]
        if listed:
            levels[column] = tuple(listed)
    return levels


def _checked_frame(frame: pd.DataFrame) -> pd.DataFrame:
    if not isinstance(frame, pd.DataFrame):
        raise DataError(f"Expected a pandas DataFrame, got {type(frame).__name__}.")
    if len(frame) == 0:
        raise DataError("The table has no rows.")
    named = frame.set_axis([str(column) for column in frame.columns], axis=1)
    repeated = named.columns.duplicated()
    if repeated.any():
        raise DataError(f"The table has more than one column named {named.columns[repeated][0]!r}. Rename them.")
    return named


def _ids(frame: pd.DataFrame, column: str | None) -> np.ndarray:
    if column is None:
        return np.array([str(key) for key in frame.index], dtype=object)
    empty = frame[column].isna() | (frame[column].astype(str).str.strip() == "")
    if empty.any():
        raise DataError(
            f"id: column {column!r} is empty in row {int(np.flatnonzero(empty)[0])}. Every row needs an id."
        )
    return np.array([str(key) for key in frame[column]], dtype=object)


def _target(frame: pd.DataFrame, columns: Sequence[str], ids: np.ndarray) -> Any:
    if not columns:
        return None
    table = frame[list(columns)]
    empty = np.array([any(map(_empty, cells)) for cells in table.itertuples(index=False, name=None)])
    if empty.any():
        row = int(np.flatnonzero(empty)[0])
        raise DataError(
            f"target: {int(empty.sum())} of {len(frame)} rows have no {', '.join(columns)}, the first is id "
            f"{ids[row]!r}. Leave out rows without a target, or give no target to predict it."
        )
    if len(columns) > 1:
        return table.reset_index(drop=True)
    label = table.iloc[:, 0]
    # Blanks around a label are no part of it, as around the levels of a modality.
    return (label if pd.api.types.is_numeric_dtype(label) else label.map(_stripped)).to_numpy()


def _files(spec: ModalitySpec, frame: pd.DataFrame, ids: np.ndarray, root: Any) -> Any:
    column = frame[spec.columns[0]]
    base = Path(root) if root is not None else Path()
    paths: list[Path | None] = []
    for key, cell in zip(ids, column.tolist()):
        if _empty(cell):
            paths.append(None)
        elif isinstance(cell, (str, os.PathLike)):
            paths.append(_path(base, cell))
        else:
            raise DataError(f"Modality {spec.name!r}, id {key!r}: expected a path, got {cell!r}.")
    assert spec.reader is not None
    return column_from_files(spec.name, paths, spec.reader, spec.kind, spec.shape)


def _path(base: Path, cell: str | os.PathLike[str]) -> Path:
    """A path of the table; one that was written on Windows, or with blanks around it, is read here too."""
    path, bare = base / cell, str(cell).strip()
    if ("\\" in bare or bare != str(cell)) and not path.is_file():
        return base / (PureWindowsPath(bare).as_posix() if "\\" in bare else bare)
    return path


def _values(spec: ModalitySpec, frame: pd.DataFrame, ids: np.ndarray) -> Any:
    if _is_text(spec, frame):
        cells = frame[spec.columns[0]].tolist()
        return [None if _empty(cell) else cell if isinstance(cell, bytes) else str(cell) for cell in cells]
    blocks, empties, coded = [], [], []
    for column in spec.columns:
        block, empty, levels = _cells(spec, column, frame[column], ids)
        blocks.append(block)
        empties.append(empty)
        coded.append(bool(levels))
    empty = np.column_stack(empties)
    table = np.concatenate(blocks, axis=1)
    nothing: np.ndarray = np.asarray(empty.all(axis=1))
    some: np.ndarray = np.asarray(empty.any(axis=1) & ~nothing)
    if some.any() and spec.partial == "error":
        row = int(np.flatnonzero(some)[0])
        listed = [spec.columns[c] for c in np.flatnonzero(empty[row])]
        raise DataError(
            f"Modality {spec.name!r}, id {ids[row]!r}: {len(listed)} of {len(spec.columns)} cells are empty "
            f"({', '.join(listed[:3])}), in {int(some.sum())} such rows. Fill them, empty the whole row if the "
            "modality is absent, or give partial: absent, or partial: a number to fill with."
        )
    if some.any() and spec.partial == "absent":
        logger.info("modality %s: %d rows with some empty cells count as absent", spec.name, int(some.sum()))
        nothing = nothing | some
    elif some.any():
        _fill(spec, table, blocks, coded, empty, some)
    table[nothing] = np.nan
    return table if spec.shape is None else table.reshape(len(table), *spec.shape)


def _fill(
    spec: ModalitySpec, table: np.ndarray, blocks: list, coded: list[bool], empty: np.ndarray, some: np.ndarray
) -> None:
    start = 0
    for c, (column, block) in enumerate(zip(spec.columns, blocks)):
        width = block.shape[1]
        rows = np.flatnonzero(some & empty[:, c])
        if len(rows):
            constant = spec.partial.get(column) if isinstance(spec.partial, Mapping) else spec.partial
            if constant is None:
                raise DataError(
                    f"Modality {spec.name!r}: column {column!r} has {len(rows)} empty cells in rows that are "
                    "present, and partial names no number to fill them with."
                )
            # An unknown level is no level: a constant makes sense for numbers only.
            table[rows, start : start + width] = 0.0 if coded[c] else float(constant)
        start += width
    logger.info("modality %s: single empty cells in %d rows filled with constants", spec.name, int(some.sum()))


def _is_text(spec: ModalitySpec, frame: pd.DataFrame) -> bool:
    column = frame[spec.columns[0]]
    return spec.kind == "tokens" and len(spec.columns) == 1 and not pd.api.types.is_numeric_dtype(column)


def _cells(
    spec: ModalitySpec, column: str, series: pd.Series, ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Values ``(N, 1)``, or one-hot ``(N, levels)``; which cells are empty ``(N,)``; the levels, none for numbers."""
    place = f"Modality {spec.name!r}, column {column!r}"
    if pd.api.types.is_numeric_dtype(series) and series.dtype.kind != "c" and column not in spec.categories:
        values = series.to_numpy(dtype=float, na_value=np.nan)
        if np.isinf(values).any():
            raise DataError(f"{place}, id {ids[int(np.flatnonzero(np.isinf(values))[0])]!r}: the value is infinite.")
        return values[:, None], np.isnan(values), ()
    if series.dtype.kind in "mM" or isinstance(series.dtype, (pd.PeriodDtype, pd.DatetimeTZDtype)):
        raise DataError(f"{place}: holds dates. Turn them into numbers, such as days since an event.")
    cells = series.tolist()
    for key, cell in zip(ids, cells):
        if isinstance(cell, complex):
            raise DataError(f"{place}, id {key!r}: got the complex number {cell}. Give its two parts as two columns.")
        if isinstance(cell, (list, tuple, dict, set, np.ndarray)):
            raise DataError(
                f"{place}, id {key!r}: expected a number or text, got {type(cell).__name__}. Give such a modality to "
                "lacunar.from_arrays, or save the values in files and give a column of paths."
            )
    empty = np.array([_empty(cell) for cell in cells])
    texts = [None if nothing else str(to_plain(_decoded(cell))).strip() for cell, nothing in zip(cells, empty)]
    if column not in spec.categories:
        if any(isinstance(cell, (date, np.datetime64)) for cell, nothing in zip(cells, empty) if not nothing):
            raise DataError(f"{place}: holds dates. Turn them into numbers, such as days since an event.")
        numbers = np.array([np.nan if text is None else _number(text) for text in texts])
        odd = np.isnan(numbers) & ~empty
        if not odd.any():
            if np.isinf(numbers).any():
                raise DataError(
                    f"{place}, id {ids[int(np.flatnonzero(np.isinf(numbers))[0])]!r}: the value is infinite."
                )
            return numbers[:, None], empty, ()
        if all(text is None or text.lower() in _BOOLEANS for text in texts):
            # As in a column without a gap, which pandas reads as booleans, that is numbers.
            known = [np.nan if text is None else _BOOLEANS[text.lower()] for text in texts]
            return np.array(known)[:, None], empty, ()
        row = int(np.flatnonzero(odd)[0])
        if all(text is None or _is_date(text) for text in texts):
            raise DataError(
                f"{place}, id {ids[row]!r}: holds dates such as {texts[row]!r}. Turn them into numbers, such as days "
                "since an event; if these are codes, list them under categories."
            )
        if all(_DECIMAL_COMMA.fullmatch(str(texts[at])) for at in np.flatnonzero(odd)):
            raise DataError(
                f"{place}, id {ids[row]!r}: expected a number, got {texts[row]!r}. "
                "Write decimals with a point; if these are codes, list them under categories."
            )
        if odd.sum() <= (~empty).sum() / 2 or spec.closed:
            raise DataError(
                f"{place}, id {ids[row]!r}: expected a number, got {texts[row]!r} ({int(odd.sum())} such cells). "
                "Correct or empty it; if the column holds codes, list them under categories."
            )
    found = sorted({text for text in texts if text is not None})
    levels = spec.categories.get(column, tuple(found))
    if column not in spec.categories and len(found) > max(MANY_LEVELS, (~empty).sum() / 2):
        raise DataError(
            f"{place}: {len(found)} different texts in {int((~empty).sum())} rows are no categories. List the "
            "levels under categories, or read the column alone as text with kind: tokens."
        )
    place_of = {level: i for i, level in enumerate(levels)}
    table = np.zeros((len(cells), len(levels)))
    for row, text in enumerate(texts):
        if text is not None:
            if text not in place_of:
                raise DataError(f"{place}, id {ids[row]!r}: unknown level {text!r}.{did_you_mean(text, levels)}")
            table[row, place_of[text]] = 1.0
    return table, empty, levels


def _empty(cell: Any) -> bool:
    if isinstance(cell, (str, bytes)):
        return not cell.strip()
    return cell is None or cell is pd.NA or cell is pd.NaT or (np.ndim(cell) == 0 and bool(cell != cell))


def _decoded(cell: Any) -> Any:
    return cell.decode("utf-8", errors="replace") if isinstance(cell, bytes) else cell


def _stripped(cell: Any) -> Any:
    cell = _decoded(cell)
    return cell.strip() if isinstance(cell, str) else cell


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
