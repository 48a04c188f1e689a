"""Figures of a comparison of methods: pure functions from frames to matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox

from lacunar.report.style import GRID, INK, PALETTE, new_figure, no_grid, quiet

__all__ = ["cost_figure", "critical_difference_figure", "difference_figure", "setting_figure"]


def critical_difference_figure(average: pd.Series, critical: float, groups: Sequence[Sequence[str]]) -> Figure:
    """Methods on a line by their mean rank; a bar joins those that cannot be told apart.

    Args:
        average: mean rank by method, best first.
        critical: the critical difference.
        groups: methods that each bar joins.
    """
    names, values = list(map(str, average.index)), average.to_numpy(float)
    k = len(names)
    left, right = (k + 1) // 2, k // 2
    with quiet():
        figure = new_figure(0.62 + 0.2 * len(groups) + 0.24 * left)
        axes = figure.add_subplot()
        no_grid(axes)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.set_yticks([])
        low, high = int(np.floor(values.min())), int(np.ceil(values.max()))
        high = max(high, low + 1)
        span = high - low
        axes.hlines(0, low, high, colors=INK, linewidth=1.0)
        for tick in range(low, high + 1):
            axes.vlines(tick, 0, 0.18, colors=INK, linewidth=1.0)
            axes.annotate(str(tick), (tick, 0.25), ha="center", va="bottom")
        axes.hlines(1.05, low, low + critical, colors=INK, linewidth=2.2)
        axes.annotate(f"critical difference {critical:.2f}", (low + critical, 1.05), (4, 0), va="center",
                      textcoords="offset points")  # fmt: skip
        depth = 0.35
        for group in groups:
            ends = average[list(group)]
            axes.hlines(-depth, ends.min() - span * 0.006, ends.max() + span * 0.006, colors=PALETTE[0], linewidth=3.4)
            depth += 0.3
        for place, (name, value) in enumerate(zip(names, values)):
            first = place < left
            row = place if first else k - 1 - place
            y = -depth - 0.35 - 0.42 * row
            x = low - 0.04 * span if first else high + 0.04 * span
            axes.plot([value, value, x], [0, y, y], color=GRID, linewidth=1.0, zorder=0)
            text = f"{name}  {value:.2f}" if first else f"{value:.2f}  {name}"
            axes.annotate(text, (x, y), (-3 if first else 3, 0), textcoords="offset points", va="center",
                          ha="right" if first else "left")  # fmt: skip
        axes.set_xlim(low - 0.42 * span, high + 0.42 * span)
        axes.set_ylim(-depth - 0.55 - 0.42 * max(left, right, 1), 1.4)
        axes.set_xticks([])
    return figure


def difference_figure(differences: pd.DataFrame, against: str, unit: str = "points") -> Figure:
    """Differences to one method with their intervals, largest first.

    Args:
        differences: one row per method: ``method``, ``difference``, ``low``, ``high``.
        against: the method at zero.
        unit: of the differences.
    """
    shown = differences.sort_values("difference", ascending=True, kind="stable").reset_index(drop=True)
    with quiet():
        figure = new_figure(0.75 + 0.24 * len(shown))
        axes = figure.add_subplot()
        no_grid(axes, "y")
        rows = np.arange(len(shown))
        ends = zip(shown["low"].to_numpy(float), shown["high"].to_numpy(float))
        tint = [PALETTE[0] if low > 0 else PALETTE[4] if high < 0 else INK for low, high in ends]
        axes.hlines(rows, shown["low"], shown["high"], colors=tint, linewidth=2.4, alpha=0.5)
        axes.scatter(shown["difference"], rows, s=30, c=tint, zorder=3)
        axes.axvline(0, color=INK, linewidth=0.9)
        axes.set_yticks(rows, [str(name) for name in shown["method"]])
        axes.set_xlabel(f"difference to {against}, {unit}")
        axes.set_ylim(-0.6, len(shown) - 0.4)
    return figure


def cost_figure(cost: pd.DataFrame, score_name: str = "score", against: str = "the reference") -> Figure:
    """What a method scores against what its training took.

    Args:
        cost: one row per method: ``score``, and ``ratio`` of its time of training to that of the reference.
        score_name: what the score is.
        against: the reference.
    """
    known = cost.dropna(subset=["score", "ratio"]).sort_values("score", ascending=False, kind="stable")
    times = known["ratio"].to_numpy(float).clip(min=1e-3)
    scores = known["score"].to_numpy(float)
    with quiet():
        figure = new_figure(3.8)
        axes = figure.add_subplot()
        axes.scatter(times, scores, s=34, c=PALETTE[0], zorder=3)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(times.min() / 1.15, times.max() * (times.max() / times.min()) ** 0.25 * 1.15)
        axes.margins(y=0.1)
        axes.set_xlabel(f"time of training over {against}")
        axes.set_ylabel(score_name)
        _name_dots(axes, times, scores, [str(name) for name in known.index])
    return figure


#: Where a name may stand, the best first: points to the right and up, and which side of the name is there.
_BESIDE = (
    (6, 0, "left"), (-6, 0, "right"), (5, 7, "left"), (5, -7, "left"), (-5, 7, "right"), (-5, -7, "right"),
    (0, 10, "center"), (0, -10, "center"), (8, 14, "left"), (8, -14, "left"), (-8, 14, "right"), (-8, -14, "right"),
)  # fmt: skip


def _name_dots(axes: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> None:
    """Put each name where it covers neither a dot nor another name, or covers least."""
    figure = cast(Figure, axes.figure)
    figure.draw_without_rendering()  # now it is known where everything is
    dots = axes.transData.transform(np.column_stack([x, y]))
    taken = [Bbox.from_extents(*(dot - 5), *(dot + 5)) for dot in dots]
    for place, name in zip(zip(x, y), names):
        tried = []
        for right, up, side in _BESIDE:
            text = axes.annotate(name, place, (right, up), textcoords="offset points", ha=side, va="center", fontsize=8)
            box = text.get_window_extent()
            outside = not (axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1)
            tried.append((box.count_overlaps(taken) + 9 * outside, text, box))
            if tried[-1][0] == 0:
                break
        best = min(range(len(tried)), key=lambda k: tried[k][0])
        for k, (_, text, _) in enumerate(tried):
            if k != best:
                text.remove()
        taken.append(tried[best][2])


def setting_figure(table: pd.DataFrame, score_name: str = "score", most: int = 8) -> Figure:
    """Scores of methods over the presence settings of one data set.

    Args:
        table: methods by (setting, ``mean`` or ``sd``).
        score_name: what the score is.
        most: how many methods to show, the best by their mean over settings.
    """
    means = cast(pd.DataFrame, table.xs("mean", axis=1, level=1))
    spread = cast(pd.DataFrame, table.xs("sd", axis=1, level=1))
    best = means.mean(axis=1).sort_values(ascending=False, kind="stable").index[:most]
    with quiet():
        figure = new_figure(3.2)
        axes = figure.add_subplot()
        no_grid(axes, "x")
        places = np.arange(means.shape[1])
        for number, name in enumerate(best):
            shift = (number - (len(best) - 1) / 2) * 0.09
            error = spread.loc[name].fillna(0).to_numpy(float)
            axes.errorbar(
                places + shift, means.loc[name].to_numpy(float), error, fmt="o", markersize=4.5, linewidth=1.2,
                color=PALETTE[number % len(PALETTE)], label=str(name),
            )  # fmt: skip
        axes.set_xticks(places, [str(setting) for setting in means.columns])
        axes.set_ylabel(score_name)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    return figure
