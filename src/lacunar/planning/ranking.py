"""Rank subsets or modalities by an indicator of a utility table, with the uncertainty that the table gives it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lacunar.arguments import at_least, checked
from lacunar.errors import ConfigError, DataError
from lacunar.evaluation.statistics import percentile_interval
from lacunar.lattice import Lattice
from lacunar.planning.costs import CostModel
from lacunar.planning.indicators import MINIMUM_GAIN, DegenerateUtilityWarning, Indicator, get
from lacunar.planning.utility_table import UtilityTable, a_table

__all__ = ["CLEAR", "Ranking", "Stability", "family_note", "rank", "subset_costs", "top_shares"]

CLEAR = 0.8
"""The probability of being top from which on a top is called clear."""
_PAIRS_AT_ONCE = 4_000_000


class Stability(NamedTuple):
    """Kendall's tau-b between the order in bootstrap draws and the order of the means; NaN where there is no order."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return "unknown" if np.isnan(self.mean) else f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, eq=False, repr=False)
class Ranking:
    """Subsets or modalities in the order of an indicator.

    Attributes:
        frame: one row per subset (index ``subset``) or modality (index ``modality``), best first: ``score``; ``low``
            and ``high``, the ends of its bootstrap interval; ``p_top``, the share of the draws in which it is top (they
            sum to 1); ``utility``, the gain over the constant baseline; ``cost`` and ``score_per_cost`` (NaN without
            costs); ``flags``, what to know of the row, in words.
        indicator: its name.
        options: what it was called with.
        metric, estimator: of the table.
        per_cost: whether rows are ordered by ``score_per_cost``.
        order_stability: how well the orders in the draws agree with this one.
        confidence: nominal coverage of the intervals.
        draws: how many bootstrap draws; 0 where the table has no uncertainty.
        notes: what to know to read it rightly.
    """

    frame: pd.DataFrame
    indicator: str
    options: dict[str, Any]
    metric: str
    estimator: str
    per_cost: bool
    order_stability: Stability
    confidence: float
    draws: int
    notes: tuple[str, ...]

    @property
    def top(self) -> str:
        """The best row's label."""
        return str(self.frame.index[0])

    @property
    def clear(self) -> bool:
        """Whether the top is top in at least :data:`CLEAR` of the draws; False without uncertainty."""
        return bool(self.draws and self.frame["p_top"].iloc[0] >= CLEAR)

    @property
    def tied(self) -> tuple[str, ...]:
        """What cannot be told from the top: every row whose ``p_top`` is at least ``1 - confidence``.

        The top alone where it is clear. Without uncertainty: the rows whose score equals the top's.
        """
        if self.clear:
            return (self.top,)
        if self.draws:
            near = self.frame["p_top"].to_numpy() >= 1 - self.confidence
        else:
            column = self.frame["score_per_cost" if self.per_cost else "score"].to_numpy()
            near = np.isclose(column, column[0], rtol=1e-9, atol=1e-12)
        near[0] = True
        return tuple(str(label) for label in self.frame.index[near])

    def __repr__(self) -> str:
        return f"Ranking({self.indicator}: {' > '.join(map(str, self.frame.index[:4]))}; top {self.top})"

    def __str__(self) -> str:
        what = f"{self.indicator} per cost" if self.per_cost else self.indicator
        over = {"subset": "subsets", "modality": "modalities"}[str(self.frame.index.name)]
        head = f"{over} by {what} ({self.metric}, estimator {self.estimator})"
        shown = self.frame.drop(columns=[] if self.frame["cost"].notna().any() else ["cost", "score_per_cost"])
        text = shown.reset_index().to_string(index=False, float_format="{:.4f}".format, na_rep="-")
        if self.clear:
            verdict = f"top: {self.top}, in {self.frame['p_top'].iloc[0]:.0%} of the draws"
        elif len(self.tied) > 1:
            verdict = f"top: {self.top}, not to be told from {', '.join(self.tied[1:])}"
        else:
            verdict = f"top: {self.top}"
        order = f"stability of the order: Kendall's tau with that of the draws {self.order_stability}"
        return "\n".join([head, text, verdict, order, *[f"note: {note}" for note in self.notes]])


@checked
def rank(
    table: UtilityTable,
    indicator: str = "utility",
    costs: Any = None,
    size: int | Iterable[int] | None = None,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    per_cost: bool = False,
    samples: int = 1,
    **options: Any,
) -> Ranking:
    """Rank subsets or modalities by an indicator.

    Scores are those of the mean table; intervals, ``p_top`` and the stability of the order come from bootstrap draws
    of it, which resample repeats and held-out items jointly. Divisors never reverse an order: rows are ordered, in the
    draws too, by what the divisor does not touch wherever it is one number for all rows.

    Args:
        table: the utilities.
        indicator: see :func:`lacunar.planning.indicators.available`.
        costs: a price for each modality, a :class:`~lacunar.planning.costs.CostModel`, or anything with
            ``cost(subset, samples)``.
        size: only subsets of this size, or of these; those that the indicator speaks of when None.
        draws: bootstrap draws.
        confidence: nominal coverage of the intervals.
        seed: of the draws.
        per_cost: order by ``score_per_cost``; needs costs.
        samples: for how many samples costs are compared, which matters where there are fixed costs.
        **options: of the indicator. ``minimum``, the smallest gain to divide by, is the larger of 0.001 and one
            standard error of the gain of all modalities when left out.

    Raises:
        ConfigError: an unknown indicator, option or size, or ``per_cost`` without costs.
        DataError: no row has a score, because values are missing.

    Warns:
        DegenerateUtilityWarning: the gain to divide by is too small to mean anything.
    """
    chosen, lattice = get(indicator), a_table(table).lattice
    at_least(0, seed=seed)
    at_least(1, samples=samples)
    chosen.check_options(options)
    if draws < 1:
        raise ConfigError(f"draws: expected at least 1, got {draws}.")
    if per_cost and costs is None:
        raise ConfigError("per_cost: there is nothing to divide by. Give costs=, a price for each modality.")
    mean, uncertain = table.mean, table.has_uncertainty
    drawn = table.draws(draws, seed) if uncertain else mean[None]
    drawn_options = dict(options)
    options, degenerate = _guard(chosen, options, mean, drawn, uncertain)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DegenerateUtilityWarning)
        point = chosen.function(mean, lattice, **options)
    for warning in caught:
        warnings.warn(warning.message, stacklevel=3)
    codes, over = _rows(chosen, point.shape[-1], lattice, size)
    columns = codes if over == "subset" else np.arange(lattice.M)
    with warnings.catch_warnings():  # the point has warned already
        warnings.simplefilter("ignore", DegenerateUtilityWarning)
        order = _order(chosen, options, mean, lattice)[columns]
        drawn_order = _order(chosen, drawn_options, drawn, lattice)[:, columns]
        if "on_degenerate" in chosen.options:  # draws in the units of the point, or not at all
            drawn_options |= {"minimum": np.inf} if degenerate else {"on_degenerate": "nan"}
        scores = chosen.function(drawn, lattice, **drawn_options)[:, columns]
    point = point[columns]
    if np.isnan(order).all():
        missing = [lattice.label(code) for code in lattice.subsets if np.isnan(mean[code])]
        lacking = f" The table has no value for {', '.join(missing[:6])}." if missing else ""
        raise DataError(f"{indicator}: no {over} has a score.{lacking}")

    prices = subset_costs(costs, lattice, samples)[codes]
    if per_cost:
        order, drawn_order = _per_cost(order, prices), _per_cost(drawn_order, prices)
    low, high = percentile_interval(scores, confidence) if uncertain else (np.full(len(codes), np.nan),) * 2
    low, high = np.where(np.isnan(point), np.nan, low), np.where(np.isnan(point), np.nan, high)
    gains = (mean - mean[0])[codes]
    frame = pd.DataFrame(
        {
            "score": point,
            "low": low,
            "high": high,
            "p_top": top_shares(drawn_order) if uncertain else np.nan,
            "utility": gains,
            "cost": prices,
            "score_per_cost": _per_cost(point, prices),
        },
        index=pd.Index([lattice.label(int(code)) for code in codes], name=over),
    )
    by = np.lexsort((np.arange(len(codes)), -np.where(np.isnan(order), -np.inf, order)))
    frame["flags"] = _flags(frame, order, uncertain, bool(degenerate), gains)
    frame, order, drawn_order = frame.iloc[by], order[by], drawn_order[:, by]
    notes = [degenerate] if degenerate else [str(warning.message) for warning in caught]
    notes += _notes(table, frame, scores, uncertain, indicator)
    stability = order_stability(order, drawn_order, confidence) if uncertain else Stability(*[float("nan")] * 3)
    return Ranking(
        frame, indicator, options, table.metric, table.estimator, per_cost, stability, confidence,
        draws if uncertain else 0, tuple(notes),
    )  # fmt: skip


def subset_costs(costs: Any, lattice: Lattice, samples: int = 1) -> np.ndarray:
    """What each subset costs, float64, shape ``(2^M,)``; 0 for the empty set, NaN everywhere when there are no costs.

    Args:
        costs: a price for each modality (they add up), a cost model, or anything with ``cost(subset, samples)``.
        lattice: the modalities.
        samples: how many samples.

    Raises:
        ConfigError: a modality without a price, a price for something else, or one that is negative or no number.
    """
    prices = np.full(len(lattice.codes), np.nan)
    if costs is None:
        return prices
    if isinstance(costs, Mapping):
        costs = CostModel.read(costs)
    if isinstance(costs, CostModel):
        costs = costs.check(lattice.names)
    if not callable(getattr(costs, "cost", None)):
        raise ConfigError(f"costs: expected a price for each modality or a CostModel, got {type(costs).__name__}.")
    prices[0] = 0.0
    for code in lattice.subsets:
        prices[code] = float(costs.cost(lattice.subset(code), samples))
        if not 0 <= prices[code] < np.inf:
            raise ConfigError(f"costs: expected a price of at least 0 for {lattice.label(code)}, got {prices[code]}.")
    return prices


def top_shares(scores: np.ndarray) -> np.ndarray:
    """How often each column is the largest of its row, ``(n, K) -> (K,)``, summing to 1.

    Ties share a row evenly; NaN is never top; a row of NaN alone does not count.
    """
    known = np.where(np.isnan(scores), -np.inf, scores)
    best = known.max(axis=1, keepdims=True)
    top = (known == best) & (best > -np.inf)
    counts = top.sum(axis=1, keepdims=True)
    rows = counts[:, 0] > 0
    return (top[rows] / counts[rows]).mean(axis=0) if rows.any() else np.full(scores.shape[1], np.nan)


def order_stability(point: np.ndarray, drawn: np.ndarray, confidence: float) -> Stability:
    """Kendall's tau-b between ``point (K,)`` and each row of ``drawn (n, K)``: its mean and percentile interval.

    NaN counts as the lowest score. A draw in which everything is tied has no order and does not count. Above 128
    rows the first 50 draws have to do.
    """
    count = len(point)
    first, second = np.triu_indices(count, 1)
    point = np.where(np.isnan(point), -np.inf, point)
    drawn = np.where(np.isnan(drawn), -np.inf, drawn)
    if not len(first):
        return Stability(*[float("nan")] * 3)
    reference = _sign(point[first], point[second])
    taus = []
    step = max(1, _PAIRS_AT_ONCE // len(first))
    for start in range(0, len(drawn) if count <= 128 else min(len(drawn), 50), step):
        signs = _sign(drawn[start : start + step][:, first], drawn[start : start + step][:, second])
        size = np.sqrt(np.abs(signs).sum(axis=1, dtype=np.float64) * np.abs(reference).sum(dtype=np.float64))
        with np.errstate(invalid="ignore", divide="ignore"):
            taus.append((signs * reference).sum(axis=1, dtype=np.float64) / size)
    tau = np.concatenate(taus)
    tau = tau[np.isfinite(tau)]
    if not len(tau):
        return Stability(*[float("nan")] * 3)
    low, high = percentile_interval(tau[:, None], confidence)
    return Stability(float(tau.mean()), float(low[0]), float(high[0]))


def family_note(estimator: str) -> str | None:
    """What the values of a table are worth for a decision, where that is not plain."""
    if estimator in ("masked", "permuted"):
        return (
            f"estimator {estimator}: this is what ONE trained model relies on, not what a subset is worth to someone "
            "who collects only that. Do not put it beside scores of retrained or amortised tables"
        )
    if estimator == "amortised":
        return "estimator amortised: read off one model trained on all subsets, not off a model for each"
    return None


def _guard(
    chosen: Indicator, options: dict[str, Any], mean: np.ndarray, drawn: np.ndarray, uncertain: bool
) -> tuple[dict[str, Any], str]:
    """The options with the smallest divisor, and a note where the gain of all modalities is not above it."""
    if not chosen.share or options.get("normalise", "full") != "full":
        return options, ""
    gain = float(mean[-1] - mean[0])
    if "minimum" not in options:
        error = float(np.std(drawn[:, -1] - drawn[:, 0])) if uncertain else 0.0
        options = {**options, "minimum": max(MINIMUM_GAIN, error)}
    if not gain <= options["minimum"]:
        return options, ""
    return options, (
        f"degenerate: the gain of all modalities, {gain:.4g}, is not above {options['minimum']:.2g} (0.001 or one "
        "standard error), so nothing is expressed as a share of it; the order is that of the unscaled values"
    )


def _rows(chosen: Indicator, width: int, lattice: Lattice, size: int | Iterable[int] | None) -> tuple[np.ndarray, str]:
    """The codes to rank, small ones first, and what they are."""
    wanted: set[int] | None = None
    if size is not None:
        wanted = set(size) if isinstance(size, Iterable) else {size}
        if not wanted or isinstance(size, bool) or any(s not in range(1, lattice.M + 1) for s in wanted):
            raise ConfigError(f"size: expected 1 to {lattice.M}, the number of modalities, or several, got {size!r}.")
    if width == lattice.M and width != len(lattice):
        if wanted not in (None, {1}):
            raise ConfigError(f"size: {chosen.name!r} scores single modalities, not subsets of size {size}.")
        return 1 << np.arange(lattice.M), "modality"
    if wanted is None:
        wanted = set(range(1, lattice.M + 1) if chosen.sizes is None else chosen.sizes(lattice.M))
    codes = [code for code in lattice.subsets if code.bit_count() in wanted]
    if not codes:
        raise ConfigError(f"indicator {chosen.name!r} needs at least {min(wanted)} modalities, got {lattice.M}.")
    return np.array(codes), "subset"


def _order(chosen: Indicator, options: dict[str, Any], values: np.ndarray, lattice: Lattice) -> np.ndarray:
    """Scores that order the rows: without the divisor where that is one number for all of them."""
    found = None if chosen.order is None else chosen.order(values, lattice, **options)
    return chosen.function(values, lattice, **options) if found is None else found


def _per_cost(scores: np.ndarray, prices: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return scores / prices


def _sign(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a > b).astype(np.int8) - (a < b).astype(np.int8)


def _positions(scores: np.ndarray) -> np.ndarray:
    """1 for the best; ties share the better place."""
    known = np.where(np.isnan(scores), -np.inf, scores)
    return 1 + (known[None, :] > known[:, None]).sum(axis=1)


def _flags(frame: pd.DataFrame, order: np.ndarray, uncertain: bool, degenerate: bool, gains: np.ndarray) -> list[str]:
    places, by_utility = _positions(order), _positions(gains)
    flags = []
    for row, (place, other) in enumerate(zip(places, by_utility)):
        said = []
        known = not np.isnan(gains[row])
        if np.isnan(order[row]):
            said.append("no score: too little to divide by" if known else "not estimated")
        elif degenerate:
            said.append("degenerate")
        if known and gains[row] <= 0:
            said.append("no gain")
        if known and not np.isnan(order[row]) and place != other and 1 in (place, other):
            said.append(f"place {other} by utility")
        if not uncertain:
            said.append("no uncertainty")
        flags.append("; ".join(said))
    return flags


def _notes(table: UtilityTable, frame: pd.DataFrame, scores: np.ndarray, uncertain: bool, name: str) -> Sequence[str]:
    notes = []
    about = family_note(table.estimator)
    if about:
        notes.append(about)
    if not uncertain:
        notes.append("no uncertainty: one repeat without held-out items; give standard errors or repeat the table")
    elif len(table.values) == 1 and table.items is not None:
        notes.append("one repeat: the intervals know of the held-out samples, not of the training's randomness")
    elif table.items is None and table.given_sd is None:
        notes.append("no held-out items: the intervals know of the repeats alone")
    best = frame["utility"].idxmax() if frame["utility"].notna().any() else None
    if best is not None and frame["utility"].iloc[0] < frame["utility"].max():
        notes.append(f"{name} and the plain utility disagree: {frame.index[0]} against {best}")
    absent = frame.index[frame["utility"].isna()]
    if len(absent):
        notes.append(f"no value for {', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}")
    if uncertain:
        lost = np.isnan(scores).all(axis=1).mean()
        if 0 < lost < 1:
            notes.append(f"the intervals leave out {lost:.0%} of the draws, in which there is nothing to divide by")
    return notes
