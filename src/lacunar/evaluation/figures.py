"""A subset table as a figure: which modalities, and how well they do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lacunar.evaluation.table import SubsetTable

__all__ = ["save_figure", "subset_figure"]

INK, SOFT, FAINT = "#1b1f24", "#6b7480", "#e3e6ea"
POINT, WORST, EXPERT = "#0072b2", "#d55e00", "#009e73"
EVERY_SUBSET = 6
"""Up to this many modalities each subset has a column of its own."""
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": SOFT,
    "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.linewidth": 0.8, "figure.facecolor": "white", "axes.facecolor": "white", "text.parse_math": False,
    "svg.fonttype": "none",
}  # fmt: skip


def subset_figure(table: SubsetTable) -> Figure:
    """Score and interval of every subset, above dots that say which modalities it holds.

    Subsets stand from small to large and from best to worst within a size; the worst is marked, a dashed line shows
    the best constant prediction, and a short line what the best single-modality expert scores where experts are known.
    Above six modalities the subsets are drawn as clouds by size.

    Returns:
        A matplotlib figure that belongs to no window.
    """
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        return _columns(table) if len(table.names) <= EVERY_SUBSET else _clouds(table)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        figure.savefig(partial, dpi=160)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _columns(table: SubsetTable) -> Figure:
    from matplotlib.figure import Figure

    frame = table.frame.iloc[1:]
    order = np.lexsort((-frame["score"].fillna(-1).to_numpy(), frame["size"].to_numpy()))
    codes = np.asarray(table.codes[1:])[order]
    frame = frame.iloc[order]
    many, M = len(frame), len(table.names)
    width = float(np.clip(2.2 + 0.42 * many, 6.0, 14.0))
    scale = min(1.0, (width - 2.2) / (0.42 * many))
    size = 5.2 + 3.8 * scale
    figure = Figure(figsize=(width, 3.1 + 0.27 * M), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [2.5, 0.27 * M]})
    x = np.arange(many)
    _separate_sizes((above, below), frame["size"].to_numpy())

    score, low, high = (frame[name].to_numpy(dtype=float) for name in ("score", "low", "high"))
    colours = np.where(frame.index == table.worst.subset, WORST, POINT)
    above.axhline(table.baseline, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    above.vlines(x, low, high, color=colours, linewidth=1.2 + 1.2 * scale, alpha=0.4, zorder=2)
    above.scatter(x, score, s=size**2 / 1.7, color=colours, zorder=4, linewidth=0)
    if table.expert_scores is not None:
        experts = table.experts["expert score"].reindex(frame.index).to_numpy()
        above.hlines(experts, x - 0.32, x + 0.32, color=EXPERT, linewidth=1.8, zorder=3)
    if many <= 15:
        for place, value, top in zip(x, score, high):
            if np.isfinite(value):
                above.annotate(
                    f"{value:.2f}", (place, top), (0, 3), textcoords="offset points", ha="center", fontsize=8
                )
    for place in x[~np.isfinite(score)]:
        above.annotate("n = 0", (place, table.baseline), (0, 4), textcoords="offset points", ha="center", fontsize=7,
                       color=SOFT)  # fmt: skip
    _score_axis(above, table, np.concatenate([low, high, [table.baseline]]))
    above.tick_params(axis="x", length=0)

    for m in range(M):
        below.axhspan(m - 0.5, m + 0.5, color="#f6f7f9" if m % 2 == 0 else "white", zorder=0, linewidth=0)
        member = (codes >> m & 1).astype(bool)
        below.scatter(x[~member], np.full((~member).sum(), m), s=size**2, color=FAINT, zorder=2, linewidth=0)
        inside = np.where(frame.index[member] == table.worst.subset, WORST, INK)
        below.scatter(x[member], np.full(member.sum(), m), s=size**2, color=inside, zorder=4, linewidth=0)
    for place, code, label in zip(x, codes, frame.index):
        inside_rows = [m for m in range(M) if code >> m & 1]
        colour = WORST if label == table.worst.subset else INK
        below.vlines(place, inside_rows[0], inside_rows[-1], color=colour, linewidth=1.0 + scale, zorder=3)
    below.set_yticks(range(M), table.names)
    below.set_ylim(M - 0.5, -0.5)
    below.set_xlim(-0.7, many - 0.3)
    below.set_xticks([])
    for spine in below.spines.values():
        spine.set_visible(False)
    below.tick_params(axis="y", length=0)
    _legend(figure, table)
    return figure


def _clouds(table: SubsetTable) -> Figure:
    from matplotlib.figure import Figure

    frame = table.frame.iloc[1:]
    sizes = frame["size"].to_numpy()
    figure = Figure(figsize=(8.4, 4.4), layout="constrained")
    axes = figure.subplots()
    generator = np.random.default_rng(0)
    axes.axhline(table.baseline, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    spread = generator.uniform(-0.3, 0.3, len(frame)) * np.minimum(1, np.bincount(sizes)[sizes] / 20)
    spread[np.bincount(sizes)[sizes] <= len(table.names)] = 0.0
    alpha = float(np.clip(40 / np.sqrt(len(frame)) / 4, 0.15, 0.7))
    axes.scatter(sizes + spread, frame["score"], s=13, color=POINT, alpha=alpha, linewidth=0, zorder=2)
    means = frame.groupby("size")["score"].mean()
    axes.plot(means.index, means, color=INK, linewidth=1.4, marker="o", markersize=5, zorder=4)
    singles = frame[frame["size"] == 1]["score"].sort_values()
    for name in dict.fromkeys([singles.index[0], singles.index[-1]]):
        axes.annotate(
            str(name), (1, singles[name]), (9, 0), textcoords="offset points", va="center", fontsize=8, color=SOFT
        )
    worst = table.worst
    place = sizes[frame.index.get_loc(worst.subset)] + spread[frame.index.get_loc(worst.subset)]
    axes.scatter([place], [worst.score], s=34, color=WORST, zorder=5, linewidth=0)
    shown = np.concatenate([frame["score"].to_numpy(dtype=float), [table.baseline]])
    _score_axis(axes, table, shown)
    axes.set_xticks(range(1, len(table.names) + 1))
    axes.set_xlabel("modalities in the subset (black: mean of the subsets of this size)")
    _legend(figure, table)
    return figure


def _separate_sizes(panels: tuple[Axes, Axes], sizes: np.ndarray) -> None:
    for place in np.flatnonzero(np.diff(sizes)):
        for axes in panels:
            axes.axvline(place + 0.5, color=FAINT, linewidth=0.9, zorder=0.5)


def _score_axis(axes: Axes, table: SubsetTable, shown: np.ndarray) -> None:
    shown = shown[np.isfinite(shown)]
    margin = 0.12 * max(float(shown.max() - shown.min()), 0.05)
    axes.set_ylim(max(0.0, shown.min() - margin), shown.max() + 1.5 * margin)
    axes.set_ylabel(table.score_name)
    axes.grid(axis="y", color=FAINT, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)


def _legend(figure: Figure, table: SubsetTable) -> None:
    from matplotlib.lines import Line2D

    def dot(colour: str) -> dict[str, Any]:
        return {"marker": "o", "color": colour, "linestyle": "none", "markersize": 6, "markeredgewidth": 0}

    low, high = table.mean_interval
    handles = [
        Line2D([], [], **dot(POINT), label=f"mean of the subsets {table.mean:.3f} [{low:.3f}, {high:.3f}]"),
        Line2D([], [], **dot(WORST), label=f"worst: {table.worst}"),
        Line2D([], [], color=SOFT, linewidth=1, linestyle=(0, (4, 3)), label=f"nothing known {table.baseline:.3f}"),
    ]
    if table.expert_scores is not None and len(table.names) <= EVERY_SUBSET:
        handles.append(Line2D([], [], color=EXPERT, linewidth=1.8, label="best single expert"))
    columns = len(handles) if figure.get_figwidth() > 8 else 2
    figure.legend(
        handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=8.5, handletextpad=0.5,
        columnspacing=1.6,
    )  # fmt: skip
