"""The two worlds of generation: their Bayes accuracies, and that x3 can be had from the rest in one of them only."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from lacunar import datasets
from lacunar.datasets.worlds_of_generation import generable, ungenerable
from lacunar.errors import ConfigError

N = 20_000
WORLDS = {
    "generable": lambda: generable(N),
    "generable, curved": lambda: generable(N, curve=0.5, dims=(3, 5, 2)),
    "generable, one column": lambda: generable(N, dims=(1, 1, 1), strength=1.0),
    "ungenerable": lambda: ungenerable(N, dims=(2, 3, 8)),
}


def numbers(data, names) -> np.ndarray:
    batch = data.__getitems__(range(len(data)))
    return np.concatenate([batch.inputs[name].numpy() for name in names], axis=1)


@pytest.mark.parametrize("name", WORLDS)
def test_the_true_posterior_reaches_the_bayes_accuracy_on_every_subset(name):
    world = WORLDS[name]()
    labels = world.data.target.numpy()
    for code in range(8):
        posterior = world.posterior(world.data.lattice.subset(code))
        bayes = float(world.bayes[code])
        error = 4 * np.sqrt(bayes * (1 - bayes) / N)
        assert abs((posterior.argmax(1) == labels).mean() - bayes) < error, world.data.lattice.label(code)
        assert abs(posterior.max(1).mean() - bayes) < error


def test_x1_and_x2_are_worth_what_x3_is_worth_in_the_one_world_and_nothing_in_the_other():
    lattice = generable(10).data.lattice
    both, third, full = (lattice.index(s) for s in (("x1", "x2"), ("x3",), ("x1", "x2", "x3")))
    can, cannot = generable(10).bayes, ungenerable(10).bayes
    assert can[both] == can[third] == can[full] > can[1] == can[2] > 0.5
    assert cannot[third] == cannot[full] > cannot[both] == 0.5


def test_a_linear_model_finds_x3_in_the_linear_world_only():
    fits = {}
    for name, make in WORLDS.items():
        world = make()
        x, x3 = numbers(world.data, ("x1", "x2")), numbers(world.data, ("x3",))
        fits[name] = LinearRegression().fit(x[:5000], x3[:5000]).score(x[5000:], x3[5000:])
    assert fits["generable"] > 1 - 1e-6
    assert 0.3 < fits["generable, curved"] < 0.95
    assert abs(fits["ungenerable"]) < 0.01


def test_a_learner_comes_close_and_not_past():
    world = generable(N)
    x, y = numbers(world.data, world.data.names), world.data.target.numpy()
    accuracy = LogisticRegression().fit(x[: N // 2], y[: N // 2]).score(x[N // 2 :], y[N // 2 :])
    assert abs(accuracy - float(world.bayes[-1])) < 0.015


def test_found_by_name_and_bad_options_are_told():
    data = datasets.load("worlds_of_generation", world="ungenerable", n=50, seed=3).data
    assert (data.name, len(data), data.names) == ("ungenerable", 50, ("x1", "x2", "x3"))
    again = ungenerable(50, seed=3).data
    np.testing.assert_array_equal(numbers(data, data.names), numbers(again, again.names))
    with pytest.raises(ConfigError, match="unknown world 'generble'. Did you mean 'generable'"):
        datasets.load("worlds_of_generation", world="generble")
    with pytest.raises(ConfigError, match="world 'generable': unknown option 'sed'. Did you mean 'seed'"):
        datasets.load("worlds_of_generation", sed=1)
    with pytest.raises(ConfigError, match="dims: expected three lengths"):
        generable(dims=(2, 2))
    with pytest.raises(ConfigError, match="curve"):
        generable(curve=-1.0)
