"""A trained model refuses what it was not made for, by name, and a fit that is refused leaves nothing behind."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from sklearn.linear_model import LogisticRegression

import lacunar as lc
from lacunar.errors import ConfigError, DataError, RunError

WIDTHS = {"audio": 4, "video": 5}


def rows(n: int = 6, target=None, **changes):
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(n, width)) for name, width in WIDTHS.items()}
    return lc.from_arrays({**values, **changes}, target, keep_empty=True)


@pytest.fixture(scope="module")
def splits():
    return rows(60, np.arange(60) % 2).split(seed=0)


@pytest.fixture(scope="module")
def run(splits, tmp_path_factory):
    quick = lc.references(splits.train, models={name: LogisticRegression() for name in WIDTHS})
    out = tmp_path_factory.mktemp("runs") / "run"
    return lc.fit(splits, references=quick, max_epochs=1, progress=False, out=out)


WRONG = [
    (
        {"audio": np.ones((6, 9))},
        r"'audio': the model was trained on vector samples of shape \(4,\), these have \(9,\)",
    ),
    ({"audio": ["text"] * 6}, "'audio': the model was trained on vector samples"),
    ({"video": np.ones((6, 5, 7))}, "'video': the model was trained on vector samples"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_prediction_and_evaluation_of_other_inputs(run, changes, message):
    with pytest.raises(DataError, match=message):
        lc.predict(run.model, rows(**changes))
    with pytest.raises(DataError, match=message):
        lc.evaluate(run.model, rows(target=[0, 1] * 3, **changes))


def test_a_loaded_model_still_knows_its_inputs(run, splits):
    again = lc.load(run.folder / "model")
    with pytest.raises(DataError, match=WRONG[0][1]):
        lc.predict(again, rows(**WRONG[0][0]))
    assert lc.predict(again, splits.test).equals(lc.predict(run.model, splits.test))


def test_absent_modalities_and_empty_samples_are_predicted(run):
    video = [None, *np.ones((5, 5))]
    table = lc.predict(run.model, rows(audio=[None] * 6, video=video))
    assert table["modalities"].tolist() == ["none"] + ["video"] * 5
    assert table["flag"].str.startswith("nothing observed").tolist() == [True] + [False] * 5


def test_evaluation_of_other_modalities(run):
    data = rows(target=[0, 1] * 3).only("audio")
    with pytest.raises(DataError, match=r"built for the modalities \('audio', 'video'\), the batch has \('audio',\)"):
        lc.evaluate(run.model, data)


@pytest.mark.parametrize("objective", ["MCE", lc.MCE])
def test_an_objective_that_is_none(splits, tmp_path, objective):
    with pytest.raises(ConfigError, match="objective: expected an objective such as lacunar.MCE.., got 'MCE'"):
        lc.fit(splits, objective=objective, max_epochs=1, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


@pytest.mark.parametrize("option", [{"accelerator": "gpuu"}, {"precision": "33-true"}, {"strategy": "dpd"}])
def test_a_device_that_is_none_leaves_nothing(splits, tmp_path, option):
    with pytest.raises(ConfigError, match="Cannot compute with accelerator=|precision: unknown value"):
        lc.fit(splits, max_epochs=1, out=tmp_path / "run", progress=False, **option)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("devices", [-1, "x", 0.5, [1]])
def test_devices_that_there_are_not(splits, devices):
    with pytest.raises(ConfigError, match="Cannot compute with accelerator='cpu', devices="):
        lc.fit(splits, max_epochs=1, accelerator="cpu", devices=devices, objective=lc.Joint(), progress=False)


def test_what_lightning_refuses_otherwise_stays_its_own(splits):
    with pytest.raises(MisconfigurationException, match="ModelCheckpoint"):
        lc.fit(splits, max_epochs=1, objective=lc.Joint(), progress=False, callbacks=[ModelCheckpoint()])


def test_splits_are_no_train_part(splits):
    with pytest.raises(DataError, match="default_model: expected one part .* pass data.train"):
        lc.default_model(splits)


def test_a_run_is_no_model(run):
    with pytest.raises(RunError, match="is the folder of a run: read it with lacunar.load_run"):
        lc.load(run.folder)


def test_damaged_references(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    (tmp_path / "run" / "references" / "scores.safetensors").write_bytes(b"garbage")
    with pytest.raises(RunError, match="scores.safetensors is damaged or missing"):
        lc.load_run(tmp_path / "run")
