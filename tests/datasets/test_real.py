"""The loaders on the real folders: what they hold, and facts that a wrong reading would break."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lacunar import datasets
from lacunar.datasets.brats import REGIONS, brats
from lacunar.errors import ConfigError

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not os.environ.get("LACUNAR_DATA"), reason="LACUNAR_DATA names no folder of real data sets"),
]


def columns(data, names=None) -> np.ndarray:
    batch = data.__getitems__(range(len(data)))
    return torch.cat([batch.inputs[name] for name in names or data.names], dim=1).numpy()


def learner():
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))


@pytest.fixture(scope="module")
def blocks():
    return {sequences: brats(sequences=sequences) for sequences in (2, 4)}


def test_mfeat():
    data = datasets.load("mfeat")
    assert data.shapes == {"fou": (76,), "fac": (216,), "kar": (64,), "pix": (240,), "zer": (47,), "mor": (6,)}
    assert np.bincount(data.target).tolist() == [200] * 10
    weak = datasets.load("mfeat", views=("fou", "zer", "mor"))
    assert weak.names == ("fou", "zer", "mor")
    # Near .9 with the three weak views; the label column among the inputs would give 1.
    assert 0.8 < cross_val_score(learner(), columns(weak), weak.target, cv=3).mean() < 0.95


def test_htad():
    data = datasets.load("htad")
    assert (len(data), data.shapes) == (1386, {"audio": (36,), "accelerometer": (16,)})
    assert data.task.n_outputs == 7
    assert data.card.labels["eat_chips"] == 282
    scores = [cross_val_score(learner(), columns(data, names), data.target, cv=3).mean() for names in (["audio"], None)]
    assert scores[0] < scores[1] < 0.95


def test_rosmap_official_and_pooled():
    splits = datasets.load("rosmap")
    assert len(splits.train) + len(splits.val) == 245
    assert len(splits.test) == 106
    assert all(key.startswith("te-") for key in splits.test.ids)
    pooled = datasets.load("rosmap", pooled=True)
    assert len(pooled) == 351
    assert pooled.shapes == dict.fromkeys(("mrna", "methylation", "mirna"), (200,))


def test_tcga_brca():
    data = datasets.load("tcga_brca")
    assert data.shapes == {"rna": (200,), "methylation": (400,), "mirna": (100,), "clinical": (20,)}
    assert list(data.card.labels.values()) == [419, 46, 140, 130, 34]
    assert all(key.startswith("TCGA-") for key in data.ids)
    assert cross_val_score(learner(), columns(data, ["rna"]), data.target, cv=3).mean() > 0.7


def test_mosi_has_no_video_in_two_parts():
    splits = datasets.load("mosi")
    assert len(splits.train) + len(splits.val) == 1447
    assert len(splits.test) == 752
    videos = [set(part.groups) for part in splits.parts.values()]
    assert not videos[0] & videos[1]
    assert not (videos[0] | videos[1]) & videos[2]
    words = datasets.load("mosi", text="transcript")
    assert words.train.kinds["text"] == "tokens"
    assert words.train.ids.tolist() == splits.train.ids.tolist()
    with pytest.raises(ConfigError, match="unknown text='transcripts'. Did you mean 'transcript'"):
        datasets.load("mosi", text="transcripts")


def test_mosi_text_features_saw_the_labels_as_its_card_says():
    splits = datasets.load("mosi")
    found = learner().fit(columns(splits.train, ["text"]), splits.train.target)
    val = found.score(columns(splits.val, ["text"]), splits.val.target)
    test = found.score(columns(splits.test, ["text"]), splits.test.target)
    assert val - test > 0.1
    assert "text looks far better on train and validation" in " ".join(splits.train.card.cautions)


@pytest.mark.parametrize(("sequences", "names"), [(2, ("flair", "t1c")), (4, ("t1", "t1c", "flair", "t2"))])
def test_brats_blocks(blocks, sequences, names):
    splits = blocks[sequences]
    assert splits.names == names
    assert splits.train.shapes == dict.fromkeys(names, (1, 32, 32, 32))
    assert splits.task.kind == "segmentation"
    batch = splits.test.__getitems__([0, 1])
    assert batch.target.shape == (2, 32, 32, 32)
    assert batch.target.dtype == torch.int64
    counts = {name: np.bincount(part.target.flatten(), minlength=4) for name, part in splits.parts.items()}
    assert all((count > 0).all() for count in counts.values())  # every label in every part
    assert all(len(count) == 4 for count in counts.values())
    assert not set(splits.train.ids) & set(splits.test.ids)
    if sequences == 2:
        # Cropping and cutting lose no labelled voxel; 1 takes the 3 of 2013 in, and 4 becomes 3.
        assert sum(counts.values())[1:].tolist() == [23030 + 3882 + 41838 + 22228, 35416 + 109935, 18354 + 43379]


def test_brats_regions_are_nested(blocks):
    labels = blocks[2].train.target
    inside = {name: torch.isin(labels, torch.tensor(members)) for name, members in REGIONS.items()}
    assert bool((inside["WT"] | ~inside["TC"]).all())
    assert bool((inside["TC"] | ~inside["ET"]).all())


def test_brats_whole_volumes_are_standardised_over_the_brain():
    data = brats(sequences=4, whole=True)
    assert len(data) == 1
    strict = brats(sequences=4, whole=True, strict=True)
    for part in (data, strict):
        for volume in part[0].inputs.values():
            inside = volume[volume != 0]
            assert abs(float(inside.mean())) < 0.02
            assert abs(float(inside.std()) - 1) < 0.02
    assert not torch.equal(data[0].inputs["t1"], strict[0].inputs["t1"])


def test_brats_options():
    with pytest.raises(ConfigError, match="expected sequences=2 or sequences=4, got 3"):
        brats(sequences=3)
    with pytest.raises(ConfigError, match="expected a block of at least 1 voxel, got 0"):
        brats(block=0)


@pytest.mark.parametrize("name", ["avmnist", "brats", "htad", "mfeat", "mosi", "rosmap", "tcga_brca"])
def test_every_card_adds_up_and_prints(name, blocks):
    data = blocks[4] if name == "brats" else datasets.load(name)
    part = getattr(data, "train", data)
    card = part.card
    assert card.samples == (sum(card.splits.values()) if card.splits else len(data))
    if part.task.kind == "classification":
        assert sum(card.labels.values()) == card.samples
    assert set(card.modalities) == set(part.names)
    assert "licence: " in str(card)
    assert "beware: " in str(card)
