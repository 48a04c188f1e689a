"""The Audiovision-MNIST protocol."""

from __future__ import annotations

import gzip
import os
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from lacunar.datasets._folders import read_idx
from lacunar.datasets.avmnist import audio_pairs, audio_presence, avmnist
from lacunar.errors import ConfigError, DataError

KEYS = [(d, s, t) for d in range(10) for s in ("jackson", "nicolas", "theo") for t in range(15, 50)]


@pytest.fixture(scope="module")
def published():
    return avmnist(mfcc="smil")


@pytest.fixture(scope="module")
def new_voice():
    return avmnist(leave_out="theo")


def everything(part):
    return part.__getitems__(range(len(part)))


@pytest.mark.parametrize(
    ("rate", "pairs"),
    [(0.05, 6), (0.1, 12), (0.15, 15), (0.2, 21), (0.3, 33), (0.4, 42), (0.5, 54), (0.6, 63), (0.8, 84), (1.0, 105)],
)
def test_rates_are_rounded_to_whole_speakers(rate, pairs):
    assert audio_pairs(rate) == pairs
    table = audio_presence(KEYS, rate)
    assert table.present[:, 0].all()
    assert int(table.present[:, 1].sum()) == 10 * pairs
    for digit in range(10):
        for speaker in ("jackson", "nicolas", "theo"):
            block = [table.present[i, 1] for i, key in enumerate(KEYS) if key[:2] == (digit, speaker)]
            assert sum(block) == pairs // 3


def test_effective_rates():
    effective = [round(100 * audio_pairs(rate) / 105, 1) for rate in (0.05, 0.1, 0.15, 0.2)]
    assert effective == [5.7, 11.4, 14.3, 20.0]


def test_a_smaller_rate_is_contained_in_a_larger():
    tables = [audio_presence(KEYS, rate).present for rate in (0.05, 0.1, 0.15, 0.2, 0.5, 1.0)]
    for small, large in pairwise(tables):
        assert bool((large | ~small).all())


@pytest.mark.parametrize("rate", [0, -0.1, 1.5])
def test_rates_outside_the_range(rate):
    with pytest.raises(ConfigError, match=r"audio rate: expected a share in \(0, 1\]"):
        audio_pairs(rate)


def test_unknown_speakers_and_variants():
    with pytest.raises(ConfigError, match="unknown speaker 'teo'. Did you mean 'theo'"):
        avmnist(leave_out="teo")
    with pytest.raises(ConfigError, match="unknown mfcc='smill'. Did you mean 'smil'"):
        avmnist(mfcc="smill")


def write_folder(folder):
    """All files, of silence and of blank images."""
    (folder / "fsdd/recordings").mkdir(parents=True)
    (folder / "mnist").mkdir()
    draw = np.random.default_rng(0)
    for digit in range(10):
        for speaker in ("jackson", "nicolas", "theo"):
            for take in range(50):
                with wave.open(str(folder / f"fsdd/recordings/{digit}_{speaker}_{take}.wav"), "wb") as file:
                    file.setnchannels(1)
                    file.setsampwidth(2)
                    file.setframerate(8000)
                    file.writeframes(draw.integers(-900, 900, 1600 + 40 * take).astype("<i2").tobytes())
    label = np.repeat(np.arange(10, dtype=np.uint8), 120)
    image = np.broadcast_to(np.arange(1200).reshape(-1, 1, 1) % 120, (1200, 28, 28)).astype(np.uint8)
    np.savez(folder / "mnist/train-10k.npz", image=image, label=label)
    header = b"\x00\x00\x08\x03" + np.array([1200, 28, 28], ">i4").tobytes()
    (folder / "mnist/t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + image.tobytes()))
    header = b"\x00\x00\x08\x01" + np.array([1200], ">i4").tobytes()
    (folder / "mnist/t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + label.tobytes()))


def test_images_are_the_first_of_train_and_the_last_of_test_by_name(tmp_path):
    write_folder(tmp_path)
    splits = avmnist(tmp_path, audio_rate=0.05, val=0.2)
    # A made-up image holds its position within its digit; train takes 105 of 120, in order.
    used = [everything(part) for part in (splits.train, splits.val)]
    value = torch.cat([((batch.inputs["image"][:, 0, 0, 0] + 1) * 127.5).round() for batch in used])
    label = torch.cat([batch.target for batch in used])
    for digit in range(10):
        assert sorted(value[label == digit].tolist()) == list(range(105))
    test = everything(splits.test)
    value = ((test.inputs["image"][:, 0, 0, 0] + 1) * 127.5).round()
    names = sorted(range(360, 480), key=str)[-45:]
    assert value[test.target == 3].tolist() == [name - 360 for name in names]
    assert (len(splits.train) + len(splits.val), len(splits.test)) == (1050, 450)
    assert sum(int(part.present[:, 1].sum()) for part in (splits.train, splits.val)) == 60
    assert bool(splits.test.present.all())
    # Standardised with the recordings that train has, and with no others.
    heard = everything(splits.train).inputs["audio"]
    frames = [row[0][:, row[0].abs().sum(0) > 0] for row in heard]
    together = torch.cat(frames, dim=1)
    torch.testing.assert_close(together.mean(1), torch.zeros(20), atol=1e-3, rtol=0)
    torch.testing.assert_close(together.std(1), torch.ones(20), atol=0.01, rtol=0)


def test_damaged_and_missing_files(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "fsdd/recordings/7_theo_3.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"7_theo_3\.wav: cannot be read"):
        avmnist(tmp_path)
    (tmp_path / "fsdd/recordings/7_theo_3.wav").unlink()
    with pytest.raises(DataError, match=r"1 of 1500 recordings are missing, the first is 7_theo_3\.wav"):
        avmnist(tmp_path)


def test_damaged_idx_files(tmp_path):
    path = tmp_path / "x.gz"
    for content, message in (
        (b"no gzip", "cannot be read as gzip"),
        (gzip.compress(b"\x00\x00\x0d\x01\x00\x00\x00\x01"), "not an IDX file"),
        (gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x05abc"), r"expected 5 values for shape \(5,\), got 3"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_idx(path)


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("LACUNAR_DATA"), reason="LACUNAR_DATA names no folder of real data sets")
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
class TestReal:
    def test_sizes_and_shapes(self, published):
        assert len(published.train) + len(published.val) == 1050
        assert len(published.test) == 450
        assert len(published.val) == 105
        assert published.train.shapes == {"image": (1, 28, 28), "audio": (1, 20, 20)}
        for part in published.parts.values():
            assert np.ptp(np.bincount(part.target.numpy())) <= 3  # within a digit, each speaker may round by one

    def test_no_recording_is_in_two_parts_and_takes_are_apart(self, published):
        takes = {name: {int(key.split("_")[2]) for key in part.ids} for name, part in published.parts.items()}
        assert takes["test"] == set(range(15))
        assert not (takes["train"] | takes["val"]) & takes["test"]
        ids = np.concatenate([part.ids for part in published.parts.values()])
        assert len(set(ids)) == 1500

    def test_a_pair_shares_its_digit(self, published):
        for part in published.parts.values():
            assert [int(key[0]) for key in part.ids] == part.target.tolist()
        # The images, which are chosen apart from the recordings, are of that digit as well: they can be learned.
        train, test = everything(published.train), everything(published.test)
        learner = LogisticRegression(C=0.01, max_iter=100).fit(train.inputs["image"].flatten(1), train.target)
        assert learner.score(test.inputs["image"].flatten(1), test.target) > 0.75

    def test_published_coefficients(self, published):
        audio = everything(published.test).inputs["audio"]
        assert float(audio.abs().max()) > 100  # raw values: the first coefficient is in the hundreds
        # 8 kHz sounds thinned to a third fill few of the 20 frames; the rest is (0 - 0.5) / 0.5.
        assert float((audio == -1).float().mean()) > 0.5

    def test_a_new_voice(self, new_voice):
        speakers = {name: set(part.subgroups["speaker"]) for name, part in new_voice.parts.items()}
        assert speakers == {"train": {"jackson", "nicolas"}, "val": {"jackson", "nicolas"}, "test": {"theo"}}
        assert {name: len(part) for name, part in new_voice.parts.items()} == {"train": 900, "val": 100, "test": 500}
        train, test = everything(new_voice.train), everything(new_voice.test)
        scores = {}
        for name in ("image", "audio"):
            learner = LogisticRegression(C=0.01, max_iter=100).fit(train.inputs[name].flatten(1), train.target)
            scores[name] = learner.predict_log_proba(test.inputs[name].flatten(1))
        right = {name: (score.argmax(1) == test.target.numpy()).mean() for name, score in scores.items()}
        both = (sum(scores.values()).argmax(1) == test.target.numpy()).mean()
        assert 0.6 < right["audio"] < 0.8
        assert both > max(right.values()) + 0.05

    def test_the_table_of_a_split_is_that_of_its_pairs(self, published):
        table = audio_presence(published, 0.1)
        assert int(table.present[:, 1].sum()) == 120
        hidden = published.hide(table)
        assert int(hidden.train.present[:, 1].sum() + hidden.val.present[:, 1].sum()) == 120
        again = avmnist(audio_rate=0.1)
        assert {key for part in (again.train, again.val) for key in part.ids[part.present[:, 1].numpy()]} == {
            key for part in (hidden.train, hidden.val) for key in part.ids[part.present[:, 1].numpy()]
        }


@pytest.mark.parametrize("val", [0, 0.01, 1.0])
def test_validation_parts_that_cannot_hold_every_digit_and_speaker(val, monkeypatch):
    module = "lacunar.datasets.avmnist"
    keys = [(d, s, t) for d in range(10) for s in ("jackson", "nicolas", "theo") for t in range(50)]
    monkeypatch.setattr(f"{module}.find_folder", lambda *_: Path())
    monkeypatch.setattr(f"{module}._recordings", lambda _: dict.fromkeys(keys))
    for images in ("_train_images", "_test_images"):
        monkeypatch.setattr(f"{module}.{images}", lambda _, keys: np.zeros((len(keys), 28, 28)))
    with pytest.raises(ConfigError, match=f"val: expected a share of the 1050 training pairs .* 30 .* got {val}"):
        avmnist(val=val)
