"""A rehearsal of the collection inside the pilot: how much of what full data would bring does generation recover?

Part of the pilot is kept in full. Of the rest everything outside a subset S is hidden; it is completed, or left
absent, and trained on together with the part that was kept. The score with all modalities, on held-out samples, then
lies between training on the kept part alone and training on everything in full; the completion quality q_S is how far
up it lies. It needs no data that are not there already.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from joblib import delayed
from scipy import stats

from lacunar.arguments import at_least, checked
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.evaluation.statistics import seed_interval
from lacunar.lattice import Lattice
from lacunar.planning.estimate_pilot import pilot_samples
from lacunar.planning.estimate_scoring import metric_for
from lacunar.planning.estimate_store import CellStore
from lacunar.planning.learner import Learner, complete_cases, held_out
from lacunar.planning.nested import NestedSubsets
from lacunar.planning.repeats import named_subsets, run_jobs, seed_list
from lacunar.training.folder import fingerprint

__all__ = ["Rehearsal", "ratio_interval", "rehearse"]

logger = logging.getLogger(__name__)

LOWER, UPPER, FILLED, UNFILLED = "lower", "upper", "filled", "not filled"


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """What a rehearsal found; :func:`rehearse` makes it.

    Attributes:
        quality: one row per subset: ``subset``; ``arm``, what is best done with its gaps (``"filled"`` or
            ``"not filled"``); ``quality``, ``low``, ``high`` of that arm; ``filled``, ``not_filled``, the quality of
            each; ``benefit``, the score with filling minus the score without, with ``benefit_low``, ``benefit_high``
            and ``p_value``, paired by seed. A quality is NaN where full data bring no gain that could be told from
            zero, and so there is nothing to recover a part of.
        draws: for each subset bootstrap draws over seeds of the quality of its arm, shape ``(D,)``, not clipped;
            draw k is the same resample of the seeds in every subset. NaN where the quality is.
        points: one row per training: ``seed``, ``subset``, ``arm``, ``score``, ``n``, ``seconds``.
        gain: mean score of ``upper`` minus ``lower``, with its interval over seeds ``(value, low, high)``.
        kept, rest: samples that were kept in full, and samples whose cells were hidden.
        metric: what the scores are.
        confidence: nominal coverage of the intervals.
        notes: what a reader should know.
    """

    lattice: Lattice
    quality: pd.DataFrame
    draws: dict[str, np.ndarray]
    points: pd.DataFrame
    gain: tuple[float, float, float]
    kept: int
    rest: int
    metric: str
    confidence: float
    notes: list[str] = field(default_factory=list)

    @property
    def abstained(self) -> tuple[str, ...]:
        """Subsets whose gaps are better not filled: filling them showed no benefit beyond its interval."""
        return tuple(self.quality.loc[self.quality["arm"] == UNFILLED, "subset"])

    @property
    def known(self) -> bool:
        """Whether full data bring a gain here, so that qualities mean something."""
        return bool(self.gain[1] > 0)

    @property
    def trainings(self) -> int:
        """Models that were trained."""
        return len(self.points)

    @property
    def seconds(self) -> float:
        """Time that all trainings took together."""
        return float(self.points["seconds"].sum())

    def effective(self, subset: Iterable[str] | str, draws: int | None = None) -> tuple[float, np.ndarray]:
        """How many complete samples one sample of a subset is worth: mean and draws, in [0, 1].

        All modalities together are worth 1. Where the quality is NaN it is 0: what nobody saw is not promised.

        Args:
            subset: names or label.
            draws: how many, repeated in order where there are fewer; as many as there are when left out.

        Raises:
            DataError: a subset that was not rehearsed.
        """
        names = subset.split("+") if isinstance(subset, str) else list(subset)
        code = self.lattice.index(names)
        count = draws or len(next(iter(self.draws.values()), np.empty(1)))
        if code == 2**self.lattice.M - 1:
            return 1.0, np.ones(count)
        label = self.lattice.label(code)
        if label not in self.draws:
            raise DataError(f"{label} was not rehearsed.{did_you_mean(label, self.draws)}")
        mean = float(self.quality.loc[self.quality["subset"] == label, "quality"].iloc[0])
        clipped = np.nan_to_num(np.clip(self.draws[label], 0, 1), nan=0.0)
        return float(np.nan_to_num(np.clip(mean, 0, 1))), np.resize(clipped, count)

    def fills(self, subset: Iterable[str] | str) -> bool:
        """Whether the gaps of a subset are better filled."""
        names = subset.split("+") if isinstance(subset, str) else list(subset)
        label = self.lattice.label(self.lattice.index(names))
        return bool((self.quality.loc[self.quality["subset"] == label, "arm"] == FILLED).any())

    def __str__(self) -> str:
        head = (
            f"rehearsal: {self.kept} samples kept, {self.rest} with hidden cells; {self.metric} gain of full data "
            f"{self.gain[0]:+.4f} [{self.gain[1]:+.4f}, {self.gain[2]:+.4f}]"
        )
        shown = self.quality[["subset", "arm", "quality", "low", "high", "filled", "not_filled", "benefit", "p_value"]]
        return "\n".join([head, shown.to_string(index=False, float_format="{:.3f}".format), *self.notes])


@checked
def rehearse(
    data: MultimodalDataset | Splits,
    subsets: Sequence[Iterable[str] | str] | None = None,
    *,
    completer: Any = "ridge",
    make_model: Any = None,
    metric: str | None = None,
    seeds: int | Sequence[int] = 5,
    keep: float = 0.5,
    test: float = 0.3,
    confidence: float = 0.9,
    draws: int = 1000,
    fit: Mapping[str, Any] | None = None,
    n_jobs: int | None = 1,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Rehearsal:
    """Measure the completion quality of subsets inside the pilot (section 9.3, step 2, of the specification).

    Only complete samples take part. For each seed some are held out, ``keep`` of the others stay full, and of the
    rest only the subset stays: the other values are removed from the data before anything is fitted. Trained are
    ``2 + 2 K`` models for K subsets and each seed.

    All intervals are over repeats within this one pilot: they say how repeatable a number is here, and are somewhat too
    narrow for what another pilot would say.

    Filling is always compared with not filling, where the gaps stay absent. A subset is filled only if that scored
    better beyond the paired interval over seeds; otherwise its arm is not to fill.

    Args:
        data: the pilot; of splits the train and validation parts.
        subsets: names or labels; every subset but all modalities together when left out.
        completer: what fills gaps, see :class:`lacunar.planning.learner.Learner`.
        make_model: what learns; likewise.
        metric: what to score by; the task's usual one when left out.
        seeds: how many repeats, or their seeds; at least 2 are needed for intervals.
        keep: share of what is trained on that stays full.
        test: share of the complete samples that is held out.
        confidence: nominal coverage of the intervals.
        draws: bootstrap draws.
        fit: options of :func:`lacunar.fit`.
        n_jobs: repeats at the same time.
        out: folder that keeps finished repeats, so that the same call goes on with the others.
        progress: show how far it is.

    Raises:
        DataError: no target, too few complete samples, an unknown subset, or all modalities as a subset.
        ConfigError: a share outside (0, 1), an unknown metric or completer.
        RunError: ``out`` holds repeats of other data or another learner.
    """
    data = pilot_samples(data, "rehearse")
    if data.target is None or data.task is None:
        raise DataError("A rehearsal needs a target, and the data have none.")
    at_least(1, draws=draws)
    if not 0 < keep < 1:
        raise ConfigError(f"keep: expected a share in (0, 1), got {keep!r}.")
    chosen = named_subsets(data.lattice, subsets, proper=True)
    learner = Learner(make_model, metric_for(data.task, metric), completer, fit or {})
    full = complete_cases(data)
    every = seed_list(seeds)
    learner.make_completer()  # a wrong one is known before anything is trained
    asked = {} if out is None else {"keep": keep, "test": test, **learner.describe(full)}
    store = CellStore(out, asked, "rehearsal")
    mark = fingerprint(chosen)[:12]
    jobs = {f"{mark}-seed{seed}": delayed(_repeat)(learner, full, chosen, seed, keep, test) for seed in every}
    points = pd.DataFrame([row for rows in run_jobs(jobs, n_jobs, progress, "rehearsal", store) for row in rows])
    result = _summary(points, chosen, data.lattice, confidence, draws)
    counts = points.groupby("arm")["n"].first()
    notes = list(result.pop("notes"))
    if len(full) < len(data):
        notes.append(f"{len(full)} of {len(data)} samples are complete, and only they took part")
    return Rehearsal(
        lattice=data.lattice, points=points, kept=int(counts[LOWER]), rest=int(counts[UPPER] - counts[LOWER]),
        metric=str(learner.metric), confidence=confidence, notes=notes, **result,
    )  # fmt: skip


def _repeat(
    learner: Learner, full: MultimodalDataset, subsets: list[tuple[str, ...]], seed: int, keep: float, test: float
) -> list[dict[str, Any]]:
    """All trainings of one seed, on the same samples and from the same weights."""
    pool, scored = held_out(full, test, seed)
    kept = np.zeros(len(pool), dtype=bool)
    kept[NestedSubsets(pool, seed).rows(min(max(2, round(keep * len(pool))), len(pool) - 1))] = True
    rows = []

    def train(arm: str, subset: str, part: MultimodalDataset, fill: bool = False) -> None:
        found = learner.score(part, scored, seed, fill)
        rows.append(
            {"seed": seed, "subset": subset, "arm": arm, "score": found.score, "n": found.n, "seconds": found.seconds}
        )

    train(LOWER, "none", pool.select(kept))
    train(UPPER, "+".join(pool.names), pool)
    for names in subsets:
        # What is hidden is gone from the store: neither completer nor model could read it.
        part = pool.hide({name: kept for name in pool.names if name not in names})
        train(UNFILLED, "+".join(names), part)
        train(FILLED, "+".join(names), part, fill=True)
    return rows


def _summary(
    points: pd.DataFrame, subsets: list[tuple[str, ...]], lattice: Lattice, confidence: float, draws: int
) -> dict[str, Any]:
    def scores(arm: str, subset: str | None = None) -> np.ndarray:
        part = points[points["arm"] == arm]
        return (part if subset is None else part[part["subset"] == subset]).sort_values("seed")["score"].to_numpy()

    lower, whole = scores(LOWER), scores(UPPER) - scores(LOWER)
    gain = seed_interval(whole, confidence=confidence)
    notes = []
    if not gain.low > 0:
        notes.append(
            f"training on everything in full gains {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] over the part "
            "that was kept, which cannot be told from zero: no quality can be stated. Use more seeds or a larger pilot."
        )
    share = np.random.default_rng(0).multinomial(len(whole), [1 / len(whole)] * len(whole), draws) / len(whole)
    rows, kept = [], {}
    for names in subsets:
        label = "+".join(names)
        filled, unfilled = scores(FILLED, label), scores(UNFILLED, label)
        benefit = seed_interval(filled, unfilled, confidence=confidence)
        arm, best = (FILLED, filled) if benefit.low > 0 else (UNFILLED, unfilled)
        found = {
            name: ratio_interval(part - lower, whole, confidence) if gain.low > 0 else (np.nan,) * 3
            for name, part in ((FILLED, filled), (UNFILLED, unfilled))
        }
        kept[label] = _ratio_draws(best - lower, whole, share) if gain.low > 0 else np.full(draws, np.nan)
        rows.append(
            {
                "subset": label, "arm": arm, "quality": found[arm][0], "low": found[arm][1], "high": found[arm][2],
                "filled": found[FILLED][0], "not_filled": found[UNFILLED][0], "benefit": benefit.value,
                "benefit_low": benefit.low, "benefit_high": benefit.high, "p_value": benefit.p_value,
            }
        )  # fmt: skip
    columns = [
        "subset", "arm", "quality", "low", "high", "filled", "not_filled", "benefit", "benefit_low", "benefit_high",
        "p_value",
    ]  # fmt: skip
    quality = pd.DataFrame(rows, columns=columns)
    return {"quality": quality, "draws": kept, "gain": (gain.value, gain.low, gain.high), "notes": notes}


def ratio_interval(above: np.ndarray, below: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """The ratio of two means over the same seeds, with Fieller's interval.

    Args:
        above, below: one number per seed, shape ``(R,)``.
        confidence: nominal coverage.

    Returns:
        Ratio of means, low, high; NaN where the mean of ``below`` cannot be told from zero.
    """
    count = len(above)
    if count < 2:
        return np.nan, np.nan, np.nan
    m, d = float(np.mean(above)), float(np.mean(below))
    cov = np.cov(above, below, ddof=1) / count
    t2 = float(stats.t.ppf((1 + confidence) / 2, count - 1)) ** 2
    lead = d**2 - t2 * cov[1, 1]
    if not lead > 0:
        return np.nan, np.nan, np.nan
    middle = m * d - t2 * cov[0, 1]
    reach = np.sqrt(max(middle**2 - lead * (m**2 - t2 * cov[0, 0]), 0.0))
    return m / d, float((middle - reach) / lead), float((middle + reach) / lead)


def _ratio_draws(above: np.ndarray, below: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Ratios of means over resampled seeds ``share (D, R)``, widened for their small number."""
    ratio = above.mean() / below.mean()
    top, bottom = share @ above, share @ below
    draws = np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), ratio)
    return ratio + np.sqrt(len(above) / (len(above) - 1)) * (draws - ratio)
