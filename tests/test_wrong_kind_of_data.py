"""Every public function that takes samples says what it expects where it is given splits, a table or nothing."""

import numpy as np
import pandas as pd
import pytest

import lacunar as lc
from lacunar import evaluation
from lacunar.errors import DataError
from tests.helpers import small_model

RNG = np.random.default_rng(0)
LABEL = np.arange(60) % 2
DATA = lc.from_arrays({"a": RNG.normal(size=(60, 3)), "b": RNG.normal(size=(60, 2))}, LABEL)
SPLITS = DATA.split(train=0.6, val=0.2, test=0.2)
MODEL = small_model(DATA)
PRICES = {"a": 1.0, "b": 1.0}

OF_ONE_PART = {
    "references": lambda data: lc.references(data),
    "default_model": lambda data: lc.default_model(data),
    "MulT.for_data": lambda data: lc.MulT.for_data(data),
    "make_splits": lambda data: lc.make_splits(data),
    "make_folds": lambda data: lc.make_folds(data),
    "evaluate": lambda data: lc.evaluate(MODEL, data),
    "predict": lambda data: lc.predict(MODEL, data),
    "reliability": lambda data: evaluation.reliability(MODEL, data),
    "representation_quality": lambda data: evaluation.representation_quality(MODEL, data),
    "TemperatureScaling.fit": lambda data: evaluation.TemperatureScaling(MODEL).fit(data),
    "filling_benefit": lambda data: lc.filling_benefit(MODEL, lc.MeanCompleter().fit(DATA), data),
    "permuted_utilities": lambda data: lc.permuted_utilities(MODEL, data),
    "replaced_utilities": lambda data: lc.replaced_utilities(MODEL, data),
    "MeanCompleter": lambda data: lc.MeanCompleter().fit(DATA).complete(data),
    "score": lambda data: lc.MeanCompleter().fit(DATA).score(data),
}
OF_A_PILOT = {
    "MeanCompleter.fit": lambda data: lc.MeanCompleter().fit(data),
    "utilities": lambda data: lc.utilities(data),
    "plan": lambda data: lc.plan(data, PRICES, 10.0),
    "backtest": lambda data: lc.backtest(data, PRICES, 10.0),
    "learning_curves": lambda data: lc.learning_curves(data),
    "rehearse": lambda data: lc.rehearse(data),
}
TABLES = {"DataFrame": pd.DataFrame({"a": [1.0]}), "dict": {"a": np.ones((2, 1))}, "NoneType": None}


@pytest.mark.parametrize("name", OF_ONE_PART)
def test_all_splits_are_refused_where_one_part_is_meant(name):
    with pytest.raises(DataError, match=r"expected one part of the data, got all splits: pass data\."):
        OF_ONE_PART[name](SPLITS)


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("name", OF_ONE_PART | OF_A_PILOT)
def test_tables_are_refused_where_a_data_set_is_meant(name, kind):
    made = "expected a data set, as lacunar.from_arrays, from_frame or load_description makes it, got " + kind
    with pytest.raises(DataError, match=made):
        (OF_ONE_PART | OF_A_PILOT)[name](TABLES[kind])


@pytest.mark.parametrize("given", [DATA, *TABLES.values()])
def test_probes_need_splits(given):
    with pytest.raises(DataError, match="expected splits, such as data.split"):
        evaluation.capability(MODEL, given)


def test_curves_and_rehearsals_leave_the_test_part_of_splits_alone():
    options = {"fit": {"max_epochs": 1}, "progress": False}
    curves, rehearsals = [], []
    for given in (SPLITS, lc.Splits(SPLITS.train, SPLITS.val)):
        curves.append(lc.learning_curves(given, sizes=(1.0,), seeds=1, test=0.5, **options))
        rehearsals.append(lc.rehearse(given, [("a",)], seeds=2, **options).points)
    assert curves[0]["n"].tolist() == [(len(SPLITS.train) + len(SPLITS.val)) // 2]
    assert curves[0]["score"].equals(curves[1]["score"])
    assert rehearsals[0]["score"].equals(rehearsals[1]["score"])
