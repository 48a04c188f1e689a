"""``lacunar bench``: every method on the same data, presence tables and seeds; a page of what came out; tuning."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lacunar.cli.console import console, say, show_log, show_progress
from lacunar.cli.options import import_from_here, make_parser, parse
from lacunar.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from lacunar.bench.runner import Step

__all__ = ["run"]

FAILED = 1


def run(words: Sequence[str]) -> int:
    """Run, report, tune, export or import."""
    commands: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
        "run": (_run, "run the cells of a recipe that are not there yet"),
        "report": (_report, "tables, statistics, figures and one page from the results of a folder"),
        "tune": (_tune, "search the hyper-parameters of a recipe's methods on validation"),
        "export": (_export, "write the finished cells of a folder into one file"),
        "import": (_import, "put the cells of such a file into a folder, where a run goes on from them"),
    }
    if not words or words[0] in ("-h", "--help"):
        lines = ["usage: lacunar bench COMMAND [options]", "", "Compare methods on equal footing.", "", "commands:"]
        lines += [f"  {name:<8}{purpose}" for name, (_, purpose) in commands.items()]
        say(*lines, "", "'lacunar bench COMMAND --help' lists the options of a command.")
        return 0
    if words[0] not in commands:
        raise ConfigError(f"unknown command 'bench {words[0]}'.{did_you_mean(words[0], commands)}")
    import_from_here()
    return commands[words[0]][0](words[1:])


def _run(words: Sequence[str]) -> int:
    parser = make_parser(
        "bench run",
        "Run a recipe: data sets x presence settings x methods x seeds. Interrupt and run again to go on; finished "
        "cells never run again.",
    )
    parser.add_argument("recipe", type=str, help="a YAML file")
    parser.add_argument("--out", type=str, help="folder of the results")
    parser.add_argument("--n_jobs", type=int, default=1, help="cells at a time on this machine")
    parser.add_argument(
        "--only",
        type=str,
        default="",
        help="a text or regular expression in 'problem | method | seed'",
    )
    parser.add_argument(
        "--cluster",
        type=str,
        help="run on Dask instead: local:2 (two workers here) or a scheduler, tcp://host:8786, whose workers were "
        "started with --nthreads 1",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of each cell; 1 is right for small data")
    parser.add_argument("--limit", type=float, default=0, help="begin no cell after this many seconds; 0: begin all")
    options = parse(parser, words)
    out = _needed(options.out, "--out is needed, for example --out results/benchmark.")
    show_log(quiet=True)
    from lacunar.bench.cells import select
    from lacunar.bench.recipe import open_recipe
    from lacunar.bench.runner import run_cells

    recipe = open_recipe(options.recipe)
    everything = recipe.cells
    cells = select(everything, options.only)
    if not cells:
        example = f"{everything[0].problem} | {everything[0].method} | {everything[0].seed}"
        raise ConfigError(f"--only {options.only!r} matches none of {len(everything)} cells, such as {example!r}.")
    for sentence in recipe.uneven:
        say(sentence)
    counts = {"failed": 0, "refused": 0, "left": 0}
    with _shown(len(cells)) as show:
        for step in run_cells(cells, out, options.n_jobs, options.cluster, options.threads, options.limit):
            counts["failed"] += step.failed
            counts["left"] += step.result is None and not step.failed
            counts["refused"] += "refused" in (step.result or {})
            show(step)
    finished = len(cells) - counts["failed"] - counts["left"]
    say(f"{finished} of {len(cells)} cells are finished in {out}.")
    if counts["refused"]:
        say(f"{counts['refused']} were refused by their method: the report lists them with the reason.")
    if counts["left"]:
        say(f"{counts['left']} were left for the next run.")
    if counts["failed"]:
        say(f"{counts['failed']} failed: {Path(out) / 'failures'} says where. Run again to try them once more.")
        return FAILED
    return 0


@contextlib.contextmanager
def _shown(cells: int) -> Iterator[Callable[[Step], None]]:
    """A bar with the time left on a terminal, otherwise a line for each cell."""
    if not show_progress():
        out = console(stderr=True)

        def line(step: Step) -> None:
            left = "" if step.left is None else f", {_duration(step.left)} left"
            cell = step.cell
            text = f"[{step.done}/{step.total}{left}] {cell.problem} | {cell.method} | {cell.seed}: {step.said}"
            out.print(text, markup=False)

        yield line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("cells"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console(stderr=True)) as bar:
        task = bar.add_task("cells", total=None, left="")

        def draw(step: Step) -> None:
            left = "" if step.left is None else f"{_duration(step.left)} left"
            bar.update(task, total=cells, completed=cells - step.total + step.done, left=left)
            if step.failed or "refused" in (step.result or {}):
                cell = step.cell
                bar.console.print(f"{cell.problem} | {cell.method} | {cell.seed}: {step.said}", markup=False)

        yield draw


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _report(words: Sequence[str]) -> int:
    parser = make_parser("bench report", "Write tables, statistics, figures and one HTML page from results.")
    parser.add_argument("folder", type=str, help="folder of the results")
    parser.add_argument("--out", type=str, help="the page (default: report.html in the folder); tables lie beside it")
    parser.add_argument(
        "--against",
        type=str,
        help="the method that the others are compared with (default: MCE, else the default or joint)",
    )
    parser.add_argument("--problems", type=str, default="", help="a text or regular expression in the problem's name")
    parser.add_argument("--reported", type=str, help="a YAML file with numbers that papers report, shown apart")
    parser.add_argument("--confidence", type=float, default=0.95, help="coverage of the intervals")
    parser.add_argument("--title", type=str, help="heading of the page")
    options = parse(parser, words)
    show_log(quiet=True)
    from lacunar.bench.report import write_report

    written = write_report(
        options.folder, options.out, against=options.against, problems=options.problems, reported=options.reported,
        confidence=options.confidence, title=options.title,
    )  # fmt: skip
    say(f"report  {written.page}", f"tables  {written.tables}")
    return 0


def _tune(words: Sequence[str]) -> int:
    parser = make_parser(
        "bench tune",
        "Search the hyper-parameters of methods on validation, for each problem and seed by itself, with the same "
        "number of trials for each. The test part is not read. Run again to go on, or with more trials. Peers, the "
        "default and methods without ranges stay as they are.",
    )
    parser.add_argument("recipe", type=str, help="a YAML file")
    parser.add_argument("--out", type=str, help="folder of the studies and of tuned.yaml")
    parser.add_argument("--method", type=str, help="one method of the recipe (default: all that can be tuned)")
    parser.add_argument("--problem", type=str, help="one problem of the recipe, setting included (default: all)")
    parser.add_argument(
        "--trials", type=int, help="of each method, problem and seed (default: what the recipe says, or 10)"
    )
    parser.add_argument("--seeds", type=int, help="tune for so many seeds, the first ones (default: all of the recipe)")
    parser.add_argument("--n_jobs", type=int, default=1, help="searches at a time")
    options = parse(parser, words)
    out = _needed(options.out, "--out is needed, for example --out results/tuning.")
    show_log(quiet=True)
    from lacunar.bench.tune import tune

    def show(study: Any) -> None:
        gain = study.best_score - study.first_score
        said = f"validation {study.first_score:.3f} as given, {study.best_score:.3f} ({gain:+.3f}) with {study.best}"
        found = f"refused: {study.refused}" if study.refused else f"{study.trials} trials, {said}"
        say(f"{study.problem} | {study.method} | {study.seed}: {found}")

    found = tune(
        options.recipe, out, method=options.method, problem=options.problem, trials=options.trials,
        seeds=options.seeds, n_jobs=options.n_jobs, progress=show,
    )  # fmt: skip
    say(f"arguments  {found}", "In a recipe:  tuned: " + str(found))
    return 0


def _export(words: Sequence[str]) -> int:
    parser = make_parser(
        "bench export",
        "Write finished cells into one file, a line each. Cells that the file holds and the folder does not stay: "
        "exports add up.",
    )
    parser.add_argument("folder", type=str, help="folder of the results")
    parser.add_argument("--out", type=str, help="the file, for example benchmark.jsonl")
    options = parse(parser, words)
    out = _needed(options.out, "--out is needed, for example --out benchmark.jsonl.")
    from lacunar.bench.archive import export_cells

    say(f"{out} holds {export_cells(options.folder, out)} cells.")
    return 0


def _import(words: Sequence[str]) -> int:
    parser = make_parser(
        "bench import", "Put exported cells into a folder of results; cells that are there already stay as they are."
    )
    parser.add_argument("file", type=str, help="what 'lacunar bench export' wrote")
    parser.add_argument("--out", type=str, help="folder of the results")
    options = parse(parser, words)
    out = _needed(options.out, "--out is needed, for example --out results/benchmark.")
    from lacunar.bench.archive import import_cells

    say(f"{import_cells(options.file, out)} cells were put into {out}.")
    return 0


def _needed(value: str | None, message: str) -> str:
    if value is None:
        raise ConfigError(message)
    return value
