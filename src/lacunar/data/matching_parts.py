"""What makes parts fit together: one form, one task, no sample or group in two of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import DataError
from lacunar.tasks import Task

__all__ = ["check_parts", "refuse_overlap", "target_for"]


def check_parts(parts: Mapping[str, MultimodalDataset]) -> None:
    """DataError unless parts have samples and one form, and share no sample and no group."""
    train = parts["train"]
    for name, part in parts.items():
        if len(part) == 0:
            raise DataError(f"The {name} part is empty; expected at least one sample.")
        if part.names != train.names:
            raise DataError(f"Expected the modalities {train.names} in every part, got {part.names} in {name}.")
        _check_same_form(name, part, train)
    refuse_overlap({name: part.ids for name, part in parts.items()}, "sample")
    if all(part.groups is not None for part in parts.values()):
        groups = {name: np.unique(part.groups) for name, part in parts.items() if part.groups is not None}
        refuse_overlap(groups, "group")


def _check_same_form(name: str, part: MultimodalDataset, train: MultimodalDataset) -> None:
    """DataError unless a part can be read by a model of the train part."""
    one, other = train.task, part.task
    same = (one is None) == (other is None)
    if one is not None and other is not None:
        named = hasattr(one, "classes") or hasattr(one, "labels")
        same = one.kind == other.kind and (named or one.n_outputs == other.n_outputs)
    if not same:
        raise DataError(f"Expected one task for all parts: train has {one}, {name} has {other}.")
    for modality, has in zip(train.names, (train.availability * part.availability).tolist()):
        if not has:  # what is never there has no form
            continue
        expected, found = _form(train, modality), _form(part, modality)
        if expected != found:
            raise DataError(
                f"Modality {modality!r}: expected kind {expected[0]!r} and shape {expected[1]} as in train, got "
                f"{found[0]!r} and {found[1]} in {name}."
            )


def _form(data: MultimodalDataset, modality: str) -> tuple[str, tuple[int, ...]]:
    """Kind and shape of a modality."""
    kind, shape = data.kinds[modality], data.shapes[modality]
    maps = data.task is not None and data.task.kind == "segmentation"
    # Networks that segment take crops and whole images alike, so that only the channels count.
    return kind, shape[:1] if maps and kind in ("image", "volume") else shape


def target_for(name: str, part: MultimodalDataset, task: Task) -> Tensor | None:
    """The target of a part, numbered as in train.

    Raises:
        DataError: a label that train does not know.
    """
    own, target = part.task, part.target
    if own is None or target is None or own is task:
        return target
    if all(getattr(own, what, None) == getattr(task, what, None) for what in ("classes", "labels")):
        return target
    labels: Any = own.decode(target)
    if own.kind == "multilabel":
        names = getattr(own, "labels", ())
        labels = [{label for label, is_so in zip(names, row) if is_so} for row in labels]
    try:
        return task.encode(labels)
    except DataError as error:
        raise DataError(f"The {name} part: {error} Train has to know every label.") from error


def refuse_overlap(members: Mapping[str, np.ndarray], what: str) -> None:
    """DataError where two parts have the same member."""
    names = list(members)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = sorted(set(members[first].tolist()) & set(members[second].tolist()))
            if both:
                raise DataError(
                    f"{len(both)} {what}s are in {first} and in {second}, the first is {both[0]!r}. "
                    f"A {what} belongs to one part."
                )
