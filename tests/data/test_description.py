"""The YAML description of a data set."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from lacunar.cli.source import new_data
from lacunar.data.description import Description, load_description, load_splits
from lacunar.data.table import read_table
from lacunar.errors import DataError

BASE = {
    "table": "patients.csv",
    "id": "patient",
    "target": "outcome",
    "group": "site",
    "subgroups": ["sex"],
    "licence": "CC BY 4.0",
    "modalities": {"rna": "rna_*", "clinical": ["age", "stage"], "scan": {"path": "scan", "reader": "npy"}},
}


def folder(tmp_path, n: int = 40, suffix: str = "csv", **changes):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(n, 3)), columns=["rna_1", "rna_2", "rna_3"])
    frame.insert(0, "patient", [f"{i:04d}" for i in range(n)])
    frame.loc[::5, ["rna_1", "rna_2", "rna_3"]] = np.nan
    frame["age"] = np.arange(n) + 30
    frame["stage"] = [("I", "II")[i % 2] for i in range(n)]
    frame["sex"] = [("f", "m")[i % 2] for i in range(n)]
    frame["site"] = [f"0{i // 4}" for i in range(n)]
    frame["outcome"] = [("no", "yes")[i // 2 % 2] for i in range(n)]
    frame["part"] = ["train"] * (n - 20) + ["val"] * 8 + ["test"] * 8 + [""] * 4
    (tmp_path / "scans").mkdir(exist_ok=True)
    for i in range(n):
        np.save(tmp_path / "scans" / f"{i}.npy", np.full((2, 2, 2), float(i)))
    frame["scan"] = [f"scans/{i}.npy" if i % 2 else "" for i in range(n)]
    if suffix == "csv":
        frame.to_csv(tmp_path / "patients.csv", index=False)
    elif suffix == "tsv":
        frame.to_csv(tmp_path / "patients.tsv", index=False, sep="\t")
    else:
        frame.to_parquet(tmp_path / "patients.parquet")
    content = {**BASE, "table": f"patients.{suffix}", **changes}
    content = {key: value for key, value in content.items() if value is not None}
    (tmp_path / "patients.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return tmp_path / "patients.yaml"


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_a_description_is_a_data_set(tmp_path, suffix, monkeypatch):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    path = folder(tmp_path, suffix=suffix)
    monkeypatch.chdir("/")  # paths are relative to the description, wherever one is
    data = load_description(path)
    assert data.name == "patients"
    assert data.names == ("rna", "clinical", "scan")
    assert data.ids[:2].tolist() == ["0000", "0001"]
    assert data.groups[:5].tolist() == ["00", "00", "00", "00", "01"]
    assert data.missing_rates == {"rna": pytest.approx(0.2), "clinical": 0.0, "scan": 0.5}
    assert data.shapes["scan"] == (2, 2, 2)
    assert data.card["licence"] == "CC BY 4.0"
    batch = data.__getitems__([0, 1, 3])
    assert batch.inputs["scan"][:, 0, 0, 0].tolist() == [1.0, 3.0]
    assert batch.inputs["clinical"][1].tolist() == [31.0, 0.0, 1.0]


def test_ids_stay_what_is_written(tmp_path):
    (tmp_path / "t.csv").write_text("key,x,y\n007,1,a\nNA,2,b\n1e5,3,a\n 5,4,b\n")
    frame = read_table(tmp_path / "t.csv", ids=["key"])
    assert frame["key"].tolist() == ["007", "NA", "1e5", " 5"]
    description = Description("t.csv", {"m": "x"}, id="key", target="y", root=tmp_path)
    assert description.dataset().ids.tolist() == ["007", "NA", "1e5", " 5"]


def test_a_byte_order_mark_and_crlf_are_read_over(tmp_path):
    (tmp_path / "t.csv").write_bytes("\ufeffkey,x,y\r\na,1,u\r\nb,2,v\r\n".encode())
    assert read_table(tmp_path / "t.csv", ids=["key"]).columns.tolist() == ["key", "x", "y"]


def test_splits_by_a_column(tmp_path):
    splits = load_splits(folder(tmp_path, splits="part"))
    assert [len(part) for part in splits.parts.values()] == [20, 8, 8]
    assert splits.test.ids[0] == "0028"


def test_splits_by_a_column_without_validation(tmp_path):
    path = folder(tmp_path, splits="part", group=None)
    frame = pd.read_csv(tmp_path / "patients.csv", dtype={"patient": str})
    frame["part"] = frame["part"].replace({"val": "train"})
    frame.to_csv(tmp_path / "patients.csv", index=False)
    splits = load_splits(path)
    assert len(splits.val) == 4
    assert len(splits.train) + len(splits.val) == 28
    assert len(splits.test) == 8


def test_splits_by_fractions_and_by_default(tmp_path):
    splits = load_splits(folder(tmp_path, splits={"train": 0.5, "val": 0.5}))
    assert splits.test is None
    assert not set(splits.train.groups) & set(splits.val.groups)
    default = load_splits(folder(tmp_path), seed=1)
    assert list(default.parts) == ["train", "val", "test"]
    assert default.hash != load_splits(folder(tmp_path), seed=2).hash
    assert default.hash == load_splits(folder(tmp_path), seed=1).hash


def test_samples_with_nothing_do_not_upset_a_split_column(tmp_path):
    path = folder(tmp_path, splits="part", modalities={"rna": "rna_*"})
    splits = load_splits(path)
    assert len(splits.train) == 16
    assert splits.train.missing_rates == {"rna": 0.0}


def test_a_description_is_stored_and_read_back(tmp_path):
    description = Description.from_file(folder(tmp_path, splits="part"))
    stored = json.loads(json.dumps(description.to_dict()))
    again = Description.from_dict(stored, tmp_path)
    assert again == description
    assert again.dataset().ids.tolist() == description.dataset().ids.tolist()
    several = Description.from_dict({**stored, "target": ["age", "rna_1"], "modalities": {"r": "rna_2"}}, tmp_path)
    assert Description.from_dict(json.loads(json.dumps(several.to_dict())), tmp_path) == several


def test_new_data_are_read_as_the_old_ones_were(tmp_path):
    description = Description.from_file(folder(tmp_path))
    trained = description.dataset()
    kept = description.resolved(description.read())
    assert kept.modalities["clinical"]["categories"] == {"stage": ["I", "II"]}
    new = tmp_path / "elsewhere"
    (new / "scans").mkdir(parents=True)
    np.save(new / "scans" / "1.npy", np.full((2, 2, 2), 1.0))
    rows = "patient,rna_1,rna_2,rna_3,age,stage,scan\n01,1,2,3,50,II,scans/1.npy\n02,,,,,,\n03,,,,60,II,\n"
    (new / "new.csv").write_text(rows)
    data = kept.dataset(new / "new.csv", task=trained.task, predict=True)
    assert data.ids.tolist() == ["01", "02", "03"]
    assert data.present.tolist() == [[True, True, True], [False, False, False], [False, True, False]]
    assert data.shapes["clinical"] == trained.shapes["clinical"]
    assert data.__getitems__([0]).inputs["clinical"].tolist() == [[50.0, 0.0, 1.0]]
    assert data.target is None
    assert data.task is trained.task


def test_new_data_with_a_target_can_be_scored(tmp_path):
    description = Description.from_file(folder(tmp_path))
    task = description.dataset().task
    assert torch.equal(description.dataset(task=task).target, description.dataset().target)


def test_prediction_reads_neither_target_nor_group(tmp_path):
    description = Description.from_file(folder(tmp_path))
    task = description.dataset().task
    for cells in ({"outcome": "pending"}, {"outcome": " "}, {"outcome": "yes", "site": None}):
        data = description.dataset(description.read().assign(**cells), task=task, predict=True)
        assert data.target is None
        assert data.groups is None
        assert data.task is task
    greedy = Description.from_dict(
        {"table": "patients.csv", "target": "outcome", "modalities": {"all": "o*"}}, tmp_path
    )
    with pytest.raises(DataError, match="already used by target"):
        greedy.dataset(predict=True)


def test_the_task_may_be_said(tmp_path):
    data = load_description(folder(tmp_path, target="age", task="regression", modalities={"rna": "rna_*"}))
    assert data.task.kind == "regression"


def test_new_tables_may_order_their_columns_otherwise_and_lack_a_modality(tmp_path, caplog):
    description = Description.from_file(folder(tmp_path))
    trained = description.dataset()
    kept = Description.from_dict(json.loads(json.dumps(description.resolved(description.read()).to_dict())), tmp_path)
    assert kept.modalities["rna"]["columns"] == ["rna_1", "rna_2", "rna_3"]
    (tmp_path / "new.csv").write_text("patient,rna_3,rna_1,rna_2,rna_4\n01,3,1,2,9\n")
    data = kept.dataset(tmp_path / "new.csv", task=trained.task, predict=True)
    assert data.__getitems__([0]).inputs["rna"].tolist() == [[1.0, 2.0, 3.0]]
    assert data.present.tolist() == [[True, False, False]]
    assert data.shapes == trained.shapes
    assert data.kinds == trained.kinds
    assert tuple(data[0].inputs["scan"].shape) == (0, 2, 2, 2)
    assert "modality scan: the table has none of its columns" in caplog.text
    (tmp_path / "half.csv").write_text("patient,rna_3,rna_1\n01,3,1\n")
    with pytest.raises(DataError, match="'rna': no column matches 'rna_2'"):
        kept.dataset(tmp_path / "half.csv", predict=True)


def test_another_description_follows_the_one_of_the_model(tmp_path):
    description = Description.from_file(folder(tmp_path))
    kept = description.resolved(description.read())
    frame = description.read()[["patient", "rna_3", "rna_1", "rna_2", "stage", "age", "scan"]].iloc[1:2]
    other = Description.from_dict({"table": "-", "id": "patient", "modalities": BASE["modalities"]}, tmp_path)
    data = other.following(kept, frame.columns).dataset(frame, predict=True)
    old = description.dataset(frame, predict=True)
    assert data.shapes["clinical"] == (3,)
    assert old.shapes["clinical"] == (2,)  # one level only: why a model's own levels are needed
    whole = description.dataset()
    assert torch.equal(data[0].inputs["rna"], whole[1].inputs["rna"])
    assert torch.equal(data[0].inputs["clinical"], whole[1].inputs["clinical"])
    wider = frame.assign(rna_9=1.0)
    with pytest.raises(DataError, match="trained on 3 columns, these are 4; 'rna_9' is in one of them only"):
        other.following(kept, wider.columns)


def test_files_of_another_shape_than_the_model_knows(tmp_path):
    description = Description.from_file(folder(tmp_path))
    kept = description.resolved(description.read())
    np.save(tmp_path / "scans" / "1.npy", np.ones((2, 2, 3)))
    with pytest.raises(DataError, match=r"'scan': expected shape \(2, 2, 2\), got \(2, 2, 3\) in .*1.npy"):
        kept.dataset(predict=True)


def test_files_of_tokens_have_no_shape_to_keep(tmp_path):
    for i in range(4):
        np.save(tmp_path / f"{i}.npy", np.arange(2 + i))
    pd.DataFrame({"note": [f"{i}.npy" for i in range(4)]}).to_csv(tmp_path / "t.csv", index=False)
    modalities = {"note": {"path": "note", "reader": "npy", "kind": "tokens"}}
    description = Description("t.csv", modalities, root=tmp_path)
    kept = Description.from_dict(description.resolved(description.read()).to_dict(), tmp_path)
    assert kept.dataset(predict=True).kinds == {"note": "tokens"}


def test_a_column_of_numbers_stays_one(tmp_path):
    description = Description.from_file(folder(tmp_path))
    kept = description.resolved(description.read())
    frame = description.read().assign(rna_2="oops")
    with pytest.raises(DataError, match="'rna', column 'rna_2', id '0000': expected a number, got 'oops'"):
        kept.dataset(frame, predict=True)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_files_of_other_systems(tmp_path, newline, encoding):
    path = folder(tmp_path, modalities={"Röntgen.größe": "rna_*", "stage": "stage"})
    for file in (path, tmp_path / "patients.csv"):
        text = file.read_text(encoding="utf-8")
        file.write_bytes(text.replace("\n", newline).encode(encoding))
    data = load_description(path)
    assert data.names == ("Röntgen.größe", "stage")
    assert (len(data), data.ids[7]) == (40, "0007")


def test_keys_that_are_merged(tmp_path):
    path = folder(tmp_path)
    text = path.read_text().replace("reader: npy", "<<: {reader: npy}")
    assert "<<" in text
    path.write_text(text)
    assert load_description(path).kinds["scan"] == "image"


def trained(tmp_path, frame, modalities, **more):
    """A run's folder with the description that it keeps, and its task."""
    frame.to_csv(tmp_path / "old.csv", index=False)
    content = {"table": "old.csv", "id": "id", "target": "y", "modalities": modalities, **more}
    description = Description.from_dict(content, tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "description.json").write_text(json.dumps(description.resolved(description.read()).to_dict()))
    return run, description.dataset().task


def rows(n: int = 8, **columns) -> pd.DataFrame:
    base = {"id": [f"p{i}" for i in range(n)], "rna_1": np.arange(n) * 1.0, "y": ["a", "b"] * (n // 2)}
    return pd.DataFrame({**base, **columns})


def values(data, name):
    return data.__getitems__(range(len(data))).inputs[name]


@pytest.mark.parametrize("predict", [True, False])
def test_the_columns_of_another_description_are_put_in_the_order_of_training(tmp_path, predict):
    frame = rows(rna_2=np.arange(8) + 1000.0)
    cells = {"columns": "steps_*", "kind": "sequence", "shape": [1, 2]}
    run, task = trained(tmp_path, frame.assign(steps_1=1.0, steps_2=2.0), {"rna": "rna_*", "steps": cells})
    frame[["id", "rna_2", "rna_1", "y"]].assign(steps_2=2.0, steps_1=1.0).to_csv(tmp_path / "new.csv", index=False)
    (tmp_path / "new.yaml").write_text(
        "table: new.csv\nid: id\ntarget: y\nmodalities: {rna: 'rna_*', steps: 'steps_*'}\n"
    )
    for name in ("new.yaml", "new.csv"):
        data = new_data(str(tmp_path / name), run, task, predict)
        assert values(data, "rna")[1].tolist() == [1.0, 1001.0]
        assert data.kinds["steps"] == "sequence"
        assert values(data, "steps")[0].tolist() == [[1.0, 2.0]]
    (tmp_path / "new.yaml").write_text("table: new.csv\nmodalities: {rna: [rna_1, rna_2], steps: [steps_1, steps_2]}\n")
    frame[["rna_2"]].assign(rna_1="oops").to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(DataError, match="'rna', column 'rna_1', id '0': expected a number, got 'oops'"):
        new_data(str(tmp_path / "new.yaml"), run, task, True)


def test_another_description_may_lack_a_modality(tmp_path):
    run, task = trained(tmp_path, rows(lab=1.0), {"rna": "rna_*", "lab": ["lab"]})
    rows()[["id", "rna_1"]].to_csv(tmp_path / "new.csv", index=False)
    (tmp_path / "new.yaml").write_text("table: new.csv\nid: id\nmodalities: {rna: 'rna_*', lab: [lab]}\n")
    data = new_data(str(tmp_path / "new.yaml"), run, task, True)
    assert data.availability.tolist() == [8, 0]


def test_characters_stay_characters_where_they_look_like_numbers(tmp_path):
    given = {"note": {"columns": "note*", "kind": "tokens"}}
    run, task = trained(tmp_path, rows(note=["cold", "warm"] * 4), given)
    rows(2, note=["42", "007"]).to_csv(tmp_path / "new.csv", index=False)
    data = new_data(str(tmp_path / "new.csv"), run, task, True)
    assert [bytes(row.tolist()).rstrip(b"\0") for row in values(data, "note")] == [b"42", b"007"]
    fresh = Description.from_dict({"table": "new.csv", "modalities": given}, tmp_path).dataset()
    assert torch.equal(values(fresh, "note"), values(data, "note"))


def test_a_listed_level_is_no_empty_cell(tmp_path):
    frame = rows(sev=["None", "mild", "NA", "null"] * 2)
    listed = {"columns": ["sev"], "categories": {"sev": ["None", "mild", "null"]}}
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = Description.from_dict({"table": "t.csv", "modalities": {"rna": "rna_1", "sev": listed}}, tmp_path).dataset()
    assert data.present[:4, 1].tolist() == [True, True, False, True]
    assert values(data, "sev")[0].tolist() == [1.0, 0.0, 0.0]


def test_blank_lines_of_a_single_column_are_empty_cells(tmp_path):
    (tmp_path / "t.csv").write_text("a\n1\n\n3\n")
    assert read_table(tmp_path / "t.csv")["a"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize("words", [(True, False), ("TRUE", "FALSE"), ("true", "false")])
def test_booleans_are_numbers_with_a_gap_and_without(tmp_path, words):
    whole = rows(smoker=list(words) * 4)
    gaps = whole.astype({"smoker": object})
    gaps.loc[2, "smoker"] = None
    for at, (old, new) in enumerate(((whole, gaps), (gaps, whole))):
        (tmp_path / str(at)).mkdir()
        run, task = trained(tmp_path / str(at), old, {"rna": "rna_*", "clinical": ["smoker"]})
        new.to_csv(tmp_path / "new.csv", index=False)
        data = new_data(str(tmp_path / "new.csv"), run, task, False)
        assert data.present[:, 1].tolist() == [at == 1 or i != 2 for i in range(8)]
        assert values(data, "clinical")[:2].tolist() == [[1.0], [0.0]]


def test_labels_stay_text_where_they_look_like_numbers(tmp_path):
    run, task = trained(tmp_path, rows(y=["1", "2", "3a", "3b"] * 2), {"rna": "rna_*"})
    rows(y=["1", "2"] * 4).to_csv(tmp_path / "new.csv", index=False)
    data = new_data(str(tmp_path / "new.csv"), run, task, False)
    assert task.decode(data.target).tolist() == ["1", "2"] * 4


def test_rows_that_are_in_no_part_do_not_count(tmp_path):
    for left in ("excluded", None):
        frame = rows(20, part=["train"] * 12 + ["val"] * 4 + [""] * 4, stage=["I"] * 16 + ["IV"] * 4)
        frame["y"] = ["a", "b"] * 8 + [left] * 4
        frame.drop(columns="id").to_csv(tmp_path / "t.csv", index=False)
        content = {"table": "t.csv", "target": "y", "splits": "part", "modalities": {"rna": "rna_*", "stage": "stage"}}
        description = Description.from_dict(content, tmp_path)
        splits = description.split()
        assert splits.task.classes == ("a", "b")
        assert splits.val.ids.tolist() == ["12", "13", "14", "15"]
        assert splits.train.shapes["stage"] == (1,)
        assert description.resolved(description.read()).modalities["stage"]["categories"] == {"stage": ["I"]}
    frame.assign(part="").to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match="splits: column 'part' is empty in every row"):
        description.split()


def test_numbers_in_the_notation_that_yaml_reads_as_text(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,y\n1,,u\n2,3,v\n")
    text = "table: t.csv\ntarget: y\nmodalities: {m: {columns: [a, b], partial: %s}}\n"
    for partial in ("1e-3", "{b: 1e-3}"):
        (tmp_path / "t.yaml").write_text(text % partial)
        assert values(load_description(tmp_path / "t.yaml"), "m")[0].tolist() == [1.0, pytest.approx(1e-3)]
