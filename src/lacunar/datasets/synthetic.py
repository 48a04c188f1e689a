"""Synthetic worlds whose best possible accuracy is known for every subset of modalities, and test generators.

Every modality is a vector seen through a random rotation, ``x_m = R_m (signal + noise)``, so that nothing can be read
off a single coordinate. The rotations lose nothing: the Bayes accuracy is that of the unrotated signal.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.integrate import quad
from scipy.special import softmax
from scipy.stats import norm, ortho_group
from torch import Tensor

from lacunar.data.arrays import from_arrays
from lacunar.data.dataset import MultimodalDataset
from lacunar.datasets._card import with_card
from lacunar.errors import ConfigError, did_you_mean

__all__ = ["World", "additive", "duplicate", "iemocap_like", "one_useful", "synthetic", "vectors", "xor"]


@dataclass(frozen=True)
class World:
    """A data set and what is true about it.

    Attributes:
        data: the samples.
        bayes: accuracy of the best possible classifier on each subset, float64, shape ``(2^M,)`` in lattice order;
            ``bayes[0]`` is that of guessing.
        posterior: from the names of a subset to the true class probabilities of every sample given what the subset
            shows, shape ``(N, classes)``.
    """

    data: MultimodalDataset
    bayes: Tensor
    posterior: Callable[[Sequence[str]], np.ndarray]

    def __str__(self) -> str:
        lattice = self.data.lattice
        rows = [f"  {lattice.label(code)}: {float(self.bayes[code]):.4f}" for code in [0, *lattice.subsets]]
        return "\n".join([str(self.data), "", "Bayes accuracy", *rows])


def best_accuracy(strength: float, classes: int) -> float:
    """Accuracy of the best decision between equally likely classes, each shifting one of ``classes`` coordinates.

    The observation is ``strength * e_y + N(0, I)``; the largest coordinate wins with probability
    ``integral of pdf(z - strength) * cdf(z)^(classes - 1)``, integrated to about 1e-10.
    """
    if strength <= 0:
        return 1 / classes
    value, _ = quad(
        lambda z: norm.pdf(z - strength) * norm.cdf(z) ** (classes - 1),
        strength - 12,
        strength + 12,
        epsabs=1e-11,
        epsrel=1e-11,
        limit=200,
    )
    return min(value, 1.0)


def additive(
    M: int = 3,
    n: int = 2000,
    seed: int = 0,
    strength: float | Sequence[float] | None = None,
    classes: int = 4,
    dim: int = 8,
    redundancy: float = 0.0,
) -> World:
    """Modalities that add up: ``x_m = R_m (a_m e_y + noise_m)``.

    With independent noise a subset S is worth one modality of strength ``sqrt(sum of a_m^2)``. With ``redundancy`` r
    the noises of two modalities correlate by r, and the strength is ``sqrt(a' C^-1 a)`` with C the correlations in S.

    Args:
        M: number of modalities.
        n: number of samples.
        seed: fixes everything that is drawn.
        strength: ``a_m`` of each modality, or one for all; 2.5, 1.9, ... falling to 0.7 when left out.
        classes: number of classes, equally likely.
        dim: length of each vector, at least ``classes``.
        redundancy: correlation r in [0, 1) of the noise across modalities.
    """
    a = np.linspace(2.5, 0.7, M) if strength is None else np.broadcast_to(np.asarray(strength, float), (M,))
    if not 0 <= redundancy < 1:
        raise ConfigError(f"redundancy: expected a correlation in [0, 1), got {redundancy!r}.")
    if dim < classes:
        raise ConfigError(f"dim: expected at least the number of classes, {classes}, got {dim}.")
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    shared = rng.normal(size=(n, dim)) * np.sqrt(redundancy)
    noise = shared + rng.normal(size=(M, n, dim)) * np.sqrt(1 - redundancy)
    views = noise + a[:, None, None] * np.eye(dim)[y]

    def weights(members: list[int]) -> np.ndarray:
        correlations = (1 - redundancy) * np.eye(len(members)) + redundancy
        return np.linalg.solve(correlations, a[members])

    def accuracy(members: list[int]) -> float:
        return best_accuracy(float(np.sqrt(a[members] @ weights(members))), classes) if members else 1 / classes

    def scores(members: list[int]) -> np.ndarray:
        if not members:
            return np.zeros((n, classes))
        return np.tensordot(weights(members), views[members, :, :classes], 1)

    return _world("additive", views, y, rng, accuracy, lambda members: softmax(scores(members), axis=1))


def duplicate(M: int = 3, n: int = 2000, seed: int = 0, strength: float = 2.0, classes: int = 4, dim: int = 8) -> World:
    """Every modality is the same observation in other coordinates: one is worth as much as all.

    Args: as in :func:`additive`, with one ``strength``.
    """
    if dim < classes:
        raise ConfigError(f"dim: expected at least the number of classes, {classes}, got {dim}.")
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    view = rng.normal(size=(n, dim)) + strength * np.eye(dim)[y]
    guess = np.full((n, classes), 1 / classes)
    known = softmax(strength * view[:, :classes], axis=1)
    accuracy = best_accuracy(strength, classes)
    return _world(
        "duplicate",
        np.stack([view] * M),
        y,
        rng,
        lambda members: accuracy if members else 1 / classes,
        lambda members: known if members else guess,
    )


def xor(M: int = 2, n: int = 2000, seed: int = 0, noise: float = 0.0, dim: int = 4) -> World:
    """The label is whether the signs of the first two modalities differ: alone useless, together perfect.

    Every modality holds a random sign, +1 or -1, in Gaussian noise; those beyond the second have nothing to do with
    the label. A sign is read wrongly with probability ``e = cdf(-1 / noise)``, so that both together reach
    ``(1 - e)^2 + e^2``.

    Args:
        M: number of modalities, at least 2.
        n: number of samples.
        seed: fixes everything that is drawn.
        noise: standard deviation of the noise on the sign; the other coordinates have unit noise.
        dim: length of each vector.
    """
    if M < 2:
        raise ConfigError(f"xor: expected at least 2 modalities, got {M}.")
    rng = np.random.default_rng(seed)
    bits = rng.integers(2, size=(M, n))
    y = bits[0] ^ bits[1]
    views = rng.normal(size=(M, n, dim))
    views[:, :, 0] = 2 * bits - 1 + noise * views[:, :, 0]
    wrong = float(norm.cdf(-1 / noise)) if noise > 0 else 0.0

    def posterior(members: list[int]) -> np.ndarray:
        one = np.full(n, 0.5)
        if {0, 1} <= set(members):
            # 1 - 2 P(bit) = -tanh(x / noise^2), and the product of two such terms is 1 - 2 P(bits differ).
            spread = [np.tanh(views[m, :, 0] / noise**2) if noise > 0 else 2.0 * bits[m] - 1 for m in (0, 1)]
            one = (1 - spread[0] * spread[1]) / 2
        return np.stack([1 - one, one], axis=1)

    return _world(
        "xor",
        views,
        y,
        rng,
        lambda members: (1 - wrong) ** 2 + wrong**2 if {0, 1} <= set(members) else 0.5,
        posterior,
    )


def one_useful(
    M: int = 3, n: int = 2000, seed: int = 0, useful: int = 0, strength: float = 8.0, classes: int = 4, dim: int = 8
) -> World:
    """One modality knows, the others are noise: the dictator game, whose Shapley values are 0 for all but one.

    Args: as in :func:`additive`; ``useful`` is the position of the modality that has all the ``strength``.
    """
    if not 0 <= useful < M:
        raise ConfigError(f"useful: expected a position from 0 to {M - 1}, got {useful}.")
    world = additive(M, n, seed, [strength if m == useful else 0.0 for m in range(M)], classes, dim)
    world.data.name = "one_useful"
    return world


def vectors(
    M: int = 3,
    n: int = 256,
    seed: int = 0,
    classes: int = 3,
    dims: Sequence[int] | int = (5, 7, 4, 6),
    missing: float | Sequence[float] = 0.3,
    strength: float = 3.0,
) -> MultimodalDataset:
    """A small incomplete data set of vectors of different lengths for tests.

    Args:
        M: number of modalities, ``m0``, ``m1``, ...
        n: number of samples; each keeps at least one modality.
        seed: fixes everything that is drawn.
        classes: number of classes.
        dims: length of each modality's vectors, repeated as often as needed.
        missing: missing rate of each modality, or one for all.
        strength: distance of the class centres from their mean, in standard deviations of the noise.
    """
    rng = np.random.default_rng(seed)
    lengths = [dims] * M if isinstance(dims, int) else [dims[m % len(dims)] for m in range(M)]
    rates = np.broadcast_to(np.asarray(missing, float), (M,))
    y = np.arange(n) % classes
    present = rng.random((n, M)) >= rates
    empty = np.flatnonzero(~present.any(axis=1))
    present[empty, rng.integers(M, size=len(empty))] = True
    modalities = {}
    for m, length in enumerate(lengths):
        centres = rng.normal(size=(classes, length))
        centres *= strength / np.linalg.norm(centres, axis=1, keepdims=True)
        values = centres[y] + rng.normal(size=(n, length))
        values[~present[:, m]] = np.nan
        modalities[f"m{m}"] = values
    return from_arrays(modalities, y, task="classification", kinds=dict.fromkeys(modalities, "vector"), name="vectors")


def iemocap_like(
    n: int = 512,
    seed: int = 0,
    informativeness: Sequence[float] = (1.0, 1.5, 0.7),
    steps: Sequence[int] = (60, 22, 50),
    dims: Sequence[int] = (130, 1024, 342),
    classes: int = 4,
    ragged: bool = True,
) -> MultimodalDataset:
    """Sequences of the shapes of IEMOCAP's usual features, for benchmarks and tests; the content is synthetic.

    ``A`` has some 60 frames of 130 numbers, ``L`` some 22 tokens of 1,024, ``V`` some 50 frames of 342. The class
    shifts every step along a random direction, so that the whole sequence holds ``informativeness`` standard
    deviations whatever its length.

    Args:
        n: number of samples.
        seed: fixes everything that is drawn.
        informativeness: how much A, L and V know; 0 is pure noise.
        steps: mean number of steps of A, L and V; lengths lie within half of it on either side.
        dims: numbers in a step.
        classes: number of classes, as equal as they can be.
        ragged: False gives every sample the mean length.
    """
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % classes)
    modalities: dict[str, Any] = {}
    for name, knows, mean, dim in zip("ALV", informativeness, steps, dims):
        lengths = rng.integers(max(1, mean // 2), mean + mean // 2 + 1, size=n) if ragged else np.full(n, mean)
        centres = rng.normal(size=(classes, dim))
        centres *= 1 / np.linalg.norm(centres, axis=1, keepdims=True)
        modalities[name] = [
            (rng.standard_normal((length, dim), dtype=np.float32) + knows / np.sqrt(length) * centres[label]).astype(
                np.float32
            )
            for label, length in zip(y, lengths)
        ]
    return from_arrays(
        modalities, y, task="classification", kinds=dict.fromkeys(modalities, "sequence"), name="iemocap_like"
    )


WORLDS: dict[str, Callable[..., World | MultimodalDataset]] = {
    "additive": additive,
    "duplicate": duplicate,
    "iemocap_like": iemocap_like,
    "one_useful": one_useful,
    "vectors": vectors,
    "xor": xor,
}


def synthetic(world: str = "additive", **options: Any) -> World | MultimodalDataset:
    """A synthetic world by name, as :func:`lacunar.datasets.load` calls it.

    Args:
        world: ``"additive"``, ``"duplicate"``, ``"xor"`` or ``"one_useful"`` give a :class:`World`; ``"vectors"`` and
            ``"iemocap_like"`` give a data set.
        **options: of the function of that name.
    """
    if world not in WORLDS:
        raise ConfigError(f"synthetic: unknown world {world!r}.{did_you_mean(world, WORLDS)}")
    known = inspect.signature(WORLDS[world]).parameters
    for option in options:
        if option not in known:
            raise ConfigError(f"synthetic: world {world!r}: unknown option {option!r}.{did_you_mean(option, known)}")
    return WORLDS[world](**options)


def _world(
    name: str,
    views: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator,
    accuracy: Callable[[list[int]], float],
    posterior: Callable[[list[int]], np.ndarray],
) -> World:
    """Rotate the views (M, N, D) and put the data and what is true of them together."""
    M, _, dim = views.shape
    rotations = [ortho_group.rvs(dim, random_state=rng) if dim > 1 else np.eye(1) for _ in range(M)]
    data = from_arrays(
        {f"m{m}": views[m] @ rotations[m] for m in range(M)},
        y,
        task="classification",
        kinds={f"m{m}": "vector" for m in range(M)},
        name=name,
    )
    members = [[m for m in range(M) if code >> m & 1] for code in range(2**M)]
    bayes = torch.tensor([accuracy(subset) for subset in members], dtype=torch.float64)
    with_card(data, f"Synthetic world: {name}", "drawn by lacunar.datasets.synthetic", "Apache-2.0, as lacunar")
    return World(data, bayes, lambda names: posterior(members[data.lattice.index(names)]))
