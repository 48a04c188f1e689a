"""Kills and several processes. One interpreter does it all and forks, as importing takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lacunar.objectives import available
from lacunar.training.log import read_lines
from tests.training.worlds import listing

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def drive(folder: Path, *jobs: str) -> dict:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.training.driver", str(folder), *jobs]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return {**json.loads(done.stdout.strip().splitlines()[-1]), "stderr": done.stderr[-4000:]}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("processes")
    return folder, drive(folder, "kills", "gloo", "launched", "every_method")


WAYS = [
    "random steps",
    "half a checkpoint",
    "before the checkpoint takes its name",
    "before the first checkpoint",
    "while results are written",
    "while references are written",
    "from outside",
]


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_run_ends_in_the_same_bits(answers, way):
    folder, answer = answers
    assert answer["kills"]["whole"] == 0, answer["stderr"]
    killed = answer["kills"]["ways"][way]
    assert all(code == -9 for code in killed["codes"]), (answer["kills"]["points"], answer["stderr"])
    assert killed["end"] == 0, answer["stderr"]
    whole, out = folder / "whole", Path(killed["out"])
    snapshots = [f"snapshots/{epoch:06d}.safetensors" for epoch in (1, 3)]
    for name in ("log.jsonl", "selected.safetensors", "model/model.safetensors", "config.json", *snapshots):
        assert (whole / name).read_bytes() == (out / name).read_bytes(), (name, answer["kills"]["points"])
    first, second = (json.loads((home / "result.json").read_text()) for home in (whole, out))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert listing(whole) == listing(out)
    assert len(read_lines(out / "times.jsonl")) == 4


@pytest.mark.parametrize("case", ["plain", "absent on one", "no rows on one"])
@pytest.mark.parametrize("name", ["Joint", "MCE"])
def test_two_processes_equal_one(answers, name, case):
    folder, answer = answers
    assert answer["gloo"][f"{name}-{case}"] == [0, 0, 0], answer["stderr"]
    one, two = (torch.load(folder / f"{name}-{case}-{world}.pt") for world in (1, 2))
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-6, atol=1e-6, equal_nan=True)
    assert one["gradient"].abs().max() > 1e-3


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_launched_fit_equals_one_process(answers, batch_size):
    _, answer = answers
    found = answer["launched"][str(batch_size)]
    assert found["codes"] == [0, 0, 0], answer["stderr"]
    one, two = (read_lines(Path(found[key]) / "log.jsonl") for key in ("one", "two"))
    assert [line["samples"] for line in one if line["kind"] == "step"] == [
        line["samples"] for line in two if line["kind"] == "step"
    ]
    assert [line.keys() for line in one] == [line.keys() for line in two]
    for first, second in zip(one, two):
        for key, value in first.items():
            if isinstance(value, float):
                assert second[key] == pytest.approx(value, rel=2e-3, abs=2e-4), key


@pytest.mark.parametrize("name", sorted(available()))
def test_every_method_trains_in_two_processes_that_stay_alike(answers, name):
    folder, answer = answers
    assert answer["every_method"][name] == [0, 0], answer["stderr"]
    first, second = (torch.load(folder / f"every-{name}-{rank}.pt") for rank in (0, 1))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


SCRIPT = """
from lacunar.objectives import Joint
from lacunar.training.fit import fit
from tests.helpers import small_model
from tests.training.worlds import splits

data = splits(n=60)
run = fit(data, small_model(data.train), Joint(), max_epochs=2, batch_size=16, out={out!r}, accelerator="cpu",
          devices=2, strategy="ddp")
assert len(run.history) == 2
"""


def test_fit_starts_processes_from_a_script(tmp_path):
    script, out = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SCRIPT.format(out=str(out)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-4000:]
    steps = [line for line in read_lines(out / "log.jsonl") if line["kind"] == "step"]
    assert len({line["step"] for line in steps}) == len(steps)
    assert (out / "result.json").exists()
    assert listing(tmp_path)[0].startswith("run/")
    assert not (tmp_path / "lightning_logs").exists()
