"""Data sets: one file each, found by its name.

A file ``NAME.py`` in this folder that defines a function ``NAME`` is a data set; there is no list to edit. Files that
begin with an underscore are helpers.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING, Any

from lacunar.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from lacunar.datasets._card import Card

__all__ = ["Card", "available", "load"]


def available() -> tuple[str, ...]:
    """Names of the data sets that :func:`load` knows, sorted. Nothing is imported to find them."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_"))


def load(name: str, **options: Any) -> Any:
    """A data set by name.

    Args:
        name: one of :func:`available`, for example ``"digits"``.
        **options: what the data set's own function takes; sets that live in a folder take ``folder=``, and look in
            the folder that the environment variable ``LACUNAR_DATA`` names when it is left out.

    Returns:
        :class:`lacunar.data.splits.Splits` where the set has an official split, otherwise a
        :class:`lacunar.MultimodalDataset`; its ``card`` says what is in it. Synthetic worlds with known answers are a
        :class:`lacunar.datasets.synthetic.World`, whose samples are its ``data``.

    Raises:
        ConfigError: the name or an option is unknown.
        DataError: the folder or a file in it is missing or damaged.
    """
    if name not in available():
        raise ConfigError(f"Unknown data set {name!r}.{did_you_mean(name, available())}")
    make = getattr(importlib.import_module(f"{__name__}.{name}"), name)
    known = inspect.signature(make).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    for option in options:
        if option not in known and not takes_any:
            raise ConfigError(f"Data set {name!r}: unknown option {option!r}.{did_you_mean(option, known)}")
    return make(**options)


def __getattr__(attribute: str) -> Any:
    if attribute == "Card":
        from lacunar.datasets._card import Card

        return Card
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
