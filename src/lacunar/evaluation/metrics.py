"""What is kept of each (sample, subset) pair, and the metrics of one subset that follow from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lacunar.evaluation.calibration import binned_calibration_error
from lacunar.tasks import Segmentation, Task

__all__ = ["measure", "summarize"]


def measure(task: Task, output: Tensor, target: Tensor) -> dict[str, np.ndarray]:
    """A few numbers per pair, enough for every metric, so that no output has to be kept.

    Args:
        task: gives the meaning of the output.
        output: shape ``(P, n_outputs, ...)``.
        target: encoded, shape ``(P, ...)``.

    Returns:
        Arrays whose first dimension is P, ``"score"`` among them.
    """
    if isinstance(task, Segmentation):
        regions = task.region_scores(output, target)
        return _numpy({"score": regions.mean(dim=1), "regions": regions})
    kept: dict[str, Tensor] = {"score": task.score(output, target)}
    if task.kind == "classification":
        probability = task.probabilities(output.double())
        kept["predicted"] = task.predict(output)
        kept["confidence"] = probability.gather(1, kept["predicted"][:, None])[:, 0]
        kept["log_loss"] = -task.log_probabilities(output).double().gather(1, target[:, None])[:, 0]
        # The squared distance to the one-hot target, without building it.
        right = probability.gather(1, target[:, None])[:, 0]
        kept["brier"] = probability.square().sum(dim=1) - 2 * right + 1
    elif task.kind == "multilabel":
        kept["probability"] = task.probabilities(output)
        kept["predicted"] = task.predict(output)
        kept["log_loss"] = task.loss(output, target, smoothing=0.0)
        kept["brier"] = (kept["probability"] - target).square().mean(dim=1)
    else:
        kept["predicted"] = task.predict(output).reshape(len(target), task.n_outputs).double()
    return _numpy(kept)


def summarize(
    task: Task, kept: dict[str, np.ndarray], target: np.ndarray, bins: int = 15, equal_mass: bool = False
) -> dict[str, float]:
    """The metrics of one subset.

    ============== =========================================================================================
    classification ``balanced_accuracy`` (mean recall of the classes that occur), ``macro_f1`` (over the classes
                   that occur in truth or prediction), ``log_loss`` in nats, ``brier`` (squared distance to the
                   one-hot target, 0 to 2), ``ece`` of the predicted class
    multilabel     ``macro_f1``, ``exact_match``, ``log_loss`` and ``brier`` averaged over labels, ``ece`` over all
    regression     ``r2`` (averaged over outputs), ``mae``, ``rmse``
    segmentation   the score of each region, such as ``dice WT``
    ============== =========================================================================================

    Args:
        task: the task.
        kept: what :func:`measure` gave for the n pairs of the subset.
        target: encoded targets of these pairs, shape ``(n, ...)``.
        bins: of the calibration error.
        equal_mass: calibration bins that hold equally many samples instead of equally wide ones.
    """
    empty = not len(kept["score"])
    if isinstance(task, Segmentation):
        names = [f"{task.score_name} {region}" for region in task.regions]
        return {name: np.nan if empty else float(kept["regions"][:, r].mean()) for r, name in enumerate(names)}
    if task.kind == "classification":
        return _classification(task.n_outputs, kept, target, bins, equal_mass)
    if task.kind == "multilabel":
        return _multilabel(kept, target, bins, equal_mass)
    return _regression(kept["predicted"], target.reshape(kept["predicted"].shape).astype(np.float64))


def _classification(
    classes: int, kept: dict[str, np.ndarray], target: np.ndarray, bins: int, equal_mass: bool
) -> dict[str, float]:
    names = ("balanced_accuracy", "macro_f1", "log_loss", "brier", "ece")
    if not len(target):
        return dict.fromkeys(names, np.nan)
    confusion = np.bincount(target * classes + kept["predicted"], minlength=classes**2).reshape(classes, classes)
    right, truth, said = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    occurs, either = truth > 0, (truth + said) > 0
    error = binned_calibration_error(kept["confidence"], kept["score"], bins, equal_mass)
    figures = (
        (right[occurs] / truth[occurs]).mean(),
        (2 * right[either] / (truth + said)[either]).mean(),
        kept["log_loss"].mean(),
        kept["brier"].mean(),
        error,
    )
    return {name: float(figure) for name, figure in zip(names, figures)}


def _multilabel(kept: dict[str, np.ndarray], target: np.ndarray, bins: int, equal_mass: bool) -> dict[str, float]:
    names = ("macro_f1", "exact_match", "log_loss", "brier", "ece")
    if not len(target):
        return dict.fromkeys(names, np.nan)
    said, truth = kept["predicted"] > 0, target > 0
    both, total = (said & truth).sum(axis=0), said.sum(axis=0) + truth.sum(axis=0)
    # A label that neither occurs nor is predicted has nothing to be wrong about; scikit-learn counts it as 0.
    f1 = np.where(total > 0, 2 * both / np.maximum(total, 1), 0.0)
    error = binned_calibration_error(kept["probability"].ravel(), target.ravel(), bins, equal_mass)
    exact = (said == truth).all(axis=1).mean()
    figures = (f1.mean(), exact, kept["log_loss"].mean(), kept["brier"].mean(), error)
    return {name: float(figure) for name, figure in zip(names, figures)}


def _regression(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    if not len(truth):
        return dict.fromkeys(("r2", "mae", "rmse"), np.nan)
    error = predicted - truth
    spread = np.square(truth - truth.mean(axis=0)).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(spread > 0, 1 - np.square(error).sum(axis=0) / spread, np.nan)
    return {
        "r2": float(r2.mean()),
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
    }


def _numpy(kept: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: torch.as_tensor(values).detach().cpu().numpy() for name, values in kept.items()}
