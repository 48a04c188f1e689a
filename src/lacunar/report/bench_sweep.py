"""The section of a comparison about numbers of an objective: each of them alone, and two at a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from lacunar.report.bench_numbers import points
from lacunar.report.page import Block, Column, Drawing, Row, Section, Table, Text
from lacunar.report.style import INK, PALETTE, new_figure, no_grid, quiet

__all__ = ["Sweep", "alone_figure", "pairs_figure", "sweep_section"]


@dataclass(frozen=True)
class Sweep:
    """Methods that are one objective with other numbers.

    Attributes:
        objective: its name.
        against: the method in the middle.
        values: methods by argument.
        differences: ``problem``, ``seed``, ``method`` and ``difference``, the mean over subsets minus that of
            ``against`` on the same problem and seed.
    """

    objective: str
    against: str
    values: pd.DataFrame
    differences: pd.DataFrame

    @property
    def arguments(self) -> list[str]:
        """Those that vary while all others stay."""
        return [str(name) for name in self.values if self.plane(str(name))[name].nunique() > 1]

    def plane(self, *arguments: str) -> pd.DataFrame:
        """The methods that have the numbers of ``against`` in all other arguments, in the order of these."""
        rest = self.values.drop(columns=list(arguments))
        found = self.values[(rest == rest.loc[self.against]).all(axis=1)]
        return found.sort_values(list(arguments), kind="stable")[list(arguments)]

    @property
    def extremes(self) -> list[str]:
        """The method in the middle, and for each argument those with its smallest and largest number alone."""
        names = [self.against]
        for argument in self.arguments:
            line = self.plane(argument)
            names += [str(line.index[0]), str(line.index[-1])]
        return list(dict.fromkeys(names))

    @property
    def means(self) -> pd.DataFrame:
        """Differences by method and problem, means over seeds."""
        return self.differences.pivot_table(index="method", columns="problem", values="difference", sort=False)

    def grid(self, first: str, second: str) -> pd.DataFrame:
        """Differences by two arguments, means over problems and seeds; empty where the two vary in nothing that has
        run."""
        plane = self.plane(first, second)
        both = plane[(plane != plane.loc[self.against]).all(axis=1)]
        if both.empty:
            return pd.DataFrame()
        kept = [{*both[name], plane.loc[self.against, name]} for name in (first, second)]
        plane = plane[plane[first].isin(kept[0]) & plane[second].isin(kept[1])]
        return plane.assign(mean=self.means.mean(axis=1)).pivot_table(index=second, columns=first, values="mean")


def sweep_section(sweep: Sweep | None) -> Section:
    """How far scores move with the numbers of an objective (Figs. 4 and 5 of MCE)."""
    if sweep is None:
        return Section("sweep", "Robustness")
    text = (
        f"{sweep.objective} with other numbers, each minus {sweep.against} in points: the same problems, samples, "
        "missing cells and seeds, the mean over subsets. One argument varies, all others stay."
    )
    shown = "Means over seeds; where there are several, a band from the lowest to the highest."
    blocks: list[Block] = [
        Text(text),
        Drawing(alone_figure(sweep), f"{sweep.objective}: each argument alone", shown),
        _alone_table(sweep),
    ]
    grids = {pair: sweep.grid(*pair) for pair in itertools.combinations(sweep.arguments, 2)}
    grids = {pair: grid for pair, grid in grids.items() if len(grid)}
    if grids:
        words = "; ".join(f"{first} and {second}: {_range(grid)}" for (first, second), grid in grids.items())
        caption = "Means over problems and seeds in points; dark is far from zero, orange below it, blue above."
        blocks.append(Drawing(pairs_figure(list(grids.values())), f"Two arguments at a time. {words}", caption))
    return Section("sweep", f"Robustness to the numbers of {sweep.objective}", blocks)


def _alone_table(sweep: Sweep) -> Table:
    means = sweep.means
    rows = []
    for argument in sweep.arguments:
        line = sweep.plane(argument)[argument].drop(sweep.against)
        for value, found in zip(line, means.reindex(line.index).to_numpy(float)):
            rows.append(Row([argument, f"{value:g}", *map(points, found), points(found.mean())]))
    columns = [Column("argument", False), Column("value"), *(Column(str(problem)) for problem in means), Column("mean")]
    return Table(f"One argument alone, difference to {sweep.against}", columns, rows)


def alone_figure(sweep: Sweep) -> Figure:
    """A panel for each argument, a line for each problem: differences in points by its value."""
    names = sweep.arguments
    problems = list(dict.fromkeys(sweep.differences["problem"]))
    table = sweep.differences.assign(difference=100 * sweep.differences["difference"])
    with quiet():
        figure = new_figure(2.9)
        panels = np.atleast_1d(figure.subplots(1, len(names), sharey=True))
        for axes, name in zip(panels, names):
            line = sweep.plane(name)[name]
            for number, problem in enumerate(problems):
                own = table[table["problem"] == problem].groupby("method")["difference"]
                seeds = own.agg(["mean", "min", "max"]).reindex(line.index)
                tint = PALETTE[number % len(PALETTE)]
                axes.plot(line, seeds["mean"], "o-", markersize=3.5, color=tint, label=str(problem))
                axes.fill_between(line, seeds["min"], seeds["max"], color=tint, alpha=0.18, linewidth=0)
            if (line > 0).all():
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axes.xaxis.set_minor_locator(NullLocator())
            axes.axhline(0, color=INK, linewidth=0.9)
            axes.axvline(sweep.values.loc[sweep.against, name], color=INK, linewidth=0.9, linestyle=":")
            axes.set_title(name)
            axes.set_xlabel("value")
        panels[0].set_ylabel(f"difference to {sweep.against}, points")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))
    return figure


def pairs_figure(grids: Sequence[pd.DataFrame]) -> Figure:
    """A map for each pair of arguments, its differences written into it.

    Args:
        grids: differences of shares, with the names of both arguments as the names of index and columns.
    """
    far = max(np.nanmax(np.abs(grid.to_numpy(float))) for grid in grids) or 1.0
    tints = LinearSegmentedColormap.from_list("differences", [PALETTE[4], "#f4f4f4", PALETTE[0]])
    with quiet():
        figure = new_figure(2.6)
        for axes, grid in zip(np.atleast_1d(figure.subplots(1, len(grids))), grids):
            no_grid(axes)
            values = grid.to_numpy(float)
            axes.imshow(values, cmap=tints, vmin=-far, vmax=far, origin="lower", aspect="auto")
            for (row, column), value in np.ndenumerate(values):
                if np.isfinite(value):
                    # On the map itself: the page's own ink would vanish on one of its themes.
                    ink = "#ffffff" if abs(value) > 0.6 * far else "#000000"
                    axes.text(column, row, points(value), ha="center", va="center", color=ink, fontsize=8)
            axes.set_xticks(range(grid.shape[1]), [f"{value:g}" for value in grid.columns])
            axes.set_yticks(range(grid.shape[0]), [f"{value:g}" for value in grid.index])
            axes.set(xlabel=str(grid.columns.name), ylabel=str(grid.index.name))
    return figure


def _range(grid: pd.DataFrame) -> str:
    values = grid.to_numpy(float)
    return f"{points(np.nanmin(values))} to {points(np.nanmax(values))}"
