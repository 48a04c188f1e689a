"""Paired comparisons: which differences between two methods would survive other samples or other seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lacunar.arguments import checked
from lacunar.errors import ConfigError, DataError

__all__ = [
    "Difference",
    "bootstrap_means",
    "paired_difference",
    "percentile_interval",
    "resample_counts",
    "seed_interval",
]


@dataclass(frozen=True)
class Difference:
    """A mean difference with its interval.

    Attributes:
        value: mean of ``a - b``.
        low, high: ends of the interval.
        confidence: nominal coverage of the interval.
        n: how many pairs it rests on.
        p_value: two-sided; of the t test, or twice the smaller share of resamples on one side of zero.
    """

    value: float
    low: float
    high: float
    confidence: float
    n: int
    p_value: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}] (n={self.n})"


def resample_counts(
    n: int, resamples: int, seed: int, groups: Sequence[Any] | np.ndarray | None = None, block: int = 8_000_000
) -> Iterator[np.ndarray]:
    """How often each sample is drawn in each bootstrap resample, in blocks that stay small.

    Args:
        n: number of samples.
        resamples: number of resamples in all.
        seed: the same seed gives the same draws, so that whatever is computed from them is paired.
        groups: one label per sample; whole groups are drawn then, which is right when samples of one group depend on
            each other.
        block: largest number of entries in a block.

    Yields:
        float32 arrays of shape ``(b, n)``; the ``b`` add up to ``resamples``.
    """
    member = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    units = int(member.max()) + 1 if n else 0
    generator = np.random.default_rng(seed)
    size = max(1, block // max(n, 1))
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        drawn = generator.integers(0, max(units, 1), size=(rows, units))
        drawn += np.arange(rows)[:, None] * units
        counts = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)
        yield counts[:, member].astype(np.float32)


def bootstrap_means(
    values: np.ndarray, resamples: int, seed: int, groups: Sequence[Any] | np.ndarray | None = None
) -> np.ndarray:
    """Means of every column over bootstrap resamples of the rows, the same resamples for all columns.

    Args:
        values: shape ``(n, k)``; NaN where a column has no value for a row, which is then left out of its mean.
        resamples: number of resamples R.
        seed: fixes the resamples.
        groups: resample whole groups of rows.

    Returns:
        float64, shape ``(R, k)``; NaN where none of a column's rows were drawn.
    """
    n, k = values.shape
    means = np.full((resamples, k), np.nan)
    width = max(1, 20_000_000 // max(n, 1))
    start = 0
    for counts in resample_counts(n, resamples, seed, groups):
        for left in range(0, k, width):
            part = values[:, left : left + width]
            known = np.isfinite(part)
            total = counts @ np.where(known, part, 0).astype(np.float32)
            weight = counts @ known.astype(np.float32)
            with np.errstate(invalid="ignore", divide="ignore"):
                means[start : start + len(counts), left : left + width] = total.astype(np.float64) / weight
        start += len(counts)
    return means


def percentile_interval(draws: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the percentile interval of bootstrap draws ``(R, ...)``, NaN where there is no draw."""
    _check_confidence(confidence)
    if not len(draws):
        nothing = np.full(draws.shape[1:], np.nan)
        return nothing, nothing
    tail = (1 - confidence) / 2
    known = ~np.isnan(draws).all(axis=0)
    filled = np.where(known, draws, 0.0)  # numpy warns about columns without a number
    low, high = np.nanquantile(filled, [tail, 1 - tail], axis=0)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


@checked
def paired_difference(
    a: Any,
    b: Any,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    groups: Sequence[Any] | np.ndarray | None = None,
) -> Difference:
    """Bootstrap interval of the mean of ``a - b`` over paired samples.

    Args:
        a: scores of one method, one per sample, shape ``(N,)``, or one row per seed, ``(seeds, N)``: then seeds and
            samples are both resampled. Pairs with a NaN are left out.
        b: scores of the other on the same samples, in the same order.
        confidence: nominal coverage.
        resamples: number of bootstrap resamples.
        seed: of the resampling.
        groups: labels of samples that belong together; whole groups are resampled.

    Raises:
        DataError: the shapes differ, or no pair is known.
    """
    _check_confidence(confidence)
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim not in (1, 2):
        raise DataError(
            f"Expected paired scores of one shape (N,) or (seeds, N), got {first.shape} and {second.shape}."
        )
    table = np.atleast_2d(first - second)
    known = np.isfinite(table)
    if not known.any():
        raise DataError("Expected at least one pair of known scores, got none.")
    if first.ndim == 1:
        draws = bootstrap_means(table.T, resamples, seed, groups)[:, 0]
    else:
        filled, generator = np.where(known, table, 0.0), np.random.default_rng([seed, 1])
        parts = []
        for counts in resample_counts(table.shape[1], resamples, seed, groups):
            picked = generator.multinomial(len(table), np.full(len(table), 1 / len(table)), size=len(counts))
            total = np.einsum("rs,sn,rn->r", picked, filled, counts, optimize=True)
            parts.append(total / np.einsum("rs,sn,rn->r", picked, known.astype(float), counts, optimize=True))
        draws = np.concatenate(parts)
    low, high = percentile_interval(draws[:, None], confidence)
    draws = draws[np.isfinite(draws)]
    sides = min((draws <= 0).mean(), (draws >= 0).mean()) if len(draws) else np.nan
    value = float(table[known].mean())
    return Difference(value, float(low[0]), float(high[0]), confidence, int(known.sum()), float(min(1.0, 2 * sides)))


@checked
def seed_interval(
    a: Any,
    b: Any | None = None,
    *,
    confidence: float = 0.95,
    method: Literal["t", "bootstrap"] = "t",
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Interval of a mean over repeated runs, or of the mean paired difference of two methods over the same seeds.

    Args:
        a: one result per seed, shape ``(k,)``.
        b: results of the other method for the same seeds; None for the mean of ``a`` itself.
        confidence: nominal coverage.
        method: ``"t"`` (Student's, right for few seeds) or ``"bootstrap"`` (percentile over seeds; too narrow for
            fewer than about ten).
        resamples: for the bootstrap.
        seed: of the bootstrap.

    Raises:
        DataError: the shapes differ. One seed alone gives an interval of NaN.
    """
    _check_confidence(confidence)
    first = np.asarray(a, dtype=np.float64)
    second = np.zeros_like(first) if b is None else np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise DataError(f"Expected one result per seed for both methods, got shapes {first.shape} and {second.shape}.")
    if method == "bootstrap":
        return paired_difference(first, second, confidence=confidence, resamples=resamples, seed=seed)
    if method != "t":
        raise ConfigError(f"method: expected 't' or 'bootstrap', got {method!r}.")
    gap = first - second
    if len(gap) < 2:
        return Difference(float(gap.mean()), np.nan, np.nan, confidence, len(gap), np.nan)
    from scipy import stats

    error = gap.std(ddof=1) / np.sqrt(len(gap))
    reach = stats.t.ppf((1 + confidence) / 2, len(gap) - 1) * error
    mean = float(gap.mean())
    if error:
        p_value = float(2 * stats.t.sf(abs(mean) / error, len(gap) - 1))
    else:
        p_value = float(mean == 0)
    return Difference(mean, mean - reach, mean + reach, confidence, len(gap), p_value)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence: expected a number between 0 and 1, such as 0.95, got {confidence}.")
