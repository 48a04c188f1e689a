"""The Bayes accuracies that the synthetic worlds state, checked against their true posteriors and against learners."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from lacunar import datasets
from lacunar.datasets.synthetic import (
    additive,
    best_accuracy,
    duplicate,
    iemocap_like,
    one_useful,
    synthetic,
    vectors,
    xor,
)
from lacunar.errors import ConfigError

N = 30_000
WORLDS = {
    "additive": lambda: additive(M=3, n=N),
    "additive, two classes": lambda: additive(M=2, n=N, classes=2, strength=[0.5, 1.5]),
    "additive, redundant": lambda: additive(M=3, n=N, redundancy=0.6, strength=[2.0, 1.0, 1.5]),
    "duplicate": lambda: duplicate(M=3, n=N),
    "xor": lambda: xor(M=3, n=N),
    "xor, noisy": lambda: xor(M=2, n=N, noise=0.8),
    "one useful": lambda: one_useful(M=3, n=N, useful=1, strength=2.0),
}


def numbers(data, names=None) -> np.ndarray:
    batch = data.__getitems__(range(len(data)))
    return torch.cat([batch.inputs[name] for name in names or data.names], dim=1).numpy()


@pytest.mark.parametrize("name", WORLDS)
def test_the_true_posterior_reaches_the_bayes_accuracy_on_every_subset(name):
    world = WORLDS[name]()
    labels = world.data.target.numpy()
    for code in range(len(world.data.lattice)):
        posterior = world.posterior(world.data.lattice.subset(code))
        assert posterior.shape == (N, world.data.task.n_outputs)
        np.testing.assert_allclose(posterior.sum(1), 1, atol=1e-9)
        bayes = float(world.bayes[code])
        error = 4 * max(np.sqrt(bayes * (1 - bayes) / N), 1e-6)
        assert abs((posterior.argmax(1) == labels).mean() - bayes) < error, world.data.lattice.label(code)
        # Calibrated as well: on average the posterior expects to be as right as it is.
        assert abs(posterior.max(1).mean() - bayes) < error


@pytest.mark.parametrize("name", ["additive", "additive, redundant", "duplicate", "one useful"])
def test_a_learner_on_the_rotated_vectors_comes_close_and_not_past(name):
    world = WORLDS[name]()
    lattice = world.data.lattice
    labels = world.data.target.numpy()
    half = N // 2
    for code in lattice.subsets:
        inputs = numbers(world.data, lattice.subset(code))
        found = LogisticRegression(max_iter=200).fit(inputs[:half], labels[:half]).score(inputs[half:], labels[half:])
        assert float(world.bayes[code]) - 0.02 < found < float(world.bayes[code]) + 0.015, lattice.label(code)


def test_two_classes_agree_with_the_closed_form():
    for strength in (0.3, 1.0, 2.5):
        assert best_accuracy(strength, 2) == pytest.approx(norm.cdf(strength / np.sqrt(2)), abs=1e-10)
    assert best_accuracy(0.0, 7) == pytest.approx(1 / 7)
    assert best_accuracy(30.0, 4) == pytest.approx(1.0)


def test_more_modalities_never_hurt_and_the_empty_set_guesses():
    world = additive(M=4, n=10)
    bayes = world.bayes
    assert bayes.shape == (16,)
    assert bayes.dtype == torch.float64
    assert float(bayes[0]) == 0.25
    for code in range(16):
        for m in range(4):
            assert bayes[code | 1 << m] >= bayes[code]


def test_copies_add_nothing():
    world = duplicate(M=3, n=200)
    assert world.bayes[1:].unique().numel() == 1
    a, b = numbers(world.data, ["m0"]), numbers(world.data, ["m1"])
    rotation = np.linalg.lstsq(a, b, rcond=None)[0]
    np.testing.assert_allclose(a @ rotation, b, atol=1e-4)
    assert not np.allclose(a, b)


def test_xor_is_useless_alone_and_perfect_together():
    world = xor(M=3, n=50)
    assert world.bayes.tolist() == [0.5, 0.5, 0.5, 1.0, 0.5, 0.5, 0.5, 1.0]
    phi = world.data.lattice.shapley(world.bayes[None], torch.ones(1, 3, dtype=torch.bool))
    np.testing.assert_allclose(phi, [[0.25, 0.25, 0]], atol=1e-12)


def test_one_useful_modality_is_the_dictator_game():
    world = one_useful(M=3, n=50, useful=0, strength=12.0)
    phi = world.data.lattice.shapley(world.bayes[None] - world.bayes[0], torch.ones(1, 3, dtype=torch.bool))
    np.testing.assert_allclose(phi / (1 - 0.25), [[1, 0, 0]], atol=1e-9)


@pytest.mark.parametrize("make", [additive, duplicate, xor, one_useful, vectors])
def test_the_seed_fixes_everything(make):
    first, second, other = make(n=20, seed=1), make(n=20, seed=1), make(n=20, seed=2)
    data = [getattr(world, "data", world) for world in (first, second, other)]
    inputs = [part.__getitems__(range(20)).inputs["m0"] for part in data]
    assert torch.equal(inputs[0], inputs[1])
    assert inputs[0].shape != inputs[2].shape or not torch.equal(inputs[0], inputs[2])


@pytest.mark.parametrize("M", [1, 2, 3, 4, 8])
def test_vectors_have_any_number_of_modalities_and_no_empty_sample(M):
    data = vectors(M=M, n=400, missing=0.4)
    assert data.names == tuple(f"m{m}" for m in range(M))
    assert len(data) == 400
    assert bool(data.present.any(1).all())
    assert set(data.target.tolist()) == {0, 1, 2}
    if M > 2:
        assert all(0.2 < rate < 0.5 for rate in data.missing_rates.values())
    assert vectors(M=2, n=30, missing=[0.0, 0.9]).missing_rates["m0"] == 0


def test_iemocap_shapes_and_lengths():
    data = iemocap_like(n=40)
    batch = data.__getitems__(range(40))
    assert data.names == ("A", "L", "V")
    assert [batch.inputs[name].shape[2] for name in data.names] == [130, 1024, 342]
    for name, mean in zip("ALV", (60, 22, 50)):
        lengths = batch.lengths[name]
        assert mean / 2 <= lengths.min() < lengths.max() <= 1.5 * mean
    fixed = iemocap_like(n=8, ragged=False).__getitems__(range(8))
    assert fixed.inputs["A"].shape == (8, 60, 130)
    assert fixed.lengths["V"].tolist() == [50] * 8


def test_iemocap_informativeness_is_in_the_content():
    informed = iemocap_like(n=400, informativeness=(12.0, 0.0, 12.0), dims=(20, 16, 12), seed=1)
    batch = informed.__getitems__(range(400))
    labels = batch.target.numpy()
    found = {}
    for name in "ALV":
        mean = (batch.inputs[name].sum(1) / batch.lengths[name].sqrt()[:, None]).numpy()
        found[name] = LogisticRegression(max_iter=300).fit(mean[:200], labels[:200]).score(mean[200:], labels[200:])
    assert found["A"] > 0.9
    assert found["V"] > 0.9
    assert found["L"] < 0.4


def test_by_name():
    world = datasets.load("synthetic", world="xor", n=30)
    assert world.data.card.samples == 30
    assert "m0+m1: 1.0000" in str(world)
    with pytest.raises(ConfigError, match="unknown world 'xors'. Did you mean 'xor'"):
        synthetic("xors")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: additive(redundancy=1.0), "redundancy: expected a correlation in"),
        (lambda: additive(dim=2), "dim: expected at least the number of classes, 4, got 2"),
        (lambda: duplicate(dim=2), "dim: expected at least"),
        (lambda: xor(M=1), "expected at least 2 modalities, got 1"),
        (lambda: one_useful(useful=3), "useful: expected a position from 0 to 2, got 3"),
    ],
)
def test_impossible_worlds(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
