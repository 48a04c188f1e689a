"""Exponentially averaged weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["AveragedWeights"]


class AveragedWeights:
    """A moving average of parameters, and a way to use it in their place for a while.

    After ``n`` updates the decay is ``min(decay, (1 + n) / (10 + n))``, so that the first, arbitrary weights are
    soon forgotten. The count is a Python number and the update one fused call, so that no step waits for a GPU.
    Buffers are not averaged: the statistics of a norm follow the weights by themselves. The average is kept in single
    precision at least: in half precision its small steps would be rounded away.

    Args:
        parameters: what is averaged; frozen parameters are passed over.
        decay: in [0, 1).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float):
        self.parameters: list[Tensor] = [parameter for parameter in parameters if parameter.requires_grad]
        self.decay, self.updates = decay, 0
        self.average: list[Tensor] = []

    def start(self) -> None:
        """Put the average where the parameters are; it starts as a copy of them unless a state was loaded."""
        known = self.average or [parameter.detach() for parameter in self.parameters]
        self.average = [
            value.to(parameter.device, torch.promote_types(parameter.dtype, torch.float32), copy=True)
            for value, parameter in zip(known, self.parameters)
        ]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the current parameters; called after every step of the optimiser."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.average, [p.to(a.dtype) for a, p in zip(self.average, self.parameters)], 1 - decay)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside this context the parameters hold the average."""
        own = [parameter.detach().clone() for parameter in self.parameters]
        self._write(self.average)
        try:
            yield
        finally:
            self._write(own)

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self.parameters, values)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates, self.average = state["updates"], list(state["average"])
