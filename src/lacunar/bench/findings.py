"""Everything that a report of a comparison says, as frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from lacunar.bench.checks import found_in, mapping
from lacunar.bench.course import courses, factors
from lacunar.bench.footing import apart, described
from lacunar.bench.probing import fused, probed
from lacunar.bench.statistics import compare, pivot, ranks, record
from lacunar.bench.store import Store
from lacunar.bench.sweep import find_sweep
from lacunar.bench.tables import collect, modality_scores, refusals, subset_scores
from lacunar.data.plain_yaml import read_yaml
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.report.bench_facts import BenchFacts, Ranking, Reported

__all__ = ["find", "read_reported"]

#: Taken for the method that others are compared with when none is named, the first that is there.
REFERENCES = ("MCE", "default", "joint", "Joint")
_REPORTED = ("short", "title", "source", "note", "rows", "numbers")


def find(
    folder: str | Path,
    against: str | None = None,
    problems: str = "",
    reported: str | Path | None = None,
    confidence: float = 0.95,
) -> BenchFacts:
    """Means, differences, ranks and costs of all methods whose results are in a folder.

    Args:
        folder: of the results.
        against: the method that the others are compared with; MCE where there is one.
        problems: a text or regular expression; only problems that it is found in.
        reported: a YAML file of numbers that papers report; see :func:`read_reported`.
        confidence: of the intervals.

    Raises:
        DataError: no finished cell, or cells that cannot be compared.
        ConfigError: ``against`` names no method of the results.
    """
    found = list(Store(folder).results())
    everything = collect(found) if found else collect(folder)
    results = everything[found_in(list(everything["problem"]), problems, "problems")]
    if results.empty:
        known = did_you_mean(problems, everything["problem"].unique())
        raise ConfigError(f"problems: {problems!r} matches none of the problems.{known}")
    whole = results[results["variant_of"] == ""]
    methods = list(dict.fromkeys(whole["method"]))
    if against is None:
        against = next((name for name in REFERENCES if name in methods), methods[0])
    elif against not in methods:
        raise ConfigError(f"against: unknown method {against!r}.{did_you_mean(against, methods)}")
    # In every table and figure the best come first, and the parts of a method behind it.
    place = _places(whole)
    found.sort(key=lambda result: place.get(result["cell"]["method"], len(place)))
    leader = results["method"].where(results["variant_of"] == "", results["variant_of"])
    results = results.iloc[np.argsort(leader.map(place).to_numpy(), kind="stable")]
    whole = results[results["variant_of"] == ""]
    subsets = subset_scores(found)
    alike = shared_seeds(results)
    subsets = subsets.merge(alike[["problem", "seed"]].drop_duplicates(), on=["problem", "seed"])
    names = results[["problem", "data", "setting"]].drop_duplicates()
    subsets = subsets.merge(names, on="problem", how="left")
    modalities = modality_scores(subsets).merge(names, on="problem", how="left")
    scores = {measure: pivot(whole, measure) for measure in ("mean", "worst")}
    refused = refusals(found)
    here = [result for result in found if result["cell"]["problem"] in set(results["problem"])]
    final, during, alone = probed(here)
    return BenchFacts(
        against=against,
        confidence=confidence,
        results=results,
        means=by_data(alike, "mean"),
        worst=by_data(alike, "worst"),
        settings={name: _by_setting(part) for name, part in _several_settings(alike)},
        subsets=_by(subsets[subsets["subset"] != "none"], "subset"),
        modalities=_by(modalities, "modality"),
        differences={measure: compare(frame, against, confidence=confidence) for measure, frame in scores.items()},
        pairs=compare(scores["mean"], confidence=confidence, resamples=1000),
        record=record(scores["mean"]),
        ranking=_ranking(scores["mean"]),
        cost=_cost(whole, against),
        refused=refused[refused["problem"].isin(results["problem"]) | ~refused["problem"].isin(everything["problem"])],
        reported=[] if reported is None else read_reported(reported),
        factors=factors(here),
        course=courses(here),
        capability=final,
        trajectory=during,
        alone=alone,
        fused=fused(here),
        sweep=find_sweep(here, against),
        seeds=int(whole["seed"].nunique()),
        versions=_versions(found),
        methods=described(here),
        apart=apart(here),
    )


def _places(results: pd.DataFrame) -> dict[str, int]:
    """Methods by the mean of their ranks within a problem and seed, the best first."""
    ranks = results.groupby(["problem", "seed"])["mean"].rank(ascending=False, pct=True)
    order = ranks.groupby(results["method"], sort=False).mean().sort_values(kind="stable").index
    return {str(method): place for place, method in enumerate(order)}


def shared_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of seeds that all methods of a problem have, so that means are of the same splits; all if none is."""
    methods = results.groupby("problem")["method"].transform("nunique")
    shared = results.groupby(["problem", "seed"])["method"].transform("nunique") == methods
    return results[shared | ~shared.groupby(results["problem"]).transform("any")]


def by_data(results: pd.DataFrame, measure: str) -> pd.DataFrame:
    """One row per method, one column per data set: the mean over settings and seeds, and over the data sets.

    A mean over settings is given only where the method has all settings that others have; so is the last column.
    """
    problems = results.groupby(["method", "data", "problem"], sort=False)[measure].mean()
    table = problems.groupby(level=["method", "data"], sort=False).mean().unstack("data")
    count = problems.groupby(level=["method", "data"], sort=False).size().unstack("data")
    order = list(dict.fromkeys(results["method"])), list(dict.fromkeys(results["data"]))
    every = results.groupby("data")["problem"].nunique()
    table = table.where(count.eq(every, axis=1)).loc[order]
    return table.assign(average=table.mean(axis=1, skipna=False))


def _several_settings(results: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    parts = results.groupby("data", sort=False)
    return [(str(name), part) for name, part in parts if part["setting"].nunique() > 1]


def _by_setting(results: pd.DataFrame) -> pd.DataFrame:
    """Methods by setting: ``(mean, standard deviation over seeds)``, as papers give them."""
    groups = results.groupby(["method", "setting"], sort=False)["mean"]
    table = pd.concat({"mean": groups.mean(), "sd": groups.std()}, axis=1).unstack("setting")
    order = pd.MultiIndex.from_product([list(dict.fromkeys(results["setting"])), ["mean", "sd"]])
    table = cast(pd.DataFrame, table).swaplevel(axis=1)
    return table.reindex(index=list(dict.fromkeys(results["method"])), columns=order)


def _by(frame: pd.DataFrame, column: str) -> dict[str, pd.DataFrame]:
    """For each data set methods by subset or modality: means over seeds and settings, where a method has them all."""
    tables = {}
    for name, part in frame.groupby("data", sort=False):
        groups = part.groupby(["method", column], sort=False)
        every = part.groupby(column)["problem"].nunique()
        table = groups["score"].mean().unstack(column)
        table = table.where(groups["problem"].nunique().unstack(column).eq(every, axis=1))
        tables[str(name)] = table.loc[list(dict.fromkeys(part["method"])), list(dict.fromkeys(part[column]))]
    return tables


def _ranking(scores: pd.DataFrame) -> Ranking | None:
    try:
        found = ranks(scores)
    except DataError:
        return None
    return Ranking(
        found.average, found.critical, found.p, found.blocks, found.over, found.groups(), found.left_out, found.alpha
    )


def _cost(results: pd.DataFrame, against: str) -> pd.DataFrame:
    """Per method: score, seconds of training, memory; and the ratio of seconds to those of the reference, over the
    problems and seeds that both have from the same machine, with the number of these ``pairs``."""
    seconds = results["seconds"]
    for better in ("fit_seconds", "fit_processor"):  # a busy machine changes processor time least
        seconds = results[better].fillna(seconds) if better in results else seconds
    table = results.assign(fit=seconds)
    fit = table.set_index(["problem", "seed", "machine", "method"])["fit"].unstack("method")
    ratios = fit.div(fit[against], axis=0)
    groups = table.groupby("method", sort=False)
    columns = {"score": groups["mean"].mean(), "seconds": groups["fit"].mean()}
    columns |= {"ratio": np.exp(np.log(ratios).mean()), "pairs": ratios.count()}
    columns |= {name: groups[name].mean() for name in ("step_mb", "resident_mb") if name in table}
    return pd.DataFrame(columns).loc[list(dict.fromkeys(results["method"]))]


def _versions(results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    known: dict[str, set[str]] = {}
    for result in results:
        for name, version in result.get("versions", {}).items():
            known.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(versions)) for name, versions in known.items()}


def read_reported(path: str | Path) -> list[Reported]:
    """Numbers that papers report, each table with its source; they are shown in columns and tables of their own.

    The file is a list of tables with ``title``, ``source``, ``note`` (why the numbers are not comparable with ours)
    and ``numbers``, by method and column. ``short`` names a column beside measured means over subsets, and is left out
    where the numbers are of something else; ``rows`` says what a row is of where it is no method.

    Raises:
        ConfigError: a file that cannot be read, an unknown key, or a table without a source.
    """
    content: Any = read_yaml(path, "Reported numbers")
    if not isinstance(content, Sequence) or isinstance(content, str):
        raise ConfigError(f"{path}: expected a list of tables.")
    return [_reported(table, f"{path}, table {number}") for number, table in enumerate(content, 1)]


def _reported(given: Any, where: str) -> Reported:
    table = mapping(given, where, _REPORTED)
    for key in ("title", "source", "numbers"):
        if not table.get(key):
            raise ConfigError(f"{where}: expected {key}; a number without it cannot be shown.")
    numbers = {}
    for row, cells in mapping(table["numbers"], f"{where}, numbers").items():
        numbers[row] = mapping(cells, f"{where}, {row}")
        for column, number in numbers[row].items():
            if number is not None and (isinstance(number, bool) or not isinstance(number, (int, float))):
                raise ConfigError(
                    f"{where}, {row}, {column}: expected a number, or null where the paper has none, got {number!r}."
                )
    frame = pd.DataFrame.from_dict(numbers, orient="index").astype(float)
    texts = {key: str(table.get(key) or "") for key in ("short", "title", "source", "note")}
    return Reported(**texts, numbers=frame, rows=str(table.get("rows") or "method"))
