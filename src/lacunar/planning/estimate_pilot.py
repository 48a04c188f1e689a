"""The pilot: what may be looked at to decide what to collect, and how it is cut for each repeat."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lacunar.data.columns import Column, DenseColumn, FileColumn, RaggedColumn
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.filled import FilledColumn
from lacunar.data.part import one_part
from lacunar.data.splits import Splits
from lacunar.data.splitting import make_folds, make_splits
from lacunar.errors import ConfigError, DataError
from lacunar.planning.repeats import seed_list
from lacunar.tasks.base import to_plain
from lacunar.training.folder import describe_data

__all__ = ["Repeat", "describe_pilot", "joined", "make_repeats", "pilot_of", "pilot_samples"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Repeat:
    """One cut of the pilot into what is learned from, selected on and scored.

    Attributes:
        seed, fold: which cut it is.
        splits: its train, val and test parts; the test part is the held-out part inside the pilot.
        held_rows: position of each held-out sample in the pilot, int64.
    """

    seed: int
    fold: int
    splits: Splits
    held_rows: np.ndarray

    @property
    def held(self) -> MultimodalDataset:
        """The held-out part."""
        assert self.splits.test is not None
        return self.splits.test

    @property
    def number(self) -> int:
        """One number for the random numbers of the repeat."""
        return 1000 * self.seed + self.fold


def pilot_of(data: Any) -> MultimodalDataset:
    """The samples that may be used: a data set as it is; of splits the train and validation parts, never the test part.

    Raises:
        DataError: there is no target, no sample, a modality that nothing has, or one class only.
    """
    data = pilot_samples(data, "utilities")
    if data.target is None or data.task is None:
        raise DataError(f"utilities: the pilot {data.name!r} has no target, and without one nothing can be scored.")
    if not len(data):
        raise DataError("utilities: the pilot holds no sample.")
    if not data.present.any(dim=1).all():
        data = data.select(data.present.any(dim=1))
    for name, count in zip(data.names, data.availability.tolist()):
        if not count:
            raise DataError(
                f"Modality {name!r} is observed for none of the {len(data)} pilot samples, so nothing is known of what "
                f"it is worth. Collect it for some samples, best together with the others, or leave it out: "
                f"data.only({[other for other in data.names if other != name]})."
            )
    if data.task.kind == "classification":
        seen = data.target.unique()
        if len(seen) < 2:
            label = to_plain(data.task.decode(seen)[0])
            raise DataError(
                f"target: all {len(data)} pilot samples are of one class, {label!r}; there is nothing to tell apart. "
                "Expected samples of at least two classes."
            )
    return data


def pilot_samples(data: Any, what: str) -> MultimodalDataset:
    """A data set as it is; of splits the train and validation parts, never the test part.

    Raises:
        DataError: a table, or anything else.
    """
    return joined([data.train, data.val]) if isinstance(data, Splits) else one_part(data, what)


def joined(parts: Sequence[MultimodalDataset]) -> MultimodalDataset:
    """The samples of several parts of one data set below each other."""
    first = parts[0]
    columns = {name: _joined_column([part.columns[name] for part in parts]) for name in first.names}
    everywhere = {key: all(getattr(part, key) is not None for part in parts) for key in ("groups", "subgroups")}
    import pandas as pd

    return MultimodalDataset(
        columns,
        None if first.target is None else torch.cat([part.target for part in parts if part.target is not None]),
        None if first.task is None else first.task.copy(),
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.groups for part in parts if part.groups is not None]) if everywhere["groups"] else None,
        pd.concat([part.subgroups for part in parts if part.subgroups is not None], ignore_index=True)
        if everywhere["subgroups"]
        else None,
        torch.cat([part.row for part in parts]),
        first.name,
        card=first.card,
    )


def _joined_column(parts: Sequence[Column]) -> Column:
    first = parts[0]
    if all(isinstance(part, FilledColumn) for part in parts):
        filled = [part for part in parts if isinstance(part, FilledColumn)]
        observed, made = _joined_column([p.observed for p in filled]), _joined_column([p.made for p in filled])
        return filled[0]._of(observed, made)
    if any(type(part) is not type(first) for part in parts):
        raise DataError(
            f"Modality {first.name!r}: the parts store it in different ways ("
            f"{', '.join(sorted({type(part).__name__ for part in parts}))}). Cut the parts from one data set; where "
            "one part only was completed, take part.observed()."
        )
    stores: list[Any] = [getattr(part, "paths", getattr(part, "values", None)) for part in parts]
    if all(store is stores[0] for store in stores):
        return first._like(torch.cat([part.position for part in parts]))
    starts = np.cumsum([0, *[len(store) for store in stores]]).tolist()
    shifted = [torch.where(p.position >= 0, p.position + start, -1) for p, start in zip(parts, starts)]
    position = torch.cat(shifted)
    if isinstance(first, DenseColumn):
        return DenseColumn(first.name, first.kind, position, torch.cat(stores))
    chained = [value for store in stores for value in store]
    if isinstance(first, RaggedColumn):
        return RaggedColumn(first.name, first.kind, position, chained, first.shape)
    if isinstance(first, FileColumn):
        return FileColumn(first.name, first.kind, position, chained, first.read, first.shape)
    raise DataError(f"Modality {first.name!r}: cannot join columns of type {type(first).__name__}.")


def make_repeats(
    pilot: MultimodalDataset, seeds: int | Sequence[int], folds: int, held_out: float, val: float
) -> list[Repeat]:
    """The cuts of the pilot, a hold-out for each seed, or the folds of a cross-validation for each seed.

    Raises:
        ConfigError: seeds or folds that are no numbers of repeats.
        DataError: fewer samples or groups than folds, or a part that cannot be learned from.
    """
    numbers = seed_list(seeds)
    if folds < 1:
        raise ConfigError(f"folds: expected 1 (a hold-out for each seed) or more, got {folds!r}.")
    for name, fraction in (("held_out", held_out), ("val", val)):
        if not 0 < fraction < 1:
            raise ConfigError(f"{name}: expected a fraction of the pilot in (0, 1), got {fraction!r}.")
    if held_out + val >= 1:
        raise ConfigError(f"held_out, val: {held_out:g} and {val:g} of the pilot leave nothing to train on.")
    units = len(pilot) if pilot.groups is None else len(np.unique(pilot.groups))
    what = "samples" if pilot.groups is None else "groups"
    needed = max(int(folds), 3)
    if units < needed:
        raise DataError(
            f"The pilot has {units} {what}; {folds} folds need at least {needed}. Use fewer folds, or collect more."
            if folds > 1
            else f"The pilot has {units} {what}; a train, a validation and a held-out part need at least 3."
        )
    position = {key: row for row, key in enumerate(pilot.ids.tolist())}
    made = []
    for seed in numbers:
        try:
            if folds == 1:
                cuts = [make_splits(pilot, 1 - held_out - val, val, held_out, seed=seed)]
            else:
                cuts = make_folds(pilot, int(folds), val / (1 - 1 / int(folds)) if folds > 1 else val, seed=seed)
        except DataError as error:
            raise DataError(
                f"The pilot of {len(pilot)} samples cannot be cut for seed {seed}"
                f"{f' into {folds} folds' if folds > 1 else ''}: {error} Use fewer folds, merge or leave out rare "
                "classes, or collect more."
            ) from error
        for fold, splits in enumerate(cuts):
            assert splits.test is not None
            rows = np.array([position[key] for key in splits.test.ids.tolist()], dtype=np.int64)
            made.append(Repeat(seed, fold, splits, rows))
    return made


def describe_pilot(data: Any) -> dict[str, Any]:
    """Sizes of a pilot and a hash of its ids, presence, targets and values."""
    pilot = joined([data.train, data.val]) if isinstance(data, Splits) else data
    facts = describe_data(pilot)
    digest = hashlib.sha256(facts["hash"].encode())
    for name, column in pilot.columns.items():
        if isinstance(column, DenseColumn):
            continue
        paths = getattr(column, "paths", None)
        rows = column.present.nonzero().squeeze(1)
        if paths is not None:
            digest.update("\0".join(str(paths[i]) for i in column.position[rows].tolist()).encode())
        elif len(rows):
            few = rows[:: max(1, len(rows) // 200)]
            values, steps = pilot.columns[name].take(few)
            digest.update(np.ascontiguousarray(values.numpy()).tobytes())
            digest.update(b"" if steps is None else steps.numpy().tobytes())
    return {**facts, "hash": digest.hexdigest()}
