"""A data set whose samples have different modalities."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lacunar.arguments import at_least
from lacunar.data.batch import Batch, collate
from lacunar.data.columns import Column
from lacunar.data.filled import FilledColumn
from lacunar.data.presence_table import PresenceTable, presence_by_name
from lacunar.errors import DataError, did_you_mean
from lacunar.lattice import Lattice
from lacunar.tasks import Task

if TYPE_CHECKING:
    from lacunar.data.splits import Splits

__all__ = ["MultimodalDataset"]

logger = logging.getLogger(__name__)

#: Bytes of inputs that are read at a time.
LARGEST = 64 * 2**20


class MultimodalDataset(Dataset):
    """Samples, each with the modalities it has.

    Build one with :func:`lacunar.from_arrays`, :func:`lacunar.from_frame` or :func:`lacunar.load_description`.

    Attributes:
        columns: one store per modality, in lattice order.
        target: encoded targets, shape ``(N, ...)``, or None.
        task: what is predicted, and how it is scored.
        ids: sample ids, strings, shape ``(N,)``.
        groups: group of each sample that no split may cut through, or None.
        subgroups: one column per attribute to report results by, or None.
        row: position of each sample in the data set that was first built, int64, shape ``(N,)``; it stays the
            same through splits and shuffling, and is the ``index`` of a batch.
        dropped: how many samples were left out because they had no modality at all.
        card: facts about the data worth printing (source, licence), or None.
        present: presence, boolean, shape ``(N, M)``.
        generated: which of the present cells a completer made up, boolean, shape ``(N, M)``.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        target: Tensor | None,
        task: Task | None,
        ids: np.ndarray,
        groups: np.ndarray | None = None,
        subgroups: pd.DataFrame | None = None,
        row: Tensor | None = None,
        name: str = "data",
        dropped: int = 0,
        card: Any = None,
    ):
        self.columns = dict(columns)
        self.target, self.task, self.ids = target, task, ids
        self.groups, self.subgroups = groups, subgroups
        self.row = torch.arange(len(ids)) if row is None else row
        self.name, self.dropped, self.card = name, dropped, card
        self.lattice = Lattice(tuple(self.columns))
        self.present = torch.stack([column.present for column in self.columns.values()], dim=1)
        nothing = torch.zeros(len(ids), dtype=torch.bool)
        self.generated = torch.stack([getattr(c, "generated", nothing) for c in self.columns.values()], dim=1)

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names in lattice order."""
        return self.lattice.names

    @property
    def kinds(self) -> dict[str, str]:
        """Kind of each modality, see :class:`lacunar.data.columns.Column`."""
        return {name: column.kind for name, column in self.columns.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one sample of each modality; sequences without their number of steps."""
        ragged = ("sequence", "tokens")
        return {
            name: getattr(column, "shape_without_steps", column.shape) if column.kind in ragged else column.shape
            for name, column in self.columns.items()
        }

    @property
    def availability(self) -> Tensor:
        """Number of samples that have each modality, int64, shape ``(M,)``."""
        return self.present.sum(0)

    @property
    def rows_at_once(self) -> int:
        """How many samples to read at a time where nobody says: 256, fewer where they are large images or volumes."""
        numbers = sum(math.prod(shape) for shape in self.shapes.values())
        return max(1, min(256, LARGEST // max(4 * numbers, 1)))

    @property
    def missing_rates(self) -> dict[str, float]:
        """Fraction of the samples in which each modality is absent."""
        return {name: 1 - float(count) / max(len(self), 1) for name, count in zip(self.names, self.availability)}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> Batch:
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        rows = torch.as_tensor(positions, dtype=torch.int64)
        present = self.present[rows]
        inputs, lengths = {}, {}
        for m, (name, column) in enumerate(self.columns.items()):
            inputs[name], steps = column.take(rows[present[:, m]])
            if steps is not None:
                lengths[name] = steps
        target = None if self.target is None else self.target[rows]
        return Batch(inputs, present, target, self.row[rows], lengths, self.generated[rows])

    def batches(self, batch_size: int | None = None) -> Iterator[Batch]:
        """All samples in order, in packed batches; of :attr:`rows_at_once` when no size is given."""
        at_least(1, batch_size=batch_size)
        batch_size = self.rows_at_once if batch_size is None else batch_size
        for start in range(0, len(self), batch_size):
            yield self.__getitems__(range(start, min(start + batch_size, len(self))))

    def loader(self, batch_size: int = 128, shuffle: bool = False, seed: int = 0, **options: Any) -> DataLoader:
        """A DataLoader of packed batches; ``seed`` fixes the order when ``shuffle`` is set."""
        generator = torch.Generator().manual_seed(seed)
        return DataLoader(self, batch_size, shuffle, collate_fn=collate, generator=generator, **options)  # type: ignore[arg-type]

    def select(self, rows: Sequence[int] | np.ndarray | Tensor) -> MultimodalDataset:
        """Some of the samples, by position or by a boolean table of length N."""
        table = np.asarray(rows)
        if table.ndim != 1 or (table.size and table.dtype.kind not in "iub"):
            raise DataError(
                f"select: expected a list of positions, or one boolean per sample, got {table.dtype} of shape "
                f"{table.shape}."
            )
        chosen = torch.as_tensor(table)
        if chosen.dtype == torch.bool:
            if chosen.shape != (len(self),):
                raise DataError(f"select: expected {len(self)} booleans, one per sample, got {tuple(chosen.shape)}.")
            chosen = chosen.nonzero().squeeze(1)
        chosen = chosen.to(torch.int64)
        if len(chosen) and not -len(self) <= int(chosen.min()) <= int(chosen.max()) < len(self):
            raise DataError(f"select: expected positions below {len(self)}, got {int(chosen.max())}.")
        picked = chosen.numpy()
        return self._copy(
            columns={name: column.select(chosen) for name, column in self.columns.items()},
            target=None if self.target is None else self.target[chosen],
            ids=self.ids[picked],
            groups=None if self.groups is None else self.groups[picked],
            subgroups=None if self.subgroups is None else self.subgroups.iloc[picked].reset_index(drop=True),
            row=self.row[chosen],
            dropped=0,
        )

    def only(self, names: Sequence[str] | str) -> MultimodalDataset:
        """The same samples with some of the modalities, in their order; samples with none of them are left out."""
        names = [names] if isinstance(names, str) else list(names)
        if not names:
            raise DataError(f"only: expected at least one modality of {', '.join(map(repr, self.names))}.")
        self._check_names(names)
        columns = {name: column for name, column in self.columns.items() if name in set(names)}
        return self._copy(columns=columns)._without_empty()

    def hide(
        self, present: PresenceTable | Tensor | np.ndarray | pd.DataFrame | Mapping[str, Any]
    ) -> MultimodalDataset:
        """The same samples with fewer cells: what the table marks absent is gone, and cannot be read back.

        Args:
            present: a presence table keyed by sample id, booleans of shape ``(N, M)`` in this order, or a mapping or
                frame with booleans ``(N,)`` for each modality that loses cells, a frame with an index by sample id.
                Samples that are left with nothing are left out, unless the table says ``resolve_empty="keep"``.
        """
        table = presence_by_name(present, self.names, len(self), self.ids) or {}
        kept = [table.get(name, np.ones(len(self), dtype=bool)) for name in self.names]
        keep = torch.from_numpy(np.stack(kept, axis=1))
        columns = {name: column.hide(keep[:, m]) for m, (name, column) in enumerate(self.columns.items())}
        hidden = self._copy(columns=columns)
        return hidden if getattr(present, "resolve_empty", "drop") == "keep" else hidden._without_empty()

    def fill(self, values: Mapping[str, Any]) -> MultimodalDataset:
        """The same samples with absent cells filled in and flagged as generated.

        Args:
            values: for each modality to fill, one value for every sample that lacks it, in order: an array
                ``(n_absent, ...)``, or for sequences a list of arrays ``(T, ...)``.

        Raises:
            DataError: an unknown modality, too few or too many values, or values of another shape.
        """
        self._check_names(list(values))
        columns = dict(self.columns)
        for name, given in values.items():
            column = columns[name]
            absent = int((~column.present).sum())
            if len(given) != absent:
                raise DataError(f"Modality {name!r}: {absent} cells are absent, got {len(given)} values to fill them.")
            if absent == 0:
                continue
            ragged = column.kind in ("sequence", "tokens")
            dtype = torch.int64 if column.kind == "tokens" else torch.float32
            made = [torch.as_tensor(value, dtype=dtype) for value in given]
            for value in made:
                found = tuple(value.shape[1:] if ragged else value.shape)
                if found != self.shapes[name]:
                    raise DataError(f"Modality {name!r}: expected values of shape {self.shapes[name]}, got {found}.")
                if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                    raise DataError(f"Modality {name!r}: a value to fill an absent cell with is NaN or infinite.")
            if isinstance(column, FilledColumn):  # some cells were hidden again after an earlier filling
                raise DataError(f"Modality {name!r} was filled before: complete the data as they were observed.")
            columns[name] = FilledColumn(column, made if ragged else torch.stack(made))
        return self._copy(columns=columns)

    def observed(self) -> MultimodalDataset:
        """The same samples without what a completer made up."""
        if not self.generated.any():
            return self
        columns = {name: getattr(column, "observed", column) for name, column in self.columns.items()}
        return self._copy(columns=columns)

    def with_task(self, task: Task, target: Tensor | None) -> MultimodalDataset:
        """The same samples under another task."""
        return self._copy(task=task, target=target)

    def split(self, *args: Any, **options: Any) -> Splits:
        """Train, validation and test parts; see :func:`lacunar.data.splits.make_splits`."""
        from lacunar.data.splitting import make_splits

        return make_splits(self, *args, **options)

    def _check_names(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.columns:
                raise DataError(f"Unknown modality {name!r}.{did_you_mean(name, self.names)}")

    def _copy(self, **changes: Any) -> MultimodalDataset:
        fields = ("columns", "target", "task", "ids", "groups", "subgroups", "row", "name", "dropped", "card")
        return MultimodalDataset(**{**{field: getattr(self, field) for field in fields}, **changes})

    def _without_empty(self) -> MultimodalDataset:
        empty = ~self.present.any(dim=1)
        if not empty.any():
            return self
        if empty.all():
            raise DataError(f"{self.name}: none of the {len(self)} samples has any of the modalities {self.names}.")
        kept = self.select(~empty)
        kept.dropped = self.dropped + int(empty.sum())
        logger.info("%s: %d samples without any modality left out", self.name, int(empty.sum()))
        return kept

    def describe(self) -> pd.DataFrame:
        """One row per modality: kind, shape, how many samples have it, missing rate."""
        return pd.DataFrame(
            {
                "kind": self.kinds,
                "shape": {name: "x".join(map(str, shape)) or "-" for name, shape in self.shapes.items()},
                "observed": dict(zip(self.names, self.availability.tolist())),
                "missing rate": self.missing_rates,
            }
        ).rename_axis("modality")

    def patterns(self) -> pd.Series:
        """How many samples have each presence pattern, most frequent first."""
        codes, counts = self.lattice.encode(self.present).unique(return_counts=True)
        series = pd.Series(counts.tolist(), index=[self.lattice.label(int(code)) for code in codes], name="samples")
        return series.sort_values(ascending=False, kind="stable")

    def __repr__(self) -> str:
        what = f"{len(self)} samples, {', '.join(self.names)}; {self.task or 'no target'}"
        return f"MultimodalDataset({self.name!r}: {what})"

    def __str__(self) -> str:
        lines = [f"{self.name}: {len(self)} samples, {len(self.names)} modalities, {self.task or 'no target'}"]
        if self.generated.any():
            lines.append(f"{int(self.generated.sum())} of {int(self.present.sum())} cells were generated")
        if self.dropped:
            lines.append(f"{self.dropped} samples without any modality were left out")
        table = self.describe().to_string(formatters={"missing rate": "{:.3f}".format})
        return "\n".join([*lines, table, "", "presence patterns", self.patterns().to_string()])
