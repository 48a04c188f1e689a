"""Train, validation and test parts."""

from __future__ import annotations

import logging
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lacunar.data.arrays import from_arrays
from lacunar.data.presence import draw_presence, observed_presence
from lacunar.data.splits import Splits
from lacunar.data.splitting import make_folds, make_splits
from lacunar.errors import ConfigError, DataError


def table(n: int = 100, labels=None, **options):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 4 if labels is None else labels
    options.setdefault("ids", [f"s{i:03d}" for i in range(n)])
    return from_arrays({"a": rng.normal(size=(n, 3)), "b": rng.normal(size=(n, 2))}, labels, **options)


def counts(part):
    return torch.bincount(part.target, minlength=part.task.n_outputs).tolist()


def test_sizes_classes_and_no_overlap():
    splits = make_splits(table())
    assert [len(part) for part in splits.parts.values()] == [70, 15, 15]
    assert all(abs(count - 17.5) < 1 for count in counts(splits.train))
    assert all(abs(count - 3.75) < 1 for count in counts(splits.val))
    everything = list(chain(*splits.ids.values()))
    assert len(everything) == len(set(everything)) == 100
    for name, part in splits.parts.items():
        data = table()
        rows = part.row
        assert data.ids[rows.numpy()].tolist() == splits.ids[name]


def test_the_parts_follow_ids_not_positions():
    data = table()
    shuffled = data.select(np.random.default_rng(0).permutation(100))
    assert make_splits(data, seed=3).hash == make_splits(shuffled, seed=3).hash
    assert make_splits(data, seed=3).hash != make_splits(data, seed=4).hash


@given(
    st.lists(st.integers(1, 30), min_size=2, max_size=6).filter(lambda sizes: max(sizes) >= 8),
    st.integers(0, 100),
)
@settings(max_examples=150, deadline=None)
def test_every_class_is_in_train(sizes, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes).astype(str)
    data = table(len(labels), labels)
    splits = make_splits(data, seed=seed)
    assert min(counts(splits.train)) >= 1
    assert sum(len(part) for part in splits.parts.values()) == len(data)
    slack = len(sizes)
    assert abs(len(splits.train) - 0.7 * len(data)) <= slack
    for part, share in zip(splits.parts.values(), (0.7, 0.15, 0.15)):
        for count, size in zip(counts(part), sizes):
            assert abs(count - share * size) < 1


@given(st.integers(3, 40), st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_no_group_is_cut(n_groups, seed):
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(n_groups), rng.integers(0, n_groups, 120)])
    labels = np.arange(len(groups)) % 2
    data = table(len(groups), labels, groups=groups)
    splits = make_splits(data, seed=seed)
    of_part = {name: set(part.groups.tolist()) for name, part in splits.parts.items()}
    assert not of_part["train"] & of_part["val"]
    assert not of_part["train"] & of_part["test"]
    assert not of_part["val"] & of_part["test"]
    if n_groups >= 20:
        assert len(splits.train) / len(data) == pytest.approx(0.7, abs=0.06)
        assert len(splits.val) / len(data) == pytest.approx(0.15, abs=0.06)


def test_groups_that_hold_one_class_leave_each_class_in_train():
    groups = np.repeat(np.arange(12), 10)
    labels = groups % 3
    for seed in range(5):
        splits = make_splits(table(120, labels, groups=groups), 0.5, 0.25, 0.25, seed=seed)
        assert min(counts(splits.train)) > 0


def test_the_task_is_fitted_on_train_only():
    labels = np.concatenate([np.zeros(50), np.full(50, 100.0)]) + np.random.default_rng(0).normal(size=100)
    data = table(100, labels)
    before = data.task.to_config()
    splits = make_splits(data, indices={"train": np.arange(40), "val": np.arange(40, 50), "test": np.arange(50, 100)})
    assert splits.task.to_config() == data.task.copy().fit(data.target[:40]).to_config()
    assert splits.task.to_config() != data.task.copy().fit(data.target).to_config()
    assert data.task.to_config() == before
    assert splits.val.task is splits.task
    assert splits.test.task is splits.task


def test_parts_by_ids_positions_and_booleans_agree():
    data = table()
    rows = np.random.default_rng(0).permutation(100)
    parts = {"train": rows[:60], "val": rows[60:80], "test": rows[80:]}
    by_row = make_splits(data, indices=parts)
    by_id = make_splits(data, indices={name: data.ids[chosen].tolist() for name, chosen in parts.items()})
    by_flag = make_splits(data, indices={name: np.isin(np.arange(100), chosen) for name, chosen in parts.items()})
    assert by_row.hash == by_id.hash == by_flag.hash
    assert make_splits(data, indices=by_row.ids).hash == by_row.hash
    assert data.split(indices=parts).hash == by_row.hash


def test_validation_is_carved_when_it_is_not_given(caplog):
    data = table()
    with caplog.at_level(logging.INFO):
        splits = make_splits(data, indices={"train": np.arange(80), "test": np.arange(80, 100)}, val=0.25)
    assert [len(part) for part in splits.parts.values()] == [60, 20, 20]
    assert counts(splits.val) == [5, 5, 5, 5]
    assert splits.test.ids.tolist() == data.ids[80:].tolist()
    assert "20 of the train samples are set aside" in caplog.text


def test_the_test_part_may_be_missing():
    splits = make_splits(table(), 0.8, 0.2, 0)
    assert splits.test is None
    assert list(splits.parts) == ["train", "val"]
    assert splits.only(["a"]).test is None
    assert "test" not in str(splits)


def test_hiding_cells_of_train_and_validation_only():
    data = table()
    splits = make_splits(data).hide({"a": 0.5}, seed=1)
    assert splits.train.missing_rates["a"] == pytest.approx(0.5, abs=0.2)
    assert splits.val.missing_rates["a"] > 0
    assert splits.test.missing_rates == {"a": 0.0, "b": 0.0}
    assert data.hide(splits.presence).present.sum() == sum(int(part.present.sum()) for part in splits.parts.values())
    again = make_splits(data).hide(splits.presence)
    assert again.presence == splits.presence
    assert torch.equal(again.train.present, splits.train.present)
    everywhere = make_splits(data).hide({"a": 0.5}, parts=("train", "val", "test"), seed=1)
    assert everywhere.test.missing_rates["a"] > 0
    one = draw_presence(data, {"a": 0.5}, seed=1)
    assert torch.equal(make_splits(data).hide(one).train.present, splits.train.present)


def test_hiding_drops_or_redraws_what_is_left_with_nothing():
    splits = make_splits(table())
    dropped = splits.hide({"a": 0.6, "b": 0.6}, seed=0)
    assert dropped.train.dropped > 0
    assert len(dropped.train) + dropped.train.dropped == 70
    assert len(dropped.presence) == 100
    assert "left out" in str(dropped)
    whole = splits.hide({"a": 0.6, "b": 0.6}, seed=0, resolve_empty="redraw")
    assert len(whole.train) == 70
    exact = splits.hide({"a": 0.5, "b": 0.5}, "exact-marginal")
    assert len(exact.train) == 70
    assert exact.train.missing_rates == {"a": 0.5, "b": 0.5}
    by_target = splits.hide({"a": 0.5}, "not-at-random", driver="target", strength=3.0)
    rates = [1 - by_target.train.present[by_target.train.target == c, 0].float().mean() for c in range(4)]
    assert rates[3] > rates[0]


def test_only_some_modalities():
    splits = make_splits(table()).only(["b"])
    assert splits.names == splits.lattice.names == ("b",)
    assert splits.train.names == ("b",)


def test_what_a_split_prints():
    text = str(make_splits(table()).hide({"a": 0.5}))
    for part in ("70 train", "15 val", "15 test", "missing a", "class 3", "classification into 4 classes"):
        assert part in text
    assert "R" not in str(make_splits(table(40, np.linspace(0, 1, 40))).describe().columns.tolist())


def test_data_without_a_target_can_be_split():
    data = from_arrays({"a": np.ones((20, 2))})
    splits = make_splits(data)
    assert splits.task is None
    assert len(splits.train) == 14


def test_folds_test_every_sample_once():
    data = table(groups=np.arange(100) // 4)
    folds = make_folds(data, 5)
    tested = list(chain(*(fold.ids["test"] for fold in folds)))
    assert sorted(tested) == data.ids.tolist()
    for fold in folds:
        assert not set(fold.train.groups) & set(fold.test.groups)
        assert len(fold.val) > 0
    plain = make_folds(table(), 4, seed=1)
    assert all(abs(count - 6.25) < 1 for fold in plain for count in counts(fold.test))


def test_a_small_data_set_has_no_empty_part():
    splits = make_splits(table(8, np.array([0, 1] * 4)))
    assert min(len(part) for part in splits.parts.values()) >= 1


def test_samples_in_no_part_are_left_out(caplog):
    with caplog.at_level(logging.INFO):
        splits = make_splits(table(), indices={"train": range(40), "val": range(40, 50)})
    assert "50 of 100 samples are in no part" in caplog.text
    assert splits.test is None


def test_a_modality_missing_from_validation_is_a_warning(caplog):
    present = np.ones((100, 2), dtype=bool)
    present[80:90, 0] = False
    data = table(present=present)
    make_splits(data, indices={"train": range(80), "val": range(80, 90), "test": range(90, 100)})
    assert "no sample of the val part has modality a" in caplog.text


def test_ids_of_samples_without_anything_may_be_listed(caplog):
    present = np.ones((100, 2), dtype=bool)
    present[5] = False
    data = table(present=present)
    ids = [f"s{i:03d}" for i in range(100)]
    splits = make_splits(data, indices={"train": ids[:80], "val": ids[80:]})
    assert len(splits.train) == 79
    assert "1 ids are not in the data" in caplog.text


def test_splits_of_parts_made_elsewhere():
    parts = make_splits(table())
    again = Splits(parts.train, parts.val, parts.test)
    assert again.hash == parts.hash
    assert observed_presence(again.train) == observed_presence(parts.train)


def broken(**kinds):
    present = np.ones((100, 2), dtype=bool)
    present[:70, 1] = False
    return table(present=present, **kinds)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: make_splits(table(), train=0.8), ConfigError, "sum to 1, got 0.8, 0.15, 0.15"),
        (lambda: make_splits(table(), 0.8, 0, 0.2), ConfigError, "a validation part are always needed"),
        (lambda: make_splits(table(), 1.2, -0.1, -0.1), ConfigError, "fractions that sum to 1"),
        (lambda: make_splits(table(), float("nan"), 0.1, 0.1), ConfigError, "train: expected a finite number, got nan"),
        (lambda: make_splits(table(), indices={"trian": [1]}), ConfigError, "'trian'. Did you mean 'train'?"),
        (lambda: make_splits(table(), indices={"val": [1]}), ConfigError, "expected a part 'train', got 'val'"),
        (
            lambda: make_splits(table(), indices={"train": [1, 2], "val": [2, 3]}),
            DataError,
            "1 samples are in train and in val, the first is 's002'",
        ),
        (
            lambda: make_splits(table(), indices={"train": [1, 1], "val": [2]}),
            DataError,
            "train: a sample is listed more",
        ),
        (
            lambda: make_splits(table(), indices={"train": [1, 100], "val": [2]}),
            DataError,
            "position 100 is outside 0..99",
        ),
        (lambda: make_splits(table(), indices={"train": [-1], "val": [2]}), DataError, "position -1 is outside"),
        (
            lambda: make_splits(table(), indices={"train": ["s001", "s00x"], "val": ["s003"]}),
            DataError,
            "1 unknown ids, the first is 's00x'. Did you mean",
        ),
        (
            lambda: make_splits(table(), indices={"train": [0.5], "val": [2]}),
            DataError,
            "expected ids .text. or positions",
        ),
        (lambda: make_splits(table(), indices={"train": [[1]], "val": [2]}), DataError, r"got shape \(1, 1\)"),
        (
            lambda: make_splits(table(), indices={"train": [True], "val": [2]}),
            DataError,
            "expected 100 booleans, got 1",
        ),
        (lambda: make_splits(table(), indices={"train": range(9), "val": []}), DataError, "The val part is empty"),
        (
            lambda: make_splits(table(), indices={"train": range(9), "test": [10]}, val=0),
            ConfigError,
            "fraction of train",
        ),
        (
            lambda: make_splits(table(), indices={"train": np.arange(100) % 4 != 2, "val": np.arange(100) % 4 == 2}),
            DataError,
            "none of class 2",
        ),
        (
            lambda: make_splits(broken(), indices={"train": range(70), "val": range(70, 100)}),
            DataError,
            "Modality 'b' is never present in the 70 train samples",
        ),
        (
            lambda: make_splits(
                table(groups=np.arange(100) // 10), indices={"train": range(45), "val": range(45, 100)}
            ),
            DataError,
            "1 groups are in train and in val, the first is '4'",
        ),
        (lambda: make_splits(table(groups=np.arange(100) % 2)), DataError, "at least 3 groups for 3 parts, got 2"),
        (lambda: make_splits(table(2, [0, 1])), DataError, "at least 3 samples for 3 parts, got 2"),
        (lambda: make_splits(table()).hide({"c": 0.5}), DataError, "rates: unknown modality 'c'"),
        (lambda: make_splits(table()).hide({"a": 0.5}, parts=["vall"]), ConfigError, "Did you mean 'val'?"),
        (lambda: make_splits(table()).hide({"a": 0.999}, seed=0), DataError, "Modality 'a' is never present"),
        (lambda: make_splits(table()).only(["z"]), DataError, "Unknown modality 'z'"),
        (lambda: make_folds(table(), 1), ConfigError, "folds: expected at least 2"),
        (
            lambda: Splits(table(), table(ids=[f"t{i}" for i in range(100)]).only(["a"])),
            DataError,
            "Expected the modalities",
        ),
        (
            lambda: Splits(table(), table(100, np.ones((100, 2)) / 2, ids=[f"t{i}" for i in range(100)])),
            DataError,
            "Expected one task for all parts: train has classification into 4.*val has regression of 2",
        ),
        (lambda: Splits(table(), table()), DataError, "100 samples are in train and in val"),
    ],
)
def test_splits_that_leak_or_cannot_be_made_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_positions_are_refused_when_samples_were_left_out():
    present = np.ones((100, 2), dtype=bool)
    present[5] = False
    with pytest.raises(DataError, match="positions are ambiguous because 1 samples"):
        make_splits(table(present=present), indices={"train": range(50), "val": range(50, 99)})


def test_realised_rates_are_those_of_the_parts_that_lost_cells():
    splits = make_splits(table(400)).hide({"a": 0.6, "b": 0.6}, seed=0, resolve_empty="redraw")
    realised = splits.presence.realised
    assert realised.loc["a", "asked"] == 0.6
    assert realised.loc["a", "before"] == pytest.approx(0.6, abs=0.1)
    together = torch.cat([splits.train.present, splits.val.present])
    assert realised.loc["a", "after"] == pytest.approx(1 - float(together[:, 0].float().mean()))
    assert realised.loc["a", "after"] < realised.loc["a", "before"] - 0.1
    assert f"{splits.presence.empty} samples had nothing: drawn again" in str(splits)
    assert splits.presence.empty > 80


def test_a_part_that_would_be_empty_is_refused():
    labels = np.array(list("abcdefgh"))
    with pytest.raises(DataError, match="The val part is empty.*by_class=False"):
        make_splits(table(8, labels))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [3, 4, 5, 6])
def test_no_part_is_left_empty_by_few_samples(count, seed):
    splits = make_splits(table(count, np.zeros(count), task="regression"), seed=seed)
    assert sorted(key for ids in splits.ids.values() for key in ids) == [f"s{i:03d}" for i in range(count)]
    assert min(len(part) for part in splits.parts.values()) >= 1


def test_a_rare_class_stays_in_train_when_parts_are_filled():
    splits = make_splits(table(5, [0, 0, 0, 0, 1]), train=0.9, val=0.05, test=0.05)
    assert counts(splits.train) == [2, 1]
    assert (len(splits.val), len(splits.test)) == (1, 1)


def test_sets_and_parts_that_are_none():
    data = table(10)
    splits = make_splits(data, indices={"train": set(range(8)), "val": {8, 9}, "test": None})
    assert splits.test is None
    assert set(splits.ids["val"]) == {"s008", "s009"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"seed": "x"}, "seed: expected a whole number, got 'x'"),
        ({"indices": [[0, 1], [2]]}, "indices: expected a mapping"),
    ],
)
def test_odd_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make_splits(table(), **options)
    with pytest.raises(ConfigError, match="folds: expected a whole number, got 2.5"):
        make_folds(table(), 2.5)


def apart(labels, name: str, **modalities):
    """A part that was made by itself."""
    modalities = modalities or {"a": np.ones((len(labels), 3))}
    return from_arrays(modalities, labels, ids=[f"{name}{i}" for i in range(len(labels))])


def test_labels_of_parts_made_apart_are_numbered_as_in_train():
    splits = Splits(apart(["ape", "cat", "dog"] * 2, "t"), apart(["dog", "cat"], "v"), apart(["dog", "ape"], "e"))
    assert splits.val.target.tolist() == [2, 1]
    assert splits.task.decode(splits.test.target).tolist() == ["dog", "ape"]
    assert splits.val.task is splits.test.task is splits.task
    many = Splits(apart([{"x"}, {"y", "z"}], "t"), apart([{"z"}, {"x", "z"}], "v"))
    assert many.val.target.tolist() == [[0, 0, 1], [1, 0, 1]]
    with pytest.raises(DataError, match="The val part: target, row 1: unknown class 'fox'.*'dog'.*know every label"):
        Splits(apart(["cat", "dog"], "t"), apart(["dog", "fox"], "v"))
    with pytest.raises(DataError, match="The test part: target, row 0: unknown class 5"):
        Splits(apart([0, 1], "t"), apart([0, 1], "v"), apart([5, 1], "e"))


def test_parts_made_apart_hold_values_of_one_form():
    train = apart([0, 1], "t")
    with pytest.raises(DataError, match=r"'a': expected kind 'vector' and shape \(3,\) as in train, .*\(2,\) in val"):
        Splits(train, apart([0, 1], "v", a=np.ones((2, 2))))
    with pytest.raises(DataError, match=r"'a': expected kind 'vector' .* got 'sequence' and \(3,\) in test"):
        Splits(train, apart([0, 1], "v"), apart([0, 1], "e", a=np.ones((2, 4, 3))))
    never = from_arrays({"a": np.ones((2, 3)), "b": [None, None]}, [0, 1], ids=["v0", "v1"])
    both = apart([0, 1], "t", a=np.ones((2, 3)), b=np.ones((2, 5)))
    assert Splits(both, never).val.missing_rates["b"] == 1  # what is never there has no form
    maps = {size: np.arange(2 * size**2).reshape(2, size, size) % 2 for size in (4, 6)}
    crops, whole = (apart(maps[size], f"{size}-", a=np.ones((2, 1, size, size))) for size in (4, 6))
    assert Splits(crops, whole).val.shapes["a"] == (1, 6, 6)


@pytest.mark.parametrize(("law", "option"), [("exact-marginal", "strata"), ("not-at-random", "driver")])
def test_a_value_per_sample_is_cut_as_the_parts_are(law, option):
    sites = np.where(np.arange(100) % 5 == 0, "n", "s")
    splits = make_splits(table(subgroups={"site": sites}))
    by_name = splits.hide({"a": 0.5}, law, seed=1, **{option: "site"})
    assert splits.hide({"a": 0.5}, law, seed=1, **{option: sites}).presence == by_name.presence
    assert by_name.train.missing_rates["a"] > 0
    own = splits.hide({"a": 0.5}, law, seed=1, parts="val", **{option: sites[splits.val.row.numpy()]})
    assert own.val.present.tolist() == by_name.val.present.tolist()
    with pytest.raises(DataError, match=f"{option}: expected a value for every sample .* got shape .70,"):
        splits.hide({"a": 0.5}, law, **{option: sites[:70]})
    made = Splits(apart([0, 1] * 5, "t"), apart([0, 1] * 5, "v"))
    with pytest.raises(DataError, match=f"{option}: the parts were made apart"):
        made.hide({"a": 0.5}, law, **{option: sites})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bogus": 3}, "hide: unknown option 'bogus'"),
        ({"drivr": "target"}, "hide: unknown option 'drivr'. Did you mean 'driver'"),
        ({"resolve_empty": "keep"}, "hide: resolve_empty would be about drawing a presence table, and one is given"),
        ({"law": "not-at-random", "driver": "target"}, "hide: law, driver would be about drawing"),
        ({"seed": 3}, "hide: seed would be"),
    ],
)
def test_nothing_that_hide_is_told_is_ignored(options, message):
    splits = make_splits(table())
    drawn = splits.hide({"a": 0.3}).presence
    with pytest.raises(ConfigError, match=message):
        splits.hide(drawn, **options)
