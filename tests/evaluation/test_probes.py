"""Probes: what an encoder knows is found, what it does not know is not, and nothing else changes."""

from __future__ import annotations

import copy
import hashlib

import numpy as np
import pandas as pd
import pytest
import torch
from tests.helpers import Concat, small_model, vectors
from torch import nn

from lacunar.data.arrays import from_arrays
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError, DataError
from lacunar.evaluation import TemperatureScaling, capability, capability_trajectory
from lacunar.evaluation.probes import encoder_features
from lacunar.models.multimodal import MultimodalModel

FAST = {"seeds": 2, "min_steps": 150}


def fingerprint(model):
    parts = [value.numpy().tobytes() for value in model.state_dict().values()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


class Blind(nn.Module):
    """An encoder that sees nothing."""

    def __init__(self, size, features):
        super().__init__()
        self.linear = nn.Linear(size, features)

    def forward(self, rows):
        return self.linear(torch.randn(rows.shape, generator=torch.Generator().manual_seed(len(rows))))


def world(n=300, missing=0.2):
    data = vectors(M=2, n=n, missing=missing, strength=4.0)
    model = small_model(data)
    encoders = dict(model.named_encoders()) | {"m1": Blind(4, 8)}
    return data.split(seed=0), MultimodalModel(encoders, None, Concat(), nn.Linear(16, 3), task=data.task)


def test_sight_and_blindness():
    splits, model = world()
    before = fingerprint(model)
    model.train()
    frame = capability(model, splits, **FAST)
    assert fingerprint(model) == before
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert list(frame.index.names) == ["modality", "rows", "head"]
    assert (frame.loc["m0", "score"] > 0.93).all()
    assert (frame.loc["m1", "score"] < 0.6).all()
    assert frame.loc[("m0", "observed", "linear"), "n_train"] == int(splits.train.present[:, 0].sum())
    assert frame.loc[("m0", "observed", "linear"), "n"] == int(splits.test.present[:, 0].sum())
    row = frame.loc[("m1", "observed", "mlp")]
    assert row["score"] == pytest.approx(np.mean(row["scores"]))
    assert len(row["scores"]) == 2
    pd.testing.assert_frame_equal(frame, capability(model, splits, **FAST))


def test_absent_rows_and_other_modalities_play_no_part():
    splits, model = world(n=90)
    features = encoder_features(model, splits.train, "m0", splits.task)
    rows = splits.train.present[:, 0].nonzero()[:, 0]
    assert torch.equal(features.target, splits.train.target[rows])
    with torch.no_grad():
        expected = model.encoder("m0")(splits.train.__getitems__(rows.tolist()).inputs["m0"])
    torch.testing.assert_close(features.features, expected)
    assert capability(TemperatureScaling(model), splits, **FAST).equals(capability(model, splits, **FAST))


def test_probes_on_complete_rows():
    full = vectors(M=2, n=240, missing=0.0, strength=3.0).split(seed=0)
    hidden = full.hide({"m0": 0.0, "m1": 0.8}, seed=0)
    frame = capability(small_model(full.train), hidden, complete=full, heads=["linear"], **FAST)
    assert frame.loc[("m1", "complete", "linear"), "n_train"] == len(full.train)
    assert frame.loc[("m1", "observed", "linear"), "n_train"] < len(full.train) / 2
    assert frame.loc[("m1", "complete", "linear"), "n"] == frame.loc[("m1", "observed", "linear"), "n"]


def test_a_trajectory_of_snapshots():
    splits, model = world(n=200)
    states = {0: copy.deepcopy(model.state_dict()), 5: copy.deepcopy(model.state_dict())}
    with torch.no_grad():
        for parameter in model.encoder("m0").parameters():
            parameter.zero_()
    before = fingerprint(model)
    frame = capability_trajectory(states, splits, model, min_steps=150)
    assert fingerprint(model) == before
    assert list(frame.index.names) == ["epoch", "modality", "rows", "head"]
    assert frame.loc[(0, "m0", "observed", "linear"), "score"] > 0.9
    later = capability_trajectory(iter([(9, model)]), splits, min_steps=100)
    assert later.loc[(9, "m0", "observed", "linear"), "score"] < 0.6
    with pytest.raises(ConfigError, match="model="):
        capability_trajectory(states, splits)
    with pytest.raises(DataError, match="at least one snapshot"):
        capability_trajectory({}, splits, model)


def test_numbers_far_from_zero():
    draw = np.random.default_rng(0)
    values = draw.normal(size=(240, 3))
    data = from_arrays({"x": values}, 1000 + 5 * values[:, 0])
    splits = data.split(seed=0)
    model = MultimodalModel({"x": nn.Identity()}, None, Concat(), nn.Linear(3, 1), task=splits.task)
    frame = capability(model, splits, heads=["linear"], **FAST)
    assert frame["score"].iloc[0] > 0.9
    assert frame["baseline"].iloc[0] < 0.6


def test_label_maps():
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 2, (40, 4, 4)).repeat(2, axis=1).repeat(2, axis=2)
    data = from_arrays({"scan": (truth + 0.1 * draw.normal(size=truth.shape))[:, None]}, truth)
    splits = Splits(data.select(range(20)), data.select(range(20, 30)), data.select(range(30, 40)))
    encoder = nn.Conv2d(1, 4, 2, stride=2)
    model = MultimodalModel({"scan": encoder}, None, Concat(), nn.Conv2d(4, 2, 1), task=splits.task)
    frame = capability(model, splits, heads=["linear"], seeds=1, min_steps=100, batch_size=8)
    assert frame["score"].iloc[0] > 0.8
    assert np.isnan(frame["std"].iloc[0])


def test_bad_calls():
    splits, model = world(n=60)
    with pytest.raises(ConfigError, match="heads"):
        capability(model, splits, heads=["quadratic"])
    with pytest.raises(ConfigError, match="seeds"):
        capability(model, splits, seeds=0)
    with pytest.raises(DataError, match="no test part"):
        capability(model, Splits(splits.train, splits.val))
    with pytest.raises(ConfigError, match="MultimodalModel"):
        capability(nn.Linear(1, 1), splits)
    never = splits.test.present.clone()
    never[:, 1] = False
    with pytest.raises(DataError, match="no row has the modality 'm1'"):
        capability(model, Splits(splits.train, splits.val, splits.test.hide(never)), **FAST)
