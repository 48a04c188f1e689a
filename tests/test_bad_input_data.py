"""Bad input gets an error that says what is wrong, where, and what to do; and leaves nothing behind."""

from __future__ import annotations

import datetime
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import wavfile
from scipy.sparse import csr_array

import lacunar.data as ld
from lacunar.cli import main
from lacunar.data.description import Description
from lacunar.data.readers import column_from_files
from lacunar.errors import ConfigError, DataError, MissingExtraError

N = 20


def arrays(**options):
    values = {"audio": np.ones((N, 3)), "video": np.ones((N, 2))}
    options.setdefault("target", np.arange(N) % 2)
    return ld.from_arrays({**values, **options.pop("modalities", {})}, **options)


def frame(**columns) -> pd.DataFrame:
    base = {
        "key": [f"p{i:02d}" for i in range(N)],
        "rna_1": np.arange(N) * 1.0,
        "rna_2": np.arange(N) * 2.0,
        "label": ["no", "yes"] * (N // 2),
    }
    return pd.DataFrame({**base, **columns})


def from_frame(modalities=None, target="label", **options):
    columns = options.pop("columns", {})
    return ld.from_frame(frame(**columns), modalities or {"rna": "rna_*"}, target, **{"id": "key", **options})


def changed(column: str, row: int, value):
    cells = frame()[column].astype(object).tolist()
    cells[row] = value
    return {column: cells}


Case = tuple[str, Callable[[], object], type[Exception], str]

ARRAYS: list[Case] = [
    ("no modality", lambda: ld.from_arrays({}), DataError, "at least one modality"),
    ("no rows", lambda: ld.from_arrays({"a": np.ones((0, 2))}), DataError, "at least one sample, got 0 rows"),
    (
        "unequal lengths",
        lambda: ld.from_arrays({"audio": np.ones((3, 2)), "video": np.ones((4, 2))}, [0, 1, 0]),
        DataError,
        "same number of rows everywhere, got audio 3, video 4, the target 3",
    ),
    ("duplicate ids", lambda: arrays(ids=["x"] * N), DataError, "19 repeats, the first is 'x'. Give groups="),
    ("ids that agree as text", lambda: arrays(ids=[1, "1", *range(2, N)]), DataError, "the first is '1'"),
    ("too few ids", lambda: arrays(ids=["x"]), DataError, "ids: expected 20, one per sample, got 1"),
    (
        "misspelt modality in presence",
        lambda: arrays(present={"vidoe": np.ones(N)}),
        DataError,
        "unknown modality 'vidoe'. Did you mean 'video'?",
    ),
    ("misspelt kind owner", lambda: arrays(kinds={"adio": "vector"}), DataError, "Did you mean 'audio'?"),
    ("misspelt kind", lambda: arrays(kinds={"audio": "vektor"}), DataError, "unknown kind 'vektor'"),
    ("presence of another shape", lambda: arrays(present=np.ones((N, 3))), DataError, r"expected shape \(20, 2\)"),
    ("presence that is a rate", lambda: arrays(present=np.full((N, 2), 0.5)), DataError, "other than True and False"),
    ("presence of another length", lambda: arrays(present={"audio": np.ones(3)}), DataError, "has 3 rows, expected 20"),
    (
        "NaN inside a present row",
        lambda: arrays(modalities={"audio": np.where(np.eye(N, 3) > 0, np.nan, 1.0)}),
        DataError,
        "'audio', row 0: 1 of 3 values are NaN or infinite",
    ),
    (
        "presence says there, the row says not",
        lambda: arrays(modalities={"audio": np.full((N, 3), np.nan)}, present=np.ones((N, 2))),
        DataError,
        "'audio', row 0: the presence table says present",
    ),
    ("nothing at all", lambda: arrays(present=np.zeros((N, 2))), DataError, "none of the 20 samples has any"),
    (
        "a missing label",
        lambda: arrays(target=["a", None] * 10),
        DataError,
        "target, row 1: expected a class, got None",
    ),
    ("one class", lambda: arrays(target=["a"] * N), DataError, "at least two classes"),
    ("groups of another length", lambda: arrays(groups=[1, 2]), DataError, "groups: expected 20 rows"),
    ("a sample without a group", lambda: arrays(groups=[None, *range(1, N)]), DataError, "groups: a sample without"),
    ("not a mapping", lambda: ld.from_arrays([np.ones((2, 2))]), DataError, "expected a mapping .* got list"),
    (
        "one name twice",
        lambda: ld.from_arrays({0: np.ones((2, 2)), "0": np.ones((2, 2))}, [0, 1]),
        DataError,
        "two names are the same as text",
    ),
    (
        "a number for values",
        lambda: arrays(modalities={"audio": 5}),
        DataError,
        "'audio': expected an array .* got int",
    ),
    ("a text for values", lambda: arrays(modalities={"audio": "x" * N}), DataError, "'audio': expected .* got str"),
    ("a generator", lambda: arrays(modalities={"audio": (i for i in range(N))}), DataError, "got generator"),
    ("a sparse table", lambda: arrays(modalities={"audio": csr_array(np.eye(N))}), DataError, r"Give .toarray\(\)"),
    (
        "text in a table",
        lambda: arrays(modalities={"audio": frame()[["rna_1", "label"]]}),
        DataError,
        "'audio': expected numbers, got an array of Python objects .*from_frame",
    ),
    (
        "a masked value in a present row",
        lambda: arrays(modalities={"audio": np.ma.masked_equal(np.arange(N * 3).reshape(N, 3), 4)}),
        DataError,
        "'audio', row 1: 1 of 3 values are NaN",
    ),
    (
        "five dimensions",
        lambda: arrays(modalities={"audio": np.ones((N, 2, 2, 2, 2, 2))}),
        DataError,
        "'audio': no kind of modality has samples of shape",
    ),
    (
        "tokens below 0",
        lambda: arrays(modalities={"audio": [np.array([1, -2])] * N}, kinds={"audio": "tokens"}),
        DataError,
        "'audio', row 0: tokens are whole numbers from 0 up, got -2",
    ),
    (
        "tokens with decimals",
        lambda: arrays(modalities={"audio": np.full((N, 2), 0.5)}, kinds={"audio": "tokens"}),
        DataError,
        "'audio', row 0: tokens are whole numbers from 0 up, got 0.5",
    ),
    ("a sample without an id", lambda: arrays(ids=[None, *range(1, N)]), DataError, "ids: row 0 has none"),
    ("an id that is NaN", lambda: arrays(ids=[np.nan, *range(1, N)]), DataError, "ids: row 0 has none"),
    ("a table of groups", lambda: arrays(groups=np.ones((N, 2))), DataError, r"groups: expected 20 rows.*\(20, 2\)"),
    (
        "subgroups of another length",
        lambda: arrays(subgroups={"sex": ["f"] * N, "site": ["x"]}),
        DataError,
        "subgroups, site: expected 20 rows, one value per sample, got 1",
    ),
    ("subgroups without a name", lambda: arrays(subgroups=["f"] * N), DataError, "subgroups: expected a mapping"),
    ("positions with decimals", lambda: arrays().select([0.5]), DataError, "select: expected a list of positions"),
    ("a table of positions", lambda: arrays().select([[0, 1]]), DataError, r"select: .* of shape \(1, 2\)"),
    ("no modality left", lambda: arrays().only([]), DataError, "only: expected at least one modality of 'audio'"),
    ("a name with a plus", lambda: ld.from_arrays({"a+b": np.ones((2, 2))}, [0, 1]), DataError, r"without '\+'"),
]

TABLES: list[Case] = [
    ("not a table", lambda: ld.from_frame([1, 2], {"a": "b"}), DataError, "pandas DataFrame, got list"),
    ("an empty table", lambda: ld.from_frame(frame()[:0], {"a": "rna_*"}), DataError, "The table has no rows"),
    ("no such target", lambda: from_frame(target="lable"), DataError, "target: no column 'lable'.*'label'"),
    ("no such id", lambda: from_frame(id="kye"), DataError, "id: no column 'kye'.*'key'"),
    ("no such group", lambda: from_frame(group="site"), DataError, "group: no column 'site'"),
    ("no such subgroup", lambda: from_frame(subgroups=["sex"]), DataError, "subgroups: no column 'sex'"),
    (
        "a pattern for nothing",
        lambda: from_frame({"rna": "rma_*"}),
        DataError,
        r"'rna': no column matches 'rma_\*'.*'rna_\*'",
    ),
    (
        "a misspelt column",
        lambda: from_frame({"rna": ["rna_1", "rna_22"]}),
        DataError,
        "'rna_22'. Did you mean 'rna_2'",
    ),
    (
        "a column in two",
        lambda: from_frame({"a": "rna_*", "b": ["rna_2"]}),
        DataError,
        "'b': column 'rna_2' is already used by modality 'a'",
    ),
    ("a column twice", lambda: from_frame({"a": ["rna_1", "rna_*"]}), DataError, "'rna_1' is listed twice"),
    (
        "the target inside",
        lambda: from_frame({"all": "*[la]*"}),
        DataError,
        "already used by target. It would be predicted",
    ),
    ("the id inside", lambda: from_frame({"all": ["key"]}), DataError, "'key' is already used by id"),
    ("no columns", lambda: from_frame({"rna": []}), DataError, "no columns are listed"),
    ("no modalities", lambda: ld.from_frame(frame(), {}, "label"), ConfigError, "modalities: expected at least one"),
    (
        "an unknown key",
        lambda: from_frame({"rna": {"column": "rna_*"}}),
        ConfigError,
        "unknown key 'column'. Did you mean 'columns'",
    ),
    (
        "a number for columns",
        lambda: from_frame({"rna": 5}),
        ConfigError,
        "expected a pattern, a list of columns or a mapping",
    ),
    (
        "no reader",
        lambda: from_frame({"scan": {"path": "key"}}),
        ConfigError,
        "expected a reader for the files of column 'key': one of npy, image, wav",
    ),
    (
        "an unknown reader",
        lambda: from_frame({"scan": {"path": "rna_1", "reader": "nfti"}}),
        ConfigError,
        "'nfti'. Did you mean 'nifti'",
    ),
    (
        "an unknown option",
        lambda: from_frame({"s": {"path": "rna_1", "reader": "image", "sise": 3}}),
        ConfigError,
        "'sise'. Did you mean 'size'",
    ),
    (
        "an option of no reader",
        lambda: from_frame({"s": {"path": "rna_1", "reader": "npy", "mode": 3}}),
        ConfigError,
        "unknown option 'mode'",
    ),
    (
        "a path that is a number",
        lambda: from_frame({"s": {"path": "rna_1", "reader": "npy"}}),
        DataError,
        "id 'p00': expected a path, got 0.0",
    ),
    (
        "path and columns",
        lambda: from_frame({"s": {"path": "rna_1", "columns": "rna_2", "reader": "npy"}}),
        ConfigError,
        "not both",
    ),
    (
        "a wrong shape",
        lambda: from_frame({"s": {"columns": "rna_*", "shape": [3, 3]}}),
        DataError,
        "needs 9 columns, got 2",
    ),
    (
        "an unknown kind",
        lambda: from_frame({"s": {"columns": "rna_*", "kind": "imgae"}}),
        ConfigError,
        "Did you mean 'image'",
    ),
    (
        "a wrong partial",
        lambda: from_frame({"s": {"columns": "rna_*", "partial": "mean"}}),
        ConfigError,
        "'absent' or a number to fill with, got 'mean'",
    ),
    (
        "partial of no column",
        lambda: from_frame({"s": {"columns": "rna_*", "partial": {"rna_3": 0}}}),
        DataError,
        "unknown column 'rna_3'",
    ),
    (
        "categories of no column",
        lambda: from_frame({"s": {"columns": "rna_*", "categories": {"x": ["a"]}}}),
        DataError,
        "categories of an unknown column 'x'",
    ),
    (
        "a partly empty row",
        lambda: from_frame(columns=changed("rna_2", 3, None)),
        DataError,
        r"'rna', id 'p03': 1 of 2 cells are empty \(rna_2\)",
    ),
    (
        "a text among numbers",
        lambda: from_frame(columns=changed("rna_2", 3, "1,5")),
        DataError,
        "id 'p03': expected a number, got '1,5'",
    ),
    (
        "an infinite value",
        lambda: from_frame(columns=changed("rna_2", 3, np.inf)),
        DataError,
        "id 'p03': the value is infinite",
    ),
    (
        "dates",
        lambda: from_frame(columns={"rna_2": pd.date_range("2020", periods=N)}),
        DataError,
        "'rna_2': holds dates",
    ),
    (
        "months",
        lambda: from_frame(columns={"rna_2": pd.period_range("2020", periods=N, freq="M")}),
        DataError,
        "'rna_2': holds dates",
    ),
    (
        "dates in text",
        lambda: from_frame(columns={"rna_2": [f"2020-01-{day:02d}" for day in range(1, N + 1)]}),
        DataError,
        "'rna_2', id 'p00': holds dates such as '2020-01-01'. Turn them .* list them under categories",
    ),
    (
        "dates among numbers",
        lambda: from_frame(columns=changed("rna_2", 3, datetime.date(2020, 1, 1))),
        DataError,
        "'rna_2': holds dates",
    ),
    (
        "complex numbers",
        lambda: from_frame(columns={"rna_2": np.arange(N) * 1j}),
        DataError,
        "'rna_2', id 'p00': got the complex number 0j. Give its two parts as two columns",
    ),
    (
        "decimal commas",
        lambda: from_frame(columns={"rna_2": ["1,5", "2,5"] * 10}),
        DataError,
        "'rna_2', id 'p00': expected a number, got '1,5'. Write decimals with a point",
    ),
    (
        "text where numbers were promised",
        lambda: from_frame({"rna": {"columns": "rna_*", "closed": True}}, columns={"rna_2": ["x", "y"] * 10}),
        DataError,
        "'rna_2', id 'p00': expected a number, got 'x'",
    ),
    ("lists in cells", lambda: from_frame(columns={"rna_2": [[1, 2]] * N}), DataError, "id 'p00': .* got list"),
    ("arrays in cells", lambda: from_frame(columns={"rna_2": [np.ones(2)] * N}), DataError, "id 'p00': .* got ndarray"),
    ("columns by number", lambda: from_frame({"s": {"columns": 5}}), ConfigError, "'s': columns: expected a pattern"),
    ("a shape of text", lambda: from_frame({"s": {"columns": "rna_*", "shape": "1x2"}}), ConfigError, "'s': shape"),
    ("a shape below 1", lambda: from_frame({"s": {"columns": "rna_*", "shape": [-1, -2]}}), ConfigError, "'s': shape"),
    (
        "levels in one text",
        lambda: from_frame({"s": {"columns": "rna_1", "categories": {"rna_1": "ab"}}}),
        ConfigError,
        "'s': categories of 'rna_1': expected a list of levels, got 'ab'",
    ),
    (
        "a level twice",
        lambda: from_frame({"s": {"columns": "rna_1", "categories": {"rna_1": ["a", "b", "a"]}}}),
        ConfigError,
        "the level 'a' is listed twice",
    ),
    (
        "a level that YAML read as a boolean",
        lambda: from_frame({"s": {"columns": "rna_1", "categories": {"rna_1": [True, False]}}}),
        ConfigError,
        "categories of 'rna_1': expected levels as text, got True. Put it in quotes",
    ),
    (
        "a level that YAML read as nothing",
        lambda: from_frame({"s": {"columns": "rna_1", "categories": {"rna_1": ["a", None]}}}),
        ConfigError,
        "expected levels as text, got None. Put it in quotes",
    ),
    (
        "closed by a word",
        lambda: from_frame({"s": {"columns": "rna_1", "closed": "yes"}}),
        ConfigError,
        "closed: expected true or false",
    ),
    (
        "filling with NaN",
        lambda: from_frame({"s": {"columns": "rna_*", "partial": float("nan")}}),
        ConfigError,
        "number to fill with, got nan",
    ),
    (
        "free text",
        lambda: ld.from_frame(pd.DataFrame({"t": [f"note {i}" for i in range(80)]}), {"n": "t"}),
        DataError,
        "are no categories.*kind: tokens",
    ),
    (
        "an unknown level",
        lambda: from_frame(
            {"c": {"columns": ["sex"], "categories": {"sex": ["male", "female"]}}},
            columns={"sex": ["male", "femal"] * 10},
        ),
        DataError,
        "id 'p01': unknown level 'femal'. Did you mean 'female'",
    ),
    (
        "an empty target",
        lambda: from_frame(columns=changed("label", 4, None)),
        DataError,
        "1 of 20 rows have no label, the first is id 'p04'",
    ),
    (
        "an empty id",
        lambda: from_frame(columns=changed("key", 4, None)),
        DataError,
        "id: column 'key' is empty in row 4",
    ),
    ("an id twice", lambda: from_frame(columns=changed("key", 4, "p03")), DataError, "the first is 'p03'"),
    (
        "an empty group",
        lambda: from_frame(columns={"site": [None, *"a" * (N - 1)]}, group="site"),
        DataError,
        "'site' is empty for id 'p00'",
    ),
    (
        "columns of one name",
        lambda: ld.from_frame(pd.DataFrame([[1, 2]], columns=["a", "a"]), {"m": "a"}),
        DataError,
        "more than one column named 'a'",
    ),
]

PRESENCE: list[Case] = [
    ("a rate of 1", lambda: ld.draw_presence(9, {"a": 1.0}), ConfigError, r"in \[0, 1\) for modality 'a', got 1.0"),
    ("a negative rate", lambda: ld.draw_presence(9, {"a": -0.1}), ConfigError, r"in \[0, 1\)"),
    ("a rate in percent", lambda: ld.draw_presence(9, {"a": 20}), ConfigError, "got 20"),
    ("a rate that is none", lambda: ld.draw_presence(9, {"a": float("nan")}), ConfigError, "got nan"),
    ("a rate of text", lambda: ld.draw_presence(9, {"a": "0.5"}), ConfigError, "got '0.5'"),
    (
        "a rate of another modality",
        lambda: ld.draw_presence(arrays(), {"vide": 0.5}),
        DataError,
        "rates: unknown modality 'vide'. Did you mean 'video'",
    ),
    (
        "a misspelt law",
        lambda: ld.draw_presence(9, {"a": 0.5}, "independant"),
        ConfigError,
        "law: unknown value 'independant'. Did you mean 'independent'",
    ),
    (
        "a misspelt resolution",
        lambda: ld.draw_presence(9, {"a": 0.5}, resolve_empty="redrow"),
        ConfigError,
        "Did you mean 'redraw'",
    ),
    ("no rates", lambda: ld.draw_presence(9, law="independent", names=["a"]), ConfigError, "needs rates="),
    ("no names", lambda: ld.draw_presence(9, 0.5), ConfigError, "which modalities"),
    ("no samples", lambda: ld.draw_presence([], {"a": 0.5}), DataError, "at least one sample"),
    ("an id twice", lambda: ld.draw_presence(["x", "x"], {"a": 0.5}), DataError, "ids must be unique, 'x'"),
    (
        "rates that leave gaps",
        lambda: ld.draw_presence(10, {"a": 0.8, "b": 0.7}, "exact-marginal"),
        ConfigError,
        "cannot cover 10 samples.*sum to 0.5",
    ),
    (
        "rates of uniform patterns",
        lambda: ld.draw_presence(9, {"a": 0.5}, "uniform-pattern"),
        ConfigError,
        "rates of its own",
    ),
    (
        "more patterns than samples",
        lambda: ld.draw_presence(5, dict.fromkeys("abc", 0.5), "product-counts"),
        ConfigError,
        "7 patterns are possible but there are only 5",
    ),
    (
        "too many patterns",
        lambda: ld.draw_presence(5, dict.fromkeys("abcdefghijklm", 0.5), "product-counts"),
        ConfigError,
        "at most 12 modalities",
    ),
    ("no driver", lambda: ld.draw_presence(9, {"a": 0.5}, "not-at-random"), ConfigError, "needs driver="),
    (
        "a short driver",
        lambda: ld.draw_presence(9, {"a": 0.5}, "not-at-random", driver=[1, 2]),
        DataError,
        "expected 9 values, one per sample",
    ),
    (
        "a driver with holes",
        lambda: ld.draw_presence(2, {"a": 0.5}, "not-at-random", driver=[1, np.nan]),
        DataError,
        "1 of 2 values are missing",
    ),
    (
        "a driver that says nothing",
        lambda: ld.draw_presence(2, {"a": 0.5}, "not-at-random", driver=[1, 1]),
        DataError,
        "every sample has the same value",
    ),
    (
        "a driver that is not there",
        lambda: ld.draw_presence(arrays(), 0.5, "not-at-random", driver="age"),
        DataError,
        "unknown attribute 'age'",
    ),
    (
        "a driver without an end",
        lambda: ld.draw_presence(2, {"a": 0.5}, "not-at-random", driver=[1, np.inf]),
        DataError,
        "driver: 1 of 2 values are infinite",
    ),
    (
        "a strength that is none",
        lambda: ld.draw_presence(2, {"a": 0.5}, "not-at-random", driver=[1, 2], strength=float("nan")),
        ConfigError,
        "strength: expected a finite number for modality 'a', got nan",
    ),
    (
        "a driver of another law",
        lambda: ld.draw_presence(2, {"a": 0.5}, driver=[1, 2]),
        ConfigError,
        "driver belongs to law='not-at-random'",
    ),
    (
        "a strength of no modality",
        lambda: ld.draw_presence(2, {"a": 0.5}, "not-at-random", driver=[1, 2], strength={"b": 1}),
        DataError,
        "strength: unknown modality 'b'",
    ),
    (
        "redrawing a given table",
        lambda: ld.draw_presence(
            ["x"], law="table", table=ld.PresenceTable([[0]], ["x"], ["a"]), resolve_empty="redraw"
        ),
        ConfigError,
        "would change what law='table' promises",
    ),
    ("no table", lambda: ld.draw_presence(2, law="table", names=["a"]), ConfigError, "needs table="),
    (
        "a table of other ids",
        lambda: arrays().hide(ld.PresenceTable(np.ones((1, 2)), ["x"], ["audio", "video"])),
        DataError,
        "lacks 20 of 20 sample ids",
    ),
    (
        "a table of other names",
        lambda: arrays().hide(ld.PresenceTable(np.ones((N, 2)), range(N), ["audio", "vidio"])),
        DataError,
        "no modality 'video'. Did you mean 'vidio'",
    ),
    (
        "a table of another shape",
        lambda: ld.PresenceTable(np.ones((2, 2)), ["x"], ["a"]),
        DataError,
        r"expected shape \(1, 1\)",
    ),
    (
        "a table of probabilities",
        lambda: ld.PresenceTable([[0.5]], ["x"], ["a"]),
        DataError,
        "only True .observed. and False",
    ),
    ("a modality twice", lambda: ld.PresenceTable([[1, 1]], ["x"], ["a", "a"]), DataError, "modalities must be unique"),
]


def parametrised(cases):
    return pytest.mark.parametrize(("call", "error", "message"), [pytest.param(*c[1:], id=c[0]) for c in cases])


@parametrised(ARRAYS)
def test_arrays(call, error, message):
    with pytest.raises(error, match=message):
        call()


@parametrised(TABLES)
def test_tables(call, error, message):
    with pytest.raises(error, match=message):
        call()


@parametrised(PRESENCE)
def test_presence(call, error, message):
    with pytest.raises(error, match=message):
        call()


GOOD = """
table: t.csv
id: key
target: label
modalities:
  rna: rna_*
"""


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        pytest.param(
            GOOD + "targt: label\n", ConfigError, "unknown key 'targt'. Did you mean 'target'", id="unknown key"
        ),
        pytest.param(GOOD + "id: other\n", ConfigError, "the key 'id' is there twice", id="a key twice"),
        pytest.param("table: t.csv\n", ConfigError, "the key 'modalities' is missing", id="no modalities"),
        pytest.param("modalities: {a: b}\n", ConfigError, "the key 'table' is missing", id="no table"),
        pytest.param("- a\n- b\n", ConfigError, "expected a mapping with the keys table and modalities", id="a list"),
        pytest.param("", ConfigError, "expected a mapping", id="an empty file"),
        pytest.param("a: [1, 2", ConfigError, "not a YAML file", id="broken YAML"),
        pytest.param(
            GOOD.replace("rna_*", "*"), ConfigError, "begins with [*] needs quotes", id="a star without quotes"
        ),
        pytest.param("a: !!python/object/apply:os.getcwd []", ConfigError, "not a YAML file", id="code in YAML"),
        pytest.param(GOOD.replace("t.csv", "u.csv"), DataError, "Table not found: .*u.csv", id="no such table"),
        pytest.param(
            GOOD.replace("t.csv", "d.yaml"), DataError, "expected a table as .csv, .tsv or .parquet", id="no table"
        ),
        pytest.param(
            GOOD.replace("key", "[a, b]"), ConfigError, r"id: expected text, got \['a', 'b'\]", id="ids in a list"
        ),
        pytest.param(
            GOOD.replace("label", "5"), ConfigError, "target: expected a column or a list", id="a number as target"
        ),
        pytest.param(GOOD.replace("rna: rna", "yes: rna"), ConfigError, "got True. Put it in quotes", id="YAML's yes"),
        pytest.param(
            GOOD.replace("rna: rna_*", "- rna_1"),
            ConfigError,
            "modalities: expected a mapping",
            id="a list of modalities",
        ),
        pytest.param(
            GOOD.replace("rna_*", "{colums: rna_*}"),
            ConfigError,
            "'rna': unknown key 'colums'",
            id="a misspelt key inside",
        ),
        pytest.param(
            GOOD + "splits: {train: 0.5, valid: 0.5}\n",
            ConfigError,
            "unknown part 'valid'. Did you mean 'val'",
            id="a misspelt part",
        ),
        pytest.param(
            GOOD + "splits: {train: 0.5, val: some}\n",
            ConfigError,
            "expected a fraction for 'val', got 'some'",
            id="a fraction of text",
        ),
        pytest.param(
            GOOD + "splits: {train: 1.0}\n", ConfigError, "validation part are always needed", id="no validation"
        ),
        pytest.param(GOOD + "splits: {train: 0.5, val: 0.1}\n", ConfigError, "sum to 1", id="fractions below 1"),
        pytest.param(GOOD + "splits: part\n", DataError, "splits: no column 'part'", id="no split column"),
        pytest.param(
            GOOD + "splits: 3\n", ConfigError, "splits: expected a column or fractions", id="a number of splits"
        ),
        pytest.param(
            GOOD + "splits: label\n", DataError, "column 'label' says 'no' for id 'p00'", id="a column of other words"
        ),
        pytest.param(
            GOOD + "splits: rna_1\n", DataError, "'rna_1' is already used by splits", id="a split column inside"
        ),
        pytest.param(
            GOOD + "task: clasification\n", ConfigError, "Did you mean 'classification'", id="a misspelt task"
        ),
        pytest.param(GOOD + "group: site\n", DataError, "group: no column 'site'", id="no group column"),
    ],
)
def test_descriptions(tmp_path, text, error, message):
    frame().to_csv(tmp_path / "t.csv", index=False)
    path = tmp_path / "d.yaml"
    path.write_text(text)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=message) as caught:
        ld.load_splits(path)
    assert str(path) in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_description_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="Data description not found: .*none.yaml"):
        ld.load_description(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a table"),
        (b"a,b\n1,2,3,4\n1,2\n1,2,3,4,5\n", "t.csv"),
        (b"key;rna_1\n1;2\n", "cells are separated by ';', expected ','"),
        (b"key,rna_1\n1,2\n1\n", "row 2 after the header has 1 cells, expected 2"),
        (b"key,rna_1\n1,2,3\n", "row 1 after the header has 3 cells, expected 2"),
        (b"a,a\n1,2\n", "more than one column is named 'a'"),
        (b"\xff\xfe\x00a,b\n", "t.csv: cannot be read as a table"),
        (b"key,rna_1,label\n", "The table has no rows"),
    ],
)
def test_broken_tables(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        Description("t.csv", {"rna": "rna_*"}, root=tmp_path).dataset()


def test_a_broken_parquet_table(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="t.parquet: cannot be read as a table"):
        Description("t.parquet", {"rna": "rna_*"}, root=tmp_path).dataset()


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def save_object_array(path: Path):
    np.save(path, np.array([Bomb(path.parent / "trace"), {}], dtype=object), allow_pickle=True)


def save_sound(path: Path, samples: int = 400, cut: int | None = None):
    wavfile.write(path, 8000, np.zeros(samples, np.int16))
    path.write_bytes(path.read_bytes()[:cut])


def save_deep_image(path: Path):
    from PIL import Image

    Image.fromarray(np.arange(10, dtype=np.float32).reshape(2, 5)).save(path)


@pytest.mark.parametrize(
    ("name", "reader", "make", "message"),
    [
        ("x.npy", "npy", save_object_array, "holds Python objects and would need unpickling"),
        ("x.npy", "npy", lambda p: p.write_bytes(pickle.dumps(Bomb(p.parent / "trace"))), "would need unpickling"),
        ("x.npy", "npy", lambda p: p.write_bytes(b""), "cannot be read as npy"),
        ("x.npy", "npy", lambda p: p.write_text("1,2,3"), "cannot be read as npy"),
        (
            "x.npy",
            "npy",
            lambda p: (np.save(p, np.ones(100)), p.write_bytes(p.read_bytes()[:200])),
            "cannot be read as npy",
        ),
        ("x.npy", "npy", lambda p: np.savez(p.open("wb"), a=np.ones(2)), "an npz archive"),
        ("x.npy", "npy", lambda p: np.save(p, np.array([1.0, np.nan])), "1 of 2 values are NaN or infinite"),
        ("x.npy", "npy", lambda p: np.save(p, np.ones((0, 3))), "holds no values"),
        ("x.npy", "npy", lambda p: np.save(p, np.array(["a"])), "expected numbers, got <U1"),
        ("x.npy", "npy", lambda p: np.save(p, np.array([1j])), "expected numbers, got complex128"),
        ("x.png", "image", lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\nnothing"), "cannot be read as image"),
        ("x.wav", "wav", lambda p: p.write_bytes(b"RIFF0000WAVE"), "cannot be read as wav"),
        ("x.npy", "npy", lambda p: np.save(p, np.array([1e300])), "1 of 1 values are NaN or infinite"),
        ("x.npy", "npy", lambda p: np.save(p, np.ones((2,) * 5)), "no kind of modality has samples of shape"),
        ("x.wav", "wav", lambda p: save_sound(p, cut=100), "cannot be read as wav .*prematurely"),
        ("x.wav", "wav-mfcc", lambda p: save_sound(p, samples=0), r"expected a sound of shape \(T,\)"),
        ("x.tif", "image", save_deep_image, "F pixels from 0 to 9, expected 0 to 1"),
        ("x.wav", "wav-mfcc", lambda p: p.write_bytes(b"not a sound"), "cannot be read as wav-mfcc"),
        ("x.nii", "nifti", lambda p: p.write_bytes(b"\0" * 348), "cannot be read as nifti"),
        ("x.nii.gz", "nifti", lambda p: p.write_bytes(b"\x1f\x8bnothing"), "cannot be read as nifti"),
        ("x.npy", "npy", lambda p: p.mkdir(), "1 of 1 files do not exist"),
        ("x.npy", "npy", lambda p: None, "1 of 1 files do not exist, the first are .*x.npy"),
    ],
)
def test_files(tmp_path, name, reader, make, message):
    pytest.importorskip({"image": "PIL", "nifti": "nibabel"}.get(reader, "numpy"))
    path = tmp_path / name
    make(path)
    with pytest.raises(DataError, match=message) as caught:
        column_from_files("scan", [None, path], reader)
    assert name in str(caught.value)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("reader", "options", "message"),
    [
        ("image", {"size": 3}, r"size: expected \[height, width\]"),
        ("image", {"size": ["a", 3]}, r"size: expected \[height, width\]"),
        ("image", {"mode": "gray"}, "mode: expected 'grey' or 'rgb', got 'gray'"),
        ("wav", {"rate": 0}, "rate: expected a whole number of at least 1, got 0"),
        ("wav-mfcc", {"n_mfcc": 200}, "200 coefficients need at least as many mel filters"),
        ("wav-mfcc", {"n_fft": "abc"}, "n_fft: expected a whole number of at least 1, got 'abc'"),
        ("wav-mfcc", {"hop": 0}, "hop: expected a whole number of at least 1, got 0"),
        ("wav-mfcc", {"f_min": "low"}, "f_min: expected a number, got 'low'"),
        ("wav-mfcc", {"mel": "bark"}, "mel: expected 'slaney' or 'htk', got 'bark'"),
    ],
)
def test_options_of_readers(reader, options, message):
    """No file is read, and none is blamed."""
    with pytest.raises(ConfigError, match=message) as caught:
        from_frame({"scan": {"path": "scan", "reader": reader, **options}}, columns={"scan": ["none.there"] * N})
    assert "none.there" not in str(caught.value)
    assert "'scan': reader" in str(caught.value)


def test_many_lost_files_are_counted(tmp_path):
    paths = [f"{i}.npy" for i in range(N)]
    with pytest.raises(
        DataError, match="'scan': 20 of 20 files do not exist, the first are .*0.npy, .*1.npy, .*2.npy. "
    ):
        from_frame({"scan": {"path": "scan", "reader": "npy"}}, columns={"scan": paths}, root=tmp_path)


def test_a_file_that_breaks_later_is_named(tmp_path):
    for i in range(2):
        np.save(tmp_path / f"{i}.npy", np.ones(3))
    column = column_from_files("scan", [tmp_path / "0.npy", tmp_path / "1.npy"], "npy")
    data = ld.from_arrays({"scan": column}, [0, 1])
    (tmp_path / "1.npy").write_bytes(b"gone")
    with pytest.raises(DataError, match="1.npy: cannot be read as npy"):
        data[1]
    (tmp_path / "1.npy").unlink()
    with pytest.raises(DataError, match="File not found: .*1.npy"):
        data[1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace("0,1", "1,1", 1), "does not match its hash"),
        (lambda text: "\n".join(text.splitlines()[:-1]) + "\n", "does not match its hash"),
        (lambda text: text.replace("x,", "y,", 1), "does not match its hash|must be unique"),
        (lambda text: text.split("\n", 1)[1], "Not a presence table"),
        (lambda text: "# {}\n" + text.split("\n", 1)[1], "Not a presence table"),
        (lambda text: text.replace('"format": 1', '"format": 9'), "Not a presence table"),
        (lambda text: text.replace("0,1", "0,maybe", 1), "Not a presence table"),
        (lambda text: text.replace("0,1", "0", 1), "Not a presence table"),
        (lambda text: "", "Not a presence table"),
    ],
)
def test_damaged_presence_tables(tmp_path, damage, message):
    table = ld.PresenceTable([[0, 1], [1, 1], [1, 0]], ["x", "z", "w"], ["a", "b"])
    path = table.save(tmp_path / "p.csv")
    path.write_text(damage(path.read_text()))
    with pytest.raises(DataError, match=message) as caught:
        ld.PresenceTable.load(path)
    assert "p.csv" in str(caught.value)


def test_a_presence_table_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="Presence table not found"):
        ld.PresenceTable.load(tmp_path / "none.csv")


def test_a_backtest_that_lacks_a_package_leaves_the_plan(tmp_path, monkeypatch, capsys):
    frame().to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "d.yaml").write_text(GOOD)
    (tmp_path / "costs.yaml").write_text("{rna: 1}")

    def lacks(*_):
        raise MissingExtraError("zuko", "flows", "The flow")

    monkeypatch.setattr("lacunar.planning.plan.plan", lambda *_, **__: "a plan")
    monkeypatch.setattr("lacunar.cli.plan._backtest_budget", lambda *_: 1.0)
    monkeypatch.setattr("lacunar.cli.plan._backtest", lacks)
    words = ["plan", "--data", str(tmp_path / "d.yaml"), "--costs", str(tmp_path / "costs.yaml")]
    assert main([*words, "--budget", "9", "--backtest", "--seeds", "2", "--quiet"]) == 2
    said = capsys.readouterr()
    assert "a plan" in said.out
    assert "The plan is made; its backtest failed: The flow needs the package 'zuko'" in said.err
