"""``lacunar report``: the page of a run, written again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lacunar.cli.console import say, show_log
from lacunar.cli.options import make_parser, parse

__all__ = ["run"]


def run(words: Sequence[str]) -> int:
    """Write the report from what the run's folder holds; nothing is trained or scored again unless asked."""
    parser = make_parser("report", "Write the HTML report of a run again.")
    parser.add_argument("run", type=str, help="folder of a run")
    parser.add_argument("--out", type=str, help="file to write (default: report.html in the folder)")
    parser.add_argument("--title", type=str, help="heading of the page")
    parser.add_argument("--min_cell", type=int, default=0, help="hide counts of samples from 1 to one below this")
    parser.add_argument("--probes", type=bool, default=False, help="first probe each encoder (reads the data again)")
    options = parse(parser, words)
    show_log(quiet=True)
    from lacunar.report import report

    folder = Path(options.run)
    if options.probes:
        from lacunar.cli.evaluate import parts_of
        from lacunar.cli.train import probe
        from lacunar.training.run import load_run

        probe(load_run(folder), parts_of(folder), folder)
    page = report(folder, path=options.out, title=options.title, min_cell=options.min_cell)
    say(f"report  {page}")
    return 0
