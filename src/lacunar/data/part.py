"""What a function of samples is given: one data set, neither all splits nor a table."""

from __future__ import annotations

from typing import Any

from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits
from lacunar.errors import DataError

__all__ = ["one_part", "train_part"]


def one_part(data: Any, what: str, such_as: str = "data.train, data.val or data.test") -> MultimodalDataset:
    """The data set that a function of one part of the data was given.

    Args:
        data: what it was given.
        what: the function, for the message.
        such_as: what would have been right where it was given splits.

    Raises:
        DataError: splits, a table, or anything else.
    """
    if isinstance(data, Splits):
        raise DataError(f"{what}: expected one part of the data, got all splits: pass {such_as}.")
    if not isinstance(data, MultimodalDataset):
        raise DataError(
            f"{what}: expected a data set, as lacunar.from_arrays, from_frame or load_description makes it, "
            f"got {type(data).__name__}."
        )
    return data


def train_part(data: Any, what: str) -> MultimodalDataset:
    """The train part of splits, or a data set as it is.

    Raises:
        DataError: a table, or anything else.
    """
    return data.train if isinstance(data, Splits) else one_part(data, what)
