"""A method of a recipe: the objective that it names, and what may be searched of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from lacunar.errors import ConfigError, did_you_mean
from lacunar.objectives import Objective, get
from lacunar.objectives.mce import MCE
from lacunar.objectives.ranges import Ranges

__all__ = ["check_objective", "make_objective", "ranges_of"]


def make_objective(plan: Mapping[str, Any]) -> Objective | None:
    """The objective that a method of a recipe names; None for what ``lacunar.fit`` takes when it is given none.

    Raises:
        ConfigError: an unknown objective or argument.
    """
    name, arguments = plan.get("objective", "default"), dict(plan.get("arguments") or {})
    if name == "default":
        if arguments:
            raise ConfigError("The default takes no arguments: name its objective, MCE.")
        return None
    if name == "table_2":
        return MCE.table_2(arguments.pop("row"), **arguments)
    kind = get(name)
    known = list(inspect.signature(kind).parameters)
    for argument in arguments:
        if argument not in known:
            raise ConfigError(f"{name} has no argument {argument!r}.{did_you_mean(argument, known)}")
    return kind(**arguments)


def check_objective(run: Mapping[str, Any], where: str) -> None:
    """Raise a ConfigError that says where, if a method names no objective or gives it other arguments."""
    try:
        make_objective(run)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from error


def ranges_of(run: Mapping[str, Any]) -> Ranges:
    """What may be searched of a method; nothing of peers and of the default."""
    name = run.get("objective", "default")
    return {} if "peer" in run or name in ("default", "table_2") else get(name).ranges
