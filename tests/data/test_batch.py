"""Packed batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lacunar.data.arrays import from_arrays
from lacunar.data.batch import Batch, collate
from lacunar.errors import DataError

KINDS = {
    "vector": lambda n: np.random.default_rng(0).normal(size=(n, 3)),
    "sequence": lambda n: [np.full((1 + i % 4, 2), i, dtype=float) for i in range(n)],
    "tokens": lambda n: [np.arange(1 + i % 3) for i in range(n)],
    "image": lambda n: np.random.default_rng(1).normal(size=(n, 1, 4, 5)),
    "volume": lambda n: np.random.default_rng(2).normal(size=(n, 1, 2, 3, 4)),
}


def every_kind(n: int = 12):
    present = {name: np.arange(n) % (m + 2) != 0 for m, name in enumerate(KINDS)}
    present["vector"] |= np.arange(n) == 0
    return from_arrays(
        {name: make(n) for name, make in KINDS.items()}, np.arange(n) % 2, present=present, kinds={k: k for k in KINDS}
    )


def test_a_batch_holds_only_the_rows_that_exist():
    data = every_kind()
    batch = data.__getitems__([3, 4, 6])
    assert batch.names == tuple(KINDS)
    for m, name in enumerate(batch.names):
        assert len(batch.inputs[name]) == int(batch.present[:, m].sum())
        assert batch.rows(name).tolist() == batch.present[:, m].nonzero().squeeze(1).tolist()
    assert set(batch.lengths) == {"sequence", "tokens"}
    assert batch.target is not None
    assert batch.target.tolist() == [1, 0, 0]
    assert len(batch) == 3


def test_a_batch_of_no_samples_keeps_every_shape():
    data = every_kind()
    empty = data.__getitems__([])
    assert len(empty) == 0
    assert empty.present.shape == (0, 5)
    shapes = {name: tuple(rows.shape[1:]) for name, rows in empty.inputs.items()}
    assert shapes["vector"] == (3,)
    assert shapes["image"] == (1, 4, 5)
    assert shapes["volume"] == (1, 2, 3, 4)
    assert shapes["sequence"][1:] == (2,)
    assert len(shapes["tokens"]) == 1
    assert empty.inputs["tokens"].dtype == torch.int64
    assert empty.lengths["sequence"].shape == (0,)
    full = data.__getitems__(range(4))
    joined = collate([empty, full])
    for name in KINDS:
        assert torch.equal(joined.inputs[name], full.inputs[name])


def test_rows_of_one_modality_may_be_absent_from_the_whole_batch():
    data = every_kind()
    batch = data.__getitems__(range(12)).hide(["vector"])
    assert batch.present.sum(0).tolist() == [int(data.present[:, 0].sum()), 0, 0, 0, 0]
    for name in list(KINDS)[1:]:
        assert len(batch.inputs[name]) == 0
        assert batch.dense()[name].shape[0] == 12


def test_hide_by_name_and_by_cells_agree():
    batch = every_kind().__getitems__(range(10))
    keep = torch.zeros_like(batch.present)
    keep[:, [0, 2]] = True
    by_name, by_cell = batch.hide(["vector", "tokens"]), batch.hide(keep)
    assert torch.equal(by_name.present, by_cell.present)
    for name in KINDS:
        assert torch.equal(by_name.inputs[name], by_cell.inputs[name])
    assert torch.equal(batch.hide("vector").present, batch.hide(["vector"]).present)


def test_hide_composes_and_brings_nothing_back():
    batch = every_kind().__getitems__(range(10))
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(batch.present.shape, generator=generator) < 0.6
    second = torch.rand(batch.present.shape, generator=generator) < 0.6
    step, once = batch.hide(first).hide(second), batch.hide(first & second)
    assert torch.equal(step.present, once.present)
    for name in KINDS:
        assert torch.equal(step.inputs[name], once.inputs[name])
        if name in once.lengths:
            assert torch.equal(step.lengths[name], once.lengths[name])
    assert torch.equal(batch.hide(torch.ones_like(batch.present)).present, batch.present)


def test_dense_puts_rows_where_they_belong():
    batch = every_kind().__getitems__(range(10))
    dense = batch.dense(-7.0)
    for m, name in enumerate(batch.names):
        assert torch.equal(dense[name][batch.present[:, m]], batch.inputs[name])
        assert (dense[name][~batch.present[:, m]] == -7).all()


def test_collate_pads_to_the_longest_and_keeps_lengths():
    data = every_kind()
    joined = collate([data[i] for i in range(8)])
    whole = data.__getitems__(range(8))
    assert torch.equal(joined.present, whole.present)
    assert torch.equal(joined.index, whole.index)
    for name in KINDS:
        assert torch.equal(joined.inputs[name], whole.inputs[name])
    assert torch.equal(joined.lengths["sequence"], whole.lengths["sequence"])
    assert collate(whole) is whole


def test_collate_without_targets_and_of_other_modalities():
    data = every_kind()
    unlabelled = data.with_task(data.task, None)
    assert collate([unlabelled[0], unlabelled[1]]).target is None
    with pytest.raises(DataError, match="Expected batches of the modalities"):
        collate([data[0], data.only(["vector"])[0]])


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_give_every_sample_once_with_its_own_values(workers):
    data = every_kind(30)
    seen = []
    for batch in data.loader(7, shuffle=True, seed=3, num_workers=workers):
        assert isinstance(batch, Batch)
        seen += batch.index.tolist()
        for place, value in zip(batch.rows("sequence").tolist(), batch.inputs["sequence"]):
            row = int(batch.index[place])
            assert value[0, 0] == row
    assert sorted(seen) == list(range(30))
    assert seen != list(range(30))


def test_the_seed_of_a_loader_fixes_the_order():
    data = every_kind(30)

    def order(seed):
        return [row for batch in data.loader(8, shuffle=True, seed=seed) for row in batch.index.tolist()]

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_moving_keeps_everything():
    batch = every_kind().__getitems__(range(5))
    moved = batch.to("cpu")
    assert moved.names == batch.names
    assert torch.equal(moved.present, batch.present)
    assert set(moved.lengths) == set(batch.lengths)
    assert batch.device.type == "cpu"
    assert every_kind().with_task(None, None)[0].to("cpu").target is None


def test_hide_refuses_what_it_does_not_know():
    batch = every_kind().__getitems__(range(5))
    with pytest.raises(DataError, match="Unknown modality 'vectr'. Did you mean 'vector'?"):
        batch.hide(["vectr"])
    with pytest.raises(DataError, match=r"Expected presence of shape \(5, 5\), got \(4, 5\)"):
        batch.hide(torch.ones(4, 5, dtype=torch.bool))
