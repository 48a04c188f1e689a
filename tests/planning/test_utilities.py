"""Utilities of every subset: scores, cuts, equal n, weights, resuming, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.metrics import balanced_accuracy_score, f1_score, r2_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB

import lacunar as lc
from lacunar.data.splits import Splits
from lacunar.datasets.synthetic import additive, xor
from lacunar.errors import ConfigError, DataError, RunError
from lacunar.planning import retrain
from lacunar.planning import utilities as module
from lacunar.planning.amortised import RandomSubsets, amortised_options, random_subsets
from lacunar.planning.equal_n import balanced_order, having, rows_for
from lacunar.planning.estimate_cells import CellPlan
from lacunar.planning.estimate_pilot import describe_pilot, joined, make_repeats, pilot_of
from lacunar.planning.estimate_scoring import METRICS, metric_for, score_constant, score_output
from lacunar.planning.utilities import utilities
from lacunar.planning.utility_table import UtilityTable
from lacunar.planning.weighting import diagnose, propensities
from lacunar.tasks import Classification, MultiLabel, Regression
from tests.helpers import small_model, vectors

QUIET = {"progress": False}
FIT = {"max_epochs": 2, "batch_size": 32}


def linear(data):
    return LogisticRegression(max_iter=200)


def tiny(data):
    return small_model(data, features=4)


# --- what comes out


def test_accuracies_are_those_that_the_world_knows():
    world = additive(3, 1500, seed=1, classes=3, dim=4)
    table = utilities(world.data, linear, metric="accuracy", seeds=4, **QUIET)
    np.testing.assert_allclose(table.mean[1:], world.bayes.numpy()[1:], atol=0.03)
    assert table.trainings == 4 * 7
    assert (table.n_train == 900).all() and (table.n_eval == 375).all()
    low, high = table.frame["low"].to_numpy(), table.frame["high"].to_numpy()
    order = [0, *table.lattice.subsets]
    inside = (low - 0.01 <= world.bayes.numpy()[order]) & (world.bayes.numpy()[order] <= high + 0.01)
    assert inside[1:].all()


def test_two_modalities_that_only_count_together():
    world = xor(3, 600, noise=0.3, dim=1)

    def quadratic(data):
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import PolynomialFeatures

        return make_pipeline(PolynomialFeatures(2), LogisticRegression())

    table = utilities(world.data, quadratic, metric="accuracy", seeds=2, **QUIET)
    assert abs(table.value("m0") - 0.5) < 0.1
    assert table.value(["m0", "m1"]) > 0.95


@pytest.mark.parametrize("estimator", ["retrain", "amortised"])
def test_networks(estimator):
    table = utilities(vectors(3, 120), tiny, estimator=estimator, seeds=2, fit={"max_epochs": 6, "lr": 0.03}, **QUIET)
    assert table.estimator == estimator
    assert table.trainings == {"retrain": 14, "amortised": 2}[estimator]
    assert table.metric == "log_loss"
    assert table.complete
    assert table.full > table.mean[0] + 0.1
    for r, items in enumerate(table.items):
        np.testing.assert_allclose(np.nanmean(items, axis=0), table.values[r], rtol=1e-4)
        np.testing.assert_array_equal(np.isfinite(items).sum(axis=0), table.n_eval[r])
    again = utilities(vectors(3, 120), tiny, estimator=estimator, seeds=2, fit={"max_epochs": 6, "lr": 0.03}, **QUIET)
    np.testing.assert_array_equal(table.values, again.values)


def test_a_default_model_serves_when_none_is_given():
    table = utilities(vectors(2, 60, missing=0.0), seeds=1, fit=FIT, **QUIET)
    assert table.complete


def test_estimators_agree_on_what_is_best():
    data, fit = vectors(3, 150, missing=0.0, strength=1.0), {"max_epochs": 6, "lr": 0.03, "batch_size": 32}
    slow = utilities(data, tiny, seeds=1, fit=fit, **QUIET)
    quick = utilities(data, tiny, estimator="amortised", seeds=1, fit=fit, **QUIET)
    assert np.corrcoef(slow.mean[1:], quick.mean[1:])[0, 1] > 0.7


def test_everything_is_the_same_whatever_the_order_of_the_samples():
    data = vectors(2, 90)
    shuffled = data.select(np.random.default_rng(0).permutation(90))
    first = utilities(data, linear, seeds=2, **QUIET)
    second = utilities(shuffled, linear, seeds=2, **QUIET)
    np.testing.assert_array_equal(first.n_train, second.n_train)
    np.testing.assert_allclose(first.values, second.values, atol=1e-6)


def test_folds_score_every_sample_once_per_seed():
    data = vectors(2, 60)
    table = utilities(data, linear, seeds=2, folds=3, **QUIET)
    assert table.values.shape == (6, 4)
    assert table.seeds.tolist() == [0, 0, 0, 1, 1, 1]
    assert table.folds.tolist() == [0, 1, 2] * 2
    assert sorted(np.concatenate(table.units[:3]).tolist()) == list(range(60))
    assert (table.n_eval[:3, 0].sum(), table.n_eval[3:, 0].sum()) == (60, 60)


def test_groups_are_never_cut_and_are_what_is_resampled():
    draw = np.random.default_rng(0)
    y = np.arange(90) % 3
    groups = np.repeat(np.arange(30), 3)
    data = lc.from_arrays({"a": draw.normal(size=(90, 2)) + y[:, None]}, y, groups=groups)
    for repeat in make_repeats(data, 3, 1, 0.25, 0.15):
        parts = [set(part.groups.tolist()) for part in repeat.splits.parts.values()]
        assert not parts[0] & parts[2] and not parts[0] & parts[1]
    table = utilities(data, linear, seeds=2, **QUIET)
    assert len(np.unique(table.units[0])) * 3 == len(table.units[0])


def test_the_test_part_is_never_read():
    splits = vectors(2, 120).split(0.5, 0.2, 0.3, seed=0)
    spoiled = {name: torch.full_like(splits.test.columns[name].values, torch.nan) for name in splits.names}
    positions = {name: splits.test.columns[name].position for name in splits.names}
    for name in splits.names:
        column = splits.test.columns[name]
        splits.test.columns[name] = type(column)(column.name, column.kind, positions[name], spoiled[name])
    table = utilities(splits, linear, seeds=2, **QUIET)
    alone = utilities(Splits(splits.train, splits.val), linear, seeds=2, **QUIET)
    np.testing.assert_array_equal(table.values, alone.values)
    assert int(table.n_eval[0, 0] + table.n_train[0, 0]) < len(splits.train) + len(splits.val)
    assert set(pilot_of(splits).ids) == {*splits.train.ids, *splits.val.ids}


def test_some_subsets_only():
    table = utilities(vectors(3, 60), linear, seeds=1, subsets=["m0", "m1+m0", ["m2"]], **QUIET)
    assert np.isfinite(table.mean).nonzero()[0].tolist() == [0, 1, 3, 4]
    assert table.trainings == 3


def test_validation_selects_among_several_estimators():
    def several(data):
        return [DummyClassifier(strategy="uniform"), GaussianNB()]

    data = vectors(2, 120, missing=0.0, strength=3.0)
    table = utilities(data, several, metric="accuracy", seeds=2, **QUIET)
    assert table.full > 0.8
    assert table.trainings == 2 * 3 * 2


@pytest.mark.parametrize("estimator", ["retrain", "amortised"])
def test_epochs_of_networks_are_selected_by_what_the_metric_judges(estimator):
    data, overfit = vectors(2, 100, missing=0.0), {"max_epochs": 25, "lr": 0.1, "average": None, "validate_every": 1}
    options = {"estimator": estimator, "seeds": 2, **QUIET}
    probable = utilities(data, tiny, fit=overfit, **options)
    accurate = utilities(data, tiny, fit={**overfit, "select": "best"}, **options)
    assert (probable.mean >= accurate.mean).all() and (probable.mean > accurate.mean).any()
    assert probable.config["fit"]["select"] == "loss"
    assert utilities(data, tiny, metric="accuracy", fit=overfit, **options).config["fit"]["select"] == "best"


def test_validation_of_a_subset_scores_the_subset_alone():
    data = vectors(2, 60, missing=0.0)
    model = small_model(data)
    predictor = retrain.WholeSubset().build(model)
    batch = data.__getitems__(range(10))
    pairs = data.lattice.pairs(batch.present)
    output = predictor.predict_pairs(batch, pairs)
    torch.testing.assert_close(output, model(batch)[pairs.rows])


# --- metrics


def test_metrics_are_those_of_scikit_learn():
    draw = np.random.default_rng(0)
    target = torch.from_numpy(draw.integers(0, 3, 50))
    task = Classification(3)
    output = torch.from_numpy(draw.normal(size=(50, 3)))
    said, probability = output.argmax(1).numpy(), output.softmax(1).numpy()
    truth = target.numpy()
    weight = draw.random(50) + 0.1
    for w in (None, weight):

        def get(metric, w=w):
            scored = score_output(metric, task, output, target, w)
            np.testing.assert_allclose(scored.items.mean(), scored.value, rtol=1e-6)
            return scored.value

        assert get("accuracy") == pytest.approx(np.average(said == truth, weights=w))
        assert get("balanced_accuracy") == pytest.approx(balanced_accuracy_score(truth, said, sample_weight=w))
        assert get("f1") == pytest.approx(f1_score(truth, said, average="macro", sample_weight=w))
        logs = np.log(probability[np.arange(50), truth])
        assert get("log_loss") == pytest.approx(np.average(logs, weights=w), rel=1e-5)
        brier = np.square(probability - np.eye(3)[truth]).sum(1)
        assert get("brier") == pytest.approx(-np.average(brier, weights=w), rel=1e-5)


def test_metrics_of_numbers_and_of_labels():
    draw = np.random.default_rng(1)
    task = Regression(2)
    target = torch.from_numpy(draw.normal(size=(40, 2))).float()
    output = target.double() + torch.from_numpy(draw.normal(size=(40, 2)))
    weight = draw.random(40) + 0.1
    for w in (None, weight):
        scored = score_output("r2", task, output, target, w)
        assert scored.value == pytest.approx(r2_score(target.numpy(), output.numpy(), sample_weight=w))
        assert scored.items.mean() == pytest.approx(scored.value)
    error = np.abs(output.numpy() - target.numpy()).mean()
    assert score_output("mae", task, output, target).value == pytest.approx(-error)
    labels = MultiLabel(3)
    truth = torch.from_numpy(draw.integers(0, 2, (40, 3))).float()
    logits = torch.from_numpy(draw.normal(size=(40, 3))).float()
    said = (logits > 0).numpy()
    expected = f1_score(truth.numpy(), said, average="macro", zero_division=0)
    assert score_output("f1", labels, logits, truth).value == pytest.approx(expected)
    assert score_output("accuracy", labels, logits, truth).value == pytest.approx((said == truth.numpy()).mean())
    one = score_output("log_loss", labels, logits, truth).value
    two = -torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
    assert one == pytest.approx(float(two), rel=1e-5)


def test_contributions_are_first_order_changes():
    """Counting one sample a little more changes F1 and R2 by its contribution, to first order."""
    draw = np.random.default_rng(2)
    n, step = 60, 1e-5
    target = torch.from_numpy(draw.integers(0, 3, n))
    output = torch.from_numpy(draw.normal(size=(n, 3)))
    task = Classification(3)
    plain = score_output("f1", task, output, target)
    for i in range(5):
        weight = np.ones(n)
        weight[i] += step
        moved = score_output("f1", task, output, target, weight).value
        assert (moved - plain.value) / step * n == pytest.approx(plain.items[i] - plain.value, abs=2e-3)


@pytest.mark.parametrize("metric", ["log_loss", "brier", "accuracy", "balanced_accuracy", "f1"])
def test_chance_is_the_expectation_of_guessing(metric):
    target = torch.arange(4000) % 4
    found = score_constant(metric, Classification(4), None, target, "chance", None)
    expected = {"log_loss": -np.log(4), "brier": -0.75}.get(metric, 0.25)
    assert found.value == pytest.approx(expected, abs=1e-3)


def test_baselines():
    data = vectors(2, 90, classes=3, missing=0.0)
    weights = np.array([0.6, 0.3, 0.1])
    target = np.random.default_rng(0).choice(3, 90, p=weights)
    data = data.with_task(data.task, torch.from_numpy(target))
    tables = {
        name: utilities(data, linear, metric="accuracy", seeds=1, subsets=["m0"], baseline=name, **QUIET)
        for name in ("train", "evaluation", "chance", 0.4)
    }
    share = np.bincount(target).max() / 90
    assert tables["train"].mean[0] == pytest.approx(share, abs=0.05)
    assert tables["chance"].mean[0] == pytest.approx(1 / 3)
    assert tables[0.4].mean[0] == pytest.approx(0.4)
    assert len({table.value("m0") for table in tables.values()}) == 1
    numbers = torch.tensor([0.0, 0.0, 0.0, 10.0])
    task = Regression().fit(numbers)
    assert score_constant("mae", task, numbers, numbers, "train", None).value == pytest.approx(-2.5)  # the median
    assert score_constant("r2", task, numbers, numbers, "train", None).value == pytest.approx(0.0, abs=1e-6)


def test_regression_and_labels():
    draw = np.random.default_rng(0)
    y = draw.normal(size=80)
    data = lc.from_arrays({"a": y[:, None] + 0.3 * draw.normal(size=(80, 2)), "b": draw.normal(size=(80, 2))}, y)
    table = utilities(data, lambda data: LinearRegression(), seeds=2, **QUIET)
    assert table.metric == "r2"
    assert table.value("a") > 0.8 > table.value("b") + 0.5
    assert -0.4 < table.mean[0] <= 0  # the mean of the train part is seldom that of the held-out part
    network = utilities(data, lc.default_model, metric="mae", seeds=1, fit=FIT, **QUIET)
    assert network.complete and (network.mean <= 0).all()
    labels = np.stack([y > 0, y > 0.5], axis=1).astype(int)
    data = lc.from_arrays({"a": data.columns["a"].values.numpy()}, labels, task="multilabel")
    table = utilities(data, lambda data: OneVsRestClassifier(LogisticRegression()), seeds=2, **QUIET)
    assert table.metric == "log_loss" and table.full > table.mean[0]


def test_metrics_that_do_not_suit_are_refused():
    assert metric_for(Regression(), None) == "r2"
    assert metric_for(Classification(2), None) == "log_loss"
    with pytest.raises(ConfigError, match="does not suit a regression task. Use one of: r2, mae"):
        metric_for(Regression(), "accuracy")
    with pytest.raises(ConfigError, match="does not suit a classification task"):
        metric_for(Classification(2), "r2")
    with pytest.raises(ConfigError, match="Did you mean 'brier'"):
        metric_for(Classification(2), "briar")
    assert set(METRICS) >= {"log_loss", "brier", "accuracy", "balanced_accuracy", "f1", "r2", "mae"}
    with pytest.raises(ConfigError, match="RidgeClassifier has no predict_proba"):
        utilities(vectors(2, 60), lambda data: RidgeClassifier(), seeds=1, **QUIET)
    assert utilities(vectors(2, 60), lambda data: RidgeClassifier(), seeds=1, metric="f1", **QUIET).full > 0.5


# --- equal n


def test_every_subset_is_trained_on_equally_many_samples_that_have_it():
    data = vectors(3, 150, missing=0.4)
    table = utilities(data, linear, seeds=2, **QUIET)
    for row in table.n_train:
        assert len(set(row[1:].tolist())) == 1
    assert any("equally many samples" in note for note in table.notes)
    free = utilities(data, linear, seeds=2, equal_n=False, **QUIET)
    assert free.n_train[0, 1] > free.n_train[0, 7] == 0 or free.n_train[0, 1] > 0
    counts = {len(having(make_repeats(data, 1, 1, 0.25, 0.15)[0].splits.train, code)) for code in (1, 2, 4)}
    assert free.n_train[0, 1] in counts


def test_models_that_accept_absent_cells_are_given_all_that_there_is():
    seen = []

    class Spy(HistGradientBoostingClassifier):
        def fit(self, x, y, **options):
            seen.append((len(x), bool(np.isnan(x).any())))
            return super().fit(x, y, **options)

    data = vectors(2, 120, missing=0.3)
    utilities(data, lambda data: Spy(max_iter=3), seeds=1, equal_n=False, subsets=["m0+m1"], **QUIET)
    utilities(data, lambda data: Spy(max_iter=3), seeds=1, subsets=["m0+m1"], **QUIET)
    (most, gaps), (fewer, none) = seen
    assert most > fewer and gaps and not none


def test_the_samples_that_are_told_are_those_that_were_learned_from():
    data, seen = vectors(2, 120, missing=0.3), []

    class Spy(LogisticRegression):
        def fit(self, x, y):
            seen.append(len(x))
            return super().fit(x, y)

    table = utilities(data, lambda data: Spy(), seeds=1, equal_n=False, subsets=["m0+m1"], **QUIET)
    assert table.n_train[0, 3] == seen[0]
    several = utilities(data, lambda data: [Spy(), Spy()], seeds=1, equal_n=False, subsets=["m0+m1"], **QUIET)
    assert several.n_train[0, 3] == seen[0]


def stand_in(equal_n, groups=None):
    """The cell of m0+m1 in a pilot of sorted classes of which no validation sample has m1."""
    draw, y = np.random.default_rng(0), np.arange(120) // 60
    arrays = {name: draw.normal(size=(120, 2)) + y[:, None] for name in ("m0", "m1")}
    data = lc.from_arrays(arrays, y, groups=groups)
    unseen = set(make_repeats(data, 1, 1, 0.25, 0.15)[0].splits.val.ids)
    partly = np.array([key not in unseen for key in data.ids]) & (draw.random(120) < 0.8)
    repeat = make_repeats(data.hide({"m1": partly}), 1, 1, 0.25, 0.15)[0]
    plan = CellPlan(data.lattice, [3], "log_loss", linear, {}, equal_n, 10, None)
    return plan.jobs(repeat, "retrain")[0][1]()


@pytest.mark.parametrize("equal_n", [True, False])
def test_what_stands_in_for_validation_has_the_subset_and_every_class(equal_n):
    cell = stand_in(equal_n)
    assert bool(cell.val.present.all())
    assert cell.val.target.bincount(minlength=2).min() >= 3
    assert not set(cell.val.ids) & set(cell.train.ids)
    cell = stand_in(equal_n, np.arange(120) // 4)
    assert not set(cell.val.groups) & set(cell.train.groups)
    assert 3 <= len(cell.val) < 0.4 * len(cell.train)
    assert cell.val.target.bincount(minlength=2).min() >= 1
    Splits(cell.train, cell.val)


def test_samples_of_a_smaller_size_are_among_those_of_a_larger_one():
    data = vectors(3, 120)
    order = balanced_order(data, 5)
    assert sorted(order.tolist()) == list(range(120))
    rows, labels = having(data, 3), data.target.numpy()
    few, more = rows_for(order, rows, labels, 20), rows_for(order, rows, labels, 40)
    assert set(few) < set(more) <= set(rows.tolist())
    assert np.bincount(labels[few]).min() >= 4  # three classes, nearly evenly
    assert (balanced_order(data, 6) != order).any()
    turned = data.select(np.arange(120)[::-1].copy())
    assert data.ids[order].tolist() == turned.ids[balanced_order(turned, 5)].tolist()


# --- missing not at random


def mar_world(n=3000, seed=0):
    """`b` is seen almost always in the class where it is easy to be right, seldom in the other; `a` always."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 2, n)
    a = y[:, None] + 1.5 * draw.normal(size=(n, 1))
    b = np.where(y == 1, 2.0, 0.0)[:, None] + np.where(y == 1, 0.4, 2.0)[:, None] * draw.normal(size=(n, 1))
    full = lc.from_arrays({"a": a, "b": b}, y, name="mar")
    chance = np.where(y == 1, 0.9, 0.25)
    return full, full.hide({"b": draw.random(n) < chance})


def test_weights_bring_scores_nearer_to_those_of_all_samples():
    full, partial = mar_world()
    prior = {"metric": "accuracy", "seeds": 3, "subsets": ["b"], "equal_n": False, **QUIET}

    def threshold(data):  # the same rule whatever it is trained on, so that only the scoring differs
        class Rule(DummyClassifier):
            def predict_proba(self, x):
                return np.eye(2)[(x[:, 0] * self.scale_ + self.centre_ > 1.0).astype(int)]

        rule = Rule()
        values = data.columns["b"].take(data.present[:, 0].nonzero().squeeze(1))[0].numpy()
        rule.centre_, rule.scale_ = float(values.mean()), float(values.std())
        return rule

    truth = utilities(full, threshold, **prior).value("b")
    plain = utilities(partial, threshold, **prior)
    weighed = utilities(partial, threshold, weights="inverse-probability", **prior)
    assert abs(weighed.value("b") - truth) < 0.4 * abs(plain.value("b") - truth)
    assert abs(plain.value("b") - truth) > 0.05
    assert any("'b' is observed more often when the target is 1" in note for note in plain.notes)
    for r, items in enumerate(weighed.items):
        np.testing.assert_allclose(np.nanmean(items[:, 2]), weighed.values[r, 2], rtol=1e-4)


def test_chances_of_being_observed_are_found():
    _, partial = mar_world()
    found = propensities(partial, [1, 2, 3])
    assert (found[1] == 1).all()
    y = partial.target.numpy()
    assert found[2][y == 1].mean() == pytest.approx(0.9, abs=0.04)
    assert found[2][y == 0].mean() == pytest.approx(0.25, abs=0.04)
    np.testing.assert_array_equal(found[2], found[3])


def test_missingness_without_a_cause_is_not_accused():
    notes = [note for seed in range(8) for note in diagnose(vectors(3, 200, missing=0.4, seed=seed))]
    assert len(notes) <= 1
    draw = np.random.default_rng(0)
    a, y = draw.normal(size=(300, 2)), draw.normal(size=300)
    data = lc.from_arrays({"a": a, "b": draw.normal(size=(300, 2))}, y).hide({"b": a[:, 1] + draw.normal(size=300) < 0})
    assert any("less often when column 1 of 'a' is large" in note for note in diagnose(data))


# --- going on


def test_an_interrupted_table_goes_on(tmp_path, monkeypatch):
    data = vectors(2, 60)
    trained = []
    real = module.train_cell

    def count(cell):
        if len(trained) == 4:
            raise KeyboardInterrupt
        trained.append(cell.key)
        return real(cell)

    monkeypatch.setattr(module, "train_cell", count)
    with pytest.raises(KeyboardInterrupt, match="4 of 6 are kept"):
        utilities(data, linear, seeds=2, out=tmp_path / "u", **QUIET)
    assert len(list((tmp_path / "u" / "cells").glob("*.json"))) == 4
    done = list(trained)
    monkeypatch.setattr(module, "train_cell", lambda cell: (trained.append(cell.key), real(cell))[1])
    table = utilities(data, linear, seeds=2, out=tmp_path / "u", **QUIET)
    assert len(trained) == 6 and not set(done) & set(trained[4:])
    whole = utilities(data, linear, seeds=2, **QUIET)
    np.testing.assert_array_equal(table.values, whole.values)
    assert table.trainings == whole.trainings == 6
    assert UtilityTable.load(tmp_path / "u" / "table.json", data=data) == table
    json.loads(next((tmp_path / "u" / "cells").glob("*.json")).read_text())


def test_cells_of_something_else_are_refused_by_name(tmp_path):
    data = vectors(2, 60)
    ask = {"seeds": 1, "out": tmp_path, **QUIET}
    utilities(data, linear, **ask)
    with pytest.raises(RunError, match="metric: there 'log_loss', here 'brier'"):
        utilities(data, linear, metric="brier", **ask)
    with pytest.raises(RunError, match="data.hash"):
        utilities(vectors(2, 60, seed=3), linear, **ask)
    with pytest.raises(RunError, match=r"model: there 'LogisticRegression\(max_iter=200\)', here 'GaussianNB\(\)'"):
        utilities(data, lambda data: GaussianNB(), **ask)
    with pytest.raises(RunError, match="seeds: there 'nothing', here 1"):
        utilities(data, linear, **{**ask, "seeds": 2})
    other = tmp_path / "other"
    other.mkdir()
    (other / "file.txt").write_text("mine")
    with pytest.raises(RunError, match="holds files but no config.json"):
        utilities(data, linear, **{**ask, "out": other})
    with pytest.raises(RunError, match="is a file"):
        utilities(data, linear, **{**ask, "out": other / "file.txt"})


def test_saved_tables_know_their_data(tmp_path):
    data = vectors(2, 60)
    table = utilities(data, linear, seeds=1, **QUIET)
    path = table.save(tmp_path / "table.json")
    assert UtilityTable.load(path, data=data) == table
    with pytest.raises(RunError, match="data.samples: there 60, here 61"):
        UtilityTable.load(path, data=vectors(2, 61))


# --- parts


def test_joined_parts_hold_what_they_held():
    splits = vectors(3, 60).split(0.5, 0.5, 0.0, seed=0)
    hidden = splits.train.hide({"m1": np.arange(len(splits.train)) % 2 == 0})
    for parts in ([splits.train, splits.val], [hidden, splits.val]):
        both = joined(parts)
        assert len(both) == sum(map(len, parts))
        for name in both.names:
            expected = [part.columns[name].take(part.columns[name].present.nonzero().squeeze(1))[0] for part in parts]
            found, _ = both.columns[name].take(both.columns[name].present.nonzero().squeeze(1))
            torch.testing.assert_close(found, torch.cat(expected))
    sequences = [[np.ones((k % 3 + 1, 2)) * k for k in range(5)], [np.ones((2, 2)) * 9, np.ones((1, 2)), None]]
    parts = [
        lc.from_arrays(
            {"s": s, "v": np.ones((len(s), 1))}, np.arange(len(s)) % 2, ids=[f"{k}{i}" for i in range(len(s))]
        )
        for k, s in enumerate(sequences)
    ]
    both = joined(parts)
    values, steps = both.columns["s"].take(torch.tensor([1, 4, 5]))
    assert steps.tolist() == [2, 2, 2] and values[2, 0, 0] == 9
    assert both.present[:, 0].tolist() == [True] * 7 + [False]
    assert describe_pilot(both)["hash"] != describe_pilot(both.select([0, 1, 2, 3, 4]))["hash"]


def test_random_subsets_have_every_size_equally_often():
    torch.manual_seed(0)
    present = torch.ones(6000, 4, dtype=torch.bool)
    present[3000:, 0] = False
    drawn = random_subsets(present)
    assert not (drawn & ~present).any() and drawn.any(1).all()
    sizes = torch.bincount(drawn[:3000].sum(1), minlength=5)[1:] / 3000
    torch.testing.assert_close(sizes, torch.full((4,), 0.25), atol=0.03, rtol=0)
    sizes = torch.bincount(drawn[3000:].sum(1), minlength=4)[1:] / 3000
    torch.testing.assert_close(sizes, torch.full((3,), 1 / 3), atol=0.03, rtol=0)
    single = drawn[:3000][drawn[:3000].sum(1) == 1].float().mean(0)
    torch.testing.assert_close(single, torch.full((4,), 0.25), atol=0.05, rtol=0)


def test_one_training_on_all_subsets_is_asked_to_cost_no_more_than_an_ordinary_one():
    options = amortised_options({"experts": False})
    assert (options["max_epochs"], options["validate_every"], options["lr"]) == (30, 5, 3e-3)
    assert isinstance(options["objective"], RandomSubsets) and options["objective"].subsets == 2
    assert amortised_options({"max_epochs": 2, "lr": 0.1})["max_epochs"] == 2
    own = {"objective": lc.ModalityDropout(), "max_epochs": 8}
    assert amortised_options(own) == own


def test_random_subsets_train_on_the_loss_of_what_was_drawn():
    data = vectors(3, 30)
    model = small_model(data)
    objective = RandomSubsets(3)
    objective.setup(model, data)
    batch = data.__getitems__(range(30))
    torch.manual_seed(1)
    loss = objective(model, batch)["task"]
    torch.manual_seed(1)
    codes = model.lattice.encode(random_subsets(batch.present.repeat(3, 1)))
    rows = torch.arange(30).repeat(3)
    output = model.predict_pairs(batch, lc.Pairs(rows, codes))
    torch.testing.assert_close(loss, data.task.loss(output, batch.target[rows]).mean())
    with pytest.raises(ConfigError, match="subsets: expected at least 1"):
        RandomSubsets(0)


# --- what is refused


def test_subsets_that_are_never_seen_together_get_a_note():
    data = vectors(2, 80, missing=0.0)
    first = np.arange(80) % 2 == 0
    apart = data.hide({"m0": first, "m1": ~first})
    for estimator, make in (("retrain", linear), ("amortised", tiny)):
        table = utilities(apart, make, estimator=estimator, seeds=2, fit=FIT, **QUIET)
        assert np.isnan(table.full) and np.isfinite(table.mean[:3]).all()
        assert any("m0+m1 has no value in 2 of 2 repeats: 0 training samples have all of it" in n for n in table.notes)
        assert any("more samples that have m0 and m1" in note for note in table.notes)
    # What is never observed alone is still worth something alone: the rest is left out.
    always = utilities(data, linear, seeds=1, **QUIET)
    assert np.isfinite(always.mean).all()


def test_a_class_that_a_subset_never_shows_gets_a_note():
    data = vectors(2, 90, missing=0.0)
    table = utilities(data.hide({"m1": data.target.numpy() != 2}), linear, seeds=1, **QUIET)
    assert np.isnan(table.value("m1")) and np.isfinite(table.value("m0"))
    assert any("hold none of class 2" in note for note in table.notes)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"estimator": "retrian"}, ConfigError, "unknown 'retrian'. Did you mean 'retrain'"),
        ({"metric": "acuracy"}, ConfigError, "Did you mean 'accuracy'"),
        ({"baseline": "tran"}, ConfigError, "Did you mean 'train'"),
        ({"baseline": True}, ConfigError, "baseline: expected"),
        ({"weights": "ipw"}, ConfigError, "expected None or 'inverse-probability', got 'ipw'"),
        ({"seeds": 0}, ConfigError, "seeds: expected how many"),
        ({"seeds": [1, 1]}, ConfigError, "expected each seed once"),
        ({"seeds": [-1]}, ConfigError, "from 0 up"),
        ({"folds": 0}, ConfigError, "folds: expected 1"),
        ({"folds": 100}, DataError, "The pilot has 60 samples; 100 folds need at least 100"),
        ({"held_out": 0.9, "val": 0.2}, ConfigError, "leave nothing to train on"),
        ({"fewest": 1}, ConfigError, "fewest: expected"),
        ({"subsets": ["m0+m9"]}, DataError, "unknown modality 'm9'"),
        ({"subsets": []}, ConfigError, "at least one non-empty subset"),
        ({"fit": {"epochs": 3}}, ConfigError, "lacunar.fit has no argument 'epochs'. Did you mean 'max_epochs'"),
        ({"fit": {"seed": 3}}, ConfigError, "'seed' is set for each model"),
        ({"fit": {"max_epochs": "3"}}, ConfigError, "fit: max_epochs: expected a whole number or None, got '3'"),
        ({"make_model": LogisticRegression()}, ConfigError, "expected a function from data to a model"),
        ({"make_model": lambda data: 3}, ConfigError, "expected a lacunar.MultimodalModel, a scikit-learn estimator"),
        ({"estimator": "amortised"}, ConfigError, "must return a lacunar.MultimodalModel, got LogisticRegression"),
    ],
)
def test_wrong_arguments_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        utilities(vectors(2, 60), **{"make_model": linear, "progress": False, "seeds": 1, **options})


def test_pilots_that_say_nothing_are_refused():
    data = vectors(2, 60)
    with pytest.raises(DataError, match="all 60 pilot samples are of one class, 1"):
        utilities(data.with_task(data.task, torch.ones(60, dtype=torch.int64)), linear)
    with pytest.raises(DataError, match="Modality 'm1' is observed for none of the .* Collect it for some samples"):
        utilities(data.hide({"m1": np.zeros(60, bool)}), linear)
    with pytest.raises(DataError, match="has no target"):
        utilities(data.with_task(None, None), linear)
    with pytest.raises(DataError, match="got list"):
        utilities([1, 2], linear)
    rare = torch.zeros(60, dtype=torch.int64)
    rare[0] = 1
    two = data.with_task(Classification(2), rare)
    with pytest.raises(DataError, match="cannot be cut for seed 0 into 3 folds"):
        utilities(two, linear, folds=3, seeds=1, **QUIET)
    with pytest.raises(DataError, match="no subset can be estimated. m0 has no value in 1 of 1 repeats: 8 training"):
        utilities(vectors(2, 14, missing=0.0), linear, seeds=1, **QUIET)
    text = lc.from_arrays({"a": ["hello", "you"] * 20}, np.arange(40) % 2)
    with pytest.raises(ConfigError, match="modality 'a' is a tokens"):
        utilities(text, linear, seeds=1, **QUIET)
