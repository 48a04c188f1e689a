"""Figures: what they show can be read back from them."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest

from lacunar.report import figures
from lacunar.report.style import PALETTE, colours, svg

NAMES = ["audio", "image"]
MEMBERS = np.array([[1, 0], [0, 1], [1, 1]], dtype=bool)
SCORES = pd.DataFrame({"score": [0.5, 0.75, 0.875], "low": [0.4, 0.7, 0.8], "high": [0.6, 0.8, 0.9]})


def texts(figure):
    """Every text of a figure as it is drawn."""
    root = ElementTree.fromstring(svg(figure, "f"))
    return ["".join(node.itertext()) for node in root.iter() if node.tag.endswith("text")]


def test_subset_figure_names_modalities_and_prints_scores():
    shown = texts(figures.subset_figure(SCORES, MEMBERS, NAMES, "accuracy", {"audio": 0.55}))
    assert {"audio", "image", "0.500", "0.750", "0.875", "accuracy", "single-modality expert"} <= set(shown)


def test_numbers_of_a_subset_figure_stand_clear_of_intervals_and_experts():
    for scores in (SCORES, SCORES[["score"]]):
        figure = figures.subset_figure(scores, MEMBERS, NAMES, "accuracy", {"audio": 0.55, "image": 0.95})
        places = {text.get_text(): text.xy[0] for axes in figure.axes for text in axes.texts}
        assert places["0.750"] == 0.95
        assert places["0.500"] == (0.6 if "high" in scores else 0.55)
        assert places["0.875"] == (0.9 if "high" in scores else 0.875)


def test_subset_figure_of_many_subsets_keeps_the_best_and_the_worst():
    names = [f"m{i}" for i in range(8)]
    members = np.array([[code >> m & 1 for m in range(8)] for code in range(1, 256)], dtype=bool)
    scores = pd.DataFrame({"score": np.linspace(0.1, 0.9, 255)})
    shown = texts(figures.subset_figure(scores, members, names))
    numbers = [text for text in shown if text.count(".") == 1 and len(text) == 5]
    assert {"0.100", "0.900"} <= set(numbers)
    assert len(numbers) == figures.ROWS


def test_pattern_figure_shows_counts_rates_and_hides_what_is_nan():
    counts = pd.DataFrame({"train": [30.0, 12.0, np.nan], "test": [3.0, np.nan, np.nan]})
    rates = pd.DataFrame({"train": [0.25, np.nan]}, index=NAMES)
    shown = texts(figures.pattern_figure(counts, MEMBERS, NAMES, rates))
    assert {"33", "12+", "fewer than shown", "25%"} <= set(shown)


def test_curves_have_one_line_each_and_gaps_where_values_are_missing():
    history = pd.DataFrame({"task": [1.0, np.nan, 0.5], "subset": [2.0, 1.5, 1.0]}, index=[1, 2, 3])
    axes = figures.curves_figure(history).axes[0]
    assert [line.get_label() for line in axes.lines] == ["task", "subset"]
    assert axes.lines[0].get_xdata().tolist() == [1, 3]


def test_a_modality_has_one_colour_everywhere():
    table = pd.DataFrame({"audio": [0.1, 0.2], "image": [0.3, 0.4]})
    small = figures.modality_figure({"phi": table, "B": table}, NAMES)
    path = figures.trajectory_figure(table, NAMES, {"audio": 0.5})
    for axes in (*small.axes, path.axes[0]):
        drawn = {line.get_label(): line.get_color() for line in axes.lines if line.get_label() in NAMES}
        assert drawn == colours(NAMES)
    assert colours(NAMES)["audio"] == PALETTE[0]


def test_validation_figure_marks_the_kept_epoch():
    figure = figures.validation_figure(pd.DataFrame({"mean": [0.1, 0.4, 0.3]}, index=[1, 2, 3]), 2, "accuracy")
    assert figure.axes[0].lines[-1].get_xdata()[0] == 2
    assert "kept: epoch 2" in texts(figure)


def test_probe_figure_draws_a_bar_for_each_head_and_modality():
    probes = pd.DataFrame(
        {"linear": [0.5, 0.6], "linear low": [0.4, 0.5], "linear high": [0.6, 0.7], "mlp": [0.7, 0.8]}
    )
    figure = figures.probe_figure(probes.set_axis(NAMES), "accuracy")
    assert sorted(bar.get_height() for bar in figure.axes[0].patches) == [0.5, 0.6, 0.7, 0.8]


def test_reliability_figure_leaves_out_empty_bins():
    bins = pd.DataFrame({"confidence": [0.25, np.nan, 0.9], "accuracy": [0.2, np.nan, 0.8], "count": [4, 0, 6]})
    line = figures.reliability_figure(bins).axes[0].lines[1]
    assert line.get_xdata().tolist() == [0.25, 0.9]


@pytest.mark.parametrize("name", ["$x_1$", "a<b>&\"'", "naïve 🙂", 'id="q"', "url(#x)"])
def test_names_are_drawn_as_they_are(name):
    shown = texts(figures.subset_figure(SCORES, MEMBERS, [name, "other"], name))
    assert shown.count(name) == 2


def test_drawings_are_the_same_every_time_and_do_not_meet():
    draw = lambda: figures.subset_figure(SCORES, MEMBERS, NAMES)  # noqa: E731
    assert svg(draw(), "a") == svg(draw(), "a")
    one, two = svg(draw(), "a"), svg(draw(), "b")
    ids = [{node.get("id") for node in ElementTree.fromstring(text).iter() if node.get("id")} for text in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert "http" not in one
    assert "<script" not in one


def test_the_users_own_matplotlib_settings_change_nothing_and_stay():
    import matplotlib

    before = svg(figures.curves_figure(pd.DataFrame({"a": [1.0, 2.0]})), "a")
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False}):
        after = svg(figures.curves_figure(pd.DataFrame({"a": [1.0, 2.0]})), "a")
        assert matplotlib.rcParams["font.size"] == 30
    assert before == after
