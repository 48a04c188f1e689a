"""``lacunar plan``: files, words, errors in one line, and help that is quick."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from lacunar.cli import main
from lacunar.planning.backtest import Backtest
from lacunar.planning.result import Plan
from tests.test_cli import CHECK, said

N = 150


def write_table(path, n=N, complete=True):
    """Two modalities that tell something and one that tells little; the second follows from the first."""
    rng = np.random.default_rng(0)
    label = np.arange(n) % 2
    a = rng.normal(size=(n, 3)) + 0.7 * label[:, None]
    views = {"a": a, "b": a[:, :2] + 0.3 * rng.normal(size=(n, 2)), "c": rng.normal(size=(n, 2))}
    if not complete:
        views["c"][: n // 2] = np.nan
    table = {"id": [f"s{i:03d}" for i in range(n)], "sex": np.where(rng.random(n) < 0.5, "f", "m")}
    table |= {f"{name}_{i}": view[:, i] for name, view in views.items() for i in range(view.shape[1])}
    pd.DataFrame(table | {"ill": np.where(label, "yes", "no")}).to_csv(path, index=False)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    home = tmp_path_factory.mktemp("clinic")
    write_table(home / "old.csv")
    described = "table: old.csv\nid: id\ntarget: ill\nmodalities: {a: 'a_*', b: 'b_*', c: 'c_*'}\n"
    (home / "old.yaml").write_text(described)
    (home / "sexes.yaml").write_text(described + "subgroups: [sex]\n")
    (home / "parts.yaml").write_text(described + "splits: {train: .5, val: .2, test: .3}\n")
    (home / "few.yaml").write_text(described.replace("old.csv", "few.csv"))
    write_table(home / "few.csv", 60, complete=False)
    (home / "costs.yaml").write_text("per_cell: {a: 10, b: 2, c: 1}\ncurrency: EUR\n")
    (home / "minus.yaml").write_text("{a: 10, b: -2, c: 1}")
    (home / "less.yaml").write_text("{a: 10, b: 2}")
    (home / "more.yaml").write_text("{a: 10, b: 2, c: 1, d: 4}")
    (home / "broken.yaml").write_text("{a: 10, b: [")
    return home


def words(home, *more, data="old.yaml", costs="costs.yaml", budget="1000", out="plan"):
    given = ["plan", "--data", str(home / data), "--costs", str(home / costs), "--quiet"]
    given += ["--seeds", "2", "--top", "2", "--draws", "200"]
    given += [] if budget is None else ["--budget", budget]
    return [*given, *([] if out is None else ["--out", str(home / out)]), *more]


@pytest.fixture(scope="module")
def planned(clinic):
    assert main(words(clinic, data="sexes.yaml")) == 0
    return clinic / "plan"


def test_a_page_for_whoever_decides_and_a_file_for_whoever_checks(planned):
    found = Plan.load(planned / "plan.json")
    assert found.budget == 1000 and found.names == ("a", "b", "c")
    assert found.audit["model"] == "linear_model"
    assert found.audit["seeds"] == [0, 1]
    page = (planned / "plan.html").read_text()
    assert "1,000 EUR" in page and found.hash in page
    assert found.fairness is not None and set(found.fairness["group"]) == {"f", "m"}
    assert not [path for path in planned.rglob("*") if path.name.startswith(".")]


def test_the_same_command_says_it_again_and_trains_no_utilities_again(planned, clinic, capsys):
    before = Plan.load(planned / "plan.json")
    assert main(words(clinic, data="sexes.yaml")) == 0
    out, err = said(capsys)
    again = Plan.load(planned / "plan.json")
    for line in str(again).splitlines():
        assert line in out
    assert "plan.html" in out
    assert "Traceback" not in out + err
    pd.testing.assert_frame_equal(again.candidates, before.candidates)
    assert again.audit["trainings"] <= before.audit["trainings"]


@pytest.mark.parametrize(
    ("budget", "why"), [("0", "the budget is 0"), ("0.5", "is below the smallest purchase, 1 EUR")]
)
def test_money_that_buys_nothing_is_an_answer_and_no_error(clinic, capsys, budget, why):
    assert main(words(clinic, budget=budget, out=f"nothing{budget}")) == 0
    out = said(capsys)[0]
    assert "COLLECT NOTHING" in out and why in out
    assert "factor of 16" not in out
    assert Plan.load(clinic / f"nothing{budget}" / "plan.json").collect_nothing
    assert "collect nothing" in (clinic / f"nothing{budget}" / "plan.html").read_text()


def test_without_out_nothing_is_written(clinic, capsys):
    before = sorted(clinic.iterdir())
    assert main(words(clinic, "--strategy", "even", out=None)) == 0
    out = said(capsys)[0]
    assert "COLLECT A + B + C" in out
    assert "Nothing was written" in out
    assert sorted(clinic.iterdir()) == before


def test_the_test_part_stays_unread(clinic, capsys):
    assert main(words(clinic, "--strategy", "even", data="parts.yaml", out="parts")) == 0
    assert main(words(clinic, "--strategy", "even", out="whole")) == 0
    parts, whole = (Plan.load(clinic / name / "plan.json").audit["data"] for name in ("parts", "whole"))
    assert whole["samples"] == N
    assert parts["samples"] == pytest.approx(0.7 * N, abs=2)


def test_a_target_instead_of_a_budget(clinic, capsys):
    assert main(words(clinic, "--target", "-9", budget=None, out="target")) == 0
    assert "is reached already" in said(capsys)[0]
    assert Plan.load(clinic / "target/plan.json").target == -9


def test_other_models(clinic, capsys, monkeypatch):
    (clinic / "prices_of_mine.py").write_text(
        "from sklearn.naive_bayes import GaussianNB\n\n\ndef bayes(data):\n    return GaussianNB()\n"
    )
    monkeypatch.chdir(clinic)
    for name, told in (("boosting", "boosted_trees"), ("prices_of_mine.bayes", "bayes")):
        assert main(words(clinic, "--model", name, "--strategy", "best-single", out=f"by_{told}")) == 0, said(capsys)
        assert Plan.load(clinic / f"by_{told}" / "plan.json").audit["model"] == told


def test_backtest_adds_to_the_page(clinic, capsys):
    more = ["--backtest", "--strategies", "even,best-single,oracle", "--strategy", "even", "--available", "0.4"]
    assert main(words(clinic, *more, out="tried")) == 0
    out = said(capsys)[0]
    assert "backtest: 2 seeds" in out
    found = Backtest.load(clinic / "tried/backtest.json")
    assert set(found.frame["strategy"]) == {"even", "best-single", "oracle"}
    # As much for each of the 42 samples of its pilot as the plan has for each of 150.
    assert found.config["budget"] == pytest.approx(1000 * 42 / 150)
    table = pd.read_csv(clinic / "tried/backtest.csv")
    assert table["gain"].to_numpy() == pytest.approx(found.frame["gain"].to_numpy())
    page = (clinic / "tried/plan.html").read_text()
    assert "Would this rule have bought well?" in page
    before = (clinic / "tried/backtest.csv").read_bytes()
    assert main(words(clinic, *more, out="tried")) == 0, "the finished seeds are taken from the folder"
    assert (clinic / "tried/backtest.csv").read_bytes() == before


def test_a_backtest_that_fails_leaves_the_plan(clinic, capsys, monkeypatch):
    import lacunar.planning.backtest as module
    from lacunar.errors import DataError

    def fails(*_, **__):
        raise DataError("too few.")

    monkeypatch.setattr(module, "backtest", fails)
    assert main(words(clinic, "--backtest", "--strategy", "even", out="failed")) == 2
    assert "The plan is made; its backtest failed: too few." in said(capsys)[1]
    assert {path.name for path in (clinic / "failed").iterdir()} == {"plan.json", "plan.html"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"budget": None}, "expected either --budget, what can be spent, or --target, the score to reach; got neither"),
        ({"more": ["--target", "0.5"]}, "the score to reach; got both"),
        ({"budget": "-5"}, "--budget: expected an amount from 0 up, got -5"),
        ({"budget": "much"}, "--budget"),
        ({"costs": "minus.yaml"}, "per_cell, 'b': expected a finite number from 0 up, got -2"),
        ({"costs": "less.yaml"}, "modality 'c' has no price per cell. Give one; 0 when it is free"),
        ({"costs": "more.yaml"}, "costs: unknown modality 'd'"),
        ({"costs": "broken.yaml"}, "not a YAML file"),
        ({"costs": "nowhere.yaml"}, "Costs not found"),
        ({"data": "nowhere.yaml"}, "Data description not found"),
        ({"data": "old.csv"}, "is a table; expected its description"),
        ({"more": ["--strategy", "rehersal"]}, "unknown strategy 'rehersal'. Did you mean 'rehearsal'?"),
        ({"more": ["--strategy", "oracle"]}, "only a backtest can ask it"),
        ({"more": ["--strategies", "even,skll"]}, "unknown strategy 'skll'. Did you mean 'sk-ll'?"),
        ({"more": ["--metric", "acuracy"]}, "metric: unknown 'acuracy'. Did you mean 'accuracy'?"),
        ({"more": ["--metric", "r2"]}, "metric='r2' does not suit a classification task"),
        ({"more": ["--completer", "rigde"]}, "Did you mean 'ridge'?"),
        ({"more": ["--model", "liner"]}, "--model: unknown model 'liner'. Did you mean 'linear'?"),
        ({"more": ["--model", "nowhere.make"]}, "--model nowhere.make: cannot be imported"),
        ({"more": ["--fit.max_epochs", "3"]}, "--fit.max_epochs is about networks; use it with --model default"),
        ({"more": ["--subgroups", "sexes"], "data": "sexes.yaml"}, "unknown attribute 'sexes'. Did you mean 'sex'?"),
        ({"more": ["--seeds", "0"]}, "--seeds: expected a whole number of at least 1, got 0"),
        ({"more": ["--backtest", "--seeds", "1"]}, "--seeds: expected a whole number of at least 2, got 1"),
        ({"more": ["--backtest", "--target", "-1"], "budget": None}, "--backtest needs money to spend"),
        ({"more": ["--backtest"], "data": "few.yaml"}, "of 30 complete samples 6 would be its pilot"),
        ({"more": ["--budgett", "3"]}, "unknown option --budgett. Did you mean '--budget'?"),
        ({"more": ["--fit.max_epoch", "3"]}, "Did you mean '--fit.max_epochs'?"),
        ({"more": ["--confidence", "2"]}, "confidence: expected a number between 0 and 1"),
    ],
)
def test_mistakes_get_one_clear_line_and_leave_nothing(clinic, capsys, more, message):
    extra = more.pop("more", []) if "more" in more else []
    assert main(words(clinic, *extra, out="never", **more)) == 2
    out, err = said(capsys)
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in out + err
    assert not (clinic / "never").exists()


def test_an_out_that_is_a_file(clinic, capsys):
    assert main(words(clinic, out="old.csv")) == 2
    assert "old.csv is a file; expected a folder" in said(capsys)[1]


def test_needed_options(capsys):
    assert main(["plan"]) == 2
    assert "--data is needed" in said(capsys)[1]
    assert main(["plan", "--data", "digits"]) == 2
    assert "--costs is needed, for example --costs costs.yaml" in said(capsys)[1]


def test_data_that_are_no_columns_are_planned_with_the_network(clinic, capsys):
    from types import SimpleNamespace

    from lacunar.cli.plan_models import chosen_model, linear_model
    from lacunar.errors import ConfigError

    def data(kind, task):
        return SimpleNamespace(kinds={"a": kind}, task=None if task is None else SimpleNamespace(kind=task))

    assert chosen_model("auto", data("vector", "classification")) is linear_model
    assert chosen_model("auto", data("tokens", "classification")) is None
    assert chosen_model("auto", data("image", "segmentation")) is None
    assert chosen_model("default", data("vector", "regression")) is None
    with pytest.raises(ConfigError, match="'a' is no vector or image. Use --model default"):
        chosen_model("linear", data("sequence", "classification"))
    with pytest.raises(ConfigError, match="the task is multilabel"):
        chosen_model("boosting", data("vector", "multilabel"))


def test_numbers_are_planned_for_too(clinic, capsys):
    frame = pd.read_csv(clinic / "old.csv")
    frame["weight"] = 60 + 10 * frame["a_0"] + np.random.default_rng(0).normal(size=N)
    frame.to_csv(clinic / "weights.csv", index=False)
    described = "table: weights.csv\nid: id\ntarget: weight\nmodalities: {a: 'a_*', b: 'b_*', c: 'c_*'}\n"
    (clinic / "weights.yaml").write_text(described)
    more = ["--strategy", "utility-per-cost"]
    assert main(words(clinic, *more, data="weights.yaml", out="weights")) == 0, said(capsys)
    assert json.loads((clinic / "weights/plan.json").read_text())["metric"] == "r2"


def test_help_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", CHECK, "plan", "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert "HEAVY [] CODE 0" in done.stdout
    assert "--budget" in done.stdout and "--fit.max_epochs" in done.stdout
