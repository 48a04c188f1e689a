"""What a look into trained networks finds: encoders by themselves, networks of one modality, fused features."""

import numpy as np
import pandas as pd
import pytest
import yaml
from tests.bench import small
from tests.bench.small import EPOCHS, run_recipe

from lacunar.bench.cells import load_problem
from lacunar.bench.findings import find
from lacunar.bench.probing import fused, probed
from lacunar.bench.recipe import open_recipe
from lacunar.bench.report import write_report
from lacunar.bench.store import Store
from lacunar.errors import ConfigError
from lacunar.report.bench_page import bench_page
from lacunar.report.bench_probing import capability_figure, capability_section, fused_section
from lacunar.report.page import Table
from lacunar.training.references import references

RECIPE = {**small.RECIPE, "probes": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return run_recipe(RECIPE, tmp_path_factory.mktemp("probing"))


def test_probes_score_every_encoder_at_the_end_and_on_the_way(folder):
    final, during, _ = probed(Store(folder).results())
    assert set(final["method"]) == {"joint", "MCE"}
    assert final.groupby("method")["modality"].apply(list).tolist() == [["m0", "m1"]] * 2
    assert final["score"].between(0, 1).all()
    assert during["epoch"].max() == EPOCHS and during["epoch"].min() >= 1
    figure = capability_figure(during)
    assert [axes.get_title("left") for axes in figure.axes] == ["m0", "m1"]
    assert all(len(axes.lines) == 2 for axes in figure.axes)


def test_networks_of_one_modality_are_those_of_the_same_rows_and_of_all(folder):
    results = list(Store(folder).results())
    _, during, alone = probed(results)
    assert alone[["rows", "modality"]].to_numpy().tolist() == [
        ["observed", "m0"], ["observed", "m1"], ["complete", "m0"], ["complete", "m1"]
    ]  # fmt: skip
    by_method = [result["alone"] for result in results if "alone" in result]
    assert len(by_method) == 2 and by_method[0] == by_method[1], "methods share them"
    cell = next(cell for cell in open_recipe(folder.parent / "r.yaml").cells if cell.method == "joint")
    data = load_problem(cell)
    made = references(
        data.train, models={"m0": "network", "m1": "network"}, out_of_fold=False, seed=0, max_epochs=EPOCHS
    )
    for name in data.train.names:
        only = data.test.only([name])
        outputs = np.concatenate([made.predict(batch)[name].numpy() for batch in data.test.batches(16)])
        right = (outputs.argmax(1) == only.target.numpy()).mean()
        kept = alone[(alone["rows"] == "observed") & (alone["modality"] == name)]["test"].item()
        assert kept == pytest.approx(right)
    figure = capability_figure(during, alone)
    for axes in figure.axes:
        bound = alone[(alone["rows"] == "complete") & (alone["modality"] == axes.get_title("left"))]["val"].item()
        assert len(axes.lines) == 3 and axes.lines[2].get_ydata()[0] == pytest.approx(bound)


def test_without_hidden_cells_there_is_nothing_more_to_train_on(tmp_path):
    problem = {**RECIPE["problems"]["world"], "settings": None}
    problem = {key: value for key, value in problem.items() if value}
    recipe = {**RECIPE, "methods": {"joint": {"objective": "Joint"}}, "problems": {"world": problem}}
    assert set(probed(Store(run_recipe(recipe, tmp_path)).results())[2]["rows"]) == {"observed"}


def test_fused_features_are_measured_on_all_subsets_together(folder):
    found = fused(Store(folder).results())
    assert sorted(found["method"]) == ["MCE", "joint"]
    np.testing.assert_allclose(found["ratio"], found["intra"] / found["inter"])
    assert (found["norm"] > 0).all() and found["cosine"].between(-1, 1).all()


def test_sections_show_means_and_spreads():
    at = {"problem": "p (x)", "data": "p", "setting": "x"}
    final = pd.DataFrame(
        [{**at, "method": "joint", "seed": seed, "modality": "a", "score": 0.5 + 0.1 * seed} for seed in range(2)]
    )
    alone = pd.DataFrame(
        [
            {**at, "seed": seed, "rows": rows, "modality": "a", "test": score, "val": 0.0}
            for seed in range(2)
            for rows, score in (("observed", 0.6), ("complete", 0.9))
        ]
    )
    section = capability_section(final, final.iloc[:0].assign(epoch=1), alone)
    table, gaps = (block for block in section.blocks if isinstance(block, Table))
    # Gaps of -10 and 0 points: mean -5, and 12.706 standard errors of 5 on either side.
    assert [row.cells for row in gaps.rows] == [["joint", "-5.0 [-68.5, +58.5]"]]
    assert gaps.caption.endswith("minus a network of this modality alone, the same train samples")
    assert [row.cells[1] for row in table.rows] == ["55.0 ± 7.1", "60.0 ± 0.0", "90.0 ± 0.0"]
    assert [row.cells[0].rsplit(", ")[-1] for row in table.rows[1:]] == ["the same train samples", "all train samples"]

    names = ("intra", "inter", "ratio", "cosine", "ratio_unit", "silhouette", "norm")
    rows = [{**at, "method": "joint", "seed": seed, **dict.fromkeys(names, 1.0 + seed)} for seed in range(2)]
    rows[1]["silhouette"] = None
    (table,) = (block for block in fused_section(pd.DataFrame(rows)).blocks if isinstance(block, Table))
    assert table.rows[0].cells == ["joint", *["1.50 ± 0.71"] * 5, "1.00", "1.50 ± 0.71"]
    assert not fused_section(pd.DataFrame()).blocks


def test_the_page_shows_what_was_probed(folder):
    facts = find(folder)
    anchors = [section.anchor for section in bench_page(facts).sections]
    assert {"capability", "fused"} <= set(anchors)
    tables = write_report(folder).tables
    kept = {name: pd.read_csv(tables / f"{name}.csv") for name in ("capability", "trajectory", "networks", "fused")}
    assert kept["capability"]["score"].tolist() == pytest.approx(facts.capability["score"].tolist(), rel=1e-5)
    assert kept["fused"]["ratio"].tolist() == pytest.approx(facts.fused["ratio"].tolist(), rel=1e-5)
    assert len(kept["networks"]) == 4 and len(kept["trajectory"]) == len(facts.trajectory)
    assert (tables / "course.csv").exists() and not (tables / "sweep.csv").exists()


def test_probes_is_yes_or_no_and_leaves_peers_alone(tmp_path):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    probed_methods = {name for name, run in open_recipe(tmp_path / "r.yaml").methods.items() if run.get("probes")}
    assert probed_methods == {"joint", "MCE"}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**RECIPE, "probes": "final"}, sort_keys=False))
    with pytest.raises(ConfigError, match="probes: expected true or false, got 'final'"):
        open_recipe(tmp_path / "r.yaml")


def test_encoders_are_compared_by_seed():
    at = {"problem": "p (x)", "data": "p", "setting": "x", "modality": "a"}
    scores = {"MCE": (0.5, 0.7, 0.6), "joint": (0.4, 0.6, 0.5), "once": (0.4,)}
    rows = [
        {**at, "method": name, "seed": seed, "score": score}
        for name, found in scores.items()
        for seed, score in enumerate(found)
    ]
    during, alone = (
        pd.DataFrame(columns=[*rows[0], "epoch"]),
        pd.DataFrame(columns=["data", "problem", "rows", "modality", "test", "seed"]),
    )
    section = capability_section(pd.DataFrame(rows), during, alone, "MCE")
    _, gaps = (block for block in section.blocks if isinstance(block, Table))
    assert gaps.caption == "p: capability of each encoder minus MCE"
    assert [row.cells for row in gaps.rows] == [["joint", "-10.0 [-10.0, -10.0]"], ["once", "-"]]

    # A harder setting that one method lacks is no gap.
    hard = [{**row, "problem": "p (y)", "score": row["score"] - 0.3} for row in rows if row["method"] == "MCE"]
    section = capability_section(pd.DataFrame([*rows, *hard]), during, alone, "MCE")
    assert section.blocks[-1].rows[0].cells == ["joint", "-10.0 [-10.0, -10.0]"]
