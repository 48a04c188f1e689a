"""Data sets are found by name, and what is missing or damaged is told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lacunar import datasets
from lacunar.datasets.htad import htad
from lacunar.datasets.mfeat import mfeat
from lacunar.datasets.mosi import mosi
from lacunar.datasets.rosmap import rosmap
from lacunar.datasets.tcga_brca import tcga_brca
from lacunar.errors import ConfigError, DataError


@pytest.fixture
def no_folder(monkeypatch):
    monkeypatch.delenv("LACUNAR_DATA", raising=False)


def test_available_names_every_data_set_and_no_helper():
    names = datasets.available()
    assert {"digits", "synthetic", "avmnist", "mfeat", "htad", "rosmap", "tcga_brca", "mosi", "brats"} <= set(names)
    assert list(names) == sorted(names)
    assert not any(name.startswith("_") for name in names)


def test_a_new_data_set_is_one_new_file(tmp_path, monkeypatch):
    (tmp_path / "freshly_made.py").write_text("def freshly_made(size=3):\n    return list(range(size))\n")
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path)])
    assert "freshly_made" in datasets.available()
    assert datasets.load("freshly_made", size=2) == [0, 1]


def test_a_misspelt_name_is_corrected():
    with pytest.raises(ConfigError, match="Unknown data set 'digit'. Did you mean 'digits'"):
        datasets.load("digit")


def test_a_misspelt_option_is_corrected():
    with pytest.raises(ConfigError, match="unknown option 'views_'. Did you mean 'views'"):
        datasets.load("mfeat", views_=["fou"])


@pytest.mark.parametrize("name", ["avmnist", "brats", "htad", "mfeat", "mosi", "rosmap", "tcga_brca"])
def test_without_a_folder_the_error_says_what_to_set(name, no_folder):
    with pytest.raises(DataError, match=f"set the environment variable LACUNAR_DATA to the folder that holds {name}/"):
        datasets.load(name)


def test_a_folder_that_does_not_exist(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"htad.*no folder .*nowhere.*from folder=.*htad\.csv"):
        htad(tmp_path / "nowhere")
    monkeypatch.setenv("LACUNAR_DATA", str(tmp_path))
    with pytest.raises(DataError, match="from LACUNAR_DATA="):
        htad()


def test_files_that_are_missing_are_listed(tmp_path):
    with pytest.raises(DataError, match=r"has no mfeat-fou\.csv, mfeat-mor\.csv"):
        mfeat(tmp_path, views=["fou", "mor"])


def test_an_unknown_view(tmp_path):
    with pytest.raises(DataError, match="unknown view 'four'. Did you mean 'fou'"):
        mfeat(tmp_path, views=["four"])


def test_a_damaged_table(tmp_path):
    (tmp_path / "htad.csv").write_bytes(b"")
    with pytest.raises(DataError, match=r"htad\.csv cannot be read as a table"):
        htad(tmp_path)
    (tmp_path / "htad.csv").write_text("activity,x\na,1\n")
    with pytest.raises(DataError, match="expected a column 'class' and columns v1_"):
        htad(tmp_path)


def test_a_file_that_would_need_unpickling_is_refused(tmp_path):
    fields = ("text", "audio", "video", "y", "id", "video_id", "transcript")
    arrays = {f"{part}_{field}": np.zeros(2) for part in ("train", "test") for field in fields}
    np.savez(tmp_path / "mosi.npz", **{**arrays, "train_id": np.array([{}, {}], dtype=object)})
    with pytest.raises(DataError, match="without unpickling"):
        mosi(tmp_path)
    np.savez(tmp_path / "mosi.npz", train_text=np.zeros(2))
    with pytest.raises(DataError, match="missing train_audio"):
        mosi(tmp_path)
    (tmp_path / "mosi.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"mosi\.npz cannot be read"):
        mosi(tmp_path)


def test_labels_that_disagree_between_views(tmp_path):
    frame = pd.DataFrame({"a": [1.0, 2.0], "label": [0, 1]})
    frame.to_csv(tmp_path / "mfeat-fou.csv", index=False)
    frame.assign(label=[1, 0]).to_csv(tmp_path / "mfeat-mor.csv", index=False)
    with pytest.raises(DataError, match=r"labels in mfeat-mor\.csv differ"):
        mfeat(tmp_path, views=["fou", "mor"])


def write_brca(folder, patients=("p1", "p2", "p3", "p4"), without=()):
    for name in ("rna", "methylation", "mirna", "clinical"):
        rows = [patient for patient in patients if (name, patient) not in without]
        pd.DataFrame({"x": range(len(rows)), "y_nan": 1.0}, index=rows).to_csv(folder / f"{name}.csv")
    pd.DataFrame({"target": [0.0, 1.0, 0.0, 1.0]}, index=patients).to_csv(folder / "target.csv")


def test_a_patient_missing_from_a_table_lacks_that_modality(tmp_path):
    write_brca(tmp_path, without=[("mirna", "p2"), ("clinical", "p4")])
    data = tcga_brca(tmp_path)
    assert data.names == ("rna", "methylation", "mirna", "clinical")
    assert data.ids.tolist() == ["p1", "p2", "p3", "p4"]
    assert data.present.tolist() == [[True] * 4, [True, True, False, True], [True] * 4, [True, True, True, False]]
    assert data.card.missing_rates == {"rna": 0, "methylation": 0, "mirna": 0.25, "clinical": 0.25}


def test_a_patient_listed_twice(tmp_path):
    write_brca(tmp_path)
    rna = tmp_path / "rna.csv"
    rna.write_text(rna.read_text() + "p2,1,1\n")
    with pytest.raises(DataError, match=r"patient 'p2' occurs more than once in rna\.csv"):
        tcga_brca(tmp_path)


def test_rosmap_files_of_unequal_length(tmp_path):
    for stem in ("1", "2", "3", "labels"):
        for part in ("tr", "te"):
            np.savetxt(tmp_path / f"{stem}_{part}.csv", np.zeros((4 - (stem == "3"), 1)), delimiter=",")
    with pytest.raises(DataError, match=r"expected 4 rows in 3_tr\.csv"):
        rosmap(tmp_path)


def test_the_card_counts_the_data(tmp_path):
    frame = {"class": ["wash", "eat", "eat"], "v1_a": [1.0, 2, 3], "v1_b": [1.0, 2, 4], "v2_a": [0.0, 1, 1]}
    pd.DataFrame(frame).to_csv(tmp_path / "htad.csv", index=False)
    card = htad(tmp_path).card
    assert (card.samples, card.labels) == (3, {"eat": 2, "wash": 1})
    text = str(card)
    for line in ("3 samples", "audio          vector 2, missing rate 0.000", "labels: eat 2, wash 1", "licence: "):
        assert line in text
    assert max(map(len, text.splitlines())) <= 100
    assert isinstance(card, datasets.Card)


def test_a_subtype_that_is_not_there(tmp_path):
    write_brca(tmp_path)
    target = tmp_path / "target.csv"
    target.write_text(target.read_text().replace("p2,1.0", "p2,"))
    with pytest.raises(
        DataError, match=r"expected a subtype for every patient, got an empty cell for 'p2' in target\.csv"
    ):
        tcga_brca(tmp_path)


def test_a_text_among_the_numbers(tmp_path):
    pd.DataFrame({"class": ["a", "b"], "v1_a": [1.0, 2.0], "v2_a": ["1", "abc"]}).to_csv(tmp_path / "htad.csv")
    with pytest.raises(DataError, match=r"htad\.csv: expected a number in column 'v2_a', row 1, got 'abc'"):
        htad(tmp_path)
    write_brca(tmp_path)
    rna = tmp_path / "rna.csv"
    rna.write_text(rna.read_text().replace("p2,1,", "p2,oops,"))
    with pytest.raises(DataError, match=r"rna\.csv: expected a number in column 'x', row 'p2', got 'oops'"):
        tcga_brca(tmp_path)
