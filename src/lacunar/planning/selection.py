"""Choose a subset from a utility table: stepwise by Shapley value and cooperation, greedily, per cost, exhaustively.

All of them run again on every bootstrap draw of the table, so that a selection comes with how often it would have been
another one.
"""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np

from lacunar.arguments import at_least, checked
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.lattice import Lattice
from lacunar.planning.indicators import MINIMUM_GAIN, DegenerateUtilityWarning
from lacunar.planning.search import cost_benefit, exhaustive, greedy_utility
from lacunar.planning.selection_base import TIE, Path, Selection, checked_size, pick, selected, steps_of
from lacunar.planning.utility_table import UtilityTable, a_table

__all__ = ["Selection", "cost_benefit", "exhaustive", "greedy_utility", "select"]


@checked
def select(
    table: UtilityTable,
    k: int | None = None,
    f1: Literal["shapley", "singleton"] = "shapley",
    f2: Literal["cooperation", "increment", "synergy"] = "cooperation",
    stop: bool = True,
    normalise: Literal["self", "full", "none"] = "self",
    on_negative: Literal["nan", "raw"] = "nan",
    minimum: float = MINIMUM_GAIN,
    draws: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Selection:
    """Stepwise maximisation (Algorithm 1 of SK-LL): first the modality with the largest f1, then by f2.

    The rule looks for synergy, not for value: the later picks are those that cooperate best, however little they are
    worth. Where the first pick is wrong, as it may be when two modalities are worthless alone (XOR), no later one
    can repair it. With the paper's divisor, f(S + j), a chance gain of a pair that is worth nothing can look like more
    synergy than there is in XOR; ``normalise="full"`` is not so easily led. :func:`exhaustive` of the same table has
    none of these faults.

    Args:
        table: the utilities.
        k: the most modalities; all but one when None (A5), so that something is left to generate. 1 is allowed (A6).
        f1: ``"shapley"`` (Eq. 3), which needs every subset, or ``"singleton"``, the gain alone, with which the whole
            rule needs M (M + 1) / 2 values.
        f2: the gain of adding j to S (A3): ``"cooperation"``, C(S + j) of Eq. 4; ``"increment"``, C(S + j) - C(S);
            ``"synergy"``, (f(S + j) - f(S) - f({j})) / Z. At the second pick all three agree.
        stop: stop when no f2 is positive (A4), as the text says; False goes on to k, as the pseudo-code does. The
            first pick is always kept.
        normalise: Z: ``"self"``, f(S + j), the paper's; ``"full"``, f of all; ``"none"``, 1.
        on_negative: where Z is not above ``minimum`` a candidate is never picked (``"nan"``), or is divided by Z all
            the same (``"raw"``), as in the paper, which turns the sign of what has a negative gain.
        minimum: the smallest Z to divide by, in the units of the values.
        draws: bootstrap draws for the stability.
        seed: of the draws.
        confidence: of the interval of the gain.

    Raises:
        ConfigError: an unknown option, or k outside 1 to M.
        DataError: values that are needed are missing.

    Warns:
        DegenerateUtilityWarning: the gain of all modalities is too small to scale f1 by; its order stands all the same.
    """
    for option, given, known in (
        ("f1", f1, ("shapley", "singleton")),
        ("f2", f2, ("cooperation", "increment", "synergy")),
        ("normalise", normalise, ("self", "full", "none")),
        ("on_negative", on_negative, ("nan", "raw")),
    ):
        if given not in known:
            raise ConfigError(f"unknown {option} {given!r}.{did_you_mean(given, known)}")
    lattice = a_table(table).lattice
    at_least(0, seed=seed, draws=draws)
    k = checked_size(k, lattice, max(1, lattice.M - 1))
    bits = 1 << np.arange(lattice.M)

    def run(values: np.ndarray) -> Path:
        gain = values - values[0]
        shared = lattice.shapley(values) if f1 == "shapley" else gain[bits]
        path: Path = [(0, shared)]
        code = pick(0, shared, bits)
        while code and code.bit_count() < k:
            scores = _second(gain, code, bits, f2, normalise, on_negative, minimum)
            if stop and not (scores > 0).any():
                path.append((code, scores))
                return path
            if np.isnan(scores).all():  # nothing to divide by: what the divisor does not touch still has an order
                scores = _second(gain, code, bits, f2, "none", "raw", minimum)
            path.append((code, scores))
            following = pick(code, scores, bits)
            if following == code:
                return path
            code = following
        path.append((code, np.full(lattice.M, np.nan)))
        return path

    mean = table.mean
    if f1 == "shapley" and not table.complete:
        lacking = [lattice.label(code) for code in [0, *lattice.subsets] if np.isnan(mean[code])]
        raise DataError(
            f"f1='shapley' needs every subset; there is no value for {', '.join(lacking[:6])}. Use f1='singleton', "
            "which needs the singles and what is built upon the best."
        )
    scale = float(mean[-1] - mean[0]) if f1 == "shapley" else 1.0
    unscaled = f1 == "shapley" and not scale > minimum
    first = "gain alone" if f1 == "singleton" else "Shapley value" + ("" if unscaled else ", scaled")
    path = run(mean)
    if not unscaled:
        path[0] = (path[0][0], path[0][1] / scale)
    notes = []
    if unscaled:
        notes.append(f"degenerate: the gain of all modalities, {scale:.4g}, is not above {minimum:g}: unscaled f1")
        warnings.warn(notes[-1], DegenerateUtilityWarning, stacklevel=3)
    notes += _about_first(path[0][1], lattice, f1)
    if on_negative == "nan" and normalise != "none":
        notes += _refused(path, lattice, mean, minimum)
    chosen = path[-1][0]
    if chosen.bit_count() < k:
        notes.append(f"stopped at {chosen.bit_count()} of {k}: no further modality has a positive {f2}")
    if chosen == len(lattice) - 1 and lattice.M > 1:
        notes.append("everything is selected: nothing is left to generate")
    method = f"Algorithm 1 (f1 {f1}, f2 {f2} over {normalise}, k {k}, {'with' if stop else 'without'} stop)"
    steps = steps_of(path, lattice, mean, [first, *[f"{f2} over {normalise}"] * len(path)])
    return selected(table, path[-1][0], steps, run, method, notes, None, draws, seed, confidence)


def _second(
    gain: np.ndarray, code: int, bits: np.ndarray, f2: str, normalise: str, on_negative: str, minimum: float
) -> np.ndarray:
    """f2 of each candidate (M,), NaN for members of ``code`` and where there is nothing to divide by."""
    joined = code | bits
    inside = np.where(code & bits, gain[bits], 0.0).sum()

    def share(above: np.ndarray, codes: np.ndarray) -> np.ndarray:
        scale = {"self": gain[codes], "full": np.full(len(codes), gain[-1])}.get(normalise, np.ones(len(codes)))
        usable = scale > minimum if on_negative == "nan" else scale != 0
        return np.where(usable, above / np.where(usable, scale, 1.0), np.nan)

    if f2 == "synergy":
        scores = share(gain[joined] - gain[code] - gain[bits], joined)
    else:
        scores = share(gain[joined] - inside - gain[bits], joined)
        if f2 == "increment" and code.bit_count() > 1:
            before = np.array([code])
            scores = scores - share(gain[before] - inside, before)
    return np.where(code & bits, np.nan, scores)


def _refused(path: Path, lattice: Lattice, mean: np.ndarray, minimum: float) -> list[str]:
    """Candidates that had a value but nothing to divide it by."""
    found = []
    for code, scores in path[1:]:
        for m in np.flatnonzero(np.isnan(scores)):
            joined = code | 1 << int(m)
            if joined != code and not np.isnan(mean[joined]) and not np.isnan(scores).all():
                found.append(lattice.label(joined))
    return [f"never picked, because their gain is not above {minimum:g}: {', '.join(found)}"] if found else []


def _about_first(scores: np.ndarray, lattice: Lattice, f1: str) -> list[str]:
    notes, best = [], np.nanmax(scores) if not np.isnan(scores).all() else np.nan
    tied = [lattice.names[m] for m in np.flatnonzero(scores >= best - TIE)]
    if len(tied) > 1:
        notes.append(f"the first pick is a tie of {', '.join(tied)}: the first in lattice order was taken")
    if best <= 0:
        notes.append(f"no modality has a positive {f1} value: the first pick is the least bad one")
    return notes
