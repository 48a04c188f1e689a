"""Cells that a completer fills in: flagged, and gone again when they are hidden."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lacunar.data.arrays import from_arrays
from lacunar.data.batch import collate
from lacunar.errors import DataError


@pytest.fixture
def data():
    nothing = [np.nan, np.nan]
    return from_arrays(
        {
            "a": np.array([[1.0, 1], nothing, [3, 3], nothing]),
            "s": [np.ones((2, 3)), np.ones((4, 3)), None, np.ones((1, 3))],
        },
        ["x", "y", "x", "y"],
    )


def test_filled_cells_are_present_and_flagged(data):
    full = data.fill({"a": np.array([[2.0, 2], [4, 4]]), "s": [np.zeros((3, 3))]})
    assert full.present.all()
    assert full.generated.tolist() == [[False, False], [True, False], [False, True], [True, False]]
    batch = full.__getitems__([3, 2, 1, 0])
    assert batch.inputs["a"][:, 0].tolist() == [4, 3, 2, 1]
    assert batch.lengths["s"].tolist() == [1, 3, 4, 2]
    assert batch.inputs["s"].sum((1, 2)).tolist() == [3, 0, 12, 6]
    assert batch.generated.tolist() == full.generated[[3, 2, 1, 0]].tolist()
    assert data.generated.sum() == 0
    assert full.shapes == data.shapes
    assert "3 of 8 cells were generated" in str(full)


def test_flags_survive_selecting_hiding_and_collating(data):
    full = data.fill({"a": np.array([[2.0, 2], [4, 4]])})
    assert full.select([3, 0]).generated[:, 0].tolist() == [True, False]
    hidden = full.hide({"a": np.array([True, False, True, True])})
    assert hidden.present[:, 0].tolist() == [True, False, True, True]
    assert hidden.generated[:, 0].tolist() == [False, False, False, True]
    assert collate([full[1], full[0]]).generated[:, 0].tolist() == [True, False]
    assert torch.equal(full.observed().present, data.present)
    assert not full.only(["s"]).generated.any()


def test_a_batch_fills_and_hides_alike(data):
    batch = data.__getitems__(range(4))
    full = batch.fill({"a": torch.tensor([[2.0, 2], [4, 4]]), "s": torch.zeros(1, 6, 3)}, {"s": torch.tensor([6])})
    assert full.inputs["a"][:, 0].tolist() == [1, 2, 3, 4]
    assert full.lengths["s"].tolist() == [2, 4, 6, 1]
    assert full.present.all()
    assert int(full.generated.sum()) == 3
    only = full.hide(["a"])
    assert int(only.generated.sum()) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"b": np.ones((2, 2))}, "Unknown modality 'b'"),
        ({"a": np.ones((3, 2))}, "2 cells are absent, got 3"),
        ({"a": np.ones((2, 5))}, r"expected values of shape \(2,\), got \(5,\)"),
        ({"a": np.full((2, 2), np.nan)}, "NaN or infinite"),
    ],
)
def test_wrong_values_are_refused(data, values, message):
    with pytest.raises(DataError, match=message):
        data.fill(values)


def test_filling_twice_is_refused(data):
    once = data.fill({"a": np.ones((2, 2))}).hide({"a": np.array([True, False, True, True])})
    with pytest.raises(DataError, match="filled before"):
        once.fill({"a": np.ones((1, 2))})
