"""Two-stage training: equal steps, equal weights, frozen parts, no touch of what was not bought."""

import numpy as np
import pytest
import torch

from lacunar.data.arrays import from_arrays
from lacunar.errors import ConfigError
from lacunar.evaluation import evaluate
from lacunar.lattice import Pairs
from lacunar.objectives.generate_rest import GenerateRest, GeneratingModel, fill_features
from lacunar.planning.arms import buy, get_arm, owned_and_bought
from lacunar.planning.linear import LinearModel, linear_utilities, rehearsed_gains
from lacunar.planning.nested import NestedSubsets
from lacunar.planning.two_stage import Training, repeat, train_arm
from lacunar.training.fit import fit
from tests.helpers import first_batch, small_model, vectors

QUICK = Training(model={"features": 8}, steps=8, batch_size=16, generator={"steps": 1, "hidden": 8})


@pytest.fixture(scope="module")
def setting():
    data = vectors(3, n=90, missing=0.0).split(train=0.6, val=0.2, test=0.2, seed=0)
    order = NestedSubsets(data.train, 0)
    owned = order.share(0.4)
    return data, order, owned


def trained(setting, name, training=QUICK, **changes):
    data, order, owned = setting
    arm = get_arm({"arm": name, **changes})
    bought = buy(arm, order, data.names, 0.4, 0.5, ("m0", "m1"))
    return train_arm(arm, data.train.select(owned), owned_and_bought(data.train, owned, bought), data.val, training)


@pytest.mark.parametrize("name", ["lower", "sk-ll", "c2-mean", "c3"])
def test_every_arm_makes_as_many_steps(setting, name, monkeypatch):
    steps = []
    from lacunar.planning import two_stage

    def counted(data, *args, **options):
        run = fit(data, *args, **options)
        steps.append(len(run.steps))
        return run

    monkeypatch.setattr(two_stage, "fit", counted)
    found = trained(setting, name)
    assert sum(steps) == found.steps == QUICK.steps
    assert len(steps) == get_arm(name).stages
    table = evaluate(found.model, setting[0].test, bootstrap=0)
    assert np.isfinite(table.values.numpy()).all()


def test_same_seed_same_result_and_same_start(setting):
    first, second = trained(setting, "sk-ll"), trained(setting, "sk-ll")
    for a, b in zip(first.model.state_dict().values(), second.model.state_dict().values()):
        assert torch.equal(a, b)


def test_second_stage_freezes_encoders_and_flows(setting):
    data, _, owned = setting
    pilot = data.train.select(owned)
    model = small_model(pilot)
    first = GenerateRest()
    first.setup(model, pilot)
    objective = GenerateRest(first.generator, frozen=True)
    before = {name: weight.clone() for name, weight in objective.named_parameters()}
    encoders = [weight.clone() for weight in model.encoders.parameters()]
    fit(setting[0], model, objective, max_epochs=1, progress=False, average=None)
    assert all(torch.equal(a, b) for a, b in zip(encoders, model.encoders.parameters()))
    moved = {name for name, weight in objective.named_parameters() if not torch.equal(before[name], weight)}
    assert moved
    assert all("decoders" in name or "combine" in name for name in moved)


def test_first_stage_loss_has_task_and_generator(setting):
    data = setting[0]
    model = small_model(data.train)
    objective = GenerateRest(alpha=0.1, reconstruct=1.0)
    objective.setup(model, data.train)
    terms = objective(model, first_batch(data.train, 16))
    assert set(terms) == {"task", "likelihood", "reconstruction"}
    sum(terms.values()).backward()
    assert all(weight.grad is None or torch.isfinite(weight.grad).all() for weight in model.parameters())
    model.zero_grad()
    objective(model, first_batch(data.train, 16))["likelihood"].backward()
    assert all(weight.grad is None for weight in model.encoders.parameters())  # or features would be made constant


class Spy(torch.nn.Module):
    """A generator that answers 7 and remembers what it saw."""

    def complete(self, h, present):
        self.seen = h[~present]
        return torch.full_like(h, 7.0)


def test_only_absent_features_are_generated():
    data = vectors(3, n=20, missing=0.0)
    model, spy = small_model(data), Spy()
    predictor = GeneratingModel(model, spy).eval()
    batch = first_batch(data)
    rows = torch.arange(len(data))
    predictor.predict_pairs(batch, Pairs(rows, torch.full_like(rows, 0b101)))
    assert not spy.seen.any()  # what is outside the subset was zero when the generator was asked
    features = model.encode(batch.hide(["m0", "m2"]))
    filled = fill_features(spy, features)
    assert torch.equal(filled.h[:, [0, 2]], features.h[:, [0, 2]])
    assert (filled.h[:, 1] == 7).all()


def test_poison_in_what_was_not_bought_changes_nothing(setting):
    data, order, owned = setting
    arm = get_arm("sk-ll")
    bought = buy(arm, order, data.names, 0.4, 0.5, ("m0", "m1"))
    models = []
    for poison in (False, True):
        arrays = {name: values.numpy() for name, values in first_batch(data.train).dense().items()}
        if poison:
            for m, name in enumerate(data.names):
                lost = np.ones(len(data.train), dtype=bool)
                lost[owned] = False
                lost[bought.rows[bought.present[:, m]]] = False
                arrays[name][lost] = 1e30
        pool = from_arrays(arrays, data.train.target, ids=data.train.ids, task=data.train.task)
        everything = owned_and_bought(pool, owned, bought)
        models.append(train_arm(arm, pool.select(owned), everything, data.val, QUICK).model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(models[0].values(), models[1].values()))


@pytest.mark.parametrize("space", ["values", "features"])
def test_any_completer_serves(setting, space):
    training = Training(model={"features": 8}, steps=6, batch_size=16, space=space)
    found = trained(setting, "sk-ll", training, completion="ridge")
    assert np.isfinite(evaluate(found.model, setting[0].test, bootstrap=0).full)


def test_mult_serves_as_backbone(setting):
    training = Training("mult", {"width": 8, "heads": 2, "layers": 1}, steps=4, batch_size=16, generator={"steps": 1})
    found = trained(setting, "sk-ll", training)
    assert np.isfinite(evaluate(found.model, setting[0].test, bootstrap=0).values.numpy()).all()


def test_repeats_are_even():
    data = vectors(2, n=10)
    copies = repeat(data, 37)
    assert len(copies) == 37
    counts = np.bincount([int(name.split("#")[0]) for name in copies.ids])
    assert set(counts) == {3, 4}


def test_linear_model_and_its_utilities():
    data = vectors(3, n=150, missing=0.0, strength=1.0)
    model = LinearModel(data)
    assert evaluate(model, data, bootstrap=0).full > 0.8
    tables = linear_utilities(data, ("log_loss", "accuracy"))
    assert tables["accuracy"].values.shape == (1, 8)
    assert tables["accuracy"].trainings == 7 * 5
    assert (tables["log_loss"].mean[1:] > tables["log_loss"].mean[0]).all()
    again = linear_utilities(data.select(np.random.default_rng(0).permutation(150)), ("log_loss",))["log_loss"]
    assert np.allclose(again.mean, tables["log_loss"].mean, atol=1e-5)  # by id, not by place
    gains = rehearsed_gains(data)
    assert gains[0] == 0
    assert gains[-1] > 0


def test_linear_regression():
    x = np.random.default_rng(0).normal(size=(120, 3))
    data = from_arrays({"a": x[:, :2], "b": x[:, 2:]}, x @ [1.0, -1.0, 2.0], task="regression")
    data.task.fit(data.target)
    assert evaluate(LinearModel(data, strength=10.0), data, bootstrap=0).metrics.loc["a+b", "r2"] > 0.99


def test_errors_name_the_setting():
    with pytest.raises(ConfigError, match="unknown 'linaer'.*'linear'"):
        Training(backbone="linaer")
    with pytest.raises(ConfigError, match="unknown key 'step'.*'steps'"):
        Training.read({"step": 3})
    with pytest.raises(ConfigError, match="share of the steps"):
        Training(second=1.0)
    with pytest.raises(ConfigError, match="alpha"):
        GenerateRest(alpha=-1)
    with pytest.raises(ConfigError, match="hide"):
        GenerateRest(hide=1.0)
