"""Whether a probability of .8 is right eight times in ten, and a temperature that makes it so."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from lacunar.data.batch import Batch
from lacunar.errors import ConfigError, DataError, RunError
from lacunar.evaluation.outputs import predict_in_pieces, subset_codes, subset_outputs
from lacunar.lattice import Lattice, Pairs
from lacunar.models.configurable import Configurable
from lacunar.tasks import Task

__all__ = [
    "TemperatureScaling",
    "binned_calibration_error",
    "calibration_bins",
    "expected_calibration_error",
    "reliability",
]


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


def reliability(
    model: Any,
    data: Any,
    bins: int = 15,
    equal_mass: bool = False,
    batch_size: int | None = None,
    memory: float | None = None,
) -> pd.DataFrame:
    """:func:`calibration_bins` of a model over every subset of modalities, each subset's samples pooled.

    For several yes-or-no labels each label of each sample counts, with the probability that it is there.

    Raises:
        DataError: the task has no probabilities, or the data have no target.
    """
    from lacunar.evaluation.metrics import measure
    from lacunar.evaluation.subsets import target_for

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


class TemperatureScaling(Configurable):
    """A trained model whose logits are divided by a temperature that was fitted on validation data.

    The most probable class stays the same; only how sure the model says it is changes. The wrapped model predicts
    pairs as the model itself does.

    Args:
        model: anything with ``predict_pairs(batch, pairs)``.
        by: ``"model"`` fits one temperature, ``"size"`` one for each number of modalities that a prediction uses.

    Attributes:
        temperature: shape ``(M + 1,)``, by number of modalities used; all 1 before :meth:`fit`.
    """

    def __init__(self, model: Any, by: Literal["model", "size"] = "model"):
        super().__init__()
        if by not in ("model", "size"):
            raise ConfigError(f"by: expected 'model' or 'size', got {by!r}.")
        self.model, self.by = model, by
        self.temperature: Tensor
        self.register_buffer("temperature", torch.ones(self.lattice.M + 1))
        self.fitted = False

    @property
    def lattice(self) -> Lattice:
        return self.model.lattice

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names in lattice order."""
        return self.lattice.names

    @property
    def task(self) -> Task | None:
        return getattr(self.model, "task", None)

    def fit(self, data: Any, batch_size: int | None = None, memory: float | None = None) -> TemperatureScaling:
        """Choose the temperatures that give the smallest log-loss on all subsets, each subset weighing the same.

        Every sample of a subset counts the same, too, also where the task weighs classes in its loss.

        Args:
            data: the validation split; the test split would make the calibration look better than it is.
            batch_size: samples per batch; ``data.rows_at_once`` when None.
            memory: bound in megabytes, see :func:`lacunar.evaluate`.

        Raises:
            DataError: the task has no probabilities, or the data have no target.
        """
        from lacunar.evaluation.subsets import target_for

        task = data.task if self.task is None else self.task
        if task is None or data.target is None:
            raise DataError("Temperature scaling needs validation data with a target, got none.")
        if task.kind not in ("classification", "multilabel"):
            raise DataError(f"Temperature scaling needs class probabilities; a {task.kind} has none to scale.")
        known = target_for(task, data)
        codes, _ = subset_codes(self.lattice)
        found = [
            (rows.cpu(), subsets.cpu(), output.double().cpu())
            for rows, subsets, output in subset_outputs(self.model, data, codes, batch_size, memory)
        ]
        rows, subsets, output = (torch.cat(parts) for parts in zip(*found))
        target = known[rows]
        _, which, counts = subsets.unique(return_inverse=True, return_counts=True)
        weight = 1.0 / counts[which].double()
        sizes = self.lattice.decode(subsets).sum(-1)
        groups = [sizes >= 0] if self.by == "model" else [sizes == k for k in range(1, self.lattice.M + 1)]
        for k, group in enumerate(groups, start=1):
            if not group.any():
                continue
            best = _best_temperature(task, output[group], target[group], weight[group])
            if self.by == "model":
                self.temperature.fill_(best)
            else:
                self.temperature[k] = best
        self.fitted = True
        return self

    def predict_pairs(self, batch: Batch, pairs: Pairs, chunk: int | None = None) -> Tensor:
        """Raw outputs ``(P, n_outputs)`` of (sample, subset) pairs, divided by their temperatures."""
        return self._scale(predict_in_pieces(self.model, batch, pairs, chunk), pairs.codes)

    def forward(self, batch: Batch) -> Tensor:
        """Raw outputs ``(B, n_outputs)`` from everything that each sample has."""
        return self._scale(self.model(batch), self.lattice.encode(batch.present))

    def _scale(self, output: Tensor, codes: Tensor) -> Tensor:
        if not self.fitted and bool((self.temperature == 1).all()):
            raise RunError("The temperature is not fitted: call fit(data.val) first.")
        sizes = self.lattice.decode(codes).sum(-1)
        return output / self.temperature[sizes].reshape(-1, *(1,) * (output.ndim - 1)).to(output.dtype)


def _best_temperature(task: Task, output: Tensor, target: Tensor, weight: Tensor) -> float:
    from scipy.optimize import minimize_scalar

    total = weight.sum()

    def log_loss(log_temperature: float) -> float:
        scaled = output / np.exp(log_temperature)
        if task.kind == "classification":
            # The loss of a balanced task weighs classes; probabilities are to be right for them as they come.
            loss = functional.cross_entropy(scaled.float(), target, reduction="none").double()
        else:
            loss = task.loss(scaled, target, smoothing=0.0).double()
        return float((loss * weight).sum() / total)

    # One hundredth to one hundred; the log-loss is convex in 1/T, so that there is a single minimum.
    bound = float(np.log(100.0))
    return float(np.exp(minimize_scalar(log_loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-4}).x))
