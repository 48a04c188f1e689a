"""How far scores move with the numbers of one objective."""

import itertools

import numpy as np
import pandas as pd
import pytest

from lacunar.bench.sweep import find_sweep
from lacunar.report.bench_course import course_section
from lacunar.report.bench_sweep import alone_figure, pairs_figure, sweep_section

LEVELS = (0.1, 1.0, 5.0)


def score(single, subset, problem, seed):
    """What a run reaches: the subset loss matters downwards, a little differently on each problem and seed."""
    return 0.8 + 0.01 * seed + (0.03 if problem == "q" else 0.01) * min(0, np.log10(subset)) * (1 + seed)


def result(method, arguments, problem="p", seed=0, objective="MCE", fit=40, mean=None):
    run = {"objective": objective, "arguments": arguments, "fit": {"max_epochs": fit}}
    cell = {"method": method, "run": run, "problem": problem, "seed": seed}
    return {"cell": cell, "mean": score(*list(arguments.values())[:2], problem, seed) if mean is None else mean}


@pytest.fixture(scope="module")
def sweep():
    grid = [
        result(f"{single:g}, {subset:g}", {"single": single, "subset": subset, "completion": 1.0}, problem, seed)
        for single, subset, problem, seed in itertools.product(LEVELS, LEVELS, "pq", (0, 1))
    ]
    others = [
        result("longer", {"single": 1.0, "subset": 2.0, "completion": 1.0}, fit=160),
        result("another", {"single": 1.0, "subset": 2.0, "completion": 1.0}, objective="Other"),
        result("a switch", {"single": 1.0, "subset": True, "completion": 1.0}),
        result("fewer", {"single": 1.0, "subset": 2.0}),
        {"cell": {"method": "refuses", "run": {}, "problem": "p", "seed": 0}, "refused": "no"},
    ]
    return find_sweep([*grid, *others], "1, 1")


def test_only_other_numbers_for_the_same_arguments_are_a_sweep(sweep):
    assert sorted(sweep.values.index) == sorted(f"{a:g}, {b:g}" for a, b in itertools.product(LEVELS, LEVELS))
    assert sweep.arguments == ["single", "subset"], "completion does not vary"
    assert sweep.plane("subset").index.tolist() == ["1, 0.1", "1, 1", "1, 5"]
    assert sweep.extremes == ["1, 1", "0.1, 1", "5, 1", "1, 0.1", "1, 5"]
    assert find_sweep([result("a", {"single": 1.0, "subset": 1.0})], "a") is None
    switches = [result(name, {"single": 1.0, "subset": name == "b"}, mean=0.5) for name in "abc"]
    assert find_sweep(switches, "a") is None
    assert find_sweep([result("a", {}, mean=0.5), result("b", {}, mean=0.5)], "a") is None


def test_differences_are_paired_by_problem_and_seed(sweep):
    for row in sweep.differences.to_dict("records"):
        single, subset = map(float, row["method"].split(", "))
        wanted = score(single, subset, row["problem"], row["seed"]) - score(1, 1, row["problem"], row["seed"])
        assert row["difference"] == pytest.approx(wanted)
    assert len(sweep.differences) == 9 * 2 * 2
    # A seed that the middle has not run says nothing.
    numbers = {"single": 1.0, "subset": 2.0}
    partly = [result(name, {**numbers, "subset": level}, seed=seed)
              for name, level, seed in (("a", 1.0, 0), ("b", 2.0, 0), ("c", 0.1, 0), ("c", 0.1, 1))]  # fmt: skip
    found = find_sweep(partly, "a").differences
    assert set(zip(found["method"], found["seed"])) == {("a", 0), ("b", 0), ("c", 0)}


def test_the_figures_show_the_differences(sweep):
    figure = alone_figure(sweep)
    assert [axes.get_title("left") for axes in figure.axes] == ["single", "subset"]
    assert all(axes.get_xscale() == "log" for axes in figure.axes)
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    np.testing.assert_allclose(lines["p"].get_xdata(), LEVELS)
    np.testing.assert_allclose(lines["p"].get_ydata(), [-1.5, 0, 0], atol=1e-9)  # -1 and -2 points
    np.testing.assert_allclose(lines["q"].get_ydata(), [-4.5, 0, 0], atol=1e-9)
    grid = sweep.grid("single", "subset")
    np.testing.assert_allclose(grid.to_numpy(), [[-0.03] * 3, [0] * 3, [0] * 3], atol=1e-9)
    texts = [text.get_text() for text in pairs_figure([grid]).axes[0].texts]
    assert texts == ["-3.0"] * 3 + ["0.0"] * 6


def test_a_number_of_nothing_is_on_a_plain_axis_and_nothing_together_has_no_map():
    runs = [result(f"{a:g}, {b:g}", {"single": a, "subset": b}, mean=0.5 + a / 100 + b / 100)
            for a, b in ((1, 1), (0, 1), (1, 0), (2, 1))]  # fmt: skip
    sweep = find_sweep(runs, "1, 1")
    assert [axes.get_xscale() for axes in alone_figure(sweep).axes] == ["linear", "linear"]
    assert sweep.grid("single", "subset").empty
    section = sweep_section(sweep)
    assert len(section.blocks) == 3
    rows = [row.cells for row in section.blocks[2].rows]
    assert rows == [["single", "0", "-1.0", "-1.0"], ["single", "2", "+1.0", "+1.0"], ["subset", "0", "-1.0", "-1.0"]]


def test_the_same_numbers_twice_and_numbers_that_have_not_run_together_do_no_harm():
    numbers = {"1": (1, 1), "again": (1, 1), "a": (2, 1), "b": (1, 2), "c": (2, 2), "d": (2, 2)}
    runs = [result(name, {"single": a, "subset": b}, seed=name == "c", mean=0.5 + a / 10)
            for name, (a, b) in numbers.items()]  # fmt: skip
    sweep = find_sweep(runs, "1")
    np.testing.assert_allclose(sweep.grid("single", "subset").to_numpy(), [[0, 0.1], [0, 0.1]], atol=1e-9)
    sweep = find_sweep([run for run in runs if run["cell"]["method"] in ("1", "again", "c")], "1")
    assert sweep is None, "nothing varies alone"
    assert find_sweep([run for run in runs if run["cell"]["method"] in "1abc"], "1").grid("single", "subset").shape == (
        2,
        2,
    )
    waiting = [run for run in runs if run["cell"]["method"] in "ab1"] + [
        result("c", {"single": 3, "subset": 3}, seed=9)
    ]
    assert len(sweep_section(find_sweep(waiting, "1")).blocks) == 4, "a map with a gap"


def test_the_section_is_there_only_for_a_sweep_and_training_shows_its_ends(sweep):
    assert sweep_section(None).blocks == []
    section = sweep_section(sweep)
    assert "-3.0 to 0.0" in section.blocks[3].alt
    course = pd.DataFrame([
        {"problem": "p", "data": "p", "method": method, "seed": 0, "epoch": epoch, "loss": 1 / epoch}
        for method in sorted(sweep.values.index)
        for epoch in (1, 2)
    ])  # fmt: skip
    table = course_section(course, sweep.extremes).blocks[2]
    assert [row.cells[0] for row in table.rows] == sweep.extremes
