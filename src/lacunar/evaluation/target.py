"""The target of a data set in the terms of a model."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lacunar.errors import DataError
from lacunar.tasks import Task

__all__ = ["target_for"]


def target_for(task: Task, data: Any) -> Tensor:
    """The target of a data set as a task encodes it: a model's classes may stand in another order than the data's.

    Raises:
        DataError: the data hold a label that the task does not know, or another kind of target.
    """
    if data.task is None or data.task is task:
        return data.target
    if data.task.kind != task.kind:
        raise DataError(f"The model was made for {task}, the data are a {data.task}.")
    return task.encode(data.task.decode(data.target))
