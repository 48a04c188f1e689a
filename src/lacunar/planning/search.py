"""Choose a subset by its gain: greedily, per cost, or by looking at every subset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lacunar.arguments import at_least, checked
from lacunar.errors import ConfigError
from lacunar.lattice import Lattice
from lacunar.planning.ranking import subset_costs, top_shares
from lacunar.planning.selection_base import (
    STEP_COLUMNS,
    TIE,
    Path,
    Selection,
    checked_size,
    pick,
    selected,
    steps_of,
)
from lacunar.planning.utility_table import UtilityTable

__all__ = ["cost_benefit", "exhaustive", "greedy_utility"]


@checked
def greedy_utility(
    table: UtilityTable,
    k: int | None = None,
    stop: bool = True,
    draws: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Selection:
    """Add the modality that gains most, k times.

    Where contributions only shrink as sets grow (submodular gains: roughly, modalities that are independent given the
    target) its gain is at least 1 - 1/e of the best of that size. With synergy there is no bound: it misses XOR.

    Args:
        table: the utilities; missing values are never picked.
        k: the most modalities; all when None.
        stop: stop when nothing gains; with no gain at all the selection is empty. False goes on to k.
        draws, seed, confidence: of the stability and the interval.
    """
    lattice, bits = table.lattice, 1 << np.arange(table.lattice.M)
    k = checked_size(k, lattice, lattice.M)

    def run(values: np.ndarray) -> Path:
        path, code = [], 0
        while code.bit_count() < k:
            scores = np.where(code & bits, np.nan, values[code | bits] - values[code])
            path.append((code, scores))
            if np.isnan(scores).all() or (stop and not (scores > 0).any()):
                return path
            code = pick(code, scores, bits)
        path.append((code, np.full(lattice.M, np.nan)))
        return path

    path = run(table.mean)
    chosen = path[-1][0]
    notes = [] if chosen.bit_count() == k else [f"stopped at {chosen.bit_count()} of {k}: nothing more gains"]
    steps = steps_of(path, lattice, table.mean, ["gain"] * len(path))
    return selected(table, chosen, steps, run, f"greedy gain (k {k})", notes, None, draws, seed, confidence)


@checked
def cost_benefit(
    table: UtilityTable,
    costs: Any,
    budget: float,
    k: int | None = None,
    samples: int = 1,
    draws: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Selection:
    """Add what gains most per cost while the budget lasts.

    The same from the best affordable single modality on, if that ends with more: by ratio alone a cheap trifle can
    shut out the one thing that matters.

    Args:
        table: the utilities.
        costs: a price for each modality, or anything with ``cost(subset, samples)``; the price of a step is what the
            larger subset costs more, so that bundles count.
        budget: the most that the subset may cost.
        k: the most modalities; all when None.
        samples: how many samples the budget has to pay for.
        draws, seed, confidence: of the stability and the interval.
    """
    lattice, bits = table.lattice, 1 << np.arange(table.lattice.M)
    k, prices = checked_size(k, lattice, lattice.M), _prices(costs, budget, lattice, samples)

    def by_ratio(values: np.ndarray, code: int = 0) -> Path:
        path: Path = []
        while code.bit_count() < k:
            added, price = values[code | bits] - values[code], prices[code | bits] - prices[code]
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.where(price > 0, added / price, np.where(added > 0, np.inf, added))
            scores = np.where((code & bits != 0) | (prices[code | bits] > budget), np.nan, ratio)
            path.append((code, scores))
            if not (scores > 0).any():
                return path
            code = pick(code, scores, bits)
        path.append((code, np.full(lattice.M, np.nan)))
        return path

    def run(values: np.ndarray) -> Path:
        path = by_ratio(values)
        alone = np.where(prices[bits] <= budget, values[bits] - values[0], np.nan)
        best = pick(0, alone, bits)
        if best and np.nanmax(alone) > 0:
            other = [(0, alone), *by_ratio(values, best)]
            if values[other[-1][0]] > values[path[-1][0]] + TIE:
                return other
        return path

    path = run(table.mean)
    same = path[-1][0] == by_ratio(table.mean)[-1][0]
    criteria = ["gain per cost" if same else "gain, the best affordable single", *["gain per cost"] * len(path)]
    notes = []
    if (prices[1:] > budget).all():
        notes.append(f"the budget of {budget:g} buys nothing: the cheapest subset costs {prices[1:].min():g}")
    steps = steps_of(path, lattice, table.mean, criteria)
    method = f"gain per cost within {budget:g}"
    return selected(table, path[-1][0], steps, run, method, notes, prices, draws, seed, confidence)


@checked
def exhaustive(
    table: UtilityTable,
    k: int | None = None,
    costs: Any = None,
    budget: float | None = None,
    samples: int = 1,
    draws: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Selection:
    """The subset with the largest gain of all that have at most k modalities and are within the budget.

    Of equal gains the cheaper, then the smaller one. Nothing is selected where nothing gains. ``steps`` has the best
    of each size, with the share of the draws in which it is that (``p_top``).

    Args:
        table: the utilities; missing values are never picked.
        k: the most modalities; all when None.
        costs: a price for each modality, or anything with ``cost(subset, samples)``.
        budget: the most that the subset may cost; needs costs.
        samples: how many samples the budget has to pay for.
        draws, seed, confidence: of the stability and the interval.
    """
    lattice = table.lattice
    k = checked_size(k, lattice, lattice.M)
    if budget is not None and costs is None:
        raise ConfigError("budget: what does a subset cost? Give costs=, a price for each modality.")
    limit = np.inf if budget is None else budget
    prices = None if costs is None else _prices(costs, limit, lattice, samples)
    allowed = [c for c in lattice.subsets if c.bit_count() <= k and (prices is None or prices[c] <= limit)]
    ordered = sorted(allowed, key=lambda code: (0.0 if prices is None else prices[code], code.bit_count(), code))
    candidates = np.array([0, *ordered], dtype=np.int64)

    def run(values: np.ndarray) -> Path:
        gain = (values - values[0])[candidates]
        gain[np.isnan(gain)] = -np.inf
        return [(int(candidates[np.flatnonzero(gain >= gain.max() - TIE)[0]]), gain)]

    mean, rows = table.mean, []
    drawn = table.draws(draws, seed) if table.has_uncertainty else None
    for size in range(1, k + 1):
        codes = np.array([code for code in candidates if int(code).bit_count() == size], dtype=np.int64)
        gains = (mean - mean[0])[codes]
        if not len(codes) or np.isnan(gains).all():
            continue
        order = np.argsort(-np.where(np.isnan(gains), -np.inf, gains), kind="stable")
        second = order[1] if len(order) > 1 and not np.isnan(gains[order[1]]) else None
        rows.append(
            {
                "size": size,
                "picked": lattice.label(int(codes[order[0]])),
                "criterion": f"gain, best of size {size}",
                "score": gains[order[0]],
                "runner_up": None if second is None else lattice.label(int(codes[second])),
                "runner_up_score": np.nan if second is None else gains[second],
                "utility": gains[order[0]],
                "p_top": np.nan if drawn is None else top_shares(drawn[:, codes] - drawn[:, :1])[order[0]],
            }
        )
    steps = pd.DataFrame(rows, columns=["size", *STEP_COLUMNS, "p_top"]).set_index("size")
    notes = [] if allowed else [f"nothing costs {limit:g} or less"]
    method = f"best gain of at most {k}" + ("" if budget is None else f" within {budget:g}")
    return selected(table, run(mean)[-1][0], steps, run, method, notes, prices, draws, seed, confidence)


def _prices(costs: Any, budget: float, lattice: Lattice, samples: int) -> np.ndarray:
    if costs is None:
        raise ConfigError("costs: expected a price for each modality, got None.")
    at_least(0, budget=budget)
    return subset_costs(costs, lattice, samples)
