"""What would change a recommendation: how far each price, the budget or the completion quality can move."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lacunar.planning.candidates import NOTHING
from lacunar.planning.decide import Decision, estimate

__all__ = ["COLUMNS", "REACH", "flips"]

COLUMNS = ("what", "modality", "factor", "value", "to")
#: The largest factor that is tried, in both directions, and how many steps lead to it.
REACH, STEPS, HALVINGS = 16.0, 16, 10


@dataclass(frozen=True)
class _Lever:
    what: str
    modality: str
    base: float
    pull: Callable[[float], str]  #: from a factor to what is recommended then
    most: float = REACH


def flips(decision: Decision, again: Callable[..., Decision], threshold: bool = True) -> pd.DataFrame:
    """The nearest change of each price, of the budget, of the completion quality and of the threshold that flips it.

    Factors are found on a geometric grid up to 16 times more and less and then bisected; what moves back and forth
    between two grid points is missed. Prices are moved with everything that belongs to them (set-up, share in
    bundles), the completion quality is that of the leading subset, the threshold is the gain worth buying for.
    Where cells are free and the set-up is not, it stands for the price.

    Args:
        decision: the recommendation.
        again: decides again; called with ``costs=``, ``budget=`` or ``outlook=`` changed.
        threshold: whether the decision goes by the gain worth buying for, and that alone: the rule ``"rehearsal"``
            with a budget.

    Returns:
        Columns ``what`` (``"cost"``, ``"budget"``, ``"quality"``, ``"threshold"``), ``modality`` (or subset, or
        empty), ``factor`` (NaN for the threshold), ``value`` (the changed price per cell or set-up, budget,
        quality or threshold) and ``to``. Rows without a flip within reach are left out.
    """
    case, levers = decision.case, []

    def priced(name: str) -> Callable[[float], str]:
        return lambda factor: again(costs=case.costs.changed(name, factor)).label

    for name, price in case.costs.per_cell.items():
        base = price if price > 0 else case.costs.setup.get(name, 0.0)
        if base > 0:
            levers.append(_Lever("cost", name, base, priced(name)))
    for name in ("per_sample", "label"):
        if getattr(case.costs, name) > 0:
            levers.append(_Lever("cost", name, getattr(case.costs, name), priced(name)))
    if math.isfinite(case.budget) and case.budget > 0:
        levers.append(_Lever("budget", "", case.budget, lambda f: again(budget=case.budget * f).label))
    outlook = case.outlook
    if outlook is not None:
        leader = next((one for one in case.candidates if one.label == decision.leader), None)
        code = 0 if leader is None else leader.code
        quality = outlook.quality[code][0] if code in outlook.quality else 0.0
        if quality > 0 and code != len(case.lattice) - 1:
            levers.append(
                _Lever(
                    "quality", case.lattice.label(code), quality,
                    lambda f: again(outlook=outlook.scaled(code, f)).label, max(1.0, 1.0 / quality),
                )
            )  # fmt: skip
    rows = []
    for lever in levers:
        for up in (True, False):
            found = _nearest(lever, decision.label, up)
            if found is not None:
                factor, to = found
                rows.append((lever.what, lever.modality, factor, lever.base * factor, to))
    rows += _threshold(decision) if threshold else []
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _nearest(lever: _Lever, label: str, up: bool) -> tuple[float, str] | None:
    most = math.log(lever.most) if up else math.log(REACH)
    if most <= 0:
        return None
    sign, here = (1.0 if up else -1.0), 0.0
    for step in np.linspace(0.0, most, STEPS + 1)[1:]:
        there = lever.pull(math.exp(sign * step))
        if there != label:
            break
        here = float(step)
    else:
        return None
    beyond = float(step)
    for _ in range(HALVINGS):
        middle = (here + beyond) / 2
        found = lever.pull(math.exp(sign * middle))
        if found != label:
            beyond, there = middle, found
        else:
            here = middle
    return math.exp(sign * beyond), there


def _threshold(decision: Decision) -> list[tuple[str, str, float, float, str]]:
    """The gain worth buying for at which it would be nothing, or at which it would no longer be nothing."""
    found = estimate(decision.case)
    if found is None or not len(found.low) or np.isnan(found.low).all():
        return []
    if decision.best is not None:
        labels = [one.label for one in decision.case.candidates]
        if decision.label not in labels:
            return []
        low = found.low[labels.index(decision.label)]
        return [] if math.isnan(low) else [("threshold", "", math.nan, float(low), NOTHING)]
    k = int(np.nanargmax(found.low))
    if not found.low[k] > 0:  # no threshold that makes sense would let it through
        return []
    return [("threshold", "", math.nan, float(found.low[k]), decision.case.candidates[k].label)]
