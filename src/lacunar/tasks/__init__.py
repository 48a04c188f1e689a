"""What is predicted and how it is scored: classes, sets of labels, numbers, label maps."""

from __future__ import annotations

from lacunar.tasks.base import Task
from lacunar.tasks.classification import Classification
from lacunar.tasks.inference import infer_task, task_from_config
from lacunar.tasks.multilabel import MultiLabel
from lacunar.tasks.regression import Regression
from lacunar.tasks.segmentation import Segmentation

__all__ = [
    "Classification",
    "MultiLabel",
    "Regression",
    "Segmentation",
    "Task",
    "infer_task",
    "task_from_config",
]
