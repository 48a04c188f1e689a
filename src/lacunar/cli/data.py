"""``lacunar data describe``: what is in a data set, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lacunar.cli.console import say, table
from lacunar.errors import ConfigError, did_you_mean

__all__ = ["describe_data", "run"]


def run(words: Sequence[str]) -> int:
    """Print sizes, missing rates, patterns and class counts."""
    import argparse

    parser = argparse.ArgumentParser(prog="lacunar data", description="Look at data.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    describe = commands.add_parser("describe", help="sizes, missing rates, patterns and parts of a data set")
    describe.add_argument("data", help="a YAML description, or the name of a data set (digits, htad, htad:FOLDER)")
    describe.add_argument("--min_cell", type=int, default=0, help="hide counts from 1 to one below this number")
    describe.add_argument("--seed", type=int, default=0, help="of the split")
    if words and words[0] not in ("describe", "-h", "--help"):
        raise ConfigError(f"unknown command 'data {words[0]}'.{did_you_mean(words[0], ['describe'])}")
    options, unknown = parser.parse_known_args(list(words))
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]}.{did_you_mean(unknown[0], ['--min_cell', '--seed'])}")
    if options.command is None:
        parser.print_help()
        return 0
    describe_data(options.data, options.seed, options.min_cell)
    return 0


def describe_data(data: str, seed: int = 0, min_cell: int = 0) -> None:
    """Print what a data set holds, and the parts that training would use."""
    from lacunar.cli.source import load_whole
    from lacunar.errors import LacunarError
    from lacunar.report.data import data_sections
    from lacunar.report.page import Preformatted, Table, Text
    from lacunar.report.summary import DataSummary

    found: Any = load_whole(data)
    problem = None
    if not hasattr(found, "parts") and found.target is not None:
        try:
            from lacunar.cli.source import load_parts

            found = load_parts(data, seed)
        except LacunarError as error:  # the data can be looked at all the same
            problem = error
    for section in data_sections(DataSummary.of(found), min_cell):
        say(section.title, style="bold")
        for block in section.blocks:
            if isinstance(block, (Text, Preformatted)):
                say(block.text)
            elif isinstance(block, Table):
                columns = [column.title for column in block.columns]
                words = sum(not column.number for column in block.columns)
                table(block.caption, columns, [row.cells for row in block.rows], left=words)
            say("")
    if problem is not None:
        reason = "the reason holds counts, see it without --min_cell" if min_cell > 1 else problem
        say(f"These data cannot be split for training as they are: {reason}", style="bold")
