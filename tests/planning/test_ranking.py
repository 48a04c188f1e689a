from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import kendalltau

from lacunar.errors import ConfigError, DataError
from lacunar.lattice import Lattice
from lacunar.planning.costs import CostModel
from lacunar.planning.indicators import DegenerateUtilityWarning, available
from lacunar.planning.ranking import order_stability, rank, subset_costs, top_shares
from lacunar.planning.utility_table import UtilityTable

NAMES = ["a", "b", "c"]
VALUES = {"none": 0.5, "a": 0.6, "b": 0.65, "c": 0.52, "a+b": 0.8, "a+c": 0.62, "b+c": 0.66, "a+b+c": 0.81}


def given_table(sd=0.01, values=VALUES):
    spread = None if sd is None else np.full(8, sd) * (np.arange(8) > 0)
    return UtilityTable.of(NAMES, values, sd=spread, metric="accuracy")


def measured_table(repeats=3, n=200, seed=0, estimator="retrain", items=True):
    """Right or wrong on n samples for each repeat; a+b is clearly the best pair."""
    rng = np.random.default_rng(seed)
    chance = np.array([0.5, 0.6, 0.65, 0.8, 0.52, 0.62, 0.66, 0.82])
    right = [(rng.random((n, 8)) < chance).astype(np.float32) for _ in range(repeats)]
    values = np.array([part.mean(axis=0, dtype=np.float64) for part in right])
    return UtilityTable(tuple(NAMES), values, "accuracy", estimator, items=right if items else None)


# ---------------------------------------------------------------- what a ranking holds


def test_by_utility():
    table = measured_table()
    ranking = rank(table)
    frame = ranking.frame
    columns = ["score", "low", "high", "p_top", "utility", "cost", "score_per_cost", "flags"]
    assert list(frame.columns) == columns and frame.index.name == "subset" and len(frame) == 7
    assert ranking.top == frame.index[0] and frame["score"].is_monotonic_decreasing
    gains = table.mean - table.mean[0]
    for label, row in frame.iterrows():
        assert row["score"] == pytest.approx(gains[table.lattice.index(label.split("+"))])
        assert row["low"] < row["score"] < row["high"]
    assert frame["cost"].isna().all() and frame["score_per_cost"].isna().all()
    # Three repeats of 200 samples: the interval of a gain is about twice 1.96 standard errors of a difference wide.
    expected = 2 * 1.96 * np.sqrt((0.25 + 0.8 * 0.2) / 600)
    width = frame.loc["a+b", "high"] - frame.loc["a+b", "low"]
    assert 0.6 * expected < width < 1.6 * expected


@pytest.mark.parametrize("name", sorted(available()))
def test_shares_of_the_top_sum_to_one(name):
    ranking = rank(measured_table(), name)
    assert ranking.frame["p_top"].sum() == pytest.approx(1)
    assert -1 <= ranking.order_stability.low <= ranking.order_stability.mean <= ranking.order_stability.high <= 1
    assert ranking.top in ranking.tied
    assert ranking.indicator in str(ranking) and ranking.top in str(ranking)


def test_the_share_of_the_top_is_the_probability_that_it_is_larger():
    values = {"none": 0.0, "a": 1.0, "b": 1.1}
    table = UtilityTable.of(["a", "b"], values, sd={"a": 0.1, "b": 0.1})
    ranking = rank(table, "singleton", draws=20000)
    from scipy.stats import norm

    assert ranking.frame.loc["b", "p_top"] == pytest.approx(norm.cdf(0.1 / np.hypot(0.1, 0.1)), abs=0.01)
    assert not ranking.clear and ranking.tied == ("b", "a")
    assert ranking.order_stability.mean == pytest.approx(2 * ranking.frame.loc["b", "p_top"] - 1)


def test_what_is_common_to_all_subsets_cancels():
    """Hard repeats are hard for every subset: the order is certain though no single value is."""
    shift = np.array([-0.2, 0.0, 0.2])[:, None]
    values = np.array([list(given_table().mean)]) + shift
    ranking = rank(UtilityTable(tuple(NAMES), values))
    assert ranking.frame["p_top"].iloc[0] == 1 and ranking.order_stability.low == pytest.approx(1)
    assert (ranking.frame["high"] - ranking.frame["low"]).max() < 1e-9


def test_clear_and_tied():
    assert rank(given_table(0.001)).tied == ("a+b+c",)
    loose = rank(given_table(0.02))
    assert loose.tied == ("a+b+c", "a+b") and not loose.clear
    assert "not to be told from a+b" in str(loose)


def test_sizes():
    assert set(rank(given_table(), size=2).frame.index) == {"a+b", "a+c", "b+c"}
    assert len(rank(given_table(), size=[1, 3]).frame) == 4
    assert len(rank(given_table(), "cooperation").frame) == 4  # singles have nobody to cooperate with
    assert set(rank(given_table(), "perceptual").frame.index) == set(NAMES)
    for size in (0, 4, True, [], "2"):
        with pytest.raises(ConfigError, match="size: expected 1 to 3"):
            rank(given_table(), size=size)
    with pytest.raises(ConfigError, match="'shapley' scores single modalities, not subsets of size 2"):
        rank(given_table(), "shapley", size=2)
    with pytest.raises(ConfigError, match="needs at least 2 modalities, got 1"):
        rank(UtilityTable.of(["a"], [0.1, 0.2]), "interaction")


def test_same_seed_same_ranking():
    table = measured_table()
    first, second, other = rank(table, seed=3), rank(table, seed=3), rank(table, seed=4)
    assert first.frame.equals(second.frame) and not first.frame.equals(other.frame)


def test_disagreement_with_utility_is_said():
    ranking = rank(given_table(), "cooperation")
    assert ranking.top == "a+b"
    assert ranking.frame.loc["a+b", "flags"] == "place 2 by utility"
    assert ranking.frame.loc["a+b+c", "flags"] == "place 1 by utility"
    assert any("disagree: a+b against a+b+c" in note for note in ranking.notes)
    assert not any("disagree" in note for note in rank(given_table(), size=2).notes)


# ---------------------------------------------------------------- little or no uncertainty


def test_no_uncertainty_is_flagged():
    ranking = rank(given_table(None))
    assert ranking.draws == 0 and not ranking.clear and np.isnan(ranking.order_stability.mean)
    assert ranking.frame[["low", "high", "p_top"]].isna().all().all()
    assert ranking.frame["flags"].str.contains("no uncertainty").all()
    assert any("no uncertainty" in note for note in ranking.notes)
    assert ranking.tied == ("a+b+c",)
    assert "unknown" in str(ranking)


def test_one_repeat_has_the_uncertainty_of_its_items():
    ranking = rank(measured_table(repeats=1))
    assert ranking.draws and ranking.frame["low"].notna().all()
    assert any("not of the training's randomness" in note for note in ranking.notes)
    assert any("of the repeats alone" in note for note in rank(measured_table(items=False)).notes)


def test_families_are_named():
    assert any("ONE trained model" in note for note in rank(measured_table(estimator="masked")).notes)
    assert any("ONE trained model" in note for note in rank(measured_table(estimator="permuted")).notes)
    assert any("read off one model" in note for note in rank(measured_table(estimator="amortised")).notes)
    assert not any("estimator" in note for note in rank(measured_table()).notes)


# ---------------------------------------------------------------- degenerate tables

HARMFUL = {"none": 0.6, "a": 0.5, "b": 0.55, "c": 0.61, "a+b": 0.5, "a+c": 0.53, "b+c": 0.56, "a+b+c": 0.5}


def test_a_negative_full_gain_warns_and_does_not_reverse():
    table = given_table(0.001, HARMFUL)
    with pytest.warns(DegenerateUtilityWarning, match="not above"):
        ranking = rank(table, "shapley")
    phi = table.lattice.shapley(table.mean)
    assert list(ranking.frame.index) == [NAMES[m] for m in np.argsort(-phi)]
    assert ranking.frame["score"].to_numpy() == pytest.approx(np.sort(phi)[::-1])
    assert (ranking.frame["low"] < ranking.frame["score"]).all()
    assert ranking.frame["flags"].str.contains("degenerate").all()
    assert any(note.startswith("degenerate") for note in ranking.notes)
    with pytest.warns(DegenerateUtilityWarning):
        cooperating = rank(table, "cooperation")
    assert cooperating.frame["score"].isna().all() and cooperating.frame["low"].isna().all()
    assert list(cooperating.frame.index) == list(rank(table, "synergy").frame.index)
    assert cooperating.frame["p_top"].sum() == pytest.approx(1)


def test_a_gain_within_its_error_is_degenerate():
    values = {**VALUES, "a+b+c": 0.53}
    with pytest.warns(DegenerateUtilityWarning):
        assert any("degenerate" in note for note in rank(given_table(0.05, values), "shapley").notes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rank(given_table(0.01, values), "shapley")
        rank(given_table(0.05, values), "shapley", minimum=0.001)


def test_draws_without_a_gain_are_left_out_of_intervals_but_not_of_orders():
    ranking = rank(given_table(0.02, {**VALUES, "a+b+c": 0.53}), "shapley")
    assert any("leave out" in note for note in ranking.notes)
    assert ranking.frame["p_top"].sum() == pytest.approx(1)


def test_a_pair_below_the_baseline_is_never_top_of_cooperation():
    values = {**VALUES, "a+c": 0.45, "a": 0.55, "c": 0.55}  # worse than the sum, and than nothing
    with pytest.warns(DegenerateUtilityWarning):
        ranking = rank(given_table(0.001, values), "cooperation", size=2, normalise="self")
    assert ranking.frame.index[-1] == "a+c" and ranking.frame.loc["a+c", "p_top"] == 0
    assert np.isnan(ranking.frame.loc["a+c", "score"])
    assert ranking.frame.loc["a+c", "flags"] == "no score: too little to divide by; no gain"
    with pytest.warns(DegenerateUtilityWarning, match="sign flips"):
        raw = rank(given_table(0.001, values), "cooperation", size=2, normalise="self", on_negative="raw")
    assert raw.top == "a+c"  # what the paper's formula says of it


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.float64, 8, elements=st.floats(-1, 1, width=16)))
def test_no_order_is_ever_reversed_by_the_sign_of_the_full_gain(values):
    table = UtilityTable.of(NAMES, values, sd=np.full(8, 0.01))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_share = rank(table, "shapley", draws=50)
        cooperating, synergy = rank(table, "cooperation", draws=50), rank(table, "synergy", draws=50)
    phi = dict(zip(NAMES, table.lattice.shapley(table.mean)))
    ordered = [phi[name] for name in by_share.frame.index]
    assert (np.diff(ordered) <= 1e-12).all()
    assert list(cooperating.frame.index) == list(synergy.frame.index)
    for ranking in (by_share, cooperating, synergy):
        assert ranking.frame["p_top"].sum() == pytest.approx(1)


def test_missing_values():
    partial = {label: value for label, value in VALUES.items() if label != "a+c"}
    ranking = rank(given_table(0.01, partial))
    assert ranking.frame.index[-1] == "a+c" and ranking.frame.loc["a+c", "flags"] == "not estimated"
    assert any("no value for a+c" in note for note in ranking.notes)
    with pytest.raises(DataError, match="shapley: no modality has a score. The table has no value for a\\+c"):
        rank(given_table(0.01, partial), "shapley")


# ---------------------------------------------------------------- costs


def test_costs():
    ranking = rank(given_table(), costs={"a": 1, "b": 10, "c": 1})
    assert ranking.frame.loc["a+b", "cost"] == 11
    assert ranking.frame.loc["a+b", "score_per_cost"] == pytest.approx(0.3 / 11)
    assert ranking.top == "a+b+c"
    cheap = rank(given_table(), costs={"a": 1, "b": 10, "c": 1}, per_cost=True)
    assert cheap.top == "a" and cheap.frame["score_per_cost"].is_monotonic_decreasing
    assert cheap.frame["p_top"].sum() == pytest.approx(1) and "per cost" in str(cheap)
    free = rank(given_table(), costs={"a": 0, "b": 10, "c": 1}, per_cost=True)
    assert free.top == "a" and np.isinf(free.frame["score_per_cost"].iloc[0])
    assert free.frame["p_top"].sum() == pytest.approx(1)


def test_any_cost_model_will_do():
    class Flat:
        def cost(self, subset, samples):
            return 3.0 * samples

    lattice = Lattice(NAMES)
    assert subset_costs(Flat(), lattice, 2).tolist() == [0] + [6.0] * 7
    bundled = CostModel(per_cell={"a": 4, "b": 4, "c": 1}, bundles={"a+b": 5}, label=1)
    assert subset_costs(bundled, lattice).tolist() == [0, 5, 5, 6, 2, 6, 6, 7]


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ({"a": 1, "b": 2}, "'c' has no price"),
        ({"a": 1, "b": 2, "c": 1, "d": 1}, "unknown modality 'd'"),
        ({"a": -1, "b": 2, "c": 1}, "'a'"),
        (7, "expected a price for each modality or a CostModel, got int"),
    ],
)
def test_wrong_costs(costs, message):
    with pytest.raises(ConfigError, match=message):
        rank(given_table(), costs=costs)


def test_wrong_use():
    with pytest.raises(ConfigError, match="unknown indicator 'shaply'. Did you mean 'shapley'"):
        rank(given_table(), "shaply")
    with pytest.raises(ConfigError, match="indicator 'cooperation': unknown option 'normalize'. Did you mean 'normal"):
        rank(given_table(), "cooperation", normalize="self")
    with pytest.raises(ConfigError, match="unknown option 'minimum'. It has none"):
        rank(given_table(), minimum=1)
    with pytest.raises(ConfigError, match="per_cost: there is nothing to divide by"):
        rank(given_table(), per_cost=True)
    with pytest.raises(ConfigError, match="draws: expected at least 1"):
        rank(given_table(), draws=0)


# ---------------------------------------------------------------- its parts


def test_shares_of_ties_and_of_nothing():
    scores = np.array([[1.0, 1.0, 0.0], [0.0, np.nan, 2.0], [np.nan, np.nan, np.nan]])
    assert top_shares(scores) == pytest.approx([0.25, 0.25, 0.5])
    assert np.isnan(top_shares(scores[2:])).all()


def test_stability_of_the_order_is_kendalls_tau_b():
    rng = np.random.default_rng(0)
    point, drawn = rng.integers(0, 4, size=9).astype(float), rng.integers(0, 4, size=(40, 9)).astype(float)
    expected = [kendalltau(point, row).statistic for row in drawn]
    found = order_stability(point, drawn, 0.9)
    assert found.mean == pytest.approx(np.mean(expected))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(expected, [0.05, 0.95])))
    assert np.isnan(order_stability(point, np.ones((3, 9)), 0.9).mean)
    assert np.isnan(order_stability(np.ones(1), np.ones((3, 1)), 0.9).mean)


def test_many_modalities():
    lattice = Lattice([f"m{m}" for m in range(10)])
    rng = np.random.default_rng(0)
    values = 1 - 0.9 ** lattice.size(np.arange(1024)) + rng.normal(size=(3, 1024)) * 0.01
    ranking = rank(UtilityTable(lattice.names, values), draws=200)
    assert len(ranking.frame) == 1023 and ranking.frame["p_top"].sum() == pytest.approx(1)
