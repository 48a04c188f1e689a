"""What collecting costs, and what a budget can buy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lacunar.errors import ConfigError
from lacunar.lattice import Lattice
from lacunar.planning.candidates import affordable, mixtures
from lacunar.planning.costs import CostModel

PRICES = {"image": 50.0, "blood": 20.0, "text": 1.0}


def test_a_price_for_each_modality_is_a_cost_model():
    costs = CostModel.read({"image": 50, "text": 1})
    assert costs.cost("image+text", 3) == 153
    assert costs.cost(("text", "image"), 3) == 153
    assert costs.cost("text", 0) == 0
    assert CostModel.read(costs) is costs


def test_every_part_of_the_price_is_added_up():
    costs = CostModel(PRICES, per_sample=5, label=3, setup={"image": 1000, "text": 7})
    assert costs.cost("image+text", 10) == 1007 + 10 * (50 + 1 + 5 + 3)
    assert costs.marginal("image+text") == 59
    # Two kinds of samples pay the set-up of a modality once.
    assert costs.cost_of([("image+text", 4), ("image", 2)]) == 1007 + 4 * 59 + 2 * 58


def test_a_full_description_comes_back_from_yaml(tmp_path):
    path = tmp_path / "costs.yaml"
    path.write_text(
        "per_cell: {image: 50, blood: 20, text: 1}\nper_sample: 5\nlabel: 3\nsetup: {image: 1000}\n"
        "bundles:\n  - {modalities: [blood, text], price: 15}\nfailure: {image: 0.1}\ncapacity: {image: 200}\n"
        "minimum: {blood: 10}\nmax_samples: 500\ncurrency: EUR\n"
    )
    costs = CostModel.read(path)
    assert costs.cost("blood+text", 10) == 10 * (15 + 5 + 3)
    assert costs.amount(10700) == "10,700 EUR"
    assert CostModel.read(costs.to_dict()) == costs


def test_bundles_replace_their_cells_where_that_is_cheaper():
    costs = CostModel(PRICES, bundles={"blood+text": 15, "image+blood": 60, "image+blood+text": 80})
    assert costs.cost("blood+text", 1) == 15
    assert costs.cost("image+blood", 1) == 60
    assert costs.cost("image+blood+text", 1) == 60 + 1  # not 80, and not 50 + 15
    assert costs.cost("blood", 1) == 20
    assert [unit.names for unit in costs.units("image+blood+text")] == [("image", "blood"), ("text",)]


def test_failures_are_asked_for_again_and_paid():
    costs = CostModel({"mri": 10.0, "text": 1.0}, failure={"mri": 0.08})
    assert costs.ask("mri", 92) == 100
    assert costs.ask("text", 92) == 92
    assert costs.cost("mri+text", 92) == 1000 + 92
    assert costs.affordable("mri", 1000) == 92


@pytest.mark.parametrize("failure", [0.0, 0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("budget", [0, 1, 99, 100, 12345])
def test_affordable_is_the_largest_number_that_the_budget_pays(failure, budget):
    costs = CostModel(PRICES, per_sample=2, setup={"blood": 30}, bundles={"image+text": 40}, failure={"image": failure})
    for subset in ("image", "blood", "text", "image+text", "image+blood+text"):
        n = costs.affordable(subset, budget)
        assert costs.cost(subset, n) <= budget + 1e-6
        assert costs.cost(subset, n + 1) > budget


def test_capacity_batches_and_the_number_of_samples_are_limits():
    costs = CostModel(
        PRICES, failure={"image": 0.5}, capacity={"image": 10}, minimum={"blood": 20}, max_samples=100, label=1
    )
    assert costs.affordable("image", 1e6) == 5  # ten can be asked for, five arrive
    assert costs.affordable("text", 1e6) == 100
    assert costs.affordable("blood", 21 * 19) == 0  # nineteen could be paid, twenty are the least
    assert costs.affordable("blood", 21 * 20) == 20
    assert costs.affordable("image+blood", 1e6) == 0
    assert math.isinf(costs.smallest("image+blood"))
    assert costs.smallest("blood") == 21 * 20


def test_a_bundle_is_ordered_as_often_as_its_least_reliable_member():
    prices = {"a": 10.0, "b": 10.0, "c": 1.0}
    costs = CostModel(prices, bundles={"a+b": 5}, failure={"b": 0.5}, capacity={"a": 100}, minimum={"a": 21})
    assert costs.ask("a", 50, "a+b") == 100 and costs.ask("a", 50) == 50
    assert costs.limit("a+b") == costs.affordable("a+b", 1e6) == 50
    assert costs.limit("a") == 100
    assert (costs.least("a+b"), costs.least("a")) == (11, 21)  # 11 samples are 22 orders of the bundle
    assert costs.smallest("a+b") == 22 * 5
    # What a first purchase asks for is not there for the next.
    lattice = Lattice(("a", "b", "c"))
    singles = affordable(lattice, costs, 1e6, [1, 3])
    assert mixtures(lattice, costs, 1e6, singles) == []
    free = CostModel(prices, bundles={"a+b": 5}, failure={"b": 0.5}, capacity={"a": 100, "c": 10})
    found = {one.label: one.blocks for one in mixtures(lattice, free, 1000, affordable(lattice, free, 1000, [3, 4]))}
    assert found["c and a+b"] == ((4, 10), (3, 50))


def test_what_is_free_needs_a_limit():
    costs = CostModel({"image": 1.0, "text": 0.0})
    assert costs.affordable("image+text", 7) == 7
    with pytest.raises(ConfigError, match="samples of text cost nothing.*capacity"):
        costs.affordable("text", 7)
    assert CostModel({"text": 0.0}, capacity={"text": 12}).affordable("text", 0) == 12


def test_doubling_a_price_never_buys_more():
    rng = np.random.default_rng(0)
    for _ in range(200):
        names = ["a", "b", "c"]
        costs = CostModel(
            dict(zip(names, rng.uniform(0.1, 50, 3))),
            per_sample=rng.uniform(0, 10),
            setup=dict(zip(names, rng.uniform(0, 100, 3))),
            bundles={"a+b": rng.uniform(1, 80), "b+c": rng.uniform(1, 80)},
            failure=dict(zip(names, rng.uniform(0, 0.6, 3))),
        )
        budget = rng.uniform(0, 2000)
        for name in names:
            for subset in ("a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"):
                dearer = costs.changed(name, 2.0)
                assert dearer.affordable(subset, budget) <= costs.affordable(subset, budget)
                if name not in subset:
                    assert dearer.marginal(subset) == costs.marginal(subset)


def test_changed_scales_cells_set_up_and_the_share_of_a_bundle():
    costs = CostModel({"a": 30.0, "b": 10.0}, label=2, setup={"a": 5}, bundles={"a+b": 20})
    dearer = costs.changed("a", 2)
    assert dearer.per_cell == {"a": 60, "b": 10}
    assert dearer.setup["a"] == 10
    assert dearer.bundles == ((("a", "b"), 35.0),)  # three quarters of it are a
    assert costs.changed("label", 3).label == 6
    with pytest.raises(ConfigError, match="unknown modality 'aa'"):
        costs.changed("aa", 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": -5}, "'image'.*from 0 up, got -5"),
        ({"image": float("nan")}, "'image'.*finite.*nan"),
        ({"image": float("inf")}, "'image'.*finite"),
        ({"image": None}, "'image'.*got None"),
        ({"image": "ten"}, "'image'.*got 'ten'"),
        ({"image": True}, "'image'.*got True"),
        ({}, "expected a price for each modality"),
        (7, "expected a price for each modality"),
        ({"per_cel": {"image": 5}}, "unknown key 'per_cel'.*Did you mean 'per_cell'"),
        ({"setup": {"image": 5}}, "'per_cell'.*is missing"),
        ({"per_cell": {"image": 5}, "failure": {"image": 1.0}}, "failure, 'image'.*\\[0, 1\\)"),
        ({"per_cell": {"image": 5}, "setup": {"imge": 1}}, "setup: unknown modality 'imge'.*Did you mean 'image'"),
        ({"per_cell": {"image": 5}, "capacity": {"image": -1}}, "capacity, 'image'"),
        ({"per_cell": {"image": 5}, "label": -1}, "label: expected"),
        ({"per_cell": {"image": 5}, "setup": 3}, "setup: expected a mapping"),
        ({"per_cell": {"a": 5, "b": 1}, "bundles": {"a+c": 1}}, "bundles: unknown modality 'c'"),
        ({"per_cell": {"a": 5, "b": 1}, "bundles": {"a": 1}}, "at least two modalities"),
        ({"per_cell": {"a": 5, "b": 1}, "bundles": {"a+b": -1}}, "'a\\+b'.*from 0 up"),
        ({"per_cell": {"a": 5, "b": 1}, "bundles": [{"members": ["a"], "price": 1}]}, "unknown key 'members'"),
        ({"per_cell": {"a": 5, "b": 1}, "bundles": [3]}, "expected modalities and a price"),
    ],
)
def test_what_is_wrong_is_named(given, message):
    with pytest.raises(ConfigError, match=message):
        CostModel.read(given)


def test_files_that_are_wrong_are_named(tmp_path):
    with pytest.raises(ConfigError, match="Costs not found.*none.yaml"):
        CostModel.read(tmp_path / "none.yaml")
    path = tmp_path / "twice.yaml"
    path.write_text("image: 1\nimage: 2\n")
    with pytest.raises(ConfigError, match="twice.yaml.*there twice"):
        CostModel.read(path)
    path.write_text("per_cell: {image: -3}\n")
    with pytest.raises(ConfigError, match="twice.yaml: per_cell, 'image'"):
        CostModel.read(path)


def test_every_modality_needs_a_price_and_nothing_else_has_one():
    costs = CostModel.read({"image": 50, "text": 1})
    assert costs.check(("text", "image")) is costs
    with pytest.raises(ConfigError, match="modality 'audio' has no price"):
        costs.check(("image", "audio", "text"))
    with pytest.raises(ConfigError, match="unknown modality 'text'"):
        costs.check(("image",))
    with pytest.raises(ConfigError, match="unknown modality 'image'. Did you mean 'images'?"):
        costs.check(("images", "text"))  # the typing error, not the price that it takes away
    with pytest.raises(ConfigError, match="unknown modality 'imge'.*Did you mean 'image'"):
        costs.cost("imge", 1)
