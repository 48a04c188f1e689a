"""Where the modules of a method belong: beside the model that they are trained with."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

__all__ = ["beside"]

Placed = TypeVar("Placed", bound=nn.Module)


def beside(model: nn.Module, module: Placed) -> Placed:
    """A module on the device of a model and in the precision of its weights."""
    weights = list(model.parameters())
    precise = next((weight.dtype for weight in weights if weight.is_floating_point()), None)
    return module.to(weights[0].device, precise)
