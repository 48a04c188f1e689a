"""The sections of a comparison about training: weights of modalities, losses by epoch, capability of encoders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lacunar.report.bench_numbers import NOTHING, spread
from lacunar.report.page import Block, Column, Drawing, Row, Section, Table, Text
from lacunar.report.style import PALETTE, new_figure, quiet

__all__ = ["capability_figure", "capability_section", "course_figure", "course_section", "factors_section"]

_FACTORS = {"rate": "missing rate", "A": "A", "B": "B", "upper": "U", "phi": "phi", "gap": "U - phi"}
_STYLES = ("-", "--", "-.", ":")
#: Lines that a figure can show and still be read.
MOST = 10


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
        shown = f"Lower is not better: see above.{_left_out(part)}"
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
        for number, name in enumerate(list(dict.fromkeys(course["method"]))[:MOST]):
            line = lines[name].dropna()
            style = _STYLES[number // len(PALETTE) % len(_STYLES)]
            axes.plot(line.index, line, style, color=PALETTE[number % len(PALETTE)], label=str(name))
        axes.set(xlabel="epoch", ylabel="loss over that of epoch 1")
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    return figure


def capability_section(final: pd.DataFrame, during: pd.DataFrame) -> Section:
    """What each encoder can do alone at the end of training and on the way (Figs. 8 and 9 of MCE).

    Args:
        final: scores of probes by method and modality, from :func:`lacunar.bench.course.probed`.
        during: the same with ``epoch``.
    """
    if final.empty:
        return Section("capability", "Capability of the encoders")
    text = (
        "Each encoder is frozen and a linear head is trained on its features alone, on the train samples that have "
        "the modality. Percent, means over seeds and settings with the standard deviation over seeds; at the end of "
        "training on test, during it on validation."
    )
    blocks: list[Block] = [Text(text)]
    for data, part in final.groupby("data", sort=False):
        names = list(dict.fromkeys(part["modality"]))
        by_seed = part.groupby(["method", "modality", "seed"], sort=False)["score"].mean()
        mean, deviation = (
            getattr(by_seed.groupby(level=[0, 1], sort=False), kind)().unstack() for kind in ("mean", "std")
        )
        rows = [
            Row([str(method), *(spread(mean.loc[method, name], deviation.loc[method, name]) for name in names)])
            for method in dict.fromkeys(part["method"])
        ]
        columns = [Column("method", False), *(Column(str(name)) for name in names)]
        own = during[during["data"] == data]
        if len(own):
            alt = f"{data}: capability of each encoder during training"
            shown = f"One panel a modality, one line a method.{_left_out(own)}"
            blocks.append(Drawing(capability_figure(own), alt, shown))
        blocks.append(Table(f"{data}: capability of each encoder", columns, rows))
    return Section("capability", "Capability of the encoders", blocks)


def capability_figure(during: pd.DataFrame) -> Figure:
    """Capability of each encoder by epoch: a panel a modality, a line a method.

    Args:
        during: columns ``method``, ``modality``, ``epoch`` and ``score``.
    """
    names, methods = list(dict.fromkeys(during["modality"])), list(dict.fromkeys(during["method"]))[:MOST]
    means = during.pivot_table(index="epoch", columns=["modality", "method"], values="score", sort=False).sort_index()
    with quiet():
        figure = new_figure(2.8)
        panels = np.atleast_1d(figure.subplots(1, len(names)))
        for axes, name in zip(panels, names):
            for number, method in enumerate(methods):
                if (name, method) in means.columns:
                    line = means[name][method].dropna()
                    style = _STYLES[number // len(PALETTE) % len(_STYLES)]
                    axes.plot(line.index, line, style, color=PALETTE[number % len(PALETTE)], label=str(method))
            axes.set_title(str(name))
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panels[0].set_ylabel("probe score")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(methods), 5))
    return figure


def _left_out(frame: pd.DataFrame) -> str:
    """Which methods a figure does not show, in words; nothing where it shows them all."""
    rest = list(dict.fromkeys(frame["method"]))[MOST:]
    return f" The table has the others, too: {'; '.join(map(str, rest))}." if rest else ""


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else NOTHING
