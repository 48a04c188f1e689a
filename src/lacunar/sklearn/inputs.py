"""What users of scikit-learn give: frames, arrays, and dictionaries that can be indexed by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from lacunar.data.columns import Column
from lacunar.errors import ConfigError, DataError

__all__ = ["ModalityFrame", "Positions", "by_first_level", "flat", "named", "says_nothing", "with_ids"]


class ModalityFrame:
    """A dictionary of modalities that can be indexed by row, as scikit-learn indexes its inputs.

    Args:
        modalities: for each modality an array or a frame with a row per sample, or a list; an all-NaN row or None is
            absent.

    Raises:
        DataError: when the modalities have different numbers of rows.
    """

    def __init__(self, modalities: Mapping[str, Any]):
        if not modalities:
            raise DataError("ModalityFrame: expected at least one modality, got none.")
        self.modalities = {
            str(name): values.detach().cpu().numpy() if isinstance(values, Tensor) else values
            for name, values in modalities.items()
        }
        lengths = {name: len(values) for name, values in self.modalities.items()}
        if len(set(lengths.values())) > 1:
            listing = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise DataError(f"ModalityFrame: expected the same number of rows everywhere, got {listing}.")

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities."""
        return tuple(self.modalities)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of samples and of modalities."""
        return len(self), len(self.modalities)

    def __len__(self) -> int:
        return len(next(iter(self.modalities.values())))

    def __getitem__(self, rows: Any) -> ModalityFrame:
        """Some of the samples, by positions, a slice or booleans."""
        positions = np.arange(len(self))[rows]
        if positions.ndim != 1:
            positions = positions.reshape(-1)
        return ModalityFrame({name: _rows(values, positions) for name, values in self.modalities.items()})

    def __repr__(self) -> str:
        return f"ModalityFrame({len(self)} samples: {', '.join(self.names)})"


class Positions:
    """Modalities by the positions of their columns."""

    def __init__(self, modalities: Mapping[str, Any], width: int):
        self.width = width
        self.positions: dict[str, np.ndarray] = {}
        for name, given in modalities.items():
            try:
                self.positions[str(name)] = np.arange(width)[given].reshape(-1)
            except (IndexError, TypeError) as error:
                raise ConfigError(
                    f"modalities, {name!r}: expected positions among {width} columns, a slice, or booleans, got "
                    f"{given!r}."
                ) from error

    def cut(self, table: Any) -> dict[str, Any]:
        if not isinstance(table, (np.ndarray, pd.DataFrame)):
            raise DataError(f"Expected an array of {self.width} columns as in fit, got {type(table).__name__}.")
        if table.shape[1] != self.width:
            raise DataError(f"Expected {self.width} columns as in fit, got shape {table.shape}.")
        if isinstance(table, pd.DataFrame):
            return {name: table.iloc[:, where] for name, where in self.positions.items()}
        if table.dtype.kind in "US":
            table = table.astype(object)  # cells of a table, not characters of a text
        return {name: table[:, where] for name, where in self.positions.items()}


def _rows(values: Any, positions: np.ndarray) -> Any:
    if isinstance(values, (pd.Series, pd.DataFrame)):
        return values.iloc[positions]
    return values[positions] if isinstance(values, np.ndarray) else [values[i] for i in positions]


def says_nothing(values: Any) -> bool:
    """Whether a modality is absent from every sample, in whatever shape that is said."""
    if values is None:
        return True
    if isinstance(values, Column):
        return not bool(values.present.any())
    return all(_is_absent(value) for value in (values.to_numpy() if hasattr(values, "to_numpy") else values))


def _is_absent(value: Any) -> bool:
    empty = np.asarray(pd.isna(value.detach().cpu().numpy() if isinstance(value, Tensor) else value))
    return empty.size > 0 and bool(empty.all())


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with one name per column; ``lab/age`` for columns of two levels."""
    return frame.set_axis([_flat_name(column) for column in frame.columns], axis=1)


def _flat_name(column: Any) -> str:
    return "/".join(map(str, column)) if isinstance(column, tuple) else str(column)


def by_first_level(columns: pd.MultiIndex) -> dict[str, list[str]]:
    """Columns of two levels as lists by modality, named as :func:`flat` names them."""
    modalities: dict[str, list[str]] = {}
    for column in columns:
        modalities.setdefault(str(column[0]), []).append(_flat_name(column))
    return modalities


def named(X: Any) -> Any:
    """What a user gives as X: a frame, a table of two dimensions, or a :class:`ModalityFrame`."""
    if isinstance(X, Mapping):
        return ModalityFrame(X)
    if isinstance(X, (ModalityFrame, pd.DataFrame)):
        return X
    if isinstance(X, Tensor):
        X = X.detach().cpu().numpy()
    if not isinstance(X, (np.ndarray, Sequence)) or isinstance(X, (str, bytes)):
        raise DataError(f"X: expected a frame, an array, a ModalityFrame or a dictionary, got {type(X).__name__}.")
    try:
        table = np.asanyarray(X)
    except ValueError:
        raise DataError("X: expected rows of one length, got a list of rows of different lengths.") from None
    if table.ndim != 2:
        raise DataError(
            f"X: expected an array (N, columns), got shape {table.shape}. A single column is X[:, None], a single "
            "sample X[None]; arrays of more dimensions go into a dictionary of modalities."
        )
    return table


def with_ids(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose index names each row: its own, or positions where labels repeat, as resampled rows have them."""
    return frame if frame.index.map(str).is_unique else frame.reset_index(drop=True)
