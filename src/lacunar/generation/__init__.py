"""Completers, one file each. A new one is a new file with a subclass of :class:`Completer` in it."""

from __future__ import annotations

import importlib
import pkgutil

from lacunar.errors import ConfigError, did_you_mean
from lacunar.generation.bank import PatternBank
from lacunar.generation.base import Completer
from lacunar.generation.benefit import abstain, filling_benefit
from lacunar.generation.completed import Completed
from lacunar.generation.diffusion import DiffusionCompleter
from lacunar.generation.flow import FlowCompleter
from lacunar.generation.flow_transfer import FlowTransfer
from lacunar.generation.knn import KNNCompleter
from lacunar.generation.mean import MeanCompleter
from lacunar.generation.ridge import RidgeCompleter
from lacunar.generation.zero import ZeroCompleter

__all__ = [
    "Completed", "Completer", "DiffusionCompleter", "FlowCompleter", "FlowTransfer", "KNNCompleter", "MeanCompleter",
    "PatternBank", "RidgeCompleter", "ZeroCompleter",
    "abstain", "available", "filling_benefit", "get",
]  # fmt: skip


def available() -> dict[str, type[Completer]]:
    """Every completer in this package, by its ``name``."""
    found: dict[str, type[Completer]] = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Completer) and "name" in vars(value):
                found[value.name] = value
    return dict(sorted(found.items()))


def get(name: str) -> type[Completer]:
    """A completer by its name: ``get("ridge")(seed=0)``.

    Raises:
        ConfigError: when there is none of this name.
    """
    completers = available()
    if name not in completers:
        raise ConfigError(f"Unknown completer {name!r}.{did_you_mean(name, completers)}")
    return completers[name]
