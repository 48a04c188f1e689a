"""What every way of choosing a subset has in common: its result, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from lacunar.errors import ConfigError
from lacunar.evaluation.statistics import percentile_interval
from lacunar.lattice import Lattice
from lacunar.planning.ranking import CLEAR, family_note
from lacunar.planning.utility_table import UtilityTable

__all__ = ["STEP_COLUMNS", "TIE", "Path", "Selection", "checked_size", "pick", "selected", "steps_of"]

TIE = 1e-12
"""Scores this close are equal."""
#: One run of a rule on one set of values: the code before each step with what was scored there, and the last code.
Path = list[tuple[int, np.ndarray]]
STEP_COLUMNS = ("picked", "criterion", "score", "runner_up", "runner_up_score", "utility")


@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """A chosen subset, and how sure the choice is.

    Attributes:
        subset: the names in the order in which they were picked; empty: collect nothing.
        steps: one row per step: ``picked`` (a modality; for :func:`exhaustive` a subset), ``criterion``, its ``score``
            there, the ``runner_up`` with its score, and the ``utility`` gain of what is selected after the step.
        stability: share of the bootstrap draws in which each subset is selected, by label, most frequent first; they
            sum to 1. Empty where the table has no uncertainty.
        utility: mean gain of the subset over the constant baseline, with ``low`` and ``high``. The same values chose
            the subset, which favours it.
        cost: of the subset, NaN without costs.
        method: how it was chosen.
        metric, estimator: of the table.
        notes: what to know to read it rightly.
    """

    subset: tuple[str, ...]
    steps: pd.DataFrame
    stability: pd.Series
    utility: float
    low: float
    high: float
    cost: float
    method: str
    metric: str
    estimator: str
    notes: tuple[str, ...]

    @property
    def label(self) -> str:
        """The subset as a label, ``'a+b'`` in the order picked, or ``'none'``."""
        return "+".join(self.subset) or "none"

    @property
    def probability(self) -> float:
        """Share of the draws in which the same set is selected, in whatever order; NaN without uncertainty."""
        if not len(self.stability):
            return float("nan")
        same = [set(label.split("+")) == set(self.label.split("+")) for label in self.stability.index]
        return float(self.stability[same].sum())

    def __repr__(self) -> str:
        return f"Selection({self.label} by {self.method})"

    def __str__(self) -> str:
        head = f"{self.label}: {self.method} ({self.metric}, estimator {self.estimator})"
        gain = f"gain {self.utility:.4f}" + ("" if np.isnan(self.low) else f" [{self.low:.4f}, {self.high:.4f}]")
        text = self.steps.to_string(float_format="{:.4f}".format, na_rep="-") if len(self.steps) else "no step"
        lines = [head, text, gain + ("" if np.isnan(self.cost) else f", cost {self.cost:g}")]
        if len(self.stability):
            shares = [f"{label} {share:.0%}" for label, share in self.stability.head(5).items()]
            lines.append("selected in the draws: " + ", ".join(shares))
        return "\n".join([*lines, *[f"note: {note}" for note in self.notes]])


def pick(code: int, scores: np.ndarray, bits: np.ndarray) -> int:
    """The code with the best candidate, the first in lattice order of equals; ``code`` itself when there is none."""
    if np.isnan(scores).all():
        return code
    best = np.nanmax(scores)
    near = scores == best if np.isinf(best) else scores >= best - TIE
    return code | int(bits[np.flatnonzero(near)[0]])


def checked_size(k: int | None, lattice: Lattice, default: int) -> int:
    """k, or the default; ConfigError for what is no number of modalities."""
    if k is None:
        return default
    if not 1 <= k <= lattice.M:
        raise ConfigError(f"k: expected 1 to {lattice.M}, the number of modalities, got {k!r}.")
    return int(k)


def steps_of(path: Path, lattice: Lattice, mean: np.ndarray, criteria: list[str]) -> pd.DataFrame:
    """The steps of a path as :attr:`Selection.steps`."""
    rows = []
    for i, ((code, scores), (following, _)) in enumerate(pairwise(path)):
        m = (following ^ code).bit_length() - 1
        others = np.where(np.arange(lattice.M) == m, np.nan, scores)
        second = None if np.isnan(others).all() else int(np.nanargmax(others))
        rows.append(
            {
                "picked": lattice.names[m],
                "criterion": criteria[i],
                "score": scores[m],
                "runner_up": None if second is None else lattice.names[second],
                "runner_up_score": np.nan if second is None else others[second],
                "utility": mean[following] - mean[0],
            }
        )
    return pd.DataFrame(rows, columns=list(STEP_COLUMNS), index=pd.RangeIndex(1, len(rows) + 1, name="step"))


def selected(
    table: UtilityTable, code: int, steps: pd.DataFrame, run: Callable[[np.ndarray], Path], method: str,
    notes: list[str], prices: np.ndarray | None, draws: int, seed: int, confidence: float,
) -> Selection:  # fmt: skip
    """The result of a rule: ``run`` again on every draw of the table says how sure the choice of ``code`` is."""
    lattice, mean = table.lattice, table.mean
    low = high = float("nan")
    stability = pd.Series(dtype=np.float64, name="share")
    if table.has_uncertainty and draws > 0:
        drawn = table.draws(draws, seed)
        found = np.array([run(row)[-1][0] for row in drawn])
        codes, counts = np.unique(found, return_counts=True)
        labels = [lattice.label(int(c)) for c in codes]
        stability = pd.Series(counts / len(found), index=pd.Index(labels, name="subset"), name="share")
        stability = stability.sort_values(ascending=False, kind="stable")
        ends = percentile_interval((drawn[:, code] - drawn[:, 0])[:, None], confidence)
        low, high = float(ends[0][0]), float(ends[1][0])
        share = float((found == code).mean())
        if share < CLEAR:
            notes = [*notes, f"selected in {share:.0%} of the draws only: not a clear choice"]
    else:
        notes = [*notes, "no uncertainty: one repeat without held-out items, so nothing is known of the stability"]
    picked = list(steps["picked"]) if not len(steps) or "p_top" not in steps else list(lattice.subset(code))
    about = family_note(table.estimator)
    return Selection(
        tuple(picked), steps, stability, float(mean[code] - mean[0]), low, high,
        float("nan") if prices is None else float(prices[code]), method, table.metric, table.estimator,
        tuple([*notes, about] if about else notes),
    )  # fmt: skip
