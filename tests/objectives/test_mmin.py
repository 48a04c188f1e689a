"""MMIN: imagination, its teacher, and the reduced form."""

import pytest
import torch
from tests.helpers import first_batch, small_model, vectors
from torch.nn import functional

from lacunar.errors import ConfigError
from lacunar.objectives.mmin import MMIN, Imagination
from lacunar.objectives.patterns import random_patterns
from lacunar.training.fit import fit


def ready(data, **options):
    torch.manual_seed(0)
    model, objective = small_model(data), MMIN(**options)
    objective.setup(model, data)
    objective.stage = objective.stages()[-1]
    return model, objective


def test_the_published_widths():
    network = Imagination(128, 3)
    imagined, latents = network.imagine(torch.randn(2, 384))
    assert imagined.shape == (2, 384)
    assert latents.shape == (2, 320)
    assert [
        layer.out_features for layer in network.forward_cascade.down[0].layers if hasattr(layer, "out_features")
    ] == [
        256,
        128,
        64,
    ]


@pytest.mark.parametrize(("everything", "patterns"), [(True, 7), (False, 6)])
def test_patterns_are_uniform(everything, patterns):
    torch.manual_seed(0)
    drawn = random_patterns(torch.ones(21000, 3, dtype=torch.bool), everything)
    counts = torch.bincount((drawn.long() << torch.arange(3)).sum(1), minlength=8)
    assert counts[0] == 0
    assert (counts > 0).sum() == patterns
    shares = counts[counts > 0] / len(drawn)
    torch.testing.assert_close(shares, torch.full((patterns,), 1 / patterns), atol=0.015, rtol=0)


def test_patterns_stay_within_what_is_there():
    torch.manual_seed(0)
    present = torch.tensor([[True, False, True, False], [False, True, False, False]]).repeat_interleave(300, 0)
    drawn = random_patterns(present, everything=False)
    assert drawn.any(1).all()
    assert not (drawn & ~present).any()
    assert (drawn[:300].sum(1) == 1).all()


def test_the_teacher_is_a_frozen_copy_from_the_start_of_its_stage():
    data = vectors(3, n=30, missing=0.0)
    model, objective = ready(data, teacher=True)
    with torch.no_grad():
        for parameter in model.encoders.parameters():
            parameter.add_(1.0)
    objective.on_stage_start(model, data, objective.stages()[0])
    assert not torch.equal(next(objective.teacher.parameters()), next(model.encoders.parameters()))
    objective.on_stage_start(model, data, objective.stages()[1])
    assert torch.equal(next(objective.teacher.parameters()), next(model.encoders.parameters()))
    terms = objective(model, first_batch(data))
    assert set(terms) == {"task", "cycle", "imagination"}
    sum(terms.values()).backward()
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())
    assert any(parameter.grad.abs().sum() > 0 for parameter in model.encoders.parameters())


def test_the_cycle_does_not_move_the_features_it_should_reach():
    data = vectors(2, n=20, missing=0.0)
    model, objective = ready(data)
    imagine = objective.network.imagine
    objective.network.imagine = lambda h: (imagine(h)[0].detach(), imagine(h)[1])
    torch.manual_seed(1)
    terms = objective(model, first_batch(data))
    assert terms["cycle"] > 0
    terms["cycle"].backward()
    assert all(p.grad is None or not p.grad.any() for p in model.encoders.parameters()), "no way back but the target"
    assert any(p.grad.any() for p in objective.network.backward_cascade.parameters())


def test_every_row_goes_either_to_its_encoder_or_to_the_teacher():
    data = vectors(3, n=24, missing=0.0)
    model, objective = ready(data, teacher=True)
    batch, read = first_batch(data), {}
    for encoders in (model.encoders, objective.teacher):
        for encoder in encoders:
            encoder.register_forward_pre_hook(lambda module, inputs: read.update({module: inputs[0].tolist()}))
    objective(model, batch)
    for m, name in enumerate(batch.names):
        shown, hidden = read[model.encoders[m]], read[objective.teacher[m]]
        assert shown and hidden
        assert sorted(shown + hidden) == sorted(batch.inputs[name].tolist())


def features_by_hand(encoders, batch):
    h = torch.zeros(*batch.present.shape, 8)
    for m, encoder in enumerate(encoders):
        h[batch.present[:, m], m] = encoder(batch.inputs[batch.names[m]])
    return h


@pytest.mark.parametrize(("teacher", "missing", "everything"), [(True, 0.0, False), (False, 0.3, True)])
def test_loss_terms_are_those_computed_by_hand(teacher, missing, everything):
    data = vectors(3, n=24, missing=missing)
    model, objective = ready(data, teacher=teacher, imagination=3.0, cycle=0.5)
    with torch.no_grad():
        for parameter in model.encoders.parameters():
            parameter.add_(0.2)  # away from the teacher
    batch = first_batch(data)
    torch.manual_seed(1)
    terms = objective(model, batch)
    torch.manual_seed(1)
    shown = random_patterns(batch.present, everything)
    h = (features_by_hand(model.encoders, batch) * shown[:, :, None]).flatten(1)
    imagined, latents = objective.network.imagine(h)
    back = objective.network.backward_cascade(imagined)[0]
    expected = {
        "task": functional.cross_entropy(objective.head(latents), batch.target),
        "cycle": 0.5 * functional.mse_loss(back, h),
    }
    if teacher:
        aim = (features_by_hand(objective.teacher, batch) * ~shown[:, :, None]).flatten(1)
        expected["imagination"] = 3 * functional.mse_loss(imagined, aim)
    torch.testing.assert_close(terms, expected)


def test_the_published_form_refuses_incomplete_training_data():
    data = vectors(3, n=30, missing=0.3)
    with pytest.raises(ConfigError, match="needs complete training data"):
        MMIN(teacher=True).setup(small_model(data), data)


@pytest.mark.parametrize("teacher", [False, True])
def test_it_trains_with_fit(teacher):
    data = vectors(3, n=80, missing=0.0).split(train=0.7, val=0.3, test=0.0, seed=0)
    run = fit(data, small_model(data.train), MMIN(teacher=teacher), max_epochs=4, progress=False)
    assert run.best_epoch >= (1 if teacher else 0)
    assert run.model(first_batch(data.val)).shape == (len(data.val), 3)
    assert ("loss/imagination" in run.history.columns) == teacher


@pytest.mark.parametrize(
    ("options", "message"),
    [({"pretraining": 0.0}, "pretraining"), ({"cycle": -1.0}, "cycle"), ({"blocks": 0}, "blocks")],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        MMIN(**options)
