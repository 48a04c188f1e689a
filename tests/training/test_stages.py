"""Methods that train in several stages."""

import pytest
import torch

from lacunar.errors import ConfigError
from lacunar.objectives.base import Stage, stage_at
from lacunar.objectives.joint import Joint
from lacunar.training.fit import fit
from tests.helpers import small_model, vectors


@pytest.mark.parametrize(
    ("shares", "epochs", "expected"),
    [
        ((1,), 3, [0, 0, 0]),
        ((1, 1), 4, [0, 0, 1, 1]),
        ((1, 3), 4, [0, 1, 1, 1]),
        ((0.01, 1), 3, [0, 1, 1]),
        ((1, 0.01, 1), 3, [0, 1, 2]),
        ((100, 1), 2, [0, 1]),
    ],
)
def test_epochs_are_shared_out_and_no_stage_is_left_out(shares, epochs, expected):
    stages = [Stage(str(i), share) for i, share in enumerate(shares)]
    assert [stage_at(stages, epoch, epochs) for epoch in range(epochs)] == expected


def test_more_stages_than_epochs_are_refused():
    with pytest.raises(ConfigError, match="one for each of the stages first, second, got 1"):
        stage_at([Stage("first"), Stage("second")], 0, 1)


class TwoStages(Joint):
    """Notes its stages; the first only prepares."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.register_buffer("begun", torch.zeros(2))

    def stages(self):
        return Stage("prepare", 1, selects=False), Stage("train", 2)

    def on_stage_start(self, model, data, stage):
        self.begun[[s.name for s in self.stages()].index(stage.name)] += 1

    def on_epoch_start(self, model, data, epoch):
        self.seen.append((epoch, self.stage.name))


def test_fit_walks_through_the_stages_and_selects_where_it_may():
    data = vectors(2, n=60).split(train=0.6, val=0.4, test=0.0, seed=0)
    objective = TwoStages()
    run = fit(data, small_model(data.train), objective, max_epochs=6, batch_size=16, progress=False)
    assert objective.seen == [(0, "prepare"), (1, "prepare")] + [(epoch, "train") for epoch in range(2, 6)]
    assert objective.begun.tolist() == [1, 1]
    assert run.best_epoch >= 2
