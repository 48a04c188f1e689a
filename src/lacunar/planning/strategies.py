"""Rules that choose what to buy. A new rule is one function under :func:`strategy`.

A rule gets a :class:`Case`, which holds the purchases that the money allows and what is known of them, and scores
each; the best score wins, if it is above what buying nothing scores::

    @strategy("largest")
    def largest(case):
        "As many samples as possible."
        return Choice([one.samples for one in case.candidates])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from lacunar.errors import ConfigError, did_you_mean
from lacunar.lattice import Lattice
from lacunar.planning.candidates import NOTHING, Candidate, affordable, candidate, mixtures
from lacunar.planning.costs import CostModel
from lacunar.planning.outlook import Outlook
from lacunar.planning.selection import Selection, select
from lacunar.planning.utility_table import UtilityTable

__all__ = ["Case", "Choice", "Strategy", "available", "chosen_purchase", "get", "strategy"]


@dataclass(frozen=True, eq=False)
class Case:
    """What a rule may look at.

    Attributes:
        lattice: the modalities.
        costs: their prices.
        budget: what can be spent.
        candidates: what the budget buys: for each subset as many samples as possible.
        utilities: the score of every subset; None where the rule does not need it.
        outlook: predicted scores after a purchase; None where the rule does not need it.
        min_gain: the smallest gain worth buying for, in units of the score.
        confidence: nominal coverage of intervals.
        draws: number of bootstrap draws.
        seed: of everything random.
        realised: gain of each label after really buying it; only a backtest knows it.
    """

    lattice: Lattice
    costs: CostModel
    budget: float
    candidates: tuple[Candidate, ...]
    utilities: UtilityTable | None = None
    outlook: Outlook | None = None
    min_gain: float = 0.0
    confidence: float = 0.95
    draws: int = 1000
    seed: int = 0
    realised: Mapping[str, float] | None = None

    @classmethod
    def of(cls, lattice: Lattice, costs: CostModel, budget: float, **known: Any) -> Case:
        """A case with everything that the budget buys; of an outlook only the subsets that it knows."""
        outlook = known.get("outlook")
        codes = None if outlook is None else list(outlook.quality)
        singles = affordable(lattice, costs, budget, codes)
        mixed = [] if outlook is None else mixtures(lattice, costs, budget, singles)
        return cls(lattice, costs, budget, (*singles, *mixed), **known)

    def changed(self, costs: CostModel | None = None, budget: float | None = None, **known: Any) -> Case:
        """The same case under other prices, another budget or other knowledge; what can be bought follows."""
        kept = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in _MADE}
        return Case.of(
            self.lattice,
            self.costs if costs is None else costs,
            self.budget if budget is None else budget,
            **{**kept, **known},
        )

    def single(self, code: int) -> Candidate | None:
        """The affordable purchase of one subset alone."""
        return next((one for one in self.candidates if len(one.blocks) == 1 and one.code == code), None)


_MADE = ("lattice", "costs", "budget", "candidates")


@dataclass(frozen=True, eq=False)
class Choice:
    """What a rule makes of a case.

    Attributes:
        scores: of each candidate, higher is better, NaN for those that the rule does not consider, shape ``(K,)``.
        draws: the same in bootstrap draws of what is known, shape ``(D, K)``; None where the rule estimates nothing.
        threshold: what a candidate's score has to exceed; below it nothing is bought.
        why: what speaks for the choice, or against any, in words.
        blocks: what to buy where it is more than the best candidate.
        p_best: how often each label, or nothing, is best, where draws do not say it.
    """

    scores: Sequence[float] | np.ndarray
    draws: np.ndarray | None = None
    threshold: float = -math.inf
    why: str = ""
    blocks: tuple[tuple[int, int], ...] | None = None
    p_best: Mapping[str, float] | None = None

    def best(self, case: Case) -> Candidate | None:
        """The winner: the highest score, then the lowest cost, then lattice order; None for nothing."""
        scores = np.asarray(self.scores, dtype=float)
        keep = [k for k in range(len(scores)) if np.isfinite(scores[k]) and scores[k] > self.threshold]
        if not keep:
            return None
        top = max(scores[k] for k in keep)
        near = [k for k in keep if scores[k] >= top - 1e-12 * max(1.0, abs(top))]
        return case.candidates[min(near, key=lambda k: (case.candidates[k].cost, k))]

    def shares(self, case: Case) -> dict[str, float]:
        """How often each candidate is best in the draws, nothing included; they sum to 1. Empty without draws."""
        if self.draws is None:
            return dict(self.p_best or {})
        table = np.where(np.isfinite(self.draws), self.draws, -np.inf)
        table = np.concatenate([table, np.full((len(table), 1), self.threshold)], axis=1)
        # A tie with nothing is nothing's; ties among purchases go to the cheapest.
        costs = np.array([one.cost for one in case.candidates] + [-np.inf])
        order = np.argsort(costs, kind="stable")
        winner = order[table[:, order].argmax(axis=1)]
        counts = np.bincount(winner, minlength=len(costs)) / len(table)
        labels = [*(one.label for one in case.candidates), NOTHING]
        return {label: float(share) for label, share in zip(labels, counts)}


@dataclass(frozen=True)
class Strategy:
    """A registered rule.

    Attributes:
        name: what :func:`lacunar.plan` calls it.
        function: from a case to a choice.
        needs: of ``"utilities"``, ``"outlook"`` and ``"realised"`` what the rule cannot do without.
        description: one line.
    """

    name: str
    function: Callable[[Case], Choice]
    needs: tuple[str, ...]
    description: str

    def __call__(self, case: Case) -> Choice:
        """Apply the rule.

        Raises:
            ConfigError: the case lacks what the rule needs.
        """
        for what in self.needs:
            if getattr(case, what) is None:
                raise ConfigError(f"strategy {self.name!r} needs {what}, which this case does not have.")
        return self.function(case)


_REGISTER: dict[str, Strategy] = {}


def strategy(name: str, needs: Sequence[str] = ()) -> Callable[[Callable[[Case], Choice]], Callable[[Case], Choice]]:
    """Decorator that registers a rule; see :class:`Strategy`.

    Raises:
        ConfigError: when another function has the name.
    """

    def register(function: Callable[[Case], Choice]) -> Callable[[Case], Choice]:
        known = _REGISTER.get(name)
        if known is not None and known.function.__qualname__ != function.__qualname__:
            raise ConfigError(f"strategy {name!r} is already registered; choose another name.")
        text = (function.__doc__ or "").strip().splitlines()
        _REGISTER[name] = Strategy(name, function, tuple(needs), text[0] if text else "")
        return function

    return register


def available() -> dict[str, Strategy]:
    """Every registered rule by name."""
    return dict(sorted(_REGISTER.items()))


def get(name: str) -> Strategy:
    """A rule by its name.

    Raises:
        ConfigError: when there is none of this name.
    """
    if name not in _REGISTER:
        raise ConfigError(f"strategy: unknown strategy {name!r}.{did_you_mean(name, sorted(_REGISTER))}")
    return _REGISTER[name]


@strategy("rehearsal", needs=("outlook",))
def rehearsal(case: Case) -> Choice:
    """The purchase whose predicted gain is largest at the lower end of its interval.

    Gains are read off the learning curve at the effective number of samples, with the completion quality that a
    rehearsal measured. Nothing is bought where no interval lies above ``min_gain``.
    """
    assert case.outlook is not None
    if not case.candidates:
        return Choice([], np.empty((1, 0)), case.min_gain)
    _, draws = case.outlook.gains(case.candidates)
    low = np.quantile(draws, (1 - case.confidence) / 2, axis=0)
    return Choice(low, draws, case.min_gain)


@strategy("utility-per-cost", needs=("utilities",))
def utility_per_cost(case: Case) -> Choice:
    """The subset with the most utility for its price.

    ``(u(S) - u(none)) / (cost of a sample of S, its part of the set-up included)``. It knows neither how much data
    there is already nor what can be generated.
    """
    assert case.utilities is not None
    codes = [one.code for one in case.candidates]
    price = np.array([one.cost / one.samples for one in case.candidates])
    price = np.where(price > 0, price, np.finfo(float).tiny ** 0.5)
    mean, draws = case.utilities.mean, case.utilities.draws(case.draws, case.seed)
    return Choice((mean[codes] - mean[0]) / price, (draws[:, codes] - draws[:, :1]) / price, 0.0)


@strategy("sk-ll", needs=("utilities",))
def sk_ll(case: Case) -> Choice:
    """SK-LL: stepwise selection by scaled Shapley value and cooperation, blind to costs; then an even split.

    The budget goes to samples of the key subset that :func:`lacunar.planning.selection.select` finds, and what is left
    of it to one more sample with as many of its strongest modalities as that pays.
    """
    assert case.utilities is not None
    lattice, found = case.lattice, _selection(case.utilities, case.draws, case.seed)
    key = lattice.index(found.subset)
    scores = [1.0 if len(one.blocks) == 1 and one.code == key else math.nan for one in case.candidates]
    shares = dict.fromkeys([*(one.label for one in case.candidates), NOTHING], 0.0)
    for label, share in found.stability.items():
        shares[str(label) if label in shares else NOTHING] += float(share)
    chosen = case.single(key)
    if chosen is None:
        why = f"the budget does not pay one sample of the key subset {lattice.label(key)}"
        return Choice(scores, why=why, p_best=shares if len(found.stability) else {NOTHING: 1.0})
    if not len(found.stability):
        shares[chosen.label] = 1.0
    why = f"the key subset is {found.label}, in the order in which it was picked"
    return Choice(scores, why=why, blocks=_with_rest(case, chosen), p_best=shares)


@strategy("even")
def even(case: Case) -> Choice:
    """Samples with every modality, as many as the budget pays."""
    full = len(case.lattice) - 1
    return Choice([1.0 if one.blocks == ((full, one.samples),) else math.nan for one in case.candidates])


@strategy("random")
def random(case: Case) -> Choice:
    """Any affordable subset, each as likely, drawn by the seed."""
    singles = [k for k, one in enumerate(case.candidates) if len(one.blocks) == 1]
    scores = np.full(len(case.candidates), np.nan)
    if singles:
        scores[singles[int(np.random.default_rng([case.seed, 7]).integers(len(singles)))]] = 1.0
    return Choice(scores)


@strategy("best-single", needs=("utilities",))
def best_single(case: Case) -> Choice:
    """The affordable modality that alone scores best."""
    assert case.utilities is not None
    codes = [one.code for one in case.candidates]
    single = np.array([len(one.blocks) == 1 and one.code.bit_count() == 1 for one in case.candidates], dtype=bool)
    draws = np.where(single, case.utilities.draws(case.draws, case.seed)[:, codes], -np.inf)
    return Choice(np.where(single, case.utilities.mean[codes], np.nan), draws)


@strategy("oracle", needs=("realised",))
def oracle(case: Case) -> Choice:
    """What turned out best after buying everything: the yardstick of a backtest, no advice."""
    assert case.realised is not None
    return Choice([case.realised.get(one.label, math.nan) for one in case.candidates], None, 0.0)


@lru_cache(maxsize=16)
def _selection(table: UtilityTable, draws: int, seed: int) -> Selection:
    return select(table, draws=draws, seed=seed)  # no price changes it, and a thousand draws take their time


def _with_rest(case: Case, chosen: Candidate) -> tuple[tuple[int, int], ...]:
    """A purchase, and one more sample with as many of its strongest modalities as the rest of the money pays."""
    assert case.utilities is not None
    lattice, costs = case.lattice, case.costs
    phi = lattice.shapley(case.utilities.mean)
    names = sorted(lattice.subset(chosen.code), key=lambda name: -phi[lattice.names.index(name)])
    for count in range(len(names) - 1, 0, -1):
        blocks = (*chosen.blocks, (lattice.index(names[:count]), 1))
        more = candidate(lattice, costs, blocks)
        used = {name: costs.ask(name, chosen.samples, names) for name in names}
        room = costs.limit(names[:count], used) >= 1
        few = costs.max_samples is None or more.samples <= costs.max_samples
        if room and few and more.cost <= case.budget + 1e-9 * max(1.0, case.budget):
            return blocks
    return chosen.blocks


def chosen_purchase(case: Case, choice: Choice) -> Candidate | None:
    """What a choice buys: its best candidate, with the rest of the money spent as the rule says."""
    best = choice.best(case)
    if best is None or choice.blocks is None:
        return best
    bought = candidate(case.lattice, case.costs, choice.blocks)
    return replace(bought, label=best.label)
