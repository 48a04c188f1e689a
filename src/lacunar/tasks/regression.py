"""One or several numbers per sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lacunar.errors import ConfigError, DataError
from lacunar.rounding import rounded_away
from lacunar.tasks.base import Task, as_array

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["Regression"]


class Regression(Task):
    """Numbers in the user's units; the score is 1 where the error is within the tolerance, else 0.

    Args:
        n_outputs: how many numbers are predicted for each sample.
        tolerance: largest error that still counts as right, in the user's units, one number or one per output.
            Half a standard deviation of the train split when None.

    Attributes:
        mean, std: of the train split, float32, shape ``(R,)``; None before :meth:`fit`.
    """

    kind = "regression"
    default_tolerance = 0.5
    """The tolerance when none is given, in standard deviations of the train split."""

    def __init__(self, n_outputs: int = 1, tolerance: float | Sequence[float] | None = None):
        given = None if tolerance is None else torch.as_tensor(tolerance, dtype=torch.float32).reshape(-1)
        if given is not None and (not (given > 0).all() or len(given) not in (1, n_outputs)):
            raise ConfigError(f"tolerance: expected one positive number, or {n_outputs} of them, got {tolerance}.")
        self.n_outputs = int(n_outputs)
        self.given_tolerance = given
        self.score_name = "within tolerance"
        self.mean: Tensor | None = None
        self.std: Tensor | None = None

    @property
    def tolerance(self) -> Tensor:
        """Largest error that still counts as right, in the user's units, shape ``(R,)`` or ``(1,)``."""
        if self.given_tolerance is not None:
            return self.given_tolerance
        if self.std is None:
            raise ConfigError(
                "The score of a regression needs a tolerance: give Regression(tolerance=...) in the units of the "
                "target, or call task.fit(train.target) to use half a standard deviation."
            )
        return self.default_tolerance * self.std

    def encode(self, target: Any) -> Tensor:
        values = as_array(target)
        if values.ndim == 2 and values.shape[1] == 1 and self.n_outputs == 1:
            values = values[:, 0]
        expected = f"(N, {self.n_outputs})" if self.n_outputs > 1 else "(N,)"
        if values.ndim != (2 if self.n_outputs > 1 else 1) or (
            self.n_outputs > 1 and values.shape[1] != self.n_outputs
        ):
            raise DataError(f"target: expected numbers of shape {expected}, got shape {values.shape}.")
        try:
            numbers = values.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"target: expected a number for every sample, got {error}.") from error
        broken = np.argwhere(~np.isfinite(numbers))
        if len(broken):
            raise DataError(
                f"target, row {int(broken[0][0])}: expected a finite number, got {numbers[tuple(broken[0])]} "
                f"({len(broken)} such entries). Leave out samples without a target."
            )
        columns = numbers.reshape(len(numbers), self.n_outputs)
        lost = rounded_away(columns, None if self.std is None else self.std.numpy())
        if lost.any():
            where = int(np.flatnonzero(lost)[0])
            column = columns[:, where]
            which = f", output {where}" if self.n_outputs > 1 else ""
            raise DataError(
                f"target{which}: values around {column.mean():.6g} differ by {column.std():.3g} only, too little for "
                f"the seven digits that are kept. Subtract a constant, such as {np.median(column):.0f}, and add it to "
                "predictions."
            )
        return torch.from_numpy(numbers.astype(np.float32))

    def decode(self, prediction: Tensor) -> np.ndarray:
        return self._like_target(prediction).cpu().numpy()

    def loss(self, output: Tensor, target: Tensor, smoothing: float | None = None) -> Tensor:
        """Squared error of each sample in units of the train variance, averaged over the outputs."""
        error = self._error(output, target)
        return (error if self.std is None else error / self.std.to(error.device)).square().mean(dim=1)

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """Share of the outputs whose error is within the tolerance."""
        error = self._error(output.detach(), target).abs()
        return (error <= self.tolerance.to(error.device)).float().mean(dim=1)

    def predict(self, output: Tensor) -> Tensor:
        return self._like_target(output.detach().float())

    def probabilities(self, output: Tensor) -> Tensor:
        return output

    def log_probabilities(self, output: Tensor) -> Tensor:
        """The output itself: numbers have no probabilities to take the logarithm of."""
        return output

    def from_probabilities(self, probabilities: Tensor) -> Tensor:
        return probabilities

    def fit(self, target: Tensor) -> Regression:
        """Take mean and standard deviation. An output that never varies gets the unit 1."""
        columns = target.detach().cpu().double().reshape(len(target), -1)
        std = columns.std(dim=0, correction=0)
        self.mean = columns.mean(dim=0).float()
        self.std = torch.where(std > 0, std, torch.ones_like(std)).float()
        super().fit(target)
        return self

    def baseline(self, target: Tensor) -> Tensor:
        return target.double().reshape(len(target), -1).mean(dim=0).float()

    def metrics(self) -> dict[str, Metric]:
        """Metrics of torchmetrics.

        Its ``r2`` adds up squares in the precision of what it is given, which is too coarse in float32 for targets far
        from zero: update it with ``.double()``, or take the float64 of :func:`lacunar.evaluate`.
        """
        from torchmetrics import MeanAbsoluteError, MeanSquaredError, R2Score

        return {"mae": MeanAbsoluteError(), "rmse": MeanSquaredError(squared=False), "r2": R2Score()}

    def to_config(self) -> dict[str, Any]:
        def plain(value: Tensor | None) -> list[float] | None:
            return None if value is None else value.tolist()

        return {
            "kind": self.kind,
            "n_outputs": self.n_outputs,
            "tolerance": plain(self.given_tolerance),
            "mean": plain(self.mean),
            "std": plain(self.std),
            "prior": self._prior_config(),
        }

    def _error(self, output: Tensor, target: Tensor) -> Tensor:
        shape = (len(target), self.n_outputs)
        return output.float().reshape(shape) - target.float().reshape(shape)

    def _like_target(self, output: Tensor) -> Tensor:
        return output.reshape(len(output)) if self.n_outputs == 1 else output

    def __str__(self) -> str:
        return f"regression of {self.n_outputs} number{'s' if self.n_outputs > 1 else ''}"
