"""Modules one after the other, sequence lengths included."""

from __future__ import annotations

import inspect

from torch import Tensor, nn

from lacunar.errors import ConfigError
from lacunar.models.configurable import Configurable

__all__ = ["Chain", "takes_lengths"]


def takes_lengths(module: nn.Module) -> bool:
    """Whether a module's ``forward`` accepts the lengths of sequences as its second argument, by position."""
    module = getattr(module, "_orig_mod", module)  # torch.compile hides what a module accepts
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    by_position = kinds.count(inspect.Parameter.POSITIONAL_ONLY) + kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return by_position > 1 or inspect.Parameter.VAR_POSITIONAL in kinds


class Chain(Configurable):
    """An encoder made of steps: ``Chain(Standardize.fit(data, "audio"), InputNoise(0.3), LSTM(130, 128))``.

    Unlike :class:`torch.nn.Sequential` it hands the lengths of sequences to every step that takes them. Steps
    before the encoder must keep the number of time steps.

    Args:
        steps: modules; the encoder proper stands last, or before steps that keep its width, such as dropout.
    """

    def __init__(self, *steps: nn.Module):
        super().__init__()
        if not steps:
            raise ConfigError("Chain: expected at least one module, got none.")
        self.steps = nn.ModuleList(steps)
        self._with_lengths = [takes_lengths(step) for step in steps]

    @property
    def out_features(self) -> int:
        """Width of what the chain returns: that of the last step which names one.

        Raises:
            ConfigError: when none does.
        """
        for step in reversed(self.steps):
            if hasattr(step, "out_features"):
                return int(step.out_features)  # type: ignore[arg-type]
        raise ConfigError("Chain: none of its steps has an attribute out_features.")

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Apply the steps in order to ``x (n, ...)``; ``lengths`` has shape ``(n,)``."""
        for step, with_lengths in zip(self.steps, self._with_lengths):
            x = step(x, lengths) if with_lengths else step(x)
        return x
