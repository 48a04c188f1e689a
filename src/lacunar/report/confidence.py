"""How often a model is right at each degree of confidence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lacunar.errors import DataError

__all__ = ["reliability", "reliability_bins"]


def reliability(model: Any, data: Any, bins: int = 10) -> pd.DataFrame | None:
    """Bins of the confidence of a model's answers, each from everything that its sample has.

    Args:
        model: a trained model.
        data: samples with a target; those that have nothing are left out.
        bins: number of bins of equal width.

    Returns:
        What :func:`reliability_bins` does; None when the task has no classes.
    """
    from lacunar.evaluation.subsets import target_for
    from lacunar.prediction import raw_outputs

    task = getattr(model, "task", None) or data.task
    if task is None or task.kind != "classification" or data.target is None:
        return None
    data = data.select(data.present.any(dim=1))
    output = raw_outputs(model, data)
    correct = task.score(output, target_for(task, data)).numpy()
    return reliability_bins(task.probabilities(output).double().amax(1).numpy(), correct, bins)


def reliability_bins(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """Mean confidence, share of right answers and number of samples in each bin of confidence.

    Args:
        confidence: probability of the answer that was given, shape ``(N,)``.
        correct: whether it was right, shape ``(N,)``.
        bins: number of bins of equal width, closed at their upper end.
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    if confidence.shape != correct.shape or confidence.ndim != 1:
        raise DataError(f"Expected one confidence per answer, got shapes {confidence.shape} and {correct.shape}.")
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        said = np.bincount(which, weights=confidence, minlength=bins) / count
        true = np.bincount(which, weights=correct, minlength=bins) / count
    return pd.DataFrame({"confidence": said, "accuracy": true, "count": count})
