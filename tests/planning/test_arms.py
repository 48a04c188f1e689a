"""What the arms buy: counts, nestedness, determinism, and that what was not bought is gone."""

import numpy as np
import pytest
import torch

from lacunar.data.arrays import from_arrays
from lacunar.errors import ConfigError, DataError
from lacunar.planning.arms import ARMS, buy, get_arm, owned_and_bought, random_key
from lacunar.planning.nested import NestedSubsets, strata
from tests.helpers import vectors

NAMES = ("text", "audio", "video")


def pool(n, seed=0, classes=2):
    data = from_arrays({"a": np.zeros((n, 1))}, np.arange(n) % classes, ids=[f"s{i}" for i in range(n)])
    return NestedSubsets(data, seed)


@pytest.mark.parametrize(
    ("n", "start", "even", "key", "most"), [(1284, 128, 42, 64, 128), (16326, 1632, 544, 816, 1632)]
)
def test_counts_of_the_paper(n, start, even, key, most):
    order = pool(n)
    assert len(order.share(0.1)) == start
    found = {name: buy(get_arm(name), order, NAMES, 0.1, 0.1, ("text", "audio")) for name in ARMS}
    assert [found[name].labels for name in ("lower", "even", "sk-ll", "upper")] == [0, even, key, most]
    assert [found[name].cells for name in ("lower", "even", "sk-ll", "upper")] == [0, 3 * even, 2 * key, 3 * most]
    # The controls: nothing; as many samples as SK-LL; its labels with every modality; the even arm's purchase.
    assert found["c0"].labels == 0
    assert found["c1"].labels == found["c2-mean"].labels == found["c3"].labels == found["c4"].labels == key
    assert found["c4"].cells == 3 * key
    assert found["c5"].cells == 3 * even
    assert found["c4"].cells > found["c4"].budget >= found["sk-ll"].cells


@pytest.mark.parametrize("ratio", [0.5, 0.6, 0.7, 0.8])
def test_weighted_splits_spend_no_more_and_are_nested(ratio):
    arm = get_arm({"arm": "sk-ll", "ratio": ratio})
    strength = {"text": 0.1, "audio": 0.3, "video": 0.2}
    bought = buy(arm, pool(1284), NAMES, 0.1, 0.1, ("text", "audio"), strength=strength)
    _, audio, video = bought.present.T
    assert bought.cells == 128
    assert not video.any()
    assert audio.all()  # the strongest modality of the key comes with every sample
    assert audio.sum() == 128 - int(128 * (1 - ratio) + 1e-9)
    assert bought.labels >= 64  # weighting buys more labels


def test_cost_counts_cells_and_labels():
    bought = buy(get_arm("sk-ll"), pool(100), NAMES, 0.1, 0.2, ("text", "video"))
    assert bought.cost(NAMES) == 20
    assert bought.cost(NAMES, {"text": 2.0, "video": 5.0}, label=1.0) == 10 * 2 + 10 * 5 + 10


def test_subsets_are_nested_and_stratified():
    order = pool(200, classes=4)
    smaller, larger = set(order.share(0.1)), set(order.share(0.3))
    assert smaller < larger
    for rho in (0.1, 0.2, 0.5):
        counts = np.bincount(np.arange(200)[order.share(rho)] % 4)
        assert counts.max() - counts.min() <= 1
    # What is bought follows what is owned, and a smaller purchase is the start of a larger one.
    even = buy(get_arm("even"), order, NAMES, 0.1, 0.1)
    key = buy(get_arm("sk-ll"), order, NAMES, 0.1, 0.1, ("text",))
    assert not set(even.rows) & smaller
    assert list(key.rows[: even.labels]) == list(even.rows)


def test_order_depends_on_ids_alone():
    ids = np.array([f"patient {i}" for i in range(60)])
    target = np.random.default_rng(0).normal(size=60)
    shuffled = np.random.default_rng(1).permutation(60)
    first = NestedSubsets(from_arrays({"a": np.zeros((60, 1))}, target, ids=ids), 3)
    second = NestedSubsets(from_arrays({"a": np.zeros((60, 1))}, target[shuffled], ids=ids[shuffled]), 3)
    assert list(ids[first.order]) == list(ids[shuffled][second.order])
    assert list(first.order) != list(NestedSubsets(from_arrays({"a": np.zeros((60, 1))}, target, ids=ids), 4).order)
    bins = strata(target)
    assert np.bincount(bins).tolist() == [15, 15, 15, 15]


def test_order_is_the_same_in_every_process():
    # Written down once: the interpreter's hash seed differs from run to run, this order must not.
    data = from_arrays({"a": np.zeros((12, 1))}, np.arange(12) % 3, ids=[f"s{i}" for i in range(12)])
    assert NestedSubsets(data, 1).order.tolist() == [3, 10, 2, 9, 1, 11, 4, 0, 5, 7, 6, 8]


def test_groups_are_not_cut_where_asked():
    groups = np.repeat([f"g{i}" for i in range(12)], 5)
    data = from_arrays({"a": np.zeros((60, 1))}, np.arange(60) % 2, groups=groups)
    order = NestedSubsets(data, 0, by_group=True)
    rows = order.rows(23)
    assert len(rows) == 20
    assert all(np.isin(np.flatnonzero(groups == name), rows).all() for name in set(groups[rows]))
    assert not set(order.rows(20, start=len(rows))) & set(rows)
    with pytest.raises(DataError, match="have no groups"):
        NestedSubsets(vectors(2), by_group=True)


def test_random_key_is_drawn_by_seed():
    drawn = {random_key(NAMES, 2, seed) for seed in range(30)}
    assert drawn == {("text", "audio"), ("text", "video"), ("audio", "video")}
    assert random_key(NAMES, 2, 5) == random_key(NAMES, 2, 5)


def test_what_was_not_bought_is_gone():
    data = vectors(3, n=60, missing=0.0)
    order = NestedSubsets(data, 0)
    owned = order.share(0.2)
    bought = buy(get_arm("sk-ll"), order, data.names, 0.2, 0.4, ("m0", "m2"))
    everything = owned_and_bought(data, owned, bought)
    assert len(everything) == len(owned) + bought.labels
    assert everything.present[: len(owned)].all()
    assert torch.equal(everything.present[len(owned) :], torch.tensor([[True, False, True]] * bought.labels))
    values = everything.__getitems__(range(len(everything))).inputs["m1"]
    assert len(values) == len(owned)  # nothing is stored for the others


def test_errors_say_what_to_do():
    order = pool(40)
    with pytest.raises(ConfigError, match="Unknown arm 'evn'.*'even'"):
        get_arm("evn")
    with pytest.raises(ConfigError, match="unknown field 'complet'"):
        get_arm({"arm": "sk-ll", "complet": "zero"})
    with pytest.raises(ConfigError, match="ratio in"):
        get_arm({"arm": "sk-ll", "ratio": 1.5})
    with pytest.raises(ConfigError, match="needs a subset"):
        buy(get_arm("sk-ll"), order, NAMES, 0.1, 0.1)
    with pytest.raises(ConfigError, match="Lower the available share or the budget"):
        buy(get_arm("upper"), order, NAMES, 0.6, 0.5)
    with pytest.raises(ConfigError, match="share"):
        order.share(1.2)
