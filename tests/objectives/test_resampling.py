"""Valuation of modalities by sample, and the copies it asks for."""

from types import SimpleNamespace

import pytest
import torch
from tests.helpers import first_batch, small_model, vectors

from lacunar.errors import ConfigError
from lacunar.objectives.resampling import Resampling, copies_of, sample_values


class Table(torch.nn.Module):
    """A model that is right exactly where a table says so."""

    def __init__(self, right, lattice, task):
        super().__init__()
        self.right, self.lattice, self.task = right, lattice, task
        self.one = torch.nn.Parameter(torch.zeros(()))

    def encode(self, batch):
        return batch

    def pairs_within(self, *_, **__):
        return 4

    def read(self, batch, pairs, extract, chunk):
        truth = torch.nn.functional.one_hot(batch.target[pairs.rows], self.task.n_outputs).float()
        output = torch.where(self.right[pairs.codes][:, None], truth, truth.roll(1, 1))
        return extract(SimpleNamespace(output=output, pairs=pairs))


@pytest.mark.parametrize(
    ("a", "b", "both", "phi"),
    [
        (1, 1, 1, (1.0, 1.0)), (1, 1, 0, (0.0, 0.0)), (1, 0, 1, (1.5, 0.5)), (1, 0, 0, (0.5, -0.5)),
        (0, 1, 1, (0.5, 1.5)), (0, 1, 0, (-0.5, 0.5)), (0, 0, 1, (1.0, 1.0)), (0, 0, 0, (0.0, 0.0)),
    ],
)  # fmt: skip
def test_the_eight_cases_of_two_modalities(a, b, both, phi):
    data = vectors(2, n=6, missing=0.0)
    objective = Resampling()
    objective.task = data.task
    right = torch.tensor([False, bool(a), bool(b), bool(both)])
    found = sample_values(objective, Table(right, data.lattice, data.task), data)
    torch.testing.assert_close(found, torch.tensor(phi).expand(6, 2))


def test_values_sum_to_the_number_of_modalities_where_all_are_right():
    data = vectors(3, n=60, missing=0.4)
    model, objective = small_model(data), Resampling()
    objective.setup(model, data)
    phi = sample_values(objective, model, data)
    correct = data.task.score(model(first_batch(data)), data.target)
    torch.testing.assert_close(phi.sum(1), correct * data.present.sum(1))
    assert (phi[~data.present] == 0).all()


def test_a_modality_that_was_not_valued_is_not_the_weakest():
    data = vectors(3, n=40)
    _, objective = resampled(data, level="modality")
    copies = objective._copies_by_modality(torch.tensor([0.0, 0.9, 0.3]), torch.tensor([False, True, True]), data)
    assert copies.sum(0).tolist() == [0, 0, int(0.5 * 0.6 * 2 / 3 * 40)]


def test_copies_at_the_values_that_two_modalities_take():
    assert copies_of(torch.tensor([-0.5, 0.0, 0.5, 1.0, 1.5])).tolist() == [3, 2, 1, 0, 0]


def resampled(data, **options):
    model, objective = small_model(data), Resampling(**options)
    objective.setup(model, data)
    objective.stage = objective.stages()[-1]
    torch.manual_seed(0)
    objective.on_epoch_start(model, data, 3)
    return model, objective


def test_copies_hold_one_modality_and_do_not_add_up():
    data = vectors(3, n=40, missing=0.3)
    model, objective = resampled(data)
    first = objective.training_set(data, 3)
    assert len(first) == len(data) + int(objective.copies.sum())
    assert torch.equal(first.present[: len(data)], data.present)
    assert (first.present[len(data) :].sum(1) == 1).all()
    asked = objective.copies.sum(0)
    assert torch.equal(first.present[len(data) :].sum(0), asked)
    assert set(first.row.tolist()) == set(data.row.tolist())
    objective.on_epoch_start(model, data, 4)
    assert len(objective.training_set(data, 4)) == len(data) + int(objective.copies.sum())
    assert torch.equal(objective.copies.sum(0), asked)  # the same model, so the same copies


def test_a_copy_gives_no_gradient_to_dropped_modalities():
    data = vectors(2, n=40, missing=0.0)
    model, objective = resampled(data)
    enlarged = objective.training_set(data, 3)
    rows = (enlarged.present[:, 0] & ~enlarged.present[:, 1]).nonzero().squeeze(1)
    sum(objective(model, enlarged.__getitems__(rows.tolist())).values()).backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in model.encoders[1].parameters())
    assert any(p.grad.abs().sum() > 0 for p in model.encoders[0].parameters())


def test_different_samples_get_different_values():
    data = vectors(2, n=60, missing=0.0)
    model, objective = resampled(data)
    halves = [sample_values(objective, model, data.select(range(i, i + 30))) for i in (0, 30)]
    assert not torch.equal(*halves)
    torch.testing.assert_close(torch.cat(halves), sample_values(objective, model, data))


def test_the_modality_level_copies_only_the_weakest():
    data = vectors(3, n=80, missing=0.2)
    _, objective = resampled(data, level="modality", part=1.0, strength=1.5)
    gap = 1 - objective.contribution
    assert (objective.copies.sum(0) > 0).nonzero().squeeze(1).tolist() == [int(gap.argmax())]
    assert int(objective.copies.sum()) == int(1.5 * float(gap.max() - gap.min()) * 2 / 3 * len(data))
    assert (objective.copies[~data.present] == 0).all()


def test_an_epoch_can_keep_its_size():
    data = vectors(3, n=40, missing=0.3)
    _, objective = resampled(data, keep_size=True)
    assert objective.copies.sum() > 0
    assert len(objective.training_set(data, 3)) == len(data)


def test_nothing_is_copied_during_the_warm_up():
    data = vectors(2, n=30)
    model, objective = small_model(data), Resampling(warmup=0.5)
    objective.setup(model, data)
    objective.on_epoch_start(model, data, 0)
    assert objective.training_set(data, 0) is data


@pytest.mark.parametrize(
    ("options", "message"),
    [({"level": "samples"}, "Did you mean 'sample'"), ({"warmup": 1.0}, "warmup"), ({"part": 0.0}, "part in")],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Resampling(**options)
