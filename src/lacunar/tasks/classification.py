"""One class per sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.tasks.base import OneOfClasses, as_array, to_plain

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["Classification", "sorted_labels"]


def sorted_labels(labels: Iterable[Any]) -> tuple[Any, ...]:
    """Distinct labels in a fixed order: by value, and by type first when they cannot be compared."""
    plain = list(dict.fromkeys(to_plain(label) for label in labels))
    try:
        return tuple(sorted(plain))
    except TypeError:
        return tuple(sorted(plain, key=lambda label: (type(label).__name__, label)))


class Classification(OneOfClasses):
    """One of several classes per sample; the score is 1 for the right class and 0 otherwise.

    Args:
        classes: the labels in the order of the outputs (strings, integers or booleans), or their number.
        label_smoothing: share of the target probability that is spread evenly over all classes in the loss.
        balanced: weigh the loss of each sample by the inverse frequency of its class in the train split.

    Attributes:
        class_counts: samples per class in the train split, int64, shape ``(C,)``; None before :meth:`fit`.
    """

    kind = "classification"

    def __init__(self, classes: Sequence[Any] | int, label_smoothing: float = 0.0, balanced: bool = False):
        labels = tuple(range(classes)) if isinstance(classes, int) else tuple(to_plain(label) for label in classes)
        if len(set(labels)) != len(labels):
            raise ConfigError(f"Classification: expected distinct classes, got {labels}.")
        if len(labels) < 2:
            raise DataError(f"Classification: expected at least two classes, got {labels}.")
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label_smoothing: expected a number in [0, 1), got {label_smoothing}.")
        self.classes, self.label_smoothing, self.balanced = labels, float(label_smoothing), bool(balanced)
        self.n_outputs = len(labels)
        self.score_name = "accuracy"
        self.class_counts: Tensor | None = None

    @classmethod
    def from_target(cls, target: Any, **options: Any) -> Classification:
        """The task whose classes are the sorted distinct labels of a target."""
        values = _one_label_each(as_array(target))
        return cls(sorted_labels(pd.unique(values)), **options)

    def encode(self, target: Any) -> Tensor:
        values = _one_label_each(as_array(target))
        codes, found = pd.factorize(values)
        position = {label: i for i, label in enumerate(self.classes)}
        lookup = np.empty(len(found), dtype=np.int64)
        for i, label in enumerate(found):
            plain = to_plain(label)
            if plain not in position:
                row = int(np.flatnonzero(codes == i)[0])
                raise DataError(f"target, row {row}: unknown class {plain!r}.{did_you_mean(plain, self.classes)}")
            lookup[i] = position[plain]
        return torch.from_numpy(lookup[codes])

    def decode(self, prediction: Tensor) -> np.ndarray:
        codes = (self.predict(prediction) if prediction.is_floating_point() else prediction).cpu().numpy()
        return np.asarray(self.classes, dtype=_label_dtype(self.classes))[codes]

    def loss(self, output: Tensor, target: Tensor, smoothing: float | None = None) -> Tensor:
        """Cross-entropy of each sample, in nats."""
        smoothing = self.label_smoothing if smoothing is None else smoothing
        loss = functional.cross_entropy(output.float(), target, reduction="none", label_smoothing=smoothing)
        return loss * self.class_weights.to(loss.device)[target] if self.balanced else loss

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """1 where the most probable class is the right one, else 0."""
        return (self.predict(output) == target).float()

    def fit(self, target: Tensor) -> Classification:
        """Count the classes.

        Raises:
            DataError: a class does not occur, so that nothing can be learned about it.
        """
        counts = torch.bincount(target.cpu(), minlength=self.n_outputs)
        absent = [label for label, count in zip(self.classes, counts.tolist()) if not count]
        if absent:
            raise DataError(
                f"target: expected every class among the {len(target)} train samples, got none of class "
                f"{', '.join(map(repr, absent))}. Split by class, or leave these samples out of the data."
            )
        self.class_counts = counts
        super().fit(target)
        return self

    @property
    def class_weights(self) -> Tensor:
        """Inverse class frequencies of the train split, scaled so that they average 1 over its samples, ``(C,)``."""
        if self.class_counts is None:
            raise ConfigError("Class weights need the train split: call task.fit(train.target) first.")
        counts = self.class_counts.float()
        return counts.sum() / (self.n_outputs * counts)

    def baseline(self, target: Tensor) -> Tensor:
        counts = torch.bincount(target, minlength=self.n_outputs).float()
        return self.from_probabilities(counts / counts.sum())

    def metrics(self) -> dict[str, Metric]:
        """Metrics of torchmetrics.

        Its ``balanced_accuracy`` counts a class that is predicted but does not occur as a recall of 0, where
        :func:`lacunar.evaluate` leaves it out.
        """
        from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassF1Score

        return {
            "accuracy": MulticlassAccuracy(self.n_outputs, average="micro"),
            "balanced_accuracy": MulticlassAccuracy(self.n_outputs, average="macro"),
            "macro_f1": MulticlassF1Score(self.n_outputs, average="macro"),
            "calibration_error": MulticlassCalibrationError(self.n_outputs, n_bins=15, norm="l1"),
        }

    def to_config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "classes": list(self.classes),
            "label_smoothing": self.label_smoothing,
            "balanced": self.balanced,
            "class_counts": None if self.class_counts is None else self.class_counts.tolist(),
            "prior": self._prior_config(),
        }

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.classes[:10])) + (", ..." if self.n_outputs > 10 else "")
        return f"classification into {self.n_outputs} classes ({shown})"


def _one_label_each(values: np.ndarray) -> np.ndarray:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(f"target: expected one class per sample, shape (N,), got shape {values.shape}.")
    collections = (list, tuple, set, frozenset)
    several = [i for i, value in enumerate(values) if isinstance(value, collections)] if values.dtype == object else []
    if several:
        raise DataError(
            f"target, row {several[0]}: expected one class, got {values[several[0]]!r}. A sample that may have several "
            "labels is task='multilabel'."
        )
    missing = np.flatnonzero(pd.isna(values))
    if len(missing):
        raise DataError(
            f"target, row {int(missing[0])}: expected a class, got {values[missing[0]]} "
            f"({len(missing)} rows without one). Leave out samples without a label."
        )
    return values


def _label_dtype(labels: Sequence[Any]) -> Any:
    """A plain dtype where all labels agree in type, so that decoded labels equal what was given."""
    for kind in (bool, int, str):
        if all(type(label) is kind for label in labels):
            return kind
    return object
