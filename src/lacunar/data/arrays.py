"""A data set from arrays and lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lacunar.arguments import checked
from lacunar.data.column_values import column_from_values, native
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.presence_table import presence_by_name
from lacunar.errors import DataError, did_you_mean
from lacunar.tasks import Task, infer_task

__all__ = ["from_arrays"]


@checked
def from_arrays(
    modalities: Mapping[str, Any],
    target: Any = None,
    *,
    present: Any = None,
    ids: Sequence[Any] | np.ndarray | None = None,
    groups: Sequence[Any] | np.ndarray | None = None,
    subgroups: Mapping[str, Sequence[Any]] | pd.DataFrame | None = None,
    task: Task | str | None = None,
    kinds: Mapping[str, str] | None = None,
    name: str = "data",
    keep_empty: bool = False,
) -> MultimodalDataset:
    """A data set from arrays in memory.

    Args:
        modalities: for each modality an array with one row per sample, or a list. An all-NaN row or None is an
            absent modality. Lists of arrays of different lengths are sequences, lists of text are characters.
        target: one label, number, row of labels or label map per sample; None when it is not known.
        present: presence as booleans ``(N, M)``, a mapping from modality to ``(N,)``, a frame with a column per
            modality, or a presence table. A frame with an index is read by sample id. Rows marked absent are never
            read, whatever they hold.
        ids: one id per sample, unique; the row number when left out.
        groups: samples of one group are never split between train and test.
        subgroups: attributes to report results by.
        task: ``"classification"``, ``"multilabel"``, ``"regression"``, ``"segmentation"`` or a task object; inferred
            from the target when left out.
        kinds: overrides the kind that is inferred from a modality's shape.
        name: what to call the data in reports.
        keep_empty: keep samples that have nothing, as prediction does; otherwise they are left out and counted.

    Raises:
        DataError: unequal lengths, duplicate ids, NaN inside a present row, an unknown modality in ``present`` or
            ``kinds``, or a target that does not fit the task.
    """
    if not isinstance(modalities, Mapping):
        raise DataError(
            f"modalities: expected a mapping from a name to its values, got {type(modalities).__name__}. "
            "For a table with one row per sample use lacunar.from_frame."
        )
    if not modalities:
        raise DataError("Expected at least one modality, got none.")
    names = tuple(str(key) for key in modalities)
    if len(set(names)) < len(names):
        raise DataError(f"modalities: two names are the same as text, among {', '.join(map(repr, modalities))}.")
    for key in kinds or {}:
        if key not in names:
            raise DataError(f"kinds: unknown modality {key!r}.{did_you_mean(key, names)}")
    count = _common_length(modalities, target)
    sample_ids = _unique_ids(ids, count)
    table = presence_by_name(present, names, count, sample_ids)
    columns = {}
    for key, values in modalities.items():
        given = None if table is None or str(key) not in table else table[str(key)]
        columns[str(key)] = column_from_values(str(key), values, given, (kinds or {}).get(str(key)))
    resolved: Task | None = None
    encoded = None
    if target is not None:
        target = native(target) if isinstance(target, np.ndarray) else target
        resolved = infer_task(target, task)
        encoded = resolved.encode(target)
    elif isinstance(task, Task):
        resolved = task
    for label, extra in (("groups", groups), *_attributes(subgroups)):
        found = (count,) if extra is None else np.asarray(extra, dtype=object).shape
        if found != (count,):
            got = str(found[0]) if len(found) == 1 else f"shape {found}"
            raise DataError(f"{label}: expected {count} rows, one value per sample, got {got}.")
    if groups is not None and pd.isna(np.asarray(groups, dtype=object)).any():
        raise DataError("groups: a sample without a group could be cut off from its own. Give every sample one.")
    data = MultimodalDataset(
        columns,
        encoded,
        resolved,
        sample_ids,
        None if groups is None else np.asarray(groups).astype(str),
        None if subgroups is None else _by_position(subgroups),
        name=name,
    )
    return data if keep_empty else data._without_empty()


def _attributes(subgroups: Any) -> list[tuple[str, Any]]:
    """Each subgroup attribute with what to call it in a message."""
    if subgroups is None:
        return []
    if not isinstance(subgroups, (Mapping, pd.DataFrame)):
        raise DataError(f"subgroups: expected a mapping or a frame, got {type(subgroups).__name__}.")
    return [(f"subgroups, {key}", subgroups[key]) for key in subgroups]


def _by_position(subgroups: Mapping[str, Any] | pd.DataFrame) -> pd.DataFrame:
    """Subgroup attributes in the order of the rows, whatever index they came with."""
    if isinstance(subgroups, pd.DataFrame):
        return subgroups.reset_index(drop=True)
    return pd.DataFrame(
        {
            key: value.reset_index(drop=True) if isinstance(value, pd.Series) else value
            for key, value in subgroups.items()
        }
    )


def _common_length(modalities: Mapping[str, Any], target: Any) -> int:
    lengths = {str(name): _rows(f"Modality {str(name)!r}", values) for name, values in modalities.items()}
    if target is not None:
        lengths["the target"] = _rows("target", target)
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"Expected the same number of rows everywhere, got {listing}. Use None for absent values.")
    count = next(iter(lengths.values()))
    if count == 0:
        raise DataError("Expected at least one sample, got 0 rows.")
    return count


def _rows(what: str, values: Any) -> int:
    if hasattr(values, "nnz") and not hasattr(values, "__array__"):
        raise DataError(f"{what}: expected an array, got a sparse one. Give .toarray(): what is not stored is 0 there.")
    if (
        isinstance(values, (str, bytes, Mapping, set))
        or not hasattr(values, "__len__")
        or getattr(values, "ndim", 1) == 0
    ):
        raise DataError(f"{what}: expected an array or a list with one row per sample, got {type(values).__name__}.")
    return len(values)


def _unique_ids(ids: Sequence[Any] | np.ndarray | None, count: int) -> np.ndarray:
    if ids is None:
        return np.arange(count).astype(str).astype(object)
    given = list(ids)
    if len(given) != count:
        raise DataError(f"ids: expected {count}, one per sample, got {len(given)}.")
    for row, value in enumerate(given):
        if value is None or value is pd.NA or value != value or str(value).strip() == "":
            raise DataError(f"ids: row {row} has none ({value!r}). Every sample needs an id.")
    values = np.asarray([str(value) for value in given], dtype=object)
    repeated = pd.Index(values).duplicated()
    if repeated.any():
        raise DataError(
            f"ids: expected unique ids, got {int(repeated.sum())} repeats, the first is {values[repeated][0]!r}. "
            "Give groups= for several samples of one subject."
        )
    return values
