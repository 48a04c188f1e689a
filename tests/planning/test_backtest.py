"""Backtests: the oracle regrets nothing, purchases stay within the budget, and a rerun changes nothing."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

import lacunar.planning.backtest as module
from lacunar.datasets.worlds_of_generation import generable, ungenerable
from lacunar.errors import ConfigError, DataError, RunError
from lacunar.generation import KNNCompleter
from lacunar.planning.backtest import Backtest, backtest
from lacunar.planning.costs import CostModel
from lacunar.planning.learner import Learner
from lacunar.planning.trial import Setting, _Trial
from tests.helpers import small_model, vectors

PRICES = {"x1": 1, "x2": 1, "x3": 4}
QUICK = {"strategies": ("even", "random", "oracle"), "progress": False, "repeats": 2}


def model(data):
    return LogisticRegression(C=0.05)


@pytest.fixture(scope="module")
def world():
    return generable(1000, seed=3, dims=(4, 4, 4)).data


@pytest.fixture(scope="module")
def whole(world):
    """All strategies, where x1 and x2 are cheap and together worth x3."""
    return backtest(
        world, {"per_cell": PRICES, "label": 0.5}, 300, seeds=3, make_model=model, available=0.2, repeats=4,
        progress=False, top=7,
    )  # fmt: skip


def timeless(result: Backtest) -> pd.DataFrame:
    return result.frame.drop(columns="minutes")


def test_the_oracle_regrets_nothing_and_nobody_regrets_less(whole):
    table = whole.frame
    assert len(table) == 3 * len(module.STRATEGIES)
    assert (table.loc[table["strategy"] == "oracle", "regret"] == 0).all()
    assert (table["regret"] >= 0).all()
    for _, part in table.groupby("seed"):
        best = part.loc[part["strategy"] == "oracle", "score"].iloc[0]
        assert best == part["score"].max()
        np.testing.assert_allclose(part["regret"], best - part["score"])
        np.testing.assert_allclose(part["gain"], part["score"] - part["lower"])
        assert part["lower"].nunique() == 1
    reached = whole.subsets[["filled", "not_filled"]].max(axis=1).groupby(whole.subsets["seed"]).max()
    assert (table[table["strategy"] == "oracle"].set_index("seed")["gain"] >= reached - 1e-12).all()


def test_purchases_cost_what_they_say_and_stay_within_the_budget(whole):
    costs, table = CostModel.read(whole.config["costs"]), whole.frame
    assert (table["cost"] <= 300 + 1e-9).all()
    assert (table["labels"] == table["samples"]).all()
    assert (table["cells"] == table[["cells x1", "cells x2", "cells x3"]].sum(axis=1)).all()
    paid = table["labels"] * 0.5 + sum(price * table[f"cells {name}"] for name, price in PRICES.items())
    np.testing.assert_allclose(table["cost"], paid)
    for row in whole.subsets.itertuples():
        limited = min(costs.affordable(row.subset, 300), whole.trials[0]["pool"])
        assert row.samples == limited
    even = table[table["strategy"] == "even"]
    assert set(even["subset"]) == {"x1+x2+x3"}
    assert not even["filled"].any()
    single = table[table["strategy"] == "best-single"]
    assert (single["cells"] == single["samples"]).all()
    assert single["filled"].all()


def test_where_x3_can_be_computed_the_cheap_pair_is_the_best_buy(whole):
    means = whole.subsets.groupby("subset")["filled"].mean()
    assert means.idxmax() == "x1+x2"
    assert means["x1+x2"] > means["x1+x2+x3"] > 0
    assert whole.summary["gain"].iloc[0] == whole.summary.set_index("strategy").loc["oracle", "gain"]
    assert whole.frame.query("strategy == 'rehearsal'")["kendall"].mean() > 0
    summary = whole.summary.set_index("strategy")
    assert summary.loc["rehearsal", "bought"] == "x1+x2"
    assert summary.loc["rehearsal", "regret"] < summary.loc["even", "regret"]


def test_where_it_cannot_the_pair_brings_nothing():
    data = ungenerable(500, seed=1, dims=(2, 2, 6)).data
    result = backtest(data, PRICES, 200, seeds=3, make_model=model, available=0.3, **QUICK)
    means = result.subsets.groupby("subset")[["filled", "not_filled"]].mean()
    assert abs(means.loc["x1+x2", "filled"]) < 0.25 * means.loc["x3", "filled"]
    assert means.loc["x1+x2", "filled"] - means.loc["x1+x2", "not_filled"] < 0.1 * means.loc["x3", "filled"]


def test_rank_correlations_are_those_of_the_tables(whole):
    for seed, part in whole.subsets.groupby("seed"):
        expected = stats.kendalltau(part["predicted by utility-per-cost"], part["filled"]).statistic
        rows = whole.frame.query(f"seed == {seed}").set_index("strategy")
        assert rows.loc["utility-per-cost", "kendall"] == pytest.approx(expected)
        assert np.isnan(rows.loc["even", "kendall"])
        rho = stats.spearmanr(part["predicted by utility"], part["filled"]).statistic
        found = whole.predictors.query(f"seed == {seed} and predictor == 'utility'")["spearman"].iloc[0]
        assert found == pytest.approx(rho)


def test_differences_are_paired_by_seed_and_corrected(whole):
    table = whole.compare("even")
    wide = whole.frame.pivot(index="seed", columns="strategy", values="gain")
    for row in table.itertuples():
        test = stats.ttest_rel(wide[row.strategy], wide["even"])
        assert row.difference == pytest.approx((wide[row.strategy] - wide["even"]).mean())
        assert row.p_value == pytest.approx(test.pvalue)
        low, high = test.confidence_interval(0.95)
        assert (row.low, row.high) == pytest.approx((low, high))
        assert row.p_holm >= row.p_value
    ordered = table.sort_values("p_value")
    assert ordered["p_holm"].iloc[0] == pytest.approx(min(1, ordered["p_value"].iloc[0] * len(table)))
    assert ordered["p_holm"].is_monotonic_increasing
    with pytest.raises(ConfigError, match="no strategy 'evn' here. Did you mean 'even'"):
        whole.compare("evn")
    with pytest.raises(ConfigError, match="no column of numbers 'subset'"):
        whole.compare("even", "subset")


def test_the_report_counts_labels_cells_models_and_time(whole):
    table = whole.frame.set_index("strategy")
    assert (table.loc["even", "trainings"] == 1).all()
    assert (table.loc["sk-ll", "trainings"] == 4 * 7 + 1).all()
    assert (table.loc["rehearsal", "trainings"] == 4 * 4 + 4 * (2 + 2 * 6) + 1).all()
    assert (table["minutes"] > 0).all()
    text = str(whole)
    for part in ("3 seeds", "budget 300", "utility-per-cost", "log_loss", "kendall"):
        assert part in text
    summary = whole.summary
    assert (summary["gain_low"] <= summary["gain"]).all()
    assert (summary["gain"] <= summary["gain_high"]).all()


def test_saved_and_loaded_it_is_the_same_and_a_change_is_noticed(whole, tmp_path):
    path = whole.save(tmp_path / "deep" / "backtest.json")
    again = Backtest.load(path)
    pd.testing.assert_frame_equal(whole.frame, again.frame)
    assert str(again) == str(whole)
    content = json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    content["trials"][0]["strategies"][0]["gain"] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="was changed after it was written"):
        Backtest.load(path)
    path.write_text("{}")
    with pytest.raises(RunError, match="is not a backtest"):
        Backtest.load(path)


def test_the_same_call_gives_the_same_and_a_seed_alone_what_it_gave_among_others(world):
    world = world.select(np.arange(300))
    one = backtest(world, PRICES, 60, seeds=2, make_model=model, available=0.2, **QUICK)
    two = backtest(world, PRICES, 60, seeds=[1], make_model=model, available=0.2, **QUICK)
    pd.testing.assert_frame_equal(timeless(one).query("seed == 1").reset_index(drop=True), timeless(two))
    shuffled = world.select(np.random.default_rng(5).permutation(len(world)))
    other = backtest(shuffled, PRICES, 60, seeds=[1], make_model=model, available=0.2, **QUICK)
    left, right = timeless(two), timeless(other)
    assert left["subset"].tolist() == right["subset"].tolist()
    np.testing.assert_allclose(left["gain"], right["gain"], atol=1e-4)  # float sums in another order


def test_an_interrupted_backtest_goes_on_and_refuses_other_data(world, tmp_path, monkeypatch):
    options = {"make_model": model, "available": 0.2, "out": tmp_path / "run", **QUICK}
    straight = backtest(world, PRICES, 60, seeds=3, **{**options, "out": None})
    plain, calls = module.run_trial, []

    def dies_at_two(data, setting, seed):
        calls.append(seed)
        if seed == 2:
            raise KeyboardInterrupt
        return plain(data, setting, seed)

    monkeypatch.setattr(module, "run_trial", dies_at_two)
    with pytest.raises(KeyboardInterrupt):
        backtest(world, PRICES, 60, seeds=3, **options)
    assert calls == [0, 1, 2]
    calls.clear()
    monkeypatch.setattr(module, "run_trial", lambda *given: calls.append(given[2]) or plain(*given))
    result = backtest(world, PRICES, 60, seeds=3, **options)
    assert calls == [2]
    pd.testing.assert_frame_equal(timeless(result), timeless(straight))
    for change in ({"budget": 61}, {"available": 0.25}, {"data": world.select(np.arange(990))}):
        given = {"data": world, "costs": PRICES, "budget": 60, "seeds": 3, **options, **change}
        with pytest.raises(RunError, match="holds a backtest of other data or another configuration"):
            backtest(**given)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="holds files but no config.json"):
        backtest(world, PRICES, 60, **{**options, "out": tmp_path / "other"})


def test_seeds_of_another_model_or_completer_are_not_taken_for_these(world, tmp_path):
    def of(C):
        return lambda data: LogisticRegression(C=C)

    def by(neighbours):
        return KNNCompleter(neighbours)

    world, ask = world.select(np.arange(200)), {"seeds": 1, "available": 0.2, "out": tmp_path / "run", **QUICK}
    first = backtest(world, PRICES, 60, make_model=of(0.05), completer=by(3), **ask)
    with pytest.raises(RunError, match=r"learner.model: there 'LogisticRegression\(C=0.05\)', here '.*C=50.0"):
        backtest(world, PRICES, 60, make_model=of(50.0), completer=by(3), **ask)
    with pytest.raises(RunError, match="learner.completer: .*neighbours=3.*neighbours=40"):
        backtest(world, PRICES, 60, make_model=of(0.05), completer=by(40), **ask)
    same = partial(lambda data, C: LogisticRegression(C=C), C=0.05)
    again = backtest(world, PRICES, 60, make_model=same, completer=by(3), **ask)
    assert again.trials == first.trials
    assert "filled by knn" in str(first)


def test_groups_too_large_for_the_pilot_are_for_sale(world):
    data = world.select(np.arange(120))
    data.groups = np.array(["big"] * 60 + [f"g{k}" for k in range(60)])
    for seed in range(6):
        trial = _Trial(data, setting(PRICES), seed)
        assert 20 <= len(trial.start) <= round(0.3 * len(trial.rest))
        assert set(trial.queue) == set(trial.rest.ids) - set(trial.rest.ids[trial.start])


def test_the_curve_reaches_as_far_as_what_two_capped_purchases_come_to(world, monkeypatch):
    trial = _Trial(world, setting({"per_cell": PRICES, "capacity": {"x1": 50, "x2": 60}}), 0)
    asked = []
    monkeypatch.setattr("lacunar.planning.trial.learn", lambda *given: None)
    monkeypatch.setattr("lacunar.planning.trial.outlook_of", lambda *given: asked.append(given[3]) or given)
    assert trial.rehearsed
    assert asked[0] >= 50 + 60


def setting(costs):
    return Setting(
        CostModel.read(costs), 200.0, ("rehearsal",), 0.3, 0.3, Learner(model), "retrain", 2, 0.95, 0.0, 50, 7
    )


def test_a_budget_that_buys_nothing_is_an_answer(world):
    result = backtest(
        world, {"per_cell": PRICES, "setup": dict.fromkeys(PRICES, 100)}, 50, seeds=1, make_model=model,
        available=0.2, progress=False, repeats=2,
    )  # fmt: skip
    table = result.frame
    assert (table["gain"] == 0).all()
    assert (table["regret"] == 0).all()
    assert set(table["subset"]) == {"none"}
    assert (table["cost"] == 0).all()
    assert any("one seed" in note for note in result.notes)
    assert (backtest(world, PRICES, 0, seeds=1, make_model=model, **QUICK).frame["samples"] == 0).all()


def test_a_network_can_be_backtested():
    data = vectors(n=120, missing=0.0)
    options = {"max_epochs": 1, "batch_size": 32}
    result = backtest(
        data, {"m0": 1, "m1": 1, "m2": 9}, 90, seeds=1, make_model=small_model, fit=options, completer="mean",
        **{**QUICK, "strategies": ("even", "oracle")},
    )  # fmt: skip
    assert np.isfinite(result.frame["score"]).all()


def test_bad_requests_are_told(world):
    for change, match in (
        ({"strategies": ["even", "rehersal"]}, "unknown strategy 'rehersal'. Did you mean 'rehearsal'"),
        ({"strategies": []}, "strategies: expected at least one"),
        ({"budget": -5}, "budget: expected at least 0, got -5"),
        ({"available": 1.5}, r"available: expected a share in \(0, 1\)"),
        ({"costs": {"x1": 1, "x2": 2}}, "'x3' has no price"),
        ({"costs": {"x1": -1, "x2": 2, "x3": 1}}, "finite number from 0 up, got -1"),
        ({"completer": "rigde"}, "Unknown completer 'rigde'"),
        ({"metric": "auc"}, "metric: unknown 'auc'"),
        ({"estimator": "retran"}, "estimator: unknown 'retran'. Did you mean 'retrain'"),
        ({"repeats": 1}, "repeats: expected at least 2"),
        ({"seeds": []}, "seeds: expected how many repeats"),
    ):
        with pytest.raises(ConfigError, match=match):
            backtest(**{"data": world, "costs": PRICES, "budget": 10, "progress": False, **change})
    with pytest.raises(DataError, match="too few") as error:
        backtest(world.select(np.arange(2)), PRICES, 10, make_model=model, **QUICK)
    assert any("seed 0" in note for note in error.value.__notes__)
