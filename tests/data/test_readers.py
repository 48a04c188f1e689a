"""Readers of files."""

from __future__ import annotations

import builtins
import pickle
from wave import open as open_wave

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from lacunar.data import readers
from lacunar.data.arrays import from_arrays
from lacunar.data.audio import mel_filters, mfcc
from lacunar.data.readers import column_from_files, get_reader, reader_names, register_reader
from lacunar.errors import ConfigError, DataError, MissingExtraError


def sweep() -> np.ndarray:
    t = np.arange(4000) / 8000
    return (0.5 * np.sin(2 * np.pi * (200 * t + 900 * t**2)) + 0.1 * np.sin(2 * np.pi * 2500 * t)).astype(np.float32)


@pytest.fixture
def restored(monkeypatch):
    monkeypatch.setattr(readers, "_READERS", dict(readers._READERS))


@pytest.mark.parametrize(
    ("array", "kind", "shape"),
    [
        (np.arange(5), None, (5,)),
        (np.float64(3.5), None, (1,)),
        (np.ones((6, 2)), None, (6, 2)),
        (np.ones((4, 4)), None, (1, 4, 4)),
        (np.ones((4, 4)), "sequence", (4, 4)),
        (np.ones((2, 3, 4, 5), dtype=np.float64), None, (2, 3, 4, 5)),
        (np.ones((3, 4, 5)), "volume", (1, 3, 4, 5)),
        (np.ones((3, 4, 5), order="F"), None, (3, 4, 5)),
    ],
)
def test_npy(tmp_path, array, kind, shape):
    np.save(tmp_path / "x.npy", array)
    value = get_reader("npy").with_kind(kind)(tmp_path / "x.npy")
    assert value.dtype == torch.float32
    assert tuple(value.shape) == shape
    np.testing.assert_allclose(value.numpy().ravel(), np.asarray(array).ravel())


def test_npy_tokens(tmp_path):
    np.save(tmp_path / "x.npy", np.array([3, 1, 2], dtype=np.int32))
    value = get_reader("npy").with_kind("tokens")(tmp_path / "x.npy")
    assert value.dtype == torch.int64
    assert value.tolist() == [3, 1, 2]


def test_images_grey_colour_deep_and_resized(tmp_path):
    image = pytest.importorskip("PIL.Image")
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    colour = np.stack([grey, grey + 1, grey + 2], axis=-1)
    image.fromarray(grey).save(tmp_path / "grey.png")
    image.fromarray(colour).save(tmp_path / "colour.png")
    image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    image.fromarray(np.dstack([colour, np.full((3, 4), 255, np.uint8)])).save(tmp_path / "alpha.png")
    read = get_reader("image")
    np.testing.assert_allclose(read(tmp_path / "grey.png").numpy(), grey[None] / 255, rtol=1e-6)
    np.testing.assert_allclose(read(tmp_path / "colour.png").numpy(), colour.transpose(2, 0, 1) / 255, rtol=1e-6)
    np.testing.assert_allclose(read(tmp_path / "deep.png").numpy(), grey[None] / 255, rtol=1e-5)
    assert tuple(read(tmp_path / "alpha.png").shape) == (3, 3, 4)
    assert tuple(get_reader("image", mode="grey")(tmp_path / "colour.png").shape) == (1, 3, 4)
    assert tuple(get_reader("image", mode="rgb")(tmp_path / "grey.png").shape) == (3, 3, 4)
    assert tuple(get_reader("image", size=[6, 5])(tmp_path / "colour.png").shape) == (3, 6, 5)


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [(np.int16, 32767, 0), (np.int32, 2**31 - 129, 0), (np.uint8, 127, 128), (np.float32, 1, 0), (np.float64, 1, 0)],
)
def test_wav_of_every_sample_format(tmp_path, dtype, scale, offset):
    wavfile.write(tmp_path / "x.wav", 8000, (sweep().astype(np.float64) * scale + offset).astype(dtype))
    value = get_reader("wav")(tmp_path / "x.wav")
    assert tuple(value.shape) == (4000, 1)
    assert value.dtype == torch.float32
    np.testing.assert_allclose(value[:, 0], sweep(), atol=2 / 128 if dtype == np.uint8 else 1e-4)


def test_wav_channels_are_averaged_and_rates_changed(tmp_path):
    wavfile.write(tmp_path / "x.wav", 8000, np.stack([sweep(), -sweep()], axis=1))
    assert get_reader("wav")(tmp_path / "x.wav").abs().max() == 0
    wavfile.write(tmp_path / "y.wav", 8000, sweep())
    assert len(get_reader("wav", rate=4000)(tmp_path / "y.wav")) == 2000
    assert len(get_reader("wav", rate=11025)(tmp_path / "y.wav")) == pytest.approx(5513, abs=1)


def test_mfcc_against_librosa():
    """Values of librosa 0.11.0, ``librosa.feature.mfcc`` on the same sound, rounded to three places."""
    plain = mfcc(sweep(), 8000, 5)
    assert tuple(plain.shape) == (8, 5)
    expected = [[-200.680, 116.417, 140.146, 18.375, -21.241], [-406.056, 131.701, -34.316, -172.885, -181.193]]
    np.testing.assert_allclose(plain[[0, 4]].numpy(), expected, atol=2e-3)
    other = mfcc(sweep(), 8000, 4, n_fft=256, hop=100, n_mels=30, mel="htk", f_min=50, f_max=3500)
    assert tuple(other.shape) == (41, 4)
    expected = [[-137.910, 55.248, 64.354, -7.765], [-269.975, 12.252, -17.741, -86.389]]
    np.testing.assert_allclose(other[[0, 20]].numpy(), expected, atol=2e-3)


def test_mel_filters_have_equal_area_and_the_right_centres():
    filters = mel_filters(8000, 4096, 40)
    np.testing.assert_allclose(filters.sum(dim=1) * (8000 / 4096), 1, rtol=0.01)
    assert (filters >= 0).all()
    # Slaney: 1000 Hz is 15 mel and 4000 Hz is 15 + 27 log(4) / log(6.4), 41 steps apart in all.
    top = 15 + 27 * np.log(4) / np.log(6.4)
    assert filters[0].argmax() * 8000 / 4096 == pytest.approx(top / 41 * 200 / 3, abs=2)


def test_mfcc_protocol_options():
    sound = sweep()
    assert tuple(mfcc(sound, 8000, 20, frames=20).shape) == (20, 20)
    assert mfcc(sound, 8000, 20, frames=20)[8:].abs().sum() == 0
    assert torch.equal(mfcc(sound, 8000, 20, frames=3), mfcc(sound, 8000, 20)[:3])
    assert torch.equal(mfcc(sound, 8000, keep_every=3), mfcc(sound[::3], 8000))
    assert torch.isfinite(mfcc(np.zeros(10), 8000)).all()
    assert torch.equal(mfcc(torch.from_numpy(sound)[:, None], 8000), mfcc(sound, 8000))


def test_wav_mfcc_reader(tmp_path):
    wavfile.write(tmp_path / "x.wav", 16000, sweep())
    got = get_reader("wav-mfcc", assumed_rate=8000, n_mfcc=5)(tmp_path / "x.wav")
    np.testing.assert_allclose(got, mfcc(sweep(), 8000, 5), atol=1e-4)
    column = column_from_files("m", [tmp_path / "x.wav"], get_reader("wav-mfcc", frames=20), kind="image")
    assert column.shape == (1, 20, 20)


def test_nifti(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    values = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "x.nii.gz")
    got = get_reader("nifti")(tmp_path / "x.nii.gz")
    np.testing.assert_allclose(got, values[None], rtol=1e-6)
    several = np.random.default_rng(0).normal(size=(3, 4, 5, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(several, np.eye(4)), tmp_path / "y.nii")
    assert tuple(get_reader("nifti")(tmp_path / "y.nii").shape) == (2, 3, 4, 5)


def twice(path, factor=2.0):
    return np.loadtxt(path) * factor


def test_a_function_is_a_reader_and_may_be_registered(tmp_path, restored):
    np.savetxt(tmp_path / "x.txt", np.arange(3))
    assert get_reader(twice, factor=3.0)(tmp_path / "x.txt").tolist() == [0.0, 3.0, 6.0]
    register_reader("twice", twice, "vector")
    assert "twice" in reader_names()
    assert get_reader("twice")(tmp_path / "x.txt").tolist() == [0.0, 2.0, 4.0]
    register_reader("twice", twice)
    with pytest.raises(ConfigError, match="there is a reader 'twice' already"):
        register_reader("twice", np.load)
    with pytest.raises(ConfigError, match="unknown kind 'vectr'. Did you mean 'vector'"):
        register_reader("other", twice, "vectr")


def test_readers_can_be_sent_to_workers(tmp_path):
    paths = []
    for i in range(6):
        np.save(tmp_path / f"{i}.npy", np.full((1 + i, 2), float(i)))
        paths.append(tmp_path / f"{i}.npy")
    column = column_from_files("m", [paths[0], None, *paths[2:]], "npy")
    pickle.loads(pickle.dumps(column.read))
    data = from_arrays({"m": column, "v": np.ones((6, 2))}, np.arange(6) % 2)
    assert data.kinds["m"] == "sequence"
    assert data.shapes["m"] == (2,)
    seen = {}
    for batch in data.loader(4, shuffle=True, num_workers=2):
        for place, value, length in zip(batch.rows("m").tolist(), batch.inputs["m"], batch.lengths["m"].tolist()):
            seen[int(batch.index[place])] = (length, value[0, 0].item())
    assert seen == {i: (i + 1, float(i)) for i in (0, 2, 3, 4, 5)}


@pytest.mark.parametrize(("reader", "module", "extra"), [("image", "PIL", "image"), ("nifti", "nibabel", "medical")])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, reader, module, extra):
    real = builtins.__import__

    def refuse(name, *rest):
        if name.split(".")[0] == module:
            raise ImportError(name)
        return real(name, *rest)

    (tmp_path / "x").write_bytes(b"")
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=rf"lacunar\[{extra}\]"):
        get_reader(reader)(tmp_path / "x")


def test_files_of_different_shapes_are_refused_by_name(tmp_path):
    np.save(tmp_path / "a.npy", np.ones(3))
    np.save(tmp_path / "b.npy", np.ones(4))
    column = column_from_files("m", [tmp_path / "a.npy", tmp_path / "b.npy"], "npy")
    with pytest.raises(DataError, match=r"expected every file to hold shape \(3,\), got \(4,\) in .*b.npy"):
        column.take(torch.tensor([0, 1]))


def test_sequences_of_different_widths_are_refused_by_name(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    np.save(tmp_path / "b.npy", np.ones((2, 4)))
    column = column_from_files("m", [tmp_path / "a.npy", tmp_path / "b.npy"], "npy", "sequence")
    with pytest.raises(DataError, match=r"'m'.*got \(2, 4\) in .*b.npy"):
        column.take(torch.tensor([0, 1]))


def test_mfcc_refuses_what_it_cannot_use():
    with pytest.raises(ConfigError, match="30 coefficients need at least as many mel filters"):
        mfcc(sweep(), 8000, 30, n_mels=20)
    with pytest.raises(DataError, match=r"expected a sound of shape \(T,\)"):
        mfcc(np.ones((5, 2)), 8000)
    with pytest.raises(DataError, match="T > 0"):
        mfcc(np.ones(0), 8000)
    with pytest.raises(ConfigError, match="expected 'slaney' or 'htk', got 'bark'"):
        mfcc(sweep(), 8000, mel="bark")
    with pytest.raises(ConfigError, match="0 <= f_min < f_max <= 4000 Hz"):
        mfcc(sweep(), 8000, f_max=5000)


def test_images_of_floating_numbers(tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.array([[0.0, 0.25], [0.5, 1.0]], dtype=np.float32)).save(tmp_path / "x.tif")
    assert get_reader("image")(tmp_path / "x.tif").tolist() == [[[0.0, 0.25], [0.5, 1.0]]]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_sounds_of_every_depth(tmp_path, bits, channels):
    wave = np.sin(np.arange(400) / 10) / 2
    stored = np.round(wave * (2 ** (bits - 1) - 1)).astype(np.int64) + (128 if bits == 8 else 0)
    with open_wave(str(tmp_path / "x.wav"), "wb") as file:
        file.setparams((channels, bits // 8, 8000, 0, "NONE", ""))
        frames = [int(value).to_bytes(bits // 8, "little", signed=bits > 8) * channels for value in stored]
        file.writeframes(b"".join(frames))
    read = get_reader("wav")(tmp_path / "x.wav")
    assert read.shape == (400, 1)
    assert float((read[:, 0] - torch.from_numpy(wave)).abs().max()) < 2.0 ** (2 - bits) + 1e-6
