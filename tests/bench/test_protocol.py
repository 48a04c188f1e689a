"""Cells of the protocol: recipes, resuming, collecting, and the tables of the docs page."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from lacunar.bench import protocol as bench
from lacunar.bench import protocol_tables as tables
from lacunar.bench.protocol import collect, read_protocol_recipe, run_protocol_cell
from lacunar.errors import ConfigError

RECIPE = {
    "problems": {
        "world": {
            "dataset": "worlds_of_generation",
            "options": {"world": "generable", "n": 300},
            "groups": {"sign": {"modality": "x1", "column": 0, "cut": 0.0, "names": ["below", "above"]}},
        }
    },
    "trainings": {
        "linear": {"backbone": "linear"},
        "network": {"model": {"features": 8}, "steps": 4, "batch_size": 16, "generator": {"steps": 1, "hidden": 8}},
    },
    "runs": {
        "grid": {
            "training": "linear",
            "problems": ["world"],
            "settings": [{"rho": [0.2], "beta": [0.1, 0.2]}],
            "seeds": 1,
            "arms": ["lower", "sk-ll", "every subset"],
        },
        "pilot": {
            "kind": "pilot", "training": "linear", "problems": ["world"], "seeds": 1, "sizes": [30, 500], "draws": 2,
        },
        "figure": {
            "kind": "generated", "training": "network", "problems": ["world"], "seeds": 1, "arms": ["sk-ll"],
            "settings": [{"rho": [0.3], "beta": [0.1]}],
        },
    },
}  # fmt: skip


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def test_a_recipe_runs_resumes_and_collects(recipe, tmp_path, capsys, monkeypatch):
    out = tmp_path / "results"
    bench.protocol(recipe, out)
    files = sorted((out / "cells").glob("*.json"))
    assert len(files) == len(read_protocol_recipe(recipe)) == 4
    before = {file: file.stat().st_mtime_ns for file in files}
    files[0].unlink()
    bench.protocol(recipe, out)
    assert "3 finished before" in capsys.readouterr().err
    assert {file: file.stat().st_mtime_ns for file in files[1:]} == {file: before[file] for file in files[1:]}

    frames = collect(out)
    rows = frames["rows"]
    assert set(rows["arm"]) == {"lower", "sk-ll", "x1", "x2", "x3", "x1+x2", "x1+x3", "x2+x3"}
    assert set(frames["conditions"]["subset"]) >= {"none", "x1", "x1+x2+x3"}
    assert set(frames["groups"]["value"]) == {"below", "above"}
    assert (frames["groups"].query("arm == 'lower' and run == 'grid'").groupby(["seed", "beta"])["n"].sum() == 75).all()
    pilots = frames["pilot"]
    assert set(pilots["n"]) == {30}  # 500 is more than two thirds of the pool
    assert (pilots["regret"] >= 0).all()
    told = frames["generated"]["told_apart"]
    assert ((told >= 0) & (told <= 1)).all()
    assert len(frames["points"]) == 75 * 3 * 2
    chosen = frames["indicators"].query("indicator == 'cooperation' and chosen")
    assert (chosen["subset"].str.count(r"\+") == 1).all()
    assert frames["indicators"]["realised"].notna().any()
    # The lower bound does not depend on the budget, and nothing about the pairing does.
    lower = rows.query("arm == 'lower' and run == 'grid'").pivot_table(index="seed", columns="beta", values="score")
    assert np.array_equal(lower[0.1], lower[0.2])


def test_a_cell_that_fails_is_named_and_tried_again(tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    broken = json.loads(json.dumps(RECIPE))
    broken["runs"] = {
        "grid": {**RECIPE["runs"]["grid"], "settings": [{"rho": [0.9], "beta": [0.2]}], "arms": ["upper"]}
    }
    path.write_text(yaml.safe_dump(broken))
    with pytest.raises(SystemExit, match="1 cells failed"):
        bench.protocol(path, tmp_path / "results")
    assert "Lower the available share or the budget" in capsys.readouterr().err


def test_keys_change_with_what_is_in_a_cell(recipe):
    cells = read_protocol_recipe(recipe)
    assert len({cell.key for cell in cells}) == len(cells)
    assert all(cell.facts["dataset"] == "worlds_of_generation" for cell in cells)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("runs", "grid", "problem"), [], "unknown key 'problem'.*'problems'"),
        (("problems", "world", "option"), [], "unknown key 'option'.*'options'"),
        (("run",), [], "unknown key 'run'.*'runs'"),
        (("trainings",), None, "expected trainings, a mapping"),
        (("runs", "grid"), "linear", "run 'grid': expected a mapping"),
        (("runs", "grid", "training"), None, "run 'grid': expected training"),
        (("runs", "grid", "training"), "liner", "unknown training 'liner'. Did you mean 'linear'"),
        (("runs", "grid", "problems"), "world", "problems: expected a list of names"),
        (("runs", "grid", "seeds"), "two", "seeds: expected a whole number"),
        (("runs", "grid", "settings"), [{"rho": 0.1, "beta": [0.3]}], "settings: expected lists rho and beta"),
    ],
)
def test_mistakes_are_named(tmp_path, place, value, message):
    content = json.loads(json.dumps(RECIPE))
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=message):
        read_protocol_recipe(path)


def test_a_recipe_that_is_none(tmp_path):
    path = tmp_path / "recipe.yaml"
    with pytest.raises(ConfigError, match="Recipe not found"):
        read_protocol_recipe(path)
    path.write_bytes(b"runs: \xff")
    with pytest.raises(ConfigError, match="not a YAML file in UTF-8"):
        read_protocol_recipe(path)


def test_committed_recipes_can_be_read():
    folder = Path(__file__).parents[2] / "recipes"
    for path in folder.glob("sk_ll*.yaml"):
        cells = read_protocol_recipe(path)
        assert cells
        assert {cell.problem for cell in cells} >= {"mosi"}


def test_text_is_made_from_owned_samples_alone():
    from lacunar.data.arrays import from_arrays
    from lacunar.datasets._text import text_vectors, words_of

    words = ["good film", "bad film", "good story", "bad story"] * 10
    data = from_arrays({"text": words, "x": np.zeros((40, 2))}, np.arange(40) % 2)
    parts = data.split(train=0.6, val=0.2, test=0.2, seed=0)
    rows = np.arange(10)
    made = text_vectors(parts, rows=rows, size=3)
    assert made.train.kinds["text"] == "vector"
    assert words_of(parts.train, "text")[0] == words[int(parts.train.row[0])]
    # Other words in rows that are not owned change nothing about those that are.
    other = [w if i in set(parts.train.row[rows].tolist()) else "else" for i, w in enumerate(words)]
    again = from_arrays({"text": other, "x": np.zeros((40, 2))}, np.arange(40) % 2)
    again_parts = again.split(indices=parts.ids)
    changed = text_vectors(again_parts, rows=rows, size=3)
    first = made.train.select(rows).__getitems__(range(10)).inputs["text"]
    assert np.allclose(first, changed.train.select(rows).__getitems__(range(10)).inputs["text"])


def test_cells_are_read_back(recipe, tmp_path):
    cell = read_protocol_recipe(recipe)[0]
    first = run_protocol_cell(cell, tmp_path)
    path = tmp_path / "cells" / f"{cell.key}.json"
    path.write_text(json.dumps({**first, "mark": 1}))
    assert run_protocol_cell(cell, tmp_path)["mark"] == 1


def rows_of(scores):
    """Rows of arms over seeds of one problem, from lists of scores."""
    table = [
        {"run": "r", "problem": "p", "rho": 0.1, "beta": 0.1, "seed": seed, "arm": arm, "score": score, "constant": 0.5}
        for arm, values in scores.items()
        for seed, score in enumerate(values)
    ]
    return {"rows": pd.DataFrame(table)}


def test_verdicts_follow_the_intervals():
    frames = rows_of({"a": [0.80, 0.82, 0.81], "b": [0.70, 0.71, 0.72], "c": [0.70, 0.90, 0.80]})
    claim = {"better": "A WON", "worse": "A LOST", "unclear": "NOBODY KNOWS"}

    def said(first, second):
        return tables.verdicts(frames, "r", [{"first": first, "second": second, **claim}])

    assert "A WON (+10.0 [" in said("a", "b")
    assert "A LOST (-10.0 [" in said("b", "a")
    assert "NOBODY KNOWS" in said("a", "c")
    losses = {"rows": frames["rows"].assign(log_loss=1 - frames["rows"]["score"])}
    assert "+0.100 [+0.0" in tables.differences(losses, "r", [["a", "b", ""]], measure="log_loss")
    table = tables.differences(frames, "r", [["a", "b", "what it is"]])
    assert "| a - b | what it is | p | +10.0 [" in table


def test_rank_verdict_names_who_is_better():
    subsets = ["a+b", "a+c", "b+c"]
    said = {"utility": [1, 3, 2], "good": [1, 2, 3], "bad": [3, 2, 1]}
    found = [
        {"run": "r", "problem": "p", "rho": 0.1, "beta": 0.1, "seed": seed, "indicator": name, "subset": subset,
         "value": value, "realised_log_loss": -number}
        for seed in range(3)
        for name, values in said.items()
        for number, (subset, value) in enumerate(zip(subsets, values))
    ]  # fmt: skip
    frames = {"indicators": pd.DataFrame(found)}
    words = tables.rank_verdict(frames, "r", ["p"])
    assert "`good` ranked clearly better" in words
    assert "`bad` ranked clearly worse" in words
    assert "| good | 1.00" in tables.rank_correlation(frames, "r", ["p"])


def test_the_page_can_be_made_from_nothing():
    text = (Path(__file__).parents[2] / "docs" / "sk-ll.template.md").read_text()
    blocks = re.findall(r"\{\{(\w+) (\{.*?\})\}\}(?!\})", text, flags=re.S)
    assert len(blocks) > 20
    for name, arguments in blocks:
        assert tables.TABLES[name]({}, **json.loads(arguments)) == tables.NOTHING
