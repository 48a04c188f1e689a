"""SMIL: prototypes, the inner step, and what it leaves alone."""

from functools import partial

import pytest
import torch
from tests.helpers import first_batch, small_model, vectors
from torch.func import functional_call
from torch.nn import functional

from lacunar.data.arrays import from_arrays
from lacunar.errors import ConfigError
from lacunar.models.defaults import default_model
from lacunar.objectives.smil import SMIL, MetaFusion
from lacunar.training.fit import fit


def ready(data, make=small_model, **options):
    torch.manual_seed(0)
    model, objective = make(data), SMIL(**options)
    objective.setup(model, data)
    objective.stage = objective.stages()[1]
    objective.on_stage_start(model, data, objective.stage)
    return model, objective


def test_imputed_features_lie_in_the_hull_of_the_prototypes():
    module = MetaFusion(2, 2, prototypes=3)
    module.prototypes.copy_(torch.tensor([[[0.0, 0], [1, 0], [0, 1]]] * 2))
    h, present = 5 * torch.randn(50, 2, 2), torch.tensor([[True, False]]).expand(50, 2)
    made = module.impute(h, present)
    assert torch.equal(made[:, 0], h[:, 0])
    assert (made[:, 1] > 0).all()
    assert (made[:, 1].sum(1) < 1).all()


def test_prototypes_are_centres_of_complete_rows():
    data = vectors(2, n=60, missing=0.3)
    model, objective = ready(data, prototypes=4)
    h = model.encode(first_batch(data)).h[data.present.all(1)]
    for m in range(2):
        centres = objective.fusion.prototypes[m]
        nearest = torch.cdist(h[:, m], centres).argmin(1)
        for k in range(4):
            torch.testing.assert_close(h[nearest == k, m].mean(0), centres[k], atol=1e-4, rtol=1e-4)


def test_there_are_no_more_prototypes_than_complete_rows():
    data = from_arrays(
        {"a": torch.randn(12, 3), "b": [torch.randn(2) if i < 3 else None for i in range(12)]}, [0, 1] * 6
    )
    _, objective = ready(data, prototypes=10)
    assert objective.fusion.prototypes.shape[1] == 3


def test_the_gradient_runs_through_the_inner_step():
    data = vectors(2, n=60, missing=0.3)
    found = []
    for second_order in (True, False):
        model, objective = ready(data, second_order=second_order, inner_lr=0.5)
        torch.manual_seed(1)
        objective(model, first_batch(data))["outer"].backward()
        found.append(objective.fusion.layer.weight.grad.clone())
    assert not torch.allclose(*found)


def test_without_an_inner_step_both_orders_agree():
    data = vectors(2, n=60, missing=0.3)
    found = []
    for second_order in (True, False):
        model, objective = ready(data, second_order=second_order, inner_lr=0.0)
        torch.manual_seed(1)
        objective(model, first_batch(data))["outer"].backward()
        found.append(objective.fusion.layer.weight.grad.clone())
    torch.testing.assert_close(*found)


def without_noise(**options):
    """A batch in which every second row lacks ``m1``, and a method whose noise and dropout are off."""
    data = vectors(2, n=12, missing=0.0)
    model, objective = ready(data, prototypes=3, inner_lr=0.5, **options)
    keep = torch.ones(12, 2, dtype=torch.bool)
    keep[::2, 1] = False
    return model.eval(), objective, first_batch(data).hide(keep)


def inner_gradients(model, objective, batch):
    """The task on the rows that lack ``m1``, and gradients of the encoder of ``m0``, the hidden layer and the head."""
    predictor = objective.build(model)
    h = torch.stack([model.encoders[0](batch.inputs["m0"][::2]), torch.zeros(6, 8)], 1)
    present = torch.tensor([[True, False]]).expand(6, 2)
    inner = functional.cross_entropy(predictor.head(predictor.fusion(h, present)), batch.target[::2])
    parts = ("encoders.0.", "fusion.layer.", "head.")
    steps = {f"model.{name}": p for name, p in predictor.named_parameters() if name.startswith(parts)}
    return inner, dict(zip(steps, torch.autograd.grad(inner, list(steps.values()))))


def before_and_after_inner_step(monkeypatch, model, objective, batch):
    """All parameters by name, and those that the outer losses are computed with."""
    calls = []

    def record(module, parameters, arguments):
        calls.append((dict(module.named_parameters()), parameters))
        return functional_call(module, parameters, arguments)

    monkeypatch.setattr("lacunar.objectives.smil.functional_call", record)
    objective(model, batch)
    assert calls
    assert all(parameters is calls[0][1] for _, parameters in calls)
    own, fast = calls[0]
    return own, {**own, **fast}


@pytest.mark.parametrize(("batches", "step"), [(0, 0.5), (999, 0.5), (1000, 0.05)])
def test_the_inner_step_goes_down_the_gradient_and_shrinks_after_every_1000_batches(monkeypatch, batches, step):
    model, objective, batch = without_noise()
    objective.batches.fill_(batches)
    _, gradients = inner_gradients(model, objective, batch)
    before, after = before_and_after_inner_step(monkeypatch, model, objective, batch)
    assert all(g.any() for g in gradients.values())
    for name, g in gradients.items():
        torch.testing.assert_close(after[name], before[name] - step * g)
    assert objective.batches == batches + 1


@pytest.mark.parametrize("part", ["encoders.1", "fusion.weigh", "fusion.raise_features", "fusion.raise_hidden"])
def test_what_imputes_and_the_encoder_of_what_is_missing_take_no_inner_step(monkeypatch, part):
    model, objective, batch = without_noise()
    before, after = before_and_after_inner_step(monkeypatch, model, objective, batch)
    names = [name for name in before if name.startswith(f"model.{part}.")]
    assert names
    assert all(after[name] is before[name] for name in names)


def test_loss_terms_are_those_computed_by_hand():
    model, objective, batch = without_noise(match=0.1)
    terms = objective(model, batch)
    inner, gradients = inner_gradients(model, objective, batch)
    own = dict(objective.build(model).named_parameters())
    with torch.no_grad():
        for name, g in gradients.items():
            own[name.removeprefix("model.")].sub_(0.5 * g)
        fusion = objective.fusion
        first, second = model.encoders[0](batch.inputs["m0"][1::2]), model.encoders[1](batch.inputs["m1"])
        true_u = torch.cat([first, second], 1)
        true_a = torch.relu(fusion.layer(true_u))
        seen = torch.cat([first, torch.zeros(6, 8), torch.tensor([[1.0, 0.0]]).expand(6, 2)], 1)
        w = functional.softplus(fusion.weigh(seen))[:, 3:]  # of the three prototypes of m1
        made = (w / w.sum(1, keepdim=True)) @ fusion.prototypes[1]
        u = torch.cat([first, made], 1) + functional.softplus(fusion.raise_features(seen))
        a = torch.relu(fusion.layer(u)) + functional.softplus(fusion.raise_hidden(u))
        expected = {
            "task": inner,
            "outer": functional.cross_entropy(objective.head(a), batch.target[1::2]),
            "match": 0.1 * (functional.mse_loss(u, true_u) + functional.mse_loss(a, true_a)),
        }
    torch.testing.assert_close(terms, expected)


def test_prediction_without_a_modality_never_meets_its_encoder():
    data = vectors(3, n=40, missing=0.0)
    model, objective = ready(data)
    predictor = objective.build(model).eval()
    seen = first_batch(data).hide(["m0", "m2"])
    before = predictor(seen)
    with torch.no_grad():
        for parameter in model.encoders[1].parameters():
            parameter.add_(1.0)
    assert torch.equal(predictor(seen), before)
    assert not torch.equal(predictor(first_batch(data)), before)


def test_prediction_is_steady():
    data = vectors(3, n=40)
    model, objective = ready(data)
    predictor = objective.build(model).eval()
    batch = first_batch(data)
    assert torch.equal(predictor(batch), predictor(batch))
    predictor.train()
    assert not torch.equal(predictor(batch), predictor(batch))


def test_recurrent_encoders_have_a_second_derivative():
    steps = [torch.randn(3 + i % 4, 5) if i % 3 else None for i in range(24)]
    data = from_arrays({"a": torch.randn(24, 4), "s": steps}, [0, 1] * 12)
    model, objective = ready(data, partial(default_model, features=8), prototypes=3)
    terms = objective(model, first_batch(data))
    assert set(terms) == {"task", "outer", "match"}
    sum(terms.values()).backward()


def test_complete_training_data_teach_to_impute_as_well():
    data = vectors(3, n=30, missing=0.0)
    model, objective = ready(data)
    terms = objective(model, first_batch(data))
    assert set(terms) == {"task", "outer", "match"}
    sum(terms.values()).backward()
    assert objective.fusion.weigh.layers[0].weight.grad.abs().sum() > 0


class AttendingColumns(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.attend = torch.nn.Linear(1, 8), torch.nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        tokens = self.embed(x[:, :, None])
        return self.attend(tokens, tokens, tokens, need_weights=False)[0].mean(1)


def test_attention_has_a_second_derivative():
    data = vectors(2, n=24)
    model, objective = ready(data, prototypes=3)
    model.encoders[0] = AttendingColumns()
    sum(objective(model, first_batch(data)).values()).backward()


def test_no_incomplete_row_need_have_the_text():
    # Looking up no tokens has no second derivative in PyTorch.
    note = [None if i < 10 else "ab" * (1 + i % 3) for i in range(40)]
    data = from_arrays({"a": torch.randn(40, 3), "note": note}, [0, 1] * 20)
    model, objective = ready(data, partial(default_model, features=8), prototypes=3)
    terms = objective(model, first_batch(data))
    sum(terms.values()).backward()
    embedding = model.encoders[1].embedding.weight
    assert torch.isfinite(embedding.grad).all()
    assert embedding.grad.abs().sum() > 0, "it learns from the complete rows"


def test_data_without_a_complete_row_are_refused():
    halves = {"a": [torch.randn(3) if i % 2 else None for i in range(12)]}
    halves["b"] = [None if i % 2 else torch.randn(3) for i in range(12)]
    data = from_arrays(halves, [0, 1] * 6)
    with pytest.raises(ConfigError, match="none of the 12 training samples has all of a, b"):
        SMIL().setup(small_model(data), data)


def test_it_trains_with_fit():
    data = vectors(3, n=100).split(train=0.7, val=0.3, test=0.0, seed=0)
    run = fit(data, small_model(data.train), SMIL(), max_epochs=4, progress=False)
    assert {"loss/outer", "loss/match", "loss/single"} <= set(run.history.columns)
    assert run.best_epoch >= 1
    assert run.objective.fusion.prototypes.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"prototypes": 0}, "prototypes"), ({"match": -1.0}, "match"), ({"preparing": 1.0}, "prepar")],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SMIL(**options)
