"""Which epoch's weights are kept, and when training stops early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lacunar.training.validation import Validation

__all__ = ["Selection"]


class Selection:
    """The best epoch so far by the validation mean over subsets, of scores or of losses; the other tells equals apart.

    Args:
        select: ``"best"`` keeps the weights of the epoch with the highest score, ``"loss"`` those of the one with the
            lowest loss, ``"last"`` those of the last one.
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
        new, best = (validation.score, -validation.loss), (self.best_score, -self.best_loss)
        if self.select == "loss":
            new, best = new[::-1], best[::-1]
        # What is not a number beats nothing and is beaten by every number.
        if new[0] != new[0]:
            return False
        return best[0] != best[0] or new > best

    def state_dict(self) -> dict[str, Any]:
        names = ("best_epoch", "best_score", "best_loss", "weights", "stop")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
