"""Where the hyper-parameters of a method may lie, for whoever tunes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Between", "OneOf", "Ranges"]


@dataclass(frozen=True)
class Between:
    """A number from ``low`` to ``high``, on a logarithmic scale if ``log``."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class OneOf:
    """One of a few values."""

    values: tuple[Any, ...]


Ranges = Mapping[str, Between | OneOf]
"""For each argument of a method the values it may take."""
