"""Where in a table the values of each modality are."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any

import numpy as np

from lacunar.data.columns import KINDS
from lacunar.data.readers import FileReader, get_reader, reader_names
from lacunar.errors import ConfigError, DataError, did_you_mean

__all__ = ["ModalitySpec", "parse_modalities"]

COLUMN_KEYS = ("columns", "kind", "shape", "partial", "categories", "closed")


@dataclass(frozen=True)
class ModalitySpec:
    """Where the values of one modality are in a table.

    Attributes:
        name: the modality.
        columns: the columns that hold its values, or the one that holds paths.
        reader: how to read the paths; None when the columns hold the values.
        kind: kind of modality, or None to infer it.
        shape: shape of one sample when the columns are the cells of an image or a sequence, or that files are to
            have (sequences without their steps).
        partial: ``"error"``, ``"absent"``, or what to fill single empty cells with (a number, or one per column).
        categories: the levels of columns that hold text, in the order of their one-hot columns.
        closed: whether every column without ``categories`` has to hold numbers.
    """

    name: str
    columns: tuple[str, ...]
    reader: FileReader | None = None
    kind: str | None = None
    shape: tuple[int, ...] | None = None
    partial: Any = "error"
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    closed: bool = False


def parse_modalities(
    modalities: Mapping[str, Any], columns: Collection[str], reserved: Mapping[str, Sequence[str]]
) -> dict[str, ModalitySpec]:
    """The modalities of a table, with patterns resolved and every column used once.

    Args:
        modalities: as for :func:`from_frame`.
        columns: names of the columns of the table.
        reserved: columns that no modality may hold, by what they are for.

    Raises:
        DataError: a pattern or name that matches nothing, a column used twice.
        ConfigError: an unknown option.
    """
    if not isinstance(modalities, Mapping) or not modalities:
        raise ConfigError("modalities: expected at least one, as a mapping from a name to its columns.")
    columns = dict.fromkeys(columns)  # in order, and quick to look up
    specs: dict[str, ModalitySpec] = {}
    owner: dict[str, str] = {column: role for role, held in reserved.items() for column in held}
    for key, given in modalities.items():
        if not isinstance(key, str):
            raise ConfigError(f"modalities: expected names as text, got {key!r}. Put it in quotes.")
        spec = _parse_one(key, given, columns)
        for column in spec.columns:
            if column in owner:
                leak = " It would be predicted from itself." if owner[column] == "target" else ""
                raise DataError(
                    f"Modality {key!r}: column {column!r} is already used by {owner[column]}.{leak} "
                    "Narrow the pattern, or list the columns."
                )
            owner[column] = f"modality {key!r}"
        specs[key] = spec
    return specs


def _parse_one(name: str, given: Any, columns: Collection[str]) -> ModalitySpec:
    place = f"Modality {name!r}"
    if isinstance(given, str) or (isinstance(given, Sequence) and not isinstance(given, Mapping)):
        given = {"columns": given}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{place}: expected a pattern, a list of columns or a mapping, got {given!r}.")
    kind = given.get("kind")
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"{place}: unknown kind {kind!r}.{did_you_mean(kind, KINDS)}")
    if "path" in given:
        if "columns" in given:
            raise ConfigError(f"{place}: give either 'path' (a column of files) or 'columns' (values), not both.")
        if not isinstance(given["path"], str):
            raise ConfigError(f"{place}: path: expected the name of one column, got {given['path']!r}.")
        if "reader" not in given:
            raise ConfigError(
                f"{place}: expected a reader for the files of column {given['path']!r}: one of "
                f"{', '.join(reader_names())}."
            )
        options = {key: value for key, value in given.items() if key not in ("path", "reader", "kind", "shape")}
        try:
            reader = get_reader(given["reader"], **options)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from error
        return ModalitySpec(name, _match(place, given["path"], columns, one=True), reader, kind, _shape(place, given))
    for key in given:
        if key not in COLUMN_KEYS:
            raise ConfigError(f"{place}: unknown key {key!r}.{did_you_mean(key, (*COLUMN_KEYS, 'path', 'reader'))}")
    if "columns" not in given:
        raise ConfigError(f"{place}: expected 'columns' or 'path', got {', '.join(map(repr, given)) or 'nothing'}.")
    listed = given["columns"]
    if not isinstance(listed, (str, Sequence)):
        raise ConfigError(f"{place}: columns: expected a pattern or a list of columns, got {listed!r}.")
    patterns = [listed] if isinstance(listed, str) else list(listed)
    matched = [column for pattern in patterns for column in _match(place, pattern, columns)]
    if len(set(matched)) < len(matched) or not matched:
        twice = next((column for column in matched if matched.count(column) > 1), None)
        raise DataError(f"{place}: column {twice!r} is listed twice." if twice else f"{place}: no columns are listed.")
    shape = _shape(place, given)
    if shape is not None and int(np.prod(shape)) != len(matched):
        raise DataError(f"{place}: shape {shape} needs {int(np.prod(shape))} columns, got {len(matched)}.")
    categories = given.get("categories") or {}
    if not isinstance(categories, Mapping):
        raise ConfigError(f"{place}: categories: expected a mapping from a column to its levels, got {categories!r}.")
    for column in categories:
        if column not in matched:
            raise DataError(f"{place}: categories of an unknown column {column!r}.{did_you_mean(column, matched)}")
    levels = {column: _levels(f"{place}: categories of {column!r}", known) for column, known in categories.items()}
    closed = given.get("closed", False)
    if not isinstance(closed, bool):
        raise ConfigError(f"{place}: closed: expected true or false, got {closed!r}.")
    return ModalitySpec(name, tuple(matched), None, kind, shape, _partial(place, given, matched), levels, closed)


def _shape(place: str, given: Mapping[str, Any]) -> tuple[int, ...] | None:
    shape = given.get("shape")
    if shape is None:
        return None
    sizes: list[Any] = list(shape) if isinstance(shape, (list, tuple)) else [None]
    if not sizes or not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes):
        raise ConfigError(f"{place}: shape: expected a list of positive whole numbers such as [8, 8], got {shape!r}.")
    return tuple(sizes)


def _levels(place: str, listed: Any) -> tuple[str, ...]:
    if not isinstance(listed, (list, tuple)) or not listed:
        raise ConfigError(f"{place}: expected a list of levels, got {listed!r}.")
    for level in listed:
        if level is None or isinstance(level, bool):  # YAML reads yes, no, on, off and null so
            raise ConfigError(f"{place}: expected levels as text, got {level!r}. Put it in quotes.")
    levels = tuple(str(level) for level in listed)
    for level in levels:
        if levels.count(level) > 1:
            raise ConfigError(f"{place}: the level {level!r} is listed twice.")
    return levels


def _partial(place: str, given: Mapping[str, Any], columns: Collection[str]) -> Any:
    partial = given.get("partial", "error")
    if partial in ("error", "absent"):
        return partial
    if isinstance(partial, Mapping):
        filled = {}
        for column, value in partial.items():
            if column not in columns:
                raise DataError(f"{place}: partial names an unknown column {column!r}.{did_you_mean(column, columns)}")
            filled[column] = _number(value)
            if filled[column] is None:
                raise ConfigError(f"{place}: partial: expected a number to fill {column!r} with, got {value!r}.")
        return filled
    number = _number(partial)
    if number is None:
        raise ConfigError(f"{place}: partial: expected 'error', 'absent' or a number to fill with, got {partial!r}.")
    return number


def _number(value: Any) -> Any:
    """A finite number, also one in text: YAML reads 1e-3 as text; None for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return value if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value) else None


def _match(place: str, pattern: Any, columns: Collection[str], one: bool = False) -> tuple[str, ...]:
    if isinstance(pattern, int) and not isinstance(pattern, bool):
        pattern = str(pattern)  # a table without a header counts its columns
    if not isinstance(pattern, str):
        raise ConfigError(f"{place}: expected column names as text, got {pattern!r}.")
    if pattern in columns:
        return (pattern,)
    matched = () if one else tuple(column for column in columns if fnmatchcase(column, pattern))
    if not matched:
        raise DataError(f"{place}: no column matches {pattern!r}.{_near(pattern, columns)}")
    return matched


def _near(pattern: str, columns: Collection[str]) -> str:
    """A suggestion for a pattern that matches nothing: ``rnaa_*`` is near the columns ``rna_1, rna_2, ...``."""
    if pattern.endswith("*"):
        beginnings = dict.fromkeys(column.rstrip("0123456789") for column in columns)
        close = did_you_mean(pattern, [f"{beginning}*" for beginning in beginnings])
        if "mean" in close:
            return close
    return did_you_mean(pattern, list(columns)[:20] if "*" in pattern or len(columns) < 20 else columns)
