"""A rehearsal finds that generation recovers everything where it can, nothing where it cannot, and says so."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier

from lacunar.data.arrays import from_arrays
from lacunar.datasets.worlds_of_generation import generable, ungenerable
from lacunar.errors import ConfigError, DataError, RunError
from lacunar.generation.mean import MeanCompleter
from lacunar.models.preprocessing import Standardize
from lacunar.planning import learner as module
from lacunar.planning.learner import Learner, held_out
from lacunar.planning.linear import LinearModel
from lacunar.planning.rehearsal import ratio_interval, rehearse
from tests.helpers import small_model, vectors


def model():
    return LogisticRegression(C=0.05)


@pytest.fixture(scope="module")
def can():
    return rehearse(generable(500, seed=1).data, make_model=model, seeds=4, keep=0.2)


@pytest.fixture(scope="module")
def cannot():
    return rehearse(ungenerable(500, seed=1).data, make_model=model, seeds=4, keep=0.2)


def row(rehearsal, subset):
    return rehearsal.quality.set_index("subset").loc[subset]


def test_what_can_be_computed_is_recovered_in_full(can):
    both = row(can, "x1+x2")
    assert can.known
    assert both["arm"] == "filled"
    assert both["quality"] == pytest.approx(1, abs=0.02)
    assert both["low"] > 0.95
    assert both["benefit_low"] > 0
    assert both["p_value"] < 0.05
    assert both["not_filled"] < 0.9
    # Half of what decides the label is in x1: one of the two recovers less than both.
    assert row(can, "x1")["quality"] < 0.8
    assert can.fills("x2+x1")


def test_what_is_independent_shows_no_gain(cannot):
    both = row(cannot, "x1+x2")
    assert cannot.known
    assert both["quality"] < 0.15
    assert both["filled"] < 0.15
    assert both["benefit"] < 0.01 * cannot.gain[0] + 1e-3  # filling is no better than not filling
    assert both["arm"] == "not filled"
    assert "x1+x2" in cannot.abstained
    assert row(cannot, "x3")["quality"] > 0.85  # and what decides the label needs nothing else


def test_draws_are_of_the_arm_and_effective_values_lie_in_the_unit_interval(can, cannot):
    for rehearsal in (can, cannot):
        for found in rehearsal.quality.itertuples():
            draws = rehearsal.draws[found.subset]
            assert draws.mean() == pytest.approx(found.quality, abs=0.05)
            mean, clipped = rehearsal.effective(found.subset, draws=7)
            assert clipped.shape == (7,)
            assert 0 <= clipped.min() <= clipped.max() <= 1
            assert 0 <= mean <= 1
        mean, draws = rehearsal.effective("x3+x2+x1")
        assert (mean, draws.min(), draws.max()) == (1, 1, 1)
    assert can.trainings == 4 * (2 + 2 * 6) == len(can.points)
    assert "kept" in str(can)


def test_where_full_data_bring_nothing_no_quality_is_stated():
    rng = np.random.default_rng(1)
    data = from_arrays({"a": rng.normal(size=(120, 3)), "b": rng.normal(size=(120, 3))}, rng.integers(2, size=120))
    found = rehearse(data, make_model=model, seeds=4, metric="accuracy")
    assert not found.known
    assert found.quality["quality"].isna().all()
    assert "cannot be told from zero" in found.notes[0]
    mean, draws = found.effective("a")
    assert mean == 0
    assert (draws == 0).all()
    one = rehearse(data, ["a"], make_model=model, seeds=1)
    assert one.quality[["quality", "low", "p_value"]].isna().all(axis=None)


def test_hidden_values_reach_neither_completer_nor_model(monkeypatch):
    data = generable(120, dims=(2, 2, 3)).data
    truth = data.columns["x3"].values
    stores = []
    plain = Learner.score

    def spy(self, train, test, seed=0, fill=False):
        observed = train.columns["x3"]
        stores.append((len(train), int(observed.present.sum()), len(observed.values)))
        if not observed.present.all():
            torch.testing.assert_close(observed.values, truth[train.row[observed.present]], rtol=0, atol=0)
        return plain(self, train, test, seed, fill)

    monkeypatch.setattr(Learner, "score", spy)
    found = rehearse(data, ["x1+x2"], make_model=model, seeds=2)
    assert len(stores) == 2 * 4
    for samples, present, stored in stores:
        if present < samples:  # the hidden cells are out of the store, not only marked
            assert stored == present == found.kept


def test_generated_cells_do_not_set_the_scale():
    """A mean-filled column varies less than the true one; scaled by it, the observed values would count for more."""
    data = ungenerable(400, seed=2, dims=(2, 2, 4)).data
    train, test = held_out(data, 0.5, 0)
    few = np.arange(len(train)) < 40
    part = train.hide({"x3": few})
    seen = {}

    class Spy(LogisticRegression):
        def fit(self, X, y):
            seen["spread"] = X[few, 4:].std(0)
            return super().fit(X, y)

    learner = Learner(Spy, completer="mean")
    learner.score(part, test, fill=True)
    np.testing.assert_allclose(seen["spread"], 1, atol=1e-6)
    full, observed = learner.complete(part), part.columns["x3"].values.double()
    np.testing.assert_allclose(Standardize.fit(full, "x3").std, observed.std(0, correction=0), rtol=1e-5)
    np.testing.assert_allclose(LinearModel(full).scale[2], observed.std(0, correction=0), rtol=1e-5)


def test_seeds_and_jobs_do_not_change_what_is_found():
    data = generable(150, dims=(2, 2, 2)).data
    one = rehearse(data, ["x1", "x2+x3"], make_model=model, seeds=[3, 4])
    two = rehearse(data, ["x1", "x2+x3"], make_model=model, seeds=[3, 4])
    pd.testing.assert_frame_equal(one.quality, two.quality)
    shuffled = data.select(np.random.default_rng(0).permutation(len(data)))
    other = rehearse(shuffled, ["x1", "x2+x3"], make_model=model, seeds=[3, 4])
    np.testing.assert_allclose(one.points["score"], other.points["score"], atol=1e-4)


def test_incomplete_samples_stay_out_and_it_is_said():
    data = vectors(n=200, missing=0.2)
    found = rehearse(data, ["m0"], make_model=model, seeds=2, completer=MeanCompleter(seed=0))
    complete = int(data.present.all(1).sum())
    assert f"{complete} of 200 samples are complete" in found.notes[-1]
    assert found.kept + found.rest == complete - round(0.3 * complete)


def test_a_network_can_rehearse():
    data = vectors(n=90, missing=0.0)
    options = {"max_epochs": 1, "batch_size": 32}
    found = rehearse(data, ["m0+m1"], make_model=small_model, seeds=2, fit=options)
    assert np.isfinite(found.points["score"]).all()
    again = rehearse(data, ["m0+m1"], make_model=small_model, seeds=2, fit=options)
    np.testing.assert_array_equal(found.points["score"], again.points["score"])


def grouped(sizes, seed=0):
    data = vectors(n=sum(sizes), missing=0.0, seed=seed)
    data.groups = np.repeat([f"g{k}" for k in range(len(sizes))], sizes)
    return data


def test_a_network_is_selected_on_groups_that_it_was_not_trained_on(monkeypatch):
    data, seen, whole = grouped([3] * 30), [], module.make_splits
    monkeypatch.setattr(module, "make_splits", lambda *given, **more: seen.append(whole(*given, **more)) or seen[-1])
    options = {"make_model": small_model, "seeds": 2, "fit": {"max_epochs": 1, "batch_size": 32}}
    found = rehearse(data, ["m0+m1"], **options)
    assert np.isfinite(found.points["score"]).all()
    for splits in seen:
        assert 0.05 < len(splits.val) / (len(splits.train) + len(splits.val)) < 0.4
        assert bool(splits.val.present.all()) and not bool(splits.val.generated.any())
        assert not set(splits.train.groups) & set(splits.val.groups)
    # One group alone has to be cut: there is nothing else to select on.
    learner = Learner(small_model, fit=options["fit"])
    assert np.isfinite(learner.score(grouped([40]), grouped([20], seed=1)).score)


def test_a_group_that_is_too_large_is_passed_over():
    for seed in range(20):
        rest, scored = held_out(grouped([60] + [1] * 60), 0.25, seed)
        assert len(scored) == 30 and "g0" not in scored.groups
        rest, scored = held_out(grouped([40, 41, 39]), 0.25, seed)  # where none fits it is the smallest
        assert set(scored.groups) == {"g2"} and set(rest.groups) == {"g0", "g1"}
    with pytest.raises(DataError, match="40 samples of one group, 'g0', which is not cut, are too few to hold out 25%"):
        held_out(grouped([40]), 0.25, 0)
    with pytest.raises(DataError, match="2 samples in 2 groups .the largest is 'g0' with 1 samples, and no group is"):
        held_out(grouped([1, 1]), 0.25, 0)


def test_fieller_covers_the_ratio_and_refuses_a_denominator_near_zero():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        below = 1 + 0.5 * rng.normal(size=6)
        above = 0.6 * below + 0.3 * rng.normal(size=6)
        ratio, low, high = ratio_interval(above, below, 0.9)
        if np.isfinite(ratio):
            assert low <= ratio <= high
            inside += low <= 0.6 <= high
        else:
            inside += 1  # the interval is then unbounded
    assert 0.85 <= inside / 400 <= 0.95
    assert np.isnan(ratio_interval(np.ones(5), np.array([-1.0, 1, -1, 1, 0.1]))[0])
    assert np.isnan(ratio_interval(np.ones(1), np.ones(1))[0])
    exact = ratio_interval(np.array([4.0, 5, 6]), np.array([8.0, 10, 12]))
    assert exact == pytest.approx((0.5, 0.5, 0.5))
    t = stats.t.ppf(0.975, 4)
    above = np.array([1.0, 2, 3, 4, 5])
    _, low, high = ratio_interval(above, np.ones(5) * 2)  # a constant denominator: the interval of a mean
    reach = t * above.std(ddof=1) / np.sqrt(5) / 2
    assert (low, high) == pytest.approx((1.5 - reach, 1.5 + reach))


def test_bad_requests_are_told():
    data = vectors(n=60, missing=0.0)
    with pytest.raises(DataError, match="is everything, so there is nothing left to complete"):
        rehearse(data, ["m0+m1+m2"])
    with pytest.raises(ConfigError, match="keep: expected a share"):
        rehearse(data, keep=1.0)
    with pytest.raises(ConfigError, match="test: expected the share of samples"):
        rehearse(data, test=0.0)
    with pytest.raises(ConfigError, match="Unknown completer 'rigde'. Did you mean 'ridge'"):
        rehearse(data, completer="rigde")
    with pytest.raises(ConfigError, match="metric: unknown 'logloss'"):
        rehearse(data, metric="logloss")
    with pytest.raises(ConfigError, match="expected it to return a network or a scikit-learn estimator, got dict"):
        rehearse(data, make_model=lambda data: {}, seeds=1)
    with pytest.raises(DataError, match="m9"):
        rehearse(data, ["m0"], make_model=model, seeds=1).effective("m9")
    blank = from_arrays({"a": np.zeros((4, 2))}, None)
    with pytest.raises(DataError, match="needs a target"):
        rehearse(blank)


def test_numbers_and_several_labels_can_be_learned():
    rng = np.random.default_rng(0)
    views = {name: rng.normal(size=(90, 3)) for name in "ab"}
    number = views["a"] @ [1.0, 2, 3] + views["b"][:, 0] + 0.1 * rng.normal(size=90)
    for target, estimator, task in (
        (number, Ridge(), "regression"),
        (np.stack([number, -number], 1), Ridge(), "regression"),
        (np.stack([number > 0, views["a"][:, 0] > 0], 1).astype(int), KNeighborsClassifier(), "multilabel"),
    ):
        data = from_arrays(views, target, task=task)
        outcome = Learner(estimator).score(data.select(range(60)), data.select(range(60, 90)))
        assert outcome.gain > 0.05
        found = rehearse(data, ["a"], make_model=estimator, seeds=2)
        assert np.isfinite(found.points["score"]).all()


def test_what_cannot_be_learned_is_told():
    data = from_arrays(
        {"s": [np.ones((t, 2)) for t in (1, 2, 3, 4)], "v": np.arange(4.0)}, [0, 1, 0, 1], kinds={"s": "sequence"}
    )
    with pytest.raises(DataError, match="Modality 's': an estimator needs columns, and these are sequence"):
        Learner(model).score(data, data)
    with pytest.raises(ConfigError, match="RidgeClassifier gives no probabilities"):
        Learner(RidgeClassifier).score(data.only("v"), data.only("v"))
    with pytest.raises(ConfigError, match="expected a name such as 'ridge'"):
        Learner(model, completer=lambda seed: 3).make_completer()
    with pytest.raises(ConfigError, match="no argument 'epochs'"):
        Learner(small_model, fit={"epochs": 3}).score(vectors(n=30), vectors(n=30))


def test_one_class_in_what_is_kept_is_a_stated_answer():
    data = from_arrays({"a": np.arange(40.0)[:, None], "b": np.ones((40, 1))}, [0] * 38 + [1] * 2)
    train = data.select(np.arange(20))
    outcome = Learner(model).score(train, data.select(np.arange(20, 40)))
    assert "of one class" in outcome.notes[0]
    assert torch.isfinite(torch.tensor(outcome.score))


def test_an_interrupted_rehearsal_goes_on_and_refuses_other_repeats(tmp_path, monkeypatch):
    data = generable(200, seed=1).data
    ask = {"make_model": model, "seeds": 3, "subsets": ["x1+x2"]}
    trained, real = [], Learner.score

    def count(self, train, test, seed=0, fill=False):
        if len(trained) == 6:
            raise KeyboardInterrupt
        trained.append(seed)
        return real(self, train, test, seed, fill)

    monkeypatch.setattr(Learner, "score", count)
    with pytest.raises(KeyboardInterrupt, match="1 of 3 parts are kept"):
        rehearse(data, out=tmp_path / "r", **ask)
    monkeypatch.setattr(Learner, "score", lambda self, *given: (trained.append(given[2]), real(self, *given))[1])
    resumed = rehearse(data, out=tmp_path / "r", **ask)
    assert trained == [0] * 4 + [1] * 2 + [1] * 4 + [2] * 4
    whole = rehearse(data, **ask)
    for part in ("points", "quality"):
        kept, fresh = (getattr(one, part).drop(columns="seconds", errors="ignore") for one in (resumed, whole))
        pd.testing.assert_frame_equal(kept, fresh, check_exact=True)
    # Other subsets are further parts of the same rehearsal; another learner or other data are not.
    rehearse(data, out=tmp_path / "r", **{**ask, "subsets": ["x1"]})
    with pytest.raises(RunError, match="rehearsal cells of other data or another configuration"):
        rehearse(generable(200, seed=2).data, out=tmp_path / "r", **ask)
    with pytest.raises(RunError, match="completer"):
        rehearse(data, out=tmp_path / "r", completer="mean", **ask)
