"""Columns: the store of one modality."""

from __future__ import annotations

import gc

import numpy as np
import pandas as pd
import pytest
import torch

from lacunar.data.column_values import column_from_values
from lacunar.data.columns import DenseColumn, FileColumn, RaggedColumn
from lacunar.data.readers import column_from_files
from lacunar.errors import DataError


def column(values, present=None, kind=None):
    return column_from_values("m", values, None if present is None else np.asarray(present, dtype=bool), kind)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int64, bool])
def test_numbers_of_every_type_become_float32(dtype):
    made = column(np.array([[0, 1], [1, 0]], dtype=dtype))
    values, lengths = made.take(torch.tensor([1, 0]))
    assert values.dtype == torch.float32
    assert values.tolist() == [[1, 0], [0, 1]]
    assert lengths is None
    assert (made.kind, made.shape) == ("vector", (2,))


@pytest.mark.parametrize(
    ("shape", "kind", "stored"),
    [
        ((), "vector", (1,)),
        ((5,), "vector", (5,)),
        ((4, 4), "image", (1, 4, 4)),
        ((6, 2), "sequence", (6, 2)),
        ((3, 4, 4), "image", (3, 4, 4)),
        ((1, 2, 3, 4), "volume", (1, 2, 3, 4)),
    ],
)
def test_the_kind_follows_the_shape(shape, kind, stored):
    made = column(np.ones((3, *shape)))
    assert made.kind == kind
    assert tuple(made.take(torch.tensor([0]))[0].shape) == (1, *stored)


def test_a_kind_that_is_given_stands():
    assert column(np.ones((2, 4, 4)), kind="sequence").kind == "sequence"
    assert tuple(column(np.ones((2, 2, 3, 4)), kind="volume").shape) == (1, 2, 3, 4)
    tokens = column(np.array([[1, 2, 0]]), kind="tokens")
    values, lengths = tokens.take(torch.tensor([0]))
    assert values.dtype == torch.int64
    assert lengths is not None
    assert lengths.tolist() == [3]
    steps = column(np.ones((2, 7)), kind="sequence")
    assert tuple(steps.take(torch.tensor([0, 1]))[0].shape) == (2, 7, 1)


def test_all_nan_rows_and_none_are_absent():
    assert column(np.array([[1.0, 2.0], [np.nan, np.nan]])).present.tolist() == [True, False]
    assert column([None, [1.0, 2.0], np.nan, pd.NA]).present.tolist() == [False, True, False, False]
    assert column([np.array([np.nan, np.nan]), np.array([1.0, 2.0])]).present.tolist() == [False, True]


def test_rows_marked_absent_are_never_looked_at():
    made = column(np.array([[1.0, np.nan], [1.0, 2.0], [np.inf, 0.0]]), [0, 1, 0])
    assert made.present.tolist() == [False, True, False]
    assert isinstance(made, DenseColumn)
    assert made.values.tolist() == [[1.0, 2.0]]
    assert column(["text", object(), "more"], [1, 0, 1]).present.tolist() == [True, False, True]


def test_pandas_columns_of_every_kind():
    nullable = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": pd.array([0.5, None], dtype="Float64")})
    assert column(nullable).present.tolist() == [True, False]
    mixed = pd.DataFrame({"a": [1, 2], "b": [True, False], "c": [0.5, 1.5]})
    assert column(mixed).take(torch.tensor([0]))[0].tolist() == [[1.0, 1.0, 0.5]]
    text = pd.Series(["hello", None, "", "hey"])
    assert text.dtype == "str"
    made = column(text)
    assert made.kind == "tokens"
    assert made.present.tolist() == [True, False, False, True]
    assert column(pd.Series([1.0, np.nan])).present.tolist() == [True, False]
    assert column(pd.Series(["a", pd.NA], dtype=object)).present.tolist() == [True, False]


def test_text_is_bytes():
    for values in (["ab", "ü"], np.array(["ab", "ü"]), np.array(["ab", "ü"], dtype=object)):
        made = column(values)
        tokens, lengths = made.take(torch.tensor([0, 1]))
        assert tokens.tolist() == [[97, 98], [195, 188]]
        assert lengths is not None
        assert lengths.tolist() == [2, 2]
    for letters in ([b"ab", "ü".encode()], np.array([b"ab", "ü".encode()])):
        assert column(letters).take(torch.tensor([0, 1]))[0].tolist() == [[97, 98], [195, 188]]
    assert column(np.array([b"ab", b""])).present.tolist() == column([b"ab", b""]).present.tolist() == [True, False]
    # An empty cell is absent; an empty text that is said to be there is one token.
    assert column(np.array(["ab", ""])).present.tolist() == [True, False]
    assert column(["ab", ""], [1, 1]).take(torch.tensor([1]))[1].tolist() == [1]  # type: ignore[union-attr]


def test_sequences_are_padded_in_the_batch_only():
    made = column([np.ones((2, 3)), np.full((5, 3), 2.0), None])
    assert isinstance(made, RaggedColumn)
    assert made.shape == (3,)
    values, lengths = made.take(torch.tensor([0, 1]))
    assert tuple(values.shape) == (2, 5, 3)
    assert values[0, 2:].abs().sum() == 0
    assert lengths is not None
    assert lengths.tolist() == [2, 5]
    assert tuple(made.take(torch.tensor([0]))[0].shape) == (1, 2, 3)
    one_wide = column([np.ones(2), np.ones(5)])
    assert one_wide.shape == (1,)


@pytest.mark.parametrize("values", [np.arange(8.0).reshape(4, 2), [np.full((i + 1, 2), i + 1.0) for i in range(4)]])
def test_hidden_values_leave_the_store(values):
    made = column(values)
    hidden = made.hide(torch.tensor([True, False, True, False]))
    assert hidden.present.tolist() == [True, False, True, False]
    left = hidden.values if isinstance(hidden, DenseColumn) else [v for v in hidden.values if v is not None]  # type: ignore[attr-defined]
    assert len(left) == 2
    for row in (0, 2):
        assert torch.equal(hidden.take(torch.tensor([row]))[0], made.take(torch.tensor([row]))[0])
    assert made.present.all()
    nothing = hidden.hide(torch.zeros(4, dtype=torch.bool))
    assert nothing.shape == made.shape
    rows, _ = nothing.take(torch.empty(0, dtype=torch.int64))
    assert rows.shape[0] == 0
    assert rows.shape[-1] == 2
    again = hidden.hide(torch.tensor([False, True, True, True]))
    assert again.present.tolist() == [False, False, True, False]


def test_hidden_memory_is_given_back():
    made = column(np.ones((1000, 10)))
    store = made.values  # type: ignore[attr-defined]
    hidden = made.hide(torch.arange(1000) < 10)
    assert hidden.values.untyped_storage().nbytes() < store.untyped_storage().nbytes() / 50  # type: ignore[attr-defined]
    del made, store
    gc.collect()
    assert hidden.take(torch.tensor([3]))[0].sum() == 10


def test_selection_keeps_values_and_allows_repeats():
    made = column(np.array([[1.0], [np.nan], [3.0]])).select(torch.tensor([2, 1, 2]))
    assert len(made) == 3
    assert made.present.tolist() == [True, False, True]
    assert made.take(torch.tensor([0, 2]))[0].tolist() == [[3.0], [3.0]]
    hidden = made.hide(torch.tensor([True, True, False]))
    assert hidden.take(torch.tensor([0]))[0].tolist() == [[3.0]]


def test_files_are_read_when_needed_and_hidden_paths_are_forgotten(tmp_path):
    paths = []
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.full(4, float(i)))
        paths.append(tmp_path / f"{i}.npy")
    made = column_from_files("m", [paths[0], None, paths[2]], "npy")
    assert isinstance(made, FileColumn)
    assert (made.kind, made.shape) == ("vector", (4,))
    assert made.take(torch.tensor([2, 0]))[0].tolist() == [[2.0] * 4, [0.0] * 4]
    hidden = made.hide(torch.tensor([True, True, False]))
    assert isinstance(hidden, FileColumn)
    assert list(hidden.paths) == [paths[0], None, None]
    nothing = hidden.hide(torch.zeros(3, dtype=torch.bool))
    assert nothing.shape == (4,)
    assert tuple(nothing.take(torch.empty(0, dtype=torch.int64))[0].shape) == (0, 4)
    assert made.select(torch.tensor([2])).take(torch.tensor([0]))[0].tolist() == [[2.0] * 4]


def test_a_column_may_be_given_as_one():
    made = column(np.ones((3, 2)))
    assert column(made) is made
    assert column(made, [1, 0, 1]).present.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("values", "present", "kind", "message"),
    [
        (np.ones((2, 2)), None, "vektor", "unknown kind 'vektor'"),
        (np.array([[1.0, np.nan]]), None, None, "row 0: 1 of 2 values are NaN or infinite"),
        (np.array([[1.0, np.inf]]), None, None, "NaN or infinite"),
        (np.array([[1.0, 1e300]]), None, None, "NaN or infinite"),
        (np.array([[np.nan, np.nan]]), [1], None, "says present, but every value is NaN"),
        ([None, "a"], [1, 1], None, "row 0: the presence table says present, but the value is absent"),
        (np.array([["a", 1], ["b", 2]], dtype=object), None, None, "array of Python objects"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), None, None, "expected numbers, got an array of datetime64"),
        (np.array(1.0), None, None, "got a single number"),
        (np.ones((3, 0)), None, None, "at least one value a sample"),
        (np.ones((2, 3)), None, "image", "kind 'image' expects 3 dimensions a sample"),
        ([np.ones((2, 3)), np.ones((2, 4))], None, None, r"row 1: expected shape \(2, 3\)"),
        ([np.ones((2, 3)), np.ones((4, 3))], None, "vector", "different lengths, which kind 'vector' cannot hold"),
        ([np.ones((2, 3)), np.ones((0, 3))], None, None, "row 1: a sequence of 0 steps"),
        ([np.ones((2, 3)), np.full((3, 3), np.inf)], None, None, "row 1: 9 of 9 values"),
        ([{"a": 1}], None, None, "row 0: expected numbers, text or None, got dict"),
    ],
)
def test_bad_values_are_refused_by_name(values, present, kind, message):
    with pytest.raises(DataError, match=message) as caught:
        column(values, present, kind)
    assert "'m'" in str(caught.value)


def test_what_is_masked_is_not_read():
    values = np.ma.masked_array(np.arange(6).reshape(3, 2), mask=[[False, False], [True, True], [False, False]])
    made = column(values)
    assert made.present.tolist() == [True, False, True]
    assert made.take(torch.tensor([0, 2]))[0].tolist() == [[0, 1], [4, 5]]
    assert column(np.ma.masked_array([[1, 2]])).take(torch.tensor([0]))[0].tolist() == [[1, 2]]


def test_half_precision_and_numbers_in_boxes():
    assert column(torch.tensor([[1.5, 2.0]], dtype=torch.bfloat16)).take(torch.tensor([0]))[0].tolist() == [[1.5, 2.0]]
    boxed = column(np.array([[1, True], [None, None]], dtype=object))
    assert boxed.present.tolist() == [True, False]
    assert boxed.take(torch.tensor([0]))[0].tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("kind", ["sequence", "tokens"])
def test_single_numbers_are_sequences_of_one_step(kind):
    for values in ([1, None, 3], [1.0, None, 3.0], np.array([1.0, np.nan, 3.0])):
        made = column(values, kind=kind)
        assert made.present.tolist() == [True, False, True]
        steps, lengths = made.take(torch.tensor([2]))
        assert steps.flatten().tolist() == [3]
        assert lengths is not None
        assert lengths.tolist() == [1]


@pytest.mark.parametrize("dtype", [">i4", ">f4", "<u2", ">u8"])
def test_numbers_of_every_byte_order(dtype):
    numbers = np.arange(6).reshape(3, 2).astype(dtype)
    assert column(numbers).take(torch.tensor([1]))[0].tolist() == [[2, 3]]
    ragged = column([numbers[:2], numbers], kind="sequence")
    assert ragged.take(torch.tensor([0]))[0].tolist() == [[[0, 1], [2, 3]]]


def test_imaginary_parts_are_not_lost():
    for values in (pd.DataFrame({"a": [1j, 2j]}), pd.Series([1j, 2j]), np.array([1j, 2j])):
        with pytest.raises(DataError, match="expected numbers, got an array of complex128"):
            column(values)


def test_differences_that_are_rounded_away_are_said(caplog):
    values = np.random.default_rng(0).normal(size=(30, 3))
    column(values + np.array([0, 1e3, 0]))
    assert not caplog.records
    column(values + np.array([0, 1e9, 1e5]))
    assert "value 1: numbers around 1e+09" in caplog.text and "(1 such of 3)" in caplog.text
