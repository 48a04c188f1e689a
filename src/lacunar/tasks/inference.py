"""Which task a target asks for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.tasks.base import Task, as_array
from lacunar.tasks.classification import Classification, sorted_labels
from lacunar.tasks.multilabel import MultiLabel
from lacunar.tasks.regression import Regression
from lacunar.tasks.segmentation import Segmentation

__all__ = ["infer_task", "task_from_config"]

logger = logging.getLogger(__name__)

FEW_VALUES = 20


def infer_task(target: Any, task: Task | str | None = None) -> Task:
    """The task that a target asks for.

    ===========================================  ==============================================================
    target                                       task
    ===========================================  ==============================================================
    ``(N,)`` text, booleans, integers            classification
    ``(N,)`` integers, more than 20 values that  regression
    occur fewer than twice on average
    ``(N,)`` floats, all of them whole numbers,  classification
    at most 20 values, and at most N / 2
    ``(N,)`` other floats                        regression
    ``(N, L)`` of 0 and 1, or collections        multi-label
    ``(N, R)`` floats                            regression of R numbers
    ``(N, H, W)``, ``(N, D, H, W)`` integers     segmentation
    ===========================================  ==============================================================

    Args:
        target: raw labels, one entry per sample.
        task: the name of a task, to say what the table above would get wrong, or a task, which is returned as it is.

    Raises:
        DataError: the target fits no task.
        ConfigError: the name of the task is unknown.
    """
    if isinstance(task, Task):
        return task
    if task is not None and task not in _BUILD:
        raise ConfigError(f"task: unknown task {task!r}.{did_you_mean(task, _BUILD)}")
    values = as_array(target)
    if not len(values):
        raise DataError("target: expected at least one sample, got none.")
    if task is None:
        task = _kind_of(values)
        logger.debug("the target of shape %s (%s) is taken as %s", values.shape, values.dtype, task)
    return _BUILD[task](target, values)


def _kind_of(values: np.ndarray) -> str:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    kind = values.dtype.kind
    if values.ndim == 1:
        if kind == "O" and _collections(values):
            return "multilabel"
        if kind not in "iuf":
            return "classification"
        known = values[np.isfinite(values)] if kind == "f" else values
        distinct = len(np.unique(known))
        if kind in "iu":
            return "regression" if distinct > max(FEW_VALUES, len(values) / 2) else "classification"
        whole = bool(len(known)) and bool((known == np.round(known)).all())
        return "classification" if whole and distinct <= min(FEW_VALUES, max(2, len(values) // 2)) else "regression"
    if values.ndim == 2 and kind in "biuf":
        if np.isin(values, (0, 1)).all():
            return "multilabel"
        if kind == "f":
            return "regression"
    if values.ndim > 2 and kind in "biu":
        return "segmentation"
    raise DataError(
        f"target: no task fits an array of shape {values.shape} holding {values.dtype}. Say which one it is: "
        f"task={' or '.join(map(repr, _BUILD))}."
    )


def _collections(values: np.ndarray) -> bool:
    return all(isinstance(entry, (set, frozenset, list, tuple)) for entry in values)


def _multilabel(target: Any, values: np.ndarray) -> Task:
    if isinstance(target, pd.DataFrame):
        return MultiLabel([str(name) for name in target.columns])
    if values.ndim == 2:
        return MultiLabel(values.shape[1])
    if values.dtype == object and _collections(values):
        return MultiLabel(sorted_labels(label for entry in values for label in entry))
    raise DataError(f"target: expected a table (N, L) of 0 and 1 or collections of labels, got shape {values.shape}.")


def _regression(target: Any, values: np.ndarray) -> Task:
    if values.ndim > 2:
        raise DataError(f"target: expected numbers of shape (N,) or (N, R), got shape {values.shape}.")
    return Regression(values.shape[1] if values.ndim == 2 else 1)


def _segmentation(target: Any, values: np.ndarray) -> Task:
    if values.ndim < 3 or values.dtype.kind not in "biuf":
        raise DataError(f"target: expected label maps (N, H, W) or (N, D, H, W), got shape {values.shape}.")
    return Segmentation(sorted_labels(np.unique(values)))


_BUILD: dict[str, Callable[[Any, np.ndarray], Task]] = {
    "classification": lambda target, values: Classification.from_target(values),
    "multilabel": _multilabel,
    "regression": _regression,
    "segmentation": _segmentation,
}


def task_from_config(config: dict[str, Any]) -> Task:
    """The task that ``task.to_config()`` described.

    Raises:
        ConfigError: the kind of task is unknown.
    """
    kind = config.get("kind")
    task: Task
    if kind == "classification":
        task = Classification(config["classes"], config["label_smoothing"], config["balanced"])
        task.class_counts = _tensor(config["class_counts"])
    elif kind == "multilabel":
        task = MultiLabel(config["labels"], config["label_smoothing"])
        task.positives, task.count = _tensor(config["positives"]), config["count"]
    elif kind == "regression":
        task = Regression(config["n_outputs"], config["tolerance"])
        task.mean, task.std = _tensor(config["mean"]), _tensor(config["std"])
    elif kind == "segmentation":
        options = ("classes", "regions", "score", "dice_loss", "label_smoothing")
        task = Segmentation(**{name: config[name] for name in options})
    else:
        raise ConfigError(f"Unknown task {kind!r} in a configuration.{did_you_mean(kind, _BUILD)}")
    task.prior = _tensor(config["prior"])
    return task


def _tensor(values: list | None) -> torch.Tensor | None:
    return None if values is None else torch.tensor(values)
