"""A temperature that makes a probability of .8 right eight times in ten."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lacunar.data.batch import Batch
from lacunar.data.part import one_part
from lacunar.errors import ConfigError, DataError, RunError
from lacunar.evaluation.outputs import predict_in_pieces, subset_codes, subset_outputs
from lacunar.evaluation.target import target_for
from lacunar.lattice import Lattice, Pairs
from lacunar.models.configurable import Configurable
from lacunar.tasks import Task

__all__ = ["TemperatureScaling"]


class TemperatureScaling(Configurable):
    """A trained model whose logits are divided by a temperature that was fitted on validation data.

    The most probable class stays the same; only how sure the model says it is changes. The wrapped model predicts
    pairs as the model itself does.

    Args:
        model: anything with ``predict_pairs(batch, pairs)``.
        by: ``"model"`` fits one temperature, ``"size"`` one for each number of modalities that a prediction uses.

    Attributes:
        temperature: shape ``(M + 1,)``, by number of modalities used; all 1 before :meth:`fit`.
    """

    def __init__(self, model: Any, by: Literal["model", "size"] = "model"):
        super().__init__()
        if by not in ("model", "size"):
            raise ConfigError(f"by: expected 'model' or 'size', got {by!r}.")
        self.model, self.by = model, by
        self.temperature: Tensor
        self.register_buffer("temperature", torch.ones(self.lattice.M + 1))
        self.fitted = False

    @property
    def lattice(self) -> Lattice:
        return self.model.lattice

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names in lattice order."""
        return self.lattice.names

    @property
    def task(self) -> Task | None:
        return getattr(self.model, "task", None)

    def fit(self, data: Any, batch_size: int | None = None, memory: float | None = None) -> TemperatureScaling:
        """Choose the temperatures that give the smallest log-loss on all subsets, each subset weighing the same.

        Every sample of a subset counts the same, too, also where the task weighs classes in its loss.

        Args:
            data: the validation split; the test split would make the calibration look better than it is.
            batch_size: samples per batch; ``data.rows_at_once`` when None.
            memory: bound in megabytes, see :func:`lacunar.evaluate`.

        Raises:
            DataError: the task has no probabilities, or the data have no target.
        """
        data = one_part(data, "TemperatureScaling.fit", "data.val")
        task = data.task if self.task is None else self.task
        if task is None or data.target is None:
            raise DataError("Temperature scaling needs validation data with a target, got none.")
        if task.kind not in ("classification", "multilabel"):
            raise DataError(f"Temperature scaling needs class probabilities; a {task.kind} has none to scale.")
        known = target_for(task, data)
        codes, _ = subset_codes(self.lattice)
        found = [
            (rows.cpu(), subsets.cpu(), output.double().cpu())
            for rows, subsets, output in subset_outputs(self.model, data, codes, batch_size, memory)
        ]
        rows, subsets, output = (torch.cat(parts) for parts in zip(*found))
        target = known[rows]
        _, which, counts = subsets.unique(return_inverse=True, return_counts=True)
        weight = 1.0 / counts[which].double()
        sizes = self.lattice.decode(subsets).sum(-1)
        groups = [sizes >= 0] if self.by == "model" else [sizes == k for k in range(1, self.lattice.M + 1)]
        for k, group in enumerate(groups, start=1):
            if not group.any():
                continue
            best = _best_temperature(task, output[group], target[group], weight[group])
            if self.by == "model":
                self.temperature.fill_(best)
            else:
                self.temperature[k] = best
        self.fitted = True
        return self

    def predict_pairs(self, batch: Batch, pairs: Pairs, chunk: int | None = None) -> Tensor:
        """Raw outputs ``(P, n_outputs)`` of (sample, subset) pairs, divided by their temperatures."""
        return self._scale(predict_in_pieces(self.model, batch, pairs, chunk), pairs.codes)

    def forward(self, batch: Batch) -> Tensor:
        """Raw outputs ``(B, n_outputs)`` from everything that each sample has."""
        return self._scale(self.model(batch), self.lattice.encode(batch.present))

    def _scale(self, output: Tensor, codes: Tensor) -> Tensor:
        if not self.fitted and bool((self.temperature == 1).all()):
            raise RunError("The temperature is not fitted: call fit(data.val) first.")
        sizes = self.lattice.decode(codes).sum(-1)
        return output / self.temperature[sizes].reshape(-1, *(1,) * (output.ndim - 1)).to(output.dtype)


def _best_temperature(task: Task, output: Tensor, target: Tensor, weight: Tensor) -> float:
    from scipy.optimize import minimize_scalar

    total = weight.sum()

    def log_loss(log_temperature: float) -> float:
        scaled = output / np.exp(log_temperature)
        if task.kind == "classification":
            # The loss of a balanced task weighs classes; probabilities are to be right for them as they come.
            loss = functional.cross_entropy(scaled.float(), target, reduction="none").double()
        else:
            loss = task.loss(scaled, target, smoothing=0.0).double()
        return float((loss * weight).sum() / total)

    # One hundredth to one hundred; the log-loss is convex in 1/T, so that there is a single minimum.
    bound = float(np.log(100.0))
    return float(np.exp(minimize_scalar(log_loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-4}).x))
