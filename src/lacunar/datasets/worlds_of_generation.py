"""Two synthetic worlds that tell whether generating a modality can help: in one it can, in the other it cannot.

Three modalities ``x1``, ``x2``, ``x3`` and two classes. The label is decided by one direction ``z`` of ``x3``, seen
through noise: ``P(y = 1 | z) = cdf(strength * z)`` with ``z ~ N(0, 1)``, so that whoever knows a part of ``z`` with
correlation r is right with probability ``1/2 + arcsin(r * strength / sqrt(1 + strength^2)) / pi``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import norm, ortho_group

from lacunar.data.arrays import from_arrays
from lacunar.datasets._card import with_card
from lacunar.datasets.synthetic import World
from lacunar.errors import ConfigError, did_you_mean

__all__ = ["generable", "ungenerable", "worlds_of_generation"]

NAMES = ("x1", "x2", "x3")


def generable(
    n: int = 2000, seed: int = 0, strength: float = 3.0, dims: Sequence[int] = (6, 6, 6), curve: float = 0.0
) -> World:
    """A world in which ``x3`` can be computed from ``x1`` and ``x2``: both together are worth what ``x3`` is worth.

    ``x1`` and ``x2`` are independent Gaussian vectors, and ``x3 = R h(A x1 + B x2)`` without noise, with random
    matrices of unit rows and ``h(u) = u + curve * u^3`` in each coordinate. Half of the variance of ``z`` is in each
    of ``x1`` and ``x2``. With ``curve=0`` a linear completer is exact.

    Args:
        n: number of samples.
        seed: fixes everything that is drawn.
        strength: how surely the label follows ``z``; the accuracy of knowing ``z`` is ``1/2 + arctan(strength) / pi``.
        dims: lengths of ``x1``, ``x2`` and ``x3``.
        curve: how far from linear ``x3`` is, 0 or more.
    """
    d1, d2, d3 = _lengths(dims)
    if not curve >= 0:
        raise ConfigError(f"curve: expected a number of at least 0, got {curve!r}.")
    rng = np.random.default_rng(seed)
    x1, x2 = rng.normal(size=(n, d1)), rng.normal(size=(n, d2))
    first = _unit_rows(rng, d3, d1)
    second = _unit_rows(rng, d3, d2)
    parts = x1 @ first.T, x2 @ second.T
    hidden = (parts[0] + parts[1]) / np.sqrt(2)
    x3 = _rotate(hidden + curve * hidden**3, rng)
    known = {0: parts[0][:, 0] / np.sqrt(2), 1: parts[1][:, 0] / np.sqrt(2)}

    def expected(members: list[int]) -> tuple[np.ndarray, float]:
        if 2 in members or {0, 1} <= set(members):
            return hidden[:, 0], 1.0
        return sum((known[m] for m in members), np.zeros(n)), len(members) / 2

    return _world("generable", (x1, x2, x3), hidden[:, 0], strength, rng, expected)


def ungenerable(n: int = 2000, seed: int = 0, strength: float = 3.0, dims: Sequence[int] = (6, 6, 6)) -> World:
    """A world in which ``x3`` alone tells the label and ``x1`` and ``x2`` have nothing to do with either.

    No completer can do better than guess ``x3``: whatever a plan seems to gain by generating it comes from elsewhere,
    for example from more labels.

    Args: as in :func:`generable`.
    """
    d1, d2, d3 = _lengths(dims)
    rng = np.random.default_rng(seed)
    x1, x2, hidden = rng.normal(size=(n, d1)), rng.normal(size=(n, d2)), rng.normal(size=(n, d3))

    def expected(members: list[int]) -> tuple[np.ndarray, float]:
        return (hidden[:, 0], 1.0) if 2 in members else (np.zeros(n), 0.0)

    return _world("ungenerable", (x1, x2, _rotate(hidden, rng)), hidden[:, 0], strength, rng, expected)


WORLDS: dict[str, Callable[..., World]] = {"generable": generable, "ungenerable": ungenerable}


def worlds_of_generation(world: str = "generable", **options: Any) -> World:
    """One of the two worlds by name, as :func:`lacunar.datasets.load` calls it.

    Args:
        world: ``"generable"`` or ``"ungenerable"``.
        **options: of the function of that name.
    """
    if world not in WORLDS:
        raise ConfigError(f"worlds_of_generation: unknown world {world!r}.{did_you_mean(world, WORLDS)}")
    known = inspect.signature(WORLDS[world]).parameters
    for option in options:
        if option not in known:
            raise ConfigError(
                f"worlds_of_generation: world {world!r}: unknown option {option!r}.{did_you_mean(option, known)}"
            )
    return WORLDS[world](**options)


def _lengths(dims: Sequence[int]) -> tuple[int, ...]:
    lengths = tuple(int(length) for length in dims)
    if len(lengths) != 3 or min(lengths) < 1:
        raise ConfigError(f"dims: expected three lengths of at least 1, for {', '.join(NAMES)}, got {dims!r}.")
    return lengths


def _unit_rows(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    matrix = rng.normal(size=(rows, columns))
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def _rotate(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """In other coordinates, so that no single column gives ``z`` away."""
    d = values.shape[1]
    return values @ ortho_group.rvs(d, random_state=rng) if d > 1 else values


def _world(
    name: str,
    views: tuple[np.ndarray, np.ndarray, np.ndarray],
    z: np.ndarray,
    strength: float,
    rng: np.random.Generator,
    expected: Callable[[list[int]], tuple[np.ndarray, float]],
) -> World:
    """``expected(members)``: the mean of ``z`` given what a subset shows, ``(N,)``, and the variance of that mean."""
    y = (strength * z + rng.normal(size=len(z)) > 0).astype(int)
    data = from_arrays(
        dict(zip(NAMES, views)), y, task="classification", kinds=dict.fromkeys(NAMES, "vector"), name=name
    )
    members = [[m for m in range(3) if code >> m & 1] for code in range(8)]
    seen = np.array([expected(subset)[1] for subset in members])
    bayes = 0.5 + np.arcsin(np.sqrt(seen) * strength / np.sqrt(1 + strength**2)) / np.pi

    def posterior(names: Sequence[str]) -> np.ndarray:
        mean, variance = expected(members[data.lattice.index(names)])
        one = norm.cdf(strength * mean / np.sqrt(1 + strength**2 * (1 - variance)))
        return np.stack([1 - one, one], axis=1)

    with_card(
        data, f"Synthetic world: {name}", "drawn by lacunar.datasets.worlds_of_generation", "Apache-2.0, as lacunar"
    )
    return World(data, torch.from_numpy(bayes), posterior)
