"""The command line from end to end on a small table, and without torch where it must be quick."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lacunar.cli import COMMANDS, main

N = 60


def write_table(path, n=N, seed=0, target=True, empty=None):
    """Two modalities of which the second is often absent."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    a, b = rng.normal(size=(n, 2)) + 2 * label[:, None], rng.normal(size=(n, 3)) - 2 * label[:, None]
    b[rng.random(n) < 0.4] = np.nan
    table = {"id": [f"s{i:03d}" for i in range(n)], "sex": np.where(rng.random(n) < 0.5, "f", "m")}
    table |= {f"a_{i}": a[:, i] for i in range(2)} | {f"b_{i}": b[:, i] for i in range(3)}
    table["ward"] = np.where(label, "up", "down")
    frame = pd.DataFrame(table)
    if empty is not None:
        frame.loc[empty, [f"a_{i}" for i in range(2)] + [f"b_{i}" for i in range(3)]] = np.nan
        frame.loc[empty, "ward"] = np.nan
    if target:
        frame["ill"] = np.where(label, "yes", "no")
    frame.to_csv(path, index=False)
    return frame


YAML = """
table: {table}
id: id
modalities: {{alpha: 'a_*', beta: 'b_*', place: ward}}
"""


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """A folder with a table, its description, new rows, and a trained run."""
    home = tmp_path_factory.mktemp("clinic")
    write_table(home / "old.csv")
    new = write_table(home / "new.csv", 8, seed=1, target=False, empty=3)
    new.loc[[0, 1, 2, 4, 5, 6, 7], "ward"] = "up"  # one level of two: the columns must stay those of training
    new.to_csv(home / "new.csv", index=False)
    described = YAML.format(table="old.csv") + "target: ill\nsubgroups: [sex]\nsplits: {train: .5, val: .2, test: .3}\n"
    (home / "old.yaml").write_text(described)
    (home / "new.yaml").write_text(YAML.format(table="new.csv"))
    assert main(train(home)) == 0
    return home


def train(home, *more, out="run"):
    options = ["--objective", "MCE", "--objective.capability", "false", "--trainer.max_epochs", "2", "--quiet", "true"]
    return ["train", "--data", str(home / "old.yaml"), "--out", str(home / out), *options, *more]


def said(capsys):
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_training_leaves_a_tested_model_and_a_report(clinic):
    run = clinic / "run"
    for name in (
        "model/config.json",
        "model/model.safetensors",
        "subsets.json",
        "data.json",
        "report.html",
        "presence.csv",
    ):
        assert (run / name).is_file(), name
    table = json.loads((run / "subsets.json").read_text())
    assert table["modalities"] == ["alpha", "beta", "place"]
    assert len(table["subsets"]) == 8
    assert len(table["ids"]) == 18
    assert "Subgroups" in (run / "report.html").read_text()
    assert "Calibration" in (run / "report.html").read_text()


def test_a_rerun_returns_at_once_and_scores_nothing_again(clinic, capsys, monkeypatch):
    import lacunar.evaluation

    monkeypatch.setattr(lacunar.evaluation, "evaluate", lambda *_, **__: pytest.fail("the test part was read again"))
    before = (clinic / "run/subsets.json").read_bytes()
    assert main(train(clinic)) == 0
    assert "accuracy on 7 subsets" in said(capsys)[0]
    assert (clinic / "run/subsets.json").read_bytes() == before


def test_a_rerun_with_other_arguments_is_refused_by_name(clinic, capsys):
    assert main(train(clinic, "--trainer.lr", "0.5")) == 2
    err = said(capsys)[1]
    assert "lr: the folder has 0.001, this call has 0.5" in err
    assert "Traceback" not in err


def test_a_rerun_on_other_data_is_refused_by_name(clinic, capsys):
    assert main(train(clinic, "--rates", "beta=.5")) == 2
    assert "--rates was None, is {'beta': 0.5}" in said(capsys)[1]


def test_evaluate_gives_the_same_table_again(clinic, capsys):
    assert main(["evaluate", str(clinic / "run"), "--out", str(clinic / "again.json")]) == 0
    assert "alpha+beta+place" in said(capsys)[0]
    old, new = (json.loads(path.read_text()) for path in (clinic / "run/subsets.json", clinic / "again.json"))
    assert old["scores"] == new["scores"]
    assert old["subsets"] == new["subsets"]


def test_evaluate_other_data_and_other_parts(clinic, capsys):
    assert (
        main(["evaluate", str(clinic / "run"), "--data", str(clinic / "old.yaml"), "--out", str(clinic / "t.csv")]) == 0
    )
    assert f"{N} samples" in said(capsys)[0]
    assert pd.read_csv(clinic / "t.csv").shape[0] == 8
    assert main(["evaluate", str(clinic / "run"), "--split", "val"]) == 0
    assert "12 samples" in said(capsys)[0]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("data", ["new.yaml", "new.csv"])
def test_predict_keeps_every_row_and_flags_the_empty_one(clinic, capsys, kind, data):
    target = clinic / f"predictions.{kind}"
    assert main(["predict", str(clinic / "run"), "--data", str(clinic / data), "--out", str(target)]) == 0
    assert "8 predictions" in said(capsys)[0]
    found = pd.read_csv(target, keep_default_na=False) if kind == "csv" else pd.read_parquet(target)
    assert list(found) == ["id", "prediction", "probability_no", "probability_yes", "modalities", "flag"]
    assert found["id"].tolist() == [f"s{i:03d}" for i in range(8)]
    assert set(found["prediction"]) <= {"no", "yes"}
    assert np.allclose(found["probability_no"] + found["probability_yes"], 1)
    assert found["flag"].ne("").tolist() == [i == 3 for i in range(8)]
    assert found["modalities"][3] == "none"
    assert found["modalities"][0].endswith("place")
    assert found["probability_yes"][3] == pytest.approx(0.5, abs=0.04), "the prior of the training data"


def test_predictions_do_not_depend_on_the_other_rows(clinic):
    whole, alone = clinic / "whole.csv", clinic / "alone.csv"
    pd.read_csv(clinic / "new.csv").iloc[[5]].to_csv(clinic / "one.csv", index=False)
    for data, out in (("new.csv", whole), ("one.csv", alone)):
        assert main(["predict", str(clinic / "run"), "--data", str(clinic / data), "--out", str(out)]) == 0
    columns = ["probability_no", "probability_yes"]
    assert np.allclose(pd.read_csv(whole)[columns].iloc[5], pd.read_csv(alone)[columns].iloc[0], atol=1e-6)


def test_predict_prints_without_out(clinic, capsys):
    assert main(["predict", str(clinic / "run"), "--data", str(clinic / "new.csv")]) == 0
    assert said(capsys)[0].splitlines()[0] == "id,prediction,probability_no,probability_yes,modalities,flag"


def test_report_again_with_hidden_counts(clinic, capsys):
    page = clinic / "clinic.html"
    words = ["report", str(clinic / "run"), "--out", str(page), "--title", "A <clinic>", "--min_cell", "5"]
    assert main(words) == 0
    assert str(page) in said(capsys)[0]
    text = page.read_text()
    assert "A &lt;clinic&gt;" in text
    assert "Counts below 5 are not shown" in text
    assert "Calibration" in text


def test_describe_data(clinic, capsys):
    assert main(["data", "describe", str(clinic / "old.yaml")]) == 0
    out = said(capsys)[0]
    assert "60 samples" in out
    assert "alpha+beta+place" in out
    assert "missing, train" in out
    assert main(["data", "describe", str(clinic / "new.yaml")]) == 0
    assert "no target" in said(capsys)[0]


def test_a_recipe_and_an_objective_of_ones_own(clinic, monkeypatch, capsys):
    (clinic / "mine.py").write_text(
        "from lacunar.objectives import Joint\n"
        "class Mine(Joint):\n"
        "    def __init__(self, strength: float = 1.0):\n"
        "        super().__init__()\n"
        "        self.strength = strength\n"
        "    def forward(self, model, batch):\n"
        "        return {'mine': self.strength * super().forward(model, batch)['task']}\n"
    )
    monkeypatch.chdir(clinic)
    recipe = "data: old.yaml\nobjective: {class_path: mine.Mine, init_args: {strength: 2}}\ntrainer: {max_epochs: 1}\n"
    (clinic / "recipe.yaml").write_text(recipe + "rates: {beta: 0.3}\nquiet: true\n")
    assert main(["train", "--config", "recipe.yaml", "--out", "own", "--objective.strength", "3"]) == 0
    line = json.loads((clinic / "own/log.jsonl").read_text().splitlines()[0])
    assert "loss/mine" in line
    assert "strength=3" in json.loads((clinic / "own/config.json").read_text())["asked"]["objective"][0]
    assert json.loads((clinic / "own/command.json").read_text())["rates"] == {"beta": 0.3}
    assert "Some cells were hidden on purpose" in (clinic / "own/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian", "unknown command 'trian'. Did you mean 'train'?"),
        ("--hlep", "unknown option '--hlep'"),
        ("train --data D", "--out is needed, for example --out runs/mce"),
        ("train --out O", "--data is needed, for example --data patients.yaml"),
        ("train --data D --out O --objectve MCE", "unknown option --objectve. Did you mean '--objective'?"),
        ("train --data D --out O --objective MCEE", "unknown objective 'MCEE'. Did you mean 'MCE'?"),
        (
            "train --data D --out O --objective MCE --objective.subst 2",
            "MCE has no option 'subst'. Did you mean 'subse",
        ),
        ("train --data D --out O --objective MCE --objective.gap x", "Expected one of ['shapley'"),
        ("train --data D --out O --objective MCE --objective.momentum 2", "momentum: expected a number in [0, 1)"),
        ("train --data D --out O --trainer.max_epoch 2", "Did you mean '--trainer.max_epochs'?"),
        ("train --data D --out O --trainer.lr fast", "--trainer.lr: Expected a float. Got value: fast"),
        ("train --data D --out O --trainer.lr -1", "lr: expected a number above 0, got -1.0"),
        ("train --data digts --out O", "Did you mean 'digits'?"),
        ("train --data nowhere.yaml --out O", "Data description not found: nowhere.yaml"),
        ("train --data T --out O", "is a table; expected its description"),
        ("train --data D --out O --rates beta", "--rates: every modality: expected the fraction that is absent"),
        ("train --data D --out O --rates =.5", "--rates: expected NAME=RATE between commas"),
        ("train --data D --out O --rates betta=.5", "unknown modality 'betta'. Did you mean 'beta'?"),
        (
            "train --data D --out O --rates beta=1.5",
            "the fraction absent in [0, 1) for modality 'beta', got 1.5",
        ),
        ("train --data D --out O --make_model nowhere.make", "--make_model nowhere.make: cannot be imported"),
        ("train --data D --out O --make_model a.b --model.features 9", "--model.features is for the default model"),
        ("train --data D --out O --law independant", "unknown law 'independant'. Did you mean 'independent'?"),
        ("train --data D --out O --law exact-marginal", "--law exact-marginal needs --rates"),
        ("train --data D --out O --law not-at-random --rates beta=.5", "needs a driver, which only Python can give"),
        ("train --config nowhere.yaml", "--config: File does not exist"),
        ("train extra", "unexpected argument 'extra'"),
        ("evaluate", "run"),
        ("evaluate nowhere", "nowhere is not the folder of a run"),
        ("evaluate R --split tset", "unknown part 'tset'. Did you mean 'test'?"),
        ("evaluate R --out t.png", "--out: expected a path that ends in .json or .csv"),
        ("predict R", "--data is needed, for example --data new.yaml"),
        ("predict R --data N --out p.xlsx", "--out: expected a path that ends in .csv or .parquet"),
        ("predict R --data L", "The model was trained with the modality 'place'"),
        ("report nowhere", "nowhere is not the folder of a run"),
        ("data describ D", "unknown command 'data describ'. Did you mean 'describe'?"),
        ("data describe D --mincell 3", "unknown option --mincell. Did you mean '--min_cell'?"),
        ("doctor --now", "lacunar doctor takes no options, got '--now'"),
    ],
)
def test_mistakes_get_one_clear_line(clinic, capsys, words, message):
    (clinic / "less.yaml").write_text("table: new.csv\nid: id\nmodalities: {alpha: 'a_*', beta: 'b_*'}\n")
    stand = {"D": "old.yaml", "T": "old.csv", "N": "new.yaml", "R": "run", "L": "less.yaml", "O": "never"}
    given = [str(clinic / stand[word]) if word in stand else word for word in words.split()]
    assert main(given) == 2
    out, err = said(capsys)
    assert message in err
    assert "Traceback" not in out + err
    assert not (clinic / "never/result.json").exists()


def test_traceback_on_request(clinic):
    from lacunar.errors import RunError

    with pytest.raises(RunError):
        main(["report", str(clinic / "nowhere"), "--traceback"])


def test_data_that_changed_under_a_run_are_noticed(clinic, capsys, tmp_path):
    import shutil

    home = tmp_path / "moved"
    shutil.copytree(clinic, home)
    about = json.loads((home / "run/command.json").read_text())
    (home / "run/command.json").write_text(json.dumps(about | {"data": str(home / "old.yaml")}))
    assert main(["evaluate", str(home / "run")]) == 0
    whole = pd.read_csv(home / "old.csv")
    gap, label, value = whole.copy(), whole.copy(), whole.copy()
    gap.loc[whole["b_0"].first_valid_index(), [f"b_{i}" for i in range(3)]] = np.nan
    label.loc[0, "ill"] = "yes"
    value.loc[0, "a_0"] += 1
    for changed in (gap, label, value):
        changed.to_csv(home / "old.csv", index=False)
        assert main(["evaluate", str(home / "run")]) == 2
        assert "have changed since" in said(capsys)[1]
    # The same samples in other parts: what was trained on must not be scored as test.
    whole.to_csv(home / "old.csv", index=False)
    described = (home / "old.yaml").read_text()
    (home / "old.yaml").write_text(described.replace("train: .5, val: .2, test: .3", "train: .4, val: .3, test: .3"))
    assert main(["evaluate", str(home / "run")]) == 2
    assert "in train, val" in said(capsys)[1]


def test_other_data_are_split_with_the_seed_of_the_run(clinic, capsys):
    assert main(train(clinic, "--split_seed", "5", out="fifth")) == 0
    again = ["evaluate", str(clinic / "fifth"), "--out", str(clinic / "own.json")]
    assert main(again) == 0
    named = ["--data", str(clinic / "old.yaml"), "--split", "test", "--out", str(clinic / "named.json")]
    assert main(["evaluate", str(clinic / "fifth"), *named]) == 0
    own, named = (json.loads((clinic / f"{name}.json").read_text())["ids"] for name in ("own", "named"))
    assert own == named


def test_a_law_without_rates_hides_cells(clinic):
    assert main(train(clinic, "--law", "uniform-pattern", out="uniform")) == 0
    log = json.loads((clinic / "uniform/command.json").read_text())
    assert log["parts"] != json.loads((clinic / "run/command.json").read_text())["parts"]


def test_a_folder_called_like_a_data_set_is_none(tmp_path, monkeypatch):
    from lacunar.cli.train import _absolute

    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert _absolute("digits") == "digits"


def test_interrupting_says_how_to_go_on(monkeypatch, capsys):
    import lacunar.cli.doctor

    def stop(words):
        raise KeyboardInterrupt

    monkeypatch.setattr(lacunar.cli.doctor, "run", stop)
    assert main(["doctor"]) == 130
    assert "interrupted" in said(capsys)[1]


def test_interrupted_training_goes_on(clinic, capsys, monkeypatch):
    import lacunar.training.callbacks as callbacks

    real, seen = callbacks.EpochKeeper.on_train_epoch_start, []

    def stop_in_the_second(self, trainer, module):
        seen.append(trainer.current_epoch)
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt
        real(self, trainer, module)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.EpochKeeper, "on_train_epoch_start", stop_in_the_second)
        assert main(train(clinic, out="stopped")) == 130
    out, err = said(capsys)
    assert "1 finished epochs are kept" in err
    assert "Traceback" not in out + err
    assert main(train(clinic, out="stopped")) == 0
    assert (clinic / "stopped/report.html").exists()
    logs = [(clinic / name / "log.jsonl").read_text() for name in ("run", "stopped")]
    assert logs[0] == logs[1], "as if nothing had happened"


def test_probes_at_the_end_and_over_training_reach_the_report(clinic, capsys, monkeypatch):
    from lacunar import evaluation

    quick = dict(seeds=2, epochs=1, min_steps=5, heads=("linear",))
    real, course = evaluation.capability, evaluation.capability_trajectory
    counted = []

    def capability(model, data, **options):
        counted.append("probes")
        return real(model, data, **options | quick)

    def capability_trajectory(snapshots, data, model):
        counted.append("trajectory")
        return course(snapshots, data, model, epochs=1, min_steps=5)

    monkeypatch.setattr(evaluation, "capability", capability)
    monkeypatch.setattr(evaluation, "capability_trajectory", capability_trajectory)
    words = train(clinic, "--probes", "true", "--trainer.max_epochs", "3", out="probed")
    assert main(words) == 0
    assert len(list((clinic / "probed/snapshots").iterdir())) == 3
    frame = pd.read_csv(clinic / "probed/trajectory.csv")
    assert sorted(frame["epoch"].unique()) == [0, 1, 2]
    text = (clinic / "probed/report.html").read_text()
    assert "Capability of each encoder during training" in text
    assert "Probes of the frozen encoders" in text
    assert main(words) == 0
    assert sorted(counted) == ["probes", "trajectory"], "the same command probes no second time"
    assert main([*words, "--resume", "false"]) == 0
    assert len(counted) == 4, "another run is probed again"
    capsys.readouterr()


def test_only_the_first_of_several_processes_evaluates_and_writes(clinic, capsys, monkeypatch):
    from lacunar.cli import train as command
    from lacunar.training import fit as module

    monkeypatch.setattr(module, "fit", lambda *_, **__: None)  # what another process returns from
    monkeypatch.setattr(command, "evaluate_once", lambda *_: pytest.fail("evaluated twice"))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert main(train(clinic, "--trainer.devices", "2", out="second")) == 0
    assert not (clinic / "second").exists()
    assert said(capsys)[0] == ""


def test_numbers_are_predicted_too(clinic, capsys):
    frame = pd.read_csv(clinic / "old.csv")
    frame["weight"] = 60 + 10 * frame["a_0"] + np.random.default_rng(0).normal(size=N)
    frame.to_csv(clinic / "weights.csv", index=False)
    (clinic / "weights.yaml").write_text(YAML.format(table="weights.csv") + "target: weight\n")
    words = ["train", "--data", str(clinic / "weights.yaml"), "--out", str(clinic / "weights"), "--quiet", "true"]
    assert main([*words, "--objective", "Joint", "--trainer.max_epochs", "1"]) == 0
    assert main(["predict", str(clinic / "weights"), "--data", str(clinic / "new.csv")]) == 0
    lines = [line.split(",") for line in said(capsys)[0].splitlines() if line.startswith(("id,", "s00"))]
    assert lines[0] == ["id", "prediction", "modalities", "flag"]
    assert len(lines) == 9
    prior = float(lines[4][1])
    assert 40 < prior < 90, "the row with nothing gets the mean of the training data"
    assert lines[4][3]


def test_the_demo_compares_and_returns_at_once(tmp_path, capsys, monkeypatch):
    from lacunar import datasets
    from lacunar.data.arrays import from_arrays

    rng = np.random.default_rng(0)
    label = np.arange(120) % 3
    views = {name: rng.normal(size=(120, 4)) + label[:, None] for name in ("seen", "heard", "read")}
    small = from_arrays(views, label, name="small").split(seed=0)
    monkeypatch.setattr(datasets, "load", lambda name, **_: small)
    words = ["demo", "--out", str(tmp_path / "demo"), "--max_epochs", "1"]
    assert main(words) == 0
    first = said(capsys)[0]
    assert "seen + heard + read" in first
    assert "Averaged over the 7 subsets" in first
    text = (tmp_path / "demo/report.html").read_text()
    assert "Compared with other ways of training" in text
    monkeypatch.setattr(datasets, "load", lambda *_, **__: pytest.fail("was done before"))
    assert main(words) == 0
    assert said(capsys)[0].split("accuracy on")[1] == first.split("accuracy on")[1]


def test_options_of_training_are_those_of_fit():
    import inspect

    from lacunar.cli.train import model_options, trainer_options
    from lacunar.models.defaults import default_model
    from lacunar.training.fit import fit

    offered, real = inspect.signature(trainer_options).parameters, inspect.signature(fit).parameters
    elsewhere = {"data", "model", "objective", "out", "references", "progress", "resume", "finish", "callbacks"}
    assert set(offered) == set(real) - elsewhere
    assert {name: option.default for name, option in offered.items()} == {name: real[name].default for name in offered}
    model, known = inspect.signature(model_options).parameters, inspect.signature(default_model).parameters
    assert {name: option.default for name, option in model.items()} == {name: known[name].default for name in model}


CHECK = """
import sys
from lacunar.cli import main
code = main(sys.argv[1:])
heavy = [name for name in ("torch", "pytorch_lightning", "pandas", "matplotlib") if name in sys.modules]
print("HEAVY", heavy, "CODE", code)
"""


@pytest.mark.parametrize("words", ["--help", "", "doctor --help", "--version", "demo --help", "data --help", "trian"])
def test_help_imports_nothing_heavy(words):
    done = subprocess.run([sys.executable, "-c", CHECK, *words.split()], capture_output=True, text=True, timeout=60)
    assert f"HEAVY [] CODE {2 if words == 'trian' else 0}" in done.stdout, done.stdout + done.stderr


def test_help_of_training_needs_no_lightning():
    done = subprocess.run(
        [sys.executable, "-c", CHECK, "train", "--help"], capture_output=True, text=True, timeout=120, check=True
    )
    assert "--objective.help" in done.stdout
    assert "--trainer.max_epochs" in done.stdout
    assert "pytorch_lightning" not in done.stdout.rsplit("HEAVY", 1)[1]


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    out = said(capsys)[0]
    assert all(f"  {name} " in out for name in COMMANDS)


def test_python_m_lacunar():
    done = subprocess.run([sys.executable, "-m", "lacunar", "--version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith("lacunar 0.")


def test_doctor_names_versions_and_the_fix(capsys, monkeypatch):
    from lacunar.cli import doctor

    real = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == "nibabel" else real(name))
    assert main(["doctor"]) == 0
    out = said(capsys)[0]
    assert "torch" in out
    assert "missing: nibabel" in out
    assert "pip install 'lacunar[medical]'" in out
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == "scipy" else real(name))
    assert main(["doctor"]) == 1
    assert "lacks scipy" in said(capsys)[0]


def test_examples_are_what_their_script_makes(capsys, tmp_path):
    folder = Path(__file__).parent.parent / "examples/patients"
    assert main(["data", "describe", str(folder / "patients.yaml")]) == 0
    assert "invented patients" in said(capsys)[0]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); import make, pathlib; "
         f"make.main(pathlib.Path({str(tmp_path)!r}))"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("patients.csv", "new_patients.csv"):
        assert (tmp_path / name).read_text() == (folder / name).read_text()


def test_evaluate_leaves_the_batch_size_to_the_data(clinic, capsys, monkeypatch):
    import lacunar.evaluation

    real, asked = lacunar.evaluation.evaluate, []
    monkeypatch.setattr(
        lacunar.evaluation, "evaluate", lambda m, d, size, **options: asked.append(size) or real(m, d, size, **options)
    )
    assert main(["evaluate", str(clinic / "run")]) == 0
    assert main(["evaluate", str(clinic / "run"), "--batch_size", "4"]) == 0
    assert asked == [None, 4]


@pytest.mark.parametrize(("select", "said"), [("best", ", on which the epoch was chosen"), ("last", "")])
def test_scores_without_a_test_part_say_what_they_are_of(tmp_path, select, said):
    from types import SimpleNamespace

    from lacunar.cli.train import evaluate_once
    from lacunar.data import Splits
    from tests.helpers import small_model, vectors

    data = vectors(M=2, n=40)
    splits = Splits(data.select(range(20)), data.select(range(20, 40)))
    asked = {"asked": {"select": select, "patience": None}}
    finished = SimpleNamespace(model=small_model(data), references=None, config=asked)
    table = evaluate_once(finished, splits, tmp_path)
    assert f"these are validation samples{said}: the data have no test part" in table.notes


def test_why_data_cannot_be_split_is_not_told_with_hidden_counts(clinic, capsys, monkeypatch):
    from lacunar.cli import source
    from lacunar.errors import DataError
    from tests.helpers import vectors

    def fail(*_):
        raise DataError("class 'rare' has 2 samples")

    monkeypatch.setattr(source, "load_parts", fail)
    monkeypatch.setattr(source, "load_whole", lambda _: vectors(n=30))
    assert main(["data", "describe", str(clinic / "old.yaml")]) == 0
    assert "'rare' has 2" in said(capsys)[0]
    assert main(["data", "describe", str(clinic / "old.yaml"), "--min_cell", "5"]) == 0
    out = said(capsys)[0]
    assert "cannot be split" in out
    assert "'rare' has 2" not in out
