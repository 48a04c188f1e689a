"""What a completer is given to learn from: values of a data set, or the features of a model, one flat row a sample."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.evaluation.outputs import evaluation_mode, joint_model
from lacunar.models.blend import Blend
from lacunar.models.multimodal import Features

__all__ = ["ROWS", "encoded_views", "features_of", "moments", "value_views"]

#: Rows that are read or completed at a time.
ROWS = 1024


def features_of(model: nn.Module, batch: Batch) -> Features:
    """What the encoders of a model make of a batch; of a model with experts, its joint part.

    Raises:
        ConfigError: the model has no encoders to read.
    """
    if isinstance(model, Blend):
        model = model.joint  # its experts need not be asked
    inner: Any = model if hasattr(model, "encode") else joint_model(model)
    features = inner.encode(batch)
    return getattr(features, "joint", features)


def value_views(data: MultimodalDataset) -> tuple[list[Tensor], None]:
    """Every modality with one flat row per sample, NaN where absent."""
    values = []
    for m, name in enumerate(data.names):
        size = math.prod(data.shapes[name])
        table = torch.full((len(data), size), torch.nan)
        for rows in data.present[:, m].nonzero().squeeze(1).split(ROWS):
            table[rows] = data.columns[name].take(rows)[0].flatten(1).float()
        values.append(table)
    return values, None


def encoded_views(data: MultimodalDataset, model: nn.Module) -> tuple[list[Tensor], tuple[int, ...]]:
    """The features of every modality with one flat row per sample, and the shape of one modality's features."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    parts = []
    with evaluation_mode(model):
        for batch in data.batches(ROWS):
            parts.append(features_of(model, batch.to(device)).h.float())
    h = torch.cat(parts)
    return [h[:, m].flatten(1) for m in range(h.shape[1])], tuple(h.shape[2:])


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each column; columns that do not vary keep their units."""
    exact = rows.double()
    center, scale = exact.mean(0), exact.std(0, correction=0)
    still = scale <= 1e-6 * (1 + center.abs())
    return center.float(), torch.where(still, 1.0, scale).float()
