"""The calibration of a model over every subset of modalities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lacunar.arguments import checked
from lacunar.data.part import one_part
from lacunar.errors import DataError
from lacunar.evaluation.calibration import calibration_bins
from lacunar.evaluation.metrics import measure
from lacunar.evaluation.outputs import subset_codes, subset_outputs
from lacunar.evaluation.target import target_for

__all__ = ["reliability"]


@checked
def reliability(
    model: Any,
    data: Any,
    bins: int = 15,
    equal_mass: bool = False,
    batch_size: int | None = None,
    memory: float | None = None,
) -> pd.DataFrame:
    """:func:`lacunar.evaluation.calibration_bins` of a model, the samples of every subset of modalities pooled.

    For several yes-or-no labels each label of each sample counts, with the probability that it is there.

    Raises:
        DataError: the task has no probabilities, or the data have no target.
    """
    data = one_part(data, "reliability", "data.test or data.val")
    task = getattr(model, "task", None) or data.task
    if task is None or data.target is None or task.kind not in ("classification", "multilabel"):
        raise DataError(f"Calibration needs class probabilities and a target, got {task or 'no target'}.")
    target = target_for(task, data)
    confidence, outcome = [], []
    for rows, _, output in subset_outputs(model, data, subset_codes(data.lattice)[0], batch_size, memory):
        truth = target[rows.cpu()]
        kept = measure(task, output, truth.to(output.device))
        several = task.kind == "multilabel"
        confidence.append(kept["probability" if several else "confidence"].ravel())
        outcome.append(truth.numpy().ravel() if several else kept["score"])
    return calibration_bins(np.concatenate(confidence), np.concatenate(outcome), bins, equal_mass)
