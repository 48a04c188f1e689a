"""The benchmarks run at toy size and compare like with like. No test looks at a time."""

import importlib
import math

import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks import picks
from benchmarks.__main__ import ALL
from benchmarks.measure import Figure, Options, interleave, peak_bytes
from benchmarks.page import machine, page, picks_section
from benchmarks.picks import agreement
from benchmarks.worlds import Dense, EveryPair, iemocap, iemocap_model, light, light_model, mce

from lacunar.planning.utility_table import UtilityTable

TOY = Options(rounds=2, toy=True)


@pytest.mark.parametrize("name", ALL)
def test_every_figure_is_a_finite_ratio(name):
    figures = importlib.import_module(f"benchmarks.{name}").run(TOY)
    assert len({figure.name for figure in figures}) == len(figures) > 0
    for figure in figures:
        assert math.isfinite(figure.value)
        assert 0 < figure.low <= figure.value <= figure.high
        assert figure.note
    text = page(figures, machine(TOY, "before", "after"))
    assert all(figure.name in text for figure in figures)


@pytest.mark.parametrize("make", ["iemocap", "light"])
def test_dense_and_packed_models_say_the_same(make):
    if make == "iemocap":
        data, build = iemocap(24, toy=True), iemocap_model
    else:
        data, build = light(3, 24, toy=True), light_model
    batch = data.__getitems__(range(len(data)))
    packed, dense = build(data).eval(), build(data, Dense).eval()
    assert not batch.present.all()
    torch.testing.assert_close(dense(batch), packed(batch))
    torch.testing.assert_close(dense.encode(batch).h, packed.encode(batch).h)


def test_the_floor_decodes_every_pair():
    data = light(3, 24, toy=True)
    model, floor = light_model(data), EveryPair(mce())
    floor.setup(model, data)
    seen = []
    model.head.register_forward_hook(lambda module, given, output: seen.append(len(output)))
    floor(model, data.__getitems__(range(24)))
    assert seen == [len(data.lattice.pairs(data.present[:24]).rows)]


def test_alternatives_run_equally_often_in_turn():
    calls = []
    taken = interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, Options(3), warm_up=1)
    assert "".join(calls) == "ab" + "abbaab"
    assert {name: len(values) for name, values in taken.seconds.items()} == {"a": 3, "b": 3}


def test_peak_counts_what_lives_at_once_and_not_what_was_there():
    given = torch.zeros(1000)

    def run():
        for _ in range(5):
            made = given + 1  # at most two at a time: the old one dies after the new one is there
        return made

    assert peak_bytes(run, warm_up=0) == 2 * 4000


def test_peak_counts_what_the_backward_pass_keeps():
    x = torch.ones(1000, requires_grad=True)

    def run():
        y = x
        for _ in range(5):
            y = y.sigmoid()
        y.sum().backward()

    assert peak_bytes(run, warm_up=0) >= 6 * 4000


def test_picks_are_counted_at_each_size_and_at_all():
    # The best pair is a+b; a+c lies within its standard error of .06, b+c does not. Of the single ones only a is good.
    wanted = np.array([[0, 0.5, 0.3, 0.6, 0.1, 0.55, 0.2, 0.7]]) + np.array([[-0.1], [0.0], [0.1]])
    reference = UtilityTable(("a", "b", "c"), wanted, "log_loss")
    drawn = np.zeros((3, 8))
    drawn[:, 1] = drawn[:, 3] = 1  # agrees everywhere
    drawn[1, 5] = 2  # a+c is as good
    drawn[2, 6] = 2  # b+c is not
    found = agreement("toy", reference, UtilityTable(("a", "b", "c"), drawn, "log_loss"), epochs=4).set_index("size")
    assert found["agree"].to_dict() == {"1": 3, "2": 2, "every": 2}
    assert found.loc["2", ["best", "tie", "standard_error", "picks"]].tolist() == [
        "a+b", 2, 0.0577, "a+b (1), a+c (1), b+c (1)",
    ]  # fmt: skip
    assert (found["reference_agrees"] == 3).all()
    wanted[0, 6] = 0.8  # one repeat of the reference by itself ranks b+c first, which the other two do not
    table = UtilityTable(("a", "b", "c"), wanted, "log_loss")
    odd = agreement("toy", table, table, epochs=4).set_index("size")
    assert odd["reference_agrees"].to_dict() == {"1": 3, "2": 2, "every": 2}
    assert odd.loc["2", "reference_lost"] == round(0.4 / 3, 4)
    text = "\n".join(picks_section(found.reset_index().assign(size=lambda frame: frame["size"])))
    assert "toy, 4 epochs 2 of 3 (retrained once 3 of 3)" in text
    assert found.loc["2", ["lost", "reference_lost"]].tolist() == [0.15, 0]  # nothing, 0.05 and 0.4
    assert "| toy, 4 epochs | 2 | **2 of 3**, 0.150 | 3 of 3, 0.000 | a+b: 0.600 (0.058) | 2 of 3 |" in text


def test_picks_of_several_calls_are_kept_together(monkeypatch, tmp_path):
    table = UtilityTable(("a", "b"), np.array([[0, 0.5, 0.3, 0.6], [0, 0.5, 0.4, 0.7], [0, 0.5, 0.4, 0.6]]), "log_loss")
    monkeypatch.setattr(picks, "measure", lambda *_: (table, table))
    for call in (["one", "--epochs", "20", "40"], ["two"], ["one"]):
        monkeypatch.setattr("sys.argv", ["picks", *call, "--out", str(tmp_path)])
        picks.main()
    found = pd.read_csv(tmp_path / "picks.csv").drop_duplicates(["data", "epochs"])
    assert list(zip(found["data"], found["epochs"])) == [("one", 40), ("two", 20), ("one", 20)]
    assert len(pd.read_csv(tmp_path / "picks.csv")) == 3 * 2


def test_a_verdict_needs_a_target():
    assert Figure("s", "n", 1.0, 1.0, 1.0).verdict == ""
    assert Figure("s", "n", 1.0, 1.0, 1.0, 1.1).verdict == "met"
    assert Figure("s", "n", 1.2, 1.2, 1.2, 1.1).verdict == "missed"
