"""Drawing train, validation and test parts, or folds, from one data set."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lacunar.arguments import at_least, checked
from lacunar.data.allocation import allocate
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.matching_parts import refuse_overlap
from lacunar.data.part import one_part
from lacunar.data.splits import PARTS, Splits
from lacunar.errors import ConfigError, DataError, did_you_mean

__all__ = ["make_folds", "make_splits"]

logger = logging.getLogger(__name__)


@checked
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
    data = one_part(data, "make_splits")
    stratify = by_class and data.task is not None and data.task.kind == "classification" and data.target is not None
    labels = data.target.numpy() if stratify and data.target is not None else None
    if indices is not None and not isinstance(indices, Mapping):
        raise ConfigError(f"indices: expected a mapping from train, val and test to samples, got {indices!r}.")
    at_least(0, seed=seed)
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


@checked
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
    data = one_part(data, "make_folds")
    at_least(0, seed=seed)
    at_least(2, folds=folds)
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
    refuse_overlap({name: data.ids[chosen] for name, chosen in rows.items()}, "sample")
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
