"""The command line. A command is a module of its own, imported when it is asked for: help answers at once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module

from lacunar.errors import LacunarError, did_you_mean

__all__ = ["COMMANDS", "main"]

#: Module and purpose of each command, in the order of the help.
COMMANDS = {
    "demo": ("demo", "train and compare on the embedded data set, end to end, with a report"),
    "data": ("data", "look at data: 'lacunar data describe patients.yaml'"),
    "train": ("train", "train one model for every subset, test it once, write a report"),
    "evaluate": ("evaluate", "score a trained model on every subset of its modalities"),
    "predict": ("predict", "predict new samples, whichever modalities they have"),
    "report": ("report", "write the HTML report of a run again"),
    "bench": ("bench", "compare all methods on equal footing: run a recipe, report, tune"),
    "plan": ("plan", "which modalities to collect next, at what price, and whether at all"),
    "doctor": ("doctor", "versions, optional packages and devices, and what to do about what is missing"),
}
INTERRUPTED = 130
WRONG = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0: done. 1: an error nobody foresaw. 2: wrong use or data, told in one line. 130: interrupted, by Ctrl-C or by the
    SIGTERM of a batch system.
    """
    if arguments is None and threading.current_thread() is threading.main_thread():
        # Otherwise worker processes would outlive the command, and what is under way would not be told.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    words = list(sys.argv[1:] if arguments is None else arguments)
    traceback = "--traceback" in words
    words = [word for word in words if word != "--traceback"]
    try:
        return _run(words)
    except LacunarError as error:
        if traceback:
            raise
        print(f"lacunar: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt as error:
        if traceback:
            raise
        if not error.args:  # training has said what it kept
            print(f"\nlacunar: interrupted. {_how_to_go_on(words)}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader went away, as head does
        sys.stderr.close()
        return 0


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"lacunar {version('lacunar')}")
        return 0
    command, rest = words[0], words[1:]
    if command not in COMMANDS:
        kind = "option" if command.startswith("-") else "command"
        print(f"lacunar: unknown {kind} {command!r}.{did_you_mean(command, COMMANDS)}", file=sys.stderr)
        return WRONG
    try:
        return import_module(f"lacunar.cli.{COMMANDS[command][0]}").run(rest)
    except SystemExit as stop:  # how argparse ends a request for help
        return int(stop.code or 0)


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [
        "usage: lacunar COMMAND [options]",
        "",
        "Multimodal learning when modalities are missing.",
        "",
        "commands:",
    ]
    lines += [f"  {name:<{width}}{purpose}" for name, (_, purpose) in COMMANDS.items()]
    lines += [
        "",
        "options:",
        "  -h, --help     this page; 'lacunar COMMAND --help' for the options of a command",
        "  --version      the version",
        "  --traceback    show where an error came from",
    ]
    return "\n".join(lines)


def _how_to_go_on(words: list[str]) -> str:
    if words and words[0] in ("train", "demo"):
        return "Run the same command again to go on from the last finished epoch."
    if words and words[0] == "bench":
        return "What is finished is kept; run the same command again to go on."
    return "Nothing was left half-written; run the same command again."
