"""Train, validation and test parts of one data set."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from lacunar.data.allocation import allocate
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.presence import PresenceTable, draw_presence, observed_presence
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.lattice import Lattice
from lacunar.tasks import Task

__all__ = ["Splits", "make_folds", "make_splits"]

logger = logging.getLogger(__name__)

PARTS = ("train", "val", "test")
DRAWN_BY = ("driver", "strength", "strata", "table")


class Splits:
    """The parts of a data set: validation is always there, and the test part is for the end.

    The task is copied and fitted on the train targets only; the three parts share it. Parts that were made apart may
    number their labels differently: they are numbered as in train.

    Args:
        train: samples to learn from.
        val: samples to select and to calibrate on.
        test: samples that are scored once, at the end; None when there are none.
        presence: the presence table that made the parts what they are; what they have when left out.

    Raises:
        DataError: an empty part, parts with different modalities, kinds, shapes or tasks, an id or a group in two
            parts, a class or a modality that no train sample has.
    """

    def __init__(
        self,
        train: MultimodalDataset,
        val: MultimodalDataset,
        test: MultimodalDataset | None = None,
        presence: PresenceTable | None = None,
    ):
        parts = {"train": train, "val": val, "test": test}
        given = {name: part for name, part in parts.items() if part is not None}
        _check_parts(given)
        task = None
        if train.task is not None and train.target is not None:
            task = train.task.copy().fit(train.target)
            given = {name: part.with_task(task, _target_for(name, part, train.task)) for name, part in given.items()}
        self.train, self.val, self.test = given["train"], given["val"], given.get("test")
        self.task: Task | None = task
        self.presence = presence or PresenceTable.join([observed_presence(part) for part in given.values()])
        for name, part in given.items():
            never = [modality for modality, count in zip(part.names, part.availability.tolist()) if not count]
            if never and name == "train":
                raise DataError(
                    f"Modality {never[0]!r} is never present in the {len(part)} train samples, so that nothing can be "
                    "learned about it. Leave it out with .only(...), or split in another way."
                )
            if never:
                logger.warning("no sample of the %s part has modality %s", name, ", ".join(never))

    @property
    def parts(self) -> dict[str, MultimodalDataset]:
        """The parts that there are, by name."""
        everything = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in everything.items() if part is not None}

    @property
    def card(self) -> Any:
        """Facts about the data worth printing (source, licence), or None."""
        return self.train.card

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names in lattice order."""
        return self.train.names

    @property
    def lattice(self) -> Lattice:
        return self.train.lattice

    @property
    def ids(self) -> dict[str, list[str]]:
        """Sample ids of each part: with ``make_splits(data, indices=splits.ids)`` the split can be made again."""
        return {name: part.ids.tolist() for name, part in self.parts.items()}

    @property
    def hash(self) -> str:
        """SHA-256 of which id is in which part, whatever the order."""
        return hashlib.sha256(json.dumps({name: sorted(ids) for name, ids in self.ids.items()}).encode()).hexdigest()

    def only(self, names: Sequence[str]) -> Splits:
        """The same parts with some of the modalities; samples that have none of them are left out."""
        return self._with({name: part.only(names) for name, part in self.parts.items()}, self.presence)

    def hide(
        self,
        presence: PresenceTable | Mapping[str, float] | float | None = None,
        law: str = "independent",
        *,
        seed: int = 0,
        parts: Sequence[str] = ("train", "val"),
        resolve_empty: str = "drop",
        **options: Any,
    ) -> Splits:
        """The same parts with fewer cells.

        Args:
            presence: a presence table that covers the samples of the parts, or missing rates to draw one from.
            law: the law to draw from, see :func:`lacunar.data.presence.draw_presence`; each part has its own draw.
            seed: seed of the draw.
            parts: the parts that lose cells. The test part stays as it is unless it is named, so that every subset
                can be scored on the same samples.
            resolve_empty: what happens to samples with nothing, see :func:`draw_presence`.
            **options: ``driver``, ``strength``, ``strata`` and ``table``, see :func:`draw_presence`. A driver or strata
                are names, or have a value for every sample of the data set that was split.

        Returns:
            New splits, whose ``presence`` is the table of all samples.

        Raises:
            ConfigError: an unknown part or option, or one that says nothing beside a presence table.
        """
        parts = [parts] if isinstance(parts, str) else list(parts)
        for name in parts:
            if name not in self.parts:
                raise ConfigError(f"parts: unknown part {name!r}.{did_you_mean(name, self.parts)}")
        for option in options:
            if option not in DRAWN_BY:
                raise ConfigError(f"hide: unknown option {option!r}.{did_you_mean(option, DRAWN_BY)}")
        if isinstance(presence, PresenceTable):
            # The defaults say nothing either way.
            asked = {
                "law": law not in ("independent", "table"),
                "seed": seed != 0,
                "resolve_empty": resolve_empty != "drop",
            }
            idle = [*(option for option, given in asked.items() if given), *options]
            if idle:
                raise ConfigError(
                    f"hide: {', '.join(idle)} would be about drawing a presence table, and one is given. Leave that "
                    "out, or give rates."
                )
        tables, hidden = [], {}
        for name, part in self.parts.items():
            if name not in parts:
                table = observed_presence(part)
            elif isinstance(presence, PresenceTable):
                table = PresenceTable(
                    presence.align(part.ids, part.names),
                    part.ids,
                    part.names,
                    law=presence.law,
                    seed=presence.seed,
                    asked=presence.asked,
                    resolve_empty=presence.resolve_empty,
                )
            else:
                table = draw_presence(
                    part, presence, law, seed=seed, resolve_empty=resolve_empty, **self._of_part(name, parts, options)
                )
                logger.info("%s: %s", name, table)
            tables.append(table)
            hidden[name] = part.hide(table) if name in parts else part
        drawn = [table for name, table in zip(self.parts, tables) if name in parts]
        rest = [table for name, table in zip(self.parts, tables) if name not in parts]
        whole = PresenceTable.join([*drawn, *rest])
        if drawn:  # the rates are those of the parts that lost cells
            told = PresenceTable.join(drawn)
            whole.realised, whole.empty = told.realised, told.empty
        return self._with(hidden, whole)

    def _of_part(self, name: str, parts: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of one part's draw: of lists with a value per sample, the values of its own samples."""
        rows, own = self.parts[name].row.numpy(), dict(options)
        for option in ("driver", "strata"):
            if options.get(option) is None or isinstance(options[option], str):
                continue
            values = np.asarray(options[option])
            if len(parts) == 1 and values.shape == rows.shape:
                continue
            everything = np.concatenate([part.row.numpy() for part in self.parts.values()])
            if len(np.unique(everything)) < len(everything):
                raise DataError(
                    f"{option}: the parts were made apart, so that one list of values cannot tell whose is whose. "
                    "Give the name of a subgroup attribute, or hide cells of one part at a time."
                )
            if values.ndim != 1 or len(values) <= everything.max():
                raise DataError(
                    f"{option}: expected a value for every sample of the data set that was split, at least "
                    f"{everything.max() + 1}, got shape {values.shape}."
                )
            own[option] = values[rows]
        return own

    def _with(self, parts: dict[str, MultimodalDataset], presence: PresenceTable) -> Splits:
        return Splits(parts["train"], parts["val"], parts.get("test"), presence)

    def describe(self) -> pd.DataFrame:
        """One row per part: samples, missing rate of each modality, samples of each class."""
        rows = {}
        for name, part in self.parts.items():
            row: dict[str, Any] = {"samples": len(part)}
            row |= {f"missing {modality}": rate for modality, rate in part.missing_rates.items()}
            if self.task is not None and self.task.kind == "classification" and part.target is not None:
                counts = np.bincount(part.target.numpy(), minlength=self.task.n_outputs)
                row |= {f"class {label}": int(n) for label, n in zip(getattr(self.task, "classes", ()), counts)}
            rows[name] = row
        return pd.DataFrame.from_dict(rows, orient="index")

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(part)} {name}" for name, part in self.parts.items())
        return f"Splits({self.train.name!r}: {sizes}; {', '.join(self.names)}; {self.task or 'no task'})"

    def __str__(self) -> str:
        table = self.describe().T
        rates = [str(row).startswith("missing ") for row in table.index]
        shown = pd.DataFrame(
            {
                part: [f"{value:.3f}" if rate else f"{value:.0f}" for value, rate in zip(table[part], rates)]
                for part in table
            },
            index=table.index,
        )
        title = f"{self.train.name}: {', '.join(f'{len(part)} {name}' for name, part in self.parts.items())}"
        dropped = sum(part.dropped for part in self.parts.values())
        lines = [title, f"task: {self.task or 'none'}", shown.to_string()]
        if self.presence.law != "observed":
            lines += ["", str(self.presence)]
        elif dropped:
            lines.append(f"{dropped} samples without any modality were left out")
        return "\n".join(lines)


def make_splits(
    data: MultimodalDataset,
    train: float = 0.7,
    val: float = 0.15,
    test: float = 0.15,
    *,
    seed: int = 0,
    indices: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
    by_class: bool = True,
) -> Splits:
    """Split a data set into train, validation and test parts.

    Classes are spread evenly (largest remainder; a class with too few samples is at least in train), and when the
    data set has groups, no group is cut. The parts depend on the sample ids, not on their order.

    Args:
        data: the whole data set.
        train: fraction to train on.
        val: fraction to validate on, positive. With ``indices`` that lack ``"val"``: the fraction of train that is
            carved off for it.
        test: fraction to test on; 0 for no test part.
        seed: seed of the shuffling.
        indices: the parts themselves: for ``"train"``, ``"val"`` and ``"test"`` sample ids (text), positions
            (integers) or N booleans. Samples in no part are left out.
        by_class: spread classes evenly; only classification has classes.

    Raises:
        ConfigError: fractions that do not sum to 1 or leave no validation part, an unknown part, a negative seed.
        DataError: an unknown id or position, a sample or a group in two parts, too few samples, a class or a modality
            that train lacks.
    """
    stratify = by_class and data.task is not None and data.task.kind == "classification" and data.target is not None
    labels = data.target.numpy() if stratify and data.target is not None else None
    if indices is not None and not isinstance(indices, Mapping):
        raise ConfigError(f"indices: expected a mapping from train, val and test to samples, got {indices!r}.")
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ConfigError(f"seed: expected a whole number from 0 up, got {seed!r}.")
    if indices is None:
        fractions = _fractions(train, val, test)
        part = allocate(data.ids, fractions, labels, data.groups, seed)
        rows = {name: np.flatnonzero(part == p) for p, name in enumerate(PARTS)}
    else:
        rows = _rows_of(data, indices)
        if "val" not in rows:
            if not 0 < val < 1:
                raise ConfigError(f"val: expected the fraction of train to validate on, in (0, 1), got {val}.")
            rows |= _carve(data, rows["train"], val, labels, seed)
            logger.info("no validation part was given: %d of the train samples are set aside for it", len(rows["val"]))
        unused = len(data) - sum(len(chosen) for chosen in rows.values())
        if unused > 0:
            logger.info("%d of %d samples are in no part and left out", unused, len(data))
    chosen = {name: data.select(rows[name]) for name in PARTS if name in rows and len(rows[name])}
    asked = ("train", "val", "test") if indices is None and test > 0 else ("train", "val")
    for name in asked:
        if name not in chosen:
            raise DataError(
                f"The {name} part is empty; expected at least one sample. {len(data)} samples are too few for these "
                "fractions and classes: raise its fraction, or give by_class=False."
                if indices is None
                else f"The {name} part is empty; expected at least one sample."
            )
    return Splits(chosen["train"], chosen["val"], chosen.get("test"))


def make_folds(
    data: MultimodalDataset, folds: int = 5, val: float = 0.15, *, seed: int = 0, by_class: bool = True
) -> list[Splits]:
    """Cross-validation: every sample is in the test part of exactly one of the splits.

    Args:
        data: the whole data set.
        folds: number of splits, at least 2.
        val: fraction of what is not tested on that validates.
        seed: seed of the shuffling.
        by_class: spread classes evenly; only classification has classes.
    """
    if not isinstance(folds, (int, np.integer)) or folds < 2:
        raise ConfigError(f"folds: expected at least 2, a whole number, got {folds!r}.")
    labels = None
    if by_class and data.task is not None and data.task.kind == "classification" and data.target is not None:
        labels = data.target.numpy()
    part = allocate(data.ids, np.full(folds, 1 / folds), labels, data.groups, seed)
    splits = []
    for fold in range(folds):
        rest = {"train": data.ids[part != fold], "test": data.ids[part == fold]}
        splits.append(make_splits(data, val=val, seed=seed, indices=rest, by_class=by_class))
    return splits


def _fractions(train: float, val: float, test: float) -> np.ndarray:
    fractions = np.array([train, val, test], dtype=float)
    if not np.isfinite(fractions).all() or (fractions < 0).any() or abs(fractions.sum() - 1) > 1e-6:
        raise ConfigError(
            f"train, val, test: expected fractions that sum to 1, got {train:g}, {val:g}, {test:g} "
            f"(sum {fractions.sum():g})."
        )
    if train == 0 or val == 0:
        raise ConfigError("train, val: a train and a validation part are always needed; only test may be 0.")
    return fractions


def _rows_of(data: MultimodalDataset, indices: Mapping[str, Any]) -> dict[str, np.ndarray]:
    for name in indices:
        if name not in PARTS:
            raise ConfigError(f"indices: unknown part {name!r}.{did_you_mean(name, PARTS)}")
    if "train" not in indices:
        raise ConfigError(f"indices: expected a part 'train', got {', '.join(map(repr, indices)) or 'nothing'}.")
    position = {key: row for row, key in enumerate(data.ids)}
    rows: dict[str, np.ndarray] = {}
    for name, given in indices.items():
        if given is None:
            continue
        values = np.asarray(sorted(given) if isinstance(given, (set, frozenset)) else given)
        if values.ndim != 1:
            raise DataError(f"indices, {name}: expected a list of ids or positions, got shape {values.shape}.")
        if values.dtype.kind in "iub" and data.dropped and len(values):
            raise DataError(
                f"indices, {name}: positions are ambiguous because {data.dropped} samples without any modality were "
                "left out of the data. Give sample ids (text)."
            )
        if values.dtype == bool:
            if len(values) != len(data):
                raise DataError(f"indices, {name}: expected {len(data)} booleans, got {len(values)}.")
            rows[name] = np.flatnonzero(values)
        elif values.dtype.kind in "iu":
            outside = values[(values < 0) | (values >= len(data))]
            if len(outside):
                raise DataError(f"indices, {name}: position {outside[0]} is outside 0..{len(data) - 1}.")
            rows[name] = values.astype(np.int64)
        elif len(values) == 0:
            rows[name] = np.empty(0, dtype=np.int64)
        elif all(isinstance(key, str) for key in values.tolist()):
            unknown = [key for key in values.tolist() if key not in position]
            if 0 < len(unknown) <= data.dropped:
                # The data set no longer has the ids of samples that it left out for having nothing.
                logger.warning("%s: %d ids are not in the data (left out for having no modality?)", name, len(unknown))
                values = np.array([key for key in values.tolist() if key in position], dtype=object)
            elif unknown:
                raise DataError(
                    f"indices, {name}: {len(unknown)} unknown ids, the first is {unknown[0]!r}."
                    f"{did_you_mean(unknown[0], list(data.ids[:1000])) if len(unknown) < len(values) else ''}"
                )
            rows[name] = np.array([position[key] for key in values.tolist()], dtype=np.int64)
        else:
            raise DataError(f"indices, {name}: expected ids (text) or positions (integers), got {values.dtype}.")
        if len(np.unique(rows[name])) < len(rows[name]):
            raise DataError(f"indices, {name}: a sample is listed more than once.")
    _refuse_overlap({name: data.ids[chosen] for name, chosen in rows.items()}, "sample")
    return rows


def _carve(
    data: MultimodalDataset, train: np.ndarray, val: float, labels: np.ndarray | None, seed: int
) -> dict[str, np.ndarray]:
    part = allocate(
        data.ids[train],
        np.array([1 - val, val]),
        None if labels is None else labels[train],
        None if data.groups is None else data.groups[train],
        seed,
    )
    return {"train": train[part == 0], "val": train[part == 1]}


def _check_parts(parts: Mapping[str, MultimodalDataset]) -> None:
    train = parts["train"]
    for name, part in parts.items():
        if len(part) == 0:
            raise DataError(f"The {name} part is empty; expected at least one sample.")
        if part.names != train.names:
            raise DataError(f"Expected the modalities {train.names} in every part, got {part.names} in {name}.")
        _check_same_form(name, part, train)
    _refuse_overlap({name: part.ids for name, part in parts.items()}, "sample")
    if all(part.groups is not None for part in parts.values()):
        groups = {name: np.unique(part.groups) for name, part in parts.items() if part.groups is not None}
        _refuse_overlap(groups, "group")


def _check_same_form(name: str, part: MultimodalDataset, train: MultimodalDataset) -> None:
    """DataError unless a part can be read by a model of the train part."""
    one, other = train.task, part.task
    same = (one is None) == (other is None)
    if one is not None and other is not None:
        named = hasattr(one, "classes") or hasattr(one, "labels")
        same = one.kind == other.kind and (named or one.n_outputs == other.n_outputs)
    if not same:
        raise DataError(f"Expected one task for all parts: train has {one}, {name} has {other}.")
    for modality, has in zip(train.names, (train.availability * part.availability).tolist()):
        if not has:  # what is never there has no form
            continue
        expected, found = _form(train, modality), _form(part, modality)
        if expected != found:
            raise DataError(
                f"Modality {modality!r}: expected kind {expected[0]!r} and shape {expected[1]} as in train, got "
                f"{found[0]!r} and {found[1]} in {name}."
            )


def _form(data: MultimodalDataset, modality: str) -> tuple[str, tuple[int, ...]]:
    """Kind and shape of a modality."""
    kind, shape = data.kinds[modality], data.shapes[modality]
    maps = data.task is not None and data.task.kind == "segmentation"
    # Networks that segment take crops and whole images alike, so that only the channels count.
    return kind, shape[:1] if maps and kind in ("image", "volume") else shape


def _target_for(name: str, part: MultimodalDataset, task: Task) -> Tensor | None:
    """The target of a part, numbered as in train.

    Raises:
        DataError: a label that train does not know.
    """
    own, target = part.task, part.target
    if own is None or target is None or own is task:
        return target
    if all(getattr(own, what, None) == getattr(task, what, None) for what in ("classes", "labels")):
        return target
    labels: Any = own.decode(target)
    if own.kind == "multilabel":
        names = getattr(own, "labels", ())
        labels = [{label for label, is_so in zip(names, row) if is_so} for row in labels]
    try:
        return task.encode(labels)
    except DataError as error:
        raise DataError(f"The {name} part: {error} Train has to know every label.") from error


def _refuse_overlap(members: Mapping[str, np.ndarray], what: str) -> None:
    names = list(members)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = sorted(set(members[first].tolist()) & set(members[second].tolist()))
            if both:
                raise DataError(
                    f"{len(both)} {what}s are in {first} and in {second}, the first is {both[0]!r}. "
                    f"A {what} belongs to one part."
                )
