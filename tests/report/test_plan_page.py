"""The page of a plan: says what the plan says, adds up, and needs nothing beside it."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest

from lacunar.errors import ConfigError, RunError
from lacunar.planning.backtest import Backtest
from lacunar.planning.costs import CostModel
from lacunar.planning.plan import plan
from lacunar.report import plan_report
from lacunar.report.plan_figures import candidate_figure, learning_figure, money_figure
from lacunar.report.plan_sections import cost_lines
from lacunar.report.plan_words import listed, number, percent, rows_of, signed, verdict
from tests.helpers import vectors
from tests.report.test_report import read
from tests.report.toys import EVIL

COSTS = {"per_cell": {"m0": 50, "m1": 5, "m2": 1}, "currency": "EUR"}
QUALITY = {"m0": (0.5, 0.03), "m1": (0.2, 0.05), "m0+m1": (0.8, 0.1), "m1+m2": (0.3, 0.05)}
FULL = "m0+m1+m2"


def points(gain=2.0):
    rng = np.random.default_rng(0)
    rows = [
        (FULL, n, seed, -0.3 - gain * n**-0.5 + 0.003 * rng.normal()) for n in (40, 80, 120, 150) for seed in range(5)
    ]
    made = pd.DataFrame(rows, columns=["subset", "n", "seed", "score"])
    made.attrs["metric"] = "log_loss"
    return made


@pytest.fixture(scope="module")
def pilot():
    return vectors(M=3, n=200, missing=0.0)


@pytest.fixture(scope="module")
def made(pilot):
    return make(pilot)


def make(pilot, costs=COSTS, budget=2000, **options):
    given = {"curves": points(), "rehearsal": QUALITY, "progress": False, "draws": 300}
    return plan(pilot, costs, budget, **{**given, **options})


def page_of(found, tmp_path, **options):
    return read(plan_report(found, tmp_path / "plan.html", **options))


def spaced(text):
    """With ordinary spaces, as the page's words are read here."""
    return text.replace("\u00a0", " ")


def backtested(names=("m0", "m1", "m2"), pool=70):
    """What a backtest of two seeds might have found."""
    trials = []
    for seed in range(2):
        rows = [
            {
                "seed": seed, "strategy": rule, "subset": "m1+m2", "filled": True, "samples": 50, "labels": 50,
                "cells": 100, "cost": 300.0, "lower": -0.5, "score": -0.5 + gain + seed / 100,
                "gain": gain + seed / 100, "predicted": None,
                "regret": 0.05 - gain / 2, "kendall": 0.3, "spearman": 0.4, "trainings": 9,
                "minutes": 0.1,
            }
            for rule, gain in (("even", 0.01), ("rehearsal", 0.04), ("oracle", 0.05))
        ]  # fmt: skip
        subsets = [{"seed": seed, "subset": "m1+m2", "samples": 50, "cost": 300.0, "filled": 0.04, "not_filled": 0.03}]
        trials.append(
            {"key": f"seed{seed}", "seed": seed, "strategies": rows, "subsets": subsets, "predictors": [],
             "lower": -0.5, "upper": -0.4, "pilot": 30, "pool": pool, "test": 40, "seconds": 1.0, "notes": []}
        )  # fmt: skip
    config = {
        "costs": CostModel.read(COSTS).to_dict(), "budget": 300.0, "metric": "log_loss", "confidence": 0.95,
        "completer": "ridge", "data": {"modalities": list(names), "hash": "f" * 64},
    }  # fmt: skip
    return Backtest(trials, config)


def test_the_page_says_what_the_plan_says(made, tmp_path):
    page = page_of(made, tmp_path)
    said = page.words()
    assert "Collect m1 and m2" in said
    assert "With 2,000 EUR, collect 333 new samples with m1 and m2, for 1,998 EUR" in said
    assert f"log-loss is expected to fall from {number(-made.now)} to {number(-made.score)}" in said
    assert f"a gain of {number(made.gain)}" in said
    assert spaced(percent(made.p_best)) in said
    for heading in (
        "How sure this is", "What to order", "What was compared", "What would change this", "What more data are worth",
        "Does generating the rest help?", "What this rests on", "For the auditor",
    ):  # fmt: skip
        assert heading in said
    for line in made.assumptions:
        assert line[1:] in said
    assert made.hash in said
    assert made.audit["data"]["hash"] in said
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    anchors = {attributes.get("id") for _, attributes in page.tags}
    assert links and all(link[1:] in anchors for link in links)
    drawings = [attributes for _, attributes in page.tags if attributes.get("role") == "img"]
    assert len(drawings) == 4
    assert all(len(attributes["aria-label"]) > 40 for attributes in drawings)


def test_every_candidate_has_a_row_and_the_recommended_one_is_marked(made, tmp_path):
    text = plan_report(made, tmp_path / "plan.html").read_text(encoding="utf-8")
    assert re.search(r'<tr class="best">.*?m1 \+ m2 <span class="tag">recommended', text)
    for label in made.candidates.loc[made.candidates["samples"] > 0, "subset"]:
        assert f"</span>{label.replace('+', ' + ')}" in text
    assert "</span>nothing" in text
    assert "Not compared: m2, m0 + m2" in text


def test_the_page_needs_nothing_beside_it_and_comes_out_the_same(made, tmp_path):
    first = plan_report(made, tmp_path / "a.html").read_bytes()
    assert plan_report(made, tmp_path / "b.html").read_bytes() == first
    assert b"http:" not in first and b"https:" not in first
    for tag, attributes in read(tmp_path / "a.html").tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "img", "base", "form")
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)


def test_a_saved_plan_makes_the_same_page_beside_itself(made, tmp_path):
    made.save(tmp_path / "plan.json")
    page = plan_report(tmp_path / "plan.json")
    assert page == tmp_path / "plan.html"
    assert page.read_bytes() == plan_report(made, tmp_path / "other.html").read_bytes()


def test_what_is_refused(made, tmp_path):
    with pytest.raises(ConfigError, match="give path="):
        plan_report(made)
    with pytest.raises(ConfigError, match="backtest of the modalities m0, m1, m2, got one of a, b"):
        plan_report(made, tmp_path / "plan.html", backtest=backtested(names=("a", "b")))
    assert not list(tmp_path.iterdir())
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(RunError, match="is not a plan"):
        plan_report(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("costs", "cost"),
    [
        ({}, 0),
        ({"per_sample": 3, "label": 2.5, "setup": {"m1": 40, "m0": 999}}, 0),
        ({"failure": {"m1": 0.2}, "label": 1}, 0),
        ({"bundles": [{"modalities": ["m1", "m2"], "price": 4}], "failure": {"m2": 0.5}, "per_sample": 1}, 0),
        ({"capacity": {"m1": 60}}, 0),  # what is left buys samples of another subset
    ],
)
def test_the_order_adds_up_to_the_cost(pilot, tmp_path, costs, cost):
    found = make(pilot, {**COSTS, **costs})
    lines = cost_lines(found)
    assert lines
    assert sum(total for *_, total in lines) == pytest.approx(found.cost)
    assert all(total == pytest.approx(count * price) for _, count, price, total in lines)
    said = page_of(found, tmp_path).words()
    assert found.amount(found.cost) in said
    for name, count in found.ask.items():
        if count != found.cells[name]:
            assert f"ask for {count:,}, so that {found.cells[name]:,} are expected to arrive" in said


def test_nothing_reads_well_when_no_gain_is_sure(pilot, tmp_path):
    found = make(pilot, min_gain=5.0)
    assert found.collect_nothing
    said = page_of(found, tmp_path).words()
    assert "With 2,000 EUR, collect nothing: no purchase is sure to gain more than 5" in said
    assert "Money kept 2,000 EUR" in said
    assert "Largest gain: m1 + m2" in said
    assert "What to order" not in said
    assert "nan" not in said.lower()


@pytest.mark.parametrize(("budget", "why"), [(0, "the budget is 0"), (0.5, "is below the smallest purchase, 1 EUR")])
def test_nothing_reads_well_when_nothing_can_be_bought(pilot, tmp_path, budget, why):
    found = make(pilot, budget=budget)
    page = page_of(found, tmp_path)
    said = page.words()
    assert why in said
    assert "Beyond the budget" in said
    assert "nan" not in said.lower()
    assert "factor of 16" not in said + str(found)
    assert not [attributes for _, attributes in page.tags if attributes.get("role") == "img"]


def test_what_could_not_be_measured_is_called_so(made, tmp_path):
    frame = made.candidates.copy()
    row = frame.index[frame["subset"] == "m0"][0]
    frame.loc[row, ["quality", "gain", "low", "high"]] = [math.nan, 0.0, 0.0, 0.0]
    frame.loc[row, "note"] = "quality unknown: taken as 0"
    said = page_of(dataclasses.replace(made, candidates=frame), tmp_path).words()
    assert "What samples of m0 are worth could not be told in this pilot, and was taken as nothing" in said
    assert "Hollow: could not be measured" in said


def test_a_cautious_choice_says_what_is_likelier(pilot, tmp_path):
    found = make(pilot, {"m0": 10, "m1": 5, "m2": 100}, rehearsal={"m0": (0.45, 0.01), "m1": (0.5, 0.25)})
    assert found.subset == ("m0",) and found.runner_up == "m1"
    assert found.p_best < 0.5
    said = page_of(found, tmp_path).words()
    assert "Judged by what is most likely instead of what is sure, it would be m1" in said
    assert "chosen for the gain that is sure" in said


def test_a_target_and_a_rule_that_predicts_nothing(pilot, made, tmp_path):
    found = make(pilot, budget=None, target=-0.42)
    assert "To reach log-loss 0.420, collect" in verdict(found)
    said = page_of(found, tmp_path).words()
    assert f"The target is reached with a probability of {spaced(percent(found.p_target))}" in said
    blind = make(pilot, strategy="even", curves=None, rehearsal=None)
    said = page_of(blind, tmp_path).words()
    assert "The strategy even predicts no gain" in said
    assert "nan" not in said.lower()
    assert "Expected gain" not in said
    assert "gain per 1,000" not in said, "columns with nothing in them are left out"


def test_what_costs_nothing_has_no_line_against_money(pilot, tmp_path):
    free = {"per_cell": {"m0": 5, "m1": 0, "m2": 5}}
    found = make(pilot, free, budget=None, target=-0.42, rehearsal={"m1": 0.6, "m0": 0.5})
    assert found.subset == ("m1",) and found.cost == 0
    drawings = [attributes.get("aria-label", "") for _, attributes in page_of(found, tmp_path).tags]
    assert any(said.startswith("Expected gain against money spent: m0") for said in drawings)
    set_up = make(pilot, {**free, "setup": {"m1": 3}}, budget=None, target=-0.42, rehearsal={"m1": 0.6, "m0": 0.5})
    assert set_up.cost == 3
    page_of(set_up, tmp_path)


def test_a_set_up_that_would_change_the_plan_is_called_so(pilot, tmp_path):
    costs = {"per_cell": {"m0": 0, "m1": 1, "m2": 1}, "setup": {"m0": 300}, "per_sample": 1}
    found = make(pilot, costs, 1000, rehearsal={"m0": 0.9, "m1": 0.5})
    assert "Set-up of m0 300" in page_of(found, tmp_path).words()


def test_subgroups_and_gaps(made, tmp_path):
    groups = pd.DataFrame(
        [("sex", "f", 80, -0.6, -0.5, 0.1, 0.05, 0.15, ""), ("sex", "m", 70, -0.5, -0.55, -0.05, -0.1, -0.01, ""),
         ("site", "x", 12, *[math.nan] * 5, "n below 30: no claim")],
        columns=["attribute", "group", "n", "before", "after", "gain", "low", "high", "note"],
    )  # fmt: skip
    gaps = pd.DataFrame(
        [("sex", 0.1, 0.2, 0.1, 0.02, 0.2)], columns=["attribute", "before", "after", "change", "low", "high"]
    )
    page = page_of(dataclasses.replace(made, fairness=groups, gaps=gaps), tmp_path)
    said = page.words()
    assert "Whom it helps" in said
    assert "The largest difference by sex widens: 0.100 before, 0.200 after" in said
    assert "no claim below 30" in said
    drawing = next(a["aria-label"] for _, a in page.tags if "by subgroup" in a.get("aria-label", ""))
    assert "sex: f (n=80) +0.100" in drawing and "site" not in drawing
    small = groups.assign(n=9, gain=math.nan)
    said = page_of(dataclasses.replace(made, fairness=small, gaps=gaps.head(0)), tmp_path).words()
    assert "Every subgroup is too small for a claim" in said


def test_the_rehearsal_says_whether_filling_helped(made, tmp_path):
    columns = ["subset", "arm", "quality", "low", "high", "filled", "not_filled", "benefit", "benefit_low"]
    rows = [
        ("m0", "filled", 0.6, 0.5, 0.7, 0.6, 0.1, 0.05, 0.03),
        ("m1", "not filled", 0.2, 0.1, 0.3, 0.1, 0.2, -0.01, -0.02),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=columns).assign(benefit_high=0.08, p_value=0.5)
    said = page_of(dataclasses.replace(made, rehearsal=frame), tmp_path).words()
    assert "Generating the rest helped where m0 was collected; elsewhere it is left absent" in said
    unknown = frame.assign(quality=math.nan, low=math.nan, high=math.nan)
    said = page_of(dataclasses.replace(made, rehearsal=unknown), tmp_path).words()
    assert "brought no gain in the pilot that could be told from zero" in said


def test_a_backtest_has_its_figure_and_table(made, tmp_path):
    page = page_of(made, tmp_path, backtest=backtested())
    said = page.words()
    assert "Would this rule have bought well?" in said
    assert "This plan's rule, rehearsal, gained +0.045 on average, no less than any other rule (next: even" in said
    assert "Each rule could spend 300 EUR. This was done 2 times" in said
    drawing = next(a["aria-label"] for _, a in page.tags if a.get("aria-label", "").startswith("Realised gain"))
    assert "rehearsal +0.045" in drawing and "even +0.015" in drawing
    assert "so that more was left unspent" not in said
    assert "the budget bought all 50 samples" in page_of(made, tmp_path, backtest=backtested(pool=50)).words()
    other = dataclasses.replace(made, strategy="sk-ll")
    assert "The rule of this plan, sk-ll, was not among them" in page_of(other, tmp_path, backtest=backtested()).words()


def test_text_is_escaped(made, tmp_path):
    evil = dataclasses.replace(made, assumptions=[EVIL], notes=[EVIL], reason=EVIL)
    page = page_of(evil, tmp_path, title=EVIL)
    assert "img" not in [tag for tag, _ in page.tags]
    assert EVIL in page.words()


def test_more_modalities_than_anybody_looks_at(pilot, tmp_path):
    names = [f"m{k}" for k in range(3)]
    labels = ["+".join(n for k, n in enumerate(names) if code >> k & 1) for code in range(1, 8)]
    found = make(pilot, rehearsal={label: (0.3, 0.05) for label in labels if label != FULL})
    frame = pd.concat([found.candidates] * 4, ignore_index=True)
    text = plan_report(dataclasses.replace(found, candidates=frame), tmp_path / "plan.html").read_text()
    assert text.count("1,998") >= 4  # the table holds all of them


def test_figures_hold_what_they_were_given():
    frame = pd.DataFrame(
        {"gain": [0.1, 0.0], "low": [0.05, 0.0], "high": [0.2, 0.0], "chosen": [True, False], "guess": [False, True]}
    )
    figure = candidate_figure(frame, np.array([[True, False], [True, True]]), ["a", "b"], "gain", ["x", "y"], least=0.3)
    assert {"x", "y"} <= {text.get_text() for text in figure.axes[1].texts}
    assert figure.axes[1].collections[-1].get_offsets()[:, 0].tolist() == [0.1, 0.0]
    lines = {"a": (np.array([0.0, 10.0]), np.array([0.0, 0.1])), "b": (np.array([0.0, 10.0]), np.array([0.0, 0.2]))}
    marks = pd.DataFrame({"label": ["a", "b"], "cost": [9.0, 9.0], "gain": 0.1, "low": 0.0, "high": 0.2})
    axes = money_figure(lines, marks, "EUR", "gain", 9.5, "a").axes[0]
    shown = [float(part.get_offsets()[0, 0]) for part in axes.collections if part.get_offsets().shape == (1, 2)]
    placed = [x for x in shown if x > 1]
    assert len(set(placed)) == 2 and max(abs(x - 9) for x in placed) < 0.5, "side by side, so that both can be read"
    curve = pd.DataFrame({"n": [50.0, 100, 200, 400], "score": [0.5, 0.6, 0.7, 0.75], "low": 0.4, "high": 0.8})
    figure = learning_figure(curve, pd.DataFrame({"n": [], "score": []}), 50, 200, "score", target=0.7)
    assert {"now: 50", "then: worth 200", "target"} <= {t.get_text() for t in figure.axes[0].get_legend().get_texts()}


def test_words():
    assert [number(x) for x in (0.12345, 0.001234, -1.5, 12345.6, math.nan)] == [
        "0.123",
        "0.0012",
        "\u22121.50",
        "12,346",
        "-",
    ]
    assert [signed(x) for x in (0.1, -0.1, 0.0)] == ["+0.100", "\u22120.100", "0"]
    assert [spaced(percent(x)) for x in (0.0, 0.001, 0.5, 0.999, 1.0)] == [
        "0 %",
        "below 1 %",
        "50 %",
        "above 99 %",
        "100 %",
    ]
    assert [listed(x) for x in ([], ["a"], ["a", "b", "c"])] == ["nothing", "a", "a, b and c"]
    assert rows_of(["a+c", "none", "b and a"], ["a", "b", "c"]) == [
        [True, False, True], [False, False, False], [True, True, False],
    ]  # fmt: skip
