"""The laws of absence. Every draw is a function of (seed, sample id, modality), never of a sample's position."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from lacunar.errors import ConfigError

__all__ = [
    "exact_marginal",
    "independent",
    "keyed_uniform",
    "not_at_random",
    "product_counts",
    "redraw",
    "uniform_pattern",
]

MAX_ENUMERATED = 12


def keyed_uniform(seed: int, ids: Sequence[str] | np.ndarray, names: Sequence[str], salt: str = "") -> np.ndarray:
    """Uniform numbers in [0, 1), one for each id and name, that depend on nothing else.

    Returns:
        float64, shape ``(len(ids), len(names))``.
    """
    encoded = [str(key).encode() for key in ids]
    numbers = np.empty((len(encoded), len(names)))
    for m, name in enumerate(names):
        start = hashlib.blake2b(f"{seed}\0{salt}\0{name}\0".encode(), digest_size=8)
        for n, key in enumerate(encoded):
            state = start.copy()
            state.update(key)
            # 53 bits are what a float64 can hold exactly, so that 1.0 is never reached.
            numbers[n, m] = (int.from_bytes(state.digest(), "big") >> 11) * 2.0**-53
    return numbers


def independent(seed: int, ids: np.ndarray, names: Sequence[str], rates: np.ndarray) -> np.ndarray:
    """Every cell is absent with its modality's rate. A higher rate only takes cells away (nested across rates)."""
    return keyed_uniform(seed, ids, names) >= rates


def not_at_random(
    seed: int, ids: np.ndarray, names: Sequence[str], rates: np.ndarray, driver: np.ndarray, strength: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cells are absent with probability ``sigmoid(a_m + strength_m * z)``, ``z`` the standardised driver.

    The intercepts ``a_m`` are found so that the mean probability over the samples is the rate.

    Returns:
        presence ``(N, M)`` and the probabilities of absence ``(N, M)``.
    """
    score = (driver - driver.mean()) / driver.std()
    absent = np.zeros((len(ids), len(names)))
    for m, rate in enumerate(rates):
        if rate > 0:
            low, high = -1e3, 1e3
            for _ in range(200):
                middle = (low + high) / 2
                mean = _sigmoid(middle + strength[m] * score).mean()
                low, high = (middle, high) if mean < rate else (low, middle)
            absent[:, m] = _sigmoid((low + high) / 2 + strength[m] * score)
    return keyed_uniform(seed, ids, names) >= absent, absent


def uniform_pattern(seed: int, ids: np.ndarray, names: Sequence[str], possible: np.ndarray) -> np.ndarray:
    """A uniformly chosen non-empty combination of the modalities that are ``possible`` (N, M) for each sample."""
    cells = np.zeros(possible.shape, dtype=bool)
    undecided: np.ndarray = np.asarray(possible.any(axis=1))
    attempt = 0
    while undecided.any():
        rows = np.flatnonzero(undecided)
        cells[rows] = (keyed_uniform(seed, ids[rows], names, f"pattern {attempt}") >= 0.5) & possible[rows]
        undecided[rows] = ~cells[rows].any(axis=1)
        attempt += 1
    return cells


def exact_marginal(
    seed: int, ids: np.ndarray, names: Sequence[str], rates: np.ndarray, possible: np.ndarray
) -> np.ndarray:
    """Exactly ``round(N r)`` absent of the N ``possible`` cells of each modality, and no sample with nothing.

    Each column starts as a uniformly random subset of its size. Then every empty sample receives one cell from a
    random sample that has at least two, in the same column, which changes no column's count. As long as a
    sample is empty and the cells number at least N, such a sample exists where every cell is possible; where some are
    not, it may take a chain of samples that each hand one on. (Halves round towards presence.)

    Args:
        possible: cells that may be present, boolean ``(N, M)``. A sample without any stays empty.

    Raises:
        ConfigError: when the columns hold fewer cells than there are samples, or none that suit a sample.
    """
    has_any: np.ndarray = np.asarray(possible.any(axis=1))
    count, held = int(has_any.sum()), possible.sum(axis=0)
    absent = np.ceil(held * rates - 0.5 - 1e-9).astype(int)
    total = int((held - absent).sum())
    if total < count:
        available = ", ".join(f"{name} {1 - rate:g}" for name, rate in zip(names, rates))
        why = f"availabilities {available} sum to {float((1 - rates).sum()):.3g}, at least 1 is needed"
        raise ConfigError(
            f"exact-marginal: {total} available cells cannot cover {count} samples without leaving some with nothing "
            f"({why if possible.all() else 'what the data lack already counts'}). "
            "Lower a missing rate, or use law='independent'."
        )
    order = np.argsort(keyed_uniform(seed, ids, names), axis=0)
    cells = possible.copy()
    for m, number in enumerate(absent):
        cells[order[possible[order[:, m], m], m][:number], m] = False
    empty = np.flatnonzero(~cells.any(axis=1) & has_any)
    empty = empty[np.argsort(keyed_uniform(seed, ids[empty], ["receive"])[:, 0])]
    rows, columns = np.nonzero(cells)
    turns = keyed_uniform(seed, ids, names, "give")
    turn = np.argsort(turns[rows, columns])
    have = cells.sum(axis=1)
    waiting = empty.tolist()
    # Givers only lose and receivers have one cell, so that one pass over the cells is enough.
    for row, column in zip(rows[turn], columns[turn]):
        if not waiting:
            break
        if have[row] >= 2:
            receiver = next((other for other in waiting if possible[other, column]), None)
            if receiver is not None:
                cells[row, column], cells[receiver, column] = False, True
                have[row] -= 1
                waiting.remove(receiver)
    by_name = np.argsort(np.array(names, dtype=object))
    for receiver in waiting:
        if not _hand_on(receiver, cells, possible, turns, by_name):
            raise ConfigError(
                f"exact-marginal: sample {ids[receiver]!r} would be left with nothing: too few cells of the modalities "
                "that it and others like it have would stay. Lower their missing rates, or use law='independent'."
            )
    return cells


def _hand_on(receiver: int, cells: np.ndarray, possible: np.ndarray, turns: np.ndarray, by_name: np.ndarray) -> bool:
    """Give an empty sample a cell: along the shortest chain of samples each takes another cell for the one it gives.

    The last of them has one to spare, so that no column's count changes.

    Returns:
        whether there is such a chain.
    """
    have = cells.sum(axis=1)
    taker = {int(m): receiver for m in by_name if possible[receiver, m]}  # who would take a cell of a column,
    gives: dict[int, int] = dict.fromkeys(taker, -1)  # and the column of its own that it would give for it
    queue = list(taker)
    for column in queue:
        holders = np.flatnonzero(cells[:, column])
        holders = holders[np.argsort(turns[holders, column])]
        spare = holders[have[holders] >= 2]
        if len(spare):
            giver, at = int(spare[0]), column
            while at >= 0:
                cells[giver, at], cells[taker[at], at] = False, True
                giver, at = taker[at], gives[at]
            return True
        for other in map(int, by_name):
            willing = holders[possible[holders, other]]
            if other not in taker and len(willing):
                taker[other], gives[other] = int(willing[0]), column
                queue.append(other)
    return False


def product_counts(seed: int, ids: np.ndarray, names: Sequence[str], rates: np.ndarray) -> np.ndarray:
    """Patterns in the numbers that independence would give: ``int(N * probability)``, at least 1 of each.

    "Each" means the non-empty patterns of positive probability. What rounding leaves over goes to the patterns
    with the largest remainders; what the minimum of 1 takes beyond N comes from the most frequent ones.

    Raises:
        ConfigError: more patterns than samples, or more modalities than can be enumerated.
    """
    count, width = len(ids), len(names)
    if width > MAX_ENUMERATED:
        raise ConfigError(f"product-counts enumerates 2^M patterns: at most {MAX_ENUMERATED} modalities, got {width}.")
    by_name = np.argsort(np.array(names, dtype=object))
    codes = np.arange(2**width)
    patterns = np.zeros((len(codes), width), dtype=bool)
    patterns[:, by_name] = (codes[:, None] >> np.arange(width)) & 1
    probability = np.where(patterns, 1 - rates, rates)[:, by_name].prod(axis=1)
    exact = count * probability
    numbers = np.floor(exact + 1e-9).astype(int)
    least = ((probability > 0) & patterns.any(axis=1)).astype(int)
    if least.sum() > count:
        raise ConfigError(
            f"product-counts: {int(least.sum())} patterns are possible but there are only {count} samples. "
            "Use law='independent', or fewer modalities."
        )
    numbers = np.maximum(numbers, least)
    leftover = np.argsort(-(exact - numbers), kind="stable")
    for code in leftover[: max(0, count - int(numbers.sum()))]:
        numbers[code] += 1
    while numbers.sum() > count:
        numbers[np.argmax(np.where(numbers > least, numbers, -1))] -= 1
    cells = np.empty((count, width), dtype=bool)
    order = np.argsort(keyed_uniform(seed, ids, ["pattern"])[:, 0])
    cells[order] = np.repeat(patterns, numbers, axis=0)
    return cells


def redraw(seed: int, ids: np.ndarray, names: Sequence[str], absent: np.ndarray) -> np.ndarray:
    """Presence from independent cells with probabilities ``absent`` (N, M), conditioned on having something.

    One pass: while nothing was drawn yet, cell m is present with probability
    ``(1 - a_m) / (1 - a_m a_{m+1} ... a_M)``. A row whose probabilities are all 1 stays empty.
    """
    by_name = np.argsort(np.array(names, dtype=object))
    numbers = keyed_uniform(seed, ids, names, "redraw")
    cells = np.zeros(absent.shape, dtype=bool)
    nothing_from = np.cumprod(absent[:, by_name][:, ::-1], axis=1)[:, ::-1]
    something: np.ndarray = np.zeros(len(ids), dtype=bool)
    for place, m in enumerate(by_name):
        present = 1 - absent[:, m]
        rest = 1 - nothing_from[:, place]
        forced = np.divide(present, rest, out=np.zeros_like(rest), where=rest > 0)
        cells[:, m] = numbers[:, m] < np.where(something, present, forced)
        something |= cells[:, m]
    # Rounding of the last quotient may lose a row in about 2^53; give it what is most likely to be there.
    lost = ~something & (absent.min(axis=1) < 1)
    cells[lost, absent[lost].argmin(axis=1)] = True
    return cells


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -500, 500)))
