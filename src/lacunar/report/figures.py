"""The figures of a report: pure functions from data frames to matplotlib figures.

Modalities keep their colour and their order through all of them. No function reads a file or a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lacunar.report.style import GRID, INK, colours, new_figure, no_grid, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "curves_figure",
    "modality_figure",
    "pattern_figure",
    "probe_figure",
    "reliability_figure",
    "subset_figure",
    "trajectory_figure",
    "validation_figure",
]

ROWS = 40  # more rows than this are not read, they are looked past


def subset_figure(
    scores: pd.DataFrame,
    members: np.ndarray,
    names: Sequence[str],
    score_name: str = "score",
    experts: Mapping[str, float] | None = None,
) -> Figure:
    """Score of every subset with its interval, beside the modalities that it holds.

    Args:
        scores: columns ``score`` and, if known, ``low`` and ``high``; one row per subset, K of them.
        members: which modality is in which subset, boolean, shape ``(K, M)``.
        names: the modalities, M of them.
        score_name: what the score is.
        experts: score of each single-modality model that the joint model is compared with.

    Of more than ``ROWS`` subsets the best and the worst are drawn, half and half.
    """
    order = np.lexsort((-scores["score"].to_numpy(float), members.sum(1)))
    scores, members = scores.iloc[order].reset_index(drop=True), np.asarray(members)[order]
    if len(scores) > ROWS:
        ranks = scores["score"].rank(method="first")
        kept = ((ranks <= ROWS // 2) | (ranks > len(scores) - ROWS // 2)).to_numpy()
        scores, members = scores[kept].reset_index(drop=True), members[kept]
    tint = colours(names)
    with quiet():
        dots, plot, figure = _dots_and_plot(members, names, 0.22)
        rows = np.arange(len(scores))
        value = scores["score"].to_numpy(float)
        size = members.sum(1)
        shade = [tint[str(names[int(row.argmax())])] if row.sum() == 1 else INK for row in members]
        if {"low", "high"} <= set(scores):
            plot.hlines(rows, scores["low"], scores["high"], colors=shade, linewidth=2.2, alpha=0.45)
        plot.scatter(value, rows, s=30, c=shade, zorder=3)
        for edge in np.flatnonzero(np.diff(size)):
            for axes in (dots, plot):
                axes.axhline(float(edge) + 0.5, color=GRID, linewidth=0.8)
        edges = np.fmax(value, scores["high"].to_numpy(float)) if "high" in scores else value.copy()
        if experts:
            single = [(row, str(names[int(members[row].argmax())])) for row in rows if size[row] == 1]
            marks = [(experts[name], row) for row, name in single if name in experts and np.isfinite(experts[name])]
            if marks:
                x, y = zip(*marks)
                label = "single-modality expert"
                plot.scatter(x, y, 34, marker="D", zorder=4, facecolors="none", edgecolors=INK, label=label)
                figure.legend(*plot.get_legend_handles_labels(), loc="outside lower right")
                np.fmax.at(edges, list(y), x)  # numbers stand clear of the diamonds
        for row, (number, edge) in enumerate(zip(value, edges)):
            plot.annotate(f"{number:.3f}", (edge, row), (7, 0), textcoords="offset points", va="center", fontsize=8)
        plot.margins(x=0.12)
        plot.set_xlabel(score_name)
    return figure


def pattern_figure(
    counts: pd.DataFrame, members: np.ndarray, names: Sequence[str], rates: pd.DataFrame | None = None
) -> Figure:
    """How many samples have which combination of modalities, and how often each modality is missing.

    Args:
        counts: one row per pattern, K of them, one column per part of the data (train, val, test); NaN marks a
            count too small to show.
        members: which modality is in which pattern, boolean, shape ``(K, M)``.
        names: the modalities, M of them.
        rates: missing rates, one row per modality, one column per part.
    """
    total = counts.fillna(0).sum(axis=1).to_numpy()
    order = np.argsort(-total, kind="stable")[:ROWS]
    counts, members = counts.iloc[order], np.asarray(members)[order]
    looks = ((INK, INK), ("#7d8794", "#7d8794"), ("none", INK))
    with quiet():
        _, plot, figure = _dots_and_plot(members, names, 0.26, extra=0.0 if rates is None else 1.9)
        left = np.zeros(len(counts))
        rows = np.arange(len(counts))
        for number, part in enumerate(counts.columns):
            width = counts[part].fillna(0).to_numpy(float)
            face, edge = looks[number % 3]
            plot.barh(rows, width, left=left, height=0.62, facecolor=face, edgecolor=edge, label=str(part))
            left += width
        for row, (_, line) in enumerate(counts.iterrows()):
            text = "fewer than shown" if line.isna().all() else f"{left[row]:,.0f}" + ("+" if line.isna().any() else "")
            plot.annotate(text, (left[row], row), (4, 0), textcoords="offset points", va="center", fontsize=8)
        plot.set_xlim(0, max(float(left.max()) * 1.14, 1))
        plot.set_xlabel("samples")
        plot.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if rates is not None:
            _rates(figure, rates, names)
        if len(counts.columns) > 1:
            plot.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(counts.columns))  # above the bars
    return figure


def curves_figure(history: pd.DataFrame, ylabel: str = "loss", xlabel: str = "epoch") -> Figure:
    """One line for each column over the index; what belongs together is told apart by colour and by dash.

    Args:
        history: index epoch (or step), one column per quantity.
        ylabel: what the lines are.
        xlabel: what the index is.
    """
    with quiet():
        figure = new_figure(2.6)
        axes = figure.subplots()
        tint = colours([str(column) for column in history.columns])
        for number, column in enumerate(history.columns):
            line = history[column].dropna()
            dash = ("-", "--", "-.", ":")[number % 4]
            axes.plot(line.index, line, dash, color=tint[str(column)], label=str(column), **_dots(line))
        axes.set(xlabel=xlabel, ylabel=ylabel)
        _whole(axes)
        axes.legend(ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def modality_figure(tables: Mapping[str, pd.DataFrame], names: Sequence[str], xlabel: str = "epoch") -> Figure:
    """Small pictures side by side, one per quantity, a line for each modality.

    Args:
        tables: for each quantity (its title) a frame with the epoch as index and one column per modality.
        names: the modalities, in order.
        xlabel: what the index is.
    """
    tint = colours(names)
    columns = min(2, len(tables))
    lines = -(-len(tables) // columns)
    with quiet():
        figure = new_figure(0.35 + 1.95 * lines)
        grid = np.atleast_1d(figure.subplots(lines, columns, squeeze=False)).ravel()
        for axes, (title, table) in zip(grid, tables.items()):
            for number, name in enumerate(names):
                if name in table:
                    line = table[name].dropna()
                    style = ("-", "--", "-.", ":")[number % 4]
                    axes.plot(line.index, line, style, color=tint[str(name)], label=str(name), **_dots(line))
            axes.set_title(title)
            axes.set_xlabel(xlabel)
            _whole(axes)
        for axes in grid[len(tables) :]:
            axes.axis("off")
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(names), 6))
    return figure


def validation_figure(scores: pd.DataFrame, selected: float | None = None, score_name: str = "score") -> Figure:
    """Validation scores over epochs and the epoch that was kept.

    Args:
        scores: index epoch, one column per line, for example the mean over subsets and the full set.
        selected: the epoch whose weights were kept.
        score_name: what the score is.
    """
    with quiet():
        figure = new_figure(2.6)
        axes = figure.subplots()
        for number, column in enumerate(scores.columns):
            line = scores[column].dropna()
            shade = (INK, "#0072b2", "#e69f00", "#009e73", "#cc79a7")[number % 5]
            style = ("-", "--", "-.", ":")[number % 4]
            axes.plot(line.index, line, style, color=shade, label=str(column), **_dots(line))
        if selected is not None:
            axes.axvline(selected, color="#d55e00", linewidth=1.2, label=f"kept: epoch {selected:g}")
        axes.set(xlabel="epoch", ylabel=f"validation {score_name}")
        _whole(axes)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def probe_figure(probes: pd.DataFrame, score_name: str = "score") -> Figure:
    """What a fresh decoder reads from each frozen encoder, beside its upper bound (Fig. 9 of MCE).

    Args:
        probes: index modality, one column per bar of its group; columns that end in ``" low"`` and ``" high"``
            hold the interval of the column they are named after.
        score_name: what the score is.
    """
    bars = [column for column in probes.columns if not str(column).endswith((" low", " high"))]
    with quiet():
        figure = new_figure(2.7)
        axes = figure.subplots()
        place, width = np.arange(len(probes)), 0.8 / max(len(bars), 1)
        for number, column in enumerate(bars):
            at = place + (number - (len(bars) - 1) / 2) * width
            value = probes[column].to_numpy(float)
            hatch = (None, "///", "...", "xxx")[number % 4]
            shade = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")[number % 4]
            axes.bar(at, value, width * 0.9, color=shade, hatch=hatch, edgecolor="white", label=str(column))
            if f"{column} low" in probes and f"{column} high" in probes:
                axes.vlines(at, probes[f"{column} low"], probes[f"{column} high"], colors=INK, linewidth=1.2)
        axes.set_xticks(place, [_short(name, 18) for name in probes.index])
        axes.set_ylabel(score_name)
        no_grid(axes, "x")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def trajectory_figure(
    capability: pd.DataFrame, names: Sequence[str], upper: Mapping[str, float] | None = None, score_name: str = "score"
) -> Figure:
    """Capability of each encoder while the joint model trains (Fig. 8 of MCE).

    Args:
        capability: index epoch, one column per modality.
        names: the modalities, in order.
        upper: score of a model trained on the modality alone.
        score_name: what the score is.
    """
    tint = colours(names)
    with quiet():
        figure = new_figure(2.7)
        axes = figure.subplots()
        for number, name in enumerate(name for name in names if name in capability):
            line = capability[name].dropna()
            style = ("-", "--", "-.", ":")[number % 4]
            axes.plot(line.index, line, style, color=tint[str(name)], label=str(name), **_dots(line))
            if upper and name in upper:
                axes.axhline(upper[name], color=tint[str(name)], linewidth=0.9, linestyle=(0, (1, 2)))
        axes.set(xlabel="epoch", ylabel=f"probe {score_name}")
        _whole(axes)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def reliability_figure(bins: pd.DataFrame, counts: bool = True) -> Figure:
    """How often the model is right when it says that it is sure to some degree.

    Args:
        bins: columns ``confidence``, ``accuracy`` and ``count``, one row per bin; an optional column ``series``
            tells several diagrams apart, for example before and after temperature scaling.
        counts: also draw how many answers each bin holds.
    """
    with quiet():
        figure = new_figure(3.1, 5.2) if counts else new_figure(2.4, 5.2)
        if counts:
            axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        else:
            axes = below = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.2)
        series = bins.groupby("series", sort=False) if "series" in bins else [("model", bins)]
        names = []
        for number, (name, part) in enumerate(series):
            part = part[part["count"] > 0]
            shade, style = ("#0072b2", "#e69f00", "#009e73")[number % 3], ("o-", "s--", "^-.")[number % 3]
            axes.plot(part["confidence"], part["accuracy"], style, color=shade, markersize=4, label=str(name))
            names.append(str(name))
            if counts and number == 0:
                below.bar(part["confidence"], part["count"], width=0.04, color=shade)
        if len(names) > 1:
            axes.legend(loc="upper left")
        axes.set(ylabel="how often right", xlim=(0, 1), ylim=(0, 1))
        below.set(xlabel="confidence")
        if counts:
            below.set(ylabel="samples")
            below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure


def _dots_and_plot(
    members: np.ndarray, names: Sequence[str], height: float, extra: float = 0.0
) -> tuple[Axes, Axes, Figure]:
    """A matrix of dots on the left and an empty plot that shares its rows on the right."""
    tint = colours(names)
    labels = [_short(name) for name in names]
    longest = max(map(len, labels))
    slanted = longest > 4 or len(names) > 4
    share = min(0.45, 0.1 + 0.045 * len(names))
    rows = len(members) * height + 0.6 + (0.05 * longest if slanted else 0.2)
    figure = new_figure(rows + extra)
    if extra:
        both: Any = figure.subfigures(2, 1, height_ratios=[rows, extra])
        top, bottom = both
        figure._lower = bottom  # type: ignore[attr-defined]
    else:
        top = figure
    dots, plot = top.subplots(1, 2, sharey=True, width_ratios=[share, 1 - share])
    y = np.arange(len(members))
    for m, name in enumerate(names):
        inside = members[:, m]
        dots.scatter(np.full(len(y), m)[~inside], y[~inside], s=26, color=GRID, alpha=0.55)
        dots.scatter(np.full(len(y), m)[inside], y[inside], s=34, color=tint[str(name)], zorder=3)
    for row, line in enumerate(members):
        held = np.flatnonzero(line)
        if len(held) > 1:
            dots.plot([held[0], held[-1]], [row, row], color=INK, linewidth=0.9, zorder=2, alpha=0.6)
    dots.xaxis.tick_top()
    dots.set_xticks(range(len(names)), labels)
    if slanted:
        dots.tick_params(axis="x", rotation=45)
        for label in dots.get_xticklabels():
            label.set_horizontalalignment("left")
            label.set_rotation_mode("anchor")
    dots.set_xlim(-0.6, len(names) - 0.4)
    dots.set_ylim(len(members) - 0.4, -0.6)
    dots.set_yticks([])
    for axes in (dots, plot):
        axes.spines["left"].set_visible(False)
        no_grid(axes, "y")
    no_grid(dots)
    dots.spines["bottom"].set_visible(False)
    return dots, plot, figure


def _rates(figure: Any, rates: pd.DataFrame, names: Sequence[str]) -> None:
    tint = colours(names)
    axes = figure._lower.subplots()
    place, width = np.arange(len(names)), 0.78 / len(rates.columns)
    for number, part in enumerate(rates.columns):
        at = place + (number - (len(rates.columns) - 1) / 2) * width
        value = rates.loc[list(names), part].to_numpy(float)
        axes.bar(at, value, width * 0.9, color=[tint[str(name)] for name in names], alpha=(1, 0.6, 0.35)[number % 3])
        for x, rate in zip(at, value):
            text = "" if np.isnan(rate) else f"{rate:.0%}"
            axes.annotate(text, (x, 0 if np.isnan(rate) else rate), ha="center", va="bottom", fontsize=7.5)
    axes.set_xticks(place, [_short(name, 18) for name in names])
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    axes.set_ylabel("missing rate")
    axes.set_title(f"absent, by modality ({', '.join(map(str, rates.columns))} from left to right)")
    no_grid(axes, "x")


def _short(name: object, most: int = 14) -> str:
    text = str(name)
    return text if len(text) <= most else text[: most - 1] + "…"


def _dots(line: pd.Series) -> dict[str, Any]:
    """Markers where a line has so few points that it would not be seen."""
    return {"marker": "o", "markersize": 3.5} if len(line) <= 12 else {}


def _whole(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
