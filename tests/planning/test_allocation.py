"""How many cells and labels each arm buys."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lacunar.errors import ConfigError, DataError
from lacunar.planning.allocation import Allocation, allocate, by_hash, portion
from lacunar.planning.costs import CostModel

NAMES = ("text", "audio", "vision")
STRENGTH = {"text": 0.7, "audio": 0.2, "vision": 0.1}


@pytest.mark.parametrize(
    ("pool", "available", "even", "key", "upper"), [(1284, 128, 42, 64, 128), (16326, 1632, 544, 816, 1632)]
)
def test_the_counts_of_the_paper(pool, available, even, key, upper):
    budget = portion(pool, 0.1)
    assert portion(pool, 0.1) == available
    assert allocate("lower", NAMES, budget).samples == 0
    assert allocate("even", NAMES, budget).samples == even
    assert allocate("sk-ll", NAMES, budget, ("text", "audio")).samples == key
    assert allocate("upper", NAMES, budget).samples == upper
    # One price for all: money buys the same counts.
    costs = CostModel.read(dict.fromkeys(NAMES, 1))
    assert costs.affordable(NAMES, budget) == even
    assert costs.affordable(("text", "audio"), budget) == key


@pytest.mark.parametrize("budget", [0, 1, 2, 3, 7, 128, 1632, 4897])
@pytest.mark.parametrize("subset", [("audio",), ("text", "audio"), NAMES])
def test_a_budget_is_never_overspent_and_cells_are_conserved(budget, subset):
    for arm in ("even", "sk-ll"):
        rounded = allocate(arm, NAMES, budget, subset)
        assert sum(rounded.cells.values()) == rounded.total <= budget
        spent = allocate(arm, NAMES, budget, subset, strength=STRENGTH)
        assert sum(spent.cells.values()) == spent.total == budget
        assert rounded.samples <= spent.samples <= rounded.samples + 1


def test_cells_left_over_go_to_the_strongest():
    spent = allocate("sk-ll", NAMES, 7, ("audio", "vision"), strength=STRENGTH)
    assert spent.cells == {"text": 0, "audio": 4, "vision": 3}
    assert spent.blocks == ((("audio", "vision"), 3), (("audio",), 1))
    assert allocate("even", NAMES, 8, strength=STRENGTH).cells == {"text": 3, "audio": 3, "vision": 2}


@pytest.mark.parametrize("share", [0.5, 0.6, 0.7, 0.8, 1.0])
@pytest.mark.parametrize("budget", [0, 1, 3, 128, 1632, 1633])
@pytest.mark.parametrize("subset", [("text", "audio"), NAMES])
def test_weighted_splits_conserve_labels_and_cells(share, budget, subset):
    made = allocate("sk-ll", NAMES, budget, subset, share=share, strength=STRENGTH)
    assert made.total == sum(made.cells.values()) == budget
    assert made.samples == made.cells["text"]  # nested: whoever has anything has the strongest
    assert 0 <= made.cells["text"] - share * budget <= len(subset)
    others = [made.cells[name] for name in subset if name != "text"]
    assert len(set(others)) == 1
    assert 0 <= (1 - share) * budget / (len(subset) - 1) - others[0] < 1


def test_weighting_buys_more_labels():
    labels = [allocate("sk-ll", NAMES, 1000, ["text", "audio"], share=r, strength=STRENGTH).samples for r in
              (0.5, 0.6, 0.7, 0.8)]  # fmt: skip
    assert labels == [500, 600, 700, 800]


def test_labels_can_be_matched():
    even = allocate("even", NAMES, 128, ("text", "audio"), match="labels")
    assert even.samples == allocate("sk-ll", NAMES, 128, ("text", "audio")).samples == 64
    assert even.total == 192


def test_who_gets_what_depends_on_ids_and_seed_alone():
    ids = [f"p{k}" for k in range(50)]
    made = allocate("sk-ll", NAMES, 11, ("text", "audio"), strength=STRENGTH)
    frame = made.assign(ids)
    assert frame.sum().to_dict() == made.cells
    assert list(frame.index) == list(made.assign(ids[::-1]).index)
    assert list(frame.index) == by_hash(ids)[:6]
    assert by_hash(ids, 1) != by_hash(ids, 0)
    larger = allocate("sk-ll", NAMES, 40, ("text", "audio")).assign(ids)
    assert list(larger.index[:6]) == list(frame.index)  # nested
    code = "from lacunar.planning.allocation import by_hash; print(by_hash([f'p{k}' for k in range(50)])[:3])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "123"}
    )
    assert found.stdout.strip() == str(by_hash(ids)[:3])


def test_portion_is_safe_against_binary_fractions():
    assert [portion(10, share) for share in (0.1, 0.2, 0.3, 0.6, 0.7)] == [1, 2, 3, 6, 7]
    assert portion(1284, 0.3) == 385


def test_what_is_wrong_is_named():
    with pytest.raises(ConfigError, match="unknown arm 'skll'.*Did you mean 'sk-ll'"):
        allocate("skll", NAMES, 10)
    with pytest.raises(ConfigError, match="number of cells from 0 up, got -1"):
        allocate("even", NAMES, -1)
    with pytest.raises(ConfigError, match="unknown modality 'txt'"):
        allocate("sk-ll", NAMES, 10, ("txt",))
    with pytest.raises(ConfigError, match="needs a subset"):
        allocate("sk-ll", NAMES, 10)
    with pytest.raises(ConfigError, match="from 0.5 .even. to 1, got 0.3"):
        allocate("sk-ll", NAMES, 10, ("text", "audio"), share=0.3, strength=STRENGTH)
    with pytest.raises(ConfigError, match="needs strength="):
        allocate("sk-ll", NAMES, 10, ("text", "audio"), share=0.6)
    with pytest.raises(ConfigError, match="expected 'cells' or 'labels', got 'money'"):
        allocate("even", NAMES, 10, match="money")
    with pytest.raises(ConfigError, match=r"fraction in \[0, 1\], got 1.5"):
        portion(10, 1.5)
    with pytest.raises(DataError, match="at least 5 candidates, got 2"):
        Allocation(NAMES, ((("text",), 5),)).assign(["a", "b"])
    with pytest.raises(DataError, match="unique ids"):
        by_hash(["a", "a"])
