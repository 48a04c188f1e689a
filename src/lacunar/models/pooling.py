"""Opinions of several models as one: a weighted sum of what each adds to the prior."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from lacunar.tasks import Task

__all__ = ["fit_weights", "opinion", "pool"]


def opinion(task: Task, output: Tensor, prior: Tensor) -> Tensor:
    """What a raw output adds to the prior, same shape: log-probabilities of classes, logits of labels, or numbers.

    Args:
        task: what the output means.
        output: ``(n, K, ...)``.
        prior: raw output for samples of which nothing is known, ``(K,)`` or ``(K, 1, ...)``.
    """
    if task.kind in ("classification", "segmentation"):
        return task.log_probabilities(output) - task.log_probabilities(prior[None])
    return output - prior[None]


def pool(prior: Tensor, opinions: Tensor, weights: Tensor) -> Tensor:
    """Raw output of a weighted pool, ``(n, K, ...)``: logarithmic for probabilities, linear for numbers.

    Args:
        prior: ``(K, ...)``.
        opinions: E of them, ``(n, E, K, ...)``.
        weights: ``(E,)`` or ``(n, E)``.
    """
    shaped = weights.view(*weights.shape, *[1] * (opinions.ndim - 2))
    return prior[None] + (opinions * shaped).sum(1)


def fit_weights(
    task: Task,
    prior: Tensor,
    opinions: Tensor,
    target: Tensor,
    start: Tensor,
    ridge: float,
    importance: Tensor | None = None,
) -> tuple[Tensor, float]:
    """Non-negative pool weights that minimise the task's loss, shrunk towards where they start.

    Minimises ``sum_n importance_n loss_n + ridge / 2 |w - start|^2``; the loss of regression is in units of the
    variance of the train split, so that one ridge serves all tasks.

    Args:
        task: gives the loss.
        prior: ``(K, ...)``.
        opinions: ``(n, E, K, ...)``.
        target: encoded, ``(n, ...)``.
        start: ``(E,)``.
        ridge: how many samples' worth of evidence the start counts for.
        importance: of each sample, ``(n,)``; 1 when left out.

    Returns:
        Weights ``(E,)`` and the minimum.
    """
    opinions, prior, origin = opinions.double(), prior.double(), start.double()
    if target.is_floating_point():
        target = target.double()
    importance = torch.ones(len(target), dtype=torch.float64) if importance is None else importance.double()

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        weights = torch.tensor(values, requires_grad=True)
        losses = task.loss(pool(prior, opinions, weights), target, smoothing=0.0)
        value = (losses * importance).sum() + 0.5 * ridge * (weights - origin).square().sum()
        (gradient,) = torch.autograd.grad(value, weights)
        return float(value.detach()), gradient.numpy()

    if len(target) == 0:
        return start, 0.0
    with torch.enable_grad():
        bounds = [(0.0, None)] * len(start)
        found = minimize(
            objective, origin.numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 100}
        )
    return torch.as_tensor(found.x, dtype=start.dtype), float(found.fun)
