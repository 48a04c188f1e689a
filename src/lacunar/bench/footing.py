"""What each method of a comparison was, and which of them did not stand on the same footing as the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

__all__ = ["apart", "described"]

#: What is shared in a fair comparison: the network and how long and by what it is trained.
_SHARED = ("model", "fit")


def described(results: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per method: ``objective`` (or peer), ``arguments``, ``model`` and ``fit``, in words.

    A value that differs between problems or seeds, as tuned ones do, is given as *varies*.

    Args:
        results: finished cells.
    """
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        runs.setdefault(result["cell"]["method"], []).append(result["cell"].get("run", {}))
    rows = {}
    for method, known in runs.items():
        names = dict.fromkeys(
            f"scikit-learn: {run['peer']}" if "peer" in run else str(run.get("objective", "default")) for run in known
        )
        parts = {part: _said([run.get(part) or {} for run in known]) for part in ("arguments", *_SHARED)}
        rows[method] = {"objective": ", ".join(names), **parts}
    return pd.DataFrame.from_dict(rows, orient="index")


def _said(given: Sequence[Mapping[str, Any]]) -> str:
    said = []
    for name in dict.fromkeys(name for one in given for name in one):
        values = {json.dumps(one.get(name)) for one in given}
        said.append(f"{name} {values.pop() if len(values) == 1 else 'varies'}")
    return ", ".join(said)


def apart(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Methods whose network or training options are not those of most methods on the same problem; peers have none.

    Args:
        results: finished cells.
    """
    plans = []
    for cell in (result["cell"] for result in results):
        run = cell.get("run") or {"peer": ""}  # an earlier version kept none
        if "peer" not in run:
            plan = json.dumps([run.get(part) or {} for part in _SHARED], sort_keys=True)
            plans.append((cell["problem"], cell["method"], plan))
    frame = pd.DataFrame(plans, columns=["problem", "method", "plan"])
    usual = frame.groupby("problem")["plan"].agg(lambda plans: plans.mode().iloc[0])
    return list(dict.fromkeys(frame["method"][frame["plan"] != frame["problem"].map(usual)]))
