"""Output for people: tables when a terminal reads them, plain lines when a file does."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["console", "frame", "say", "show_log", "show_progress", "table"]


def console(stderr: bool = False) -> Console:
    """A console on the stream as it is now; without a terminal lines are as long as they are."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 200, highlight=False, soft_wrap=not stream.isatty())


def say(*lines: str, style: str | None = None) -> None:
    """Print lines as they are: brackets in a name are not markup."""
    out = console()
    for line in lines:
        out.print(Text(line, style=style or ""))


def table(title: str, columns: list[str], rows: list[list[str]], left: int = 1) -> None:
    """Print a table; the first ``left`` columns are words, the others numbers."""
    drawn = Table(title=Text(title, style="bold"), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        drawn.add_column(Text(column, style="dim"), justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    console().print(drawn)


def frame(title: str, data: pd.DataFrame, digits: int = 3) -> None:
    """Print a data frame with its index as first column."""
    from lacunar.report.page import number

    heading = [str(data.index.name or "")] + [str(column).replace("_", " ") for column in data.columns]
    rows = [
        [str(key), *(number(value, digits) for value in row)] for key, row in zip(data.index, data.to_numpy(object))
    ]
    table(title, heading, rows)


def show_progress() -> bool:
    """Whether bars make sense: on a terminal, unless ``LACUNAR_PROGRESS=none``."""
    return sys.stderr.isatty() and os.environ.get("LACUNAR_PROGRESS", "") != "none"


def show_log(quiet: bool = False) -> None:
    """Let what the library logs be seen, one plain line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("lacunar")
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False
    # It speaks of every copy that is made on the way; what was left out of the data stands in the report.
    logging.getLogger("lacunar.data.dataset").setLevel(logging.WARNING)
    # References take a while, too: say which one is being trained.
    logging.getLogger("lacunar.training.references").setLevel(logging.WARNING if quiet else logging.DEBUG)
