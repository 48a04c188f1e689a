"""Modality dropout: how often a modality is dropped, who survives, and that prediction sees everything."""

from itertools import chain, combinations

import pytest
import torch
from tests.helpers import first_batch, gradients, small_model, vectors

from lacunar.errors import ConfigError
from lacunar.lattice import Pairs
from lacunar.objectives.joint import Joint
from lacunar.objectives.modality_dropout import ModalityDropout
from lacunar.training.fit import fit


def ready(data, rate):
    torch.manual_seed(0)
    model, objective = small_model(data), ModalityDropout(rate)
    objective.setup(model, data)
    return model, objective


@torch.no_grad()
def draws(data, rate, count=10):
    """Presence before, and what the model was given in several draws, ``(count * N, M)`` each."""
    model, objective = ready(data, rate)
    batch, given = first_batch(data), []
    model.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].present))
    for _ in range(count):
        objective(model, batch)
    return batch.present.repeat(count, 1), torch.cat(given)


def near(share, expected, count):
    return abs(float(share) - expected) < 3 / count**0.5


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.8])
def test_modalities_are_dropped_at_the_rate_that_was_asked_for(rate):
    present, kept = draws(vectors(8, n=1000, missing=0.0), rate)
    # One that has lost all gets one of eight back.
    expected = rate - rate**8 / 8
    for m in range(8):
        assert near((~kept[:, m]).float().mean(), expected, len(kept))
    assert near((~kept).float().mean(), expected, kept.numel())
    assert present.all()


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
def test_each_subset_of_what_a_sample_has_is_kept_as_often_as_independent_drops_would(rate):
    present, kept = draws(vectors(3, n=2000, missing=0.3), rate)
    for has in [(0, 1), (0, 2), (1, 2), (0, 1, 2)]:
        rows = (present == torch.tensor([m in has for m in range(3)])).all(1)
        assert rows.sum() > 2000
        for left in chain.from_iterable(combinations(has, size) for size in range(1, len(has) + 1)):
            expected = rate ** (len(has) - len(left)) * (1 - rate) ** len(left)
            if len(left) == 1:
                expected += rate ** len(has) / len(has)
            share = (kept[rows] == torch.tensor([m in left for m in range(3)])).all(1).float().mean()
            assert near(share, expected, int(rows.sum())), (has, left)


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.99])
def test_no_sample_loses_all_and_none_gains_what_it_lacks(rate):
    present, kept = draws(vectors(4, n=500, missing=0.5), rate)
    assert kept.any(1).all()
    assert not (kept & ~present).any()
    single = present.sum(1) == 1
    assert single.sum() > 100
    assert torch.equal(kept[single], present[single])


def test_the_last_one_left_is_any_of_what_a_sample_has_evenly():
    present, kept = draws(vectors(3, n=2000, missing=0.3), 0.9999)
    assert (kept.sum(1) == 1).float().mean() > 0.99
    for has in [(0, 1), (0, 2), (1, 2), (0, 1, 2)]:
        rows = (present == torch.tensor([m in has for m in range(3)])).all(1)
        for m in has:
            assert near(kept[rows, m].float().mean(), 1 / len(has), int(rows.sum())), (has, m)


def test_every_batch_is_drawn_anew():
    _, kept = draws(vectors(3, n=100, missing=0.0), 0.5, count=2)
    assert not torch.equal(kept[:100], kept[100:])


def test_the_loss_is_that_of_plain_training_on_what_is_left():
    data = vectors(3, n=60)
    model, objective = ready(data, 0.5)
    given = []
    hook = model.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    terms = objective(model, first_batch(data))
    hook.remove()
    assert given[0].present.sum() < data.present.sum()
    assert [len(rows) for rows in given[0].inputs.values()] == given[0].present.sum(0).tolist()
    joint = Joint()
    joint.setup(model, data)
    assert set(terms) == {"task"}
    assert torch.equal(terms["task"], joint(model, first_batch(data).hide(given[0].present))["task"])


def test_at_rate_zero_the_loss_and_its_gradients_are_exactly_those_of_joint():
    data = vectors(3, n=60)
    model, objective = ready(data, 0.0)
    joint = Joint()
    joint.setup(model, data)
    found = []
    for method in (objective, joint):
        model.zero_grad()
        terms = method(model, first_batch(data))
        terms["task"].backward()
        found.append((terms, gradients(model)))
    (dropped, dropped_gradients), (plain, plain_gradients) = found
    assert torch.equal(dropped["task"], plain["task"])
    assert all(torch.equal(dropped_gradients[name], plain_gradients[name]) for name in plain_gradients)


def test_predictions_read_everything_that_is_there():
    data = vectors(3, n=80, missing=0.0).split(train=0.7, val=0.3, test=0.0, seed=0)
    run = fit(data, small_model(data.train), ModalityDropout(0.9), max_epochs=2, progress=False)
    batch = first_batch(data.val)
    everything = Pairs(torch.arange(len(batch)), torch.full((len(batch),), 0b111))
    for predictor in (run.model, run.objective.build(run.model), run.objective.build(run.model).train()):
        with torch.no_grad():
            assert torch.equal(predictor(batch), predictor.predict_pairs(batch, everything))


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_rates_out_of_range_are_refused(rate):
    with pytest.raises(ConfigError, match=r"a rate in \[0, 1\)"):
        ModalityDropout(rate)
