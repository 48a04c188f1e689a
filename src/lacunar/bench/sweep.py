"""Runs of one objective that differ in nothing but numbers: how much does the choice of each matter?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from lacunar.report.bench_sweep import Sweep

__all__ = ["find_sweep"]


def find_sweep(results: Iterable[Mapping[str, Any]], against: str) -> Sweep | None:
    """The methods that set other numbers for the same arguments as ``against``, and what that changes.

    Args:
        results: of the cells.
        against: the method whose numbers are the middle.

    Returns:
        None where fewer than two methods do so, or none of them in one argument alone. Differences are paired: of the
        same problem and seed.
    """
    done = [result for result in results if "refused" not in result]
    runs = {result["cell"]["method"]: result["cell"].get("run", {}) for result in done}
    middle = _numbers(runs.get(against, {}))
    if not middle:
        return None
    alike = {name: _numbers(run) for name, run in runs.items() if _rest(run) == _rest(runs[against])}
    values = pd.DataFrame.from_dict(
        {name: numbers for name, numbers in alike.items() if set(numbers) == set(middle)}, orient="index", dtype=float
    )[list(middle)]
    if len(values) < 3:
        return None
    rows = [
        {"problem": result["cell"]["problem"], "seed": result["cell"]["seed"], "method": name, "mean": result["mean"]}
        for result in done
        if (name := result["cell"]["method"]) in values.index
    ]
    scores = pd.DataFrame(rows)
    middle_scores = scores[scores["method"] == against].set_index(["problem", "seed"])["mean"]
    paired = scores.join(middle_scores.rename("against"), on=["problem", "seed"], how="inner")
    differences = paired.assign(difference=paired["mean"] - paired["against"]).drop(columns=["mean", "against"])
    found = Sweep(str(runs[against]["objective"]), against, values, differences)
    return found if found.arguments else None


def _numbers(run: Mapping[str, Any]) -> dict[str, float]:
    """The arguments of a run's objective if all are numbers, else none."""
    arguments = run.get("arguments", {})
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in arguments.values())
    return dict(arguments) if numeric else {}


def _rest(run: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key != "arguments"}
