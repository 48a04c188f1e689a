"""G-Blending: weights from drops and gaps, and the rows that are held out."""

import pytest
import torch
from tests.helpers import first_batch, small_model, vectors
from torch import nn

from lacunar.errors import ConfigError
from lacunar.objectives.gradient_blending import GradientBlending, blending_weights
from lacunar.training.fit import fit


def ready(data, **options):
    torch.manual_seed(0)
    model, objective = small_model(data), GradientBlending(**options)
    objective.setup(model, data)
    return model, objective


def test_a_hand_made_example():
    # G / O^2: .2 / .01 = 20 and .4 / .04 = 10; scaled to sum to 2.
    weight = blending_weights(torch.tensor([0.2, 0.4]), torch.tensor([0.1, 0.2]))
    torch.testing.assert_close(weight, torch.tensor([4 / 3, 2 / 3]))


def test_a_head_that_got_worse_weighs_nothing():
    weight = blending_weights(torch.tensor([-0.5, 0.3, 0.1]), torch.tensor([0.1, 0.1, 0.1]))
    torch.testing.assert_close(weight, torch.tensor([0.0, 2.25, 0.75]))


def test_no_gap_is_no_division_by_zero_and_no_gain_is_even():
    assert torch.isfinite(blending_weights(torch.tensor([0.1, 0.2]), torch.zeros(2))).all()
    assert blending_weights(torch.tensor([-0.1, -0.2]), torch.ones(2)).tolist() == [1.0, 1.0]


def test_the_held_out_rows_are_even_over_classes_and_never_trained_on():
    data = vectors(3, n=60)
    _, objective = ready(data, holdout=0.2)
    held = objective.held_out
    assert int(held.sum()) == 12
    assert torch.bincount(data.target[held]).tolist() == [4, 4, 4]
    rest = objective.training_set(data, 3)
    assert set(rest.ids) == set(data.ids[~held.numpy()])


def test_groups_are_held_out_whole():
    target = torch.arange(60) // 6 % 2
    from lacunar.data.arrays import from_arrays

    who = [f"g{number // 6}" for number in range(60)]
    data = from_arrays({"m0": torch.randn(60, 3), "m1": torch.randn(60, 2)}, target, groups=who)
    held = ready(data, holdout=0.2)[1].held_out
    assert {name for name, out in zip(who, held) if out}.isdisjoint(name for name, out in zip(who, held) if not out)
    assert torch.bincount(target[held]).tolist() == [6, 6]


def test_drop_and_growth_are_before_minus_after(monkeypatch):
    """G and O of each loss by hand: both parts, both times."""
    data = vectors(2, n=40)
    model, objective = ready(data, holdout=0.25)
    before = {30: torch.tensor([1.0, 2.0, 1.5]), 10: torch.tensor([1.1, 2.4, 1.6])}
    train_after, held_after = [0.5, 1.5, 0.6], [0.8, 2.0, 1.2]
    monkeypatch.setattr(objective, "_measure", lambda model, heads, part: before[len(part)])
    alone = lambda model, k, *parts: (torch.tensor(train_after[k]), torch.tensor(held_after[k]))  # noqa: E731
    monkeypatch.setattr(objective, "_train_alone", alone)
    objective.on_epoch_start(model, data, 0)
    drop = torch.tensor([1.1 - 0.8, 2.4 - 2.0, 1.6 - 1.2])
    growth = torch.tensor([0.3 - 0.1, 0.5 - 0.4, 0.6 - 0.1])
    expected = drop / growth**2
    torch.testing.assert_close(objective.weight, 3 * expected / expected.sum())


def test_single_losses_are_means_over_present_rows():
    data = vectors(2, n=30, missing=0.4)
    model, objective = ready(data)
    batch = first_batch(data)
    losses = objective._losses(model, objective.heads, batch)
    features = model.encode(batch)
    for m in range(2):
        rows = data.present[:, m]
        expected = objective.losses(objective.heads[m](features.h[rows, m]), data.target[rows]).mean()
        torch.testing.assert_close(losses[m], expected)
    objective.weight.copy_(torch.tensor([2.0, 0.5, 0.5]))
    terms = objective(model, batch)
    torch.testing.assert_close(terms["task"], 0.5 * losses[2])
    torch.testing.assert_close(terms["single"], 2 * losses[0] + 0.5 * losses[1])


def test_an_estimate_leaves_the_model_as_it_is_and_rewards_what_generalises():
    draw = torch.Generator().manual_seed(0)
    target = torch.arange(120) % 3
    from lacunar.data.arrays import from_arrays

    useful = 3 * torch.eye(3)[target] + 0.3 * torch.randn(120, 3, generator=draw)
    data = from_arrays({"useful": useful, "noise": torch.randn(120, 40, generator=draw)}, target)
    model, objective = ready(data, epochs=4, lr=1e-2, batch_size=16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    objective.on_epoch_start(model, data, 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert objective.weight.sum() == pytest.approx(3)
    assert objective.weight[0] > 5 * objective.weight[1]


def test_weights_are_estimated_at_every_super_epoch_only():
    data = vectors(2, n=40)
    model, objective = ready(data, every=3, epochs=1)
    changed = []
    for epoch in range(5):
        objective.weight.fill_(-1.0)
        objective.on_epoch_start(model, data, epoch)
        changed.append(bool((objective.weight >= 0).all()))
    assert changed == [True, False, False, True, False]


def test_losses_are_measured_without_dropout_in_the_heads():
    data = vectors(2, n=40)
    model, objective = ready(data, heads={name: nn.Sequential(nn.Dropout(), nn.Linear(8, 3)) for name in data.names})
    once, again = (objective._measure(model, objective.heads, data) for _ in range(2))
    assert torch.equal(once, again)
    assert objective.heads.training


def test_a_modality_that_no_held_out_row_has_keeps_its_weight():
    data = vectors(3, n=60)
    model, objective = ready(data, epochs=1)
    keep = torch.ones(60, 3, dtype=torch.bool)
    keep[objective.held_out, 1] = False
    objective.on_epoch_start(model, data.hide(keep.numpy()), 0)
    assert objective.weight[1] == 1
    assert objective.weight.sum() == pytest.approx(4)


def test_an_epoch_can_have_as_many_steps_as_for_other_methods():
    data = vectors(3, n=60)
    _, objective = ready(data, holdout=0.2, keep_size=True)
    rows = objective.training_set(data, 0)
    assert len(rows) == 60
    assert set(rows.ids) == set(data.ids[~objective.held_out.numpy()])


def test_copies_train_on_no_batch_of_one_row():
    data = vectors(2, n=20, missing=0.0)  # 17 rows are left: 16 and 1
    model, objective = ready(data, batch_size=16, epochs=1)
    model.encoders[0].append(nn.BatchNorm1d(8))
    objective.on_epoch_start(model, data, 0)


def test_it_trains_with_fit():
    data = vectors(2, n=80).split(train=0.7, val=0.3, test=0.0, seed=0)
    run = fit(data, small_model(data.train), GradientBlending(every=2), max_epochs=3, progress=False)
    assert {"loss/single", "weight/m0"} <= set(run.history.columns)


@pytest.mark.parametrize(
    ("options", "message"), [({"every": 0}, "from 1 up"), ({"holdout": 1.0}, "holdout"), ({"epochs": 0}, "from 1 up")]
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        GradientBlending(**options)


def test_heads_are_those_of_the_modalities():
    data = vectors(M=2)
    model = small_model(data)
    given = {name: nn.Linear(8, data.task.n_outputs) for name in data.names}
    for heads in (given, nn.ModuleDict(given)):
        objective = GradientBlending(heads=heads)
        objective.setup(model, data)
        assert list(objective.heads) == list(given.values())
    for heads in (["a"], nn.Linear(8, 3), {"m0": 3}):
        with pytest.raises(ConfigError, match="heads: expected a head for each modality by name"):
            GradientBlending(heads=heads)
    with pytest.raises(ConfigError, match="heads are for .* the data have"):
        GradientBlending(heads=dict(reversed(given.items()))).setup(model, data)
    objective = GradientBlending()
    objective.setup(model, data)
    other = vectors(M=3)
    objective.setup(small_model(other), other)  # heads that were made here are made anew
    assert len(objective.heads) == 3
