"""Learning curves: what a subset of modalities scores with n samples, measured at a few sizes and fitted."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import delayed

from lacunar.arguments import checked
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.planning.estimate_pilot import pilot_samples
from lacunar.planning.estimate_scoring import metric_for
from lacunar.planning.estimate_store import CellStore
from lacunar.planning.learner import Learner, complete_cases, held_out
from lacunar.planning.nested import NestedSubsets
from lacunar.planning.repeats import named_subsets, run_jobs, seed_list
from lacunar.training.folder import fingerprint

__all__ = ["CEILINGS", "Curves", "Prediction", "fit_curves", "learning_curves"]

logger = logging.getLogger(__name__)

#: The best that each metric can be.
CEILINGS = {"log_loss": 0.0, "brier": 0.0, "mae": 0.0}
#: The exponents that are tried, and how freely one subset's may differ from the common one (in log units).
EXPONENTS = np.geomspace(0.1, 1.5, 57)
FREEDOM = 0.35
#: How far beyond the largest measured size a curve may be read without a flag.
REACH = 4.0


class Prediction(NamedTuple):
    """A score that a curve predicts."""

    mean: np.ndarray | float  #: of the shape of n
    draws: np.ndarray  #: bootstrap draws, ``(D, *shape of n)``


@checked
def learning_curves(
    data: MultimodalDataset | Splits,
    subsets: Sequence[Iterable[str] | str] | None = None,
    sizes: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    make_model: Any = None,
    metric: str | None = None,
    seeds: int | Sequence[int] = 5,
    *,
    test: float = 0.25,
    fit: Mapping[str, Any] | None = None,
    n_jobs: int | None = 1,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Train on growing parts of the pilot and score each on held-out rows that are never trained on.

    For each subset the samples that have all of it count, with nothing else. For each seed a part is held out; of the
    rest, nested stratified prefixes are trained on.

    Args:
        data: the pilot; of splits the train and validation parts.
        subsets: names or labels such as ``"image+text"``; all modalities together when left out.
        sizes: shares in (0, 1] of what may be trained on.
        make_model: what learns, see :class:`lacunar.planning.learner.Learner`.
        metric: what to score by; the task's usual one when left out.
        seeds: how many repeats, or their seeds.
        test: share of the samples that is held out.
        fit: options of :func:`lacunar.fit`.
        n_jobs: trainings at the same time.
        out: folder that keeps finished trainings, so that the same call goes on with the others.
        progress: show how far it is.

    Returns:
        One row per training: ``subset`` (label), ``n`` (samples trained on), ``seed``, ``score`` (higher is better),
        ``baseline`` (of the constant prediction), ``seconds``; ``attrs["metric"]`` names the metric.

    Raises:
        ConfigError: sizes outside (0, 1], an unknown metric.
        DataError: an unknown modality, no target, or too few samples with a subset.
        RunError: ``out`` holds trainings of other data or another learner.
    """
    sizes = list(sizes) if isinstance(sizes, Iterable) else sizes
    if not isinstance(sizes, list) or not all(isinstance(size, Real) for size in sizes):
        raise ConfigError(f"sizes: expected shares in (0, 1], such as (0.5, 1.0), got {sizes!r}.")
    shares = sorted({float(size) for size in sizes})
    if not shares or not 0 < shares[0] <= shares[-1] <= 1:
        raise ConfigError(f"sizes: expected shares in (0, 1], got {list(sizes)!r}.")
    data = pilot_samples(data, "learning_curves")
    if data.target is None or data.task is None:
        raise DataError("Learning curves need a target, and the data have none.")
    learner = Learner(make_model, metric_for(data.task, metric), None, fit or {})
    asked = {} if out is None else {"test": test, **learner.describe(data)}
    store = CellStore(out, asked, "learning curve")
    jobs = {}
    for names in named_subsets(data.lattice, subsets):
        known = complete_cases(data, names)
        for seed in seed_list(seeds):
            rest, scored = held_out(known, test, seed)
            counts = sorted({max(2, round(share * len(rest))) for share in shares})
            for count in counts:
                key = f"{fingerprint(names)[:12]}-seed{seed}-{count}"
                jobs[key] = delayed(_point)(learner, names, seed, rest, scored, count)
    points = pd.DataFrame([row for rows in run_jobs(jobs, n_jobs, progress, "learning curve", store) for row in rows])
    points.attrs["metric"] = learner.metric
    return points


def _point(
    learner: Learner, names: tuple[str, ...], seed: int, rest: MultimodalDataset, scored: MultimodalDataset, count: int
) -> list[dict[str, Any]]:
    outcome = learner.score(rest.select(NestedSubsets(rest, seed).rows(count)), scored, seed)
    row = {
        "subset": "+".join(names),
        "n": outcome.n,
        "seed": seed,
        "score": outcome.score,
        "baseline": outcome.baseline,
        "seconds": outcome.seconds,
    }
    return [row]


@dataclass(frozen=True, eq=False)
class Curves:
    """Fitted curves ``u_S(n) = a_S - b_S n^(-c_S)``; :func:`fit_curves` makes them.

    Attributes:
        frame: one row per subset: ``subset``, ``a``, ``b``, ``c``, ``largest`` (n measured), ``rmse`` of the mean
            scores around the curve, ``flat`` (whether b is 0).
        draws: for each subset bootstrap draws of ``(a, b, c)``, shape ``(D, 3)``, as they were fitted; draw k is the
            same resample of the seeds in every subset.
        exponent: the exponent that all subsets together suggest.
        metric: what the scores are.
        ceiling: the best that they can be.
        repeats: R, how many seeds were resampled.
        notes: what a reader should know.
    """

    frame: pd.DataFrame
    draws: dict[str, np.ndarray]
    exponent: float
    metric: str
    ceiling: float
    repeats: int
    notes: list[str] = field(default_factory=list)

    def predict(self, subset: Iterable[str] | str, n: float | np.ndarray) -> Prediction:
        """The score with n samples: the fitted curve, and its draws.

        With few seeds R the draws of the score stand ``sqrt(R / (R - 1))`` times as far from the curve as those of the
        bootstrap, up to the ceiling.

        Args:
            subset: names or label.
            n: samples, 1 or more; any shape.

        Raises:
            ConfigError: n below 1.
            DataError: a subset that has no curve.
        """
        label, size = self._label(subset), np.asarray(n, dtype=float)
        if size.size and not float(size.min()) >= 1:
            raise ConfigError(f"n: expected at least 1 sample, got {float(size.min()):g}.")
        note = self.flag(label, float(size.max())) if size.size else ""
        if note:
            logger.info(note)
        a, b, c = self._parameters(label)
        mean = a - b * size**-c
        parts = [column.reshape(-1, *[1] * size.ndim) for column in self.draws[label].T]
        # The scores are widened and not a, b and c: these trade off against each other, and moving some of them apart
        # bends the curves, so that what was to become wider becomes narrower.
        wide = math.sqrt(self.repeats / (self.repeats - 1)) if self.repeats > 1 else 1.0
        draws = np.minimum(mean + wide * (parts[0] - parts[1] * size ** -parts[2] - mean), self.ceiling)
        return Prediction(float(mean) if mean.ndim == 0 else mean, draws)

    def flag(self, subset: Iterable[str] | str, n: float) -> str:
        """What should be said of a prediction at n samples; empty when there is nothing to say."""
        label = self._label(subset)
        largest = int(self.frame.loc[self.frame["subset"] == label, "largest"].iloc[0])
        if n <= REACH * largest:
            return ""
        return (
            f"{label}: the score at n = {n:g} is read off a curve that was measured up to n = {largest}, "
            f"{n / largest:.1f} times less: beyond {REACH:g} times, extrapolation is a guess"
        )

    def needed(self, subset: Iterable[str] | str, target: float, most: float = 1e7) -> float:
        """The smallest n at which the fitted curve reaches a score; infinite when it does not below ``most``."""
        a, b, c = self._parameters(self._label(subset))
        if a - b >= target:
            return 1.0
        if a <= target or b <= 0:
            return float("inf")
        n = (b / (a - target)) ** (1 / c)
        return float(n) if n <= most else float("inf")

    def _label(self, subset: Iterable[str] | str) -> str:
        label = subset if isinstance(subset, str) else "+".join(subset)
        if label in self.draws:
            return label
        for known in self.draws:
            if set(known.split("+")) == set(label.split("+")):
                return known
        raise DataError(f"No learning curve of {label!r}.{did_you_mean(label, self.draws)}")

    def _parameters(self, label: str) -> list[float]:
        return self.frame.loc[self.frame["subset"] == label, ["a", "b", "c"]].iloc[0].astype(float).tolist()

    def __str__(self) -> str:
        lines = [f"learning curves, {self.metric}: a - b n^-c, common c = {self.exponent:.2f}"]
        return "\n".join([*lines, self.frame.to_string(index=False, float_format="{:.4g}".format), *self.notes])


@checked
def fit_curves(
    points: pd.DataFrame, *, metric: str | None = None, ceiling: float | None = None, draws: int = 500, seed: int = 0
) -> Curves:
    """Fit ``u_S(n) = a_S - b_S n^(-c_S)`` to measured points of all subsets together.

    Given c, a and b are least squares with ``b >= 0`` and ``a`` at most the ceiling. The exponents share strength:
    the common one fits all subsets best, and each subset's may leave it where its own points say so clearly, under a
    log-normal prior around the common one. Both are found on a grid in [0.1, 1.5]. The same is done for every
    bootstrap resample of the seeds; :meth:`Curves.predict` widens what they spread over for the small number of seeds.

    Args:
        points: columns ``subset``, ``n``, ``seed``, ``score``, as :func:`learning_curves` gives them.
        metric: what the scores are; ``points.attrs["metric"]`` when left out.
        ceiling: the best possible score; by the metric when left out (0 for negated losses, otherwise 1).
        draws: bootstrap draws.
        seed: of the resampling.

    Raises:
        DataError: missing columns, no points, scores that are not finite or above the ceiling.
    """
    for column in ("subset", "n", "seed", "score"):
        if column not in points:
            raise DataError(f"points: expected columns subset, n, seed and score; {column!r} is missing.")
    if not len(points) or not np.isfinite(points[["n", "score"]].to_numpy(dtype=float)).all():
        raise DataError("points: expected at least one point, and finite numbers in n and score.")
    metric = str(metric or points.attrs.get("metric", "score"))
    top = CEILINGS.get(metric, 1.0) if ceiling is None else float(ceiling)
    if float(points["score"].max()) > top + 1e-9:
        raise DataError(f"points: a score of {points['score'].max():g} is above the ceiling {top:g} of {metric}.")
    seeds = np.unique(points["seed"])
    labels = list(dict.fromkeys(points["subset"]))
    rng = np.random.default_rng(seed)
    share = np.concatenate(
        [np.ones((1, len(seeds))), rng.multinomial(len(seeds), [1 / len(seeds)] * len(seeds), draws)]
    )
    parts = [points[points["subset"] == label] for label in labels]
    fits = [_Fits(part, np.searchsorted(seeds, part["seed"]), share, top) for part in parts]
    # Misfit in units of each subset's own noise, so that a noisy subset does not decide the common exponent.
    misfit = np.stack([found.misfit for found in fits])
    common = misfit.sum(0).argmin(1)
    away = (np.log(EXPONENTS[None]) - np.log(EXPONENTS[common])[:, None]) ** 2 / FREEDOM**2
    rows, kept, notes = [], {}, []
    for label, part, found in zip(labels, parts, fits):
        table = found.at((found.misfit + away).argmin(1))
        a, b, c = table[0]
        kept[label] = table[1:]
        means = part.groupby("n")["score"].mean()
        rmse = float(np.sqrt(np.mean((means - (a - b * means.index.to_numpy(float) ** -c)) ** 2)))
        rows.append((label, a, b, c, int(part["n"].max()), rmse, bool(b <= 0)))
        if part["n"].nunique() < 2:
            notes.append(f"{label}: measured at one size only, so nothing is known of how it grows; taken as flat")
        elif b <= 0:
            notes.append(f"{label}: the score does not rise with n in what was measured; taken as flat")
    if len(seeds) < 2:
        notes.append("one seed: the draws do not vary, and intervals mean nothing")
    frame = pd.DataFrame(rows, columns=["subset", "a", "b", "c", "largest", "rmse", "flat"])
    return Curves(frame, kept, float(EXPONENTS[common[0]]), metric, top, len(seeds), notes)


class _Fits:
    """Least squares of one subset for every resample and every exponent at once."""

    def __init__(self, part: pd.DataFrame, member: np.ndarray, share: np.ndarray, top: float):
        n, y = part["n"].to_numpy(float), part["score"].to_numpy(float)
        x = n[None] ** -EXPONENTS[:, None]  # (C, P)
        weight = share[:, member]  # (B, P)
        # A resample may have drawn no seed of this subset: it then counts them all.
        weight = np.where(weight.sum(1, keepdims=True) > 0, weight, 1.0)
        total = weight.sum(1, keepdims=True)
        mx, my = weight @ x.T / total, (weight @ y / total[:, 0])[:, None]
        vx = weight @ (x**2).T / total - mx**2
        cxy = weight @ (x * y).T / total - mx * my
        vy = np.maximum(weight @ y**2 / total[:, 0] - my[:, 0] ** 2, 0)[:, None]
        usable = vx > 1e-12 * (1e-300 + mx**2)
        b = np.where(usable, np.maximum(-cxy / np.where(usable, vx, 1.0), 0.0), 0.0)
        a = my + b * mx
        # Where the asymptote would be better than possible, it is the ceiling, and b fits alone.
        high = a > top
        b = np.where(high, np.maximum((top * mx - (cxy + mx * my)) / (vx + mx**2), 0.0), b)
        a = np.where(high, top, a)
        error = vy + 2 * b * cxy + b**2 * vx + (a - b * mx - my) ** 2
        self.a, self.b = a, b
        spread = part.groupby("n")["score"].var(ddof=1).mean()  # between seeds at one size
        noise = float(spread) if np.isfinite(spread) and spread > 0 else max(float(error.min(1).mean()), 1e-12)
        self.misfit = total * np.maximum(error, 0) / noise  # (B, C)

    def at(self, choice: np.ndarray) -> np.ndarray:
        """``(B, 3)``: a, b and c of each resample at its exponent."""
        rows = np.arange(len(choice))
        return np.stack([self.a[rows, choice], self.b[rows, choice], EXPONENTS[choice]], axis=1)
