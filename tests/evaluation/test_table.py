"""What follows from the scores of a table, by hand; and the table on paper and on disk."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from tests.helpers import small_model, vectors

from lacunar.errors import DataError, RunError
from lacunar.evaluation import SubsetTable, evaluate, paired_difference
from lacunar.lattice import Lattice

NAN = np.nan


def by_hand(**options):
    """Four samples of two modalities; the third lacks b, the fourth lacks a."""
    scores = np.array([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, NAN, NAN], [0, NAN, 1, NAN]])
    ids = np.array(["p", "q", "r", "s"], dtype=object)
    return SubsetTable(Lattice(["a", "b"]), [0, 1, 2, 3], scores, pd.DataFrame(index=range(4)), ids, **options)


def evaluated(M=3, n=80, missing=0.3, seed=0, **options):
    data = vectors(M=M, n=n, missing=missing)
    return evaluate(small_model(data, seed=seed), data, **options)


def test_numbers_by_hand():
    table = by_hand()
    assert table.frame["n"].tolist() == [4, 3, 3, 2]
    assert table.frame["score"].tolist() == pytest.approx([1 / 4, 2 / 3, 2 / 3, 1])
    assert table.mean == pytest.approx(7 / 9)
    assert table.worst == ("a", pytest.approx(2 / 3))
    assert (table.full, table.baseline) == (1, 0.25)
    assert table.values.tolist() == pytest.approx([1 / 4, 2 / 3, 2 / 3, 1])
    # Symmetric players share the gain of .75.
    assert table.shapley()["shapley"].tolist() == pytest.approx([0.375, 0.375])
    # Only p and q have both: a and b are right on one of them each, nothing on none.
    assert table.drop_against_full["drop"].tolist() == [1, 0.5, 0.5, 0]


def test_values_follow_codes_and_not_the_order_of_the_rows():
    table = evaluated()
    for code, label in zip(table.codes, table.labels):
        assert table.values[code] == pytest.approx(table.frame.loc[label, "score"])
    shares = table.shapley()
    assert shares["shapley"].sum() == pytest.approx(table.full - table.baseline)
    assert (shares["low"] <= shares["shapley"]).all()
    assert (shares["shapley"] <= shares["high"]).all()


def test_intervals_hold_the_scores_and_shrink_with_samples():
    small, large = evaluated(n=60), evaluated(n=960)
    for table in (small, large):
        assert ((table.frame["low"] <= table.frame["score"]) & (table.frame["score"] <= table.frame["high"])).all()
        low, high = table.mean_interval
        assert low < table.mean < high
    width = [(table.frame["high"] - table.frame["low"]).iloc[1:].mean() for table in (small, large)]
    assert width[1] < width[0] / 2
    score, n = large.frame.loc["m0", ["score", "n"]]
    normal = 2 * 1.96 * np.sqrt(score * (1 - score) / n)
    assert large.frame.loc["m0", "high"] - large.frame.loc["m0", "low"] == pytest.approx(normal, rel=0.15)
    assert evaluated(n=60).frame.equals(small.frame)
    assert not evaluated(n=60, seed=0, bootstrap=500).frame["low"].equals(small.frame["low"])


def test_groups_are_resampled_whole():
    data = vectors(M=2, n=120)
    data.groups = np.repeat(np.arange(6), 20).astype(str)
    data.target = data.target.sort().values  # samples of a group share their label
    model = small_model(data)
    alone, together = evaluate(model, data), evaluate(model, data, resample="groups")
    assert together.frame["score"].equals(alone.frame["score"])
    width = [(table.frame["high"] - table.frame["low"])["none"] for table in (alone, together)]
    assert width[1] > 2 * width[0]
    assert np.array_equal(together.groups, data.groups)


def test_the_difference_of_two_tables_is_paired():
    first, second = evaluated(seed=0), evaluated(seed=1)
    gap = first.difference(second)
    assert gap.loc["m1", "difference"] == pytest.approx(
        first.frame.loc["m1", "score"] - second.frame.loc["m1", "score"]
    )
    assert gap.loc["mean", "difference"] == pytest.approx(first.mean - second.mean)
    assert (gap["low"] <= gap["high"]).all()
    assert (first.difference(first)[["difference", "low", "high"]] == 0).all(axis=None)
    whole = paired_difference(first.per_sample["none"], second.per_sample["none"])
    assert (whole.value, whole.low, whole.high) == (0, 0, 0)
    with pytest.raises(DataError, match="same samples"):
        first.difference(evaluated(n=70))


def test_subgroups():
    table = evaluated(n=90)
    sex = np.where(np.arange(90) < 70, "f", "m")
    site = np.array([1.0, NAN, 2.0] * 30)
    found = table.by_subgroup(pd.DataFrame({"sex": sex, "site": site}))
    assert list(found.index) == [("sex", "f"), ("sex", "m"), ("site", "1.0"), ("site", "2.0"), ("site", "unknown")]
    assert found["n"].tolist() == [70, 20, 30, 30, 30]
    assert found["few"].tolist() == [False, True, False, False, False]
    per_subset = table.per_sample.iloc[:70, 1:].mean()
    assert found.loc[("sex", "f"), "mean"] == pytest.approx(per_subset.mean())
    assert found.loc[("sex", "f"), "worst"] == pytest.approx(per_subset.min())
    assert found.loc[("sex", "f"), "worst subset"] == per_subset.idxmin()
    assert found.loc[("sex", "f"), "full"] == pytest.approx(per_subset["m0+m1+m2"])
    assert (found["low"] < found["high"]).all()
    with pytest.raises(DataError, match="each of the 90 samples, got 2 rows"):
        table.by_subgroup(pd.DataFrame({"sex": ["f", "m"]}))
    with pytest.raises(DataError, match="got none"):
        table.by_subgroup(None)


def test_a_table_comes_back_from_disk(tmp_path):
    for table in (
        evaluated(references=np.ones((80, 3))),
        by_hand(groups=np.array(["x", "x", "y", "y"]), score_name="dice", kind="segmentation", notes=["a note"]),
    ):
        table.save(tmp_path / "deep" / "table.json")
        again = SubsetTable.load(tmp_path / "deep" / "table.json")
        pd.testing.assert_frame_equal(again.frame, table.frame)
        pd.testing.assert_frame_equal(again.per_sample, table.per_sample)
        assert str(again) == str(table)
        assert (again.kind, again.score_name, again.notes) == (table.kind, table.score_name, table.notes)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["table.json"]
    written = json.loads((tmp_path / "deep" / "table.json").read_text(), parse_constant=pytest.fail)
    assert written["subsets"][3] == {"subset": "a+b", "size": 2, "n": 2, "score": 1.0, "low": 1.0, "high": 1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "no subset table can be read"),
        (lambda text: "{}", "expected a subset table"),
        (lambda text: text.replace('"format": 1', '"format": 9'), "later version"),
        (lambda text: text.replace('"codes"', '"coats"'), "damaged"),
    ],
)
def test_files_that_are_not_tables(tmp_path, change, message):
    path = tmp_path / "table.json"
    by_hand().save(path)
    path.write_text(change(path.read_text()))
    with pytest.raises(RunError, match=message):
        SubsetTable.load(path)


def test_a_failed_save_leaves_what_was_there(tmp_path):
    path = tmp_path / "table.json"
    by_hand().save(path)
    before = path.read_text()
    broken = by_hand()
    broken.notes = [object()]
    with pytest.raises(TypeError):
        broken.save(path)
    assert path.read_text() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_in_the_terminal():
    text = str(evaluated())
    for expected in ("m0+m1+m2", "none", "Shapley values", "worst", "ece", "accuracy on 7 subsets, 80 samples, 95 %"):
        assert expected in text
    many = str(evaluated(M=6, n=60, missing=0.05))
    assert "m0+m1+m2+m3+m4+m5" in many
    assert "modalities  subsets" in many
    assert len(many.splitlines()) < 40
    assert "SubsetTable(accuracy: mean" in repr(evaluated())


@pytest.mark.parametrize(("M", "name"), [(1, "one.png"), (3, "three.svg"), (6, "six.png"), (8, "eight.pdf")])
def test_a_figure_is_written(tmp_path, M, name):
    table = evaluated(M=M, n=60, missing=0.1, references=np.full((60, M), 0.5))
    figure = table.plot(tmp_path / name)
    assert (tmp_path / name).stat().st_size > 2000
    assert [path.name for path in tmp_path.iterdir()] == [name]
    upper = figure.axes[0]
    assert upper.get_ylabel() == "accuracy"
    low, high = upper.get_ylim()
    shown = table.frame.iloc[1:][["low", "high", "score"] if M <= 6 else ["score"]]
    assert low <= np.nanmin(shown)
    assert high >= np.nanmax(shown)
    if M <= 6:
        assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == list(table.names)


def test_a_figure_of_subsets_that_nobody_has():
    scores = np.array([[0, 1, NAN, NAN], [1, NAN, 1, NAN]])
    table = SubsetTable(Lattice(["a", "b"]), [0, 1, 2, 3], scores, pd.DataFrame(index=range(4)), np.array(["p", "q"]))
    texts = [text.get_text() for text in table.plot().axes[0].texts]
    assert "n = 0" in texts


def test_tables_that_make_no_sense():
    lattice, metrics = Lattice(["a"]), pd.DataFrame(index=range(2))
    with pytest.raises(DataError, match="empty set first"):
        SubsetTable(lattice, [1, 0], np.zeros((3, 2)), metrics, np.arange(3))
    with pytest.raises(DataError, match="empty set first"):
        SubsetTable(lattice, [0, 1], np.zeros((3, 1)), metrics, np.arange(3))


def test_a_subgroup_of_samples_that_have_nothing():
    scores = np.array([[0, 1, 0, 1], [1, 1, 1, 0], [1, NAN, NAN, NAN]])
    table = SubsetTable(
        Lattice(["a", "b"]), [0, 1, 2, 3], scores, pd.DataFrame(index=range(4)), np.array(["p", "q", "r"])
    )
    found = table.by_subgroup(pd.DataFrame({"site": ["x", "x", "y"]}))
    assert found["n"].tolist() == [2, 1]
    assert found.loc[("site", "x"), "mean"] == pytest.approx(2 / 3)
    assert found.loc[("site", "y")].drop(["n", "few"]).isna().all()
