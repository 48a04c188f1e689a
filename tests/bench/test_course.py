"""What cells say of training: weights of modalities, losses by epoch."""

import numpy as np
import pandas as pd
import pytest
from tests.bench.small import EPOCHS, RECIPE, run_recipe

from lacunar.bench.course import courses, factors
from lacunar.bench.findings import find
from lacunar.bench.store import Store
from lacunar.report.bench_course import course_figure, course_section
from lacunar.report.bench_page import bench_page
from lacunar.report.style import MOST_LINES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return run_recipe(RECIPE, tmp_path_factory.mktemp("course"))


def test_the_factors_of_each_modality_are_those_of_the_last_epoch(folder):
    found = factors(Store(folder).results())
    assert set(found["method"]) == {"MCE"}, "only MCE weighs modalities"
    assert found["modality"].tolist() == ["m0", "m1"]
    assert found["rate"].tolist() == [0.2, 0.5]
    assert (np.diff(found["A"]) > 0).all(), "the rarer a modality, the larger A"
    assert found["B"].between(0, 1).all()
    logged = next(r for r in Store(folder).results() if r["cell"]["method"] == "MCE")["last_epoch"]
    assert found["phi"].tolist() == [logged[f"phi/m{m}"] for m in range(2)]


def test_the_course_has_a_loss_for_every_epoch_of_what_is_trained(folder):
    found = courses(Store(folder).results())
    assert set(found["method"]) == {"joint", "MCE"}
    for _, part in found.groupby("method"):
        assert part["epoch"].tolist() == list(range(1, EPOCHS + 1))
        assert np.isfinite(part["loss"]).all()
    lines = {line.get_label(): line.get_ydata() for line in course_figure(found).axes[0].lines}
    assert set(lines) == {"joint", "MCE"}
    for method, part in found.groupby("method"):
        np.testing.assert_allclose(lines[method], part["loss"] / part["loss"].iloc[0])


def test_the_page_has_sections_only_for_what_was_kept(folder, tmp_path):
    anchors = [section.anchor for section in bench_page(find(folder)).sections]
    assert {"factors", "course"} <= set(anchors)
    assert not {"capability", "fused"} & set(anchors)
    bare = {**RECIPE, "methods": {"late": {"peer": "late fusion"}}}
    anchors = [section.anchor for section in bench_page(find(run_recipe(bare, tmp_path))).sections]
    assert not {"factors", "course"} & set(anchors)


def test_a_figure_names_the_methods_that_it_does_not_show():
    names = [f"method {number:02}" for number in range(MOST_LINES + 2)]
    rows = [
        {"problem": "p", "data": "p", "setting": "", "method": name, "seed": 0, "epoch": epoch, "loss": 1 / epoch}
        for name in names
        for epoch in (1, 2)
    ]
    drawing, table = course_section(pd.DataFrame(rows)).blocks[1:]
    assert len(drawing.figure.axes[0].lines) == MOST_LINES
    assert drawing.caption.endswith(f"The table has the others, too: {names[-2]}; {names[-1]}.")
    assert [row.cells[0] for row in table.rows] == names
    one = course_section(pd.DataFrame(rows[:2])).blocks[1]
    assert "others" not in one.caption
