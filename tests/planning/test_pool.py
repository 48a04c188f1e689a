"""A pool sells what it hides, for what it costs, and nothing else gets out of it."""

from __future__ import annotations

import gc
from types import FunctionType, ModuleType

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from lacunar.data.arrays import from_arrays
from lacunar.data.columns import Column
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.presence import draw_presence
from lacunar.errors import ConfigError, DataError
from lacunar.planning.learner import Learner
from lacunar.planning.pool import Pool

COSTS = {"per_cell": {"a": 1, "b": 2, "c": 5}, "per_sample": 3, "label": 4, "setup": {"b": 10}}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    return from_arrays(
        {name: rng.normal(size=(40, width)) + y[:, None] for name, width in (("a", 2), ("b", 3), ("c", 4))},
        y,
        ids=[f"p{i:02}" for i in range(40)],
    )


def test_only_what_is_owned_is_in_the_data(data):
    pool = Pool(data, np.arange(10), COSTS, 500)
    assert len(pool.data) == 10
    assert pool.data.present.all()
    assert pool.spent == 0
    more = pool.acquire(["p20", "p15"], ["a", "c"])
    assert more is pool.data
    assert more.ids.tolist() == [*data.ids[:10], "p15", "p20"]
    assert more.target.tolist() == data.target[[*range(10), 15, 20]].tolist()
    assert [len(more.columns[name].values) for name in "abc"] == [12, 10, 12]
    torch.testing.assert_close(more.columns["c"].values[-1], data.columns["c"].values[20])
    assert pool.spent == 2 * (1 + 5 + 3 + 4)
    assert pool.labels == 2
    assert pool.cells == {"a": 2, "b": 0, "c": 2}


def test_the_ledger_adds_up_and_setup_and_labels_are_paid_once(data):
    pool = Pool(data, [f"p{i:02}" for i in range(8)], COSTS, 200)
    pool.acquire(["p10", "p11"], "a+b")  # 2 (1 + 2 + 3 + 4) + 10
    pool.acquire(["p10"], "c")  # 5: it has its label
    pool.acquire(["p12"], ["b"])  # 2 + 3 + 4: the set-up of b is paid
    table = pool.ledger
    assert table["cost"].tolist() == [30, 5, 9]
    assert table["labels"].tolist() == [2, 0, 1]
    assert table["modalities"].tolist() == ["a+b", "c", "b"]
    assert table["left"].tolist() == [170, 165, 156]
    assert (pool.spent, pool.left) == (44, 156)
    # In another order, and in one purchase for each subset, the total is the same.
    other = Pool(data, np.arange(8), COSTS, 200)
    other.acquire(["p12"], ["b"])
    other.acquire(["p11", "p10"], "b+a")
    other.acquire(["p10"], "c")
    assert other.spent == pool.spent
    assert str(pool).startswith("11 of 40 samples owned; 44 spent of 200")


def test_setup_of_a_modality_that_is_added_to_owned_samples(data):
    pool = Pool(data, np.column_stack([np.ones(40), np.zeros(40), np.zeros(40)]).astype(bool), COSTS)
    assert pool.quote(data.ids[:3], "b") == 3 * 2 + 10
    pool.acquire(data.ids[:3], "b")
    assert pool.quote(data.ids[3:5], "b") == 2 * 2
    assert pool.labels == 0


def test_quotes_are_what_is_charged_and_buy_nothing(data):
    pool = Pool(data, np.arange(10), COSTS, 100)
    price = pool.quote(data.ids[10:13], "a+b")
    assert len(pool.data) == 10
    assert pool.spent == 0
    pool.acquire(data.ids[10:13], "a+b")
    assert pool.spent == price


def test_refusals_leave_everything_as_it_was(data):
    pool = Pool(data, np.arange(10), {**COSTS, "capacity": {"a": 3}}, 60)
    before = pool.data
    refused = [
        (["p10", "p11", "p12", "p13"], "a", ConfigError, "Over capacity: 4 cells of 'a'"),
        (["p10", "p11", "p12", "p13", "p14", "p15"], "c", ConfigError, "Over budget: 6 samples of c cost 72"),
        (["p99"], "a", DataError, "unknown sample 'p99'"),
        (["p10", "p10"], "a", DataError, "'p10' is in the order more than once"),
        (["p10", "p03"], "b", DataError, "'b' of sample 'p03' is owned already"),
        (["p10"], "d", DataError, "unknown modality 'd'"),
        (["p10"], [], DataError, "at least one modality: a label alone is not sold"),
    ]
    for ids, names, error, match in refused:
        with pytest.raises(error, match=match):
            pool.acquire(ids, names)
        assert pool.data is before
        assert pool.spent == 0
    pool.acquire(["p10", "p11"], "a")
    with pytest.raises(ConfigError, match="Over capacity: 4 cells of 'a' would have been asked for, and there are 3"):
        pool.acquire(["p12", "p13"], "a")


def test_bundles_that_fail_use_up_the_capacity(data):
    costs = {**COSTS, "bundles": {"a+b": 2}, "failure": {"b": 0.5}, "capacity": {"a": 10}}
    pool = Pool(data, np.arange(10), costs)
    pool.acquire([f"p{i}" for i in range(10, 14)], "a+b")
    with pytest.raises(ConfigError, match="Over capacity: 11 cells of 'a' would have been asked for, and there are 10"):
        pool.acquire(["p14", "p15", "p16"], "a")
    pool.acquire(["p14", "p15"], "a")


def test_cells_that_were_never_measured_cannot_be_bought(data):
    gappy = data.hide({"b": np.arange(40) % 2 == 0})
    pool = Pool(gappy, np.arange(5))
    with pytest.raises(DataError, match="'b' of sample 'p11' does not exist"):
        pool.acquire(["p10", "p11"], "b")
    assert all(int(key[1:]) % 2 == 0 for key in pool.available("b"))
    assert pool.available().tolist() == [f"p{i:02}" for i in range(6, 40, 2)]
    pool.acquire(["p11"], "a")
    assert "p11" not in pool.available("c")
    assert "p11" in pool.available("c", new=False)
    assert "p11" not in pool.available("a", new=False)


def test_starting_points_in_every_form_agree(data):
    flags = np.zeros(40, dtype=bool)
    flags[[3, 5]] = True
    table = np.repeat(flags[:, None], 3, axis=1)
    drawn = draw_presence(data, {"a": 0.5, "b": 0.5, "c": 0.5}, seed=1)
    for owned in (["p03", "p05"], [3, 5], flags, table, torch.from_numpy(table)):
        assert Pool(data, owned).data.ids.tolist() == ["p03", "p05"]
    pool = Pool(data, drawn)
    np.testing.assert_array_equal(pool.data.present.numpy(), drawn.align(pool.data.ids, data.names))
    assert pool.owned.names == data.names


def test_bad_pools_are_told(data):
    blank = from_arrays({"a": np.zeros((3, 2))}, None)
    filled = data.hide({"a": np.arange(40) > 3}).fill({"a": np.zeros((4, 2))})
    for given, match in ((blank, "no target"), (filled, "some cells were generated")):
        with pytest.raises(DataError, match=match):
            Pool(given, [0])
    for owned, match in (
        (["p77"], "owned: unknown sample 'p77'"),
        ([40], "positions from 0 to 39"),
        (np.ones(3, dtype=bool), "expected 40 booleans"),
        (np.zeros(40, dtype=bool), "at least one owned cell"),
    ):
        with pytest.raises(DataError, match=match):
            Pool(data, owned)
    with pytest.raises(ConfigError, match="budget: expected a number from 0 up"):
        Pool(data, [0], COSTS, -1)
    with pytest.raises(ConfigError, match="'c' has no price"):
        Pool(data, [0], {"a": 1, "b": 1})
    free = Pool(data, [0], COSTS, 0)
    with pytest.raises(ConfigError, match="Over budget"):
        free.acquire(["p10"], "a")


# ---------------------------------------------------------------------- nothing leaks


class Guarded(Column):
    """A modality that raises when a value is read that nobody has paid for."""

    def __init__(self, name, position, values, sold):
        super().__init__(name, "vector", position)
        self.values, self.sold = values, sold

    @property
    def shape(self):
        return tuple(self.values.shape[1:])

    def take(self, rows):
        stored = self.position[rows].tolist()
        unpaid = [row for row in stored if row not in self.sold]
        if unpaid:
            raise AssertionError(f"{self.name}: values {unpaid} were read and never paid for")
        return self.values[self.position[rows]], None

    def _like(self, position):
        return Guarded(self.name, position, self.values, self.sold)


def test_no_training_and_no_completion_touches_what_was_not_bought(data):
    sold = {name: set(range(10)) for name in data.names}
    guarded = MultimodalDataset(
        {name: Guarded(name, torch.arange(40), column.values, sold[name]) for name, column in data.columns.items()},
        data.target, data.task, data.ids,
    )  # fmt: skip
    pool = Pool(guarded, np.arange(10), COSTS)
    sold["a"] |= {20, 21, 22, 23}
    sold["b"] |= {20, 21}
    pool.acquire(["p20", "p21"], "a+b")
    pool.acquire(["p22", "p23"], "a")
    learner = Learner(LogisticRegression, completer="ridge")
    test = data.select(np.arange(30, 40))
    for fill in (False, True):
        assert np.isfinite(learner.score(pool.data, test, 0, fill).score)
    with pytest.raises(AssertionError, match="never paid for"):  # the guard works
        guarded.__getitems__([25])


def test_poisoned_values_change_nothing_before_they_are_bought(data):
    """What is not owned may be anything, NaN and infinity included: no number that follows is another one."""
    poisoned = {}
    for name, column in data.columns.items():
        values = column.values.clone()
        values[12:] = float("nan") if name != "b" else float("inf")
        poisoned[name] = type(column)(name, column.kind, column.position, values)
    target = data.target.clone()
    target[12:] = 1 - target[12:]
    other = MultimodalDataset(poisoned, target, data.task, data.ids)
    learner, scores = Learner(LogisticRegression, completer="knn"), []
    for given in (data, other):
        pool = Pool(given, np.arange(8), COSTS)
        pool.acquire(data.ids[8:12], "a+c")
        scores.append(learner.score(pool.data, data.select(np.arange(30, 40)), 0, fill=True).score)
    assert scores[0] == scores[1]
    assert np.isfinite(scores[0])


def test_the_true_values_cannot_be_reached_from_what_a_pool_gives_out(data):
    """Walk over everything that the data and the pool's own attributes refer to: no unbought value is there."""
    pool = Pool(data, np.arange(10), COSTS)
    pool.acquire(["p20"], "a")
    secret = data.columns["c"].values[20].numpy().tobytes()
    inner = {name: value for name, value in vars(pool).items() if name != "_reveal"}
    seen, queue, tensors = set(), [pool.data, *inner.values()], 0
    while queue:
        thing = queue.pop()
        if id(thing) in seen or isinstance(thing, (type, ModuleType, FunctionType)):
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            tensors += 1
            assert secret not in thing.numpy().tobytes()
        else:
            queue += gc.get_referents(thing)
    assert tensors > 5
