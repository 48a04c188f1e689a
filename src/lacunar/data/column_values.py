"""A column from what a user has: arrays, lists with gaps, frames; their kinds, and what is refused."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lacunar.data.columns import KINDS, Column, DenseColumn, RaggedColumn
from lacunar.errors import DataError
from lacunar.rounding import rounded_away

__all__ = ["column_from_values", "infer_kind", "native", "with_channel"]

logger = logging.getLogger(__name__)


def column_from_values(name: str, values: Any, present: np.ndarray | None, kind: str | None) -> Column:
    """A column from what a user has: an array, or a list in which None stands for an absent value.

    Raises:
        DataError: when shapes differ in an array modality, or a present value holds NaN or infinity.
    """
    if kind is not None and kind not in KINDS:
        raise DataError(f"Modality {name!r}: unknown kind {kind!r}; expected one of {', '.join(KINDS)}.")
    if isinstance(values, Column):
        return values if present is None else values.hide(torch.from_numpy(present))
    values = _as_numbers(name, values)
    if not isinstance(values, np.ndarray) or values.dtype == object:
        return _column_from_list(name, list(values), present, kind)
    if values.dtype.kind in "US":
        return _column_from_list(name, values.tolist(), present, kind)
    if values.dtype.kind not in "fiub":
        raise DataError(f"Modality {name!r}: expected numbers, got an array of {values.dtype}.")
    if values.ndim == 0:
        raise DataError(f"Modality {name!r}: expected one row per sample, got a single number.")
    values = native(values[:, None] if values.ndim == 1 else values)
    width = int(np.prod(values.shape[1:]))
    if width == 0:
        raise DataError(f"Modality {name!r}: expected at least one value a sample, got shape {values.shape[1:]}.")
    flat = values.reshape(len(values), width)
    nothing = np.isnan(flat).all(axis=1) if values.dtype.kind == "f" else np.zeros(len(values), bool)
    observed = ~nothing if present is None else present
    contradiction = observed & nothing
    if contradiction.any():
        row = int(np.flatnonzero(contradiction)[0])
        raise DataError(
            f"Modality {name!r}, row {row}: the presence table says present, but every value is NaN. "
            "Correct the table, or leave it out so that all-NaN rows count as absent."
        )
    exact = stored = values[observed]
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
            stored = stored.astype(np.float32)
        _refuse_partial_nan(name, stored.reshape(len(stored), width), np.flatnonzero(observed))
    if kind is None:
        try:
            kind = infer_kind(values.shape[1:])
        except DataError as error:
            raise DataError(f"Modality {name!r}: {error}") from None
    stored = with_channel(f"Modality {name!r}", stored, kind)
    if kind == "tokens":
        _refuse_odd_tokens(name, stored, np.flatnonzero(observed))
    if kind == "vector":
        _warn_of_rounding(name, exact.reshape(len(exact), width))
    tensor = torch.as_tensor(np.ascontiguousarray(stored), dtype=torch.int64 if kind == "tokens" else torch.float32)
    position = torch.full((len(values),), -1, dtype=torch.int64)
    position[torch.from_numpy(observed)] = torch.arange(len(tensor))
    return DenseColumn(name, kind, position, tensor)


def _column_from_list(name: str, values: list, present: np.ndarray | None, kind: str | None) -> Column:
    # An empty text is an empty cell, unless a presence table says that something was written there.
    absent = [_is_nothing(value) or (present is None and _is_text(value) and not value) for value in values]
    arrays: list[np.ndarray | None] = []
    for row, (value, missing) in enumerate(zip(values, absent)):
        if missing or (present is not None and not present[row]):
            arrays.append(None)
        elif _is_text(value):
            letters = value.encode("utf-8") if isinstance(value, str) else value
            arrays.append(np.frombuffer(letters or b"\0", dtype=np.uint8).astype(np.int64))
        else:
            array = native(np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value))
            if array.dtype.kind not in "fiub":
                raise DataError(
                    f"Modality {name!r}, row {row}: expected numbers, text or None, got {type(value).__name__}."
                )
            arrays.append(None if array.dtype.kind == "f" and array.size and np.isnan(array).all() else array)
        if present is not None and present[row] and arrays[-1] is None:
            raise DataError(f"Modality {name!r}, row {row}: the presence table says present, but the value is absent.")
    real = [array for array in arrays if array is not None]
    text = any(_is_text(value) for value in values)
    shapes = {array.shape for array in real}
    if not text and len(shapes) <= 1 and kind not in ("sequence", "tokens"):
        shape = next(iter(shapes), (1,))
        dense = np.full((len(values), *shape), np.nan, dtype=np.float64)
        for row, filled in enumerate(arrays):
            if filled is not None:
                dense[row] = filled
        return column_from_values(name, dense, np.array([a is not None for a in arrays]), kind)
    if shapes == {()}:  # a single number is a sequence of one step, in a list as in an array
        arrays = [None if array is None else array[None] for array in arrays]
        real = [array for array in arrays if array is not None]
    trailing = {array.shape[1:] for array in real}
    if any(array.ndim == 0 for array in real) or len(trailing) > 1:
        odd = next(i for i, a in enumerate(arrays) if a is not None and a.shape != real[0].shape)
        raise DataError(
            f"Modality {name!r}, row {odd}: expected shape {real[0].shape} as in the rows before, "
            f"got {arrays[odd].shape}. Only the first dimension (steps of a sequence) may differ."  # type: ignore[union-attr]
        )
    if kind is None:
        integers = all(array.dtype.kind in "iu" for array in real)
        kind = "tokens" if text or (integers and trailing <= {()}) else "sequence"
    if kind not in ("sequence", "tokens"):
        raise DataError(f"Modality {name!r}: the rows have different lengths, which kind {kind!r} cannot hold.")
    rows: list[Tensor | None] = []
    for row, steps in enumerate(arrays):
        if steps is None:
            rows.append(None)
        else:
            if len(steps) == 0:
                raise DataError(f"Modality {name!r}, row {row}: a sequence of 0 steps; give None if it is absent.")
            if steps.dtype.kind == "f":
                _refuse_partial_nan(name, steps.reshape(1, -1), np.array([row]))
            if kind == "tokens":
                _refuse_odd_tokens(name, steps[None], np.array([row]))
            if kind == "sequence" and steps.ndim == 1:
                steps = steps[:, None]
            dtype = torch.int64 if kind == "tokens" else torch.float32
            rows.append(torch.as_tensor(np.array(steps), dtype=dtype))
    position = torch.tensor([i if value is not None else -1 for i, value in enumerate(rows)], dtype=torch.int64)
    return RaggedColumn(name, kind, position, rows)


def _warn_of_rounding(name: str, values: np.ndarray) -> None:
    lost = rounded_away(values)
    if lost.any():
        first = int(np.flatnonzero(lost)[0])
        logger.warning(
            "modality %s, value %d: numbers around %.6g differ by %.3g only, too little for the seven digits that are "
            "kept (%d such of %d). Subtract a constant from them.",
            name, first, float(values[:, first].mean()), float(values[:, first].std()), int(lost.sum()), len(lost),
        )  # fmt: skip


def _is_nothing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and bool(np.isnan(value)))


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, bytes))


def native(array: np.ndarray) -> np.ndarray:
    """In the machine's own byte order: torch knows no other."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _as_numbers(name: str, values: Any) -> Any:
    """Tensors, frames, masked and object arrays as plain arrays; lists as they are."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.is_masked(values):  # what is masked must not be read
            return np.ma.filled(values.astype(np.promote_types(values.dtype, np.float32)), np.nan)
        return np.asarray(values)
    if hasattr(values, "to_numpy"):
        values = _from_pandas(values)
    if isinstance(values, np.ndarray) and values.dtype == object and values.ndim > 1:
        try:
            return values.astype(np.float64)  # None becomes NaN
        except (TypeError, ValueError):
            raise DataError(
                f"Modality {name!r}: expected numbers, got an array of Python objects {values.shape}. Turn text into "
                "numbers, or give the table to lacunar.from_frame, which reads categories."
            ) from None
    return values


def _refuse_odd_tokens(name: str, stored: np.ndarray, rows: np.ndarray) -> None:
    bad = (stored < 0) | (stored != np.floor(stored))
    if bad.any():
        place = tuple(np.argwhere(bad)[0])
        raise DataError(
            f"Modality {name!r}, row {int(rows[place[0]])}: tokens are whole numbers from 0 up, got {stored[place]!s}. "
            "Give kinds= if these are no tokens."
        )


def _from_pandas(values: Any) -> np.ndarray:
    """Frames and series as an array; nullable and mixed numeric columns become floats with NaN."""
    frame = values.to_frame() if isinstance(values, pd.Series) else values
    if isinstance(frame, pd.DataFrame) and all(map(_is_number, frame.dtypes)):
        array = np.column_stack(
            [frame.iloc[:, i].to_numpy(dtype=float, na_value=np.nan) for i in range(frame.shape[1])]
        )
        return array[:, 0] if isinstance(values, pd.Series) else array
    return values.to_numpy()


def _is_number(kind: Any) -> bool:
    return pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_complex_dtype(kind)


def _refuse_partial_nan(name: str, stored: np.ndarray, rows: np.ndarray) -> None:
    bad = ~np.isfinite(stored).all(axis=1)
    if bad.any():
        row = int(rows[np.flatnonzero(bad)[0]])
        count = int((~np.isfinite(stored[np.flatnonzero(bad)[0]])).sum())
        raise DataError(
            f"Modality {name!r}, row {row}: {count} of {stored.shape[1]} values are NaN or infinite in a row that is "
            f"present ({int(bad.sum())} such rows). Fill them, or make the whole row NaN if the modality is absent."
        )


def infer_kind(shape: tuple[int, ...]) -> str:
    """The kind that the shape of one sample suggests; a square table is taken for an image.

    Raises:
        DataError: more dimensions than any kind has.
    """
    if len(shape) > 4:
        raise DataError(
            f"no kind of modality has samples of shape {tuple(shape)}: at most four dimensions (C, D, H, W) can be "
            "told apart. Reshape them, for example time into the channels."
        )
    if len(shape) == 2:
        return "image" if shape[0] == shape[1] else "sequence"
    return ("vector", "vector", "", "image", "volume")[len(shape)]


def with_channel(what: str, stored: np.ndarray, kind: str) -> np.ndarray:
    """Samples ``(n, ...)`` of a kind with a channel axis added where the kind has one and they do not."""
    expected = {"vector": 1, "sequence": 2, "tokens": 1, "image": 3, "volume": 4}[kind]
    found = stored.ndim - 1
    if found == expected - 1 and kind in ("image", "volume"):
        return stored[:, None]
    if found == 1 and kind == "sequence":
        return stored[:, :, None]
    if found != expected:
        raise DataError(f"{what}: kind {kind!r} expects {expected} dimensions a sample, got shape {stored.shape[1:]}.")
    return stored
