"""Options of commands, and the suggestions that the parser itself does not make."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from lacunar.errors import ConfigError, did_you_mean

__all__ = ["import_from_here", "instantiate", "make_parser", "parse"]


def import_from_here() -> None:
    """Find classes of the user's own where the command is run."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def make_parser(command: str, description: str) -> ArgumentParser:
    """A parser whose errors are exceptions."""
    return ArgumentParser(prog=f"lacunar {command}", description=description, exit_on_error=False, allow_abbrev=False)


def parse(parser: ArgumentParser, words: Sequence[str], base: type | None = None) -> Namespace:
    """The options of a command.

    Args:
        parser: of the command.
        words: the command line after the command's name.
        base: the class whose subclasses one of the options names.

    Raises:
        ConfigError: anything wrong, with a suggestion where something similar exists.
    """
    try:
        return parser.parse_args(list(words))
    except ArgumentError as error:
        raise ConfigError(_explain(parser, str(error), base)) from error


def instantiate(parser: ArgumentParser, options: Namespace) -> Namespace:
    """Options with the objects that they describe."""
    build = getattr(parser, "instantiate", None) or parser.instantiate_classes
    return build(options)


def _explain(parser: ArgumentParser, message: str, base: type | None) -> str:
    options = [option for action in parser._actions for option in action.option_strings]
    unknown = re.search(r"[Uu]nrecognized arguments: (\S+)", message)
    if unknown:
        given = unknown.group(1).split("=")[0]
        if not given.startswith("-"):
            return f"unexpected argument {given!r}; 'lacunar {_name(parser)} --help' lists what is understood."
        return (
            f"unknown option {given}.{did_you_mean(given, options)}"
            if _close(given, options)
            else (f"unknown option {given}; 'lacunar {_name(parser)} --help' lists the options.")
        )
    inside = re.search(
        r"class_path '([^']+)':\s+.*?(?:Option|Key) '([^']+)' is not (?:accepted|expected)", message, re.DOTALL
    )
    if inside:
        path, option = inside.groups()
        return f"{path.rsplit('.', 1)[-1]} has no option {option!r}.{did_you_mean(option, _init_options(path))}"
    no_class = re.search(r"Expected a dot import path string: (\S+)", message)
    if no_class and base is not None:
        given = no_class.group(1)
        known = sorted(kind.__name__ for kind in _subclasses(base))
        hint = did_you_mean(given, known)
        return f"unknown {base.__name__.lower()} {given!r}.{hint} A class of your own is given as package.module.Class."
    group = re.search(r"Group '([\w.]+)' does not accept option '([^']+)'", message)
    if group:
        given = ".".join(group.groups())
        return f"unknown key {given!r}.{did_you_mean(given, [option.lstrip('-') for option in options])}"
    keys = re.search(r"[Kk]ey \"?'?([\w.]+)'?\"? is not expected", message)
    if keys is None:
        keys = re.search(r"(?:Option|Key) '([^']+)' is not (?:accepted|expected)", message)
    if keys:
        bare = [option.lstrip("-") for option in options]
        found = re.search(r"Parser key \"([\w.]+)\"", message)
        given = keys.group(1)
        if found and not given.startswith(found.group(1)):
            given = f"{found.group(1)}.{given}"
        return f"unknown key {given!r}.{did_you_mean(given, bare) if _close(given, bare) else ''}"
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", message)
    text = re.sub(r"a typing\.Literal(\[[^]]*\])", r"one of \1", text)
    text = re.sub(r"Parser key \"([\w.]+)\"", r"option --\1", text)
    return re.sub(r"\s+", " ", text).strip()


def _close(given: str, known: Iterable[str]) -> bool:
    return "Did you mean" in did_you_mean(given, known)


def _name(parser: ArgumentParser) -> str:
    return str(parser.prog).removeprefix("lacunar ")


def _subclasses(base: type) -> list[type]:
    found: list[type] = []
    below: list[type] = base.__subclasses__()
    for kind in below:
        found += [kind, *_subclasses(kind)]
    return found


def _init_options(path: str) -> list[str]:
    import importlib
    import inspect

    module, name = path.rsplit(".", 1)
    try:
        kind: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return []
    return [option for option in inspect.signature(kind.__init__).parameters if option != "self"]
