"""Synthetic unaligned sequences: what is drawn, and that the events tell the target."""

import numpy as np
import pytest
import torch

from lacunar import datasets
from lacunar.datasets.unaligned import unaligned
from lacunar.errors import ConfigError


def everything(data):
    return data.__getitems__(range(len(data)))


def test_lengths_widths_and_gaps():
    data = datasets.load("unaligned", n=80, missing=(0.0, 0.5, 0.2))
    assert data.shapes == {"m0": (6,), "m1": (3,), "m2": (4,)}
    assert set(data.kinds.values()) == {"sequence"}
    assert data.present.any(1).all()
    assert data.missing_rates["m0"] == 0
    assert 0.3 < data.missing_rates["m1"] < 0.7
    lengths = everything(data).lengths
    assert (lengths["m0"].min(), lengths["m0"].max()) == (4, 12)
    assert (lengths["m1"].min() >= 10) and (lengths["m1"].max() <= 30)
    assert torch.bincount(data.target).tolist() == [27, 27, 26]
    assert "unaligned" in str(data.card)


def test_the_seed_fixes_everything():
    first, again, other = (everything(unaligned(n=10, missing=0.3, seed=seed)) for seed in (0, 0, 1))
    assert all(torch.equal(first.inputs[name], again.inputs[name]) for name in first.names)
    assert torch.equal(first.present, again.present)
    assert any(first.inputs[name].shape != other.inputs[name].shape for name in first.names)


def found_events(data, name, directions):
    """Largest mean of two neighbouring steps along each direction, (N, classes)."""
    batch = everything(data)
    scores = []
    for row, length in zip(batch.inputs[name].numpy(), batch.lengths[name].tolist()):
        along = row[:length] @ directions.T
        scores.append(((along[1:] + along[:-1]) / 2).max(0))
    return np.array(scores)


def test_the_event_tells_the_class_and_its_place_does_not():
    data = unaligned(M=1, n=300, strength=6.0, dims=5)
    batch, y = everything(data), data.target.numpy()
    sums = np.stack([batch.inputs["m0"].numpy()[y == label].sum((0, 1)) for label in range(3)])
    directions = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    # Orthogonal, as far as the noise lets them be seen.
    assert np.abs(directions @ directions.T - np.eye(3)).max() < 0.2
    scores = found_events(data, "m0", directions)
    assert (scores.argmax(1) == y).mean() > 0.95
    steps = batch.inputs["m0"].numpy() @ directions.T
    peaks = np.array([steps[n, : batch.lengths["m0"][n], y[n]].argmax() for n in range(300)])
    assert len(np.unique(peaks)) > 8
    late = [(peaks[y == label] > 4).mean() for label in range(3)]
    assert max(late) - min(late) < 0.2


def test_sentiments_lie_on_their_scale():
    data = unaligned(M=2, n=200, target="sentiment", strength=8.0)
    assert data.task.kind == "regression"
    assert -3 <= data.target.min() < -2 < 2 < data.target.max() <= 3
    total = everything(data).inputs["m0"].sum(1).numpy()
    along = total @ np.linalg.svd(total, full_matrices=False)[2][0]
    assert abs(np.corrcoef(along, data.target.numpy())[0, 1]) > 0.9


def test_one_modality_and_many_classes():
    data = unaligned(M=5, n=12, classes=6, dims=2, steps=3)
    assert data.names == ("m0", "m1", "m2", "m3", "m4")
    assert everything(data).lengths["m0"].min() >= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "clas"}, "unknown target='clas'.*'class'"),
        ({"M": 0}, "at least one modality and one sample, got M=0"),
        ({"steps": 1}, "sequences of 2 steps or more on average, got steps=1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        unaligned(**options)
