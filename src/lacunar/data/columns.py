"""How one modality is stored: only the samples that have it, in memory or in files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lacunar.errors import DataError

__all__ = [
    "KINDS",
    "Column",
    "DenseColumn",
    "FileColumn",
    "RaggedColumn",
    "padded",
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
        return padded([self.values[i] for i in self.position[rows].tolist()], self.shape, self.kind)

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
            return padded(values, self.shape, self.kind)
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


def padded(values: Sequence[Any], shape: tuple[int, ...], kind: str) -> tuple[Tensor, Tensor]:
    """Values of different length, zeros behind each, ``(N, longest, *shape)``; and their lengths, ``(N,)``."""
    lengths = torch.tensor([len(value) for value in values], dtype=torch.int64)
    longest = max(1, int(lengths.max()) if len(values) else 1)
    dtype = torch.int64 if kind == "tokens" else torch.float32
    padded = torch.zeros(len(values), longest, *shape, dtype=dtype)
    for row, value in zip(padded, values):
        row[: len(value)] = value
    return padded, lengths
