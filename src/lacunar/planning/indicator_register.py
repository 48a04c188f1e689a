"""The register of indicators: what ranks by a name finds its function here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from lacunar.errors import ConfigError, did_you_mean

__all__ = ["DegenerateUtilityWarning", "Indicator", "available", "get", "indicator"]

Function = TypeVar("Function", bound=Callable[..., np.ndarray])
#: From the number of modalities to the sizes of the subsets that an indicator says something about.
Sizes = Callable[[int], Iterable[int]]


class DegenerateUtilityWarning(UserWarning):
    """The gain that an indicator divides by is too small, or negative: its scores are not what they are named."""


@dataclass(frozen=True)
class Indicator:
    """A registered indicator.

    Attributes:
        name: what :func:`lacunar.planning.ranking.rank` calls it.
        function: ``(values, lattice, **options) -> scores``.
        sizes: the sizes of the subsets that are ranked by it unless others are asked for; None for all.
        order: scores in the same order without the divisor, which can be too small or negative in a bootstrap draw;
            called with the same options, and None or returning None where the scores themselves give the order.
        share: the scores are shares of the gain of all modalities (unless an option ``normalise`` is not ``"full"``).
        description: one line.
    """

    name: str
    function: Callable[..., np.ndarray]
    sizes: Sizes | None = None
    order: Callable[..., np.ndarray | None] | None = None
    share: bool = False
    description: str = ""

    @property
    def options(self) -> tuple[str, ...]:
        """The names of its options."""
        return tuple(inspect.signature(self.function).parameters)[2:]

    def check_options(self, options: Iterable[str]) -> None:
        """Refuse options that it does not have.

        Raises:
            ConfigError: naming the option.
        """
        for name in options:
            if name not in self.options:
                known = did_you_mean(name, self.options) if self.options else " It has none."
                raise ConfigError(f"indicator {self.name!r}: unknown option {name!r}.{known}")


_REGISTER: dict[str, Indicator] = {}


def indicator(
    name: str,
    *,
    sizes: Sizes | None = None,
    order: Callable[..., np.ndarray | None] | None = None,
    share: bool = False,
) -> Callable[[Function], Function]:
    """Decorator that registers an indicator; see :class:`Indicator`.

    Raises:
        ConfigError: when another function has the name.
    """

    def register(function: Function) -> Function:
        known = _REGISTER.get(name)
        if known is not None and known.function.__qualname__ != function.__qualname__:
            raise ConfigError(f"indicator {name!r} is already registered; choose another name.")
        text = (function.__doc__ or "").strip().splitlines()
        _REGISTER[name] = Indicator(name, function, sizes, order, share, text[0] if text else "")
        return function

    return register


def available() -> dict[str, Indicator]:
    """Every registered indicator by name."""
    return dict(sorted(_REGISTER.items()))


def get(name: str) -> Indicator:
    """An indicator by its name.

    Raises:
        ConfigError: when there is none of this name.
    """
    if name not in _REGISTER:
        raise ConfigError(f"unknown indicator {name!r}.{did_you_mean(name, sorted(_REGISTER))}")
    return _REGISTER[name]
