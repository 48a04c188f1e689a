"""A small table of scores and a small run, made without any training."""

import json

import numpy as np
import pandas as pd

from lacunar.data.arrays import from_arrays
from lacunar.evaluation import SubsetTable
from lacunar.lattice import Lattice

NAMES = ("audio", "image", "text")
#: What a careless page would run or load.
EVIL = "<img src=http://evil.example/x onerror=alert(1)>"


def make_table(names=NAMES, n=60, experts=True, seed=0):
    """Scores that grow with the number of modalities; the first modality's expert is better than the model."""
    lattice = Lattice(names)
    rng = np.random.default_rng(seed)
    codes = [0, *lattice.subsets]
    chance = [0.1 + 0.8 * code.bit_count() / lattice.M for code in codes]
    scores = (rng.random((n, len(codes))) < chance).astype(np.float32)
    metrics = pd.DataFrame({"balanced_accuracy": chance, "ece": np.linspace(0.01, 0.2, len(codes))})
    expert = np.tile([1.0] + [0.0] * (lattice.M - 1), (n, 1)).astype(np.float32) if experts else None
    return SubsetTable(
        lattice,
        codes,
        scores,
        metrics,
        np.arange(n).astype(str),
        score_name="accuracy",
        expert_scores=expert,
        resamples=50,
    )


def make_data(names=NAMES, classes=("no", "yes"), n=60, seed=0):
    rng = np.random.default_rng(seed)
    present = rng.random((n, len(names))) < 0.6
    present[:, 0] |= ~present.any(1)
    target = np.array(classes)[np.arange(n) % len(classes)]
    values = {name: rng.normal(size=(n, 3)) for name in names}
    data = from_arrays(values, target, present=present, subgroups={"sex": ["f", "m"] * (n // 2)}, name="toy")
    return data.split(train=0.5, val=0.2, test=0.3, seed=0)


def make_folder(folder, names=NAMES, epochs=3):
    """What a finished run leaves behind, as far as a report reads it."""
    folder.mkdir(parents=True)
    asked = {"max_epochs": epochs, "lr": 0.001, "objective": ["MCE(single=1.0)"], "model": ["MultimodalModel()"]}
    asked["train"] = {"modalities": list(names), "hash": "0" * 64}
    (folder / "config.json").write_text(json.dumps({"format": 1, "versions": {"lacunar": "0.1.0"}, "asked": asked}))
    result = {"best_epoch": 1, "best_score": 0.5, "best_loss": 1.0, "epochs": epochs, "seconds": 2.0}
    (folder / "result.json").write_text(json.dumps(result))
    lines = []
    for epoch in range(epochs):
        line = {"kind": "epoch", "epoch": epoch, "loss": 1.0, "loss/task": 0.75, "loss/subset": 0.25}
        line |= {f"{key}/{name}": 0.5 for key in ("phi", "upper", "B", "A") for name in names}
        line |= {"val/score": 0.4 + epoch / 10, "val/score/" + "+".join(names): 0.6}
        lines.append(json.dumps(line | {f"val/score/{name}": 0.3 for name in names}))
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    return folder
