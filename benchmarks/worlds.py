"""The data, models and training steps that the benchmarks compare."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.datasets.synthetic import iemocap_like, vectors
from lacunar.models import LSTM, MLP, ConcatFusion, MeanFusion, MLPHead, MultimodalModel, TextCNN, TokenTransformer
from lacunar.models.multimodal import Features
from lacunar.objectives.base import Objective, batch_mean
from lacunar.objectives.joint import Joint
from lacunar.objectives.mce import MCE

__all__ = [
    "Dense", "EveryPair", "Scores", "iemocap", "iemocap_model", "light", "light_model", "mce", "steps", "training_step",
]  # fmt: skip

RATES = (0.2, 0.5, 0.8)
WIDTH = 128


def iemocap(samples: int, rates: tuple[float, ...] | None = RATES, toy: bool = False) -> MultimodalDataset:
    """Sequences of IEMOCAP's shapes, all of the mean length, with cells absent at the given rates."""
    sizes = {"steps": (6, 5, 4), "dims": (5, 7, 6)} if toy else {}
    data = iemocap_like(samples, ragged=False, **sizes)
    if rates is None:
        return data
    present = np.random.default_rng(1).random((samples, 3)) >= np.array(rates)
    return data.hide(present)


def iemocap_model(data: MultimodalDataset, kind: type[MultimodalModel] = MultimodalModel) -> MultimodalModel:
    """Two LSTMs, a TextCNN, the completion module and a two-layer head, the same weights at every call."""
    torch.manual_seed(0)
    width = WIDTH if data.shapes["L"][-1] > 100 else 8
    audio, text, video = (data.shapes[name][-1] for name in "ALV")
    return kind(
        {"A": LSTM(audio, width), "L": TextCNN(text, width), "V": LSTM(video, width)},
        TokenTransformer(width),
        ConcatFusion(width, 3),
        MLPHead(3 * width, data.task.n_outputs, hidden=width),  # type: ignore[union-attr]
        task=data.task,
    )


def light(M: int, samples: int, toy: bool = False) -> MultimodalDataset:
    """Vectors with missing rates that rise evenly from .2 to .8."""
    return vectors(M, samples, dims=6 if toy else 64, missing=np.linspace(0.2, 0.8, M).tolist(), seed=2)


def light_model(
    data: MultimodalDataset, kind: type[MultimodalModel] = MultimodalModel, completion: bool = True
) -> MultimodalModel:
    """Encoders of two layers, which cost less than one pass through completion and head; the same weights again."""
    torch.manual_seed(0)
    inputs = data.shapes[data.names[0]][-1]
    width = 64 if inputs > 6 else 8
    return kind(
        {name: MLP(inputs, width, hidden=width) for name in data.names},
        TokenTransformer(width) if completion else None,
        ConcatFusion(width, len(data.names)) if completion else MeanFusion(width),
        MLPHead(len(data.names) * width if completion else width, data.task.n_outputs, hidden=width),  # type: ignore[union-attr]
        task=data.task,
    )


class Dense(MultimodalModel):
    """The usual way: every encoder runs on all rows, with zeros for what is absent.

    The features of absent rows are set to zero afterwards, so that completion, fusion and head see what they see in
    the packed model: the two differ in cost alone.
    """

    def encode(self, batch: Batch) -> Features:
        filled = batch.dense()
        encoded = []
        for (name, encoder), takes_lengths in zip(self.named_encoders(), self._takes_lengths):
            rows = filled[name]
            if takes_lengths and name in batch.lengths:
                lengths = torch.full((len(batch),), rows.shape[1]).index_copy(0, batch.rows(name), batch.lengths[name])
                encoded.append(encoder(rows, lengths))
            else:
                encoded.append(encoder(rows))
        h = torch.stack(encoded, 1)
        return Features(
            h.masked_fill(~batch.present.view(*batch.present.shape, *[1] * (h.ndim - 2)), 0.0), batch.present
        )


class EveryPair(Objective):
    """The floor of any method that trains on every subset: one encoder pass, every pair decoded, a plain mean."""

    def __init__(self, like: MCE):
        super().__init__()
        self.like = like

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        features = model.encode(batch)
        pairs, _ = self.like.pairs(model.lattice, features.present)
        return {"task": batch_mean(self.losses(model.predict(features, pairs), self._target(batch)[pairs.rows]))}


class Scores:
    """Stands in for frozen single-modality references: random hits, known for every sample."""

    def scores(self, data: MultimodalDataset) -> Tensor:
        drawn = torch.rand(data.present.shape, generator=torch.Generator().manual_seed(3)).round()
        return torch.where(data.present, drawn, torch.nan)


def mce(**options) -> MCE:
    """The whole objective: all losses and both factors."""
    return MCE(references=Scores(), **options)  # type: ignore[arg-type]


def training_step(
    objective: Objective, model: MultimodalModel, data: MultimodalDataset, batch: Batch
) -> Callable[[], None]:
    """Forward, backward and optimiser step on one batch, the optimiser being the one of ``lacunar.fit``."""
    objective.setup(model, data)
    parameters: list[nn.Parameter] = [*model.parameters(), *objective.parameters()]
    optimizer = torch.optim.AdamW(parameters, 1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(list(objective(model, batch).values())).sum().backward()
        optimizer.step()

    return step


def steps(
    make: Callable[..., MultimodalModel], data: MultimodalDataset, size: int, **options
) -> dict[str, Callable[[], None]]:
    """The steps that are compared, each with a model of its own: ``dense``, ``joint``, ``floor`` and ``mce``."""
    batch = data.__getitems__(range(min(size, len(data))))
    return {
        "dense": training_step(Joint(), make(data, Dense), data, batch),
        "joint": training_step(Joint(), make(data), data, batch),
        "floor": training_step(EveryPair(mce(**options)), make(data), data, batch),
        "mce": training_step(mce(**options), make(data), data, batch),
    }
