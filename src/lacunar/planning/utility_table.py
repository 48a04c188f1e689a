"""The score of every subset of modalities, per repeat: what every indicator, selection and plan reads."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lacunar.errors import ConfigError, DataError, RunError, did_you_mean
from lacunar.evaluation.statistics import percentile_interval, resample_counts
from lacunar.lattice import MAX_TABLE, Lattice
from lacunar.planning.utility_parts import (
    by_label,
    floats,
    mean_of_known,
    named_differences,
    plain,
    text,
    whole_numbers,
)
from lacunar.training.files import read_json, write_whole

__all__ = ["ESTIMATORS", "UtilityTable", "a_table", "named_differences"]

FORMAT = 1
KIND = "lacunar utility table"
#: How the values of a table can have come about. The first two and "given" say what a subset is worth to someone who
#: has only that; "masked" and "permuted" say what one model makes of it.
ESTIMATORS = ("retrain", "amortised", "masked", "permuted", "given")
_ARRAYS = ("values", "seeds", "folds", "n_train", "n_eval", "given_sd")


@dataclass(frozen=True, eq=False, repr=False)
class UtilityTable:
    """The held-out score of every subset of modalities, one row per repeat (a seed, or a fold of a seed).

    Immutable plain data. Make one with :func:`lacunar.utilities`, or from known values with :meth:`of`.

    Attributes:
        names: the modalities, in lattice order.
        values: scores, higher is better (losses are negated), float64, shape ``(R, 2^M)`` in the order of
            ``lattice.codes``; column 0 is the constant baseline; NaN where nothing could be estimated.
        metric: what the scores are.
        estimator: one of :data:`ESTIMATORS`.
        seeds, folds: of each repeat, int64, shape ``(R,)``.
        n_train, n_eval: samples that each value was trained and scored on, int64, shape ``(R, 2^M)``.
        items: for each repeat the contribution of every held-out sample, float32, shape ``(n, 2^M)``, NaN where a
            sample does not have the subset. A column's mean is the value in ``values``: for scores that are means
            these are the samples' scores, for ratios such as F1 their first-order contributions.
        units: for each repeat what is resampled with each item, int64, shape ``(n,)``: the sample, or its group, the
            same number in every repeat.
        given_sd: standard errors of given values, shape ``(2^M,)``, or None.
        split_hash, data_hash: SHA-256 of the ids of all parts, and of the data.
        config: what was asked for, plain data.
        notes: what a reader should know: what is NaN and why, and warnings.
        trainings: models trained to make the table.
        seconds: time it took.
    """

    names: tuple[str, ...]
    values: np.ndarray
    metric: str = "score"
    estimator: str = "given"
    seeds: np.ndarray | None = None
    folds: np.ndarray | None = None
    n_train: np.ndarray | None = None
    n_eval: np.ndarray | None = None
    items: list[np.ndarray] | None = None
    units: list[np.ndarray] | None = None
    given_sd: np.ndarray | None = None
    split_hash: str = ""
    data_hash: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    trainings: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        lattice = Lattice(self.names)
        if lattice.M > MAX_TABLE:
            raise DataError(f"{lattice.M} modalities: utility tables hold every subset of up to {MAX_TABLE}.")
        if self.estimator not in ESTIMATORS:
            raise ConfigError(f"estimator: unknown {self.estimator!r}.{did_you_mean(self.estimator, ESTIMATORS)}")
        size = 2**lattice.M
        values = np.atleast_2d(np.array(self.values, dtype=np.float64))
        if values.ndim != 2 or values.shape[1] != size or not len(values):
            raise DataError(
                f"values: expected shape (repeats, {size}), a value for every subset of {', '.join(lattice.names)} "
                f"with the baseline first, got {np.shape(self.values)}."
            )
        if np.isinf(values).any():
            row, code = np.argwhere(np.isinf(values))[0]
            raise DataError(f"values, repeat {row}: the value of {lattice.label(int(code))} is infinite.")
        repeats = len(values)
        fixed: dict[str, Any] = {"names": lattice.names, "values": values}
        fixed["seeds"] = whole_numbers(self.seeds, np.arange(repeats), (repeats,), "seeds")
        fixed["folds"] = whole_numbers(self.folds, np.zeros(repeats), (repeats,), "folds")
        for name in ("n_train", "n_eval"):
            fixed[name] = whole_numbers(getattr(self, name), np.zeros(values.shape), values.shape, name)
        if self.given_sd is not None:
            fixed["given_sd"] = np.array(self.given_sd, dtype=np.float64)
            if fixed["given_sd"].shape != (size,) or (fixed["given_sd"] < 0).any():
                raise DataError(f"sd: expected {size} numbers of at least 0, got shape {np.shape(self.given_sd)}.")
        if self.items is not None:
            fixed["items"] = [np.array(part, dtype=np.float32).reshape(-1, size) for part in self.items]
            counts = [len(part) for part in fixed["items"]]
            if len(counts) != repeats:
                raise DataError(f"items: expected a table for each of {repeats} repeats, got {len(counts)}.")
            # Without units the items of a repeat have nothing to do with those of another.
            offsets = np.concatenate([[0], np.cumsum(counts)])
            alone = [np.arange(count) + offset for count, offset in zip(counts, offsets)]
            units = alone if self.units is None else self.units
            fixed["units"] = [np.array(part, dtype=np.int64) for part in units]
            if [len(part) for part in fixed["units"]] != counts:
                raise DataError("units: expected one number for each item.")
            for r, part in enumerate(fixed["items"]):
                gap = np.abs(mean_of_known(part.astype(np.float64)) - values[r])
                if (gap > 1e-3 * (1 + np.abs(np.nan_to_num(values[r])))).any():
                    raise DataError(f"items, repeat {r}: expected columns whose means are the values.")
        for name, value in fixed.items():
            for array in value if isinstance(value, list) else [value]:
                if isinstance(array, np.ndarray):
                    array.setflags(write=False)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "config", dict(self.config))
        object.__setattr__(self, "notes", list(self.notes))

    @classmethod
    def of(
        cls,
        names: Lattice | Iterable[str],
        values: Mapping[str, float] | Sequence[float] | np.ndarray,
        sd: Mapping[str, float] | Sequence[float] | np.ndarray | None = None,
        metric: str = "score",
    ) -> UtilityTable:
        """A table of known values, such as published ones.

        Args:
            names: the modalities, or their lattice.
            values: a value for each subset by label, in any order of the names (``{"a": 0.6, "b+a": 0.8, "none":
                0.5}``; subsets that are left out are NaN, and ``"none"`` is 0), or an array ``(2^M,)`` or
                ``(R, 2^M)`` in lattice order.
            sd: standard errors of the values in the same form; what is left out has none.
            metric: what the values are.

        Raises:
            DataError: for unknown modalities, a subset given twice, or an array of another shape.
        """
        lattice = names if isinstance(names, Lattice) else Lattice(names)
        if isinstance(values, Mapping):
            values = by_label(lattice, {"none": 0.0, **values}, np.nan)
        if isinstance(sd, Mapping):
            sd = by_label(lattice, sd, 0.0)
        return cls(lattice.names, np.asarray(values), metric, given_sd=None if sd is None else np.asarray(sd))

    @cached_property
    def lattice(self) -> Lattice:
        """The subsets and their order."""
        return Lattice(self.names)

    @property
    def mean(self) -> np.ndarray:
        """Mean over the repeats that have a value, float64, shape ``(2^M,)``; NaN where none has."""
        return mean_of_known(self.values)

    @property
    def sd(self) -> np.ndarray:
        """Standard deviation over repeats, shape ``(2^M,)``; NaN below two repeats. Given values have the given one."""
        if self.given_sd is not None:
            return self.given_sd.copy()
        known = np.isfinite(self.values).sum(axis=0)
        squares = np.nansum(np.square(self.values - self.mean), axis=0)
        return np.where(known > 1, np.sqrt(squares / np.maximum(known - 1, 1)), np.nan)

    @property
    def gains(self) -> np.ndarray:
        """What each subset adds to the baseline, f(S) = u(S) - u(none) (Eq. 2 of SK-LL), shape ``(R, 2^M)``."""
        return self.values - self.values[:, :1]

    @property
    def full(self) -> float:
        """Mean score with every modality."""
        return float(self.mean[-1])

    @property
    def complete(self) -> bool:
        """Whether every subset has a value."""
        return bool(np.isfinite(self.mean).all())

    @property
    def has_uncertainty(self) -> bool:
        """Whether the table says anything of how sure its values are: repeats, items or standard errors."""
        return len(self.values) > 1 or self.items is not None or self.given_sd is not None

    def value(self, subset: Iterable[str] | str | int) -> float:
        """Mean score of one subset, by names or code."""
        return float(self.mean[self.lattice.index(subset)])

    def draws(self, n: int = 1000, seed: int = 0) -> np.ndarray:
        """Bootstrap draws of :attr:`mean`, from which every interval follows, float64, shape ``(n, 2^M)``.

        Repeats are drawn with replacement and, where the table has items, so are the samples (or their groups), the
        same ones in every repeat and subset: what is common to all subsets cancels in differences. Given values with
        standard errors are drawn from normal distributions; without, they do not vary.

        Args:
            n: number of draws.
            seed: fixes them.
        """
        rng = np.random.default_rng([seed, 1])
        if self.given_sd is not None:
            noise = rng.normal(size=(n, 2**self.lattice.M))
            return self.mean + noise * self.given_sd
        repeats = len(self.values)
        share = rng.multinomial(repeats, np.full(repeats, 1 / repeats), size=n).astype(np.float64)
        total, weight = np.zeros((n, 2**self.lattice.M)), np.zeros((n, 2**self.lattice.M))
        resampled = self._resampled(n, seed)
        for r in range(repeats):
            scores = np.broadcast_to(self.values[r], total.shape) if resampled is None else resampled[r]
            known = np.isfinite(scores)
            total += share[:, r : r + 1] * np.where(known, scores, 0.0)
            weight += share[:, r : r + 1] * known
        # A subset that only undrawn repeats know keeps its mean.
        return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), self.mean)

    def _resampled(self, n: int, seed: int) -> list[np.ndarray] | None:
        """For each repeat ``(n, 2^M)`` means of its items over resampled units."""
        if self.items is None or self.units is None:
            return None
        labels, flat = np.unique(np.concatenate(self.units), return_inverse=True)
        codes = np.split(flat, np.cumsum([len(part) for part in self.units])[:-1])
        made = [np.full((n, 2**self.lattice.M), np.nan) for _ in self.items]
        known = [np.isfinite(part) for part in self.items]
        filled = [np.where(k, part, 0).astype(np.float32) for k, part in zip(known, self.items)]
        centre = [np.where(np.isfinite(row), row, 0.0) for row in self.values]
        start = 0
        for counts in resample_counts(len(labels), n, seed):
            for r, code in enumerate(codes):
                drawn = counts[:, code]
                weight = drawn @ known[r].astype(np.float32)
                # Around the value itself, so that float32 loses nothing that matters.
                offset = (filled[r] - centre[r].astype(np.float32)) * known[r]
                with np.errstate(invalid="ignore", divide="ignore"):
                    made[r][start : start + len(counts)] = centre[r] + (drawn @ offset) / weight
            start += len(counts)
        for r, row in enumerate(self.values):
            made[r][:, ~np.isfinite(row)] = np.nan
        return made

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per subset, the baseline first, then by size.

        Columns: ``subset``, ``size``, ``n_train`` and ``n_eval`` (means over repeats), ``value``, the ends ``low`` and
        ``high`` of its 95 % bootstrap interval (NaN for values of one repeat without items), and ``gain`` over the
        baseline.
        """
        low, high = percentile_interval(self.draws() if self.has_uncertainty else self.draws(0))
        codes = [0, *self.lattice.subsets]
        assert self.n_train is not None
        assert self.n_eval is not None
        gain = mean_of_known(self.gains)
        return pd.DataFrame(
            {
                "subset": [self.lattice.label(code) for code in codes],
                "size": [code.bit_count() for code in codes],
                "n_train": self.n_train.mean(axis=0)[codes],
                "n_eval": self.n_eval.mean(axis=0)[codes],
                "value": self.mean[codes],
                "low": low[codes],
                "high": high[codes],
                "gain": gain[codes],
            }
        )

    @property
    def hash(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(text(self._content()).encode()).hexdigest()

    def _content(self) -> dict[str, Any]:
        return {name: plain(getattr(self, name)) for name in (part.name for part in fields(self))}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the table as JSON, whole or not at all; NaN becomes null."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"kind": KIND, "format": FORMAT, "hash": self.hash, **self._content()}
        lines = ",\n".join(f"{json.dumps(name)}: {text(value)}" for name, value in content.items())
        write_whole(path, lambda file: file.write(f"{{\n{lines}\n}}\n".encode()))
        return path

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], data: Any = None, config: Mapping[str, Any] | None = None
    ) -> UtilityTable:
        """Read a table back.

        Args:
            path: what :meth:`save` wrote.
            data: the data that the table should be of; others are refused.
            config: what the table should have been asked for, in the form of :attr:`config`; keys that are left out
                are not compared.

        Raises:
            RunError: the file is no utility table, of a later format, changed since it was written, or of other data
                or another configuration; every difference is named.
        """
        path = Path(path)
        content = read_json(path)
        if not isinstance(content, dict) or content.get("kind") != KIND:
            raise RunError(f"{path} is not a utility table.")
        if content.get("format") != FORMAT:
            raise RunError(
                f"{path} has format {content.get('format')!r}; this version reads {FORMAT}. Update lacunar, or make "
                "the table again."
            )
        stored = {part.name for part in fields(cls)}
        if set(content) != {"kind", "format", "hash", *stored}:
            odd = sorted(set(content) ^ {"kind", "format", "hash", *stored})
            raise RunError(f"{path}: expected the fields of a utility table; {', '.join(odd)} should not differ.")
        given = {name: content[name] for name in stored}
        if hashlib.sha256(text(_in_order(given)).encode()).hexdigest() != content["hash"]:
            raise RunError(f"{path} was changed after it was written: its content does not match its hash.")
        for name in _ARRAYS:
            given[name] = floats(given[name])
        if given["items"] is not None:
            given["items"] = [floats(part) for part in given["items"]]
        table = cls(**{**given, "names": tuple(given["names"])})
        table.require(data, config, where=str(path))
        return table

    def require(self, data: Any = None, config: Mapping[str, Any] | None = None, where: str = "the table") -> None:
        """Refuse other data or another configuration than the table was made with.

        Raises:
            RunError: every difference is named.
        """
        found: list[str] = []
        if config is not None:
            shared = {key: self.config.get(key, "nothing") for key in config}
            found += named_differences(shared, dict(config))
        if data is not None:
            from lacunar.planning.estimate_pilot import describe_pilot

            asked = describe_pilot(data)
            if self.data_hash != asked["hash"]:
                known = self.config.get("data", {"hash": self.data_hash})
                found += named_differences({"data": known}, {"data": {key: asked[key] for key in known}})
        if found:
            listing = "\n".join(f"  {line}" for line in found)
            raise RunError(f"{where} is of other data or another configuration:\n{listing}\nMake a table of these.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UtilityTable) and self.hash == other.hash

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return (
            f"UtilityTable({', '.join(self.names)}; {self.metric}, {self.estimator}, {len(self.values)} repeats, "
            f"{self.trainings} models trained)"
        )

    def __str__(self) -> str:
        head = (
            f"utility of every subset: {self.metric} (higher is better), estimator {self.estimator}, "
            f"{len(self.values)} repeats, {self.trainings} models trained in {self.seconds:.1f} s"
        )
        shown = self.frame.to_string(index=False, float_format="{:.4f}".format)
        return "\n".join([head, shown, *[f"note: {note}" for note in self.notes]])


def _in_order(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a table as they are hashed."""
    return {part.name: given[part.name] for part in fields(UtilityTable)}


def a_table(given: Any, what: str = "table") -> UtilityTable:
    """A utility table.

    Raises:
        ConfigError: anything else; ``what`` is the name of the argument.
    """
    if not isinstance(given, UtilityTable):
        raise ConfigError(
            f"{what}: expected a UtilityTable, as lacunar.utilities gives it, got {type(given).__name__}."
        )
    return given
