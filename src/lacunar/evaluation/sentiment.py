"""Metrics of sentiment in [-3, 3], each under a named convention and beside what a constant prediction reaches."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from lacunar.errors import DataError

__all__ = ["SENTIMENT_METRICS", "sentiment_metrics"]

logger = logging.getLogger(__name__)

#: Sentiments lie within this distance of zero.
LARGEST = 3.0


def sentiment_metrics(target: Any, prediction: Any, *, constant: Any) -> pd.DataFrame:
    """How well sentiments are predicted, under every convention in use, beside the best constant prediction.

    ============= ==================================================================================================
    ``acc7``      rounded predictions equal rounded targets, both cut to [-3, 3]
    ``acc5``      the same, both cut to [-2, 2]
    ``acc2_non0`` positive or negative; samples of target 0 are left out ("negative / positive")
    ``f1_non0``   the F1 of the same samples, averaged over both signs weighted by their targets
    ``acc2_ge0``  at least 0 or below, on all samples ("negative / non-negative", "has0")
    ``acc2_gt0``  above 0 or not, on all samples
    ``mae``       mean absolute error of the predictions as they are
    ``corr``      Pearson's correlation; 0, with a warning, where predictions or targets are constant
    ============= ==================================================================================================

    Halves are rounded to the even neighbour, as NumPy and torch do: 0.5 to 0, 1.5 to 2, -2.5 to -2. Results of other
    programs differ by several points with the convention alone; the one whose constant predictor reaches the
    published rate is the one that was used.

    Args:
        target: true sentiments in [-3, 3], shape ``(N,)`` or ``(N, 1)``.
        prediction: predicted sentiments, any finite numbers, the same shape.
        constant: the targets of the train part, from which the constant prediction is chosen: for each metric the
            one that does best there under the same convention (for ``mae`` the median, for accuracies the most
            frequent class). A single number is predicted as it is.

    Returns:
        One row a metric, in the order above, with ``value`` and ``constant predictor``; NaN where no sample is left.

    Raises:
        DataError: no samples, unequal lengths, NaN or infinity, or targets outside [-3, 3].
    """
    truth, said = _numbers("target", target), _numbers("prediction", prediction)
    if truth.shape != said.shape:
        raise DataError(f"sentiment: {len(truth)} targets, but {len(said)} predictions.")
    _check_range("target", truth)
    single = np.ndim(constant) == 0
    known = _numbers("constant", np.atleast_1d(constant) if single else constant)
    if not single:
        _check_range("constant", known)
    rows = {}
    for name, metric in SENTIMENT_METRICS.items():
        guess = float(known[0]) if single else _best_constant(name, metric, known)
        # A constant has no correlation with anything; that is no reason to warn.
        reached = 0.0 if name == "corr" else metric(truth, np.full_like(truth, guess))
        rows[name] = {"value": metric(truth, said), "constant predictor": reached}
    if not (truth != 0).any():
        logger.warning("sentiment: every target is 0, so acc2_non0 and f1_non0 have no sample to be measured on.")
    still = [name for name, values in (("targets", truth), ("predictions", said)) if _is_constant(values)]
    if still:
        logger.warning("sentiment: the %s are constant: their correlation is given as 0.", " and the ".join(still))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric")


def _is_constant(values: np.ndarray) -> bool:
    # The mean of equal numbers need not be that number, so their deviation need not be 0.
    return bool(np.ptp(values) == 0)


def _rounded(limit: float) -> Callable[[np.ndarray, np.ndarray], float]:
    def accuracy(truth: np.ndarray, said: np.ndarray) -> float:
        cut = [np.round(np.clip(values, -limit, limit)) for values in (truth, said)]
        return float((cut[0] == cut[1]).mean())

    return accuracy


def _non0(truth: np.ndarray, said: np.ndarray) -> float:
    kept = truth != 0
    return float(((said > 0) == (truth > 0))[kept].mean()) if kept.any() else np.nan


def _f1_non0(truth: np.ndarray, said: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    kept = truth != 0
    if not kept.any():
        return np.nan
    return float(f1_score(truth[kept] > 0, said[kept] > 0, average="weighted", zero_division=0.0))


def _ge0(truth: np.ndarray, said: np.ndarray) -> float:
    return float(((said >= 0) == (truth >= 0)).mean())


def _gt0(truth: np.ndarray, said: np.ndarray) -> float:
    return float(((said > 0) == (truth > 0)).mean())


def _mae(truth: np.ndarray, said: np.ndarray) -> float:
    return float(np.abs(said - truth).mean())


def _corr(truth: np.ndarray, said: np.ndarray) -> float:
    return 0.0 if _is_constant(truth) or _is_constant(said) else float(np.corrcoef(truth, said)[0, 1])


#: Every metric by name, a function of targets and predictions ``(N,)``.
SENTIMENT_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "acc7": _rounded(3.0),
    "acc5": _rounded(2.0),
    "acc2_non0": _non0,
    "f1_non0": _f1_non0,
    "acc2_ge0": _ge0,
    "acc2_gt0": _gt0,
    "mae": _mae,
    "corr": _corr,
}


def _best_constant(name: str, metric: Callable[[np.ndarray, np.ndarray], float], known: np.ndarray) -> float:
    if name in ("mae", "corr"):
        return float(np.median(known))
    # Whole numbers reach every class of every convention; the smallest in size wins a tie.
    candidates = sorted(range(-3, 4), key=abs)
    scores = [metric(known, np.full_like(known, float(candidate))) for candidate in candidates]
    return float(candidates[int(np.argmax(np.nan_to_num(scores, nan=-1.0)))])


def _numbers(what: str, values: Any) -> np.ndarray:
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or not len(array):
        raise DataError(f"sentiment, {what}: expected one number for each sample, got shape {array.shape}.")
    if array.dtype.kind not in "fiub":
        raise DataError(f"sentiment, {what}: expected numbers, got an array of {array.dtype}.")
    array = array.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise DataError(
            f"sentiment, {what}, row {bad[0]}: expected a finite number, got {array[bad[0]]} ({len(bad)} such rows)."
        )
    return array


def _check_range(what: str, values: np.ndarray) -> None:
    outside = np.flatnonzero(np.abs(values) > LARGEST)
    if len(outside):
        raise DataError(
            f"sentiment, {what}, row {outside[0]}: expected numbers from -3 to 3, got {values[outside[0]]:g} "
            f"({len(outside)} such rows). Bring the targets to that scale first."
        )
