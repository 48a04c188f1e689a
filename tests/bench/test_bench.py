import json

import pytest
import yaml

from lacunar.bench.cells import Cell
from lacunar.bench.execute import run_cell
from lacunar.bench.recipe import read_recipe
from lacunar.bench.tables import collect, comparison, markdown
from lacunar.errors import ConfigError, DataError

WORLD = {"world": "additive", "n": 160}


def cell(method="joint", seed=0, **run):
    return Cell("small", "synthetic", method, seed, options=WORLD, rates={}, run=run)


def test_a_finished_cell_is_not_run_again(tmp_path):
    first = run_cell(cell("boosting", peer="boosting"), tmp_path)
    path = tmp_path / "cells" / cell("boosting", peer="boosting").key / "result.json"
    assert json.loads(path.read_text())["mean"] == first["mean"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mean": 0.123}))
    assert run_cell(cell("boosting", peer="boosting"), tmp_path)["mean"] == 0.123
    assert run_cell(cell("boosting", seed=1, peer="boosting"), tmp_path)["mean"] != 0.123


def test_methods_of_a_seed_meet_the_same_cells(tmp_path):
    short = {"fit": {"max_epochs": 1}}
    folds = {"references": {"folds": 2}}
    for method, run in {"joint": {"objective": "Joint", **short}, "default": {**short, **folds}}.items():
        for seed in (0, 1):
            run_cell(cell(method, seed, **run), tmp_path)
    results = collect(tmp_path)
    assert set(results["method"]) == {"joint", "default", "default: joint model alone", "default: experts alone"}
    assert (results.groupby("seed")["presence"].nunique() == 1).all()
    table = comparison(results, ["small"], "default")
    assert table.loc["default", "difference"] == 0.0
    assert (table["seeds"] == 2).all()
    text = markdown(table, "default")
    assert text.count("\n") == 1 + len(table)


def test_different_presence_is_not_compared(tmp_path):
    for seed in (0, 1):
        run_cell(cell("late fusion", seed, peer="late fusion"), tmp_path)
        path = run_cell(cell("boosting", seed, peer="boosting"), tmp_path)
    assert path
    for file in (tmp_path / "cells").glob("small-boosting-1*/cell.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"presence": "other"}))
    with pytest.raises(DataError, match="different presence tables"):
        comparison(collect(tmp_path), ["small"], "boosting")


def test_recipes_name_their_mistakes(tmp_path):
    path = tmp_path / "recipe.yaml"
    good = {"seeds": 2, "methods": {"a": {"peer": "boosting"}}, "problems": {"p": {"dataset": "digits"}}}
    path.write_text(yaml.safe_dump(good))
    assert [c.seed for c in read_recipe(path)] == [0, 1]
    path.write_text(yaml.safe_dump({**good, "problem": {}}))
    with pytest.raises(ConfigError, match="unknown key 'problem'. Did you mean 'problems'"):
        read_recipe(path)
    path.write_text(yaml.safe_dump({**good, "problems": {"p": {"dataset": "digits", "rate": {}}}}))
    with pytest.raises(ConfigError, match="unknown key 'rate'. Did you mean 'rates'"):
        read_recipe(path)
    path.write_text(yaml.safe_dump({**good, "problems": {"p": {"dataset": "digits", "methods": ["b"]}}}))
    with pytest.raises(ConfigError, match="unknown method 'b'"):
        read_recipe(path)


@pytest.mark.parametrize("name", ["evidence", "table_2", "ingredients"])
def test_the_committed_recipes_can_be_read(name):
    from pathlib import Path

    cells = read_recipe(Path(__file__).parents[2] / "recipes" / f"{name}.yaml")
    assert len({c.key for c in cells}) == len(cells)
    assert {c.seed for c in cells} == set(range(5))
