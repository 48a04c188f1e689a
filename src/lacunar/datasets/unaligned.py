"""Synthetic sequences of several sensors that are neither equally long nor in step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from lacunar.data.arrays import from_arrays
from lacunar.data.dataset import MultimodalDataset
from lacunar.datasets._card import with_card
from lacunar.errors import ConfigError, did_you_mean

__all__ = ["unaligned"]


def unaligned(
    M: int = 3,
    n: int = 256,
    seed: int = 0,
    steps: Sequence[int] | int = (8, 20, 14),
    dims: Sequence[int] | int = (6, 3, 4),
    classes: int = 3,
    strength: float | Sequence[float] = 3.0,
    missing: float | Sequence[float] = 0.0,
    target: Literal["class", "sentiment"] = "class",
) -> MultimodalDataset:
    """Noise with one short event a modality, at a place of its own; what happens there tells the target.

    An event of two or three steps begins anywhere in the sequence, in each modality at another time, and moves every
    step of it along one direction: the class's (orthogonal to the other classes' where a step has room for it), or for
    sentiments one direction times the sentiment. All other steps are unit noise. So a model has to find the event, its
    place means nothing, and modalities help each other by averaging: with the places known, k modalities of one
    strength are worth one of ``sqrt(k)`` times it.

    Args:
        M: number of modalities, ``m0``, ``m1``, ...
        n: number of samples.
        seed: fixes everything that is drawn.
        steps: mean number of steps of each modality, repeated as often as needed; lengths lie within half of it on
            either side.
        dims: numbers in a step, repeated as often as needed.
        classes: number of classes, equally frequent.
        strength: length of the event's shift for each modality, or one for all, in standard deviations of the noise;
            for sentiments at 3.
        missing: missing rate of each modality, or one for all; every sample keeps at least one.
        target: ``"class"``, or ``"sentiment"`` for numbers in [-3, 3] with one decimal.
    """
    if target not in ("class", "sentiment"):
        raise ConfigError(f"unaligned: unknown target={target!r}.{did_you_mean(target, ('class', 'sentiment'))}")
    if M < 1 or n < 1:
        raise ConfigError(f"unaligned: expected at least one modality and one sample, got M={M}, n={n}.")
    means, widths = _repeated(steps, M), _repeated(dims, M)
    if min(means) < 2:
        raise ConfigError(f"unaligned: events need sequences of 2 steps or more on average, got steps={steps}.")
    strengths = np.broadcast_to(np.asarray(strength, float), (M,))
    rng = np.random.default_rng(seed)
    if target == "class":
        y = rng.permutation(np.arange(n) % classes)
    else:
        y = rng.uniform(-3, 3, size=n).round(1)
    present = rng.random((n, M)) >= np.broadcast_to(np.asarray(missing, float), (M,))
    empty = np.flatnonzero(~present.any(axis=1))
    present[empty, rng.integers(M, size=len(empty))] = True
    modalities: dict[str, list[np.ndarray | None]] = {}
    for m, (mean, width) in enumerate(zip(means, widths)):
        directions = strengths[m] * _directions(classes if target == "class" else 1, width, rng)
        rows: list[np.ndarray | None] = []
        for label in y:
            length = int(rng.integers(max(2, mean - mean // 2), mean + mean // 2 + 1))
            values = rng.normal(size=(length, width))
            span = min(length, int(rng.integers(2, 4)))
            start = int(rng.integers(length - span + 1))
            values[start : start + span] += directions[label] if target == "class" else directions[0] * label / 3
            rows.append(values.astype(np.float32))
        modalities[f"m{m}"] = [row if has else None for row, has in zip(rows, present[:, m])]
    task = "classification" if target == "class" else "regression"
    data = from_arrays(modalities, y, task=task, kinds=dict.fromkeys(modalities, "sequence"), name="unaligned")
    with_card(
        data,
        "Synthetic unaligned sequences",
        "drawn by lacunar.datasets.unaligned",
        "Apache-2.0, as lacunar",
    )
    return data


def _directions(count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors ``(count, width)``, orthogonal as far as there is room."""
    drawn = rng.normal(size=(max(count, width), width))
    for start in range(0, len(drawn), width):
        drawn[start : start + width] = np.linalg.qr(drawn[start : start + width].T)[0].T
    return drawn[:count]


def _repeated(sizes: Sequence[int] | int, M: int) -> list[int]:
    return [sizes] * M if isinstance(sizes, int) else [sizes[m % len(sizes)] for m in range(M)]
