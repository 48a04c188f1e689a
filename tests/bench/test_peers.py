"""scikit-learn's peers: every kind of task, every subset better than a constant, and noise that is left out."""

import numpy as np
import pytest
import torch

from lacunar.bench.peers import PEERS, LateFusion
from lacunar.data.arrays import from_arrays
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError
from lacunar.evaluation import evaluate
from lacunar.tasks import MultiLabel, Regression

N = 240


def hidden_causes(task, seed=0):
    """Two modalities that each show a cause of the target, and one of noise."""
    draw = np.random.default_rng(seed)
    causes = draw.normal(size=(N, 2))
    target = {
        "classes": (causes.sum(1) > 0).astype(int),
        "labels": (causes > 0).astype(int),
        "number": 40 + 3 * causes.sum(1),
        "numbers": np.column_stack([causes.sum(1), 100 * causes[:, 0]]),
    }[task]
    modalities = {f"m{m}": causes[:, m : m + 1] + 0.3 * draw.normal(size=(N, 3)) for m in range(2)}
    modalities["noise"] = draw.normal(size=(N, 2))
    kind = {"classes": "classification", "labels": MultiLabel(2), "number": Regression(), "numbers": Regression(2)}[
        task
    ]
    return from_arrays(modalities, target, task=kind, name=task).split(train=0.5, val=0.25, test=0.25, seed=seed)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("task", ["classes", "labels", "number", "numbers"])
def test_every_subset_is_answered_better_than_by_a_constant(task, peer):
    data = hidden_causes(task).hide({"m0": 0.3, "m1": 0.3}, seed=0)
    table = evaluate(PEERS[peer](data, 0), data.test, bootstrap=0)
    assert table.full > table.baseline + 0.1
    assert table.mean > table.baseline
    assert PEERS[peer](data, 0)(data.test.__getitems__(range(5))).shape == (5, data.task.n_outputs)


def test_learnt_weights_leave_noise_out():
    data = hidden_causes("number")
    even, learnt = (PEERS[name](data, 0) for name in ("late fusion", "late fusion, weighted"))
    whole = (1 << len(data.names)) - 1
    assert learnt.weights[whole][data.names.index("noise")] < 0.15
    assert evaluate(learnt, data.test, bootstrap=0).full > evaluate(even, data.test, bootstrap=0).full


def test_a_modality_of_one_class_says_that_class():
    data = hidden_causes("classes")
    present = data.train.present.clone()
    present[:, 1] = data.train.target == 1
    peer = LateFusion(Splits(data.train.hide(present), data.val, data.test), 0)
    batch = data.test.__getitems__(range(3))
    certain = peer(batch.hide(torch.tensor([False, True, False]).expand(3, -1))).exp()
    torch.testing.assert_close(certain[:, 1], torch.ones(3, dtype=certain.dtype))


def test_label_maps_are_refused():
    draw = np.random.default_rng(0)
    images = draw.normal(size=(12, 1, 4, 4))
    data = from_arrays({"a": images, "b": images}, (images[:, 0] > 0).astype(int), task="segmentation")
    with pytest.raises(ConfigError, match="LateFusion is defined for classification, multilabel, regression"):
        LateFusion(data.split(train=0.5, val=0.25, test=0.25), 0)
