"""Data and models of the training tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from lacunar.data.splits import Splits
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives import MCE, Objective, get
from tests.helpers import fixed_references, small_model, vectors


def splits(n: int = 90, M: int = 3, seed: int = 0, strength: float = 0.8) -> Splits:
    data = vectors(M=M, n=n, seed=seed, strength=strength)
    return data.split(train=0.7, val=0.15, test=0.15, seed=0)


def dropping_model(data: Splits, seed: int = 0) -> MultimodalModel:
    """A small model that draws random numbers in every step."""
    model = small_model(data.train, seed=seed)
    model.head = nn.Sequential(nn.Dropout(0.3), model.head)
    return model


def mce(data: Splits) -> MCE:
    return MCE(references=fixed_references(data.train, 0.8))


def objective(name: str, data: Splits) -> Objective:
    return mce(data) if name == "MCE" else get(name)()


def weights(run: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
