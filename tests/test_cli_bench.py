"""``lacunar bench`` from end to end on cells that take a second."""

import sys

import pytest
import yaml
from joblib.externals.loky import get_reusable_executor

from lacunar.cli import main

RECIPE = {
    "seeds": 2,
    "methods": {"late": {"peer": "late fusion"}, "trees": {"peer": "boosting"}},
    "problems": {
        "world": {
            "dataset": "synthetic", "options": {"world": "additive", "n": 100}, "modalities": ["m0", "m1", "m2"],
            "settings": ["a"],
        }
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    (folder / "r.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    return folder


def test_run_again_and_report(place, capsys):
    words = ["bench", "run", str(place / "r.yaml"), "--out", str(place / "out")]
    assert main([*words, "--only", r"late \| 0"]) == 0
    out, err = capsys.readouterr()
    assert "1 of 1 cells are finished" in out
    assert "[1/1, 0 s left] world (a) | late | 0: mean 0." in err
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "4 of 4 cells are finished" in out
    assert "[3/3, 0 s left]" in err
    assert main(words) == 0
    assert capsys.readouterr().err == "", "a finished cell was run again"
    assert main(["bench", "report", str(place / "out"), "--against", "late", "--out", str(place / "page.html")]) == 0
    assert str(place / "page.html") in capsys.readouterr().out
    page = (place / "page.html").read_text()
    assert "trees" in page and "world" in page
    assert (place / "tables" / "mean.csv").exists()


def test_a_limit_leaves_cells_for_the_next_run(place, capsys):
    words = ["bench", "run", str(place / "r.yaml"), "--out", str(place / "limited"), "--limit", "1e-6"]
    assert main(words) == 0
    out, _ = capsys.readouterr()
    assert "0 of 4 cells are finished" in out
    assert "4 were left for the next run" in out


def test_on_a_terminal_there_is_a_bar(place, capsys, monkeypatch):
    monkeypatch.setattr("lacunar.cli.bench.show_progress", lambda: True)
    words = ["bench", "run", str(place / "r.yaml"), "--out", str(place / "bar"), "--only", "late"]
    assert main(words) == 0
    _, err = capsys.readouterr()
    assert "2/2" in err
    assert "mean 0." not in err


def test_help_names_the_commands(capsys):
    assert main(["bench"]) == 0
    out, _ = capsys.readouterr()
    assert all(f"  {name} " in out for name in ("run", "report", "tune"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("bench rum", "unknown command 'bench rum'. Did you mean 'run'?"),
        ("bench run R", "--out is needed, for example --out results/benchmark"),
        ("bench run R --out O --onyl x", "unknown option --onyl. Did you mean '--only'?"),
        ("bench run R --out O --only zzz", "--only 'zzz' matches none of 4 cells, such as 'world (a) | late | 0'"),
        ("bench run nowhere.yaml --out O", "Recipe not found: nowhere.yaml"),
        ("bench run R --out O --cluster loca", "expected 'local:2' (two workers here)"),
        ("bench report nowhere", "nowhere: no finished cells to collect; run the recipe first"),
        ("bench tune R", "--out is needed, for example --out results/tuning"),
        ("bench tune R --out O --method lat", "Unknown method 'lat'. Did you mean 'late'?"),
        ("bench tune R --out O", "No method of the recipe: there are no ranges to search"),
    ],
)
def test_mistakes_get_one_clear_line(place, capsys, words, message):
    stand = {"R": str(place / "r.yaml"), "O": str(place / "never")}
    assert main([stand.get(word, word) for word in words.split()]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_method_that_lies_where_the_command_is_run(place, tmp_path, monkeypatch, capsys, jobs):
    (tmp_path / "mine.py").write_text(
        'from lacunar.objectives import Joint\n\n\nclass Mine(Joint):\n    """Joint training."""\n'
    )
    content = {**RECIPE, "methods": {"mine": {"objective": "mine.Mine", "fit": {"max_epochs": 1}}}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    get_reusable_executor().shutdown()  # workers of earlier tests have their own path; a command has none yet
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])  # as an installed command has it
    try:
        assert main(["bench", "run", "r.yaml", "--out", "out", "--n_jobs", jobs]) == 0
    finally:
        sys.modules.pop("mine", None)
    assert "2 of 2 cells are finished" in capsys.readouterr().out
