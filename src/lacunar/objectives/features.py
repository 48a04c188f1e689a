"""What methods ask of the features that a model's encoders make."""

from __future__ import annotations

import torch

from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.base import Objective

__all__ = ["feature_width", "refuse_space"]


@torch.no_grad()
def feature_width(model: MultimodalModel, data: MultimodalDataset) -> int:
    """Width C of the features that the model's encoders make of a modality."""
    training = model.training
    width = model.eval().encode(data[0].to(next(iter(model.parameters())).device)).h.shape[2]
    model.train(training)
    return width


def refuse_space(objective: Objective, model: MultimodalModel, data: MultimodalDataset) -> None:
    """Raise a ConfigError for features in space, where a method works on one vector per modality."""
    with torch.no_grad():
        training = model.training
        shape = model.eval().encode(data[0].to(next(iter(model.parameters())).device)).h.shape
        model.train(training)
    if len(shape) > 3:
        name = type(objective).__name__
        raise ConfigError(f"{name} works on one vector per modality; the encoders give features of shape {shape[2:]}.")
