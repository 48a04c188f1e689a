"""The estimators for scikit-learn users: what cross-validation, grids and pipelines ask of them."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lacunar.errors import ConfigError, DataError
from lacunar.sklearn import ModalityFrame, MultimodalClassifier, MultimodalRegressor

QUICK = {"objective": "Joint", "max_epochs": 4, "batch_size": 16, "lr": 1e-2}
ONCE = QUICK | {"max_epochs": 1}


@pytest.fixture(scope="module")
def world():
    draw = np.random.default_rng(0)
    y = np.array(["no", "yes", "maybe"])[np.arange(90) % 3]
    a = 2.5 * np.eye(3)[np.arange(90) % 3] + draw.normal(size=(90, 3))
    b = 2.0 * np.eye(3)[np.arange(90) % 3] @ draw.normal(size=(3, 4)) + draw.normal(size=(90, 4))
    a[draw.random(90) < 0.3] = np.nan
    b[(draw.random(90) < 0.3) & ~np.isnan(a[:, 0])] = np.nan
    return a, b, y


def frame_of(a, b):
    return pd.DataFrame(np.hstack([a, b]), columns=[f"a_{i}" for i in range(3)] + [f"b_{i}" for i in range(4)])


@pytest.fixture(scope="module")
def fitted(world):
    a, b, y = world
    return MultimodalClassifier({"a": "a_*", "b": "b_*"}, **QUICK).fit(frame_of(a, b), y)


def test_it_learns_and_says_so(world, fitted):
    a, b, y = world
    X = frame_of(a, b)
    assert fitted.score(X, y) > 0.7
    chance = fitted.predict_proba(X)
    assert chance.shape == (90, 3)
    np.testing.assert_allclose(chance.sum(1), 1, atol=1e-6)
    assert (fitted.classes_[chance.argmax(1)] == fitted.predict(X)).all()
    assert set(fitted.classes_) == {"no", "yes", "maybe"} and fitted.predict(X).dtype == fitted.classes_.dtype
    assert list(fitted.feature_names_in_) == list(X.columns)
    assert set(fitted.evaluate(X, y, bootstrap=0).frame.index) == {"none", "a", "b", "a+b"}


def test_a_row_with_nothing_gets_the_prior(world, fitted):
    nothing = frame_of(np.full((2, 3), np.nan), np.full((2, 4), np.nan))
    np.testing.assert_allclose(
        fitted.predict_proba(nothing), fitted.model_.task.prior.softmax(0).expand(2, 3), atol=1e-6
    )


def test_the_same_state_gives_the_same_predictions_and_parameters_survive_cloning(world, fitted):
    a, b, y = world
    again = clone(fitted)
    assert again.get_params() == fitted.get_params()
    assert not hasattr(again, "model_")
    with pytest.raises(NotFittedError):
        again.predict(frame_of(a, b))
    np.testing.assert_array_equal(
        again.fit(frame_of(a, b), y).predict_proba(frame_of(a, b)), fitted.predict_proba(frame_of(a, b))
    )
    assert again.set_params(lr=0.5).lr == 0.5


def test_dictionaries_arrays_and_two_levels_say_the_same(world, fitted):
    a, b, y = world
    expected = fitted.predict_proba(frame_of(a, b))
    by_name = MultimodalClassifier(**QUICK).fit({"a": a, "b": b}, y)
    np.testing.assert_allclose(by_name.predict_proba({"a": a, "b": b}), expected, atol=1e-5)
    table = np.hstack([a, b])
    by_place = MultimodalClassifier({"a": slice(0, 3), "b": [3, 4, 5, 6]}, **QUICK).fit(table, y)
    np.testing.assert_allclose(by_place.predict_proba(table), expected, atol=1e-5)
    levels = frame_of(a, b).set_axis(
        pd.MultiIndex.from_tuples([("a", i) for i in range(3)] + [("b", i) for i in range(4)]), axis=1
    )
    by_level = MultimodalClassifier(**QUICK).fit(levels, y)
    np.testing.assert_allclose(by_level.predict_proba(levels), expected, atol=1e-5)
    np.testing.assert_array_equal(by_level.predict_proba(levels[["b", "a"]]), by_level.predict_proba(levels))


def test_none_is_absent_and_a_modality_may_be_left_out_at_prediction(world):
    a, b, y = world
    lists = {"a": [None if np.isnan(row[0]) else row for row in a], "b": b}
    model = MultimodalClassifier(**QUICK).fit(lists, y)
    only = model.predict_proba({"b": b})
    np.testing.assert_allclose(only, model.predict_proba({"a": np.full_like(a, np.nan), "b": b}), atol=1e-6)


def test_cross_validation_and_grids(world):
    a, b, y = world
    scores = cross_val_score(MultimodalClassifier({"a": "a_*", "b": "b_*"}, **QUICK), frame_of(a, b), y, cv=2)
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()
    grid = GridSearchCV(
        MultimodalClassifier(**QUICK), {"objective": ["Joint", "ModalityDropout"]}, cv=2, error_score="raise"
    ).fit(ModalityFrame({"a": a, "b": b}), y)
    assert grid.best_params_["objective"] in ("Joint", "ModalityDropout")


def test_a_pipeline(world):
    a, b, y = world
    pipe = make_pipeline(
        StandardScaler().set_output(transform="pandas"), MultimodalClassifier({"a": "a_*", "b": "b_*"}, **QUICK)
    )
    assert pipe.fit(frame_of(a, b), y).score(frame_of(a, b), y) > 0.6


def test_regression(world):
    a, b, _ = world
    draw = np.random.default_rng(1)
    y = 3 * draw.normal(size=90)
    b = np.column_stack([y, y]) + 0.3 * draw.normal(size=(90, 2))
    b[::7] = np.nan
    a = np.where(np.isnan(a) & np.isnan(b[:, :1]), 0.0, a)
    model = MultimodalRegressor(objective="Joint", max_epochs=30, batch_size=16, lr=1e-2).fit({"a": a, "b": b}, y)
    assert model.score({"a": a, "b": b}, y) > 0.5
    assert model.predict({"a": a, "b": b}).shape == (90,)


def test_text_levels_are_those_of_training():
    draw = np.random.default_rng(0)
    y = np.arange(60) % 2
    table = pd.DataFrame({"c_kind": np.where(y == 1, "red", "blue"), "x_0": draw.normal(size=60)})
    model = MultimodalClassifier({"c": "c_*", "x": "x_*"}, **QUICK).fit(table, y)
    one = table[table["c_kind"] == "red"].iloc[:3]
    np.testing.assert_allclose(model.predict_proba(one), model.predict_proba(table)[one.index], atol=1e-6)


def test_two_levels_hold_what_flat_columns_hold(world):
    a, b, y = world
    flat = frame_of(a, b).convert_dtypes().assign(c_kind=np.where(y == "no", "red", "blue"))  # pd.NA, and text
    levels = flat.set_axis(pd.MultiIndex.from_tuples([tuple(name.split("_")) for name in flat]), axis=1)
    np.testing.assert_array_equal(
        MultimodalClassifier(**ONCE).fit(levels, y).predict_proba(levels),
        MultimodalClassifier({name: f"{name}_*" for name in "abc"}, **ONCE).fit(flat, y).predict_proba(flat),
    )


def test_text_in_a_column_of_numbers_is_refused_at_prediction(world, fitted):
    a, b, _ = world
    odd = frame_of(a, b).iloc[:1].astype(object)
    odd["a_1"] = "unknown"
    with pytest.raises(DataError, match="column 'a_1'.*expected a number, got 'unknown'"):
        fitted.predict(odd)


def test_pandas_values_are_cut_by_position(world):
    a, b, y = world
    index = np.arange(90)[::-1]
    X = ModalityFrame({"a": pd.DataFrame(a, index), "b": pd.DataFrame(b, index), "c": pd.Series(b[:, 0], index)})
    np.testing.assert_array_equal(X[[0, 1]].modalities["c"], b[:2, 0])
    model = MultimodalClassifier(**ONCE).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X[40:50]), model.predict_proba(X)[40:50], atol=1e-6)


def test_columns_of_a_frame_in_a_dictionary_are_found_by_name(world):
    a, b, y = world
    frame = pd.DataFrame(a).add_prefix("x")
    model = MultimodalClassifier(**ONCE).fit({"a": frame, "b": b}, y)
    turned = model.predict_proba({"a": frame[frame.columns[::-1]], "b": b})
    np.testing.assert_array_equal(turned, model.predict_proba({"a": frame, "b": b}))
    with pytest.raises(DataError, match="'a'.*these differ: .*y0"):
        model.predict({"a": frame.rename(columns={"x0": "y0"}), "b": b})


DRAW = np.random.default_rng(2)
LISTS = {
    "images": [DRAW.normal(size=(8, 8)) for _ in range(20)],
    "sequences": [DRAW.normal(size=(2 + i % 3, 2)) for i in range(20)],  # the first looks like an image
    "numbers": [DRAW.normal(size=2 + i % 3) for i in range(20)],  # one looks like a vector
    "tokens": [np.arange(1 + i % 3) for i in range(20)],
}


@pytest.mark.parametrize("kind", LISTS)
def test_one_sample_is_read_as_in_training(kind):
    X = {"m": [*LISTS[kind], None], "v": DRAW.normal(size=(21, 2))}
    model = MultimodalClassifier(**ONCE).fit(X, np.arange(21) % 2)
    expected = model.predict_proba(X)
    for row in (0, 20):
        one = {"m": X["m"][row : row + 1], "v": X["v"][row : row + 1]}
        np.testing.assert_allclose(model.predict_proba(one), expected[row : row + 1], atol=1e-5)


def test_a_batch_without_any_file_is_read_as_in_training(tmp_path):
    table = pd.DataFrame({"file": [str(tmp_path / f"{i}.npy") for i in range(20)] + [None], "x": DRAW.normal(size=21)})
    for path, image in zip(table["file"], LISTS["images"]):
        np.save(path, image)
    model = MultimodalClassifier({"m": {"path": "file", "reader": "npy"}, "x": ["x"]}, **ONCE)
    model.fit(table, np.arange(21) % 2)
    np.testing.assert_allclose(model.predict_proba(table[20:]), model.predict_proba(table)[20:], atol=1e-6)


def test_evaluation_on_some_of_the_classes(world, fitted):
    a, b, y = world
    assert fitted.evaluate(frame_of(a, b)[y == "no"], y[y == "no"], bootstrap=0).frame.loc["a+b", "n"] > 0


def test_a_second_fit_forgets_the_first(world):
    a, b, y = world
    model = MultimodalClassifier({"a": [0, 1, 2]}, **ONCE).fit(frame_of(a, b).set_axis(list("0123456"), axis=1), y)
    assert not hasattr(model.fit(np.hstack([a, b]), y), "feature_names_in_")
    with pytest.raises(DataError, match="no column matches"):
        model.fit(frame_of(a, b), y)
    with pytest.raises(NotFittedError):
        model.predict(np.hstack([a, b]))


def test_an_objective_that_is_passed_in_stays_as_it_is(world):
    from lacunar.objectives import Joint

    a, b, y = world
    given = Joint(label_smoothing=0.1)
    model = MultimodalClassifier(objective=given, max_epochs=1).fit({"a": a, "b": b}, y)
    assert given.task is None
    assert model.run_.objective.label_smoothing == 0.1


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda a, b, y: MultimodalClassifier().fit(frame_of(a, b), y), ConfigError, "does not say which columns"),
        (lambda a, b, y: MultimodalClassifier().fit(np.hstack([a, b]), y), ConfigError, "array of 7 columns"),
        (lambda a, b, y: MultimodalClassifier({"a": [99]}).fit(np.hstack([a, b]), y), ConfigError, "positions among 7"),
        (
            lambda a, b, y: MultimodalClassifier(objective="Joints").fit({"a": a}, y),
            ConfigError,
            "Did you mean 'Joint'",
        ),
        (lambda a, b, y: MultimodalClassifier(validation=1.5).fit({"a": a, "b": b}, y), ConfigError, "validation"),
        (lambda a, b, y: MultimodalClassifier(random_state=None).fit({"a": a, "b": b}, y), ConfigError, "random_state"),
        (lambda a, b, y: ModalityFrame({"a": a, "b": b[:5]}), DataError, "a 90, b 5"),
        (lambda a, b, y: ModalityFrame({}), DataError, "at least one"),
        (lambda a, b, y: MultimodalClassifier().fit("words", y), DataError, "expected a frame"),
        (lambda a, b, y: MultimodalClassifier({"a": [0]}).fit(a[:, 0], y), DataError, r"got shape \(90,\)"),
        (lambda a, b, y: MultimodalClassifier({"a": [0]}).fit([[1.0], [1.0, 2.0]], y), DataError, "different lengths"),
        (lambda a, b, y: MultimodalClassifier({"a": [0]}).fit(y[:, None], y), DataError, "'a': expected numbers"),
        (
            lambda a, b, y: MultimodalClassifier({"a": "a_*"}).fit(frame_of(a, b).rename(columns={"a_1": "a_0"}), y),
            DataError,
            "more than one column named 'a_0'",
        ),
    ],
)
def test_wrong_input_is_refused(world, make, error, message):
    with pytest.raises(error, match=message):
        make(*world)


def test_an_unknown_modality_at_prediction_is_refused(world):
    a, b, y = world
    model = MultimodalClassifier(**ONCE).fit({"a": a, "b": b}, y)
    with pytest.raises(DataError, match="Unknown modality 'bb'. Did you mean 'b'"):
        model.predict({"a": a, "bb": b})
    with pytest.raises(DataError, match="as in fit"):
        model.predict(frame_of(a, b))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"validation": "x"}, r"validation: expected a share of the samples in \(0, 1\), got 'x'"),
        ({"make_model": "mlp"}, "make_model: expected a function from the training data to a model, got 'mlp'"),
        ({"fit_options": "x"}, "fit_options: expected arguments of lacunar.fit as a mapping, got 'x'"),
        ({"fit_options": {"lr": 0.1}}, "fit_options: 'lr' is set for each model already"),
        ({"fit_options": {"seed": 1}}, "fit_options: 'seed' is set for each model already"),
        ({"fit_options": {"schedul": "cosine"}}, "no argument 'schedul'. Did you mean 'schedule'"),
    ],
)
def test_options_that_are_none_are_named(options, expected):
    X = {"a": np.arange(40.0)[:, None], "b": np.ones((40, 2))}
    with pytest.raises(ConfigError, match=expected):
        MultimodalClassifier(max_epochs=1, **options).fit(X, np.arange(40) % 2)


def test_probabilities_add_up_in_double_precision(world, fitted):
    found = fitted.predict_proba(frame_of(*world[:2]))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.sum(1), 1, rtol=0, atol=1e-15)


def test_errors_name_rows_as_the_frame_does(world, fitted):
    frame = frame_of(*world[:2]).set_axis([f"w{row}" for row in range(len(world[0]))], axis=0)
    frame.iloc[3, 0] = np.inf
    with pytest.raises(DataError, match="id 'w3': the value is infinite"):
        fitted.predict(frame)
    with pytest.raises(DataError, match="id '3': the value is infinite"):  # labels that repeat name no row
        fitted.predict(frame.set_axis(["w"] * len(frame), axis=0))


def test_a_modality_that_nobody_has_is_named(world):
    a, b, y = world
    with pytest.raises(DataError, match="Modality 'b' is absent from every sample.*out of the dictionary"):
        MultimodalClassifier(max_epochs=1).fit({"a": a, "b": np.full_like(b, np.nan)}, y)
