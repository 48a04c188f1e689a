"""The variance-exploding diffusion of a published generator: its noise, its loss and its sampler.

``dx = sigma^t dw`` for t in [0, 1]: data x becomes ``x + s(t) z`` with standard normal z. The schedules of diffusers
have another noise for this process, so it is written out here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["SMALLEST_TIME", "euler_maruyama", "noise_scale", "score_loss"]

#: No training below this time, where the score has no bound.
SMALLEST_TIME = 1e-5


def noise_scale(time: Tensor, sigma: float = 25.0) -> Tensor:
    """``s(t) = sqrt((sigma^(2t) - 1) / (2 ln sigma))``, of the shape of ``time``."""
    return torch.sqrt(torch.expm1(2 * time * math.log(sigma)) / (2 * math.log(sigma)))


def score_loss(score: Tensor, noise: Tensor, scale: Tensor, reduction: str = "mean") -> Tensor:
    """Denoising score matching: ``|s(t) score + z|^2``, averaged over rows.

    Args:
        score: of the noised data, ``(n, d)``.
        noise: the standard normal z that was added, ``(n, d)``.
        scale: s(t), ``(n, 1)``.
        reduction: over the d numbers: ``"mean"``, or as released ``"sum"``.
    """
    error = (scale * score + noise).square()
    return (error.mean(1) if reduction == "mean" else error.sum(1)).mean()


def euler_maruyama(
    score: Callable[[Tensor, Tensor], Tensor],
    first: Tensor,
    steps: int,
    sigma: float = 25.0,
    end: float = 1e-3,
    noise: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Run the process backwards from t = 1; the last step adds no noise.

    Args:
        score: ``score(x, time)`` with time ``()``.
        first: standard normal noise, of any shape; it is scaled by s(1).
        steps: evaluations of the score.
        sigma: of the process.
        end: the time to stop at.
        noise: what a step adds, standard normal, of a shape that broadcasts to that of ``first``.
    """
    times = torch.linspace(1.0, end, steps, device=first.device)
    size = float((1.0 - end) / max(steps - 1, 1))
    x = mean = first * noise_scale(times[0], sigma)
    for time in times:
        diffusion = sigma ** float(time)
        mean = x + diffusion**2 * size * score(x, time)
        x = mean + math.sqrt(size) * diffusion * (torch.randn_like(x) if noise is None else noise())
    return mean
