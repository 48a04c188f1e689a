"""The sections of a comparison about training: weights of modalities and losses by epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lacunar.report.bench_numbers import NOTHING
from lacunar.report.page import Block, Column, Drawing, Row, Section, Table, Text
from lacunar.report.style import MOST_LINES, line_style, new_figure, quiet

__all__ = ["course_figure", "course_section", "factors_section", "left_out"]

_FACTORS = {"rate": "missing rate", "A": "A", "B": "B", "upper": "U", "phi": "phi", "gap": "U - phi"}


def factors_section(factors: pd.DataFrame) -> Section:
    """How rare a modality is, how far it falls short, and the weights that follow (Table 6 of MCE).

    Args:
        factors: from :func:`lacunar.bench.course.factors`.
    """
    if factors.empty:
        return Section("factors", "Weights of modalities")
    text = (
        "Means over seeds and, but for A, over the steps of the last epoch: A weighs how rare a modality is, B how far "
        "its Shapley contribution phi falls short of U, its score alone, and is 0 where it does not."
    )
    blocks: list[Block] = [Text(text)]
    for data, part in factors.groupby("data", sort=False):
        part = part.assign(gap=part["upper"] - part["phi"])
        keys = [name for name in ("setting", "method", "modality") if name != "setting" or part["setting"].any()]
        table = part.groupby(keys, sort=False)[list(_FACTORS)].mean()
        known = [name for name in _FACTORS if table[name].notna().any()]
        columns = [*(Column(name, False) for name in keys), *(Column(_FACTORS[name]) for name in known)]
        rows = [
            Row([*map(str, name if isinstance(name, tuple) else (name,)), *(_number(row[one]) for one in known)])
            for name, row in table.iterrows()
        ]
        blocks.append(Table(f"{data}: weights of modalities in the last epoch", columns, rows))
    return Section("factors", "Weights of modalities", blocks)


def course_section(course: pd.DataFrame, only: Sequence[str] = ()) -> Section:
    """The loss in training by epoch, method by method (Fig. 6 of MCE).

    Args:
        course: from :func:`lacunar.bench.course.courses`.
        only: the methods to show, in this order; all when empty.
    """
    if only:
        kept = course[course["method"].isin(only)]
        course = kept.iloc[np.argsort(kept["method"].map(list(only).index).to_numpy(), kind="stable")]
    if course.empty:
        return Section("course", "Training")
    text = (
        "Loss in training, a mean over seeds and settings, relative to the first epoch: methods add up different "
        "terms, so their levels cannot be compared, only whether and how smoothly they fall. The bumps are how often "
        "the loss rises by more than 2 % of its first value from one epoch to the next."
    )
    blocks: list[Block] = [Text(text)]
    for data, part in course.groupby("data", sort=False):
        shown = f"Lower is not better: see above.{left_out(part)}"
        drawing = Drawing(course_figure(part), f"{data}: loss in training by epoch", shown)
        blocks += [drawing, _course_table(str(data), part)]
    return Section("course", "Training", blocks)


def _course_table(data: str, course: pd.DataFrame) -> Table:
    relative = _relative(course)
    rows = []
    for method, part in relative.groupby("method", sort=False):
        runs = part.pivot_table(index=["problem", "seed"], columns="epoch", values="loss", sort=False)
        bumps = (runs.diff(axis=1) > 0.02).sum(axis=1).mean()
        last, before = runs.iloc[:, -1].mean(), runs.iloc[:, -6:-1].mean(axis=1).mean()
        rows.append(Row([str(method), _number(last), _number(before), f"{bumps:.1f}"]))
    heads = ("method", "last epoch", "mean of the five before", "bumps")
    columns = [Column(head, number > 0) for number, head in enumerate(heads)]
    return Table(f"{data}: loss over that of the first epoch", columns, rows)


def _relative(course: pd.DataFrame) -> pd.DataFrame:
    keys = ["problem", "method", "seed"]
    first = course.sort_values("epoch").groupby(keys)["loss"].transform("first")
    return course.assign(loss=course["loss"] / first.where(first.abs() > 0))


def course_figure(course: pd.DataFrame) -> Figure:
    """Loss by epoch relative to the first, a line each for the first ten methods, means over problems and seeds.

    Args:
        course: columns ``problem``, ``method``, ``seed``, ``epoch`` and ``loss``.
    """
    lines = _relative(course).groupby(["method", "epoch"], sort=False)["loss"].mean().unstack("method")
    with quiet():
        figure = new_figure(3.4)
        axes = figure.add_subplot()
        for number, name in enumerate(list(dict.fromkeys(course["method"]))[:MOST_LINES]):
            line = lines[name].dropna()
            axes.plot(line.index, line, label=str(name), **line_style(number))
        axes.set(xlabel="epoch", ylabel="loss over that of epoch 1")
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    return figure


def left_out(frame: pd.DataFrame) -> str:
    """Which methods a figure does not show, in words; nothing where it shows them all."""
    rest = list(dict.fromkeys(frame["method"]))[MOST_LINES:]
    return f" The table has the others, too: {'; '.join(map(str, rest))}." if rest else ""


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else NOTHING
