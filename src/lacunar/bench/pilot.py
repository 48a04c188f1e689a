"""How small a pilot may be: how often an indicator picks from few samples what it picks from all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lacunar.data.dataset import MultimodalDataset
from lacunar.planning.linear import linear_utilities
from lacunar.planning.nested import NestedSubsets
from lacunar.planning.protocol import choose_key, predicted_gains

__all__ = ["pilot_rows"]


def pilot_rows(
    data: MultimodalDataset, sizes: Sequence[int], draws: int = 10, seed: int = 0, size: int | None = None
) -> list[dict[str, Any]]:
    """One row per pilot and indicator.

    Args:
        data: all complete samples, which the reference is made from.
        sizes: numbers of samples in a pilot; those above two thirds of the data are left out, as they would be
            nearly the reference.
        draws: pilots of each number.
        seed: of the pilots.
        size: number of modalities to choose.

    Returns:
        ``n``, ``draw``, ``indicator``, ``subset`` that it chose, ``own`` (whether that is its choice from all data),
        ``best`` (whether it is the subset of its size with the largest utility there), ``regret`` in log-likelihood.
    """
    reference = linear_utilities(data, ("log_loss", "accuracy"), seeds=2)
    said = predicted_gains(reference)
    indicators = [name for name in said]
    chosen = {name: choose_key(reference, said, name, size) for name in indicators}
    likelihood, best = reference["log_loss"], chosen["utility"]
    rows = []
    for n in sizes:
        if n > len(data) * 2 / 3:
            continue
        for draw in range(draws):
            pilot = data.select(NestedSubsets(data, 1000 * (seed + 1) + draw).rows(n))
            tables = linear_utilities(pilot, ("log_loss", "accuracy"))
            found = predicted_gains(tables)
            for name in indicators:
                picked = choose_key(tables, found, name, size)
                regret = likelihood.value(best) - likelihood.value(picked)
                rows.append(
                    {
                        "n": n, "draw": draw, "indicator": name, "subset": "+".join(picked),
                        "own": picked == chosen[name], "best": picked == best, "regret": float(np.round(regret, 6)),
                    }
                )  # fmt: skip
    return rows
