"""What single precision, in which data are kept, leaves of the differences between numbers."""

from __future__ import annotations

import numpy as np

__all__ = ["rounded_away"]

#: Rounding this much of the spread hides what there is to learn; a step of twice the spread hides all.
MOST = 0.05
#: Spreads this small beside the values are the rounding of double precision itself: such a column is constant.
CONSTANT = 1e-12
#: Columns at a time: copies of a wide table would take several times its memory.
BLOCK = 256


def rounded_away(values: np.ndarray, spread: np.ndarray | None = None) -> np.ndarray:
    """Where rounding to single precision costs more than a twentieth of the spread, as numbers far from zero do.

    Args:
        values: one row per sample, shape ``(N, F)``.
        spread: what to compare with, shape ``(F,)``; the standard deviation of ``values`` when left out.

    Returns:
        Boolean, shape ``(F,)``.
    """
    if not len(values) or values.dtype in (np.float32, np.float16, np.bool_):
        return np.zeros(values.shape[1], bool)
    found = []
    for start in range(0, values.shape[1], BLOCK):
        exact = values[:, start : start + BLOCK].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # what single precision cannot hold is lost, too
            lost = np.sqrt(np.square(exact - exact.astype(np.float32)).mean(0))
            own = exact.std(0) if spread is None else spread[start : start + BLOCK]
            found.append((lost > MOST * own) & (own > CONSTANT * np.abs(exact).max(0)))
    return np.concatenate(found)
