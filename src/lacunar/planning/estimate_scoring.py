"""Scores of held-out predictions as ratios of sums, so that each sample's contribution is known and can be weighted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lacunar.errors import ConfigError, did_you_mean
from lacunar.tasks import Task

__all__ = ["METRICS", "PROBABILISTIC", "Scored", "metric_for", "score_constant", "score_output"]

#: The metrics, and the tasks that each suits.
METRICS: dict[str, tuple[str, ...]] = {
    "log_loss": ("classification", "multilabel"),
    "brier": ("classification", "multilabel"),
    "accuracy": ("classification", "multilabel"),
    "balanced_accuracy": ("classification",),
    "f1": ("classification", "multilabel"),
    "r2": ("regression",),
    "mae": ("regression",),
    "score": ("segmentation", "classification", "multilabel"),
}
#: Those that judge probabilities.
PROBABILISTIC = ("log_loss", "brier")
BASELINES = ("train", "evaluation", "chance")
_DEFAULTS = {"classification": "log_loss", "multilabel": "log_loss", "regression": "r2", "segmentation": "score"}


@dataclass(frozen=True)
class Scored:
    """A score and what each sample contributed to it.

    Attributes:
        value: the score, higher is better.
        items: shape ``(n,)``; their mean is the value.
    """

    value: float
    items: np.ndarray


def metric_for(task: Task, metric: str | None) -> str:
    """The metric to use: the one that was asked for if it suits the task, or the task's default.

    The default is the log-loss, negated, for classes and labels: its population value is the mutual information that
    a subset has with the target, up to a constant. For numbers it is R2, for label maps the task's own score.

    Raises:
        ConfigError: an unknown metric, or one that does not suit the task.
    """
    if metric is None:
        return _DEFAULTS[task.kind]
    if not isinstance(metric, str) or metric not in METRICS:
        raise ConfigError(f"metric: unknown {metric!r}.{did_you_mean(metric, METRICS)}")
    if task.kind not in METRICS[metric]:
        suitable = ", ".join(name for name, kinds in METRICS.items() if task.kind in kinds)
        raise ConfigError(f"metric={metric!r} does not suit a {task.kind} task. Use one of: {suitable}.")
    return metric


def score_output(metric: str, task: Task, output: Tensor, target: Tensor, weight: np.ndarray | None = None) -> Scored:
    """The score of raw outputs ``(n, n_outputs, ...)`` on encoded targets ``(n, ...)``.

    Args:
        metric: one of :data:`METRICS`. Classification: ``log_loss`` in nats and ``brier`` (0 to 2) are negated,
            ``balanced_accuracy`` is the mean recall of the classes that occur, ``f1`` macro over the classes that
            occur in truth or prediction. Multilabel: means over labels. Regression: ``r2`` averaged over outputs,
            ``mae`` negated.
        task: the meaning of the output.
        output: raw outputs.
        target: encoded targets.
        weight: what each sample counts, shape ``(n,)``; 1 when left out.
    """
    if metric == "score" or task.kind == "segmentation":
        scores = task.score(output, target).double().numpy()
        return _ratio(scores[:, None], np.ones((len(scores), 1)), weight)
    truth = target.numpy()
    if task.kind == "classification":
        logs = task.log_probabilities(output.double()).double()
        if metric == "log_loss":
            return _ratio(logs.gather(1, target[:, None]).numpy(), None, weight)
        if metric == "brier":
            return _ratio(_brier(logs.exp().numpy(), truth), None, weight)
        return _from_votes(metric, np.eye(task.n_outputs)[task.predict(output).numpy()], truth, weight)
    if task.kind == "multilabel":
        if metric == "log_loss":
            return _ratio(-task.loss(output, target, smoothing=0.0).double().numpy()[:, None], None, weight)
        if metric == "brier":
            gap = task.probabilities(output).double().numpy() - truth
            return _ratio(-np.square(gap).mean(axis=1, keepdims=True), None, weight)
        return _from_labels(metric, task.predict(output).double().numpy(), truth, weight)
    return _numbers(metric, output.double().reshape(len(target), -1).numpy(), truth.reshape(len(target), -1), weight)


def score_constant(
    metric: str, task: Task, fitted_on: Tensor | None, target: Tensor, baseline: str | float, weight: np.ndarray | None
) -> Scored:
    """The score of the constant prediction that the empty subset allows (A2 of SK-LL's ambiguities).

    ``"train"`` and ``"evaluation"`` fit it: the class frequencies for log-loss and Brier, the most frequent class for
    the others, the mean for R2, the median for the absolute error, which is the best constant there (Eq. 2).
    ``"chance"`` guesses evenly, in expectation. A number is taken as the score itself.

    Args:
        metric, task, target, weight: as in :func:`score_output`.
        fitted_on: the targets that ``"train"`` fits to.
        baseline: which constant.
    """
    if isinstance(baseline, (int, float)):
        return Scored(float(baseline), np.full(len(target), float(baseline)))
    n, kind = len(target), task.kind
    if baseline == "chance":
        if kind == "classification":
            even = np.full((n, task.n_outputs), 1 / task.n_outputs)
            if metric in PROBABILISTIC:
                return score_output(metric, task, torch.from_numpy(np.log(even)), target, weight)
            return _from_votes(metric, even, target.numpy(), weight)
        if kind == "multilabel":
            if metric in PROBABILISTIC:
                return score_output(metric, task, torch.zeros(n, task.n_outputs), target, weight)
            return _from_labels(metric, np.full((n, task.n_outputs), 0.5), target.numpy(), weight)
        raise ConfigError(f"baseline='chance' means nothing for {kind}; use 'train', 'evaluation' or a number.")
    source = target if baseline == "evaluation" or fitted_on is None else fitted_on
    if metric == "mae":
        constant = source.double().reshape(len(source), -1).quantile(0.5, dim=0)
        return _numbers(metric, constant.expand(n, -1).numpy(), target.reshape(n, -1).numpy(), weight)
    return score_output(metric, task, task.expand(task.baseline(source), target), target, weight)


def check_baseline(baseline: str | float, task: Task) -> None:
    """Refuse what is no baseline.

    Raises:
        ConfigError: an unknown name, or chance where it means nothing.
    """
    if isinstance(baseline, bool) or not isinstance(baseline, (str, int, float)):
        raise ConfigError(f"baseline: expected {', '.join(map(repr, BASELINES))} or a number, got {baseline!r}.")
    if isinstance(baseline, str) and baseline not in BASELINES:
        raise ConfigError(f"baseline: unknown {baseline!r}.{did_you_mean(baseline, BASELINES)}")
    if not isinstance(baseline, str) and not np.isfinite(baseline):
        raise ConfigError(f"baseline: expected a finite number, got {baseline!r}.")
    if baseline == "chance" and task.kind not in ("classification", "multilabel"):
        raise ConfigError(f"baseline='chance' means nothing for {task.kind}; use 'train', 'evaluation' or a number.")


def _brier(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    gap = probability - np.eye(probability.shape[1])[truth]
    return -np.square(gap).sum(axis=1, keepdims=True)


def _from_votes(metric: str, votes: np.ndarray, truth: np.ndarray, weight: np.ndarray | None) -> Scored:
    """Metrics of decisions; ``votes`` (n, C) is one-hot, or the chance of each decision."""
    right = np.eye(votes.shape[1])[truth]
    if metric == "accuracy":
        return _ratio((votes * right).sum(axis=1, keepdims=True), None, weight)
    if metric == "balanced_accuracy":
        return _ratio(votes * right, right, weight)
    return _ratio(2 * votes * right, votes + right, weight)


def _from_labels(metric: str, said: np.ndarray, truth: np.ndarray, weight: np.ndarray | None) -> Scored:
    if metric == "accuracy":
        return _ratio((said * truth + (1 - said) * (1 - truth)).mean(axis=1, keepdims=True), None, weight)
    return _ratio(2 * said * truth, said + truth, weight, hollow=0.0)


def _numbers(metric: str, predicted: np.ndarray, truth: np.ndarray, weight: np.ndarray | None) -> Scored:
    truth = truth.astype(np.float64)
    if metric == "mae":
        return _ratio(-np.abs(predicted - truth).mean(axis=1, keepdims=True), None, weight)
    centre = np.average(truth, axis=0, weights=weight)
    return _ratio(-np.square(predicted - truth), np.square(truth - centre), weight, offset=1.0)


def _ratio(
    above: np.ndarray,
    below: np.ndarray | None,
    weight: np.ndarray | None,
    offset: float = 0.0,
    hollow: float | None = None,
) -> Scored:
    """``offset + mean over columns of (weighted sum of above) / (weighted sum of below)``, and its contributions.

    A sample contributes ``value + (above - ratio * below) / mean(below)``, the first-order change of the ratio when
    the sample counts more; for plain means that is its own score. Columns with nothing below are left out, or count
    as ``hollow``.
    """
    below = np.ones_like(above, dtype=np.float64) if below is None else below
    share = np.ones(len(above)) if weight is None else weight / weight.mean()
    over, under = above * share[:, None], below * share[:, None]
    total = under.mean(axis=0)
    some = total > 0
    if not some.any():
        return Scored(np.nan, np.full(len(above), np.nan))
    ratio = np.where(some, over.mean(axis=0) / np.where(some, total, 1.0), 0.0)
    moves = (over - ratio * under) / np.where(some, total, 1.0)
    counted = some if hollow is None else np.ones_like(some)
    filled = np.where(some, ratio, hollow or 0.0)
    value = offset + float(filled[counted].mean())
    return Scored(value, value + (moves * some)[:, counted].mean(axis=1))
