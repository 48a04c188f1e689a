"""Presence tables and the laws they are drawn from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lacunar.data.arrays import from_arrays
from lacunar.data.presence import PresenceTable, draw_presence, observed_presence
from lacunar.errors import ConfigError, DataError

NAMES = ("audio", "text", "video")
RATES = {"audio": 0.2, "text": 0.5, "video": 0.8}
LAWS = ["independent", "exact-marginal", "product-counts", "uniform-pattern", "not-at-random"]


def draw(law: str, ids=400, seed: int = 0, rates=RATES, **options) -> PresenceTable:
    count = ids if isinstance(ids, int) else len(ids)
    if law == "uniform-pattern":
        rates = None
    if law == "not-at-random":
        options.setdefault("driver", np.arange(count) % 7)
    return draw_presence(ids, rates, law, seed=seed, names=NAMES, **options)


@pytest.mark.parametrize("law", LAWS)
def test_the_draw_follows_ids_and_names_not_positions(law):
    ids = np.array([f"p{i}" for i in range(120)], dtype=object)
    driver = np.random.default_rng(0).normal(size=120)
    order = np.random.default_rng(1).permutation(120)
    options = {"driver": driver} if law == "not-at-random" else {}
    shuffled = {"driver": driver[order]} if law == "not-at-random" else {}
    for resolve in ("drop", "redraw", "keep"):
        if resolve == "redraw" and law == "exact-marginal":
            continue
        table = draw(law, ids, resolve_empty=resolve, **options)
        again = draw(law, ids[order], resolve_empty=resolve, **shuffled)
        np.testing.assert_array_equal(again.present, table.present[order])
        assert again.hash == table.hash
        assert again == table
        assert hash(again) == hash(table)


@pytest.mark.parametrize("law", LAWS)
def test_the_draw_does_not_depend_on_the_order_of_modalities(law):
    rates = None if law == "uniform-pattern" else RATES
    options = {"driver": np.arange(200) % 7} if law == "not-at-random" else {}
    table = draw_presence(200, rates, law, names=NAMES, **options)
    swapped = draw_presence(200, rates, law, names=NAMES[::-1], **options)
    np.testing.assert_array_equal(swapped.present[:, ::-1], table.present)


def test_another_seed_gives_another_table():
    for law in LAWS:
        assert draw(law, seed=0) != draw(law, seed=1)


@given(st.integers(0, 10_000), st.floats(0, 0.95), st.floats(0, 0.95))
@settings(max_examples=25, deadline=None)
def test_independent_tables_are_nested_across_rates(seed, one, other):
    low, high = sorted((one, other))
    more = draw_presence(60, {"a": low, "b": low}, seed=seed, resolve_empty="keep").present
    less = draw_presence(60, {"a": high, "b": high}, seed=seed, resolve_empty="keep").present
    assert not (less & ~more).any()


def test_independent_rates_and_pairs_are_what_was_asked():
    table = draw_presence(20_000, RATES, resolve_empty="keep")
    for name, rate in RATES.items():
        assert table.rates()[name] == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / 20_000))
    nothing = (~table.present.any(axis=1)).mean()
    assert nothing == pytest.approx(0.08, abs=0.01)
    assert abs(np.corrcoef(table.present.T) - np.eye(3)).max() < 0.03


@pytest.mark.parametrize("law", ["independent", "product-counts"])
def test_redraw_conditions_on_having_something(law):
    table = draw(law, 20_000, resolve_empty="redraw")
    assert table.present.any(axis=1).all()
    # Conditioning independent cells on non-empty (probability .92) gives .870, .543, .217.
    for name, expected in zip(NAMES, (0.8 / 0.92, 0.5 / 0.92, 0.2 / 0.92)):
        assert 1 - table.rates()[name] == pytest.approx(expected, abs=0.015)
    assert table.realised.loc["audio", "asked"] == 0.2
    assert table.realised.loc["audio", "before"] == pytest.approx(0.2, abs=0.015)
    assert table.realised.loc["audio", "after"] == pytest.approx(1 - 0.8 / 0.92, abs=0.015)
    assert table.empty == pytest.approx(1600, abs=150)


@given(
    st.integers(2, 80),
    st.lists(st.floats(0, 0.95), min_size=1, max_size=5),
    st.integers(0, 1000),
)
@settings(max_examples=80, deadline=None)
def test_exact_marginal_is_exact_and_leaves_no_one_with_nothing(count, rates, seed):
    names = [f"m{i}" for i in range(len(rates))]
    asked = dict(zip(names, rates))
    absent = [int(np.ceil(count * rate - 0.5 - 1e-9)) for rate in rates]
    if sum(count - number for number in absent) < count:
        with pytest.raises(ConfigError, match="cannot cover"):
            draw_presence(count, asked, "exact-marginal", seed=seed)
        return
    table = draw_presence(count, asked, "exact-marginal", seed=seed)
    assert (~table.present).sum(axis=0).tolist() == absent
    assert table.present.any(axis=1).all()


def test_exact_marginal_favours_no_sample():
    hits = np.zeros(10)
    for seed in range(600):
        hits += draw_presence(10, {"a": 0.5, "b": 0.5}, "exact-marginal", seed=seed).present[:, 0]
    assert abs(hits - 300).max() < 5 * np.sqrt(600 * 0.25)


def test_exact_marginal_within_strata():
    strata = np.array(["x"] * 30 + ["y"] * 10)
    table = draw_presence(40, {"a": 0.5, "b": 0.2}, "exact-marginal", strata=strata)
    for label, size in (("x", 30), ("y", 10)):
        assert (~table.present[strata == label]).sum(axis=0).tolist() == [size // 2, size // 5]


def test_product_counts_hold_every_pattern_in_its_number():
    table = draw("product-counts", 219, rates={"audio": 0.1, "text": 0.3, "video": 0.6}, resolve_empty="keep")
    counts = table.patterns()
    assert counts.sum() == 219
    for pattern, probability in (
        ("audio+text", 0.9 * 0.7 * 0.6),
        ("audio", 0.9 * 0.3 * 0.6),
        ("video", 0.1 * 0.3 * 0.4),
    ):
        assert int(219 * probability) <= counts[pattern] <= int(219 * probability) + 1
    rare = draw("product-counts", 30, rates={"audio": 0.01, "text": 0.01, "video": 0.01}, resolve_empty="keep")
    assert len(rare.patterns()) == 7
    assert rare.patterns().sum() == 30


def test_product_counts_skip_impossible_patterns():
    table = draw("product-counts", 50, rates={"audio": 0.0, "text": 0.5, "video": 0.5})
    assert table.present[:, 0].all()
    assert len(table.patterns()) == 4


def test_uniform_patterns_are_uniform():
    counts = draw("uniform-pattern", 14_000).patterns()
    assert len(counts) == 7
    assert abs(counts.to_numpy() - 2000).max() < 5 * np.sqrt(2000)
    assert draw("uniform-pattern", 10).realised["asked"].tolist() == pytest.approx([3 / 7] * 3)


def test_absence_not_at_random_follows_the_driver_and_keeps_the_rate():
    driver = np.random.default_rng(0).normal(size=8000)
    table = draw_presence(8000, RATES, "not-at-random", driver=driver, strength={"audio": 2.0, "text": -2.0})
    drawn = table.realised["before"]
    for name, rate in RATES.items():
        assert drawn[name] == pytest.approx(rate, abs=0.02)
    high = driver > 0
    kept = draw_presence(
        8000, RATES, "not-at-random", driver=driver, strength={"audio": 2.0, "text": -2.0}, resolve_empty="keep"
    )
    absent = ~kept.present
    assert absent[high, 0].mean() > absent[~high, 0].mean() + 0.2
    assert absent[high, 1].mean() < absent[~high, 1].mean() - 0.2
    assert absent[high, 2].mean() == pytest.approx(absent[~high, 2].mean(), abs=0.05)


def test_absence_may_depend_on_the_target_or_a_subgroup():
    labels = np.arange(300) % 3
    data = from_arrays(
        {"a": np.ones((300, 2)), "b": np.ones((300, 2))}, labels, subgroups={"sex": np.where(labels == 0, "f", "m")}
    )
    by_target = draw_presence(data, 0.5, "not-at-random", driver="target", resolve_empty="keep")
    by_label = draw_presence(data, 0.5, "not-at-random", driver=labels, resolve_empty="keep")
    assert by_target == by_label
    table = draw_presence(data, 0.5, "not-at-random", driver="sex", strength=4.0, resolve_empty="keep")
    women = (labels == 0).astype(bool)
    assert (~table.present[~women]).mean() > (~table.present[women]).mean() + 0.3


def test_what_the_data_lacks_stays_absent_and_counts():
    values = np.ones((200, 2))
    values[:100] = np.nan
    data = from_arrays({"a": values, "b": np.ones((200, 3))}, np.arange(200) % 2)
    for law in ("independent", "uniform-pattern"):
        table = draw_presence(data, None if law == "uniform-pattern" else {"b": 0.5}, law, resolve_empty="redraw")
        assert not table.present[:100, 0].any()
        assert table.present.any(axis=1).all()
        hidden = data.hide(table)
        assert torch.equal(hidden.present, torch.from_numpy(table.present))
    dropped = draw_presence(data, {"b": 0.5})
    assert dropped.empty > 0
    hidden = data.hide(dropped)
    assert len(hidden) == 200 - dropped.empty
    assert hidden.dropped == dropped.empty
    assert dropped.realised.loc["a", "before"] == 0.5
    assert dropped.realised.loc["a", "after"] == pytest.approx(1 - 100 / (200 - dropped.empty))
    kept = draw_presence(data, {"b": 0.5}, resolve_empty="keep")
    assert len(data.hide(kept)) == 200


def test_observed_presence_and_hiding_by_table_agree():
    data = from_arrays({"a": np.ones((50, 2)), "b": np.ones((50, 2))}, np.arange(50) % 2)
    table = draw_presence(data, {"a": 0.5}, seed=3)
    seen = observed_presence(data.hide(table))
    assert seen == PresenceTable(table.present[table.present.any(axis=1)], seen.ids, seen.names)
    again = from_arrays({"a": np.ones((50, 2)), "b": np.ones((50, 2))}, np.arange(50) % 2, present=table)
    assert observed_presence(again) == seen


def test_tables_are_saved_and_loaded_whole(tmp_path):
    ids = ["007", 'quo"te', "a,b", "line\nbreak", "ümlaut", " blank ", "carriage\rreturn"]
    table = draw_presence(ids, {"audio, raw": 0.3, "text": 0.2}, seed=np.int64(5), resolve_empty="redraw")
    path = table.save(tmp_path / "table.csv")
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    loaded = PresenceTable.load(path)
    assert loaded == table
    assert loaded.ids.tolist() == ids
    assert (loaded.law, loaded.seed, loaded.asked) == ("independent", 5, {"audio, raw": 0.3, "text": 0.2})
    assert (loaded.resolve_empty, loaded.empty) == ("redraw", table.empty)
    pd.testing.assert_frame_equal(loaded.realised, table.realised)
    uniform = draw_presence(4, None, "uniform-pattern", names=["a", "b"])
    assert PresenceTable.load(uniform.save(path)) == uniform
    assert str(PresenceTable.load(path)) == str(uniform)
    given = PresenceTable(np.eye(2), ["x", "y"], ["a", "b"])
    assert PresenceTable.load(given.save(path)).realised["asked"].isna().all()


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = draw_presence(5, {"a": 0.0}).save(tmp_path / "table.csv")
    before = path.read_bytes()
    other = draw_presence(9, {"a": 0.5, "b": 0.5})

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        other.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_the_hash_is_of_content():
    table = PresenceTable([[1, 0], [0, 1]], ["x", "y"], ["a", "b"])
    same = PresenceTable([[1, 0], [0, 1]], ["y", "x"], ["b", "a"])
    assert table.hash == same.hash
    assert table.hash != PresenceTable([[1, 1], [0, 1]], ["x", "y"], ["a", "b"]).hash
    assert table.hash != PresenceTable([[1, 0], [0, 1]], ["x", "z"], ["a", "b"]).hash
    assert table.hash != PresenceTable([[1, 0], [0, 1]], ["x", "y"], ["a", "c"]).hash
    assert table != "something else"
    # The hash is part of saved runs: it may not change between versions.
    assert table.hash[:16] == "e590972e78ee0367"


def test_align_reorders_and_ignores_what_was_not_asked():
    table = PresenceTable([[1, 0], [0, 1], [1, 1]], [1, 2, 3], ["a", "b"])
    assert table.align(["3", "1"], ["b", "a"]).tolist() == [[True, True], [False, True]]
    assert table.align(["2"]).tolist() == [[False, True]]


def test_the_table_prints_what_was_realised():
    table = draw_presence(100, RATES, seed=1)
    text = str(table)
    for part in (
        "law independent",
        "seed 1",
        "before",
        "after",
        "video",
        f"{table.empty} samples had nothing: left out",
    ):
        assert part in text
    assert "3" in repr(table) or "audio" in repr(table)


def test_a_given_table_is_a_law(tmp_path):
    table = PresenceTable([[1, 0], [0, 1]], ["x", "y"], ["a", "b"])
    path = table.save(tmp_path / "t.csv")
    assert draw_presence(["y", "x"], law="table", table=path, names=["a", "b"]) == table
    assert draw_presence(["y", "x"], law="table", table=table) == table


def test_presence_survives_epochs_shuffling_and_workers():
    data = from_arrays(
        {"a": np.ones((40, 2)), "b": np.ones((40, 2))}, np.arange(40) % 2, ids=[f"s{i}" for i in range(40)]
    )
    table = draw_presence(data, 0.4, seed=2, resolve_empty="redraw")
    hidden = data.hide(table)
    wanted = {key: row.tolist() for key, row in zip(table.ids, table.present)}
    for epoch in range(3):
        for workers in (0, 2) if epoch == 0 else (0,):
            seen = {}
            for batch in hidden.loader(7, shuffle=True, seed=epoch, num_workers=workers):
                for row, cells in zip(batch.index.tolist(), batch.present.tolist()):
                    seen[data.ids[row]] = cells
            assert seen == wanted


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_exact_marginal_is_exact_on_what_incomplete_data_have(seed):
    rng = np.random.default_rng(seed)
    has, rates = rng.random((24, 3)) < 0.6, rng.uniform(0, 0.6, 3)
    has[0] = [True, False, False]
    data = from_arrays({name: np.ones((24, 2)) for name in "abc"}, present=has, keep_empty=True)
    try:
        table = draw_presence(data, dict(zip("abc", rates)), "exact-marginal", seed=seed)
    except ConfigError:  # too few cells would stay
        return
    absent = np.ceil(has.sum(0) * rates - 0.5 - 1e-9).astype(int)
    assert table.present.sum(0).tolist() == (has.sum(0) - absent).tolist()
    assert not (table.present & ~has).any()
    assert table.present.any(1).tolist() == has.any(1).tolist()
    order = rng.permutation(24)
    again = draw_presence(data.select(order), dict(zip("abc", rates)), "exact-marginal", seed=seed)
    assert again == table


def test_exact_marginal_finds_the_chain_that_leaves_nobody_with_nothing():
    """Of ``a`` one cell may stay, of ``b`` and ``c`` two: only one way of three leaves everyone with something."""
    has = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 1, 1], [0, 0, 1]], dtype=bool)
    data = from_arrays({name: np.ones((5, 2)) for name in "abc"}, present=has)
    for seed in range(40):
        table = draw_presence(data, {"a": 0.5, "b": 0.34, "c": 0.34}, "exact-marginal", seed=seed)
        assert table.present.sum(0).tolist() == [1, 2, 2]
        assert table.present.any(1).all()
    has = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 1, 1]], dtype=bool)
    few = from_arrays({name: np.ones((4, 2)) for name in "abc"}, present=has)
    with pytest.raises(ConfigError, match="exact-marginal: sample '[01]' would be left with nothing"):
        draw_presence(few, {"a": 0.5}, "exact-marginal")


def test_strata_may_be_named():
    labels = np.arange(40) % 2
    sites = np.where(np.arange(40) < 30, "x", "y")
    data = from_arrays({"a": np.ones((40, 2)), "b": np.ones((40, 2))}, labels, subgroups={"site": sites})
    for name, strata in (("site", sites), ("target", labels)):
        by_name = draw_presence(data, {"a": 0.5}, "exact-marginal", strata=name)
        assert by_name == draw_presence(data, {"a": 0.5}, "exact-marginal", strata=strata)
    with pytest.raises(DataError, match="strata: unknown attribute 'sight'. Did you mean 'site'"):
        draw_presence(data, {"a": 0.5}, "exact-marginal", strata="sight")


def test_rates_are_no_presence():
    data = from_arrays({"a": np.ones((4, 1)), "b": np.ones((4, 2))}, [0, 1, 0, 1])
    with pytest.raises(
        DataError, match="'a': expected True or False for each sample, got 0.2. Missing rates are for splits"
    ):
        data.hide({"a": 0.2})
