"""From results to tables and a page: numbers that are known by construction, and nothing from anywhere else."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.transforms import Bbox

from lacunar.bench.__main__ import table as print_table
from lacunar.bench.findings import find, read_reported
from lacunar.bench.report import latex, write_report
from lacunar.bench.store import Store
from lacunar.cli import main
from lacunar.errors import ConfigError, DataError
from lacunar.report.bench_figures import cost_figure
from lacunar.report.bench_numbers import p_value, points
from lacunar.report.bench_page import bench_page
from lacunar.report.page import Table

SUBSETS = ("a", "b", "a+b")


def put(folder, seeds=3, methods=("MCE", "joint", "late"), problems=("p", "q"), settings=("x", "y"), refused=True):
    """Made-up results: method k scores .5 + .1 k on everything, less on a; a little noise that methods share."""
    store = Store(folder)
    draw = np.random.default_rng(0)
    for problem in problems:
        for setting in settings:
            for seed in range(seeds):
                noise = float(draw.normal(0, 0.01))
                for k, method in enumerate(methods):
                    scores = {"a": 0.3 + 0.1 * k, "b": 0.5 + 0.1 * k, "a+b": 0.6 + 0.1 * k}
                    scores = {name: value + noise for name, value in scores.items()}
                    subsets = {"none": {"size": 0, "score": 0.1}}
                    subsets |= {
                        name: {"size": name.count("+") + 1, "score": v, "log_loss": 1 - v, "ece": 1 - v}
                        for name, v in scores.items()
                    }
                    cell = {"problem": f"{problem} ({setting})", "setting": setting, "method": method, "seed": seed}
                    about = {"cell": cell, "presence": f"{problem}{setting}{seed}", "versions": {"lacunar": "9.9"}}
                    table = {"mean": sum(scores.values()) / 3, "worst": min(scores.values()), "full": scores["a+b"]}
                    result = {
                        "subsets": subsets, **table, "seconds": 2.0, "fit_seconds": 1.0 + k, "step_mb": 5.0,
                        "resident_mb": 500.0, "variants": {},
                    }  # fmt: skip
                    store.write(f"{problem}-{setting}-{method}-{seed}", about, result)
                if refused:
                    cell = {"problem": f"{problem} ({setting})", "setting": setting, "method": "full", "seed": seed}
                    about = {"cell": cell, "presence": f"{problem}{setting}{seed}"}
                    store.write(f"{problem}-{setting}-full-{seed}", about, {"refused": "needs <all>", "seconds": 0.1})
    return folder


def test_findings_by_hand(tmp_path):
    facts = find(put(tmp_path))
    assert facts.against == "MCE"
    assert list(facts.means.index) == ["late", "joint", "MCE"], "the best first"
    np.testing.assert_allclose(facts.means["average"], [0.6667, 0.5667, 0.4667], atol=0.02)
    np.testing.assert_allclose(facts.means.diff().dropna(), -0.1)
    np.testing.assert_allclose(facts.worst.diff().dropna(), -0.1)
    assert list(facts.means.columns) == ["p", "q", "average"]
    np.testing.assert_allclose(facts.differences["mean"]["difference"], [0.2, 0.1])
    assert facts.record.loc["late"].tolist() == [0, 4, 4]
    assert facts.ranking.average.to_dict() == {"late": 1.0, "joint": 2.0, "MCE": 3.0}
    np.testing.assert_allclose(facts.cost["ratio"], [3.0, 2.0, 1.0])
    assert facts.refused.to_dict("records")[0] == {
        "problem": "p (x)", "method": "full", "cells": 3, "why": "needs <all>",
    }  # fmt: skip
    # a is in a and a+b, b in b and a+b.
    gap = facts.modalities["p"]["b"] - facts.modalities["p"]["a"]
    np.testing.assert_allclose(gap, 0.1)
    assert list(facts.subsets["q"].columns) == list(SUBSETS)
    assert facts.settings["p"].shape == (3, 4)
    spread = find(tmp_path).results.query("problem == 'p (x)' and method == 'joint'")["mean"].std()
    assert facts.settings["p"].loc["joint", ("x", "sd")] == pytest.approx(spread)


def test_the_verdict_names_few_methods_and_counts_many(tmp_path):
    some = [f"m{k:02}" for k in range(10)]
    said = bench_page(find(put(tmp_path / "some", seeds=1, methods=some, settings=("x",)), "m00")).verdict
    assert "Ranks alone cannot tell it from m08, m07" in said
    odd = ["late fusion, weighted" if name == "m08" else name for name in some]
    said = bench_page(find(put(tmp_path / "odd", seeds=1, methods=odd, settings=("x",)), "m00")).verdict
    assert "Ranks alone cannot tell it from late fusion, weighted; m07" in said
    many = [f"m{k:02}" for k in range(30)]
    said = bench_page(find(put(tmp_path / "many", seeds=1, methods=many, settings=("x",)), "m00")).verdict
    assert re.search(r"Ranks alone cannot tell it from \d\d others\. Above m00", said)


def test_means_over_settings_need_all_of_them(tmp_path):
    put(tmp_path)
    for file in (tmp_path / "cells").glob("q-y-late-*/*.json"):
        file.unlink()
    means = find(tmp_path).means
    assert np.isnan(means.loc["late", "q"])
    assert np.isnan(means.loc["late", "average"])
    assert np.isfinite(means.loc["joint"]).all()
    facts = find(tmp_path)
    for tables in (facts.subsets, facts.modalities):
        assert tables["q"].loc["late"].isna().all(), "a mean over another setting stood beside the others"
        assert np.isfinite(tables["q"].loc["joint"]).all()
        assert np.isfinite(tables["p"]).all(axis=None)


def test_the_report_says_what_methods_were_and_who_stood_apart(tmp_path):
    plans = {
        "MCE": {"objective": "MCE", "fit": {"max_epochs": 2}},
        "joint": {"objective": "Joint", "fit": {"max_epochs": 2}},
        "late": {"peer": "late fusion"},
        "long": {"objective": "Joint", "fit": {"max_epochs": 6}, "model": {"features": 8}},
    }
    put(tmp_path, methods=tuple(plans), refused=False)

    def give(plans):
        for file in (tmp_path / "cells").glob("*/cell.json"):
            about = json.loads(file.read_text())
            about["cell"]["run"] = dict(plans[about["cell"]["method"]])
            if about["cell"]["method"] == "MCE":
                about["cell"]["run"]["arguments"] = {"momentum": 0.1 * about["cell"]["seed"]}
            file.write_text(json.dumps(about))
        facts = find(tmp_path)
        section = next(one for one in bench_page(facts).sections if one.anchor == "reading")
        rows = {row.cells[0]: row.cells[1:] for row in section.blocks[1].rows}
        return facts.apart, " ".join(section.blocks[0].entries), rows

    who, said, rows = give(plans)
    assert who == ["long"]
    assert "the same options of training, but for long: the table below" in said
    assert rows["long"] == ["Joint", "", "features 8", "max_epochs 6"]
    assert rows["late"] == ["scikit-learn: late fusion", "", "", ""]
    assert rows["MCE"] == ["MCE", "momentum varies", "", "max_epochs 2"]
    who, said, _ = give(plans | {"long": plans["joint"]})
    assert who == []
    assert "the same one, with the same options of training." in said


def test_the_command_writes_everything_and_the_same_again(tmp_path, capsys):
    put(tmp_path / "r")
    reported = [
        {"short": "THERE", "title": "a table", "source": "a paper", "numbers": {"joint": {"a": 12.0, "b": 14.0}}}
    ]
    (tmp_path / "reported.yaml").write_text(yaml.safe_dump(reported))
    words = [
        "bench",
        "report",
        str(tmp_path / "r"),
        "--reported",
        str(tmp_path / "reported.yaml"),
        "--against",
        "joint",
    ]
    assert main(words) == 0
    page = (tmp_path / "r" / "report.html").read_text()
    assert main(words) == 0
    assert (tmp_path / "r" / "report.html").read_text() == page
    assert "report" in capsys.readouterr().out
    assert "<script" not in page and "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert "needs &lt;all&gt;" in page
    tables = tmp_path / "r" / "tables"
    names = {path.name for path in tables.iterdir()}
    assert {
        "mean.csv",
        "worst.csv",
        "subsets.csv",
        "modalities.csv",
        "differences.csv",
        "ranks.csv",
        "cost.csv",
    } <= names
    assert {"mean.tex", "worst.tex", "differences.tex", "settings-1.tex"} <= names
    mean = pd.read_csv(tables / "mean.csv", index_col=0)
    np.testing.assert_allclose(mean, find(tmp_path / "r").means, atol=1e-5)
    # What a paper reports stands in its own column: 13.0 on average, and in no table of ours.
    row = next(line for line in page.split("<tr") if ">joint</th>" in line)
    assert row.rstrip().count(">13.0<") == 1
    assert "reported: THERE" in page
    assert not any("13.0" in path.read_text() or "12.0" in path.read_text() for path in tables.glob("*.tex"))


def test_means_are_over_the_seeds_that_all_have(tmp_path):
    store = Store(put(tmp_path, seeds=2, problems=("p",), refused=False))
    both = find(tmp_path)
    shutil.rmtree(store.cells / "p-x-late-1")
    some = find(tmp_path)
    kept = both.results[(both.results["setting"] == "y") | (both.results["seed"] == 0)]
    expected = kept.groupby(["method", "setting"])["mean"].mean().groupby("method").mean()
    np.testing.assert_allclose(some.means["p"], expected[some.means.index])
    np.testing.assert_allclose(some.means.diff().dropna(), -0.1)
    np.testing.assert_allclose(some.subsets["p"].diff().dropna(), -0.1)


def test_a_report_of_one_seed_and_one_problem(tmp_path):
    put(tmp_path, seeds=1, problems=("p",), settings=("x",), refused=False)
    written = write_report(tmp_path)
    page = written.page.read_text()
    assert "The highest mean over p is 66." in page
    assert "One seed of one data set gives no interval." in page
    assert ">average<" not in page, "one data set is its own average"
    assert find(tmp_path).ranking is None
    with pytest.raises(ConfigError, match="unknown method 'jiont'. Did you mean 'joint'"):
        find(tmp_path, "jiont")
    with pytest.raises(ConfigError, match="matches none of the problems"):
        find(tmp_path, problems="zzz")
    with pytest.raises(DataError, match="no finished cells"):
        find(tmp_path / "nowhere")


def test_reported_numbers_need_a_source(tmp_path):
    path = tmp_path / "reported.yaml"
    path.write_text(yaml.safe_dump([{"short": "x", "title": "t", "numbers": {"m": {"a": 1}}}]))
    with pytest.raises(ConfigError, match="table 1: expected source"):
        read_reported(path)
    path.write_text(yaml.safe_dump([{"sorce": "x"}]))
    with pytest.raises(ConfigError, match="unknown key 'sorce'. Did you mean 'source'"):
        read_reported(path)


def test_committed_reported_numbers_are_those_of_the_paper():
    from pathlib import Path

    recipes = Path(__file__).parents[2] / "recipes"
    tables = read_reported(recipes / "reported.yaml")
    assert all(one.source and one.note for one in tables)
    assert [one.title[:7] for one in tables] == [f"Table {n}" for n in (5, 3, 4, 2, 2, 6, 6, 7, 8)]
    iemocap, nuscenes, _, ablation, _, batch, scan, fused, cost = (one.numbers for one in tables)
    assert iemocap.loc["MCE"].tolist() == [60.93, 62.11, 61.55, 63.75, 63.36, 62.59]
    assert nuscenes.loc["RedCore", "c"] == 33.97
    ours = yaml.safe_load((recipes / "table_2.yaml").read_text())["methods"]
    assert set(ablation.index) == set(ours) - {"(m), U in sample"}, "rows stand beside those that are measured"
    # What the paper prints agrees with itself: B is the gap over the samples, ratios are ratios.
    np.testing.assert_allclose(((batch["U"] - batch["phi"]) / batch["samples"]), batch["B"], atol=5e-5)
    gap = (scan["U"] - scan["phi"]) * scan["samples"]
    np.testing.assert_allclose(gap, scan["B"], atol=2e-4)
    np.testing.assert_allclose(fused["within classes"] / fused["between classes"], fused["ratio"], atol=5e-3)
    assert cost.loc["MCE", "time in ms"] / cost.loc["joint", "time in ms"] == pytest.approx(12.7, abs=0.05)


def test_a_column_of_a_paper_stands_only_beside_its_methods(tmp_path):
    put(tmp_path / "r")
    reported = [
        {"short": "OURS", "title": "Table 1: means", "source": "a paper", "numbers": {"joint": {"a": 12.0}}},
        {"short": "OTHERS", "title": "Table 2: means", "source": "a paper", "numbers": {"unknown": {"a": 13.0}}},
        {"title": "Table 3: cost", "source": "a paper", "rows": "machine", "numbers": {"joint": {"ms": 14.0}}},
    ]
    (tmp_path / "reported.yaml").write_text(yaml.safe_dump(reported))
    facts = find(tmp_path / "r", reported=tmp_path / "reported.yaml")
    sections = {section.anchor: section for section in bench_page(facts).sections}
    heads = [column.title for column in sections["scores"].blocks[1].columns]
    assert heads[-1] == "reported: OURS" and "reported: OTHERS" not in heads
    tables = [block for block in sections["reported"].blocks if isinstance(block, Table)]
    assert [table.columns[0].title for table in tables] == ["method", "method", "machine"]
    assert [table.rows[0].cells[1] for table in tables] == ["12", "13", "14"]


def test_latex_is_escaped_and_marks_the_best():
    frame = pd.DataFrame({"a_b": [0.01, 0.02], "c&d": [np.nan, 0.005]}, index=["50 %", "m"])
    text = latex(frame, "A $ caption")
    assert r"a\_b & c\&d" in text
    assert r"50 \% & 1.0 & -- \\" in text
    assert r"m & \textbf{2.0} & \textbf{0.5} \\" in text
    assert r"A \$ caption" in text
    # Behind a line break these two would be its own.
    assert "\n{[}1] & " in latex(frame.set_axis(["[1]", "*"]), "")
    assert "\n{*} & " in latex(frame.set_axis(["[1]", "*"]), "")


def test_latex_writes_numbers_as_the_page_does(tmp_path):
    frame = pd.DataFrame({"d": [-0.0003, 0.02], "p": [0.0004, 0.04]}, index=["<a|b>", "m"])
    text = latex(frame, "", best=False, shapes={"d": points, "p": p_value})
    assert r"\textless{}a\textbar{}b\textgreater{} & 0.0 & \textless{} 0.001 \\" in text
    assert r"m & +2.0 & 0.040 \\" in text
    assert "-0.0" not in latex(frame, "")
    tables = write_report(put(tmp_path)).tables
    assert "late & +20.0 & +20.0 & +20.0 & " in (tables / "differences.tex").read_text()


@pytest.mark.parametrize(
    ("measure", "best"), [("mean", "late"), ("log_loss", "late"), ("ece", "late"), ("fit_seconds", "MCE")]
)
def test_the_printed_table_marks_the_best(tmp_path, capsys, measure, best):
    print_table(put(tmp_path), "MCE", measure)
    marked = [line.split(" | ")[0].strip("| ") for line in capsys.readouterr().out.splitlines() if "**" in line]
    assert marked == [best]


def test_methods_of_other_splits_are_not_compared(tmp_path):
    put(tmp_path)
    for file in (tmp_path / "cells").glob("p-x-*-0/cell.json"):
        split = "other" if "late" in file.parent.name else "one"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"split": split}))
    with pytest.raises(DataError, match=r"Problem 'p \(x\)', seed 0: methods were run on different splits"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("problems", "settings", "said", "drawn"),
    [
        ("pqrstu", "x", "test over data sets, adjusted by Holm over the methods.", "a bootstrap that draws data sets"),
        ("pq", "xyz", "over problems, adjusted by Holm over the methods; problems of one data set share", "from few"),
        (
            "pq",
            "x",
            "over problems and seeds, adjusted by Holm over the methods; problems of one",
            "from few data sets",
        ),
        ("p", "xyzuvw", "test over seeds, adjusted by Holm over the methods.", "Student's over the means of each seed"),
    ],
)
def test_the_page_says_what_tests_and_intervals_are_over(tmp_path, problems, settings, said, drawn):
    put(tmp_path, problems=problems, settings=settings, refused=False)
    sections = {one.anchor: one for one in bench_page(find(tmp_path)).sections}
    text = sections["differences"].blocks[0].text
    assert said in text
    assert drawn in text
    units = 3 if problems == "p" else 6
    assert f"cannot come below {2 / 2**units:.3f}, nor below {2 * 2 / 2**units:.3f} once it is adjusted" in text
    over = said.split("over ")[1].split(",")[0]
    ranked = sections["ranks"].blocks[0].text
    assert f" {over}, 1 being the best" in ranked
    assert ("far too small" in ranked) == over.startswith("problems")


def test_results_of_an_earlier_version_are_reported(tmp_path):
    (tmp_path / "cells").mkdir()
    for seed in range(2):
        for k, method in enumerate(("default", "joint")):
            subsets = {"none": {"size": 0, "score": 0.1}, "a": {"size": 1, "score": 0.5 + 0.1 * k + 0.01 * seed}}
            old = {
                "cell": {"problem": "p", "method": method, "seed": seed}, "presence": str(seed), "mean": 0.5 + 0.1 * k,
                "worst": 0.5, "full": 0.6, "subsets": subsets, "seconds": 3.0,
            }  # fmt: skip
            (tmp_path / "cells" / f"p-{method}-{seed}.json").write_text(json.dumps(old))
    facts = find(tmp_path)
    assert facts.against == "default"
    assert facts.cost["seconds"].tolist() == [3.0, 3.0]
    assert write_report(tmp_path).page.exists()


def test_the_page_of_the_documentation_is_filled_from_results_alone(tmp_path):
    import runpy
    from pathlib import Path

    page = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "make_benchmark.py"))
    (tmp_path / "nothing").mkdir()
    page["main"](str(tmp_path / "nothing"), tmp_path / "empty")
    empty = (tmp_path / "empty" / "benchmark.md").read_text()
    assert "{{" not in empty
    assert empty.count(page["NOTHING"]) > 10
    assert "| htad | 0, .8; .8, 0 | 0 | 5 |  |" in empty
    put(tmp_path / "results" / "benchmark")
    page["main"](str(tmp_path / "results"), tmp_path / "full")
    full = (tmp_path / "full" / "benchmark.md").read_text()
    assert page["NOTHING"] in full, "the other recipes have no results"
    means = find(tmp_path / "results" / "benchmark").means["average"]
    assert f"**{100 * means['late']:.1f}**" in full
    assert "(figures/benchmark-ranks.svg)" in full
    assert (tmp_path / "full" / "figures" / "benchmark-ranks.svg").exists()
    assert len(pd.read_csv(tmp_path / "full" / "results" / "benchmark.csv")) == 36


def test_times_of_one_machine_are_not_those_of_another(tmp_path):
    put(tmp_path, seeds=2, refused=False)
    for path in tmp_path.glob("cells/*/cell.json"):
        about, result = json.loads(path.read_text()), path.with_name("result.json")
        slow = about["cell"]["seed"] == 0 and about["cell"]["method"] != "joint"
        path.write_text(json.dumps({**about, "machine": "slow" if slow else "fast"}))
        if slow:
            found = json.loads(result.read_text())
            result.write_text(json.dumps({**found, "fit_seconds": 10 * found["fit_seconds"]}))
    cost = find(tmp_path).cost
    np.testing.assert_allclose(cost.loc[["late", "joint", "MCE"], "ratio"], [3.0, 2.0, 1.0])
    for path in tmp_path.glob("cells/*-joint-*/cell.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "machine": "another"}))
    assert find(tmp_path).cost["ratio"].isna().tolist() == [False, True, False]


def test_names_cover_neither_dots_nor_each_other():
    cost = pd.DataFrame({"score": [75.0, 75.1, 74.9, 60.0], "ratio": [1.0, 1.05, 1.1, 2.0]})
    figure = cost_figure(cost.set_axis(["a long name", "a longer name", "the longest name of all", "far"], axis=0))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    dots = [Bbox.from_extents(*(dot - 4), *(dot + 4)) for dot in axes.transData.transform(cost[["ratio", "score"]])]
    names = [text.get_window_extent() for text in axes.texts]
    assert len(names) == len(cost)
    for k, name in enumerate(names):
        assert name.count_overlaps([*dots, *names[:k]]) == 0
        assert axes.bbox.x0 <= name.x0 < name.x1 <= axes.bbox.x1


def test_parts_of_a_method_are_shown_and_not_ranked(tmp_path):
    put(tmp_path, seeds=2, refused=False)
    for path in tmp_path.glob("cells/*-late-*/result.json"):
        result = json.loads(path.read_text())
        part = {key: result[key] for key in ("subsets", "mean", "worst", "full")}
        path.write_text(json.dumps({**result, "variants": {"late: half": {**part, "mean": result["mean"] + 0.1}}}))
    facts = find(tmp_path)
    assert list(facts.means.index[:2]) == ["late", "late: half"]
    assert facts.means["average"].idxmax() == "late: half"
    assert "late: half" not in {*facts.record.index, *facts.ranking.average.index, *facts.differences["mean"]["method"]}
    page = write_report(tmp_path).page.read_text()
    assert re.search(r"The highest mean over all data sets is 6\d\.\d, of late\.", page)
    assert "&#39;late: half&#39;, stand below it and are not ranked" in page


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (5, ": expected a mapping from names to values, got 5"),
        ({"numbers": 5}, ", numbers: expected a mapping from names to values, got 5"),
        ({"numbers": {"joint": 5}}, ", joint: expected a mapping from names to values, got 5"),
        ({"numbers": {"joint": {"mean": "n/a"}}}, ", joint, mean: expected a number, or null where .* got 'n/a'"),
        ({"numbers": {"joint": {"mean": True}}}, ", joint, mean: expected a number"),
    ],
)
def test_reported_numbers_are_numbers(tmp_path, table, expected):
    path = tmp_path / "reported.yaml"
    path.write_text(yaml.safe_dump([{"title": "t", "source": "s", **table} if isinstance(table, dict) else table]))
    with pytest.raises(ConfigError, match=f"table 1{expected}"):
        read_reported(path)
    path.write_text(yaml.safe_dump([{"title": "t", "source": "s", "numbers": {"joint": {"mean": None, "min": 1}}}]))
    assert read_reported(path)[0].numbers.isna().sum().sum() == 1
