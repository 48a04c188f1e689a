"""What a data set is, in a form that prints well; every number is counted from the data."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from lacunar.data.columns import DenseColumn
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits

__all__ = ["Card", "with_card"]


@dataclass(frozen=True)
class Card:
    """Facts about a data set.

    Attributes:
        title: what it is called.
        samples: number of samples.
        splits: number of samples in each part, empty where there is no official split.
        modalities: for each modality its kind and the shape of one sample, for example ``"image 1x28x28"``.
        missing_rates: for each modality the fraction of samples without it.
        labels: for each class the number of samples (or of voxels), empty for other tasks.
        source: where it comes from.
        licence: its terms, as its source states them.
        cautions: what a careful user should know before believing a number measured on it.
    """

    title: str
    samples: int
    splits: dict[str, int]
    modalities: dict[str, str]
    missing_rates: dict[str, float]
    labels: dict[str, int]
    source: str
    licence: str
    cautions: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {count}" for name, count in self.splits.items())
        lines = [self.title, "=" * len(self.title)]
        lines.append(f"{self.samples} samples" + (f" ({parts})" if parts else ""))
        width = max(map(len, self.modalities))
        for name, shape in self.modalities.items():
            lines.append(f"  {name:<{width}}  {shape}, missing rate {self.missing_rates[name]:.3f}")
        if self.labels:
            lines += _wrapped("labels: ", ", ".join(f"{label} {count}" for label, count in self.labels.items()))
        lines += _wrapped("source: ", self.source)
        lines += _wrapped("licence: ", self.licence)
        for caution in self.cautions:
            lines += _wrapped("beware: ", caution)
        return "\n".join(lines)


def _wrapped(prefix: str, text: str) -> list[str]:
    return textwrap.wrap(prefix + text, width=100, subsequent_indent=" " * len(prefix))


def with_card(
    data: MultimodalDataset | Splits, title: str, source: str, licence: str, cautions: Sequence[str] = ()
) -> None:
    """Count the data, and put the card on it and, where it is split, on every part."""
    named = data.parts if isinstance(data, Splits) else {"all": data}
    parts = list(named.values())
    names = parts[0].names
    samples = sum(len(part) for part in parts)
    observed = torch.stack([part.availability for part in parts]).sum(0).tolist()
    card = Card(
        title=title,
        samples=samples,
        splits={name: len(part) for name, part in named.items()} if isinstance(data, Splits) else {},
        modalities={name: _shape(parts[0], name) for name in names},
        missing_rates={name: 1 - count / samples for name, count in zip(names, observed)},
        labels=_label_counts(parts),
        source=source,
        licence=licence,
        cautions=tuple(cautions),
    )
    for part in parts:
        part.card = card


def _shape(data: MultimodalDataset, name: str) -> str:
    column, kind = data.columns[name], data.kinds[name]
    sizes = [str(size) for size in data.shapes[name]]
    if kind in ("sequence", "tokens"):
        sizes.insert(0, str(column.values.shape[1]) if isinstance(column, DenseColumn) else "T")
    return f"{kind} {'x'.join(sizes)}"


def _label_counts(parts: Sequence[MultimodalDataset]) -> dict[str, int]:
    task = parts[0].task
    names = getattr(task, "classes", None)
    if task is None or names is None or task.kind not in ("classification", "segmentation"):
        return {}
    counts = np.zeros(task.n_outputs, dtype=int)
    for part in parts:
        if part.target is not None:
            counts += np.bincount(part.target.flatten().numpy(), minlength=task.n_outputs)
    labels = range(task.n_outputs) if isinstance(names, int) else names
    return {str(label): int(count) for label, count in zip(labels, counts)}
