"""The figures of a plan's page: pure functions from plain data to matplotlib figures.

As in the figures of a run, modalities keep their colour and their order through all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from lacunar.report.figures import _dots_and_plot
from lacunar.report.style import DASHES, GRID, INK, PALETTE, new_figure, no_grid, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["backtest_figure", "candidate_figure", "group_figure", "learning_figure", "money_figure", "quality_figure"]

CHOSEN = "#d55e00"
"""Colour of what is recommended."""


def candidate_figure(
    candidates: pd.DataFrame, members: np.ndarray, names: Sequence[str], xlabel: str, margins: Sequence[str] = (),
    least: float = 0.0,
) -> Figure:  # fmt: skip
    """Expected gain of each candidate with its interval, beside the modalities that it buys.

    Args:
        candidates: columns ``gain``, ``low``, ``high``, ``chosen`` (boolean) and ``guess`` (boolean: could not be
            measured), one row per candidate, K of them.
        members: which modality is in which candidate, boolean, shape ``(K, M)``.
        names: the modalities, M of them.
        xlabel: what the gain is.
        margins: what to write at the right of each row, such as samples and price.
        least: the smallest gain worth buying for, drawn where it is not zero.
    """
    with quiet():
        _, plot, figure = _dots_and_plot(np.asarray(members), names, 0.27)
        rows = np.arange(len(candidates))
        shade = [CHOSEN if chosen else INK for chosen in candidates["chosen"]]
        plot.axvline(0, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
        if least > 0:
            plot.axvline(least, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        plot.hlines(rows, candidates["low"], candidates["high"], colors=shade, linewidth=2.4, alpha=0.5)
        face = ["none" if guess else colour for guess, colour in zip(candidates["guess"], shade)]
        plot.scatter(candidates["gain"], rows, s=34, facecolors=face, edgecolors=shade, zorder=3)
        for row, text in enumerate(margins):
            plot.annotate(
                text, (1.0, row), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
                fontsize=8,
            )  # fmt: skip
        plot.margins(x=0.06)
        plot.set_xlabel(xlabel)
        plot.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def money_figure(
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]], points: pd.DataFrame, xlabel: str, ylabel: str,
    budget: float | None = None, chosen: str = "",
) -> Figure:  # fmt: skip
    """Expected gain against money spent, for the leading candidates.

    Args:
        lines: for each candidate by label the amounts and the gains that they buy.
        points: the purchases that were compared: columns ``label``, ``cost``, ``gain``, ``low``, ``high``.
        xlabel, ylabel: what money and gain are in.
        budget: drawn as a vertical line.
        chosen: label of what is recommended.
    """
    with quiet():
        figure = new_figure(3.3)
        axes = figure.subplots()
        shades = [colour for colour in PALETTE if colour != CHOSEN]
        end = max((float(amounts[-1]) for amounts, _ in lines.values()), default=1.0)
        known: dict[str, Any] = {str(row["label"]): row for row in points.to_dict("records")}
        at = sorted((label for label in lines if label in known), key=lambda label: known[label]["cost"])
        for number, (label, (amounts, gains)) in enumerate(lines.items()):
            shade, width = (CHOSEN, 2.4) if label == chosen else (shades[number % len(shades)], 1.5)
            style = "-" if label == chosen else DASHES[number % len(DASHES)]
            axes.step(amounts, gains, style, where="post", color=shade, label=label, linewidth=width)
            if label in known:
                row = known[label]
                # Purchases of nearly the same price stand side by side, so that their intervals can be read.
                x = row["cost"] + (at.index(label) - (len(at) - 1) / 2) * 0.012 * end
                axes.vlines(x, row["low"], row["high"], colors=shade, linewidth=2.4, alpha=0.55)
                axes.scatter([x], [row["gain"]], s=30, color=shade, zorder=4)
        if budget:
            axes.axvline(budget, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
            axes.annotate(
                "budget", (budget, 1.0), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
                ha="center", fontsize=8,
            )  # fmt: skip
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.set_xlim(0, end)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def learning_figure(
    curve: pd.DataFrame, points: pd.DataFrame, start: float, then: float | None, score_name: str,
    target: float | None = None,
) -> Figure:  # fmt: skip
    """The learning curve, what it was fitted to, where the pilot stands and where the purchase would lead.

    Args:
        curve: columns ``n``, ``score``, ``low``, ``high``.
        points: columns ``n`` and ``score``, one row per training; may be empty.
        start: complete samples that there are.
        then: complete samples that there and the purchase amount to; None when nothing is bought.
        score_name: what the score is.
        target: a score to reach.
    """
    with quiet():
        figure = new_figure(2.9)
        axes = figure.subplots()
        reach = max(start * 4, (then or 0.0) * 1.6, float(points["n"].max()) if len(points) else 0.0)
        shown = curve[curve["n"] <= reach] if (curve["n"] <= reach).sum() > 3 else curve
        axes.fill_between(shown["n"], shown["low"], shown["high"], color=PALETTE[0], alpha=0.18, linewidth=0)
        axes.plot(shown["n"], shown["score"], color=PALETTE[0], label="predicted")
        if len(points):
            axes.scatter(points["n"], points["score"], s=14, color=INK, alpha=0.55, label="measured", zorder=3)
        now = float(np.interp(start, curve["n"], curve["score"]))
        axes.scatter([start], [now], s=44, color=INK, marker="s", zorder=4, label=f"now: {start:,.0f}")
        if then is not None:
            reached = float(np.interp(then, curve["n"], curve["score"]))
            text = f"then: worth {then:,.0f}"
            axes.scatter([then], [reached], s=50, color=CHOSEN, marker="D", zorder=4, label=text)
        if target is not None:
            axes.axhline(target, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), label="target")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="complete samples to learn from", ylabel=score_name)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def quality_figure(quality: pd.DataFrame, members: np.ndarray, names: Sequence[str]) -> Figure:
    """How much of a complete sample one sample of each subset is worth, the rest filled or left absent.

    Args:
        quality: columns ``quality``, ``low``, ``high`` and, where it was measured, ``filled`` and ``not_filled``.
        members: which modality is in which subset, boolean, shape ``(K, M)``.
        names: the modalities, M of them.
    """
    with quiet():
        _, plot, figure = _dots_and_plot(np.asarray(members), names, 0.3)
        rows = np.arange(len(quality))
        low, high = (quality[end].clip(-1.0, 2.0) for end in ("low", "high"))
        plot.axvspan(0, 1, color=GRID, alpha=0.35, linewidth=0)
        plot.hlines(rows, low, high, colors=INK, linewidth=2.2, alpha=0.45)
        if {"filled", "not_filled"} <= set(quality):
            for column, marker, shade, label in (
                ("filled", "o", PALETTE[0], "the rest generated"),
                ("not_filled", "D", PALETTE[4], "the rest left absent"),
            ):
                plot.scatter(
                    quality[column].clip(-1.0, 2.0), rows, s=36, marker=marker, zorder=3, label=label,
                    facecolors="none" if marker == "D" else shade, edgecolors=shade,
                )  # fmt: skip
            figure.legend(*plot.get_legend_handles_labels(), loc="outside lower right", ncols=2)
        else:
            plot.scatter(quality["quality"], rows, s=36, color=INK, zorder=3)
        plot.margins(x=0.06)
        left, right = plot.get_xlim()
        plot.set_xlim(min(left, -0.05), max(right, 1.05))
        plot.set_xlabel("worth of one such sample: 0 nothing, 1 as much as a complete one")
    return figure


def group_figure(groups: pd.DataFrame, xlabel: str) -> Figure:
    """Measured gain of each subgroup with its interval.

    Args:
        groups: columns ``label``, ``gain``, ``low``, ``high``, one row per subgroup.
        xlabel: what the gain is.
    """
    with quiet():
        figure = new_figure(0.7 + 0.28 * len(groups), 6.4)
        axes = figure.subplots()
        _intervals(axes, groups, INK)
        axes.set_yticks(range(len(groups)), list(groups["label"]))
        axes.set_xlabel(xlabel)
        axes.xaxis.set_major_locator(MaxNLocator(6))
    return figure


def backtest_figure(summary: pd.DataFrame, chosen: str, xlabel: str) -> Figure:
    """What each strategy really gained in a backtest, and what it missed against the best in hindsight.

    Args:
        summary: of a backtest: ``strategy``, ``gain``, ``gain_low``, ``gain_high`` and the same of ``regret``.
        chosen: the strategy of the plan.
        xlabel: what the scores are.
    """
    with quiet():
        figure = new_figure(0.85 + 0.27 * len(summary))
        left, right = figure.subplots(1, 2, sharey=True)
        shade = [CHOSEN if name == chosen else INK for name in summary["strategy"]]
        for axes, column, title in ((left, "gain", "realised gain"), (right, "regret", "regret against hindsight")):
            table = pd.DataFrame(
                {"gain": summary[column], "low": summary[f"{column}_low"], "high": summary[f"{column}_high"]}
            )
            _intervals(axes, table, shade)
            axes.set_title(title)
            axes.set_xlabel(xlabel)
            axes.xaxis.set_major_locator(MaxNLocator(5))
        left.set_yticks(range(len(summary)), list(summary["strategy"]))
    return figure


def _intervals(axes: Axes, table: pd.DataFrame, shade: str | Sequence[str]) -> None:
    """Points with intervals, one below the other, and a line at zero."""
    rows = np.arange(len(table))
    axes.axvline(0, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    axes.hlines(rows, table["low"], table["high"], colors=shade, linewidth=2.4, alpha=0.5)
    axes.scatter(table["gain"], rows, s=34, c=shade, zorder=3)
    axes.set_ylim(len(table) - 0.4, -0.6)
    no_grid(axes, "y")
