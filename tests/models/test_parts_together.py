"""The parts inside one model: as typed in the documentation, and with label maps as output."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.helpers import first_batch, small_model, vectors
from torch import nn

import lacunar as lc
from lacunar.data.batch import Batch
from lacunar.errors import ConfigError
from lacunar.lattice import Pairs
from lacunar.tasks import Segmentation


class MyCNN(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, stride=4), nn.Flatten(), nn.Linear(4 * 49, features))

    def forward(self, x):
        return self.layers(x)


def test_as_typed_in_the_design():
    model = lc.MultimodalModel(
        encoders={"image": MyCNN(128), "audio": lc.models.MLP(400, 128), "text": lc.models.TextCNN(64, 128)},
        completion=lc.models.TokenTransformer(128),
        fusion=lc.models.ConcatFusion(128),
        head=nn.Linear(3 * 128, 10),
    )
    present = torch.tensor([[True, True, False], [False, True, False], [True, False, False]])
    inputs = {"image": torch.randn(2, 1, 28, 28), "audio": torch.randn(2, 400), "text": torch.randn(0, 7, 64)}
    batch = Batch(inputs, present, None, torch.arange(3), {"text": torch.zeros(0, dtype=torch.int64)})
    output = model(batch)
    assert output.shape == (3, 10)
    output.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not any(parameter.grad.any() for parameter in model.encoder("text").parameters())


def test_label_maps_are_learned_from_every_subset():
    torch.manual_seed(0)
    task = Segmentation(2)
    model = lc.MultimodalModel(
        encoders={name: lc.models.Conv3dEncoder(1, 6, widths=(4, 6), stride=2) for name in ("t1", "flair")},
        completion=lc.models.TokenTransformer(6, dropout=0.0),
        fusion=lc.models.ConcatFusion(6),
        head=lc.models.DenseHead(12, 2, stride=2, hidden=8),
        task=task,
    )
    target = torch.zeros(3, 8, 8, 8, dtype=torch.int64)
    target[0, :4], target[1, 4:], target[2, :, :4] = 1, 1, 1
    volumes = target.unsqueeze(1) + 0.1 * torch.randn(3, 1, 8, 8, 8)
    present = torch.tensor([[True, True], [True, False], [False, True]])
    batch = Batch({"t1": volumes[[0, 1]], "flair": volumes[[0, 2]]}, present, target, torch.arange(3))
    pairs = Pairs(torch.tensor([0, 0, 0, 1, 2]), torch.tensor([1, 2, 3, 1, 2]))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(40):
        features = model.encode(batch)
        assert features.h.shape == (3, 2, 6, 4, 4, 4)
        output = model.predict(features, pairs)
        loss = task.loss(output, target[pairs.rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert output.shape == (5, 2, 8, 8, 8)
    assert task.score(output, target[pairs.rows]).min() > 0.8


def test_other_parts_keep_how_a_class_computes():
    class Halved(lc.MultimodalModel):
        def decode(self, features, pairs):
            found = super().decode(features, pairs)
            return dataclasses.replace(found, output=found.output / 2)

    class Made(Halved):
        def __init__(self, model):
            super().__init__(**lc.MultimodalModel.configuration(model))

    class Convenient(lc.MultimodalModel):
        def __init__(self, model):
            super().__init__(**lc.MultimodalModel.configuration(model))

    plain = small_model(vectors(2))
    batch = first_batch(vectors(2))
    own = Halved(**plain.configuration()).eval()
    other = own.with_parts(completion=None)
    assert type(other) is Halved and other.completion is None and other.head is own.head
    torch.testing.assert_close(other(batch), plain.with_parts(completion=None).eval()(batch) / 2)
    assert type(Convenient(plain).with_parts(completion=None)) is lc.MultimodalModel
    with pytest.raises(ConfigError, match="Made has a constructor and decode of its own.*completion cannot keep"):
        Made(plain).with_parts(completion=None)
