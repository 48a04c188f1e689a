"""Small things that utility tables are made with: labels to columns, plain data, and differences in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from lacunar.errors import DataError
from lacunar.lattice import Lattice

__all__ = ["by_label", "floats", "mean_of_known", "named_differences", "plain", "text", "whole_numbers"]


def named_differences(stored: Any, asked: Any, name: str = "") -> list[str]:
    """Each place where two pieces of plain data differ, in words."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        keys = [*stored, *(key for key in asked if key not in stored)]
        pairs = [(key, stored.get(key, "nothing"), asked.get(key, "nothing")) for key in keys]
        return [
            line
            for key, there, here in pairs
            for line in named_differences(there, here, f"{name}.{key}" if name else str(key))
        ]
    if isinstance(stored, list) and isinstance(asked, list) and stored != asked:
        both = zip([*stored, *["nothing"] * len(asked)], [*asked, *["nothing"] * len(stored)])
        there, here = next((there, here) for there, here in both if there != here)
        return [f"{name}: there {there!r}, here {here!r}"]
    return [] if stored == asked else [f"{name}: there {stored!r}, here {asked!r}"]


def by_label(lattice: Lattice, given: Mapping[str, float], missing: float) -> np.ndarray:
    """A value for each subset, ``(2^M,)``, from values by label; ``missing`` where there is none."""
    table = np.full(2**lattice.M, missing)
    seen: dict[int, str] = {}
    for label, value in given.items():
        code = 0 if label == "none" else lattice.index(str(label).split("+"))
        if code in seen:
            raise DataError(f"values: {label!r} and {seen[code]!r} are the same subset.")
        seen[code] = label
        table[code] = value
    return table


def whole_numbers(given: Any, default: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """What was given, or the default, as int64 of a shape; DataError names what has another."""
    array = np.array(default if given is None else given, dtype=np.int64)
    if array.shape != shape:
        raise DataError(f"{name}: expected shape {shape}, got {array.shape}.")
    return array


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is finite, NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def plain(value: Any) -> Any:
    """Arrays as lists that JSON can hold, None for NaN."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "f":
            return value.tolist()
        listed = value.astype(object)
        listed[~np.isfinite(value)] = None
        return listed.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value


def floats(value: Any) -> np.ndarray | None:
    """The array that :func:`plain` made a list of, float64."""
    return None if value is None else np.array(value, dtype=object).astype(np.float64)


def text(value: Any) -> str:
    """Plain data as JSON, the same text for the same data."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
