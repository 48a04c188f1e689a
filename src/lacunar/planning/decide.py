"""From what is known to a recommendation: for a budget by any rule, for a target score the cheapest way to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from lacunar.planning.candidates import NOTHING, Candidate, candidate, why_nothing
from lacunar.planning.outlook import Outlook
from lacunar.planning.strategies import Case, Choice, Strategy, chosen_purchase

__all__ = ["Decision", "Estimates", "decide", "decide_target", "estimate"]


@dataclass(frozen=True, eq=False)
class Decision:
    """What to buy of a case.

    Attributes:
        case: with the candidates that were compared.
        best: the purchase; None for nothing.
        leader: label of the candidate that leads, bought or not; "none" where there is none.
        shares: probability of each label, nothing included, of being best; empty where nothing is known.
        reason: why, in words.
        reached: whether a target score is reached without any purchase.
    """

    case: Case
    best: Candidate | None
    leader: str
    shares: Mapping[str, float]
    reason: str
    reached: bool = False

    @property
    def label(self) -> str:
        """The label of what is bought."""
        return NOTHING if self.best is None else self.best.label


@dataclass(frozen=True, eq=False)
class Estimates:
    """Predicted gains of candidates: means, ends of the intervals and draws, shapes ``(K,)`` and ``(D, K)``."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    draws: np.ndarray


def estimate(case: Case) -> Estimates | None:
    """Predicted gains of a case's candidates; NaN for what was not rehearsed; None without an outlook."""
    if case.outlook is None:
        return None
    known = [k for k, one in enumerate(case.candidates) if case.outlook.knows(one)]
    draws = np.full((len(case.outlook.draws), len(case.candidates)), np.nan)
    if known:
        draws[:, known] = case.outlook.gains([case.candidates[k] for k in known])[1]
    ends = np.full((2, len(case.candidates)), np.nan)
    if known:
        tail = (1 - case.confidence) / 2
        ends[:, known] = np.quantile(draws[:, known], [tail, 1 - tail], axis=0)
    return Estimates(draws.mean(axis=0), ends[0], ends[1], draws)


def decide(case: Case, rule: Strategy, explain: bool = True) -> Decision:
    """What a rule buys with a budget; the reason takes time and can be left out."""
    by_gain = rule.name == "rehearsal"  # the ends of intervals are no reason for what another rule does
    if not case.candidates:
        return Decision(case, None, NOTHING, {NOTHING: 1.0}, why_nothing(case.lattice, case.costs, case.budget))
    choice = rule(case)
    best = chosen_purchase(case, choice)
    leader = best or _leader(case, choice)
    label = NOTHING if leader is None else leader.label
    reason = choice.why
    if best is None and not reason and explain:
        found = estimate(case) if by_gain else None
        reason = f"{rule.name!r} finds no purchase worth making"
        if found is not None and leader is not None:
            k = case.candidates.index(leader)
            reason = (
                f"no purchase is sure to gain more than {case.min_gain:g}: the best one, {label}, is expected to gain "
                f"{found.mean[k]:+.4g} [{found.low[k]:+.4g}, {found.high[k]:+.4g}]"
            )
            chance = float((found.draws[:, k] > case.min_gain).mean())
            if chance >= 0.5:
                reason += f"; that it gains has a probability of {chance:.2f}, which a larger pilot could settle"
    if best is not None and not reason and explain and by_gain:
        reason = _why(case, best)
    return Decision(case, best, label, choice.shares(case), reason)


def _leader(case: Case, choice: Choice) -> Candidate | None:
    """The best candidate, whether or not it is worth buying: by score, then by the mean of the draws."""
    scores = np.asarray(choice.scores, dtype=float)
    known = [k for k in range(len(scores)) if np.isfinite(scores[k])]
    if not known:
        return None
    mean = np.zeros(len(scores)) if choice.draws is None else choice.draws.mean(axis=0)
    return case.candidates[max(known, key=lambda k: (scores[k], mean[k], -case.candidates[k].cost))]


def _why(case: Case, best: Candidate) -> str:
    """What speaks for a purchase that was chosen for its certain gain."""
    found = estimate(case)
    assert found is not None
    k = [one.label for one in case.candidates].index(best.label)
    reason = f"of all purchases it has the largest gain at the lower end of its interval, {found.low[k]:+.4g}"
    top = int(np.nanargmax(found.mean))
    if top != k and found.mean[top] > found.mean[k]:
        reason += (
            f"; {case.candidates[top].label} is expected to gain more ({found.mean[top]:+.4g}) but is less certain "
            f"({found.low[top]:+.4g} at the lower end)"
        )
    return reason


def decide_target(case: Case, target: float, assurance: float = 0.5) -> Decision:
    """The cheapest purchase with which a score is reached, and which is sure to gain more than ``min_gain``.

    For each subset the smallest number of samples with which at least a share ``assurance`` of the draws reaches the
    target. A plan is the best of a draw where it is the cheapest that reaches the target there.

    Args:
        case: with an outlook; its budget is the most that may be spent, or infinite.
        target: the score to reach.
        assurance: probability with which it is to be reached.
    """
    outlook = case.outlook
    assert outlook is not None
    reached = float((outlook.draws[:, 0] >= target).mean())
    if reached >= assurance:
        reason = f"the target of {target:g} is reached already with a probability of {reached:.2f}"
        return Decision(replace(case, candidates=()), None, NOTHING, {NOTHING: 1.0}, reason, reached=True)
    found, prices = [], []
    for code in sorted(outlook.quality, key=lambda code: (code.bit_count(), code)):
        names, needed = case.lattice.subset(code), outlook.needed(code, target)
        least, limit = case.costs.least(names), case.costs.limit(names)
        count = float(np.quantile(needed, assurance, method="inverted_cdf"))
        samples = max(least, math.ceil(count - 1e-9)) if math.isfinite(count) else math.inf
        if samples <= limit and math.isfinite(samples):
            one = candidate(case.lattice, case.costs, [(code, int(samples))])
            if one.cost <= case.budget:
                found.append(one)
                prices.append(_prices(case, code, needed))
    case = replace(case, candidates=tuple(found))
    if not found:
        most = _most(outlook, case)
        reason = (
            f"no purchase reaches the target of {target:g} with a probability of {assurance:g}: with as much as can "
            f"be had the score is expected to be {most:.4g}"
        )
        return Decision(case, None, NOTHING, {NOTHING: 1.0}, reason)
    table = np.stack([*prices, np.full(len(outlook.draws), np.inf)], axis=1)
    table[outlook.draws[:, 0] >= target, -1] = 0.0  # nothing has to be bought there
    winner = np.where(np.isfinite(table).any(axis=1), table.argmin(axis=1), len(found))
    counts = np.bincount(winner, minlength=len(found) + 1) / len(table)
    shares = {one.label: float(share) for one, share in zip([*found, Candidate((), 0.0, NOTHING)], counts)}
    estimates = estimate(case)
    assert estimates is not None
    order = sorted(range(len(found)), key=lambda k: (found[k].cost, found[k].samples))
    sure = [k for k in order if estimates.low[k] > case.min_gain]
    first = order[0]
    unsure = f"not sure to gain more than {case.min_gain:g}: {estimates.mean[first]:+.4g} "
    unsure += f"[{estimates.low[first]:+.4g}, {estimates.high[first]:+.4g}]"
    if not sure:
        others = " and neither are the others" if len(found) > 1 else ""
        reason = f"the cheapest way to the target, {found[first].label}, is {unsure}{others}"
        return Decision(case, None, found[first].label, shares, reason)
    best = found[sure[0]]
    reason = f"the cheapest purchase that reaches {target:g} with a probability of at least {assurance:g}"
    if sure[0] != first:
        reason += f" and is sure to gain; {found[first].label} costs less but is {unsure}"
    return Decision(case, best, best.label, shares, reason)


def _prices(case: Case, code: int, needed: np.ndarray) -> np.ndarray:
    """For each draw what reaching the target with a subset costs; infinite where it cannot be had."""
    names = case.lattice.subset(code)
    counts = np.maximum(np.ceil(np.where(np.isfinite(needed), needed, 0.0) - 1e-9), case.costs.least(names))
    setup = sum(case.costs.setup.get(name, 0.0) for name in names)
    price = setup + counts * case.costs.marginal(names)
    possible = np.isfinite(needed) & (counts <= case.costs.limit(names)) & (price <= case.budget)
    return np.where(possible, price, np.inf)


def _most(outlook: Outlook, case: Case) -> float:
    """The best mean score within the grid, the capacities and the budget."""
    best = outlook.now
    for code, (quality, _) in outlook.quality.items():
        names = case.lattice.subset(code)
        count = case.costs.limit(names)
        if math.isfinite(case.budget):
            count = min(count, case.costs.affordable(names, case.budget))
        size = min(outlook.start + max(quality, 0.0) * count, float(outlook.grid[-1]))
        best = max(best, float(np.interp(size, outlook.grid, outlook.mean)))
    return best
