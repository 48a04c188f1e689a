"""Finished cells travel in one file and are not run again where they arrive."""

import json

import pytest
import yaml

from lacunar.bench.archive import export_cells, import_cells
from lacunar.bench.recipe import read_recipe
from lacunar.bench.runner import run_cells
from lacunar.bench.store import Store
from lacunar.bench.tables import collect
from lacunar.cli import main
from lacunar.errors import RunError


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A recipe of two cells and a folder where both are finished."""
    place = tmp_path_factory.mktemp("archive")
    world = {"dataset": "synthetic", "options": {"world": "additive", "n": 100}}
    recipe = {"seeds": 2, "methods": {"late": {"peer": "late fusion"}}, "problems": {"world": world}}
    (place / "r.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    cells = read_recipe(place / "r.yaml")
    assert not any(step.failed for step in run_cells(cells, place / "out"))
    return cells, place / "out"


def test_cells_come_back_whole_and_are_not_run_again(ran, tmp_path):
    cells, folder = ran
    file, again = tmp_path / "cells.jsonl", tmp_path / "again"
    assert main(["bench", "export", str(folder), "--out", str(file)]) == 0
    assert len(file.read_text().splitlines()) == 2
    assert main(["bench", "import", str(file), "--out", str(again)]) == 0
    assert list(Store(again).results()) == list(Store(folder).results())
    assert collect(again).equals(collect(folder))
    assert list(run_cells(cells, again)) == []


def test_exports_of_two_machines_add_up(ran, tmp_path):
    _, folder = ran
    file = tmp_path / "cells.jsonl"
    assert export_cells(folder, file) == 2
    text = file.read_text()
    one = tmp_path / "one.jsonl"
    one.write_text(text.splitlines()[0] + "\n")
    assert import_cells(one, tmp_path / "half") == 1
    assert export_cells(tmp_path / "half", file) == 2
    assert file.read_text() == text
    assert import_cells(file, tmp_path / "half") == 1
    assert import_cells(file, tmp_path / "half") == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [("{", "cannot be read as exported cells"), ("{}", "line 2 is no cell"), ("[1]", "line 2 is no cell")],
)
def test_a_damaged_file_adds_nothing(ran, tmp_path, line, said):
    file = tmp_path / "cells.jsonl"
    export_cells(ran[1], file)
    file.write_text(file.read_text().splitlines()[0] + "\n" + line + "\n")
    with pytest.raises(RunError, match=said):
        import_cells(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["../elsewhere", "a/b", "..", "", 3])
def test_a_key_stays_within_the_folder(ran, tmp_path, key):
    file = tmp_path / "cells.jsonl"
    export_cells(ran[1], file)
    first = json.loads(file.read_text().splitlines()[0])
    file.write_text(json.dumps(first | {"key": key}) + "\n")
    with pytest.raises(RunError, match="line 1 is no cell"):
        import_cells(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_to_export(tmp_path):
    with pytest.raises(RunError, match="holds no finished cell to export"):
        export_cells(tmp_path / "empty", tmp_path / "cells.jsonl")
    assert not (tmp_path / "cells.jsonl").exists()
    assert main(["bench", "import", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "out")]) != 0
