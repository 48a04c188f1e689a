"""A comparison's tables as CSV and LaTeX, and one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pandas as pd

from lacunar.bench.findings import find
from lacunar.report.bench_facts import BenchFacts
from lacunar.report.bench_numbers import p_value, percent, points
from lacunar.report.bench_page import bench_page
from lacunar.training.files import write_whole

__all__ = ["Written", "latex", "write_report"]


class Written(NamedTuple):
    """Where a report is: its page, and the folder with its tables."""

    page: Path
    tables: Path


def write_report(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    against: str | None = None,
    problems: str = "",
    reported: str | Path | None = None,
    confidence: float = 0.95,
    title: str | None = None,
) -> Written:
    """Write the page of a comparison, and beside it every table as CSV and the main ones as LaTeX.

    The same results give the same files, byte for byte.

    Args:
        folder: of the results.
        out: the page; ``report.html`` in the folder when left out. Tables go to ``tables/`` beside it.
        against: the method that the others are compared with; MCE where there is one.
        problems: a text or regular expression; only problems that it is found in.
        reported: a YAML file of numbers that papers report.
        confidence: of the intervals.
        title: heading of the page.
    """
    facts = find(folder, against, problems, reported, confidence)
    page = Path(folder) / "report.html" if out is None else Path(out)
    tables = page.parent / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    for name, frame in _frames(facts).items():
        _write(tables / f"{name}.csv", frame.to_csv(float_format="%.6g"))
    for name, text in _latex_tables(facts).items():
        _write(tables / f"{name}.tex", text)
    _write(page, bench_page(facts, title).html())
    return Written(page, tables)


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write(text.encode()))


def _frames(facts: BenchFacts) -> dict[str, pd.DataFrame]:
    def stacked(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
        long = {name: table.rename_axis(columns="of").stack() for name, table in tables.items()}
        return pd.DataFrame({"score": pd.concat(long, names=["data"])})

    frames = {
        "cells": facts.results.set_index("problem"),
        "mean": facts.means,
        "worst": facts.worst,
        "subsets": stacked(facts.subsets),
        "modalities": stacked(facts.modalities),
        "differences": pd.concat(facts.differences, names=["measure"]).droplevel(1),
        "pairs": facts.pairs.set_index("method") if len(facts.pairs) else facts.pairs,
        "wins": facts.record,
        "cost": facts.cost,
        "refused": facts.refused.set_index("problem"),
    }
    if facts.settings:
        frames["settings"] = pd.concat(
            {name: table.stack(level=0, future_stack=True) for name, table in facts.settings.items()}, names=["data"]
        )
    if facts.ranking is not None:
        frames["ranks"] = facts.ranking.average.rename("rank").to_frame()
    training = {
        "factors": facts.factors, "course": facts.course, "capability": facts.capability,
        "trajectory": facts.trajectory, "networks": facts.alone, "fused": facts.fused,
        "sweep": pd.DataFrame() if facts.sweep is None else facts.sweep.differences,
    }  # fmt: skip
    return frames | {name: frame.set_index("problem") for name, frame in training.items() if len(frame)}


def _latex_tables(facts: BenchFacts) -> dict[str, str]:
    tables = {
        "mean": latex(facts.means, "Mean over subsets, in percent."),
        "worst": latex(facts.worst, "Worst subset, in percent."),
    }
    for number, (name, table) in enumerate(facts.settings.items(), 1):
        means = cast(pd.DataFrame, table.xs("mean", axis=1, level=1))
        tables[f"settings-{number}"] = latex(means, f"{name}: mean over subsets in percent, by presence setting.")
    frame = facts.differences["mean"]
    if len(frame):
        shapes = {"difference": points, "low": points, "high": points, "p_holm": p_value}
        caption = f"Difference to {facts.against} in points, with its interval and Holm's adjusted p."
        tables["differences"] = latex(frame.set_index("method")[list(shapes)], caption, best=False, shapes=shapes)
    return tables


def latex(
    frame: pd.DataFrame,
    caption: str,
    best: bool = True,
    shapes: Mapping[str, Callable[[float], str]] | None = None,
) -> str:
    """A frame as a LaTeX table for the package ``booktabs``.

    Args:
        frame: numbers, one row per method.
        caption: of the table.
        best: print the largest of each column in bold.
        shapes: how the numbers of a column are written; as percent in all others.
    """
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_escaped(caption)}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * frame.shape[1]}}}", r"\toprule"]
    lines.append(" & ".join(["method", *(_escaped(name) for name in frame.columns)]) + r" \\")
    lines.append(r"\midrule")
    for name, row in frame.iterrows():
        cells = [_escaped(name)]
        for column in frame.columns:
            value = float(row[column])
            if not np.isfinite(value):
                cells.append("--")
                continue
            text = _escaped((shapes or {}).get(str(column), percent)(value))
            top = best and value >= float(frame[column].max()) - 1e-12
            cells.append(rf"\textbf{{{text}}}" if top else text)
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "*": "{*}",  # the last two belong to a line break before them
}  # fmt: skip


def _escaped(text: object) -> str:
    return "".join(_SPECIAL.get(letter, letter) for letter in str(text))
