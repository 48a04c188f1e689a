"""The protocol: paired arms, keys from owned samples alone, and the two worlds that decide what generating can do."""

import numpy as np
import pytest

from lacunar.data.arrays import from_arrays
from lacunar.data.splits import Splits
from lacunar.datasets.worlds_of_generation import generable, ungenerable
from lacunar.errors import ConfigError, DataError
from lacunar.lattice import Lattice
from lacunar.planning.arms import ARMS
from lacunar.planning.protocol import PREDICTORS, choose_key, predicted_gains, run_protocol
from lacunar.planning.two_stage import Training
from lacunar.planning.utility_table import UtilityTable
from tests.helpers import vectors

LINEAR = Training(backbone="linear")
NETWORK = Training(model={"features": 8}, steps=6, batch_size=16, generator={"steps": 1, "hidden": 8})
KEY = {"subset": ["x1", "x2"]}


def parts(n=300, M=3):
    return vectors(M, n=n, missing=0.0, strength=0.7).split(train=0.6, val=0.1, test=0.3, seed=0)


def scores(world, seeds=3, rho=0.05, beta=0.4):
    """Log-likelihood of each arm with everything observed at test, over seeds, on average."""
    arms = [
        "lower",
        "upper",
        {"arm": "sk-ll", "name": "generated", "completion": "ridge", **KEY},
        {"arm": "c2-mean", "name": "mean", **KEY},
    ]
    found = []
    for seed in range(seeds):
        data = world(n=900, seed=seed).data.split(train=0.6, val=0.1, test=0.3, seed=seed)
        rows = run_protocol(data, arms, rho=rho, beta=beta, seed=seed, training=LINEAR).rows.set_index("arm")
        found.append(rows["log_loss"])
    return {arm: -np.array([row[arm] for row in found]) for arm in found[0].index}


def test_generable_world_the_key_matches_the_upper_bound():
    found = scores(generable)
    gap = found["upper"] - found["lower"]
    assert gap.mean() > 0.03
    # Generating x3 from what was bought recovers what buying it would have given, with half of the labels.
    assert (found["upper"] - found["generated"]).mean() < 0.35 * gap.mean()


def test_ungenerable_world_generating_is_worth_nothing():
    found = scores(ungenerable)
    assert (found["upper"] - found["lower"]).mean() > 0.03
    # Buying x3 would help more than buying x1 and x2 and generating it.
    assert (found["upper"] - found["generated"]).mean() > 0.03
    # Whatever SK-LL gains over the lower bound, a constant in place of x3 gains as well: it comes from the labels.
    assert (found["generated"] - found["mean"]).mean() < 0.02


def test_every_arm_runs_and_says_what_it_costs():
    data = parts(200)
    result = run_protocol(data, list(ARMS), rho=0.3, beta=0.2, training=NETWORK, prices={"m0": 2.0}, label=0.5)
    rows = result.rows.set_index("arm")
    assert list(rows.index) == list(ARMS)
    assert np.isfinite(rows[["score", "log_loss", "constant"]].to_numpy(float)).all()
    assert (rows["steps"] == NETWORK.steps).all()
    assert rows.loc["upper", "cells"] == 3 * rows.loc["upper", "labels"]
    assert (rows["owned"] == 36).all()
    bought = rows.loc["sk-ll"]
    assert bought["subset"] == "+".join(result.keys["cooperation"])
    assert bought["cost"] == bought["cells"] + 0.5 * bought["labels"] + ("m0" in bought["subset"]) * bought["labels"]
    # Test conditions: every non-empty subset, for every arm.
    assert all(len(table.frame) == 8 for table in result.tables.values())


def test_key_comes_from_owned_samples_alone():
    data = parts()
    first = run_protocol(data, ["sk-ll"], rho=0.3, beta=0.2, training=LINEAR)
    ids = set(np.asarray(first.pool.ids)[first.owned])
    outside = [row for row, name in enumerate(data.train.ids) if name not in ids]

    def scrambled(samples, rows):
        """The same samples with other values and labels in some rows."""
        draw = np.random.default_rng(0)
        batch = samples.__getitems__(range(len(samples)))
        arrays = {name: values.numpy().copy() for name, values in batch.inputs.items()}
        for values in arrays.values():
            values[rows] = draw.normal(size=values[rows].shape) * 50
        return from_arrays(arrays, samples.target, ids=samples.ids, task=samples.task)

    other = Splits(scrambled(data.train, outside), data.val, scrambled(data.test, slice(None)))
    second = run_protocol(other, ["sk-ll"], rho=0.3, beta=0.2, training=LINEAR)
    assert list(second.owned) == list(first.owned)
    assert second.keys == first.keys
    assert np.array_equal(second.utilities["log_loss"].mean, first.utilities["log_loss"].mean)


def test_same_purchase_is_trained_once():
    result = run_protocol(
        parts(), ["sk-ll", {"arm": "sk-ll", "name": "twin", "subset": None}], rho=0.3, beta=0.2, training=LINEAR
    )
    assert result.trained["twin"] is result.trained["sk-ll"]


def test_runs_are_repeatable():
    first, second = (run_protocol(parts(), rho=0.2, beta=0.2, seed=3, training=LINEAR).rows for _ in range(2))
    assert first.drop(columns="seconds").equals(second.drop(columns="seconds"))


def test_published_table_chooses_as_published():
    # Table 5 at 10 %: C of T+A is largest, with unimodal accuracies that follow from the row (section 1.9).
    names = ("T", "A", "V")
    values = {"none": 42.23, "T": 64.7, "A": 45.2, "V": 45.1, "T+A": 71.05, "T+V": 68.48, "A+V": 48.57, "T+A+V": 72.01}
    tables = dict.fromkeys(("accuracy", "log_loss"), UtilityTable.of(names, {k: v / 100 for k, v in values.items()}))
    said = predicted_gains(tables)
    lattice = Lattice(names)
    found = [said["cooperation"][lattice.index(pair)] for pair in (("T", "A"), ("T", "V"), ("A", "V"))]
    assert np.allclose(found, [0.120, 0.035, 0.078], atol=0.02)
    assert choose_key(tables, said, "cooperation") == ("T", "A")
    assert choose_key(tables, said, "utility") == ("T", "A")


def test_each_indicator_predicts():
    result = run_protocol(parts(), [{"arm": "sk-ll", "subset": ["m0"]}], rho=0.5, beta=0.1, training=LINEAR)
    assert set(result.predicted) == set(PREDICTORS)
    assert all(values.shape == (8,) for values in result.predicted.values())
    assert all(len(key) == 2 for key in result.keys.values())


def test_errors_name_the_problem():
    data = parts()
    with pytest.raises(ConfigError, match="'sk-ll' is there twice"):
        run_protocol(data, ["sk-ll", "sk-ll"], training=LINEAR)
    with pytest.raises(ConfigError, match="unknown 'utilty'.*'utility'"):
        run_protocol(data, ["sk-ll"], indicator="utilty", training=LINEAR)
    with pytest.raises(ConfigError, match="Lower the available share"):
        run_protocol(data, ["upper"], rho=0.5, beta=0.6, training=LINEAR)
    with pytest.raises(DataError, match="5 folds need at least 10 samples"):
        run_protocol(data, rho=0.03, training=LINEAR)
    with pytest.raises(DataError, match="needs a test part"):
        run_protocol(Splits(data.train, data.val), training=LINEAR)
