"""Training methods, one file each. A new method is a new file with a subclass of :class:`Objective` in it."""

from __future__ import annotations

import importlib
import pkgutil

from lacunar.errors import ConfigError, did_you_mean
from lacunar.objectives.base import Objective
from lacunar.objectives.joint import Joint
from lacunar.objectives.mce import MCE
from lacunar.objectives.modality_dropout import ModalityDropout

__all__ = ["MCE", "Joint", "ModalityDropout", "Objective", "available", "get"]


def available() -> dict[str, type[Objective]]:
    """Every training method in this package, by class name."""
    found: dict[str, type[Objective]] = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Objective) and value is not Objective:
                found[value.__name__] = value
    return dict(sorted(found.items()))


def get(name: str) -> type[Objective]:
    """A training method by its class name; one of another package as ``package.module.Class``.

    Raises:
        ConfigError: when there is none of this name.
    """
    if "." in name:
        return _of_another_package(name)
    methods = available()
    if name not in methods:
        raise ConfigError(f"Unknown objective {name!r}.{did_you_mean(name, methods)}")
    return methods[name]


def _of_another_package(name: str) -> type[Objective]:
    module, _, kind = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"Objective {name!r} cannot be imported: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, Objective)):
        raise ConfigError(f"{name!r} is no subclass of lacunar.Objective.")
    return found


def __getattr__(name: str) -> type[Objective]:
    """Every method of the package by its class name, so that a new file needs no line here."""
    if not name.startswith("_") and name[:1].isupper():
        methods = available()
        if name in methods:
            return methods[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
