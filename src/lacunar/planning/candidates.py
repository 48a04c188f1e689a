"""What can be bought: every subset of modalities, with as many samples as the money and the capacities allow."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lacunar.lattice import Lattice
from lacunar.planning.costs import CostModel

__all__ = ["NOTHING", "Candidate", "affordable", "candidate", "largest", "mixtures", "why_nothing"]

NOTHING = "none"
"""The label of buying nothing."""


@dataclass(frozen=True)
class Candidate:
    """A purchase to choose from.

    Attributes:
        blocks: ``(code, samples)``: that many new samples of the subset with that bit code, the main subset first.
        cost: the price of all of it.
        label: the subset in words; of a mixture ``"a+b and a"``.
    """

    blocks: tuple[tuple[int, int], ...]
    cost: float
    label: str

    @property
    def code(self) -> int:
        """The main subset; 0 for nothing."""
        return self.blocks[0][0] if self.blocks else 0

    @property
    def samples(self) -> int:
        """New samples, and labels, in all."""
        return sum(samples for _, samples in self.blocks)


def candidate(lattice: Lattice, costs: CostModel, blocks: Iterable[tuple[int, int]]) -> Candidate:
    """Samples of one or several subsets, with their price."""
    kept = tuple((code, samples) for code, samples in blocks if samples > 0)
    named = [(lattice.subset(code), samples) for code, samples in kept]
    label = " and ".join(lattice.label(code) for code, _ in kept) or NOTHING
    return Candidate(kept, costs.cost_of(named), label)


def affordable(
    lattice: Lattice, costs: CostModel, budget: float, codes: Iterable[int] | None = None
) -> list[Candidate]:
    """Every subset of which the budget buys at least one sample, with as many as it buys.

    Args:
        lattice: the modalities.
        costs: their prices.
        budget: what can be spent.
        codes: only these subsets; all when None.
    """
    chosen = lattice.subsets if codes is None else sorted(codes, key=lambda code: (code.bit_count(), code))
    found = []
    for code in chosen:
        samples = costs.affordable(lattice.subset(code), budget)
        if samples:
            found.append(candidate(lattice, costs, [(code, samples)]))
    return found


def mixtures(lattice: Lattice, costs: CostModel, budget: float, singles: list[Candidate]) -> list[Candidate]:
    """Where a capacity and not the money ends a purchase: the same, and what is left spent on another subset.

    Without capacities no mixture of two subsets beats the better of the two, because effective samples add up.
    """
    found, known = [], set()
    for first in singles:
        names = lattice.subset(first.code)
        if first.samples < costs.limit(names):
            continue
        for second in singles:
            if second.code == first.code:
                continue
            samples = _rest(lattice, costs, budget, first.blocks[0], second.code, second.samples)
            blocks = (first.blocks[0], (second.code, samples))
            if samples and frozenset(blocks) not in known:  # both may have ended at their capacities
                known.add(frozenset(blocks))
                found.append(candidate(lattice, costs, blocks))
    return found


def largest(lattice: Lattice, costs: CostModel, singles: list[Candidate]) -> int:
    """At least as many samples as any of these purchases has, or any mixture of two of them; 0 when there are none."""
    ended = [one.samples for one in singles if one.samples >= costs.limit(lattice.subset(one.code))]
    most = max((one.samples for one in singles), default=0) + max(ended, default=0)
    return most if costs.max_samples is None else min(most, costs.max_samples)


def _rest(lattice: Lattice, costs: CostModel, budget: float, first: tuple[int, int], code: int, most: int) -> int:
    """The most samples of another subset beside a first block."""
    names, taken = lattice.subset(code), lattice.subset(first[0])
    used = {name: costs.ask(name, first[1], taken) for name in taken}
    most = int(min(most, costs.limit(names, used)))
    if costs.max_samples is not None:
        most = min(most, costs.max_samples - first[1])
    low, high = 0, max(most, 0)
    slack = 1e-9 * max(1.0, abs(budget))
    while low < high:
        middle = (low + high + 1) // 2
        price = costs.cost_of([(taken, first[1]), (names, middle)])
        low, high = (middle, high) if price <= budget + slack else (low, middle - 1)
    fresh = [name for name in names if name not in taken]  # the first block is a batch of the others already
    return low if low >= (costs.least(fresh) if fresh else 1) else 0


def why_nothing(lattice: Lattice, costs: CostModel, budget: float) -> str:
    """Why a budget buys no subset, in words."""
    if budget == 0:
        return "the budget is 0"
    cheapest = min(lattice.subsets, key=lambda code: costs.smallest(lattice.subset(code)))
    price = costs.smallest(lattice.subset(cheapest))
    if math.isinf(price):
        return "the capacities are below the smallest batches of every subset"
    return (
        f"the budget of {costs.amount(budget)} is below the smallest purchase, {costs.amount(price)} for "
        f"{lattice.label(cheapest)}"
    )
