"""``lacunar.plan``: what it recommends, what it refuses, and what it tells."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from lacunar.data.arrays import from_arrays
from lacunar.datasets.synthetic import duplicate
from lacunar.datasets.worlds_of_generation import generable, ungenerable
from lacunar.errors import ConfigError, DataError, RunError
from lacunar.planning.costs import CostModel
from lacunar.planning.curves import fit_curves
from lacunar.planning.fairness import group_effect
from lacunar.planning.knowledge import Settings, learn, prefilter
from lacunar.planning.learner import Learner
from lacunar.planning.plan import plan
from lacunar.planning.rehearsal import rehearse
from lacunar.planning.result import Plan
from lacunar.planning.utility_table import UtilityTable
from tests.helpers import vectors

COSTS = {"m0": 50, "m1": 5, "m2": 1}
QUALITY = {"m0": (0.5, 0.03), "m1": (0.2, 0.05), "m0+m1": (0.8, 0.1), "m1+m2": (0.3, 0.05)}


def points(b=2.0, noise=0.003, seeds=5, label="m0+m1+m2", metric="log_loss"):
    rng = np.random.default_rng(0)
    rows = [
        (label, n, seed, -0.3 - b * n**-0.5 + noise * rng.normal()) for n in (40, 80, 120, 150) for seed in range(seeds)
    ]
    made = pd.DataFrame(rows, columns=["subset", "n", "seed", "score"])
    made.attrs["metric"] = metric
    return made


@pytest.fixture(scope="module")
def pilot():
    return vectors(M=3, n=200, missing=0.0)


def made(pilot, costs=COSTS, budget=2000, **options):
    given = {"curves": points(), "rehearsal": QUALITY, "progress": False, "draws": 400}
    return plan(pilot, costs, budget, **{**given, **options})


def test_a_plan_says_what_how_many_at_what_price_and_how_sure(pilot):
    found = made(pilot)
    assert found.subset == ("m1", "m2")
    assert found.samples == 333
    assert found.cells == {"m0": 0, "m1": 333, "m2": 333}
    assert found.cost == 333 * 6 <= 2000
    assert 0 < found.low < found.gain < found.high
    assert found.score == pytest.approx(found.now + found.gain)
    assert found.now == pytest.approx(-0.3 - 2 * 200**-0.5, abs=0.01)
    # -0.3 - 2 n^-.5 at 200 and at 200 + 0.3 * 333
    assert found.gain == pytest.approx(2 * (200**-0.5 - 300**-0.5), abs=0.006)
    assert found.candidates["p_best"].sum() == pytest.approx(1)
    assert found.candidates["subset"].iloc[0] == "m1+m2"
    row = found.candidates.iloc[0]
    assert row["gain_per_cost"] == pytest.approx(found.gain / found.cost)
    assert row["effective"] == pytest.approx(0.3 * 333)
    assert row["labels"] == 333
    assert {"cost", "budget", "quality", "threshold"} >= set(found.flips["what"])
    assert found.information >= 0
    assert found.metric == "log_loss"
    assert not found.collect_nothing
    assert len(found.curve) >= 20 and len(found.points) == 20
    assert set(found.rehearsal["subset"]) == set(QUALITY)
    assert any("same population" in line for line in found.assumptions)
    assert found.notes == []
    assert found.audit["trainings"] == 0
    assert found.audit["data"]["hash"]


def test_ties_are_reported_as_indistinguishable(pilot):
    found = made(pilot, {"m0": 10, "m1": 5, "m2": 5}, rehearsal={"m1": (0.5, 0.1), "m2": (0.5, 0.1)})
    assert found.p_best < 0.8
    assert not found.clear
    assert found.runner_up in found.tied
    assert "cannot be told apart from" in str(found)
    sure = made(pilot, rehearsal={"m1": (0.9, 0.01), "m0": (0.1, 0.01)})
    assert sure.clear and sure.tied == () and sure.p_best > 0.95
    assert "cannot be told apart" not in str(sure)


def test_plans_are_plain_data(pilot, tmp_path):
    found = made(pilot, {"m0": 50.0, "m1": 5.0, "m2": 1.0}, out=tmp_path)
    again = Plan.load(tmp_path / "plan.json")
    assert again.hash == found.hash
    assert str(again) == str(found)
    pd.testing.assert_frame_equal(again.candidates, found.candidates, check_dtype=False)
    pd.testing.assert_frame_equal(again.allocate(), found.allocate())
    content = json.loads((tmp_path / "plan.json").read_text())
    content["samples"] += 1
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match="changed after it was written"):
        Plan.load(tmp_path / "plan.json")
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(RunError, match="is not a plan"):
        Plan.load(tmp_path / "other.json")
    content["format"] = 99
    (tmp_path / "late.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match="has format 99"):
        Plan.load(tmp_path / "late.json")


def test_the_same_question_gets_the_same_answer(pilot):
    first, second = made(pilot).to_dict(), made(pilot).to_dict()
    first.pop("audit"), second.pop("audit")
    assert first == second


def test_who_gets_what(pilot):
    found = made(pilot)
    assert found.allocate()["cells"].to_dict() == found.cells
    frame = found.allocate([f"new{k}" for k in range(400)])
    assert len(frame) == 333
    assert frame["m1"].all() and not frame["m0"].any()
    with pytest.raises(DataError, match="at least 333 candidates, got 2"):
        found.allocate(["a", "b"])


def test_failures_scale_what_is_asked_for(pilot):
    sure = made(pilot, rehearsal={"m1": 0.9})
    shaky = made(pilot, {"per_cell": COSTS, "failure": {"m1": 0.2}}, rehearsal={"m1": 0.9})
    assert (sure.samples, sure.ask["m1"]) == (400, 400)
    assert (shaky.samples, shaky.ask["m1"]) == (320, 400)  # 320 = 400 (1 - 0.2)
    assert "ask for 400" in str(shaky)
    assert any("asked for again" in line for line in shaky.assumptions)


def test_of_two_identical_modalities_the_cheaper_is_recommended(pilot):
    same = {"m0": (0.6, 0.05), "m1": (0.6, 0.05)}
    assert made(pilot, {"m0": 8, "m1": 5, "m2": 99}, rehearsal=same).subset == ("m1",)
    assert made(pilot, {"m0": 5, "m1": 8, "m2": 99}, rehearsal=same).subset == ("m0",)


def test_xor_pairs_are_recommended_over_their_members(pilot):
    xor = {"m0": 0.0, "m1": 0.0, "m0+m1": (0.9, 0.05), "m2": 0.0}
    assert made(pilot, {"m0": 5, "m1": 5, "m2": 90}, rehearsal=xor).subset == ("m0", "m1")


def test_doubling_a_price_never_collects_more(pilot):
    rng = np.random.default_rng(3)
    for _ in range(2):
        quality = {label: float(rng.uniform()) for label in ("m0", "m1", "m2", "m0+m1", "m1+m2")}
        costs = CostModel(dict(zip(COSTS, rng.uniform(1, 40, 3))))
        before = made(pilot, costs, rehearsal=quality, draws=100)
        for name in COSTS:
            after = made(pilot, costs.changed(name, 2), rehearsal=quality, draws=100)
            assert after.cells[name] <= before.cells[name]


# ------------------------------------------------------------------ nothing


@pytest.mark.parametrize(
    ("budget", "reason"), [(0, "the budget is 0"), (0.5, "budget of 0.50 is below the smallest purchase, 1 for m2")]
)
def test_a_budget_that_buys_nothing_trains_nothing_and_says_why(pilot, budget, reason):
    found = plan(pilot, COSTS, budget, progress=False)
    assert found.collect_nothing and found.label == "none"
    assert found.subset == () and found.samples == 0 and found.cost == 0
    assert found.p_best == 1
    assert reason in found.reason and reason in str(found)
    assert found.audit["trainings"] == 0


def test_nothing_is_collected_where_the_curve_is_flat(pilot, tmp_path):
    found = made(pilot, curves=points(b=0.0), out=tmp_path)
    assert found.collect_nothing
    assert "no purchase is sure to gain more than 0" in found.reason
    assert "COLLECT NOTHING" in str(found)
    assert found.candidates["p_best"].sum() == pytest.approx(1)
    assert str(Plan.load(tmp_path / "plan.json")) == str(found)


def test_nothing_is_collected_below_the_gain_that_is_worth_it(pilot):
    assert made(pilot, min_gain=0.001).subset
    found = made(pilot, min_gain=0.05)
    assert found.collect_nothing
    row = found.flips[found.flips["what"] == "threshold"].iloc[0]
    assert made(pilot, min_gain=row["value"] * 0.98).label == row["to"]


# ------------------------------------------------------------------ targets and other rules


def test_a_target_gets_its_cheapest_plan(pilot):
    found = made(pilot, budget=None, target=-0.4)
    assert found.subset == ("m1", "m2")
    assert found.budget is None and found.target == -0.4
    assert found.score == pytest.approx(-0.4, abs=0.005)
    assert 0.5 <= found.p_target < 0.7
    assert found.candidates["p_best"].sum() == pytest.approx(1)
    others = found.candidates[found.candidates["samples"] > 0]
    assert found.cost == others["cost"].min()
    surer = made(pilot, budget=None, target=-0.4, assurance=0.9, draws=200)
    assert surer.cost > found.cost and surer.p_target >= 0.9
    there = made(pilot, budget=None, target=-1.0, draws=100)
    assert there.collect_nothing and "reached already" in there.reason
    never = made(pilot, budget=None, target=-0.1, draws=100)
    assert never.collect_nothing and "no purchase reaches the target" in never.reason


def test_a_target_gets_the_cheapest_plan_that_is_sure_to_gain(pilot):
    unsure = np.r_[np.ones(94), np.zeros(6)]
    found = made(pilot, {"m0": 9, "m1": 9, "m2": 9}, budget=None, target=-0.42, rehearsal={"m0": unsure, "m1": 0.9})
    assert found.subset == ("m1",)
    compared = found.candidates.set_index("subset")
    assert compared.loc["m0", "cost"] < found.cost and compared.loc["m0", "low"] == 0
    assert "m0 costs less but is not sure to gain more than 0" in found.reason
    assert not (found.flips["what"] == "threshold").any()
    nothing = made(pilot, {"m0": 9, "m1": 9, "m2": 9}, budget=None, target=-0.42, rehearsal={"m0": unsure}, min_gain=1)
    assert nothing.collect_nothing and "and neither are the others" in nothing.reason


def test_subsets_are_not_needed_where_the_target_is_reached(pilot):
    frame = made(pilot, budget=None, target=-1.0, draws=100).candidates
    assert set(frame["note"].iloc[1:]) == {"not needed: the target is reached already"}


def test_reasons_and_thresholds_are_those_of_the_rule(pilot):
    table = UtilityTable.of(pilot.lattice, TABLE, sd=dict.fromkeys(TABLE, 0.01), metric="log_loss")
    for rule in ("even", "utility-per-cost", "best-single", "sk-ll"):
        found = made(pilot, strategy=rule, utilities=table, rehearsal={**QUALITY, "m2": 0.1})
        assert found.gain > 0
        assert "interval" not in found.reason
        assert "threshold" not in set(found.flips["what"])
    worthless = UtilityTable.of(pilot.lattice, dict.fromkeys(TABLE, -1.0), metric="log_loss")
    found = made(pilot, strategy="utility-per-cost", utilities=worthless)
    assert found.reason == "'utility-per-cost' finds no purchase worth making"
    assert "threshold" not in set(found.flips["what"])
    assert "lower end of its interval" in made(pilot).reason
    assert "threshold" in set(made(pilot).flips["what"])


def test_where_cells_are_free_the_set_up_is_what_moves(pilot):
    costs = {"per_cell": {"m0": 0, "m1": 1, "m2": 1}, "setup": {"m0": 300}, "per_sample": 1}
    found = made(pilot, costs, 1000, rehearsal={"m0": 0.9, "m1": 0.5})
    assert found.subset == ("m0",)
    row = found.flips[(found.flips["what"] == "cost") & (found.flips["modality"] == "m0")].iloc[0]
    assert row["value"] == pytest.approx(300 * row["factor"])
    assert f"set-up of m0 times {row['factor']:.2f} (to {row['value']:,.4g})" in str(found)


def test_points_are_in_the_metric_of_the_plan(pilot):
    bare = pd.DataFrame(points().to_dict("list"))
    known = learn(pilot, {"outlook"}, {}, Settings(metric="log_loss"), None, bare, {})
    assert (known.curves.metric, known.curves.ceiling) == ("log_loss", 0.0)
    assert made(pilot, curves=bare, metric="log_loss").gain == made(pilot).gain


def test_what_two_capped_purchases_come_to_is_on_the_curve(pilot):
    costs = {"per_cell": {"m0": 10, "m1": 10, "m2": 9999}, "capacity": {"m0": 50, "m1": 60}}
    found = made(pilot, costs, 2000, rehearsal={"m0": 1.0, "m1": 1.0})
    assert found.candidates["subset"].iloc[0] == "m0 and m1" and found.samples == 110
    assert found.curve["n"].iloc[-1] >= 200 + 110
    assert list(found.candidates["subset"]).count("m1 and m0") == 0


def test_one_seed_is_not_taken_for_certainty(pilot):
    one = points()[lambda table: table["seed"] == 0]
    for curves in (one, fit_curves(one, metric="log_loss")):
        with pytest.raises(DataError, match="points of at least 2 seeds, got 1"):
            made(pilot, curves=curves)
    with pytest.raises(ConfigError, match="at least 2 repeats of the learning curve and the rehearsal, got 1"):
        plan(pilot, COSTS, 2000, seeds=1, make_model=_never, progress=False)
    assert made(pilot, seeds=1).subset  # nothing is measured here
    assert plan(pilot, COSTS, 2000, strategy="even", seeds=1, progress=False).subset


def _never(part):
    raise AssertionError("nothing should be trained")


def test_far_predictions_are_flagged(pilot):
    found = made(pilot, budget=20_000)
    assert any("extrapolation is a guess" in note for note in found.notes)
    assert not any("extrapolation" in note for note in made(pilot, budget=500).notes)


TABLE = {"none": -1.1, "m0": -0.6, "m1": -1.0, "m2": -1.05, "m0+m1": -0.3, "m0+m2": -0.55, "m1+m2": -0.95,
         "m0+m1+m2": -0.28}  # fmt: skip


def test_other_rules_need_no_learning_curve(pilot):
    table = UtilityTable.of(pilot.lattice, TABLE, metric="log_loss")
    found = plan(pilot, dict.fromkeys(COSTS, 1), 128, strategy="sk-ll", utilities=table, progress=False)
    assert found.subset == ("m0", "m1") and found.samples == 64
    assert found.cells == {"m0": 64, "m1": 64, "m2": 0}
    assert math.isnan(found.gain) and found.p_best == 1
    assert "nan" not in str(found)
    odd = plan(pilot, dict.fromkeys(COSTS, 1), 129, strategy="sk-ll", utilities=table, progress=False)
    assert odd.blocks == ((("m0", "m1"), 64), (("m0",), 1)) and odd.cells["m0"] == 65
    assert Plan.load(odd.save(_temporary(found, odd))).blocks == odd.blocks
    even = plan(pilot, dict.fromkeys(COSTS, 1), 128, strategy="even", progress=False)
    assert even.samples == 42 and math.isnan(even.p_best)
    # With a curve and qualities at hand, their choice is judged like any other.
    judged = made(pilot, strategy="sk-ll", utilities=table)
    assert judged.subset == ("m0", "m1") and judged.gain > 0
    assert judged.runner_up and judged.candidates["p_best"].sum() == pytest.approx(1)


def _temporary(*plans):
    import tempfile
    from pathlib import Path

    return Path(tempfile.mkdtemp()) / "plan.json"


# ------------------------------------------------------------------ end to end


def test_end_to_end_with_an_estimator(tmp_path):
    data = duplicate(M=2, n=240, classes=2, strength=1.5, dim=6, seed=1).data
    data.subgroups = pd.DataFrame({"sex": np.where(np.arange(240) % 2, "f", "m"), "site": ["a"] * 235 + ["b"] * 5})
    found = plan(
        data, {"m0": 10, "m1": 2}, 600, make_model=lambda part: LogisticRegression(C=0.1), seeds=5, progress=False,
        out=tmp_path, confidence=0.9,
    )  # fmt: skip
    compared = found.candidates.set_index("subset")
    assert found.subset == ("m1",)
    assert compared.loc["m1", "gain"] > compared.loc["m0", "gain"]  # the same information at a fifth of the price
    assert found.rehearsal.set_index("subset").loc["m1", "quality"] > 0.5
    assert found.audit["trainings"] == 20 + 5 * (2 + 4) + 10
    assert found.fairness is not None
    groups = found.fairness.set_index("group")
    assert groups.loc["f", "n"] >= 30 and groups.loc["f", "low"] <= groups.loc["f", "gain"] <= groups.loc["f", "high"]
    assert groups.loc["b", "n"] < 30 and np.isnan(groups.loc["b", "gain"])
    assert "no claim" in groups.loc["b", "note"]
    assert list(found.gaps["attribute"]) == ["sex"]  # one site alone has no difference to another
    assert "no claim" in str(found)
    again = Plan.load(tmp_path / "plan.json")
    assert str(again) == str(found)


@pytest.mark.parametrize("world", [generable, ungenerable])
def test_generation_is_paid_for_only_where_it_works(world):
    data, costs = world(n=300).data, {"x1": 1, "x2": 1, "x3": 1000}
    options = {"make_model": lambda part: LogisticRegression(C=0.1), "seeds": 5, "progress": False}
    measured = rehearse(data, ["x1+x2"], **options)
    found = plan(data, costs, 400, rehearsal=measured, **options)
    if world is generable:  # x3 follows from the others, at a thousandth of its price
        assert found.subset == ("x1", "x2") and found.samples == 200
        assert found.rehearsal["quality"].iloc[0] > 0.7
        assert found.clear
    else:  # more labels and guessed x3 are worth nothing
        assert found.collect_nothing
        assert found.rehearsal["quality"].iloc[0] < 0.3


def test_the_rest_is_measured_only_for_what_the_money_buys(tmp_path):
    data = vectors(M=3, n=120, classes=2, missing=0.0, strength=0.4)
    costs = {"m0": 1000, "m1": 1, "m2": 1}
    found = plan(data, costs, 50, make_model=lambda part: LogisticRegression(), seeds=2, progress=False)
    assert set(found.rehearsal["subset"]) == {"m1", "m2", "m1+m2"}
    row = found.candidates.set_index("subset").loc["m0"]
    assert "beyond the budget" in row["note"]
    assert any("rest on 2 repeats" in note for note in found.notes)


def test_rehearsed_is_what_promises_most_for_the_money():
    table = UtilityTable.of(("m0", "m1", "m2"), TABLE, metric="log_loss")
    codes = {1: 40.0, 2: 400.0, 3: 36.0, 4: 2000.0, 5: 39.0, 6: 333.0, 7: 35.0}
    # f(S) / f(all) times samples: m2 .06 * 2000, m1+m2 .18 * 333, m1 .12 * 400, m0+m1 .98 * 36, ...
    assert prefilter(table, codes, [1, 2, 3, 4, 5, 6], 3) == [2, 4, 6]
    assert prefilter(table, codes, [1, 2], 3) == [1, 2]
    assert prefilter(None, codes, [1, 2, 3, 4], 3) == [1, 2, 3, 4]


def test_subgroups_that_are_too_small_cost_no_training():
    data = vectors(M=2, n=80, classes=2, missing=0.0)
    data.subgroups = pd.DataFrame({"site": np.repeat(["a", "b", "c", "d"], 20)})
    learner = Learner(lambda part: LogisticRegression())
    found = group_effect(data, ("m0",), ["site"], learner, seeds=[0])
    assert found.trainings == 0 and found.gaps.empty
    assert found.groups["gain"].isna().all() and (found.groups["n"] == 20).all()
    assert "no claim is made of subgroups below 30" in found.notes[-1]


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": -1}, "budget: expected at least 0, got -1"),
        ({"budget": float("nan")}, "budget: expected a finite number"),
        ({"budget": "all"}, "budget: expected a finite number or None, got 'all'"),
        ({"budget": None}, "either a budget or a target score, got neither"),
        ({"target": -0.4}, "either a budget or a target score, got both"),
        ({"strategy": "rehersal"}, "unknown strategy 'rehersal'.*Did you mean 'rehearsal'"),
        ({"strategy": "oracle"}, "only a backtest can ask it"),
        ({"strategy": "sk-ll", "budget": None, "target": 0.5}, "'sk-ll' does not. Give a budget"),
        ({"costs": {"m0": 1, "m1": 1}}, "modality 'm2' has no price"),
        ({"costs": {"m0": 1, "m1": 1, "m2": -1}}, "'m2'.*from 0 up, got -1"),
        ({"costs": {"m0": 1, "m1": 1, "m2": 1, "m3": 1}}, "unknown modality 'm3'"),
        ({"metric": "acuracy"}, "metric: unknown 'acuracy'.*Did you mean 'accuracy'"),
        ({"metric": "accuracy"}, "the plan is in accuracy, but curves is in log_loss"),
        ({"subgroups": ["sex"]}, "unknown attribute 'sex'.*The data have none"),
        ({"confidence": 1.5}, "confidence: expected a number between 0 and 1"),
        ({"top": 0}, "top: expected at least 1"),
        ({"seeds": 0}, "seeds: expected how many repeats"),
        ({"rehearsal": {"m0+m1+m2": 1.0}}, "is everything, and its quality is 1"),
        ({"rehearsal": 7}, "expected a Rehearsal, or a quality"),
        ({"rehearsal": {"m1": (0.5, -0.1)}}, "'m1': expected a standard error from 0 up, got .0.5, -0.1."),
        ({"rehearsal": {"m1": "much"}}, "'m1': expected a quality, .quality, standard error. or draws.*got 'much'"),
        ({"rehearsal": {"m1": (None, 0.1)}}, "'m1': expected a quality"),
        ({"rehearsal": {"m1": []}}, "'m1': expected a quality"),
        ({"utilities": {"m0": 1}}, "expected a UtilityTable"),
        ({"curves": 3}, "expected Curves, or points"),
    ],
)
def test_bad_input_is_named(pilot, options, message):
    with pytest.raises((ConfigError, DataError), match=message):
        made(pilot, **options)


def test_tables_of_other_data_are_refused(pilot):
    other = UtilityTable.of(("a", "b"), {"a": 0.1, "b": 0.2, "a+b": 0.3})
    with pytest.raises(DataError, match="table of the modalities m0, m1, m2, got a, b"):
        made(pilot, utilities=other)
    stale = UtilityTable(pilot.names, np.zeros(8), data_hash="0" * 64)
    with pytest.raises(RunError, match="other data"):
        made(pilot, utilities=stale)


def test_data_that_cannot_be_planned_for_are_refused(pilot):
    with pytest.raises(DataError, match="'m2' is observed for none of the 200"):
        made(pilot.hide({"m2": np.zeros(200, dtype=bool)}))
    values = np.random.default_rng(0).normal(size=(20, 3))
    half = np.where(np.arange(20)[:, None] < 10, values, np.nan)
    rest = np.where(np.arange(20)[:, None] >= 10, values, np.nan)
    apart = from_arrays({"m0": half, "m1": rest}, np.arange(20) % 2)
    with pytest.raises(DataError, match="no sample has all of m0, m1, and the learning curve and the rehearsal can"):
        plan(apart, {"m0": 1, "m1": 1}, 10, make_model=lambda part: LogisticRegression(), progress=False)


def test_a_pilot_without_complete_samples_is_refused_before_anything_is_trained():
    lack = np.arange(60) % 3
    data = vectors(M=3, n=60, classes=2, missing=0.0).hide({f"m{m}": lack != m for m in range(3)})
    data.subgroups = pd.DataFrame({"sex": np.where(np.arange(60) % 2, "f", "m")})
    with pytest.raises(DataError, match="use a strategy that needs neither: 'utility-per-cost'"):
        plan(data, COSTS, 2000, make_model=_never, top=1, progress=False)
    found = plan(data, COSTS, 2000, strategy="even", make_model=_never, progress=False)
    assert found.fairness is None
    assert any("by subgroup is measured on samples that have everything" in note for note in found.notes)
