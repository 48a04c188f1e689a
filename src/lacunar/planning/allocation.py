"""How many cells of each modality a budget buys: the counts of SK-LL's arms, weighted splits, and who gets them.

Cells are the currency here: one cell is one modality of one sample, as in the paper. What cells cost in money is the
matter of :mod:`lacunar.planning.costs`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from lacunar.errors import ConfigError, DataError, did_you_mean

__all__ = ["ARMS", "Allocation", "allocate", "by_hash", "portion"]

#: The arms of the paper's protocol.
ARMS = ("lower", "even", "sk-ll", "upper")


@dataclass(frozen=True)
class Allocation:
    """New samples by what is collected for them.

    Attributes:
        names: all modalities, in lattice order.
        blocks: ``(subset, samples)``: that many new samples have exactly that subset. Nested: a later block's subset
            lies within the one before it where a budget is split unevenly.
    """

    names: tuple[str, ...]
    blocks: tuple[tuple[tuple[str, ...], int], ...] = ()

    @property
    def samples(self) -> int:
        """How many new samples there are, which is how many labels are bought."""
        return sum(count for _, count in self.blocks)

    @property
    def cells(self) -> dict[str, int]:
        """Cells of each modality, beta_j."""
        return {name: sum(count for subset, count in self.blocks if name in subset) for name in self.names}

    @property
    def total(self) -> int:
        """Cells in all."""
        return sum(len(subset) * count for subset, count in self.blocks)

    def assign(self, ids: Sequence[str], seed: int = 0) -> pd.DataFrame:
        """Which candidate gets what: one row per chosen id, one boolean column per modality.

        Candidates are taken in an order that depends on their ids and the seed alone, so that a smaller allocation is
        the beginning of a larger one.

        Raises:
            DataError: fewer candidates than samples, or an id that is there twice.
        """
        order = by_hash(ids, seed)
        if len(order) < self.samples:
            raise DataError(f"allocate: expected at least {self.samples} candidates, got {len(order)}.")
        kinds = [subset for subset, count in self.blocks for _ in range(count)]
        rows = [[name in subset for name in self.names] for subset in kinds]
        index = pd.Index(order[: self.samples], name="id")
        return pd.DataFrame(rows, index=index, columns=list(self.names), dtype=bool)


def portion(count: int, share: float) -> int:
    """``floor(share * count)``, safe against 0.3 * 10 being a little less than 3."""
    if not 0 <= share <= 1:
        raise ConfigError(f"share: expected a fraction in [0, 1], got {share!r}.")
    return math.floor(share * count + 1e-9)


def allocate(
    arm: str,
    names: Sequence[str],
    budget: int,
    subset: Iterable[str] = (),
    *,
    strength: Mapping[str, float] | None = None,
    share: float | None = None,
    match: str = "cells",
) -> Allocation:
    """The new samples of one arm of the paper's protocol.

    With B cells, m modalities and the key subset S: ``"lower"`` buys nothing; ``"even"`` B/m complete samples;
    ``"sk-ll"`` B/|S| samples of S, or with ``share`` r the weighted split of Table 4: r B samples have the strongest
    modality of S, of which (1 - r) B / (|S| - 1) have all of S; ``"upper"`` B complete samples, m B cells. Counts are
    rounded down; cells left over go to one more sample, strongest modality first, where ``strength`` is given.

    Args:
        arm: one of :data:`ARMS`.
        names: all modalities.
        budget: B, the number of cells.
        subset: S, for ``"sk-ll"``; and for ``match="labels"``.
        strength: how much each modality is worth (scaled Shapley values, or the scores of single modalities).
        share: r, the strongest modality's share of the budget, from 1/|S| to 1; even when left out.
        match: what the arms have in common: ``"cells"`` (the paper) or ``"labels"``: every arm but ``"lower"`` and
            ``"upper"`` buys B/|S| samples, so that the even arm has as many labels as SK-LL and more cells.

    Raises:
        ConfigError: an unknown arm, a negative budget, no subset where one is needed, a share out of range.
    """
    names = tuple(names)
    if arm not in ARMS:
        raise ConfigError(f"arm: unknown arm {arm!r}.{did_you_mean(arm, ARMS)}")
    if match not in ("cells", "labels"):
        raise ConfigError(f"match: expected 'cells' or 'labels', got {match!r}.")
    if budget != int(budget) or budget < 0:
        raise ConfigError(f"budget: expected a number of cells from 0 up, got {budget!r}.")
    key = _ordered(names, subset)
    if not key and (arm == "sk-ll" or (arm == "even" and match == "labels")):
        raise ConfigError(f"allocate: the arm {arm!r} needs a subset of {', '.join(map(repr, names))}, got none.")
    budget = int(budget)
    if arm == "lower":
        return Allocation(names)
    if arm == "upper":
        return _blocks(names, [(names, budget)])
    if arm == "even":
        if match == "labels":
            return _blocks(names, [(names, budget // len(key))])
        return _even(names, names, budget, strength)
    return _even(names, key, budget, strength) if share is None else _weighted(names, key, budget, share, strength)


def by_hash(ids: Iterable[str], seed: int = 0) -> list[str]:
    """Ids in an order that depends on each id and the seed, and on nothing else (not on the interpreter's hashes)."""
    given = [str(one) for one in ids]
    if len(set(given)) < len(given):
        raise DataError("ids: expected unique ids, got one twice.")
    return sorted(given, key=lambda one: (hashlib.sha256(f"{seed}:{one}".encode()).digest(), one))


def _even(
    names: tuple[str, ...], key: tuple[str, ...], budget: int, strength: Mapping[str, float] | None
) -> Allocation:
    whole, left = divmod(budget, len(key))
    first = _by_strength(key, strength)[:left] if strength is not None else ()
    return _blocks(names, [(key, whole), (_ordered(names, first), 1 if first else 0)])


def _weighted(
    names: tuple[str, ...], key: tuple[str, ...], budget: int, share: float, strength: Mapping[str, float] | None
) -> Allocation:
    if strength is None:
        raise ConfigError("share: a weighted split needs strength=, how much each modality is worth.")
    if not 1 / len(key) - 1e-9 <= share <= 1:
        raise ConfigError(
            f"share: expected the strongest modality's share of the budget, from {1 / len(key):.3g} (even) to 1, "
            f"got {share!r}."
        )
    primary = _by_strength(key, strength)[0]
    others = len(key) - 1
    # Whatever rounding leaves goes to the strongest modality, so that every cell is spent.
    complete = portion(budget, 1 - share) // others if others else 0
    alone = budget - complete * len(key)
    return _blocks(names, [(key, complete), ((primary,), alone)])


def _by_strength(key: Sequence[str], strength: Mapping[str, float] | None) -> list[str]:
    known = strength or {}
    for name in key:
        if name not in known:
            raise ConfigError(f"strength: nothing for modality {name!r}.")
    return sorted(key, key=lambda name: -known[name])  # stable: lattice order breaks ties


def _ordered(names: Sequence[str], subset: Iterable[str]) -> tuple[str, ...]:
    chosen = {subset} if isinstance(subset, str) else set(subset)
    for name in chosen:
        if name not in names:
            raise ConfigError(f"subset: unknown modality {name!r}.{did_you_mean(name, names)}")
    return tuple(name for name in names if name in chosen)


def _blocks(names: tuple[str, ...], blocks: Iterable[tuple[tuple[str, ...], int]]) -> Allocation:
    return Allocation(names, tuple((subset, count) for subset, count in blocks if count > 0))
