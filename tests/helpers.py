"""Small data and models that the tests share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lacunar.data.arrays import from_arrays
from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.models.multimodal import MultimodalModel
from lacunar.models.references import EstimatorExpert, References


def vectors(
    M: int = 3, n: int = 64, classes: int = 3, missing: float = 0.3, seed: int = 0, strength: float = 2.0
) -> MultimodalDataset:
    """Gaussian modalities ``m0``, ``m1``, ... of 3 + m columns around class means; cells absent at one rate."""
    draw = np.random.default_rng(seed)
    target = np.arange(n) % classes
    present = draw.random((n, M)) >= missing
    present[~present.any(1), 0] = True
    modalities = {}
    for m in range(M):
        means = draw.normal(size=(classes, 3 + m)) * strength
        values = means[target] + draw.normal(size=(n, 3 + m))
        values[~present[:, m]] = np.nan
        modalities[f"m{m}"] = values
    return from_arrays(modalities, target, name="vectors")


class Completion(nn.Module):
    """A small completion that mixes all tokens, with no dropout."""

    def __init__(self, features: int, modalities: int):
        super().__init__()
        self.features, self.modalities = features, modalities
        self.mix = nn.Linear(features * modalities, features * modalities)

    def forward(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        flat = tokens.flatten(1)
        return (flat + torch.tanh(self.mix(flat))).view_as(tokens)


class Concat(nn.Module):
    def forward(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        return tokens.flatten(1, 2)


def small_model(data: MultimodalDataset, features: int = 8, seed: int = 0, completion: bool = True) -> MultimodalModel:
    """Linear encoders, a mixing completion, concatenation and a linear head: no dropout, no norm."""
    torch.manual_seed(seed)
    M = len(data.names)
    return MultimodalModel(
        {name: nn.Sequential(nn.Linear(*shape, features), nn.Tanh()) for name, shape in data.shapes.items()},
        Completion(features, M) if completion else None,
        Concat(),
        nn.Linear(M * features, data.task.n_outputs),
        task=data.task,
    )


def fixed_references(data: MultimodalDataset, score: Tensor | float = 1.0) -> References:
    """References that scored what the test says, ``(N, M)`` or one number, and predict evenly."""
    scores = torch.full(data.present.shape, float(score)) if isinstance(score, float) else score.to(torch.float32)
    scores = torch.where(data.present, scores, torch.nan)
    experts = {name: EstimatorExpert([], data.task) for name in data.names}
    outputs = {name: torch.zeros(len(data), data.task.n_outputs) for name in data.names}
    return References(experts, data.task, data.ids, outputs, scores, out_of_fold=True)


def first_batch(data: MultimodalDataset, size: int | None = None) -> Batch:
    return data.__getitems__(range(len(data) if size is None else size))


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
