"""What each completer fills in, against what can be worked out by hand or by other code."""

import numpy as np
import pytest
import torch
from sklearn.impute import KNNImputer
from sklearn.linear_model import RidgeCV
from tests.helpers import first_batch, small_model, vectors

from lacunar import generation
from lacunar.data.arrays import from_arrays
from lacunar.datasets.worlds_of_generation import generable, ungenerable
from lacunar.errors import ConfigError, DataError
from lacunar.generation import (
    Completer,
    KNNCompleter,
    MeanCompleter,
    PatternBank,
    RidgeCompleter,
    ZeroCompleter,
)


def made(completer, data, name):
    """What was filled in, in the order of the samples that lacked the modality."""
    full = completer.complete(data)
    return full.columns[name].take(full.generated[:, data.names.index(name)].nonzero().squeeze(1))[0].numpy()


def observed(data, name):
    return data.columns[name].take(data.present[:, data.names.index(name)].nonzero().squeeze(1))[0].numpy()


def test_completers_are_found_by_name():
    found = generation.available()
    assert {"zero", "mean", "knn", "ridge", "bank"} <= set(found)
    assert all(issubclass(kind, Completer) and kind.name == name for name, kind in found.items())
    assert generation.get("ridge") is RidgeCompleter
    with pytest.raises(ConfigError, match="Unknown completer 'rigde'. Did you mean 'ridge'"):
        generation.get("rigde")


def test_zero_is_zero_in_the_units_of_the_data_and_no_filling_at_all_inside_a_model():
    data = vectors(3, n=30)
    assert not made(ZeroCompleter().fit(data), data, "m1").any()
    model = small_model(data).eval()
    features = model.encode(first_batch(data))
    assert torch.equal(ZeroCompleter().fit(data, model).complete_features(features).h, features.h)


def test_mean_is_that_of_the_training_samples():
    data = vectors(3, n=30)
    filled = made(MeanCompleter().fit(data), data, "m1")
    np.testing.assert_allclose(filled, np.tile(observed(data, "m1").mean(0), (len(filled), 1)), rtol=1e-5)


def test_constant_columns_stay_what_they_are():
    values = np.column_stack([np.full(20, 7.0), np.arange(20.0)])
    values[:4] = np.nan
    data = from_arrays({"a": values, "b": np.arange(20.0)[:, None]}, np.arange(20) % 2)
    for kind in (MeanCompleter, KNNCompleter, RidgeCompleter, PatternBank):
        np.testing.assert_allclose(made(kind().fit(data), data, "a")[:, 0], 7.0)


# ---------------------------------------------------------------------------------------------------------- kNN


def test_knn_is_the_average_of_the_nearest_as_scikit_learn_has_it():
    """With equally wide standardised modalities the distance is that of scikit-learn's imputer, up to a factor."""
    draw = np.random.default_rng(0)
    tables = {name: draw.normal(size=(60, 4)) for name in "abc"}
    tables = {name: (table - table.mean(0)) / table.std(0) for name, table in tables.items()}
    train = from_arrays(tables, np.arange(60) % 2)
    query = {name: draw.normal(size=(10, 4)) for name in "abc"}
    query["c"][:] = np.nan
    query["b"][5:] = np.nan
    asked = from_arrays(query, np.arange(10) % 2)
    expected = (
        KNNImputer(n_neighbors=7).fit(np.hstack(list(tables.values()))).transform(np.hstack(list(query.values())))
    )
    np.testing.assert_allclose(made(KNNCompleter(7).fit(train), asked, "c"), expected[:, 8:], atol=1e-5)
    np.testing.assert_allclose(made(KNNCompleter(7).fit(train), asked, "b"), expected[5:, 4:8], atol=1e-5)


def test_knn_weighs_a_wide_modality_no_more_than_a_narrow_one():
    """The narrow modality points to one half of the samples, the wide one only holds noise of the same variance."""
    draw = np.random.default_rng(0)
    side = np.where(np.arange(200) < 100, -1.0, 1.0)
    narrow, wide = side[:, None] * np.ones((1, 1)), draw.normal(size=(200, 200))
    target = side[:, None] + 0.01 * draw.normal(size=(200, 1))
    target[::10] = np.nan
    data = from_arrays({"narrow": narrow, "wide": wide, "target": target}, np.arange(200) % 2)
    filled = made(KNNCompleter().fit(data), data, "target")[:, 0]
    np.testing.assert_allclose(filled, side[::10], atol=0.05)


def test_knn_uses_only_neighbours_that_share_something_and_have_the_modality():
    nan = np.nan
    a = np.array([[0.0], [10.0], [0.1], [nan], [0.0]])
    b = np.array([[1.0], [2.0], [nan], [3.0], [nan]])
    data = from_arrays({"a": a, "b": b}, [0, 1, 0, 1, 0])
    filled = made(KNNCompleter(1).fit(data), data, "b")
    np.testing.assert_allclose(filled[:, 0], [1.0, 1.0], atol=1e-5)  # samples 2 and 4: sample 0 is next, not 4
    np.testing.assert_allclose(made(KNNCompleter(9).fit(data), data, "b")[0], 1.5, atol=1e-5)  # those that share a


@pytest.mark.parametrize(
    ("neighbours", "expected"), [(0, "at least 1"), (2.5, "a whole number"), (True, "a whole number")]
)
def test_knn_needs_neighbours(neighbours, expected):
    with pytest.raises(ConfigError, match=f"neighbours: expected {expected}, got {neighbours}"):
        KNNCompleter(neighbours)


# -------------------------------------------------------------------------------------------------------- ridge


def test_ridge_is_the_cross_validated_regression_of_scikit_learn():
    draw = np.random.default_rng(1)
    a, b = draw.normal(size=(80, 3)), draw.normal(size=(80, 2))
    c = a @ draw.normal(size=(3, 4)) + b @ draw.normal(size=(2, 4)) + draw.normal(size=(80, 4))
    hidden = c.copy()
    hidden[60:] = np.nan
    data = from_arrays({"a": a, "b": b, "c": hidden}, np.arange(80) % 2)
    inputs = np.hstack([a, b])
    inputs = (inputs - inputs.mean(0)) / inputs.std(0)
    center, scale = c[:60].mean(0), c[:60].std(0)
    known = RidgeCV(np.logspace(-3, 6, 10), alpha_per_target=True).fit(inputs[:60], (c[:60] - center) / scale)
    expected = known.predict(inputs[60:]) * scale + center
    np.testing.assert_allclose(made(RidgeCompleter().fit(data), data, "c"), expected, atol=1e-4)


def test_ridge_gives_up_modalities_that_too_few_samples_have():
    """No training sample has b along with another: c is predicted from a alone, and is the mean given b alone."""
    draw = np.random.default_rng(2)
    a, b = draw.normal(size=(90, 2)), draw.normal(size=(90, 2))
    c = a @ np.array([[1.0], [2.0]])
    a[30:60], b[:30], c[30:60] = np.nan, np.nan, np.nan
    b[60:] = np.nan
    data = from_arrays({"a": a, "b": b, "c": c}, np.arange(90) % 2)
    query = data.select(np.arange(2)).hide({"c": np.zeros(2, dtype=bool)})
    completer = RidgeCompleter().fit(data)
    np.testing.assert_allclose(made(completer, query, "c"), observed(data, "c")[:2], atol=1e-2)
    assert completer._sources([0, 1], 2) == (0,)
    assert completer._sources([1], 2) == ()
    alone = data.select(np.arange(30, 32))
    np.testing.assert_allclose(made(completer, alone, "c"), observed(data, "c").mean() + np.zeros((2, 1)), atol=1e-4)


def test_ridge_does_not_remember_in_which_order_it_was_asked():
    data = vectors(3, n=60, missing=0.4)
    first, second = RidgeCompleter().fit(data), RidgeCompleter().fit(data)
    first.complete(data.select([0, 1, 2]))
    np.testing.assert_array_equal(made(first, data, "m2"), made(second, data, "m2"))


def test_ridge_with_more_columns_than_samples():
    draw = np.random.default_rng(3)
    a, b = draw.normal(size=(40, 100)), draw.normal(size=(40, 3))
    b[30:] = np.nan
    data = from_arrays({"a": a, "b": b}, np.arange(40) % 2)
    assert np.isfinite(made(RidgeCompleter().fit(data), data, "b")).all()


def test_ridge_recovers_what_can_be_computed():
    splits = generable(n=1500, seed=0).data.split(train=0.6, val=0.2, test=0.2, seed=0)
    score = RidgeCompleter().fit(splits).score(splits.test, hide="x3", resamples=200)
    assert score.loc["x3", "r2"] > 0.9999
    assert score.loc["x3", "gain low"] > 0.9
    assert score.loc["x3", "n"] > 300
    assert score.loc["x1", "n"] == 0
    assert np.isnan(score.loc["x1", "r2"])


@pytest.mark.parametrize("kind", [RidgeCompleter, KNNCompleter, PatternBank])
def test_nothing_recovers_what_is_independent(kind):
    splits = ungenerable(n=1500, seed=0).data.split(train=0.6, val=0.2, test=0.2, seed=0)
    score = kind().fit(splits).score(splits.test, resamples=200)
    assert (score["r2"] < 0.01).all()
    assert (score["r2"] > -0.2).all()
    assert (score["gain low"] < 0.005).all()


# --------------------------------------------------------------------------------------------------------- bank


def test_bank_holds_one_vector_for_each_pattern():
    data = vectors(3, n=90, missing=0.3)
    lattice, present = data.lattice, data.present
    completer = PatternBank(min_rows=3).fit(data)
    full = completer.complete(data)
    codes = lattice.encode(present)
    for code in codes.unique().tolist():
        for m, name in enumerate(data.names):
            if code >> m & 1:
                continue
            rows = full.columns[name].take((codes == code).nonzero().squeeze(1))[0]
            assert (rows == rows[0]).all()
            having = ((codes & code) == code) & present[:, m]
            expected = data.columns[name].take(having.nonzero().squeeze(1))[0].mean(0)
            torch.testing.assert_close(rows[0], expected, rtol=1e-4, atol=1e-4)


def test_bank_falls_back_to_the_mean_where_few_samples_have_a_pattern():
    data = vectors(3, n=90, missing=0.3)
    np.testing.assert_allclose(
        made(PatternBank(min_rows=1000).fit(data), data, "m2"), made(MeanCompleter().fit(data), data, "m2"), rtol=1e-5
    )


def test_bank_entries_inside_a_model_are_parameters_that_train():
    data = vectors(3, n=60)
    model = small_model(data)
    bank = PatternBank().fit(data, model)
    assert len(list(bank.parameters())) == 3
    assert not list(PatternBank().fit(data).parameters())
    features = bank.complete_features(model.encode(first_batch(data)))
    features.h.square().sum().backward()
    seen = torch.zeros(8, dtype=torch.bool)
    seen[data.lattice.encode(data.present).unique()] = True
    for m in range(3):
        gradient = getattr(bank, f"entries{m}").grad
        lacks = torch.arange(8) >> m & 1 == 0
        assert gradient[seen & lacks].any(dim=1).all()
        assert not gradient[~seen | ~lacks].any()  # rows of patterns that nobody has, or that are observed


def test_bank_of_too_many_modalities_is_refused():
    data = from_arrays({f"m{m}": np.random.default_rng(m).normal(size=(6, 2)) for m in range(13)}, [0, 1] * 3)
    with pytest.raises(DataError, match="2\\^13 patterns"):
        PatternBank().fit(data)


@pytest.mark.parametrize("kind", [RidgeCompleter, PatternBank])
def test_fewest_rows_are_a_whole_number(kind):
    with pytest.raises(ConfigError, match="min_rows: expected at least [12], got 0"):
        kind(min_rows=0)
    with pytest.raises(ConfigError, match="min_rows: expected a whole number, got 9.5"):
        kind(min_rows=9.5)
