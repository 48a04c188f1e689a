"""The benchmarks run at toy size and compare like with like. No test looks at a time."""

import importlib
import math

import pytest
import torch
from benchmarks.__main__ import ALL
from benchmarks.measure import Figure, Options, interleave, peak_bytes
from benchmarks.page import machine, page
from benchmarks.worlds import Dense, EveryPair, iemocap, iemocap_model, light, light_model, mce

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


def test_a_verdict_needs_a_target():
    assert Figure("s", "n", 1.0, 1.0, 1.0).verdict == ""
    assert Figure("s", "n", 1.0, 1.0, 1.0, 1.1).verdict == "met"
    assert Figure("s", "n", 1.2, 1.2, 1.2, 1.1).verdict == "missed"
