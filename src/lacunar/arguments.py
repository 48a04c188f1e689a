"""Arguments held against their annotations: text where a number is meant, or NaN, is told by name."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from lacunar.errors import ConfigError, did_you_mean

__all__ = ["above", "arguments_for", "at_least", "check_arguments", "checked"]

Given = ParamSpec("Given")
Result = TypeVar("Result")


class _Kind(NamedTuple):
    said: str
    suits: Callable[[Any], bool]


#: The plain annotations: what each is in words, and what suits it.
_PLAIN = {
    "bool": _Kind("True, False", lambda value: isinstance(value, (bool, np.bool_))),
    "int": _Kind("a whole number", lambda value: isinstance(value, Integral) and not isinstance(value, bool)),
    "float": _Kind(
        "a finite number",
        lambda value: isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value),
    ),
    "None": _Kind("None", lambda value: value is None),
}


class _Plain(NamedTuple):
    """A parameter with plain annotations only; its default always suits it."""

    kinds: tuple[str, ...]
    default: Any

    def suits(self, value: Any) -> bool:
        return value is self.default or any(_PLAIN[kind].suits(value) for kind in self.kinds)

    @property
    def said(self) -> str:
        words = ", ".join(_PLAIN[kind].said for kind in self.kinds)
        return " or ".join(words.rsplit(", ", 1))


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
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:  # Python's own message names the function, too
            return function(*args, **kwargs)
        given = bound.arguments
        _check(plain, given, type(next(iter(given.values()))).__name__ if constructor else function.__name__)
        for name in plain.keys() & given.keys():
            if isinstance(given[name], np.generic):  # not everything that takes numbers takes NumPy's
                given[name] = given[name].item()
        return function(*bound.args, **bound.kwargs)

    return wrapper


def check_arguments(function: Callable[..., Any], given: Mapping[str, Any], where: str) -> None:
    """Hold arguments against the annotations of a function that is not called yet.

    Raises:
        ConfigError: as from a :func:`checked` function; ``where`` begins the message.
    """
    _check(_plain_parameters(inspect.signature(function)), given, where)


def arguments_for(function: Callable[..., Any], given: Any, own: Collection[str], where: str = "fit") -> dict[str, Any]:
    """The arguments in a mapping that a function is to be called with, beside those that its caller sets.

    Args:
        function: which.
        given: the mapping; None for none.
        own: names of what the caller sets.
        where: the mapping is an argument of this name.

    Raises:
        ConfigError: no mapping, an argument that the caller sets or that the function lacks, or an unsuitable value.
    """
    given = {} if given is None else given
    name = f"lacunar.{function.__name__}"
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: expected arguments of {name} as a mapping, got {given!r}.")
    known = [one for one in inspect.signature(function).parameters if one not in own]
    for one in given:
        if one in own:
            raise ConfigError(f"{where}: {one!r} is set for each model already; leave it out.")
        if one not in known:
            raise ConfigError(f"{where}: {name} has no argument {one!r}.{did_you_mean(one, known)}")
    check_arguments(function, given, where)
    return dict(given)


def above(limit: float, **given: float | None) -> None:
    """Refuse numbers that are not above ``limit``, by name; None is not given.

    Raises:
        ConfigError: for the first of them.
    """
    for name, value in given.items():
        if value is not None and not value > limit:
            raise ConfigError(f"{name}: expected a number above {limit:g}, got {value!r}.")


def at_least(least: float, **given: float | None) -> None:
    """Refuse numbers below ``least``, by name; None is not given.

    Raises:
        ConfigError: for the first of them.
    """
    for name, value in given.items():
        if value is not None and value < least:
            raise ConfigError(f"{name}: expected at least {least:g}, got {value!r}.")


def _check(plain: Mapping[str, _Plain], given: Mapping[str, Any], where: str) -> None:
    for name, value in given.items():
        if name in plain and not plain[name].suits(value):
            raise ConfigError(f"{where}: {name}: expected {plain[name].said}, got {value!r}.")


def _plain_parameters(signature: inspect.Signature) -> dict[str, _Plain]:
    return {name: plain for name, one in signature.parameters.items() if (plain := _plain(one)) is not None}


def _plain(parameter: inspect.Parameter) -> _Plain | None:
    """None for a parameter that has annotations of another kind, or none."""
    annotation = parameter.annotation
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    kinds = tuple(kind.strip() for kind in text.split("|"))
    several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    if several or kinds == ("None",) or any(kind not in _PLAIN for kind in kinds):
        return None
    return _Plain(kinds, parameter.default)
