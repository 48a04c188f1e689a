"""Utility tables: shapes, draws, plain data on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lacunar.errors import ConfigError, DataError, RunError
from lacunar.lattice import Lattice
from lacunar.planning.utility_table import UtilityTable, named_differences
from tests.helpers import vectors


def measured(R=3, n=40, M=2, seed=0, shared=True, **options):
    draw = np.random.default_rng(seed)
    common = 3 * draw.normal(size=(n, 1))
    items = [common * shared + draw.normal(size=(n, 2**M)) for _ in range(R)]
    items[0][:5, 1] = np.nan
    items = [part.astype(np.float32) for part in items]
    values = np.stack([np.nanmean(part.astype(np.float64), axis=0) for part in items])
    names = tuple("abcdef"[:M])
    return UtilityTable(names, values, items=items, units=[np.arange(n)] * R, **options)


def test_given_values_by_label_in_any_order():
    table = UtilityTable.of(["a", "b"], {"b+a": 0.8, "a": 0.6, "none": 0.5})
    assert table.estimator == "given"
    np.testing.assert_array_equal(table.mean, [0.5, 0.6, np.nan, 0.8])
    np.testing.assert_allclose(table.gains[0], [0, 0.1, np.nan, 0.3])
    assert table.full == 0.8
    assert table.value("a") == 0.6
    assert table.value({"b", "a"}) == 0.8
    assert not table.complete
    assert UtilityTable.of(Lattice(["a", "b"]), [0.5, 0.6, 0.7, 0.8]).complete
    assert list(table.frame["subset"]) == ["none", "a", "b", "a+b"]
    assert table.frame[["low", "high"]].isna().all(axis=None)  # nothing is known of how sure they are
    assert "given" in str(table)
    assert "a, b" in repr(table)


def test_given_standard_errors_are_drawn_from():
    table = UtilityTable.of(["a", "b"], {"a": 0.6, "b": 0.7, "a+b": 0.8}, sd={"a": 0.05, "a+b": 0.01})
    draws = table.draws(4000, seed=1)
    np.testing.assert_allclose(draws.mean(0), table.mean, atol=0.004)
    np.testing.assert_allclose(draws.std(0), [0, 0.05, 0, 0.01], atol=0.003)
    np.testing.assert_array_equal(table.sd, [0, 0.05, 0, 0.01])
    np.testing.assert_array_equal(draws, table.draws(4000, seed=1))
    assert (draws != table.draws(4000, seed=2)).any()


def test_repeats_give_the_spread_and_its_draws():
    values = np.array([[0.5, 0.6, 0.7, 0.8], [0.5, 0.7, 0.6, 0.9], [0.5, 0.5, np.nan, 0.7]])
    table = UtilityTable(("a", "b"), values)
    np.testing.assert_allclose(table.mean, [0.5, 0.6, 0.65, 0.8])
    np.testing.assert_allclose(table.sd, [0, 0.1, np.std([0.7, 0.6], ddof=1), 0.1])
    draws = table.draws(3000)
    np.testing.assert_allclose(draws.std(0)[[1, 3]], values.std(0)[[1, 3]] / np.sqrt(3), rtol=0.05)
    assert np.isfinite(draws).all()
    assert np.isnan(UtilityTable(("a", "b"), values[:1]).sd).all()


def test_items_are_resampled_together_in_all_repeats_and_subsets():
    alone, shared = measured(R=4, n=60, shared=False), measured(R=4, n=60, shared=True)
    # What all repeats share does not average out over them.
    assert shared.draws()[:, 3].std() > 1.5 * alone.draws()[:, 3].std()
    # And it cancels in differences between subsets.
    draws = shared.draws()
    assert (draws[:, 3] - draws[:, 2]).std() < 0.7 * np.hypot(draws[:, 3].std(), draws[:, 2].std())
    np.testing.assert_allclose(draws.mean(0), shared.mean, atol=0.02)


def test_the_spread_of_one_repeat_is_the_standard_error_of_its_items():
    table = measured(R=1, n=200, shared=False)
    error = np.nanstd(table.items[0], axis=0) / np.sqrt(np.isfinite(table.items[0]).sum(0))
    np.testing.assert_allclose(table.draws(4000).std(0), error, rtol=0.06)
    low, high = table.frame["low"], table.frame["high"]
    assert ((low < table.frame["value"]) & (table.frame["value"] < high)).all()


def test_groups_as_units_widen_the_draws():
    draw = np.random.default_rng(0)
    group = np.repeat(np.arange(10), 8)
    items = [(draw.normal(size=10)[group][:, None] + np.zeros((80, 4))).astype(np.float32)]
    values = items[0].astype(np.float64).mean(0)[None]
    single = UtilityTable(("a", "b"), values, items=items, units=[np.arange(80)])
    grouped = UtilityTable(("a", "b"), values, items=items, units=[group])
    assert grouped.draws()[:, 1].std() > 2 * single.draws()[:, 1].std()


def test_tables_come_back_from_disk_equal_and_refuse_what_was_changed(tmp_path):
    table = measured(notes=["one"], config={"metric": "accuracy", "seeds": [0, 1]}, trainings=7, seconds=1.5)
    path = table.save(tmp_path / "deep" / "table.json")
    found = UtilityTable.load(path)
    assert found == table
    assert found.notes == ["one"]
    assert found.trainings == 7
    np.testing.assert_array_equal(found.values, table.values)
    np.testing.assert_array_equal(found.items[0], table.items[0])
    np.testing.assert_array_equal(found.draws(50), table.draws(50))
    content = json.loads(path.read_text())  # strict JSON: no NaN
    assert content["items"][0][0][1] is None
    content["values"][0][1] += 0.1
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="was changed after it was written"):
        UtilityTable.load(path)
    path.write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(RunError, match="format 99; this version reads 1"):
        UtilityTable.load(path)
    path.write_text("[]")
    with pytest.raises(RunError, match="is not a utility table"):
        UtilityTable.load(path)
    path.write_text(json.dumps({key: value for key, value in content.items() if key != "notes"}))
    with pytest.raises(RunError, match="notes"):
        UtilityTable.load(path)


def test_tables_of_other_data_or_another_configuration_are_refused_by_name(tmp_path):
    from lacunar.planning.estimate_pilot import describe_pilot

    data, other = vectors(2, 30), vectors(2, 31)
    facts = describe_pilot(data)
    table = UtilityTable.of(data.lattice, [0, 1, 2, 3.0])
    table = UtilityTable(
        table.names, table.values, data_hash=facts["hash"], config={"metric": "accuracy", "data": facts}
    )
    path = table.save(tmp_path / "table.json")
    assert UtilityTable.load(path, data=data, config={"metric": "accuracy"}) == table
    with pytest.raises(RunError, match="data.samples: there 30, here 31"):
        UtilityTable.load(path, data=other)
    with pytest.raises(RunError, match="metric: there 'accuracy', here 'brier'"):
        UtilityTable.load(path, config={"metric": "brier"})


def test_lists_that_differ_name_their_first_difference():
    assert named_differences({"a": [1, 2, 3]}, {"a": [1, 5, 3]}) == ["a: there 2, here 5"]
    assert named_differences({"a": [1]}, {"a": [1, 2]}) == ["a: there 'nothing', here 2"]
    assert named_differences({"a": {"b": 1}}, {"a": {}}) == ["a.b: there 1, here 'nothing'"]
    assert named_differences([1], [1]) == []


def test_tables_cannot_be_changed():
    table = measured()
    with pytest.raises(ValueError, match="read-only"):
        table.values[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        table.items[0][0, 0] = 1
    with pytest.raises(AttributeError):
        table.metric = "other"


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: UtilityTable(("a", "b"), np.zeros((2, 3))), DataError, r"expected shape \(repeats, 4\)"),
        (lambda: UtilityTable(("a", "b"), np.zeros(4), estimator="retrained"), ConfigError, "Did you mean 'retrain'"),
        (lambda: UtilityTable(("a",), [0, np.inf]), DataError, "the value of a is infinite"),
        (lambda: UtilityTable(("a",), [0, 1], seeds=[1, 2]), DataError, "seeds: expected shape"),
        (lambda: UtilityTable(("a",), [0, 1], n_train=[[1]]), DataError, "n_train: expected shape"),
        (lambda: UtilityTable(("a",), [0, 1], given_sd=[-1, 1]), DataError, "numbers of at least 0"),
        (lambda: UtilityTable(("a",), [0, 1], items=[np.zeros((3, 2))]), DataError, "whose means are the values"),
        (lambda: UtilityTable(("a",), [0, 1], items=[]), DataError, "items: expected a table for each of 1 repeats"),
        (lambda: UtilityTable.of(["a", "b"], {"c": 1.0}), DataError, "unknown modality 'c'"),
        (lambda: UtilityTable.of(["a", "b"], {"a+b": 1.0, "b+a": 2.0}), DataError, "the same subset"),
        (lambda: UtilityTable([f"m{m}" for m in range(13)], np.zeros(2)), DataError, "13 modalities"),
    ],
)
def test_wrong_tables_are_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()
