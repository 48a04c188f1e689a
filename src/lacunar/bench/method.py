"""A method of a recipe: the objective that it names, and what may be searched of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lacunar.errors import ConfigError, did_you_mean
from lacunar.objectives import Objective, get
from lacunar.objectives.mce import MCE
from lacunar.objectives.ranges import Between, OneOf, Ranges

__all__ = ["arguments_of", "check_objective", "make_objective", "ranges_of"]


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
    """What may be searched of a method, wide enough for what the recipe says; nothing of peers and of the default.

    An argument that the recipe sets to 0 is switched off, and stays so where its scale is logarithmic.
    """
    name = run.get("objective", "default")
    if "peer" in run or name in ("default", "table_2"):
        return {}
    given = arguments_of(run)
    ranges: dict[str, Between | OneOf] = {}
    for argument, span in get(name).ranges.items():
        value = given[argument]
        if isinstance(span, OneOf):
            ranges[argument] = span if value in span.values else OneOf((*span.values, value))
        elif value > 0 or not span.log:
            ranges[argument] = replace(span, low=min(span.low, value), high=max(span.high, value))
    return ranges


def arguments_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a method: what the recipe says, else its defaults."""
    defaults = {name: it.default for name, it in inspect.signature(get(run["objective"])).parameters.items()}
    return defaults | dict(run.get("arguments") or {})
