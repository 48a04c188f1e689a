"""OGM-GE: who leads learns more slowly."""

import pytest
import torch
from tests.helpers import first_batch, gradients, small_model, vectors
from torch import nn

from lacunar.data.arrays import from_arrays
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.ogm import OGM, alone
from lacunar.tasks import Classification


def ready(data, **options):
    model, objective = small_model(data, completion=False), OGM(**options)
    objective.setup(model, data)
    return model, objective


def confidence(model, objective, batch):
    features = model.encode(batch)
    pairs, which = alone(features)
    sure = torch.exp(-objective.losses(model.predict(features, pairs), batch.target[pairs.rows]))
    return torch.stack([sure[which == m].mean() for m in range(len(batch.names))])


@pytest.mark.parametrize("M", [2, 3])
def test_the_ratio_is_that_of_mean_confidences_over_present_rows(M):
    data = vectors(M, n=40, missing=0.4)
    model, objective = ready(data, strength=0.4)
    batch = first_batch(data)
    objective(model, batch)
    s = confidence(model, objective, batch)
    rho = torch.stack([s[m] / torch.cat([s[:m], s[m + 1 :]]).mean() for m in range(M)])
    torch.testing.assert_close(objective.diagnostics["rho"], rho)
    expected = torch.where(rho > 1, 1 - torch.tanh(0.4 * rho), 1.0)
    torch.testing.assert_close(objective.coefficient, expected)
    assert (expected < 1).any()
    assert (expected == 1).any()


def test_seeing_one_modality_is_its_part_of_a_linear_layer():
    data = vectors(2, n=12, missing=0.0)
    model, _ = ready(data)
    assert isinstance(model, MultimodalModel)
    features = model.encode(first_batch(data))
    pairs, which = alone(features)
    output = model.predict(features, pairs)
    head: nn.Linear = model.head
    part = features.h[:, 1] @ head.weight[:, features.h.shape[2] :].T + head.bias
    torch.testing.assert_close(output[which == 1], part)


@pytest.mark.parametrize("noise", [False, True])
def test_only_weights_of_the_leading_encoder_are_scaled(noise):
    data = vectors(2, n=40)
    model, objective = ready(data, noise=noise)
    sum(objective(model, first_batch(data)).values()).backward()
    before = gradients(model)
    objective.coefficient.copy_(torch.tensor([0.25, 1.0]))
    objective.after_backward(model)
    for name, gradient in gradients(model).items():
        scaled = name.startswith("encoders.0.") and gradient.ndim > 1
        if scaled and noise:
            assert not torch.equal(gradient, before[name] * 0.25)
        else:
            torch.testing.assert_close(gradient, before[name] * (0.25 if scaled else 1.0), rtol=0, atol=0)


def test_noise_has_mean_zero_and_the_spread_of_the_gradient():
    data = vectors(2, n=40)
    model, objective = ready(data, noise=True)
    sum(objective(model, first_batch(data)).values()).backward()
    weight = model.encoders[0][0].weight
    gradient = weight.grad.clone()
    draws = []
    for seed in range(400):
        torch.manual_seed(seed)
        weight.grad = gradient.clone()
        objective.coefficient.copy_(torch.tensor([0.5, 1.0]))
        objective.after_backward(model)
        draws.append(weight.grad - 0.5 * gradient)
    noise = torch.stack(draws)
    assert noise.mean().abs() < 0.02 * gradient.std()
    assert abs(noise.std() / gradient.std() - 1) < 0.03


def test_confidence_is_the_probability_of_the_truth_whatever_the_loss():
    data = vectors(2, n=30, missing=0.0)
    task = Classification(3, label_smoothing=0.2, balanced=True).fit(data.target)
    data = MultimodalDataset(data.columns, data.target, task, data.ids)
    _, objective = ready(data, label_smoothing=0.1)
    output = 20 * torch.nn.functional.one_hot(data.target, 3).float()
    torch.testing.assert_close(objective._confidence(output, data.target), torch.ones(30))


def test_equal_modalities_are_left_alone():
    x = torch.randn(20, 3)
    data = from_arrays({"m0": x, "m1": x}, torch.arange(20) % 2)
    model, objective = ready(data)
    model.encoders[1].load_state_dict(model.encoders[0].state_dict())
    with torch.no_grad():
        model.head.weight[:, 8:] = model.head.weight[:, :8]
    objective(model, first_batch(data))
    torch.testing.assert_close(objective.diagnostics["rho"], torch.ones(2))
    assert objective.coefficient.tolist() == [1, 1]


def test_a_weight_of_one_number_has_no_spread():
    data = vectors(2, n=20)
    model, objective = ready(data)
    weight = torch.nn.Parameter(torch.ones(1, 1))
    weight.grad = torch.ones(1, 1)
    model.encoders[0].register_parameter("one", weight)
    objective.coefficient.copy_(torch.tensor([0.5, 1.0]))
    objective.after_backward(model)
    assert weight.grad == 0.5


def test_an_absent_modality_is_left_alone():
    data = vectors(2, n=30)
    model, objective = ready(data)
    rows = (data.present[:, 0] & ~data.present[:, 1]).nonzero().squeeze(1)
    objective(model, data.__getitems__(rows.tolist()))
    assert objective.coefficient.tolist() == [1.0, 1.0]


def test_after_the_modulated_stage_nothing_is_scaled():
    data = vectors(2, n=30)
    model, objective = ready(data)
    objective(model, first_batch(data))
    assert (objective.coefficient < 1).any()
    objective.stage = objective.stages()[1]
    objective(model, first_batch(data))
    assert objective.coefficient.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("options", [{"strength": 0.0}, {"share": 0.0}, {"share": 1.5}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match=f"OGM: {next(iter(options))}"):
        OGM(**options)


def test_one_modality_is_refused():
    data = vectors(1, n=12, missing=0.0)
    with pytest.raises(ConfigError, match="at least 2"):
        OGM().setup(small_model(data), data)
