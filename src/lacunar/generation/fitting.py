"""Training the networks of a completer: some steps on random rows, the best state on rows kept back."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["fit_network", "hold_back", "random_sources"]

logger = logging.getLogger(__name__)


def hold_back(n: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows to train on and rows to choose the best state on; with few rows, the same for both."""
    order = torch.randperm(n, generator=generator)
    kept = int(n * share)
    return (order, order) if kept < 5 else (order[kept:], order[:kept])


def random_sources(available: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A random non-empty subset of what each row has; half of the rows keep all of it.

    Args:
        available: boolean, shape ``(n, M)``; rows with nothing keep nothing.
        generator: of the draws, on the CPU.
    """
    noise = torch.rand(available.shape, generator=generator).to(available.device)
    share = torch.rand(len(available), 1, generator=generator).to(available.device)
    chosen = available & (noise < 2 * share)
    first = torch.where(available, noise, 2.0).argmin(1, keepdim=True)
    return chosen.scatter(1, first, True) & available


def fit_network(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    validate: Callable[[Tensor], float],
    rows: tuple[Tensor, Tensor],
    *,
    steps: int,
    batch_size: int,
    lr: float,
    weight_decay: float = 1e-4,
    checks: int = 12,
    generator: torch.Generator,
) -> float:
    """AdamW with a cosine schedule; the network ends in the state that did best on validation rows.

    Args:
        network: what is trained, in place.
        loss: of a batch of row numbers, a scalar.
        validate: of row numbers, lower is better; called ``checks`` times, and once before the first step.
        rows: for training, for validation.
        steps: optimiser steps.
        batch_size: rows a step.
        lr: highest learning rate.
        weight_decay: of AdamW.
        checks: how many times the validation rows are looked at.
        generator: of the order of rows.

    Returns:
        The best value on the validation rows.
    """
    train, kept = rows
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _warm_cosine(step, steps))
    best, state = _checked(network, validate, kept), _copy(network)
    order = train[:0]
    every = max(steps // checks, 1)
    for step in range(1, steps + 1):
        if len(order) < min(batch_size, len(train)):
            order = train[torch.randperm(len(train), generator=generator)]
        batch, order = order[:batch_size], order[batch_size:]
        optimiser.zero_grad(set_to_none=True)
        value = loss(batch)
        if value.requires_grad and bool(torch.isfinite(value)):
            value.backward()
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimiser.step()
        schedule.step()
        if step % every == 0 or step == steps:
            now = _checked(network, validate, kept)
            if now < best:
                best, state = now, _copy(network)
    network.load_state_dict(state)
    network.eval()
    logger.info("%s: %d steps, best validation value %.4f", type(network).__name__, steps, best)
    return best


def _checked(network: nn.Module, validate: Callable[[Tensor], float], kept: Tensor) -> float:
    network.eval()
    with torch.no_grad():
        value = validate(kept)
    network.train()
    return value if math.isfinite(value) else math.inf


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _warm_cosine(step: int, steps: int) -> float:
    warm = max(min(20, steps // 10), 1)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1))) + 1e-3
