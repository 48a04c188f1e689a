"""How the pages of comparisons write numbers."""

from __future__ import annotations

import numpy as np

__all__ = ["NOTHING", "interval", "p_value", "percent", "points", "spread"]

#: In the place of a number that there is not.
NOTHING = "-"


def percent(value: float) -> str:
    """A share as percent; without a sign where it rounds to nothing."""
    return f"{100 * value:z.1f}" if np.isfinite(value) else NOTHING


def spread(mean: float, deviation: float) -> str:
    """A mean share as percent, with its standard deviation where there is one."""
    return percent(mean) + (f" ± {percent(deviation)}" if np.isfinite(mean) and np.isfinite(deviation) else "")


def points(value: float) -> str:
    """A difference of shares in points; without a sign where it rounds to nothing."""
    if not np.isfinite(value):
        return NOTHING
    return f"{100 * value:+.1f}" if round(100 * value, 1) else "0.0"


def interval(low: float, high: float) -> str:
    """From one difference of shares to another, in points."""
    return f"{points(low)} to {points(high)}" if np.isfinite(low) else NOTHING


def p_value(value: float) -> str:
    """A p-value with three decimals."""
    return NOTHING if not np.isfinite(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"
