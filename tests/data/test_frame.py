"""Data sets from tables."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import torch

from lacunar.data.frame import from_frame


def patients(n: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(n, 4)), columns=["rna_1", "rna_2", "img_1", "img_2"])
    frame.insert(0, "patient", [f"{i:03d}" for i in range(n)])
    frame["stage"] = ["I", "II", "III"] * (n // 3)
    frame["age"] = np.arange(n) + 40
    frame["site"] = ["x", "y"] * (n // 2)
    frame["outcome"] = ["dead", "alive"] * (n // 2)
    frame["note"] = ["fine", "", None] * (n // 3)
    return frame


def values(data, name):
    return data.__getitems__(range(len(data))).inputs[name]


def test_patterns_lists_and_mappings():
    frame = patients()
    data = from_frame(
        frame,
        {"rna": "rna_*", "image": ["img_1", "img_2"], "age": {"columns": "age"}},
        "outcome",
        id="patient",
        group="site",
        subgroups=["site", "stage"],
    )
    assert data.names == ("rna", "image", "age")
    assert data.shapes == {"rna": (2,), "image": (2,), "age": (1,)}
    assert data.ids[:2].tolist() == ["000", "001"]
    assert data.groups is not None
    assert data.groups[:2].tolist() == ["x", "y"]
    assert data.subgroups is not None
    assert data.subgroups.columns.tolist() == ["site", "stage"]
    assert data.task.classes == ("alive", "dead")
    np.testing.assert_allclose(values(data, "rna"), frame[["rna_1", "rna_2"]], rtol=1e-6)


def test_empty_rows_are_absent():
    frame = patients()
    frame.loc[2, ["rna_1", "rna_2"]] = np.nan
    data = from_frame(frame, {"rna": "rna_*", "age": ["age"]}, "outcome", id="patient")
    assert data.present[:, 0].tolist() == [i != 2 for i in range(12)]


@pytest.mark.parametrize("kind", ["object", "Float64", "string"])
def test_numbers_in_columns_of_other_types(kind):
    frame = patients()
    wanted = frame["rna_1"].to_numpy(dtype=np.float32).copy()
    frame["rna_1"] = frame["rna_1"].astype(kind)
    frame["rna_2"] = [True, False] * 6
    data = from_frame(frame, {"rna": "rna_*"}, "outcome")
    np.testing.assert_allclose(values(data, "rna")[:, 0], wanted, rtol=1e-6)
    assert values(data, "rna")[:2, 1].tolist() == [1.0, 0.0]


def test_text_columns_become_one_hot_levels():
    frame = patients()
    found = from_frame(frame, {"clinical": ["age", "stage"]}, "outcome")
    assert found.shapes["clinical"] == (4,)
    assert values(found, "clinical")[1].tolist() == [41.0, 0.0, 1.0, 0.0]
    declared = from_frame(
        frame, {"clinical": {"columns": ["stage"], "categories": {"stage": ["III", "II", "I", "0"]}}}, "outcome"
    )
    assert values(declared, "clinical")[0].tolist() == [0.0, 0.0, 1.0, 0.0]
    codes = frame.assign(code=[1.0, 2.0, np.nan] * 4)
    coded = from_frame(
        codes, {"code": {"columns": "code", "categories": {"code": [1, 2, 3]}}, "age": ["age"]}, "outcome"
    )
    assert coded.present[:3, 0].tolist() == [True, True, False]
    assert values(coded, "code")[1].tolist() == [0.0, 1.0, 0.0]


def test_partly_empty_rows_as_declared(caplog):
    frame = patients()
    frame.loc[3, "rna_2"] = np.nan
    frame.loc[5, "stage"] = None
    with caplog.at_level(logging.INFO):
        absent = from_frame(frame, {"rna": {"columns": "rna_*", "partial": "absent"}, "age": ["age"]}, "outcome")
    assert absent.present[3].tolist() == [False, True]
    assert "1 rows with some empty cells count as absent" in caplog.text
    filled = from_frame(frame, {"rna": {"columns": "rna_*", "partial": -1}, "age": ["age"]}, "outcome")
    assert values(filled, "rna")[3, 1] == -1
    each = {"columns": ["rna_*", "stage"], "partial": {"rna_2": 9, "stage": 0}}
    both = from_frame(frame, {"mix": each, "age": ["age"]}, "outcome")
    assert values(both, "mix")[3].tolist()[1:] == [9.0, 1.0, 0.0, 0.0]
    assert values(both, "mix")[5].tolist()[2:] == [0.0, 0.0, 0.0]


def test_text_as_characters_and_cells_as_images():
    frame = patients()
    data = from_frame(
        frame,
        {"note": {"columns": "note", "kind": "tokens"}, "image": {"columns": ["rna_*", "img_*"], "shape": [1, 2, 2]}},
        "outcome",
    )
    assert data.kinds == {"note": "tokens", "image": "image"}
    assert data.present[:3, 0].tolist() == [True, False, False]
    assert data.shapes["image"] == (1, 2, 2)


def test_columns_of_paths(tmp_path):
    frame = patients()
    for i in range(12):
        np.save(tmp_path / f"{i}.npy", np.full((2, 3), float(i)))
    frame["scan"] = [f"{i}.npy" if i % 3 else None for i in range(12)]
    frame["copy"] = [str(tmp_path / f"{i}.npy") for i in range(12)]
    data = from_frame(
        frame,
        {"scan": {"path": "scan", "reader": "npy"}, "whole": {"path": "copy", "reader": "npy", "kind": "image"}},
        "outcome",
        root=tmp_path,
    )
    assert data.kinds == {"scan": "sequence", "whole": "image"}
    assert data.present[:, 0].tolist() == [bool(i % 3) for i in range(12)]
    assert values(data, "whole")[7].unique().tolist() == [7.0]
    own = from_frame(frame, {"scan": {"path": "copy", "reader": np.load}}, "outcome")
    assert own.kinds == {"scan": "sequence"}


def test_ids_from_the_index_or_by_counting():
    frame = patients().set_index("patient")
    assert from_frame(frame, {"rna": "rna_*"}, "outcome").ids[1] == "001"
    assert from_frame(patients(), {"rna": "rna_*"}, "outcome").ids[1] == "1"


def test_targets_of_several_columns():
    frame = patients()
    frame["risk"] = np.linspace(0, 1, 12)
    data = from_frame(frame, {"rna": "rna_*"}, ["risk", "img_1"])
    assert data.task.kind == "regression"
    assert data.target is not None
    assert data.target.shape == (12, 2)
    flags = frame.assign(cough=[0, 1] * 6, fever=[1, 0] * 6)
    many = from_frame(flags, {"rna": "rna_*"}, ["cough", "fever"])
    assert many.task.kind == "multilabel"
    assert from_frame(frame, {"rna": "rna_*"}).target is None


def test_a_nullable_target_is_read():
    frame = patients()
    frame["label"] = pd.array([0, 1] * 6, dtype="Int64")
    data = from_frame(frame, {"rna": "rna_*"}, "label")
    assert data.task.kind == "classification"
    assert torch.equal(data.target, torch.tensor([0, 1] * 6))


def test_wide_tables_are_quick():
    frame = pd.DataFrame(np.ones((20, 5000), dtype=np.float32), columns=[f"g{i}" for i in range(5000)])
    frame["y"] = [0, 1] * 10
    assert from_frame(frame, {"genes": "g*"}, "y").shapes["genes"] == (5000,)
    listed = from_frame(frame, {"genes": [f"g{i}" for i in range(5000)]}, "y")
    assert listed.shapes["genes"] == (5000,)


def test_columns_without_a_header_and_single_names():
    frame = pd.DataFrame(np.arange(12.0).reshape(4, 3)).assign(sex=["f", "m", "f", "m"])
    data = from_frame(frame, {"a": [0, 1]}, 2, subgroups="sex")
    assert values(data, "a").tolist() == [[0, 1], [3, 4], [6, 7], [9, 10]]
    assert list(data.subgroups) == ["sex"]


def test_paths_written_on_windows(tmp_path):
    (tmp_path / "scans").mkdir()
    np.save(tmp_path / "scans" / "1.npy", np.ones(3))
    data = from_frame(pd.DataFrame({"f": ["scans\\1.npy"]}), {"s": {"path": "f", "reader": "npy"}}, root=tmp_path)
    assert values(data, "s").tolist() == [[1, 1, 1]]


def test_ids_of_a_slice_are_those_of_the_whole():
    frame = pd.DataFrame({"x": np.arange(8.0)})
    for part in (frame.iloc[4:], frame[frame.index % 2 == 0], frame.iloc[::-1]):
        assert from_frame(part, {"x": ["x"]}).ids.tolist() == part.index.astype(str).tolist()


def test_a_constant_never_fills_a_level():
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", None]})
    data = from_frame(frame, {"m": {"columns": ["a", "b"], "partial": 5}})
    assert values(data, "m").tolist() == [[1.0, 1.0], [2.0, 0.0]]


def test_blanks_around_a_label_are_no_part_of_it():
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "y": ["n", "p", "n "]})
    for kind in ("object", "str", "category"):
        assert from_frame(frame.astype({"y": kind}), {"a": ["a"]}, "y").task.classes == ("n", "p")


def test_bytes_are_text():
    frame = pd.DataFrame({"t": [b"hot", b"", b"cold"], "s": [b"f", b"m", b"f"], "y": [b"n", b"p", b"n"]})
    data = from_frame(frame, {"t": {"columns": "t", "kind": "tokens"}, "s": ["s"]}, "y")
    assert data.present[:, 0].tolist() == [True, False, True]
    assert bytes(values(data, "t")[1].tolist()) == b"cold"
    assert values(data, "s").tolist() == [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    assert data.task.classes == ("n", "p")


def test_dates_that_are_listed_are_levels():
    frame = pd.DataFrame({"wave": ["2020-01-01", "2021-01-01"]})
    listed = {"columns": "wave", "categories": {"wave": ["2020-01-01", "2021-01-01"]}}
    assert values(from_frame(frame, {"m": listed}), "m").tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_blanks_around_a_path_are_no_part_of_it(tmp_path):
    np.save(tmp_path / "1.npy", np.ones(3))
    data = from_frame(pd.DataFrame({"f": [" 1.npy "]}), {"s": {"path": "f", "reader": "npy"}}, root=tmp_path)
    assert values(data, "s").tolist() == [[1, 1, 1]]
