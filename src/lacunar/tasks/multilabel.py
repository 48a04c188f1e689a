"""Any number of labels per sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lacunar.errors import DataError, did_you_mean
from lacunar.tasks.base import Task, as_array, to_plain

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["MultiLabel"]


class MultiLabel(Task):
    """Several yes-or-no labels per sample; the score is the share of labels that are right.

    Args:
        labels: names of the labels in the order of the outputs, or their number.
        label_smoothing: share of the target probability that moves to one half in the loss.

    Raw targets are an ``(N, L)`` table of 0 and 1, or for each sample the collection of its labels.
    """

    kind = "multilabel"

    def __init__(self, labels: Sequence[Any] | int, label_smoothing: float = 0.0):
        self.labels = tuple(range(labels)) if isinstance(labels, int) else tuple(to_plain(label) for label in labels)
        self.label_smoothing = float(label_smoothing)
        self.n_outputs = len(self.labels)
        self.score_name = "label accuracy"
        self.positives: Tensor | None = None
        self.count = 0

    def encode(self, target: Any) -> Tensor:
        values = as_array(target)
        if values.ndim == 1 and values.dtype == object:
            return self._from_collections(values)
        if values.ndim != 2 or values.shape[1] != self.n_outputs:
            raise DataError(f"target: expected {self.n_outputs} labels per sample, got shape {values.shape}.")
        wrong = np.argwhere(~np.isin(values, (0, 1)))
        if len(wrong):
            row, column = wrong[0]
            raise DataError(
                f"target, row {row}, label {self.labels[column]!r}: expected 0 or 1, got {values[row, column]}."
            )
        return torch.from_numpy(values.astype(np.float32))

    def _from_collections(self, values: np.ndarray) -> Tensor:
        position = {label: i for i, label in enumerate(self.labels)}
        encoded = torch.zeros(len(values), self.n_outputs)
        for row, labels in enumerate(values):
            if not isinstance(labels, (set, frozenset, list, tuple, np.ndarray)):
                raise DataError(f"target, row {row}: expected a collection of labels, got {labels!r}.")
            for label in labels:
                plain = to_plain(label)
                if plain not in position:
                    raise DataError(f"target, row {row}: unknown label {plain!r}.{did_you_mean(plain, self.labels)}")
                encoded[row, position[plain]] = 1.0
        return encoded

    def decode(self, prediction: Tensor) -> np.ndarray:
        return self.predict(prediction).cpu().numpy().astype(np.int64)

    def loss(self, output: Tensor, target: Tensor, smoothing: float | None = None) -> Tensor:
        """Binary cross-entropy of each sample, averaged over its labels, in nats."""
        smoothing = self.label_smoothing if smoothing is None else smoothing
        soft = target.float() * (1 - smoothing) + smoothing / 2
        return functional.binary_cross_entropy_with_logits(output.float(), soft, reduction="none").mean(dim=1)

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """Share of the labels on whose right side the probability of one half lies."""
        return (self.predict(output) == target).float().mean(dim=1)

    def predict(self, output: Tensor) -> Tensor:
        # Zero separates logits as well as it separates the encoded labels 0 and 1.
        return (output.detach() > 0).float()

    def probabilities(self, output: Tensor) -> Tensor:
        return output.float().sigmoid()

    def log_probabilities(self, output: Tensor) -> Tensor:
        return functional.logsigmoid(output.float())

    def from_probabilities(self, probabilities: Tensor) -> Tensor:
        return probabilities.logit(eps=1e-7)

    def fit(self, target: Tensor) -> MultiLabel:
        self.positives, self.count = target.sum(dim=0).cpu(), len(target)
        super().fit(target)
        return self

    @property
    def class_weights(self) -> Tensor | None:
        """How many negatives the train split has for each positive, shape ``(L,)``; None before :meth:`fit`."""
        if self.positives is None:
            return None
        return (self.count - self.positives) / self.positives.clamp_min(1.0)

    def baseline(self, target: Tensor) -> Tensor:
        return self.from_probabilities(target.float().mean(dim=0))

    def metrics(self) -> dict[str, Metric]:
        from torchmetrics.classification import MultilabelAccuracy, MultilabelF1Score

        return {
            "label_accuracy": MultilabelAccuracy(self.n_outputs, average="micro"),
            "macro_f1": MultilabelF1Score(self.n_outputs, average="macro"),
        }

    def to_config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "labels": list(self.labels),
            "label_smoothing": self.label_smoothing,
            "positives": None if self.positives is None else self.positives.tolist(),
            "count": self.count,
            "prior": self._prior_config(),
        }

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.labels[:10])) + (", ..." if self.n_outputs > 10 else "")
        return f"{self.n_outputs} yes-or-no labels ({shown})"
