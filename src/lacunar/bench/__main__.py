"""``python -m lacunar.bench run RECIPE FOLDER``, ``... table FOLDER`` and ``... protocol RECIPE FOLDER``."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

from joblib import Parallel, delayed

from lacunar.bench.cells import Cell, run_cell
from lacunar.bench.protocol import protocol
from lacunar.bench.recipe import read_recipe
from lacunar.bench.tables import collect, comparison, markdown


def run(recipe: Path, out: Path, n_jobs: int = 1, only: str = "", limit: int = 0) -> None:
    """Run the cells of a recipe that are not there yet; interrupt and run again at will.

    Args:
        recipe: a YAML file.
        out: folder of the results.
        n_jobs: cells at a time, each on one thread.
        only: run cells whose ``problem | method`` matches this regular expression.
        limit: stop after this many seconds have begun their last cells; 0 runs everything.
    """
    cells = [cell for cell in read_recipe(recipe) if re.search(only, f"{cell.problem} | {cell.method}")]
    waiting = [cell for cell in cells if not (out / "cells" / f"{cell.key}.json").exists()]
    start = time.monotonic()
    print(f"{len(cells)} cells, {len(cells) - len(waiting)} finished before", file=sys.stderr, flush=True)

    def one(cell: Cell) -> tuple[Cell, dict | None, str]:
        if limit and time.monotonic() - start > limit:
            return cell, None, "left for the next run"
        try:
            return cell, run_cell(cell, out), ""
        except Exception as error:  # one cell that fails must not take the others with it
            return cell, None, f"failed: {type(error).__name__}: {error}"

    failed = 0
    stream = Parallel(n_jobs=n_jobs, return_as="generator_unordered")(delayed(_alone)(one, cell) for cell in waiting)
    for done, (cell, result, problem) in enumerate(stream, 1):
        failed += problem.startswith("failed")
        each = (time.monotonic() - start) / done
        left = f"{each * (len(waiting) - done) / 60:.0f} min left"
        said = problem or f"mean {result['mean']:.3f} worst {result['worst']:.3f} in {result['seconds']:.1f} s"  # type: ignore[index]
        print(
            f"[{done}/{len(waiting)}, {left}] {cell.problem} | {cell.method} | {cell.seed}: {said}",
            file=sys.stderr,
            flush=True,
        )
    if failed:
        sys.exit(f"{failed} cells failed; run the recipe again to try them once more")


def _alone(call, cell: Cell):
    import os

    os.environ["OMP_NUM_THREADS"] = "1"
    return call(cell)


def table(folder: Path, against: str = "default", measure: str = "mean", problems: str = "") -> None:
    """Print the comparison of all methods on the problems whose name contains a text, as Markdown."""
    results = collect(folder)
    names = [name for name in dict.fromkeys(results["problem"]) if problems in name]
    print(
        markdown(comparison(results, names, against, measure), against, percent=measure not in ("log_loss", "seconds"))
    )


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli([run, table, protocol], as_positional=True)
