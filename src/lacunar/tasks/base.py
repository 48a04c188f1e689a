"""The interface of a task: from raw labels to a loss and a score for every sample."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["OneOfClasses", "Task", "as_array", "to_plain"]


class Task(ABC):
    """What is predicted, the loss it is trained by and the score it is judged by.

    Three forms of a target occur: the *raw* labels of the user, the *encoded* target (a tensor that a batch carries)
    and the *output* of a model's head (logits, or numbers in the user's units). Losses and scores are per sample and
    never reduced, so that they can be averaged over any set of (sample, subset) pairs.

    Attributes:
        kind: ``"classification"``, ``"multilabel"``, ``"regression"`` or ``"segmentation"``.
        n_outputs: size of the head's output: classes, labels, numbers or channels.
        score_name: name of the score in tables and figures.
        prior: :meth:`baseline` of the train split, None before :meth:`fit`.
    """

    kind: ClassVar[str]
    n_outputs: int
    score_name: str
    prior: Tensor | None = None

    @abstractmethod
    def encode(self, target: Any) -> Tensor:
        """Raw labels, any array or list of N entries, to the encoded target, shape ``(N, ...)``.

        Raises:
            DataError: a label is missing (None, NaN) or unknown; the message names its row.
        """

    @abstractmethod
    def decode(self, prediction: Tensor) -> np.ndarray:
        """Raw labels of an encoded target or of a model's output."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor, smoothing: float | None = None) -> Tensor:
        """Training loss of each sample, shape ``(B,)``.

        Args:
            output: output of the head, shape ``(B, n_outputs, ...)``.
            target: encoded target, shape ``(B, ...)``.
            smoothing: label smoothing; the task's own when None. Ignored where it means nothing.
        """

    @abstractmethod
    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """Score of each sample in [0, 1], larger is better, no gradient, float32, shape ``(B,)``."""

    @abstractmethod
    def predict(self, output: Tensor) -> Tensor:
        """The hard prediction, in the form of an encoded target."""

    @abstractmethod
    def probabilities(self, output: Tensor) -> Tensor:
        """Output to probabilities of the same shape (numbers stay what they are)."""

    @abstractmethod
    def log_probabilities(self, output: Tensor) -> Tensor:
        """Logarithm of :meth:`probabilities`, computed without loss of precision."""

    @abstractmethod
    def from_probabilities(self, probabilities: Tensor) -> Tensor:
        """An output whose :meth:`probabilities` are the given ones."""

    @abstractmethod
    def baseline(self, target: Tensor) -> Tensor:
        """The best constant output, for samples of which nothing is known: log prior or mean.

        Args:
            target: encoded targets of the train split.

        Returns:
            Shape ``(n_outputs,)``; for label maps ``(n_outputs, 1, ...)`` with one 1 per spatial axis.
        """

    @abstractmethod
    def metrics(self) -> dict[str, Metric]:
        """Fresh metrics to be updated with ``(task.probabilities(output), target)``."""

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Everything needed to rebuild the task, as plain JSON data."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Task:
        """The task that :meth:`to_config` described."""
        from lacunar.tasks.inference import task_from_config

        return task_from_config(config)

    def fit(self, target: Tensor) -> Task:
        """Take scales, tolerances and class counts from encoded targets of the train split.

        Changes the task in place and returns it; a second call replaces what the first took. Data sets share their
        task, so whoever fits it to one of several splits of the same data fits a :meth:`copy`.
        """
        self.prior = self.baseline(target.detach().cpu())
        return self

    def copy(self) -> Task:
        """An independent copy."""
        return copy.deepcopy(self)

    def expand(self, baseline: Tensor, target: Tensor) -> Tensor:
        """A constant output, as :meth:`baseline` gives it, repeated for every sample of ``target``."""
        spatial = target.shape[1:] if baseline.ndim > 1 else ()
        return baseline.to(target.device).expand(len(target), self.n_outputs, *spatial)

    def _prior_config(self) -> list | None:
        return None if self.prior is None else self.prior.tolist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and self.to_config() == other.to_config()

    __hash__ = object.__hash__


class OneOfClasses(Task):
    """What tasks share whose output is one logit for each of several classes that exclude each other."""

    def predict(self, output: Tensor) -> Tensor:
        return output.detach().argmax(dim=1)

    def probabilities(self, output: Tensor) -> Tensor:
        return output.float().softmax(dim=1)

    def log_probabilities(self, output: Tensor) -> Tensor:
        return output.float().log_softmax(dim=1)

    def from_probabilities(self, probabilities: Tensor) -> Tensor:
        return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def to_plain(label: Any) -> Any:
    """A label as a plain Python value that JSON can hold; floats that are whole numbers become integers."""
    if isinstance(label, (np.generic, Tensor)):
        label = label.item()
    if isinstance(label, (bool, int, str)):
        return label
    if isinstance(label, float):
        return int(label) if label.is_integer() else label
    return str(label)


def as_array(target: Any) -> np.ndarray:
    """What a user gives as a target, as a numpy array.

    Lists of mixed objects become an object array, and so do collections of text, however many entries each has.
    """
    if isinstance(target, Tensor):
        return target.detach().cpu().numpy() if target.dtype != torch.bfloat16 else target.float().cpu().numpy()
    if isinstance(target, np.ndarray):
        return _unboxed(target)
    if hasattr(target, "to_numpy"):  # frames and series; categories become their labels
        return _unboxed(np.asarray(target.to_numpy()))
    entries = [entry.detach().cpu().numpy() if isinstance(entry, Tensor) else entry for entry in target]
    if any(entry is None for entry in entries) or any(isinstance(entry, (str, set, frozenset)) for entry in entries):
        return _objects(entries)
    if any(isinstance(entry, (list, tuple)) and any(isinstance(item, str) for item in entry) for entry in entries):
        return _objects(entries)
    try:
        return _unboxed(np.asarray(entries))
    except ValueError:  # entries of different lengths
        return _objects(entries)


def _objects(entries: list[Any]) -> np.ndarray:
    array = np.empty(len(entries), dtype=object)
    for i, entry in enumerate(entries):
        array[i] = entry
    return array


def _unboxed(array: np.ndarray) -> np.ndarray:
    """Object arrays that hold only numbers, as numbers."""
    if array.dtype != object or array.ndim != 1 or not len(array):
        return array
    numbers = (bool, int, float, np.bool_, np.integer, np.floating)
    if all(isinstance(entry, numbers) for entry in array):
        return np.asarray(array.tolist())
    return array
