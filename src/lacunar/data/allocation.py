"""Which sample goes to which part of a split: evenly over the classes, and never through a group."""

from __future__ import annotations

import numpy as np

from lacunar.errors import DataError

__all__ = ["allocate", "part_sizes"]

TRIALS = 20


def part_sizes(count: int, fractions: np.ndarray) -> np.ndarray:
    """Whole numbers that sum to ``count``, in proportion to ``fractions`` by largest remainder.

    A part with a positive fraction gets at least one as long as there are enough.
    """
    exact = count * fractions
    sizes = np.floor(exact + 1e-9).astype(int)
    order = np.argsort(-(exact - sizes), kind="stable")
    sizes[order[: count - int(sizes.sum())]] += 1
    for part in np.flatnonzero((sizes == 0) & (fractions > 0)):
        if sizes.max() > 1:
            sizes[int(sizes.argmax())] -= 1
            sizes[part] += 1
    return sizes


def allocate(
    ids: np.ndarray, fractions: np.ndarray, labels: np.ndarray | None, groups: np.ndarray | None, seed: int
) -> np.ndarray:
    """Part of each sample, int64, shape ``(N,)``; part 0 is the one to train on.

    The result depends on the ids, not on their order.

    Args:
        ids: sample ids, shape ``(N,)``.
        fractions: share of each part, shape ``(P,)``, sum 1.
        labels: class of each sample to spread evenly over the parts, or None.
        groups: group of each sample that no part may cut through, or None.
        seed: seed of the shuffling.

    Raises:
        DataError: fewer samples or groups than parts.
    """
    units = len(ids) if groups is None else len(np.unique(groups))
    needed = int((fractions > 0).sum())
    if units < needed:
        what = "samples" if groups is None else "groups"
        raise DataError(f"Expected at least {needed} {what} for {needed} parts, got {units}.")
    by_id = np.argsort(ids)
    codes = np.zeros(len(ids), dtype=np.int64) if labels is None else np.unique(labels, return_inverse=True)[1]
    generator = np.random.default_rng(seed)
    parts = np.empty(len(ids), dtype=np.int64)
    if groups is None:
        parts[by_id] = _by_class(codes[by_id], fractions, generator)
    else:
        parts[by_id] = _by_group(codes[by_id], groups[by_id], fractions, generator)
    return parts


def _by_class(codes: np.ndarray, fractions: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    per_class = np.bincount(codes)
    sizes = part_sizes(len(codes), fractions)
    exact = per_class[:, None] * fractions
    counts = np.floor(exact + 1e-9).astype(int)
    # A class too small to be everywhere is at least in the part to train on.
    counts[(counts[:, 0] == 0) & (per_class > 0), 0] = 1
    remainder = exact - counts
    left, room = per_class - counts.sum(axis=1), sizes - counts.sum(axis=0)
    for _ in range(int(left.sum())):
        # The class with most samples left chooses the part that it is shortest in, where there is room if possible.
        # Each cell is rounded up at most once, so that no class is a whole sample off anywhere.
        code = int(np.argmax(left))
        wish = np.where(remainder[code] > 1e-9, remainder[code] + (room > 0), -np.inf)
        part = int(np.argmax(wish)) if np.isfinite(wish).any() else 0
        counts[code, part] += 1
        remainder[code, part] -= 1
        left[code] -= 1
        room[part] -= 1
    # So few samples that a part is left empty: it gets one from where most are, but no class leaves train for it.
    for lacking in np.flatnonzero((fractions > 0) & (counts.sum(axis=0) == 0)):
        spare = np.where(counts.sum(axis=0) > 1, counts, 0)
        spare[spare[:, 0] == 1, 0] = 0
        if spare.max() > 0:
            richest, donor = np.unravel_index(int(spare.argmax()), spare.shape)
            counts[richest, donor] -= 1
            counts[richest, lacking] += 1
    parts = np.empty(len(codes), dtype=np.int64)
    for code, row in enumerate(counts):
        members = generator.permutation(np.flatnonzero(codes == code))
        parts[members] = np.repeat(np.arange(len(fractions)), row)
    return parts


def _by_group(
    codes: np.ndarray, groups: np.ndarray, fractions: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Greedy: the largest groups first, each to the part that it brings closest to its share of every class.

    Several shuffled orders are tried, and the one with the most classes to train on and then the closest shares wins.
    """
    names, member = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(codes.max()) + 1))
    np.add.at(counts, (member, codes), 1)
    wanted = fractions[:, None] * counts.sum(axis=0)
    best, best_cost = np.zeros(len(names), dtype=np.int64), (np.inf, np.inf)
    for _ in range(max(1, min(TRIALS, 20_000 // len(names)))):
        order = generator.permutation(len(names))
        order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
        filled = np.zeros_like(wanted)
        chosen = np.zeros(len(names), dtype=np.int64)
        waiting = {int(part) for part in np.flatnonzero(fractions > 0)}
        for place, group in enumerate(order):
            gap = wanted - filled
            cost = ((gap - counts[group]) ** 2 - gap**2).sum(axis=1)
            cost[fractions <= 0] = np.inf
            if len(order) - place <= len(waiting):  # what is left is just enough to leave no part empty
                cost[[part for part in range(len(fractions)) if part not in waiting]] = np.inf
            part = int(np.argmin(cost))
            chosen[group] = part
            filled[part] += counts[group]
            waiting.discard(part)
        total = (float((filled[0] == 0).sum()), float(((wanted - filled) ** 2).sum()))
        if total < best_cost:
            best, best_cost = chosen, total
    return best[member]
