"""How one modality is stored: only the samples that have it, in memory or in files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lacunar.errors import DataError

__all__ = [
    "KINDS",
    "Column",
    "DenseColumn",
    "FileColumn",
    "RaggedColumn",
    "column_from_values",
    "infer_kind",
    "with_channel",
]

KINDS = ("vector", "sequence", "tokens", "image", "volume")


class Column(ABC):
    """One modality of a data set.

    Attributes:
        name: the modality.
        kind: ``"vector"`` (F,), ``"sequence"`` (T, F), ``"tokens"`` (T,), ``"image"`` (C, H, W) or ``"volume"``
            (C, D, H, W).
        position: where each sample's value is stored, -1 where it is absent, int64, shape ``(N,)``.
    """

    def __init__(self, name: str, kind: str, position: Tensor):
        self.name, self.kind, self.position = name, kind, position

    def __len__(self) -> int:
        return len(self.position)

    @property
    def present(self) -> Tensor:
        """Presence, boolean, shape ``(N,)``."""
        return self.position >= 0

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample; for sequences without the number of steps."""

    @abstractmethod
    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """The values of samples that have this modality: ``(n, ...)`` and, for sequences, lengths ``(n,)``."""

    @abstractmethod
    def _like(self, position: Tensor) -> Column:
        """The same store read through another table of positions."""

    def select(self, rows: Tensor) -> Column:
        """The column of some of the samples."""
        return self._like(self.position[rows])

    def hide(self, keep: Tensor) -> Column:
        """The column with the cells absent where ``keep`` (N,) is False."""
        return self._like(torch.where(keep, self.position, -1))


class DenseColumn(Column):
    """Values of one shape, in memory."""

    def __init__(self, name: str, kind: str, position: Tensor, values: Tensor):
        super().__init__(name, kind, position)
        self.values = values

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape[1:])

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        values = self.values[self.position[rows]]
        if self.kind in ("sequence", "tokens"):
            return values, torch.full((len(rows),), values.shape[1], dtype=torch.int64)
        return values, None

    @property
    def shape_without_steps(self) -> tuple[int, ...]:
        return tuple(self.values.shape[2:])

    def _like(self, position: Tensor) -> DenseColumn:
        return DenseColumn(self.name, self.kind, position, self.values)

    def hide(self, keep: Tensor) -> DenseColumn:
        position = torch.where(keep, self.position, -1)
        stored = position[position >= 0]
        # The hidden values leave the store: nothing downstream can read them by mistake.
        packed = torch.full_like(position, -1)
        packed[position >= 0] = torch.arange(len(stored))
        return DenseColumn(self.name, self.kind, packed, self.values[stored])


class RaggedColumn(Column):
    """Sequences of different lengths, in memory, padded only inside a batch."""

    def __init__(
        self,
        name: str,
        kind: str,
        position: Tensor,
        values: Sequence[Tensor | None],
        shape: tuple[int, ...] | None = None,
    ):
        super().__init__(name, kind, position)
        self.values = values
        if shape is None:
            first = next((value for value in values if value is not None), None)
            shape = () if first is None else tuple(first.shape[1:])
        self._shape = shape

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        return _pad([self.values[i] for i in self.position[rows].tolist()], self.shape, self.kind)

    def _like(self, position: Tensor) -> RaggedColumn:
        return RaggedColumn(self.name, self.kind, position, self.values, self._shape)

    def hide(self, keep: Tensor) -> RaggedColumn:
        position = torch.where(keep, self.position, -1)
        stays = set(position[position >= 0].tolist())
        # The hidden values leave the store; the shape outlives the last of them.
        values = [value if i in stays else None for i, value in enumerate(self.values)]
        return RaggedColumn(self.name, self.kind, position, values, self._shape)


class FileColumn(Column):
    """Values read from files when a batch needs them."""

    def __init__(
        self,
        name: str,
        kind: str,
        position: Tensor,
        paths: Sequence[Path | None],
        read: Callable[[Path], Tensor],
        shape: tuple[int, ...] | None = None,
    ):
        super().__init__(name, kind, position)
        self.paths, self.read = paths, read
        self._shape = shape

    @property
    def shape(self) -> tuple[int, ...]:
        if self._shape is None:
            first = next((path for path in self.paths if path is not None), None)
            value = None if first is None else self.read(first)
            ragged = self.kind in ("sequence", "tokens")
            self._shape = () if value is None else tuple(value.shape[1:] if ragged else value.shape)
        return self._shape

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        paths = [self.paths[i] for i in self.position[rows].tolist()]
        values = [self.read(path) for path in paths if path is not None]
        ragged = self.kind in ("sequence", "tokens")
        for path, value in zip(paths, values):
            if tuple(value.shape[1:] if ragged else value.shape) != self.shape:
                remedy = (
                    "Give the reader size: [height, width] and mode: grey or rgb"
                    if self.kind == "image"
                    else "Resample the files, or describe the modality as a sequence if only its length differs"
                )
                raise DataError(
                    f"Modality {self.name!r}: expected every file to hold shape {self.shape}"
                    f"{' a step' if ragged else ''}, got {tuple(value.shape)} in {path}. {remedy}."
                )
        if ragged:
            return _pad(values, self.shape, self.kind)
        return (torch.stack(values) if values else torch.empty(0, *self.shape)), None

    def _like(self, position: Tensor) -> FileColumn:
        column = FileColumn(self.name, self.kind, position, self.paths, self.read)
        column._shape = self._shape
        return column

    def hide(self, keep: Tensor) -> FileColumn:
        self.shape  # noqa: B018  the shape outlives the file that told it
        position = torch.where(keep, self.position, -1)
        stays = set(position[position >= 0].tolist())
        column = self._like(position)
        column.paths = [path if i in stays else None for i, path in enumerate(self.paths)]
        return column


def _pad(values: Sequence[Any], shape: tuple[int, ...], kind: str) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(value) for value in values], dtype=torch.int64)
    longest = max(1, int(lengths.max()) if len(values) else 1)
    dtype = torch.int64 if kind == "tokens" else torch.float32
    padded = torch.zeros(len(values), longest, *shape, dtype=dtype)
    for row, value in zip(padded, values):
        row[: len(value)] = value
    return padded, lengths


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
        return _column_from_list(name, [str(value) for value in values.tolist()], present, kind)
    if values.dtype.kind not in "fiub":
        raise DataError(f"Modality {name!r}: expected numbers, got an array of {values.dtype}.")
    if values.ndim == 0:
        raise DataError(f"Modality {name!r}: expected one row per sample, got a single number.")
    if values.ndim == 1:
        values = values[:, None]
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
    stored = values[observed]
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
    tensor = torch.as_tensor(np.ascontiguousarray(stored), dtype=torch.int64 if kind == "tokens" else torch.float32)
    position = torch.full((len(values),), -1, dtype=torch.int64)
    position[torch.from_numpy(observed)] = torch.arange(len(tensor))
    return DenseColumn(name, kind, position, tensor)


def _column_from_list(name: str, values: list, present: np.ndarray | None, kind: str | None) -> Column:
    # An empty text is an empty cell, unless a presence table says that something was written there.
    absent = [_is_nothing(value) or (present is None and isinstance(value, str) and not value) for value in values]
    arrays: list[np.ndarray | None] = []
    for row, (value, missing) in enumerate(zip(values, absent)):
        if missing or (present is not None and not present[row]):
            arrays.append(None)
        elif isinstance(value, str):
            arrays.append(np.frombuffer(value.encode("utf-8") or b"\0", dtype=np.uint8).astype(np.int64))
        else:
            array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
            if array.dtype.kind not in "fiub":
                raise DataError(
                    f"Modality {name!r}, row {row}: expected numbers, text or None, got {type(value).__name__}."
                )
            arrays.append(None if array.dtype.kind == "f" and array.size and np.isnan(array).all() else array)
        if present is not None and present[row] and arrays[-1] is None:
            raise DataError(f"Modality {name!r}, row {row}: the presence table says present, but the value is absent.")
    real = [array for array in arrays if array is not None]
    text = any(isinstance(value, str) for value in values)
    shapes = {array.shape for array in real}
    if not text and len(shapes) <= 1 and kind not in ("sequence", "tokens"):
        shape = next(iter(shapes), (1,))
        dense = np.full((len(values), *shape), np.nan, dtype=np.float64)
        for row, filled in enumerate(arrays):
            if filled is not None:
                dense[row] = filled
        return column_from_values(name, dense, np.array([a is not None for a in arrays]), kind)
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


def _is_nothing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and bool(np.isnan(value)))


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
    if isinstance(frame, pd.DataFrame) and all(pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes):
        array = np.column_stack(
            [frame.iloc[:, i].to_numpy(dtype=float, na_value=np.nan) for i in range(frame.shape[1])]
        )
        return array[:, 0] if isinstance(values, pd.Series) else array
    return values.to_numpy()


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
