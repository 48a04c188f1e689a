"""Whether a probability of .8 is right eight times in ten."""

from __future__ import annotations

import numpy as np
import pandas as pd
from torch import Tensor

from lacunar.arguments import checked
from lacunar.errors import ConfigError, DataError

__all__ = ["binned_calibration_error", "calibration_bins", "expected_calibration_error"]


@checked
def binned_calibration_error(
    confidence: np.ndarray, outcome: np.ndarray, bins: int = 15, equal_mass: bool = False
) -> float:
    """Mean gap between confidence and frequency over bins of confidence, weighted by their counts.

    Args:
        confidence: probabilities that were stated, shape ``(n,)``.
        outcome: 1 where what they were stated for came true, else 0, shape ``(n,)``.
        bins: number of bins.
        equal_mass: bins that hold equally many samples instead of equally wide ones; a tie may be cut through.

    Returns:
        A number in [0, 1]; NaN for no samples.
    """
    if not len(confidence):
        return float("nan")
    said, true, _ = _bin_sums(confidence, outcome, bins, equal_mass)
    return float(np.abs(said - true).sum() / len(confidence))


@checked
def calibration_bins(
    confidence: np.ndarray, outcome: np.ndarray, bins: int = 15, equal_mass: bool = False
) -> pd.DataFrame:
    """What :func:`binned_calibration_error` sums up: mean ``confidence``, ``accuracy`` and ``count`` of each bin.

    Bins without a sample have a count of 0 and NaN elsewhere.
    """
    said, true, count = _bin_sums(confidence, outcome, bins, equal_mass)
    with np.errstate(invalid="ignore"):
        return pd.DataFrame({"confidence": said / count, "accuracy": true / count, "count": count})


def _bin_sums(
    confidence: np.ndarray, outcome: np.ndarray, bins: int, equal_mass: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of confidences and of outcomes, and counts, of each bin."""
    if bins < 1:
        raise ConfigError(f"bins: expected at least one, got {bins}.")
    n = len(confidence)
    if equal_mass:
        bin_of = np.empty(n, dtype=np.int64)
        bin_of[np.argsort(confidence, kind="stable")] = np.arange(n) * bins // max(n, 1)
    else:
        # Bins are open on the left, so that a probability of 1 falls into the last one.
        bin_of = np.clip(np.ceil(np.asarray(confidence, dtype=np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)
    said = np.bincount(bin_of, weights=confidence, minlength=bins)
    return said, np.bincount(bin_of, weights=outcome, minlength=bins), np.bincount(bin_of, minlength=bins)


@checked
def expected_calibration_error(
    probabilities: Tensor | np.ndarray, target: Tensor | np.ndarray, bins: int = 15, equal_mass: bool = False
) -> float:
    """Expected calibration error of the most probable class.

    Args:
        probabilities: shape ``(n, C)``.
        target: classes, shape ``(n,)``.
        bins: number of bins of confidence.
        equal_mass: see :func:`binned_calibration_error`.
    """
    table, truth = np.asarray(probabilities), np.asarray(target)
    if table.ndim != 2 or truth.shape != table.shape[:1]:
        raise DataError(f"Expected probabilities (n, C) and classes (n,), got {table.shape} and {truth.shape}.")
    return binned_calibration_error(table.max(axis=1), table.argmax(axis=1) == truth, bins, equal_mass)
