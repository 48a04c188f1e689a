"""The arms of the paper's comparison, and the controls that it lacks: what each buys, completes and trains.

All arms of a seed start from the same samples and buy the next ones of the same order, so that what an arm buys is
part of what a larger purchase buys (section 4.1 and Table 2 of SK-LL; controls C0 to C5 take its gain apart).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError, did_you_mean
from lacunar.planning.allocation import Allocation, allocate, portion
from lacunar.planning.nested import NestedSubsets

__all__ = ["ARMS", "Arm", "Bought", "buy", "get_arm", "owned_and_bought", "random_key"]


@dataclass(frozen=True)
class Arm:
    """One row of the comparison.

    Attributes:
        name: how recipes call it.
        title: what it is, in words.
        buys: which modalities new samples come with: ``"nothing"``, ``"all"``, ``"key"`` or ``"random"`` (as many as
            the key, drawn by seed).
        samples: how many new samples: ``"even"`` (``B / M``), ``"key"`` (``B / |S|``) or ``"budget"`` (``B``).
        completion: what stands in for the modalities that were not bought: ``"none"``, ``"generator"``, or the name of
            a completer.
        dropout: modality dropout in training.
        stages: 1, or 2 with a fresh optimiser in the second.
        subset: the modalities to buy instead of the key; None takes the key.
        ratio: share of the budget that goes to the strongest modality of the key (Table 4); None splits evenly.
    """

    name: str
    title: str
    buys: Literal["nothing", "all", "key", "random"]
    samples: Literal["nothing", "even", "key", "budget"]
    completion: str = "none"
    dropout: bool = False
    stages: int = 1
    subset: tuple[str, ...] | None = None
    ratio: float | None = None


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("lower", "what there is", "nothing", "nothing"),
        Arm("even", "budget spread evenly over all modalities", "all", "even"),
        Arm("sk-ll", "budget on the key, the rest generated", "key", "key", "generator", stages=2),
        Arm("upper", "a budget for each modality", "all", "budget"),
        Arm("c0", "generator and both stages, nothing bought", "nothing", "nothing", "generator", stages=2),
        Arm("c1", "a random subset, the rest generated", "random", "key", "generator", stages=2),
        Arm("c2-zero", "key, the rest zero", "key", "key", "zero", stages=2),
        Arm("c2-mean", "key, the rest the mean", "key", "key", "mean", stages=2),
        Arm("c3", "key, modality dropout, nothing filled", "key", "key", dropout=True, stages=2),
        Arm("c4", "all modalities for as many labels as the key, both stages", "all", "key", stages=2),
        Arm("c5", "budget spread evenly, generator and both stages", "all", "even", "generator", stages=2),
    )
}


def get_arm(asked: str | Mapping[str, Any]) -> Arm:
    """An arm by name, or a mapping with ``arm`` and the fields that differ, such as ``completion`` or ``ratio``.

    Raises:
        ConfigError: an unknown arm or field, or a ratio outside [0, 1].
    """
    given: dict[str, Any] = {"arm": asked} if isinstance(asked, str) else dict(asked)
    name = given.pop("arm", None)
    if name not in ARMS:
        raise ConfigError(f"Unknown arm {name!r}.{did_you_mean(str(name), ARMS)}")
    fields = ("name", "completion", "dropout", "stages", "subset", "ratio")
    for key in given:
        if key not in fields:
            raise ConfigError(f"Arm {name!r}: unknown field {key!r}.{did_you_mean(key, fields)}")
    if given.get("subset") is not None:
        given["subset"] = tuple(given["subset"])
    arm = replace(ARMS[name], **given)
    if arm.ratio is not None and not 0 <= arm.ratio <= 1:
        raise ConfigError(f"Arm {arm.name!r}: expected a ratio in [0, 1], got {arm.ratio}.")
    return arm


@dataclass(frozen=True)
class Bought:
    """What an arm buys.

    Attributes:
        rows: positions of the new samples in the pool, int64, shape ``(n,)``.
        present: which modalities come with each, boolean, shape ``(n, M)``.
        subset: the modalities that were chosen; empty when nothing is bought.
        budget: the cells B that the comparison is about; ``upper`` and ``c4`` buy more, on purpose.
    """

    rows: np.ndarray
    present: np.ndarray
    subset: tuple[str, ...]
    budget: int

    @property
    def labels(self) -> int:
        """New labelled samples."""
        return len(self.rows)

    @property
    def cells(self) -> int:
        """New cells: one modality of one sample each."""
        return int(self.present.sum())

    def cost(self, names: Sequence[str], per_cell: Mapping[str, float] | None = None, label: float = 0.0) -> float:
        """Price of the cells, 1 each when none is given, and of the labels."""
        prices = np.array([1.0 if per_cell is None else per_cell.get(name, 1.0) for name in names])
        return float((self.present * prices).sum() + label * self.labels)


def buy(
    arm: Arm,
    pool: NestedSubsets,
    names: Sequence[str],
    rho: float,
    beta: float,
    key: Sequence[str] = (),
    *,
    strength: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Bought:
    """What an arm buys from a pool of N samples with ``beta * N`` cells, see :func:`allocate`.

    Counts are rounded down, and what is left over is not spent, so that every arm stays within its budget.

    Args:
        arm: what to buy.
        pool: the order in which samples are there; the first ``rho * N`` are owned.
        names: modalities in lattice order.
        rho: share of the pool that is owned.
        beta: budget in cells, as a share of N.
        key: the modalities chosen for SK-LL.
        strength: how much each modality is worth, for a weighted split.
        seed: draws the random subset.

    Raises:
        ConfigError: an unknown modality, an arm without its key, or more samples than the pool has left.
    """
    budget = portion(len(pool), beta)
    chosen = tuple(arm.subset or key)
    if arm.buys == "random":
        chosen = random_key(names, len(chosen), seed)
    if arm.buys == "nothing":
        bought, chosen, budget = Allocation(tuple(names)), (), 0
    elif arm.samples == "budget":
        bought, chosen = allocate("upper", names, budget), tuple(names)
    elif arm.buys == "all":
        match = "cells" if arm.samples == "even" else "labels"
        bought, chosen = allocate("even", names, budget, chosen, match=match), tuple(names)
    else:
        ratio = arm.ratio if len(chosen) > 1 else None
        bought = allocate("sk-ll", names, budget, chosen, share=ratio, strength=strength if ratio is not None else None)
    rows = pool.rows(bought.samples, len(pool.share(rho)))
    kinds = [[name in subset for name in names] for subset, count in bought.blocks for _ in range(count)]
    present = np.array(kinds, dtype=bool).reshape(bought.samples, len(names))[: len(rows)]
    return Bought(rows, present, tuple(name for name in names if name in chosen), budget)


def random_key(names: Sequence[str], size: int, seed: int) -> tuple[str, ...]:
    """A subset of a given size, drawn evenly, in lattice order."""
    drawn = np.random.default_rng([seed, 17]).choice(len(names), size=size, replace=False)
    return tuple(names[m] for m in sorted(drawn.tolist()))


def owned_and_bought(data: MultimodalDataset, owned: np.ndarray, bought: Bought) -> MultimodalDataset:
    """What there is and what was bought, as one data set; what was not bought is gone from it."""
    rows = np.concatenate([owned, bought.rows])
    has = data.present.numpy()
    return data.select(rows).hide(np.concatenate([has[owned], bought.present & has[bought.rows]]))
