"""Run the benchmarks and write ``docs/benchmarks.md``."""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.measure import CLOCKS, Figure, Options, load
from benchmarks.page import machine, page

ALL = ("step", "modalities", "methods", "loop", "evaluation", "bounded", "utilities")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"which to run: {', '.join(ALL)}; all when left out")
    parser.add_argument("--rounds", type=int, default=21, help="repetitions of every alternative")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", choices=sorted(CLOCKS), default="wall",
        help="cpu: processor time of the process, for a busy machine; take --threads 1 with it",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="the page; docs/benchmarks.md when everything runs, else none")
    given = parser.parse_args()
    for name in given.names:
        if name not in ALL:
            parser.error(f"unknown benchmark {name!r}; there are {', '.join(ALL)}")
    out = given.out or (None if given.names else Path(__file__).parents[1] / "docs" / "benchmarks.md")

    torch.set_num_threads(given.threads)
    options, console, before = Options(given.rounds, given.clock), Console(soft_wrap=True), load()
    figures: list[Figure] = []
    start = time.perf_counter()
    for name in given.names or ALL:
        for figure in importlib.import_module(f"benchmarks.{name}").run(options):
            target = "" if figure.target is None else f"  (at most {figure.target:g}: {figure.verdict})"
            console.print(f"[bold]{figure.value:6.2f}[/bold]  {figure.section}: {figure.name}{target}", highlight=False)
            figures.append(figure)
    console.print(f"{time.perf_counter() - start:.0f} s", highlight=False)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page(figures, machine(options, before, load())), encoding="utf-8")
        console.print(f"written to {out}", highlight=False)


if __name__ == "__main__":
    main()
