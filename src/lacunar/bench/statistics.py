"""Which differences between methods would survive other problems and other seeds.

Scores are frames with one row per (problem, seed) and one column per method: what stands in a row was measured on the
same samples, the same missing cells and the same seed, so that everything here is paired.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy import stats

from lacunar.bench.tables import check_paired
from lacunar.errors import ConfigError, DataError
from lacunar.evaluation.statistics import percentile_interval, seed_interval

__all__ = ["Ranks", "compare", "holm", "pivot", "ranks", "record", "units"]

#: The fewest units with which a signed-rank test can come below .05.
ENOUGH = 6
#: A method that lacks more than this share of the blocks is left out of ranks, instead of those blocks.
MAY_LACK = 0.2
#: Decimals of a score that are more than rounding.
DIGITS = 12

_Gap = TypeVar("_Gap", pd.Series, pd.DataFrame)


def pivot(results: pd.DataFrame, measure: str = "mean") -> pd.DataFrame:
    """One row per (data, problem, seed), one column per method.

    Args:
        results: from :func:`lacunar.bench.tables.collect`.
        measure: what is compared.

    Raises:
        DataError: cells that cannot be paired; see :func:`lacunar.bench.tables.check_paired`.
    """
    check_paired(results)
    order = list(dict.fromkeys(results["method"]))
    frame = results.set_index(["data", "problem", "seed", "method"])[measure].unstack("method")
    return frame[order].astype(float)


def holm(p_values: Iterable[float]) -> np.ndarray:
    """Holm's step-down adjustment; NaN stays NaN and does not count.

    Args:
        p_values: of a family of tests.
    """
    p = np.asarray(list(p_values), dtype=float)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    running = 0.0
    for position, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - position) * p[index]))
        adjusted[index] = running
    return adjusted


def compare(
    scores: pd.DataFrame,
    against: str | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> pd.DataFrame:
    """Paired differences between methods, each on the rows that both have.

    The interval is a bootstrap's that draws data sets, and within each of them seeds: settings of one data set share
    its samples and come together. It speaks of other data sets like these. With one data set it is Student's over the
    means of each seed, and speaks of other seeds alone. The p value is Wilcoxon's signed-rank test over
    :func:`units`, adjusted by Holm over all comparisons of the frame.

    Args:
        scores: from :func:`pivot`.
        against: compare all others with this method; None compares all pairs.
        confidence: of the intervals.
        resamples: of the bootstrap.
        seed: of the bootstrap; all comparisons share the draws of data sets and seeds where they share rows.

    Returns:
        One row per comparison: ``method``, ``against``, ``difference``, ``low``, ``high``, ``p`` and ``p_holm``,
        ``units`` and ``over`` (what the test's units are), ``problems``, ``better``, ``worse``, ``clearly_better``,
        ``clearly_worse`` (by Student's interval over the seeds of a problem).

    Raises:
        ConfigError: an unknown method.
    """
    methods = list(scores.columns)
    if against is not None and against not in methods:
        raise ConfigError(f"against: expected one of {', '.join(methods)}, got {against!r}.")
    if against is None:
        pairs = list(itertools.combinations(methods, 2))
    else:
        pairs = [(method, against) for method in methods if method != against]
    rows, over = [], units(scores)
    for method, other in pairs:
        gap = (scores[method] - scores[other]).dropna()
        if len(gap):
            rows.append({"method": method, "against": other, **_difference(gap, over, confidence, resamples, seed)})
    frame = pd.DataFrame(rows)
    if len(frame):
        frame.insert(list(frame.columns).index("p") + 1, "p_holm", holm(frame["p"]))
    return frame


def units(scores: pd.DataFrame) -> str:
    """What a test of these scores takes as its units, the most independent that are enough for one.

    ``"data sets"`` from six on, each a mean over its settings and seeds; ``"seeds"``, each a mean over problems, where
    there is one data set; else ``"problems"`` from six on, or ``"problems and seeds"``. Problems of one data set share
    its samples and mostly agree, so that a test over them finds too much.

    Args:
        scores: from :func:`pivot`.
    """
    count = {level: scores.index.get_level_values(level).nunique() for level in ("data", "problem")}
    if count["data"] >= ENOUGH:
        return "data sets"
    if count["data"] == 1:
        return "seeds"
    return "problems" if count["problem"] >= ENOUGH else "problems and seeds"


def _by_problem(gap: _Gap) -> _Gap:
    """Means over the seeds of each problem, 0 where they differ by no more than rounding."""
    return gap.groupby(level="problem", sort=False).mean().round(DIGITS)


def _by_unit(scores: pd.DataFrame, over: str) -> pd.DataFrame:
    """Means within each unit; seeds weigh the same within a problem, problems within a data set."""
    if over == "problems and seeds":
        return scores
    if over == "seeds":
        return _by_seed(scores)
    by_problem = scores.groupby(level=["data", "problem"], sort=False).mean()
    return by_problem if over == "problems" else by_problem.groupby(level="data", sort=False).mean()


def _by_seed(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over problems for each seed that has all of them; for every seed where fewer than two have."""
    groups = scores.groupby(level="seed", sort=False)
    complete = groups.size() == scores.index.get_level_values("problem").nunique()
    means = groups.mean()
    return means[complete] if complete.sum() > 1 else means


def _difference(
    gap: pd.Series, over: str, confidence: float, resamples: int, seed: int
) -> dict[str, float | int | str]:
    by_problem = _by_problem(gap)
    difference = float(by_problem.mean())  # problems weigh the same, whatever the number of their seeds
    values = _by_unit(gap.to_frame(), over).iloc[:, 0].to_numpy()
    low, high = _interval(gap, difference, confidence, resamples, seed)
    clear = [
        seed_interval(part.to_numpy(), confidence=confidence) for _, part in gap.groupby(level="problem", sort=False)
    ]
    return {
        "difference": difference,
        "low": low,
        "high": high,
        "p": wilcoxon(values),
        "units": len(values),
        "over": over,
        "problems": len(by_problem),
        "better": int((by_problem > 0).sum()),
        "worse": int((by_problem < 0).sum()),
        "clearly_better": sum(one.low > 0 for one in clear),
        "clearly_worse": sum(one.high < 0 for one in clear),
    }


def _interval(gap: pd.Series, difference: float, confidence: float, resamples: int, seed: int) -> tuple[float, float]:
    if gap.index.get_level_values("data").nunique() > 1:
        low, high = percentile_interval(_draws(gap, resamples, seed)[:, None], confidence)
        return float(low[0]), float(high[0])
    # A bootstrap over a few seeds is far too narrow.
    found = seed_interval(_by_seed(gap.to_frame()).iloc[:, 0].to_numpy(), confidence=confidence)
    reach = (found.high - found.low) / 2
    return difference - reach, difference + reach


def _draws(gap: pd.Series, resamples: int, seed: int) -> np.ndarray:
    """Means over problems in resamples of data sets and, within them, of seeds; ``(resamples,)``."""
    generator = np.random.default_rng([seed, 5])
    sums, counts = [], []
    for _, part in gap.groupby(level="data", sort=True):
        table = part.droplevel("data").unstack("seed")  # (problems, seeds)
        values = table.to_numpy(float)
        picked = generator.integers(values.shape[1], size=(resamples, values.shape[1]))
        chosen = values[:, picked]  # (problems, resamples, seeds)
        known = np.isfinite(chosen)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(known, chosen, 0).sum(2) / known.sum(2)
        sums.append(np.nansum(means, axis=0))
        counts.append(np.isfinite(means).sum(0))
    total, count = np.stack(sums), np.stack(counts)  # (data sets, resamples)
    weight = generator.multinomial(len(total), np.full(len(total), 1 / len(total)), size=resamples).T
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weight * total).sum(0) / (weight * count).sum(0)


def wilcoxon(differences: np.ndarray) -> float:
    """Two-sided p value of the signed-rank test, exact with ties, too; zeros are ranked and then left out (Pratt).

    The distribution of the sum is that of independent fair signs, one convolution for each difference.
    """
    # Rounding makes ties of what is tied: 1/3 + 1/3 is not 2/3 to the last bit.
    values = np.round(np.asarray(differences, dtype=float), DIGITS)
    if not values.any():
        return 1.0
    # Ranks of ties are halves: doubled they are whole.
    doubled = np.rint(2 * stats.rankdata(np.abs(values))).astype(int)[values != 0]
    positive = int(doubled[values[values != 0] > 0].sum())
    chance = np.ones(1)
    for rank in doubled:
        step = np.zeros(len(chance) + rank)
        step[: len(chance)] += chance / 2
        step[rank:] += chance / 2
        chance = step
    return float(min(1.0, 2 * min(chance[: positive + 1].sum(), chance[positive:].sum())))


@dataclass(frozen=True)
class Ranks:
    """Average ranks of methods, and what difference between them would be more than chance.

    Attributes:
        average: mean rank of each method, best first; rank 1 is the best.
        critical: Nemenyi's critical difference: two methods whose mean ranks are nearer cannot be told apart.
        p: of Friedman's test that all methods are equal, in Iman and Davenport's form.
        blocks: how many blocks ranks are means over.
        over: what a block is.
        left_out: methods without results on too many problems.
        alpha: level of the critical difference.
    """

    average: pd.Series
    critical: float
    p: float
    blocks: int
    over: str
    left_out: tuple[str, ...] = ()
    alpha: float = 0.05

    def groups(self) -> list[tuple[str, ...]]:
        """Largest runs of neighbours that cannot be told apart, of two methods or more."""
        names, values = list(self.average.index), self.average.to_numpy()
        found: list[tuple[str, ...]] = []
        reach = -1
        for start in range(len(names)):
            end = int(np.searchsorted(values, values[start] + self.critical, side="right")) - 1
            if end > start and end > reach:
                found.append(tuple(names[start : end + 1]))
                reach = end
        return found


def ranks(scores: pd.DataFrame, alpha: float = 0.05) -> Ranks:
    """Ranks of the methods in each block, averaged (Demsar 2006).

    A block is one of the :func:`units`, scored by means over the problems and seeds that all methods have. Only blocks
    that all methods have count; a method that lacks more than a fifth of them is left out first.

    Args:
        scores: from :func:`pivot`; higher is better.
        alpha: level of the critical difference.

    Raises:
        DataError: fewer than two methods or blocks are left.
    """
    over = units(scores)
    lacking = scores.groupby(level=["data", "problem"], sort=False).mean().isna()
    # A data set counts as lacking where any of its problems does: its mean would be over other settings.
    lacks = (lacking.groupby(level="data").any() if over == "data sets" else lacking).mean()
    kept = [name for name in scores.columns if lacks[name] <= MAY_LACK]
    left_out = tuple(name for name in scores.columns if name not in kept)
    complete = _by_unit(scores[kept].dropna(), over)
    n, k = complete.shape
    if k < 2 or n < 2:
        raise DataError(f"Ranks need at least 2 methods and 2 {over} that all of them have, got {k} and {n}.")
    # Equal up to rounding is equal.
    table = complete.round(DIGITS).rank(axis=1, ascending=False)
    average = table.mean().sort_values(kind="stable")
    q = stats.studentized_range.ppf(1 - alpha, k, np.inf) / np.sqrt(2)
    critical = float(q * np.sqrt(k * (k + 1) / (6 * n)))
    return Ranks(average, critical, _friedman(table.to_numpy()), n, over, left_out, alpha)


def _friedman(table: np.ndarray) -> float:
    """p value of Friedman's test with ties, in the form of Iman and Davenport (an F statistic)."""
    n, k = table.shape
    spread = ((table - (k + 1) / 2) ** 2).sum()
    if spread == 0:
        return 1.0
    chi = (k - 1) * n**2 * ((table.mean(0) - (k + 1) / 2) ** 2).sum() / spread
    left = n * (k - 1) - chi
    if left <= 1e-12:
        return 0.0
    return float(stats.f.sf((n - 1) * chi / left, k - 1, (k - 1) * (n - 1)))


def record(scores: pd.DataFrame, methods: Sequence[str] | None = None) -> pd.DataFrame:
    """How often each method (rows) is better than each other one (columns).

    A problem counts by the means of both over the seeds that both have.

    Args:
        scores: from :func:`pivot`.
        methods: which; all when left out.
    """
    names = list(scores.columns if methods is None else methods)
    wins = {}
    for name in names:
        gaps = scores[names].rsub(scores[name], axis=0)
        wins[name] = (_by_problem(gaps) > 0).sum()
    return pd.DataFrame.from_dict(wins, orient="index", columns=names)
