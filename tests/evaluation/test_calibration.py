"""Calibration error against torchmetrics and by hand; temperatures that repair what was spoilt on purpose."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.helpers import small_model, vectors
from torch import nn

from lacunar.errors import ConfigError, DataError, RunError
from lacunar.evaluation import TemperatureScaling, evaluate, expected_calibration_error, reliability
from lacunar.evaluation.calibration import binned_calibration_error, calibration_bins
from lacunar.models.fusions import ConcatFusion
from lacunar.models.multimodal import MultimodalModel
from lacunar.models.saving import load_model, save_model
from lacunar.tasks import Classification, Regression


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_against_torchmetrics(bins):
    from torchmetrics.functional.classification import multiclass_calibration_error

    generator = torch.Generator().manual_seed(0)
    probabilities = (2 * torch.randn(500, 4, generator=generator)).softmax(1)
    target = torch.randint(0, 4, (500,), generator=generator)
    expected = multiclass_calibration_error(probabilities, target, 4, n_bins=bins, norm="l1")
    assert expected_calibration_error(probabilities, target, bins) == pytest.approx(float(expected), abs=1e-6)


def test_by_hand():
    confidence, right = np.array([0.95, 0.95, 0.55, 1.0]), np.array([1, 0, 1, 1])
    # Bins of a tenth: (.9, 1] holds three with mean .9667 and accuracy 2/3, (.5, .6] one with .55 and 1.
    assert binned_calibration_error(confidence, right, 10) == pytest.approx((2.9 - 2 + 0.45) / 4)
    table = calibration_bins(confidence, right, 10)
    assert table["count"].tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 3]
    # Two bins of two: {.55, .95} and {.95, 1}.
    assert calibration_bins(confidence, right, 2, equal_mass=True)["count"].tolist() == [2, 2]
    assert np.isnan(binned_calibration_error(np.empty(0), np.empty(0)))
    with pytest.raises(ConfigError, match="bins"):
        binned_calibration_error(confidence, right, 0)
    with pytest.raises(DataError, match=r"\(n, C\)"):
        expected_calibration_error(confidence, right)


class TooSure(nn.Module):
    """The Bayes posterior of a Gaussian world, with its logits multiplied."""

    def __init__(self, data, factor):
        super().__init__()
        self.data, self.factor = data, factor
        self.names, self.lattice, self.task = data.names, data.lattice, data.task

    def predict_pairs(self, batch, pairs):
        table = torch.stack(list(batch.dense().values()), 1)[:, :, 0]
        inside = self.lattice.decode(pairs.codes)
        evidence = (2 * table[pairs.rows] * inside).sum(1)
        sizes = inside.sum(1)
        return self.factor[sizes][:, None] * torch.stack([-evidence / 2, evidence / 2], 1)


def gaussian_world(n=2000, seed=0, **options):
    from lacunar.data.arrays import from_arrays

    draw = np.random.default_rng(seed)
    target = draw.integers(0, 2, n)
    present = draw.random((n, 2)) < 0.7
    present[~present.any(1), 0] = True
    sign = 2.0 * target - 1
    return from_arrays({name: draw.normal(size=n) + sign for name in "ab"}, target, present=present, **options)


def test_the_temperature_that_was_put_in_comes_out(tmp_path):
    val, test = gaussian_world(seed=0), gaussian_world(seed=1)
    model = TooSure(val, torch.tensor([1.0, 2.0, 5.0]))
    by_size = TemperatureScaling(model, by="size").fit(val)
    assert by_size.temperature[1:].tolist() == pytest.approx([2, 5], rel=0.15)
    one = TemperatureScaling(model).fit(val)
    assert 2 < float(one.temperature[1]) < 5
    before, after = evaluate(model, test), evaluate(by_size, test)
    assert after.per_sample.equals(before.per_sample)  # the answers are the same
    assert (after.frame["ece"].iloc[1:] < 0.6 * before.frame["ece"].iloc[1:]).all()
    assert (after.frame["log_loss"].iloc[1:] < before.frame["log_loss"].iloc[1:]).all()
    bins = reliability(by_size, test)
    assert bins["count"].sum() == int(before.counts[1:].sum())
    used = bins[bins["count"] > 50]
    assert (used["confidence"] - used["accuracy"]).abs().max() < 0.1


def test_a_scaled_model_is_saved_and_used_like_the_model(tmp_path):
    data = vectors(M=2, n=80)
    model = small_model(data)
    with pytest.raises(RunError, match="not fitted"):
        TemperatureScaling(model)(data[0])
    scaled = TemperatureScaling(model, by="size").fit(data)
    batch = data.__getitems__(range(10))
    sizes = batch.present.sum(1)
    torch.testing.assert_close(scaled(batch), model(batch) / scaled.temperature[sizes][:, None])
    pairs = data.lattice.pairs(batch.present)
    with torch.no_grad():
        torch.testing.assert_close(scaled.predict_pairs(batch, pairs, chunk=3), scaled.predict_pairs(batch, pairs))
    with pytest.raises(ConfigError, match="by"):
        TemperatureScaling(model, by="subset")  # type: ignore[arg-type]
    numbers = data.with_task(Regression(), data.target.float())
    with pytest.raises(DataError, match="regression has none"):
        TemperatureScaling(small_model(numbers)).fit(numbers)
    with pytest.raises(DataError, match="with a target"):
        TemperatureScaling(model).fit(data.with_task(data.task, None))


def test_a_plain_architecture_keeps_its_temperature_on_disk(tmp_path):
    data = vectors(M=2, n=80)
    encoders = {name: nn.Linear(*shape, 4) for name, shape in data.shapes.items()}
    model = MultimodalModel(encoders, None, ConcatFusion(4, 2), nn.Linear(8, 3), task=data.task)
    scaled = TemperatureScaling(model).fit(data)
    save_model(scaled, tmp_path / "scaled")
    again = load_model(tmp_path / "scaled")
    batch = data.__getitems__(range(10))
    torch.testing.assert_close(again(batch), scaled.eval()(batch))


def test_a_temperature_is_that_of_the_models_own_classes():
    data, turned = gaussian_world(300), gaussian_world(300, task=Classification([1, 0]))
    assert not torch.equal(data.target, turned.target)
    model = TooSure(data, torch.full((3,), 5.0))
    assert torch.equal(
        TemperatureScaling(model).fit(turned).temperature, TemperatureScaling(model).fit(data).temperature
    )


def test_a_temperature_weighs_no_classes():
    data = gaussian_world(300)
    model = TooSure(data, torch.full((3,), 5.0))
    plain = TemperatureScaling(model).fit(data).temperature
    model.task = Classification([0, 1], balanced=True).fit(torch.tensor([0] * 9 + [1]))
    assert torch.equal(TemperatureScaling(model).fit(data).temperature, plain)
