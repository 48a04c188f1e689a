"""Results of cells as tables: means over seeds with intervals, and paired differences to one method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd

from lacunar.bench.cells import without_setting
from lacunar.bench.store import Store
from lacunar.errors import DataError
from lacunar.evaluation.statistics import seed_interval

__all__ = [
    "check_paired",
    "collect",
    "comparison",
    "data_name",
    "markdown",
    "modality_scores",
    "refusals",
    "subset_scores",
]

#: Columns of the subset table whose mean over all subsets is collected too.
AVERAGED = ("balanced_accuracy", "log_loss", "ece")
#: What a cell took beside its seconds; cells of earlier versions lack some.
COSTS = ("fit_seconds", "fit_processor", "processor", "reference_seconds", "step_mb", "resident_mb")
#: Measures of :func:`collect` that are better where they are smaller.
LESS_IS_BETTER = frozenset({"log_loss", "ece", "seconds", *COSTS})


def collect(folder: str | Path | Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per finished cell and variant: problem, method, seed and measures.

    ``mean`` and ``worst`` are over all subsets; so are the means of the metrics in :data:`AVERAGED`. Cells whose
    method refused the data are left out; :func:`refusals` lists them.

    Args:
        folder: of the results, or the results themselves, as :class:`lacunar.bench.store.Store` reads them.

    Raises:
        DataError: when the folder holds no finished cell.
    """
    rows = []
    for result in _results(folder):
        cell = result["cell"]
        if "refused" in result:
            continue
        for method, table in {cell["method"]: result, **result.get("variants", {})}.items():
            subsets = [row for label, row in table["subsets"].items() if label != "none"]
            rows.append(
                {
                    "problem": cell["problem"],
                    "method": method,
                    "seed": cell["seed"],
                    **{name: table[name] for name in ("mean", "worst", "full")},
                    **{name: pd.Series([row.get(name) for row in subsets], dtype=float).mean() for name in AVERAGED},
                    "seconds": result["seconds"],
                    "presence": result["presence"],
                    "split": result.get("split"),  # cells of earlier versions lack it
                    "machine": result.get("machine", ""),  # likewise
                    "data": data_name(cell),
                    "setting": cell.get("setting", ""),
                    "variant_of": "" if method == cell["method"] else cell["method"],
                    **{name: result.get(name) for name in COSTS},
                }
            )
    if not rows:
        where = f"{folder}: " if isinstance(folder, (str, Path)) else ""
        raise DataError(f"{where}no finished cells to collect; run the recipe first.")
    frame = pd.DataFrame(rows)
    return frame.drop(columns=[name for name in COSTS if frame[name].isna().all()])


def subset_scores(folder: str | Path | Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per finished cell, variant and subset: problem, method, seed, subset, size and score."""
    rows = []
    for result in _results(folder):
        cell = result["cell"]
        if "refused" in result:
            continue
        for method, table in {cell["method"]: result, **result.get("variants", {})}.items():
            for label, row in table["subsets"].items():
                rows.append((cell["problem"], method, cell["seed"], label, row["size"], row["score"]))
    frame = pd.DataFrame(rows, columns=["problem", "method", "seed", "subset", "size", "score"])
    return frame.astype({"score": float})


def modality_scores(subsets: pd.DataFrame) -> pd.DataFrame:
    """One row per problem, method, seed and modality: mean score over the subsets that contain it.

    Args:
        subsets: from :func:`subset_scores`.
    """
    some = subsets[subsets["subset"] != "none"]
    each = some.assign(modality=some["subset"].str.split("+", regex=False)).explode("modality")
    keys = ["problem", "modality", "method", "seed"]
    return each.groupby(keys, sort=False)["score"].mean().reset_index()


def refusals(folder: str | Path | Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per problem and method that refused its data: how many cells, and why."""
    rows = [
        (result["cell"]["problem"], result["cell"]["method"], result["refused"])
        for result in _results(folder)
        if "refused" in result
    ]
    frame = pd.DataFrame(rows, columns=["problem", "method", "why"])
    found = frame.groupby(["problem", "method"], sort=False)["why"].agg(["size", "first"]).reset_index()
    return found.rename(columns={"size": "cells", "first": "why"})


def _results(given: str | Path | Sequence[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    return Store(given).results() if isinstance(given, (str, Path)) else given


def data_name(cell: Mapping[str, Any]) -> str:
    """The name of a cell's problem without its setting."""
    return without_setting(cell["problem"], cell.get("setting", ""))


def comparison(
    results: pd.DataFrame, problems: Sequence[str], against: str, measure: str = "mean", confidence: float = 0.95
) -> pd.DataFrame:
    """Methods by problem, with the equal-weight mean over the problems and its paired difference to one method.

    Every entry is a mean over the seeds that all problems have; differences are paired by seed, after averaging over
    problems, with Student's interval.

    Args:
        results: from :func:`collect`.
        problems: the columns.
        against: the method that the others are compared with.
        measure: what is compared.
        confidence: of the intervals.

    Raises:
        DataError: cells that cannot be paired; see :func:`check_paired`.
    """
    chosen = results[results["problem"].isin(problems)]
    check_paired(chosen)
    by_seed = chosen.pivot_table(index=["method", "seed"], columns="problem", values=measure)[list(problems)]
    by_seed = by_seed.dropna()
    rows = {}
    for method in dict.fromkeys(chosen["method"]):
        if method not in by_seed.index.get_level_values(0):
            continue
        own = cast(pd.DataFrame, by_seed.loc[method])
        entry = {problem: float(own[problem].to_numpy().mean()) for problem in problems}
        average = pd.Series(own.to_numpy().mean(axis=1), index=own.index)
        interval = seed_interval(average.to_numpy(), confidence=confidence)
        entry |= {
            "average": float(average.to_numpy().mean()),
            "low": interval.low,
            "high": interval.high,
            "seeds": len(own),
        }
        if against in by_seed.index.get_level_values(0):
            reference = cast(pd.DataFrame, by_seed.loc[against])
            other = pd.Series(reference.to_numpy().mean(axis=1), index=reference.index)
            shared = average.index.intersection(other.index)
            gap = seed_interval(average[shared].to_numpy(), other[shared].to_numpy(), confidence=confidence)
            entry |= {"difference": gap.value, "from": gap.low, "to": gap.high, "p": gap.p_value}
        rows[method] = entry
    return pd.DataFrame.from_dict(rows, orient="index")


def check_paired(results: pd.DataFrame) -> None:
    """Methods are compared on the same samples and missing cells only, each in one configuration.

    Args:
        results: from :func:`collect`.

    Raises:
        DataError: methods of a problem and seed were run on different presence tables or splits, or a method twice.
    """
    # Complete data have one presence table in all splits.
    for column, what in {"presence": "presence tables", "split": "splits"}.items():
        if column not in results:  # kept from an earlier version
            continue
        different = results.groupby(["problem", "seed"])[column].nunique() > 1
        if different.any():
            problem, seed = different[different].index[0]
            raise DataError(f"Problem {problem!r}, seed {seed}: methods were run on different {what}; run them again.")
    twice = results.duplicated(["problem", "seed", "method"])
    if twice.any():
        row = results[twice].iloc[0]
        raise DataError(
            f"Problem {row['problem']!r}, method {row['method']!r}, seed {row['seed']} was run with two configurations "
            "into one folder. Use a folder for each, or remove the cells that no longer count."
        )


def markdown(
    table: pd.DataFrame, against: str, percent: bool = True, best: Callable[[Iterable[float]], float] = max
) -> str:
    """A comparison as a Markdown table; scores in percent, differences in points."""
    scale, shape = (100, ".1f") if percent else (1, ".2f")
    problems = [
        c for c in table.columns if c not in ("average", "low", "high", "seeds", "difference", "from", "to", "p")
    ]
    head = ["method", *problems, "average [95 %]", f"minus {against} [95 %]", "seeds"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    leader = {column: best(table[column]) for column in [*problems, "average"]}
    for method, row in table.iterrows():

        def shown(column: str, row: pd.Series = row) -> str:
            text = f"{scale * row[column]:{shape}}"
            return f"**{text}**" if abs(row[column] - leader[column]) < 1e-12 else text

        average, gap = shown("average"), ""
        if pd.notna(row["low"]):  # one seed has no interval
            average += f" [{scale * row['low']:{shape}}, {scale * row['high']:{shape}}]"
        if method != against and pd.notna(row.get("difference")):
            gap = f"{scale * row['difference']:+{shape}}"
            if pd.notna(row["from"]):
                gap += f" [{scale * row['from']:+{shape}}, {scale * row['to']:+{shape}}]"
        lines.append(
            "| " + " | ".join([str(method), *map(shown, problems), average, gap, str(int(row["seeds"]))]) + " |"
        )
    return "\n".join(lines)
