"""Data sets in memory."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import torch

from lacunar.data.arrays import from_arrays
from lacunar.data.presence import PresenceTable
from lacunar.errors import DataError


def table(n: int = 20, **options):
    rng = np.random.default_rng(0)
    values = {
        "a": rng.normal(size=(n, 3)),
        "b": [np.ones((1 + i % 3, 2)) for i in range(n)],
        "c": rng.normal(size=(n, 4)),
    }
    options.setdefault("ids", [f"s{i:02d}" for i in range(n)])
    return from_arrays(values, np.arange(n) % 2, **options)


def test_facts_about_the_data():
    present = np.ones((20, 3), dtype=bool)
    present[:5, 0] = present[3:10, 1] = False
    data = table(present=present)
    assert data.names == ("a", "b", "c")
    assert data.kinds == {"a": "vector", "b": "sequence", "c": "vector"}
    assert data.shapes == {"a": (3,), "b": (2,), "c": (4,)}
    assert data.availability.tolist() == [15, 13, 20]
    assert data.missing_rates == {"a": 0.25, "b": pytest.approx(0.35), "c": 0.0}
    assert data.present.tolist() == present.tolist()
    assert data.patterns().to_dict() == {"a+b+c": 10, "a+c": 5, "b+c": 3, "c": 2}
    text = str(data)
    for part in ("20 samples", "3 modalities", "0.350", "a+b+c", "sequence"):
        assert part in text
    assert data.describe().loc["b", "observed"] == 13


@pytest.mark.parametrize(
    "form",
    [
        lambda p: p,
        lambda p: torch.from_numpy(p),
        lambda p: p.astype(int),
        lambda p: pd.DataFrame(p, columns=["a", "b", "c"]),
        lambda p: {"c": p[:, 2], "a": p[:, 0], "b": p[:, 1]},
        lambda p: PresenceTable(p, [f"s{i:02d}" for i in range(20)], ["a", "b", "c"]),
    ],
)
def test_presence_in_every_form(form):
    present = np.random.default_rng(0).random((20, 3)) < 0.7
    present[:, 2] = True
    assert table(present=form(present)).present.tolist() == present.tolist()


def test_samples_with_nothing_are_left_out_and_counted(caplog):
    present = np.ones((20, 3), dtype=bool)
    present[[3, 7]] = False
    with caplog.at_level(logging.INFO):
        data = table(present=present)
    assert len(data) == 18
    assert data.dropped == 2
    assert "2 samples without any modality left out" in caplog.text
    assert "2 samples without any modality were left out" in str(data)
    assert data.row.tolist() == [i for i in range(20) if i not in (3, 7)]
    assert data.target is not None
    assert len(data.target) == len(data.ids) == 18
    kept = table(present=present, keep_empty=True)
    assert len(kept) == 20
    assert kept.present[3].sum() == 0


def test_select_only_and_hide_compose():
    data = table()
    keep = np.random.default_rng(1).random((20, 3)) < 0.7
    keep[:, 2] = True
    rows = [4, 1, 9, 15]
    one = data.hide(keep).select(rows).only(["c", "a"])
    other = data.only(["a", "c"]).select(rows).hide(keep[rows][:, [0, 2]])
    assert one.names == other.names == ("a", "c")
    assert one.ids.tolist() == other.ids.tolist() == [f"s{i:02d}" for i in rows]
    assert torch.equal(one.present, other.present)
    first, second = one.__getitems__(range(4)), other.__getitems__(range(4))
    for name in one.names:
        assert torch.equal(first.inputs[name], second.inputs[name])
    assert torch.equal(first.index, torch.tensor(rows))
    assert data.present.all()


def test_only_drops_samples_left_with_nothing():
    present = np.ones((20, 3), dtype=bool)
    present[:6, 0] = False
    data = table(present=present)
    assert len(data.only(["a"])) == 14
    assert data.only(["a"]).dropped == 6


def test_hide_by_table_follows_ids():
    data = table()
    keep = np.random.default_rng(2).random((20, 3)) < 0.7
    keep[:, 0] = True
    order = np.random.default_rng(3).permutation(20)
    by_id = PresenceTable(keep[order], data.ids[order], data.names)
    assert data.hide(by_id).present.tolist() == keep.tolist()
    part = data.select(order[:7])
    assert part.hide(by_id).present.tolist() == keep[order[:7]].tolist()


def test_selection_by_booleans_and_by_nothing():
    data = table()
    assert data.select(np.arange(20) < 3).ids.tolist() == ["s00", "s01", "s02"]
    assert data.select(torch.arange(20) < 3).ids.tolist() == ["s00", "s01", "s02"]
    assert len(data.select([])) == 0
    assert len(data.select([]).__getitems__([])) == 0


def test_groups_and_subgroups_travel():
    data = table(groups=np.arange(20) // 5, subgroups={"sex": ["f", "m"] * 10})
    part = data.select([3, 12])
    assert part.groups is not None
    assert part.groups.tolist() == ["0", "2"]
    assert part.subgroups is not None
    assert part.subgroups["sex"].tolist() == ["m", "f"]
    assert part.subgroups.index.tolist() == [0, 1]


def test_targets_of_several_kinds():
    n = 30
    values = {"a": np.ones((n, 2))}
    assert from_arrays(values, ["x", "y", "z"] * 10).task.kind == "classification"
    assert from_arrays(values, pd.Series(["x", "y", "z"] * 10)).task.kind == "classification"
    assert from_arrays(values, np.linspace(0, 1, n)).task.kind == "regression"
    assert from_arrays(values, np.eye(n)[:, :4]).task.kind == "multilabel"
    assert from_arrays(values, np.arange(n) % 3, task="regression").task.kind == "regression"
    unlabelled = from_arrays(values)
    assert unlabelled.task is None
    assert unlabelled[0].target is None
    assert "no target" in str(unlabelled)


def test_batches_walk_through_in_order():
    data = table(23)
    assert [batch.index.tolist() for batch in data.batches(10)] == [
        list(range(10)),
        list(range(10, 20)),
        list(range(20, 23)),
    ]


def test_the_values_handed_in_are_not_held_on_to():
    values = np.ones((5, 2))
    data = from_arrays({"a": values}, [0, 1, 0, 1, 0])
    values[:] = 7
    assert data[0].inputs["a"].tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.only(["aa", "b"]), "Unknown modality 'aa'"),
        (lambda d: d.only([]), "at least one modality|needs 1 to 63"),
        (lambda d: d.hide(np.ones((19, 3))), r"expected shape \(20, 3\), got \(19, 3\)"),
        (lambda d: d.hide(np.zeros((20, 3))), "none of the 20 samples has any"),
        (lambda d: d.select([20]), "expected positions below 20, got 20"),
        (lambda d: d.select([True, False]), "expected 20 booleans"),
        (lambda d: d.hide(PresenceTable(np.ones((2, 3)), ["s00", "s01"], "abc")), "lacks 18 of 20 sample ids"),
        (lambda d: d.hide(PresenceTable(np.ones((20, 2)), d.ids, ["a", "bb"])), "no modality 'b'"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call(table())


def test_one_line_for_the_prompt():
    data = table()
    assert repr(data) == "MultimodalDataset('data': 20 samples, a, b, c; classification into 2 classes (0, 1))"
    assert repr(data.split(by_class=False)).startswith("Splits('data': 14 train, 3 val, 3 test; a, b, c; ")


def test_a_single_name_is_a_name():
    assert table().only("b").names == ("b",)


@pytest.mark.parametrize(("shape", "rows"), [((2,), 256), ((4, 4, 4), 16), ((4, 16, 16, 16), 1)])
def test_fewer_rows_are_read_at_a_time_where_they_are_large(monkeypatch, shape, rows):
    monkeypatch.setattr("lacunar.data.dataset.LARGEST", 4096)
    data = from_arrays({"scan": torch.zeros(20, *shape)}, np.arange(20) % 2)
    assert data.rows_at_once == rows
    assert max(len(batch) for batch in data.batches()) == min(rows, 20)


def test_a_frame_of_presence_follows_the_ids_of_its_index():
    present = np.random.default_rng(0).random((20, 3)) < 0.7
    present[:, 2] = True
    frame = pd.DataFrame(present, columns=["a", "b", "c"], index=[f"s{i:02d}" for i in range(20)])
    shuffled = frame.sample(frac=1, random_state=0)
    assert table(present=shuffled).present.tolist() == present.tolist()
    assert table(present=dict(shuffled.items())).present.tolist() == present.tolist()
    assert table().select(range(10)).hide(shuffled).present.tolist() == present[:10].tolist()
    with pytest.raises(DataError, match="index of modality 'a' lacks 5 of 20 sample ids, the first is 's00'"):
        table(present=frame[5:])
    with pytest.raises(DataError, match="index of modality 'a' repeats ids.*reset_index"):
        table(present=pd.concat([frame, frame[:1]]))


def test_subgroups_are_taken_by_position():
    sites = pd.Series(["n"] * 10 + ["s"] * 10, index=range(100, 120))
    data = table(subgroups={"site": sites, "sex": pd.Series(["f", "m"] * 10, index=np.arange(20)[::-1])})
    assert data.subgroups.shape == (20, 2)
    assert data.subgroups["site"].tolist() == sites.tolist()
    assert data.subgroups["sex"].tolist() == ["f", "m"] * 10
    assert table(subgroups=pd.DataFrame({"site": sites})).subgroups["site"].tolist() == sites.tolist()


def test_targets_of_every_byte_order():
    values = {"a": np.ones((4, 2))}
    assert from_arrays(values, np.array([0, 1, 0, 1], dtype=">i4")).target.tolist() == [0, 1, 0, 1]
    assert from_arrays(values, np.array([0.5, 1, 0, 1], dtype=">f8")).target.tolist() == [0.5, 1, 0, 1]
