"""A smoke test on real volumes: it runs end to end; with two labelled cases nothing is said about accuracy."""

import os
from pathlib import Path

import pytest
import torch

from lacunar.data.splits import Splits
from lacunar.evaluation import SlidingWindow, evaluate
from lacunar.models.defaults import default_model
from lacunar.objectives import MCE
from lacunar.training.fit import fit

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        not (Path(os.environ.get("LACUNAR_DATA", "nowhere")) / "brats").is_dir(),
        reason="LACUNAR_DATA names no folder with brats/ in it",
    ),
]


@pytest.mark.parametrize("sequences", [2, 4])
def test_training_and_sliding_windows_run_end_to_end(sequences):
    from lacunar.datasets.brats import brats

    blocks = brats(sequences=sequences, block=16)
    few = Splits(*(part.select(range(min(8, len(part)))) for part in (blocks.train, blocks.val)))
    splits = few.hide(dict(zip(few.names, (0.2, 0.5, 0.8, 0.2))), seed=0)
    torch.manual_seed(0)
    model = default_model(splits.train, features=4)
    objective = MCE(capability=False)
    run = fit(splits, model, objective, max_epochs=1, batch_size=4, progress=False)
    assert torch.isfinite(torch.tensor(run.best_score))
    whole = brats(sequences=sequences, whole=True).select([0])
    table = evaluate(SlidingWindow(run.model, (32, 32, 32), overlap=0.0), corner(whole), bootstrap=10)
    assert len(table.frame) == 2**sequences
    assert table.frame["score"].between(0, 1).all()


def corner(data):
    """A part of a whole volume: enough for several windows."""
    from lacunar.data.arrays import from_arrays

    batch = data[0]
    cut = (slice(90, 154), slice(90, 122), slice(60, 92))
    arrays = {name: rows[(slice(None), slice(None), *cut)] for name, rows in batch.inputs.items()}
    return from_arrays(arrays, batch.target[(slice(None), *cut)], task=data.task)
