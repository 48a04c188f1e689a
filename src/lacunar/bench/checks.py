"""What a recipe may say, checked when it is opened: later each of its cells would fail by itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from lacunar.arguments import check_arguments
from lacunar.errors import ConfigError, did_you_mean

__all__ = ["found_in", "keywords", "mapping", "missing_rates", "names", "of_known", "whole_number"]


def found_in(texts: Sequence[str], pattern: str, where: str) -> list[bool]:
    """Which texts hold a pattern as it stands (names have brackets) or, where none does, as a regular expression."""
    as_it_stands = [pattern in text for text in texts]
    if any(as_it_stands):
        return as_it_stands
    try:
        return [re.search(pattern, text) is not None for text in texts]
    except re.error as error:
        raise ConfigError(f"{where}: {pattern!r} is not a regular expression: {error}.") from error


def of_known(given: Iterable[Any], known: Collection[Any], where: str, what: str = "key") -> None:
    """Every name is a known one."""
    for name in given:
        if name not in known:
            raise ConfigError(f"{where}: unknown {what} {name!r}.{did_you_mean(name, known)}")


def mapping(given: Any, where: str, known: Collection[str] | None = None) -> Mapping[str, Any]:
    """A mapping, empty where nothing is given, of known keys only where some are named."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: expected a mapping from names to values, got {given!r}.")
    if known is not None:
        of_known(given, known, where)
    return given


def keywords(given: Any, function: Callable[..., Any], where: str, but: Collection[str] = ()) -> Mapping[str, Any]:
    """A mapping of arguments that suit a function, without those in ``but``."""
    known = [name for name in inspect.signature(function).parameters if name not in but]
    arguments = mapping(given, where, known)
    check_arguments(function, arguments, where)
    return arguments


def names(given: Any, where: str) -> list[str]:
    """A list of names."""
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise ConfigError(f"{where}: expected a list of names, such as [a, b], got {given!r}.")
    return [str(name) for name in given]


def whole_number(given: Any, where: str) -> int:
    """A whole number of at least 1."""
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise ConfigError(f"{where}: expected a whole number of at least 1, got {given!r}.")
    return given


def missing_rates(given: Any, modalities: Sequence[str] | None, where: str) -> dict[str, float]:
    """Missing rates by modality, from a mapping, or from a list in the order of ``modalities``."""
    if isinstance(given, Mapping):
        rates = {str(name): rate for name, rate in given.items()}
    elif isinstance(given, str) or not isinstance(given, Sequence):
        raise ConfigError(f"{where}: expected missing rates by modality, such as {{audio: 0.8}}, got {given!r}.")
    elif not modalities:
        raise ConfigError(f"{where}: a list of rates needs modalities, the names that they are for, in order.")
    elif len(given) != len(modalities):
        raise ConfigError(f"{where}: expected {len(modalities)} rates for {', '.join(modalities)}, got {list(given)}.")
    else:
        rates = dict(zip(modalities, given))
    for name, rate in rates.items():
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            raise ConfigError(f"{where}: expected the fraction of {name!r} that is absent, in [0, 1), got {rate!r}.")
    return {name: float(rate) for name, rate in rates.items()}
