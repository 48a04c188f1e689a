"""Arguments held against their annotations: text where a number is meant, or NaN, is told by name."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

import numpy as np

from lacunar.errors import ConfigError

__all__ = ["at_least", "check_arguments", "checked"]

Given = ParamSpec("Given")
Result = TypeVar("Result")

#: What each plain annotation is in words, and what suits it.
_PLAIN: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "bool": ("True, False", lambda value: isinstance(value, (bool, np.bool_))),
    "int": ("a whole number", lambda value: isinstance(value, Integral) and not isinstance(value, bool)),
    "float": (
        "a finite number",
        lambda value: isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value),
    ),
    "None": ("None", lambda value: value is None),
}


def checked(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """A function that refuses what does not suit an annotation of ``bool``, ``int`` or ``float``, ``| None`` or not.

    Other annotations are left to the function itself, as are ranges. Of a constructor the message names the class.

    Raises:
        ConfigError: from the function, before anything else.
    """
    signature = inspect.signature(function)
    plain = _plain_parameters(signature)
    constructor = function.__name__ == "__init__"

    @functools.wraps(function)
    def wrapper(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        given = signature.bind(*args, **kwargs).arguments
        _check(plain, given, type(args[0]).__name__ if constructor else function.__name__)
        return function(*args, **kwargs)

    return wrapper


def check_arguments(function: Callable[..., Any], given: Mapping[str, Any], where: str) -> None:
    """Hold arguments against the annotations of a function that is not called yet.

    Raises:
        ConfigError: as from a :func:`checked` function; ``where`` begins the message.
    """
    _check(_plain_parameters(inspect.signature(function)), given, where)


def at_least(least: float, **given: float | None) -> None:
    """Refuse numbers below ``least``, by name; None is not given.

    Raises:
        ConfigError: for the first of them.
    """
    for name, value in given.items():
        if value is not None and value < least:
            raise ConfigError(f"{name}: expected at least {least:g}, got {value!r}.")


def _check(plain: Mapping[str, list[str]], given: Mapping[str, Any], where: str) -> None:
    for name, value in given.items():
        if name in plain and not any(_PLAIN[kind][1](value) for kind in plain[name]):
            raise ConfigError(f"{where}: {name}: expected {_said(plain[name])}, got {value!r}.")


def _said(kinds: list[str]) -> str:
    words = ", ".join(_PLAIN[kind][0] for kind in kinds)
    return " or ".join(words.rsplit(", ", 1))


def _plain_parameters(signature: inspect.Signature) -> dict[str, list[str]]:
    return {name: kinds for name, one in signature.parameters.items() if (kinds := _plain_kinds(one))}


def _plain_kinds(parameter: inspect.Parameter) -> list[str]:
    """The kinds that a parameter is annotated with when all of them are plain; an empty list otherwise."""
    annotation = parameter.annotation
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return []
    kinds = [kind.strip() for kind in text.split("|")]
    return kinds if all(kind in _PLAIN for kind in kinds) and kinds != ["None"] else []
