"""Tuning: on validation only, the same number of trials for all, to be continued, and usable in a recipe."""

import pytest
import yaml

from lacunar.bench.method import arguments_of, ranges_of
from lacunar.bench.recipe import open_recipe, read_recipe
from lacunar.bench.tune import tune
from lacunar.bench.tuned import keep
from lacunar.cli import main
from lacunar.errors import ConfigError, MissingExtraError

optuna = pytest.importorskip("optuna")

RECIPE = {
    "seeds": 1,
    "trials": 2,
    "fit": {"max_epochs": 1},
    "methods": {
        "joint": {"objective": "Joint"},
        "dropout": {"objective": "ModalityDropout", "arguments": {"rate": 0.3}},
        "blend": {"objective": "MCE", "arguments": {"capability": False}},
    },
    "problems": {
        "world": {"dataset": "synthetic", "options": {"world": "additive", "n": 100}, "rates": {"m0": 0.3}},
    },
}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    return path


def trials_of(folder, name):
    path = next((folder / "studies").glob(f"*{name}*.db"))
    storage = f"sqlite:///{path}"
    study = optuna.load_study(study_name=optuna.get_all_study_names(storage)[0], storage=storage)
    return study, [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]


def test_tuning_goes_on_and_gives_arguments_for_a_recipe(recipe, tmp_path, capsys, monkeypatch):
    touched = []
    monkeypatch.setattr("lacunar.evaluation.evaluate", lambda *given, **more: touched.append(given))
    out = tmp_path / "out"
    words = ["bench", "tune", str(recipe), "--out", str(out)]
    assert main(words) == 0
    assert not touched, "the test part was scored"
    said = capsys.readouterr().out
    assert "world | dropout | 0: 2 trials" in said
    assert "world | blend | 0: 2 trials" in said
    assert "joint" not in said.replace("tuned", "")
    study, first = trials_of(out, "dropout")
    assert len(first) == 2
    # The first trial is what the recipe says.
    assert first[0].params == {"rate": 0.3}
    assert main([*words, "--method", "dropout", "--problem", "world", "--trials", "3"]) == 0
    study, more = trials_of(out, "dropout")
    assert len(more) == 3
    assert [trial.value for trial in more[:2]] == [trial.value for trial in first]
    assert len({trial.params["rate"] for trial in more}) == 3
    assert all(0.1 <= trial.params["rate"] <= 0.8 for trial in more)
    tuned = yaml.safe_load((out / "tuned.yaml").read_text())["problems"]["world"]
    assert tuned["dropout"] == {0: study.best_params}
    assert set(tuned) == {"dropout", "blend"}
    trials = yaml.safe_load((out / "tuned.yaml").read_text())["trials"]["world"]
    assert trials == {"dropout": {0: 3}, "blend": {0: 2}}
    recipe.write_text(yaml.safe_dump(RECIPE | {"tuned": str(out / "tuned.yaml")}))
    cells = {cell.method: cell for cell in read_recipe(recipe)}
    assert cells["dropout"].run["arguments"] == study.best_params
    assert cells["blend"].run["arguments"] == {"capability": False, **tuned["blend"][0]}


def test_a_trial_is_the_training_that_a_cell_does(recipe, tmp_path):
    """The first trial's score is the validation score of the recipe's own cell."""
    from lacunar.bench.execute import run_cell

    tune(recipe, tmp_path / "out", method="dropout", trials=1)
    cell = next(cell for cell in read_recipe(recipe) if cell.method == "dropout")
    result = run_cell(cell, tmp_path / "cells")
    assert trials_of(tmp_path / "out", "dropout")[1][0].value == pytest.approx(result["best_score"], abs=1e-12)


def test_every_seed_is_tuned_on_its_own_validation_part(recipe, tmp_path, monkeypatch):
    seen = {}

    def score(cell, trial, data, store):
        seen.setdefault(cell.seed, set()).add(data.hash)
        assert data.test is None
        return trial.suggest_float("rate", 0.1, 0.8) * (-1) ** cell.seed

    monkeypatch.setattr("lacunar.bench.tune._validate", score)
    # The recipe's own tuned.yaml is no start for tuning, so it may be there in part or not at all.
    recipe.write_text(yaml.safe_dump(RECIPE | {"seeds": 3, "tuned": "out/tuned.yaml"}, sort_keys=False))
    tune(recipe, tmp_path / "out", method="dropout", seeds=2)
    assert [len(parts) for parts in seen.values()] == [1, 1] and seen[0] != seen[1]
    with pytest.raises(ConfigError, match=f"none for seed 2; run lacunar bench tune {recipe} .* --method dropout"):
        read_recipe(recipe)
    tune(recipe, tmp_path / "out", method="dropout")
    by_seed = yaml.safe_load((tmp_path / "out" / "tuned.yaml").read_text())["problems"]["world"]["dropout"]
    assert by_seed[0] == by_seed[2] != by_seed[1]
    cells = {cell.seed: cell for cell in read_recipe(recipe) if cell.method == "dropout"}
    assert {seed: cell.run["arguments"] for seed, cell in cells.items()} == by_seed


def test_a_method_that_refuses_stops_no_other(recipe, tmp_path, capfd):
    full = {"objective": "MMIN", "arguments": {"teacher": True}}
    methods = {"full": full, "dropout": RECIPE["methods"]["dropout"]}
    recipe.write_text(yaml.safe_dump(RECIPE | {"trials": 1, "methods": methods}, sort_keys=False))
    before = read_recipe(recipe)
    assert main(["bench", "tune", str(recipe), "--out", str(tmp_path / "out")]) == 0
    said, told = capfd.readouterr()
    assert "world | full | 0: refused: MMIN needs complete training data" in said
    assert "world | dropout | 0: 1 trials" in said
    assert "Traceback" not in told
    recipe.write_text(recipe.read_text() + f"tuned: {tmp_path / 'out' / 'tuned.yaml'}")
    assert read_recipe(recipe)[0] == before[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_the_recipe_says_is_tried_after_an_interruption(recipe, tmp_path, monkeypatch, error):
    def stop(*given):
        raise error

    monkeypatch.setattr("lacunar.bench.tune._validate", stop)
    for _ in range(2):
        with pytest.raises(error):
            tune(recipe, tmp_path / "out", method="dropout")
    monkeypatch.setattr("lacunar.bench.tune._validate", lambda cell, trial, *_: trial.suggest_float("rate", 0.1, 0.8))
    tune(recipe, tmp_path / "out", method="dropout")
    done = trials_of(tmp_path / "out", "dropout")[1]
    assert len(done) == 2
    assert [trial.params["rate"] for trial in done].index(0.3) == 0


@pytest.mark.parametrize("every", [15, None])
def test_what_the_recipe_says_is_a_choice_too(recipe, tmp_path, every):
    methods = {"blend": {"objective": "GradientBlending", "arguments": {"every": every}}}
    recipe.write_text(yaml.safe_dump(RECIPE | {"methods": methods}, sort_keys=False))
    tune(recipe, tmp_path / "out", trials=1)
    (trial,) = trials_of(tmp_path / "out", "blend")[1]
    assert trial.params["every"] == every


def test_a_run_says_what_was_tuned_less(recipe, tmp_path, capsys):
    file = tmp_path / "tuned.yaml"
    keep(file, "world", "dropout", 0, {"rate": 0.4}, trials=2)
    recipe.write_text(yaml.safe_dump(RECIPE | {"tuned": str(file), "seeds": 1}, sort_keys=False))
    assert main(["bench", "run", str(recipe), "--out", str(tmp_path / "out"), "--only", "dropout"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"blend is not tuned on world, as others are; go on with lacunar bench tune {recipe}" in said
    assert "joint" not in said
    keep(file, "world", "blend", 0, {}, trials=7)
    assert open_recipe(recipe).uneven == ("Methods were tuned with different numbers of trials: dropout 2; blend 7.",)
    keep(file, "world", "blend", 0, {}, trials=2)
    assert open_recipe(recipe).uneven == ()


def test_a_file_of_an_earlier_version_is_written_anew(recipe, tmp_path):
    (tmp_path / "tuned.yaml").write_text("problems: {world: {dropout: {rate: 0.5}}}")
    recipe.write_text(yaml.safe_dump(RECIPE | {"tuned": "tuned.yaml"}, sort_keys=False))
    with pytest.raises(ConfigError, match="world, dropout: expected arguments by seed, .*got {'rate': 0.5}"):
        read_recipe(recipe)
    keep(tmp_path / "tuned.yaml", "world", "dropout", 0, {"rate": 0.4}, trials=2)
    assert [cell.run["arguments"] for cell in read_recipe(recipe) if cell.method == "dropout"] == [{"rate": 0.4}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "dropot"}, "Unknown method 'dropot'. Did you mean 'dropout'"),
        ({"problem": "wrold"}, "Unknown problem 'wrold'. Did you mean 'world'"),
        ({"method": "joint"}, "joint: there are no ranges to search"),
        ({"trials": 0}, "trials: expected a whole number of at least 1, got 0"),
        ({"seeds": 2}, "seeds: expected at most the 1 of the recipe, got 2"),
    ],
)
def test_mistakes_are_named(recipe, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        tune(recipe, tmp_path / "out", **options)


def test_a_missing_package_names_its_extra(recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lacunar\[tune\]'"):
        tune(recipe, tmp_path / "out")


@pytest.mark.parametrize(("completion", "trial"), [(5.0, 5.0), (0, None)])
def test_what_the_recipe_says_lies_in_the_range(completion, trial):
    run = {"objective": "MCE", "arguments": {"completion": completion}}
    span = ranges_of(run).get("completion")  # 0.1 to 3 by itself, on a logarithmic scale
    assert (span and span.high) == trial and arguments_of(run)["completion"] == completion
    assert ranges_of(run)["single"].high == 3.0
