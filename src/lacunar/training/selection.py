"""Which epoch's weights are kept, and when training stops early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lacunar.training.validation import Validation

__all__ = ["Selection"]


class Selection:
    """The best epoch so far by the validation mean over subsets; equal scores are told apart by the mean loss.

    Args:
        select: ``"best"`` keeps the weights of the best epoch, ``"last"`` those of the last one.
        patience: epochs without a better one after which training stops; None never stops early.
    """

    def __init__(self, select: str = "best", patience: int | None = None):
        self.select, self.patience = select, patience
        self.best_epoch = -1
        self.best_score, self.best_loss = float("-inf"), float("inf")
        self.weights: dict[str, Tensor] | None = None
        self.stop = False

    def update(self, epoch: int, validation: Validation | None, weights: Callable[[], dict[str, Tensor]]) -> bool:
        """Take in an epoch; returns whether it is the best so far.

        Args:
            epoch: its number.
            validation: what it scored; None when it was not validated.
            weights: gives a copy of its weights, and is called only when they are kept.
        """
        better = False
        if validation is not None:
            better = self.weights is None or self._beats(validation)
            if better or self.best_epoch < 0:
                better = True
                self.best_epoch, self.best_score, self.best_loss = epoch, validation.score, validation.loss
            self.stop = self.patience is not None and epoch - self.best_epoch >= self.patience
        if better or self.select == "last":
            self.weights = weights()
        return better

    def _beats(self, validation: Validation) -> bool:
        # A score that is not a number beats nothing and is beaten by every number.
        if validation.score != validation.score:
            return False
        if self.best_score != self.best_score or validation.score > self.best_score:
            return True
        return validation.score == self.best_score and validation.loss < self.best_loss

    def state_dict(self) -> dict[str, Any]:
        names = ("best_epoch", "best_score", "best_loss", "weights", "stop")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
