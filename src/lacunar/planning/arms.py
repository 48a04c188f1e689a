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
from lacunar.planning.nested import NestedSubsets, floor

__all__ = ["ARMS", "Arm", "Purchase", "get_arm", "purchase", "random_key", "training_rows"]


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
    given = {"arm": asked} if isinstance(asked, str) else dict(asked)
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
class Purchase:
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


def purchase(
    arm: Arm,
    pool: NestedSubsets,
    names: Sequence[str],
    rho: float,
    beta: float,
    key: Sequence[str] = (),
    *,
    primary: str | None = None,
    seed: int = 0,
) -> Purchase:
    """What an arm buys from a pool of N samples with ``beta * N`` cells; fractions are cut off, never rounded up.

    ========  ==========================  =====================
    arm       new samples                 cells
    ========  ==========================  =====================
    even      ``beta N / M``              all M of each
    sk-ll     ``beta N / |S|``            those in S
    upper     ``beta N``                  all M: M budgets
    ========  ==========================  =====================

    With a ``ratio`` r, ``r B`` new samples have the primary modality, the first ``(1 - r) B / (|S| - 1)`` of them
    everything in the key; so a larger r buys more labels.

    Args:
        arm: what to buy.
        pool: the order in which samples are there; the first ``rho * N`` are owned.
        names: modalities in lattice order.
        rho: share of the pool that is owned.
        beta: budget in cells, as a share of N.
        key: the modalities chosen for SK-LL.
        primary: the strongest of them, for a weighted split; the first when left out.
        seed: draws the random subset.

    Raises:
        ConfigError: a purchase that the pool cannot serve, a negative budget, or an arm without its key.
    """
    if beta < 0:
        raise ConfigError(f"beta: expected a share of at least 0, got {beta}.")
    size = len(pool)
    budget = floor(beta * size)
    if arm.buys == "nothing":
        return Purchase(np.empty(0, dtype=np.int64), np.zeros((0, len(names)), dtype=bool), (), 0)
    chosen = tuple(arm.subset or key)
    for name in chosen:
        if name not in names:
            raise ConfigError(f"Arm {arm.name!r}: unknown modality {name!r}.{did_you_mean(name, names)}")
    if not chosen and (arm.buys in ("key", "random") or arm.samples == "key"):
        raise ConfigError(f"Arm {arm.name!r} needs a key: the modalities that were selected.")
    if arm.buys == "random":
        chosen = random_key(names, len(chosen), seed)
    subset = tuple(names) if arm.buys == "all" else tuple(name for name in names if name in chosen)
    count = {"even": budget // len(names), "key": budget // max(len(chosen), 1), "budget": budget}[arm.samples]
    whole = count
    if arm.ratio is not None and arm.buys != "all" and len(subset) > 1:
        count = floor(arm.ratio * budget)
        whole = floor((1 - arm.ratio) * budget / (len(subset) - 1))
        if whole > count:
            raise ConfigError(f"Arm {arm.name!r}: the primary modality gets {arm.ratio:.0%}, less than an even share.")
    rows = pool.rows(count, len(pool.share(rho)))
    present = np.zeros((len(rows), len(names)), dtype=bool)
    present[:whole, [names.index(name) for name in subset]] = True
    if whole < count:
        present[whole:, names.index(primary if primary in subset else subset[0])] = True
    return Purchase(rows, present, subset, budget)


def random_key(names: Sequence[str], size: int, seed: int) -> tuple[str, ...]:
    """A subset of a given size, drawn evenly, in lattice order."""
    drawn = np.random.default_rng([seed, 17]).choice(len(names), size=size, replace=False)
    return tuple(names[m] for m in sorted(drawn.tolist()))


def training_rows(data: MultimodalDataset, owned: np.ndarray, bought: Purchase) -> MultimodalDataset:
    """What there is and what was bought, as one data set; what was not bought is gone from it."""
    rows = np.concatenate([owned, bought.rows])
    present = np.concatenate([data.present.numpy()[owned], bought.present & data.present.numpy()[bought.rows]])
    return data.select(rows).hide(present)
