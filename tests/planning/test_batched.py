"""The models of all subsets trained side by side: the same as one by one, and refused where that cannot be."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import lacunar as lc
from lacunar.errors import ConfigError, RunError
from lacunar.planning import batched as module
from lacunar.planning import utilities as table_module
from lacunar.planning.batched import BatchedCell, groups_of, obstacle, train_batched, train_together, wanted
from lacunar.planning.estimate_pilot import make_repeats
from lacunar.planning.retrain import Cell, fit_options, train_cell
from lacunar.planning.utilities import utilities
from tests.helpers import vectors

QUIET = {"progress": False}
FIT = {"max_epochs": 3, "batch_size": 16, "lr": 0.01}


def plain(data):
    """The default network at a small width, with nothing drawn while it trains."""
    return lc.default_model(data, features=8, dropout=0.0, noise=0.0)


def cells(data, fit, seeds=1, make=plain, label_codes=None):
    """Every subset of every repeat, as utilities cuts them."""
    found = []
    for repeat in make_repeats(data, seeds, 1, 0.25, 0.15):
        for code in label_codes or data.lattice.subsets:
            names = list(data.lattice.subset(code))
            train, val, held = (p.only(names) for p in (repeat.splits.train, repeat.splits.val, repeat.held))
            rows = np.arange(len(held))
            found.append(
                Cell(f"{repeat.seed}-{code}", code, data.lattice.label(code), train, val, held, rows, None, "log_loss",
                     make, fit_options(fit, "log_loss"), repeat.number)
            )  # fmt: skip
    return found


def items(record):
    return np.array(record["items"])


@pytest.mark.parametrize(
    "fit",
    [
        FIT,
        {**FIT, "gradient_clip": 0.05, "weight_decay": 0.3, "schedule": "cosine", "validate_every": 2},
        {**FIT, "average": None, "schedule": "constant", "gradient_clip": None, "select": "last"},
        {**FIT, "max_epochs": 6, "average": None, "patience": 1, "select": "best"},
    ],
    ids=["default", "clipped", "last", "patience"],
)
def test_side_by_side_is_one_by_one(fit):
    M = 3 if fit is FIT else 2
    own = cells(vectors(M, 70, missing=0.0), fit, seeds=4 - M)
    together = train_batched(BatchedCell({"a": own[:3], "b": own[3:]}))
    assert [part["key"] for part in together] == ["a", "b"]
    assert [part["trained"] for part in together] == [3, len(own) - 3]
    found = [record for part in together for record in part["subsets"]]
    untrained = [train_cell_without_steps(cell) for cell in own]
    for cell, record, start in zip(own, found, untrained):
        alone = train_cell(cell)["subsets"][0]
        assert {key: record[key] for key in ("code", "n_train", "n_eval", "rows")} == {
            key: alone[key] for key in ("code", "n_train", "n_eval", "rows")
        }
        np.testing.assert_allclose(items(record), items(alone), atol=2e-4)
        assert abs(items(record) - start).max() > 0.01  # something was learned, or equality says nothing


def train_cell_without_steps(cell):
    torch.manual_seed(cell.seed)
    model = cell.make_model(cell.train).eval()
    with torch.no_grad():
        output = torch.cat([model(batch) for batch in cell.held.batches(256)])
    return output.log_softmax(1).gather(1, cell.held.target[:, None]).squeeze(1).numpy()


def test_regression_is_the_same_too():
    data = vectors(2, 80, missing=0.0)
    values = data.target.double() * 3 + 1 + torch.linspace(0, 1, 80, dtype=torch.float64)
    numbers = {name: data.columns[name].take(torch.arange(80))[0].numpy() for name in data.names}
    data = lc.from_arrays(numbers, values.numpy(), task="regression")
    first, second = (
        utilities(data, plain, metric="mae", seeds=1, fit=FIT, batched=batched, **QUIET) for batched in (False, True)
    )
    np.testing.assert_allclose(first.values, second.values, atol=1e-4)
    assert second.config["batched"] is True and first.config["batched"] is False


def test_incomplete_pilots_at_equal_n():
    data = vectors(3, 160, missing=0.25)
    first, second = (utilities(data, plain, seeds=1, fit=FIT, batched=b, **QUIET) for b in (False, True))
    assert first.n_train[0, 1:].max() < 90
    np.testing.assert_array_equal(first.n_train, second.n_train)
    np.testing.assert_array_equal(first.n_eval, second.n_eval)
    np.testing.assert_allclose(first.values, second.values, atol=2e-4)


def test_a_model_never_sees_what_its_subset_lacks():
    data = vectors(3, 80, missing=0.0)
    table = utilities(data, plain, seeds=1, fit=FIT, batched=True, **QUIET)
    arrays = {name: data.columns[name].take(torch.arange(80))[0].numpy().copy() for name in data.names}
    last = data.names[-1]
    arrays[last] = arrays[last][::-1] * 7
    other = utilities(
        lc.from_arrays(arrays, data.target.numpy(), ids=data.ids), plain, seeds=1, fit=FIT, batched=True, **QUIET
    )
    without = [code for code in data.lattice.subsets if last not in data.lattice.subset(code)]
    np.testing.assert_allclose(table.values[:, without], other.values[:, without], atol=1e-5)
    assert abs(table.values[0, -1] - other.values[0, -1]) > 1e-3


def test_each_model_draws_its_own_dropout():
    def noisy(data):
        return lc.default_model(data, features=8, dropout=0.5, noise=0.5)

    data = vectors(2, 60, missing=0.0)
    same = cells(data, FIT, make=noisy, label_codes=[3, 3])
    drawn, again = (train_batched(BatchedCell({"a": same}))[0]["subsets"] for _ in range(2))
    assert abs(items(drawn[0]) - items(drawn[1])).max() > 1e-3
    for one, other in zip(drawn, again):
        np.testing.assert_array_equal(items(one), items(other))
    quiet = train_batched(BatchedCell({"a": cells(data, FIT, label_codes=[3, 3])}))[0]["subsets"]
    np.testing.assert_allclose(items(quiet[0]), items(quiet[1]), atol=1e-6)


def test_the_generator_of_the_caller_is_left_alone():
    own = cells(vectors(2, 40, missing=0.0), {**FIT, "max_epochs": 1})
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    train_batched(BatchedCell({"a": own}))
    torch.testing.assert_close(torch.rand(3), expected)


def test_a_loss_that_is_not_finite_names_its_subset():
    own = cells(vectors(2, 40, missing=0.0), {**FIT, "lr": 1e30, "gradient_clip": None, "average": None})
    with pytest.raises(RunError, match=r"The loss of \S+ is not finite in epoch"):
        train_together(own, [cell.make_model(cell.train) for cell in own])


# --- when it is done


def count(monkeypatch):
    """How often models were trained together, and alone."""
    seen = {"together": 0, "alone": 0}

    def counted(name, train):
        def run(cell):
            seen[name] += 1
            return train(cell)

        return run

    monkeypatch.setattr(table_module, "train_batched", counted("together", table_module.train_batched))
    monkeypatch.setattr(table_module, "train_cell", counted("alone", table_module.train_cell))
    return seen


def test_the_default_model_on_vectors_is_trained_together_unasked(monkeypatch):
    seen, fit = count(monkeypatch), {"max_epochs": 1}
    data = vectors(2, 50, missing=0.0)
    assert utilities(data, seeds=2, fit=fit, **QUIET).config["batched"] is True
    assert seen == {"together": 1, "alone": 0}
    assert utilities(data, seeds=1, fit=fit, batched=False, **QUIET).config["batched"] is False
    assert utilities(data, plain, seeds=1, fit=fit, **QUIET).config["batched"] is False
    assert seen == {"together": 1, "alone": 6}
    for limit, value in (("MOST_MODALITIES", 1), ("MOST_COLUMNS", 6)):
        with monkeypatch.context() as patch:
            patch.setattr(module, limit, value)
            assert not wanted(None, "retrain", data, lc.default_model, {}, True)
        assert wanted(None, "retrain", data, lc.default_model, {}, True)


def test_repeats_are_grouped_by_the_number_of_models(monkeypatch):
    monkeypatch.setattr(module, "MODELS", 7)
    assert [len(group) for group in groups_of([[1] * 3] * 5)] == [2, 2, 1]
    assert [len(group) for group in groups_of([[1] * 15] * 2)] == [1, 1]


def test_it_is_the_same_in_another_process():
    cell = BatchedCell({"a": cells(vectors(2, 40, missing=0.0), {**FIT, "max_epochs": 1}, make=lc.default_model)})
    sent = train_batched(pickle.loads(pickle.dumps(cell)))[0]["subsets"]
    for one, other in zip(train_batched(cell)[0]["subsets"], sent):
        np.testing.assert_array_equal(items(one), items(other))


def test_an_interrupted_table_goes_on(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "MODELS", 3)
    data, options = vectors(2, 50, missing=0.0), {"seeds": 2, "fit": {"max_epochs": 1}, **QUIET}
    whole = utilities(data, out=tmp_path / "a", **options)
    seen = count(monkeypatch)
    train = table_module.train_batched

    def once(cell):
        if seen["together"]:
            raise KeyboardInterrupt
        return train(cell)

    monkeypatch.setattr(table_module, "train_batched", once)
    with pytest.raises(KeyboardInterrupt, match="1 of 2 are kept"):
        utilities(data, out=tmp_path / "b", **options)
    monkeypatch.setattr(table_module, "train_batched", train)
    resumed = utilities(data, out=tmp_path / "b", **options)
    assert seen["together"] == 2
    np.testing.assert_array_equal(whole.values, resumed.values)
    with pytest.raises(lc.errors.RunError, match="batched: there True, here False"):
        utilities(data, out=tmp_path / "b", batched=False, **options)


@pytest.mark.parametrize(
    ("make", "fit", "match"),
    [
        (lambda data: LogisticRegression(), {}, "make_model returns LogisticRegression"),
        (None, {"objective": lc.MCE()}, "fit has objective="),
        (None, {"accumulate": 2}, "fit has accumulate=2"),
    ],
)
def test_what_cannot_be_stacked_is_refused(make, fit, match):
    data = vectors(2, 50, missing=0.0)
    with pytest.raises(ConfigError, match=match):
        utilities(data, make, seeds=1, fit=fit, batched=True, **QUIET)
    assert obstacle(data, make or lc.default_model, fit_options(fit, "log_loss"), True) is not None


def test_other_parts_and_other_data_are_refused():
    data = vectors(2, 50, missing=0.2)

    def odd(own):
        model = plain(own)
        model.head = nn.Sequential(nn.BatchNorm1d(8 * len(own.names)), nn.Linear(8 * len(own.names), 2))
        return model

    with pytest.raises(ConfigError, match=r"the model holds BatchNorm1d; only .*MLP.* are stacked"):
        utilities(data, odd, seeds=1, fit=FIT, batched=True, **QUIET)
    with pytest.raises(ConfigError, match="equal_n=False"):
        utilities(data, plain, seeds=1, fit=FIT, equal_n=False, batched=True, **QUIET)
    with pytest.raises(ConfigError, match="estimator='amortised' has one model"):
        utilities(data, estimator="amortised", seeds=1, batched=True, **QUIET)
    with pytest.raises(ConfigError, match="batched: expected True, False or None, got 'yes'"):
        utilities(data, seeds=1, batched="yes", **QUIET)  # type: ignore[arg-type]

    def uneven(own):
        return lc.default_model(own, features=8, dropout=0.1 * len(own.names))

    with pytest.raises(ConfigError, match="encoder of 'm0' differs from subset to subset"):
        utilities(data, uneven, seeds=1, fit=FIT, batched=True, **QUIET)


def test_images_are_not_stacked():
    images = lc.from_arrays({"a": np.zeros((30, 1, 4, 4), np.float32), "b": np.zeros((30, 2))}, np.arange(30) % 2)
    assert "only vectors are stacked, and modality 'a' is a image" in obstacle(images, lc.default_model, {}, True)
    words = lc.from_arrays({"a": [np.arange(2 + i % 3) for i in range(30)], "b": np.zeros((30, 2))}, np.arange(30) % 2)
    assert words.kinds["a"] == "tokens"
    for data in (images, words):
        assert not wanted(None, "retrain", data, lc.default_model, {}, True)
