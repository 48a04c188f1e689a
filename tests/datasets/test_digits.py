"""The embedded digits: what ships, how hard each modality is, and that they complement each other."""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lacunar import datasets
from lacunar.datasets.digits import digits

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_digits.py"


def stored() -> dict[str, np.ndarray]:
    raw = resources.files("lacunar.datasets").joinpath("files/digits.npz").read_bytes()
    with np.load(io.BytesIO(raw), allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def script():
    spec = importlib.util.spec_from_file_location("make_digits", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def columns(part) -> dict[str, np.ndarray]:
    """What scikit-learn takes: flat numbers, and the words as text."""
    batch = part.__getitems__(range(len(part)))
    read = [
        bytes(row[:n].tolist()).decode() for row, n in zip(batch.inputs["read"].to(torch.uint8), batch.lengths["read"])
    ]
    return {
        "seen": batch.inputs["seen"].flatten(1).numpy(),
        "heard": batch.inputs["heard"].flatten(1).numpy(),
        "read": np.array(read),
    }


@pytest.fixture(scope="module")
def probabilities():
    """Test probabilities of a simple learner per modality, and the test labels."""
    splits = digits()
    train, test = columns(splits.train), columns(splits.test)
    learners = {
        "seen": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300)),
        "heard": make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300)),
        "read": make_pipeline(
            CountVectorizer(analyzer="char_wb", ngram_range=(1, 3)), LogisticRegression(C=1.0, max_iter=300)
        ),
    }
    labels = splits.train.target.numpy()
    return {
        name: learner.fit(train[name], labels).predict_proba(test[name]) for name, learner in learners.items()
    }, splits.test.target.numpy()


def test_sizes_and_kinds():
    data = digits(split=False)
    assert len(data) == 1797
    assert data.names == ("seen", "heard", "read")
    assert data.kinds == {"seen": "image", "heard": "sequence", "read": "tokens"}
    assert data.shapes == {"seen": (1, 8, 8), "heard": (13,), "read": ()}
    assert bool(data.present.all())
    assert data.task.n_outputs == 10
    assert data.target.tolist() == load_digits().target[stored()["source"]].tolist()
    seen = data.__getitems__(range(len(data))).inputs["seen"]
    assert 0 <= float(seen.min()) < float(seen.max()) <= 1


def test_the_parts_are_disjoint_complete_and_balanced():
    splits = digits()
    parts = [splits.train, splits.val, splits.test]
    ids = np.concatenate([part.ids for part in parts])
    assert len(ids) == len(set(ids)) == 1797
    assert [round(len(part) / 1797, 2) for part in parts] == [0.6, 0.15, 0.25]
    for part in parts:
        counts = np.bincount(part.target.numpy(), minlength=10) / len(part)
        assert counts.min() > 0.08
        assert counts.max() < 0.12


def test_the_same_seed_gives_the_same_parts_and_another_seed_others():
    first, second, other = digits(seed=3), digits(seed=3), digits(seed=4)
    assert first.train.ids.tolist() == second.train.ids.tolist()
    a, b = first.train[7], second.train[7]
    assert all(torch.equal(a.inputs[name], b.inputs[name]) for name in a.inputs)
    assert first.train.ids.tolist() != other.train.ids.tolist()


def test_position_in_the_file_tells_nothing_about_the_label():
    labels = digits(split=False).target.numpy()
    position = np.arange(len(labels))
    # No trend; and a classifier that is given the position (and its last digit) stays near chance.
    assert abs(np.corrcoef(position, labels)[0, 1]) < 0.05
    features = np.concatenate([position[:, None] / 1797, np.eye(10)[position % 10]], axis=1)
    half = position % 2 == 0
    guess = LogisticRegression(max_iter=300).fit(features[half], labels[half]).score(features[~half], labels[~half])
    assert guess < 0.16


@pytest.mark.parametrize("name", ["seen", "heard", "read"])
def test_no_modality_is_enough_alone(probabilities, name):
    chances, labels = probabilities
    assert 0.6 <= (chances[name].argmax(1) == labels).mean() <= 0.8


def test_together_they_are(probabilities):
    chances, labels = probabilities
    alone = max((chance.argmax(1) == labels).mean() for chance in chances.values())
    pairs = [(chances[a] + chances[b]).argmax(1) for a, b in (("seen", "heard"), ("seen", "read"), ("heard", "read"))]
    together = (sum(chances.values()).argmax(1) == labels).mean()
    assert together >= 0.9
    assert together - alone > 0.12
    assert min((pair == labels).mean() for pair in pairs) > alone


def test_it_is_small_and_needs_no_unpickling():
    raw = resources.files("lacunar.datasets").joinpath("files/digits.npz").read_bytes()
    assert len(raw) < 1_000_000
    assert all(array.dtype.kind in "uifU" for array in stored().values())


def test_the_script_makes_what_is_stored():
    source, make, arrays = load_digits(), script(), stored()
    for row in range(0, 1797, 50):
        i = int(arrays["source"][row])
        assert make.make_read(int(source.target[i]), i) == (arrays["read"][row], arrays["language"][row])
        # A different build of scipy may round a pixel the other way.
        assert np.abs(make.make_seen(source.images[i], i).astype(int) - arrays["seen"][row]).max() <= 1


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng to speak")
def test_the_script_speaks_what_is_stored():
    if "1.51" not in subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True).stdout:
        pytest.skip("the stored sounds were made with espeak-ng 1.51")
    make, arrays = script(), stored()
    for row in (0, 911, 1796):
        heard, accent = make.make_heard(int(arrays["digit"][row]), int(arrays["source"][row]))
        assert accent == arrays["accent"][row]
        assert np.abs(heard / arrays["heard_scale"] - arrays["heard"][row]).max() < 1.5


def test_loaded_by_name_with_a_card():
    splits = datasets.load("digits", seed=1)
    card = splits.train.card
    assert card.samples == 1797
    assert sum(card.splits.values()) == sum(card.labels.values()) == 1797
    assert "eSpeak NG" in card.source
    assert "BSD-3-Clause" in card.licence
