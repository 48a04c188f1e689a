"""Statistics come from the train rows that are there, and travel with the model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lacunar.data.arrays import from_arrays
from lacunar.errors import ConfigError, DataError
from lacunar.models.chain import Chain
from lacunar.models.fusions import ConcatFusion
from lacunar.models.mult import MulT
from lacunar.models.multimodal import MultimodalModel
from lacunar.models.preprocessing import InputNoise, Standardize

LABELS = np.arange(40) % 2


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(3.0, 2.0, shape)


def test_vectors_by_the_rows_that_are_there():
    values = random(40, 3)
    values[5:20] = np.nan
    data = from_arrays({"v": values, "w": random(40, 2)}, LABELS)
    scale = Standardize.fit(data, "v", batch_size=7)
    there = values[~np.isnan(values).any(1)]
    np.testing.assert_allclose(scale.mean, there.mean(0), rtol=1e-5)
    np.testing.assert_allclose(scale.std, there.std(0), rtol=1e-5)
    scaled = scale(torch.as_tensor(there, dtype=torch.float32))
    torch.testing.assert_close(scaled.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.ones(3))


def test_sequences_without_their_padding():
    rng = np.random.default_rng(0)
    sequences = [rng.normal(3.0, 2.0, (rng.integers(1, 9), 2)) for _ in range(40)]
    sequences[3] = None
    data = from_arrays({"s": sequences, "w": random(40, 2)}, LABELS)
    scale = Standardize.fit(data, "s", batch_size=7)
    steps = np.concatenate([s for s in sequences if s is not None])
    np.testing.assert_allclose(scale.mean, steps.mean(0), rtol=1e-5)
    np.testing.assert_allclose(scale.std, steps.std(0), rtol=1e-5)
    batch = next(data.batches(40))
    scaled = scale(batch.inputs["s"], batch.lengths["s"])
    outside = torch.arange(scaled.shape[1]) >= batch.lengths["s"].unsqueeze(1)
    assert not scaled[outside].any()
    assert scaled[~outside].all()


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 3, 4, 5)], ids=["image", "volume"])
def test_images_and_volumes_by_channel(shape):
    values = random(40, *shape)
    values[:, 1] *= 100
    scale = Standardize.fit(from_arrays({"x": values}, LABELS), "x")
    axes = (0, *range(2, values.ndim))
    np.testing.assert_allclose(scale.mean.flatten(), values.mean(axes), rtol=1e-5)
    np.testing.assert_allclose(scale.std.flatten(), values.std(axes), rtol=1e-5)
    scaled = scale(torch.as_tensor(values, dtype=torch.float32))
    torch.testing.assert_close(scaled.std(axes, correction=0), torch.ones(2), rtol=1e-3, atol=1e-3)


def test_constant_features_are_only_centred():
    values = random(40, 3)
    values[:, 0], values[:, 1] = 1e6, 0.0
    scale = Standardize.fit(from_arrays({"v": values}, LABELS), "v")
    assert scale.std[:2].tolist() == [1.0, 1.0]
    scaled = scale(torch.as_tensor(values, dtype=torch.float32))
    assert not scaled[:, :2].any()


def test_a_small_spread_on_a_large_mean_is_kept():
    values = 1e4 + random(40, 1)
    scale = Standardize.fit(from_arrays({"v": values}, LABELS), "v", batch_size=3)
    np.testing.assert_allclose(scale.std, np.float32(values).std(0), rtol=1e-4)


def test_extremes_are_clipped_on_request():
    x = torch.tensor([[1e6, -1e6, 0.5]])
    assert Standardize((3,), clip=4.0)(x).tolist() == [[4.0, -4.0, 0.5]]
    assert torch.equal(Standardize((3,), clip=None)(x), x)


def test_statistics_are_saved_with_the_weights():
    fitted = Standardize.fit(from_arrays({"v": random(40, 3)}, LABELS), "v")
    fresh = Standardize((3,))
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(fresh.mean, fitted.mean)
    assert not list(fitted.parameters())
    assert fitted(torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_comes_after_standardising(kind):
    values = 1000 + random(40, 3)
    scale = Standardize.fit(from_arrays({"v": values}, LABELS), "v")
    x = torch.as_tensor(values, dtype=torch.float32)
    expected = scale(x)
    for cast in (copy.deepcopy(scale).to(kind), scale.to(kind).to("cpu")):  # a move is no cast
        assert torch.equal(cast(x), expected.to(kind))
        assert cast.mean.dtype == cast.std.dtype == torch.float32
    assert torch.equal(scale.float()(x), expected)


@pytest.mark.parametrize("build", [dict, MulT.for_data])
def test_a_model_in_half_precision_hands_rows_to_it_as_they_are(build):
    values = 1000 + random(40, 3)
    data = from_arrays({"v": values, "w": random(40, 2)}, LABELS)
    torch.manual_seed(0)
    if build is dict:
        encoders = {"v": Chain(InputNoise(), Standardize.fit(data, "v"), nn.Linear(3, 8)), "w": nn.Linear(2, 8)}
        model = MultimodalModel(encoders, None, ConcatFusion(8), nn.Linear(16, 2)).eval()
    else:
        model = build(data, width=8, heads=2, layers=1).eval()
    batch = next(data.batches(40))
    expected = model(batch)
    said = model.to(torch.bfloat16)(batch)
    assert said.dtype == torch.bfloat16
    torch.testing.assert_close(said.float(), expected, rtol=0.1, atol=0.1)


def test_noise_only_while_training():
    noise, x = InputNoise(0.3), torch.zeros(2000, 5)
    assert abs(noise.train()(x).std().item() - 0.3) < 0.02
    assert torch.equal(noise.eval()(x), x)
    assert torch.equal(InputNoise(0.0).train()(x), x)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda d: Standardize.fit(d, "textt"), DataError, "Did you mean 'text'"),
        (lambda d: Standardize.fit(d, "text"), DataError, "integer tokens"),
        (lambda d: Standardize.fit(d.select([0]), "v"), DataError, "present in no row"),
        (lambda d: Standardize((3,), clip=0.0), ConfigError, "positive clip"),
        (lambda d: InputNoise(-1.0), ConfigError, "0 or more"),
    ],
)
def test_wrong_use_is_explained(build, error, message):
    values = random(4, 2)
    values[0] = np.nan
    data = from_arrays({"v": values, "text": ["one", "two", "three", "four"]}, [0, 1, 0, 1])
    with pytest.raises(error, match=message):
        build(data)
