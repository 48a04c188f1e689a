"""``python -m lacunar.bench run RECIPE FOLDER``, ``... table FOLDER`` and ``... protocol RECIPE FOLDER``.

``lacunar bench`` is the command for people; this one needs no terminal and prints Markdown.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lacunar.bench.cells import select
from lacunar.bench.protocol import protocol
from lacunar.bench.recipe import read_recipe
from lacunar.bench.runner import run_cells
from lacunar.bench.tables import COSTS, LESS_IS_BETTER, collect, comparison, markdown


def run(recipe: Path, out: Path, n_jobs: int = 1, only: str = "", limit: int = 0) -> None:
    """Run the cells of a recipe that are not there yet; interrupt and run again at will.

    Args:
        recipe: a YAML file.
        out: folder of the results.
        n_jobs: cells at a time, each on one thread.
        only: run cells whose ``problem | method | seed`` holds this text or regular expression.
        limit: stop after this many seconds have begun their last cells; 0 runs everything.
    """
    failed = 0
    for step in run_cells(select(read_recipe(recipe), only), out, n_jobs, limit=limit):
        failed += step.failed
        cell, left = step.cell, "" if step.left is None else f", {step.left / 60:.0f} min left"
        line = f"[{step.done}/{step.total}{left}] {cell.problem} | {cell.method} | {cell.seed}: {step.said}"
        print(line, file=sys.stderr, flush=True)
    if failed:
        sys.exit(f"{failed} cells failed; run the recipe again to try them once more")


def table(folder: Path, against: str = "default", measure: str = "mean", problems: str = "") -> None:
    """Print the comparison of all methods on the problems whose name contains a text, as Markdown."""
    results = collect(folder)
    names = [name for name in dict.fromkeys(results["problem"]) if problems in name]
    percent = measure not in ("log_loss", "seconds", *COSTS)
    best = min if measure in LESS_IS_BETTER else max
    print(markdown(comparison(results, names, against, measure), against, percent, best))


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli([run, table, protocol], as_positional=True)
