"""Audiovision-MNIST: an image and a recording of the same digit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
from sklearn.model_selection import train_test_split

from lacunar.data.arrays import from_arrays
from lacunar.data.audio import mfcc as cepstrum
from lacunar.data.presence import PresenceTable
from lacunar.data.readers import get_reader
from lacunar.data.splits import Splits
from lacunar.datasets._card import with_card
from lacunar.datasets._folders import find_folder, read_arrays, read_idx
from lacunar.errors import ConfigError, DataError, did_you_mean

__all__ = ["audio_pairs", "audio_presence", "avmnist"]

SPEAKERS = ("jackson", "nicolas", "theo")
TAKES, TEST_TAKES, FRAMES = 50, 15, 20
FILES = (
    "fsdd/recordings/*.wav",
    "mnist/t10k-images-idx3-ubyte.gz",
    "mnist/t10k-labels-idx1-ubyte.gz",
    "mnist/train-10k.npz",
)
Key = tuple[int, str, int]  # digit, speaker, take


def avmnist(
    folder: str | Path | None = None,
    leave_out: str | None = None,
    mfcc: Literal["clean", "smil"] = "clean",
    audio_rate: float = 1.0,
    val: float = 0.1,
    seed: int = 0,
) -> Splits:
    """1,500 fixed pairs of ``image`` (1, 28, 28) and ``audio`` (1, 20, 20).

    Pairs are made within a digit by position: the j-th image goes with the j-th recording, recordings in blocks of
    speakers. Train images come from MNIST's train part, test images from its test part.

    Args:
        folder: where ``fsdd/`` and ``mnist/`` lie; see :func:`lacunar.datasets.load`.
        leave_out: None for the published protocol, in which takes 0 to 14 of every speaker are the test part (1,050
            and 450 pairs), or a speaker who is the test part (1,000 and 500 pairs): far harder, since the voice is new.
        mfcc: ``"clean"``: 20 cepstral coefficients every 32 ms of the 8 kHz sound, standardised per coefficient with
            the recordings of the train part that are present; ``"smil"``: as published, every third sample is taken
            while 8 kHz is still assumed, the frames are padded with zeros to 20, and 0.5 is subtracted from the raw
            values and divided by.
        audio_rate: share of the training pairs whose recording is there, see :func:`audio_presence`; it applies to
            the train and validation parts.
        val: share of the training pairs that becomes the validation part, drawn within digits and speakers; the
            protocol has none.
        seed: fixes the validation part.

    Raises:
        ConfigError: an unknown speaker or variant, a rate outside (0, 1], a validation part too small or too large.
        DataError: files missing or damaged.
    """
    if leave_out is not None and leave_out not in SPEAKERS:
        raise ConfigError(f"avmnist: unknown speaker {leave_out!r}.{did_you_mean(leave_out, SPEAKERS)}")
    if mfcc not in ("clean", "smil"):
        raise ConfigError(f"avmnist: unknown mfcc={mfcc!r}.{did_you_mean(mfcc, ('clean', 'smil'))}")
    place = find_folder("avmnist", folder, FILES)
    sounds = _recordings(place / "fsdd" / "recordings")
    train_keys = [key for key in sounds if not _in_test(key, leave_out)]
    test_keys = [key for key in sounds if _in_test(key, leave_out)]
    keys = train_keys + test_keys
    labels = np.array([digit for digit, _, _ in keys])
    images = np.concatenate([_train_images(place, train_keys), _test_images(place, test_keys)])

    strata = np.array([10 * SPEAKERS.index(speaker) + digit for digit, speaker, _ in train_keys])
    try:
        cut = train_test_split(np.arange(len(strata)), test_size=val, stratify=strata, random_state=seed)
    except ValueError as error:
        raise ConfigError(
            f"avmnist: val: expected a share of the {len(strata)} training pairs with at least one pair of each of the "
            f"{len(np.unique(strata))} digits and speakers, and as many left, got {val!r}."
        ) from error
    train, held = map(np.sort, cut)
    table = audio_presence(train_keys, audio_rate)
    heard = np.concatenate([table.present[:, 1], np.ones(len(test_keys), bool)])
    clips = [sounds[key] for key in keys]
    audio = _published(clips) if mfcc == "smil" else _standardised(clips, train[heard[train]])
    data = from_arrays(
        {"image": (images[:, None] / np.float32(255) - 0.5) / 0.5, "audio": audio[:, None]},
        labels,
        present={"audio": heard},
        ids=[_name(key) for key in keys],
        subgroups={"speaker": [speaker for _, speaker, _ in keys]},
        task="classification",
        kinds={"image": "image", "audio": "image"},
        name="avmnist",
    )
    splits = data.split(indices={"train": train, "val": held, "test": np.arange(len(train_keys), len(keys))})
    shared = leave_out is None
    with_card(
        splits,
        title="Audiovision-MNIST",
        source="Free Spoken Digit Dataset (jackson, nicolas, theo) and MNIST",
        licence="FSDD CC BY-SA 4.0; MNIST usually given as CC BY-SA 3.0",
        cautions=(
            "train images are the first of each digit in the file at hand, a part of MNIST's train images, and not "
            "the very images of the published protocol, whose order needs the whole of MNIST",
            "the published protocol has no validation part: one is drawn from train",
            "the same voices are in train and test, near the ceiling: leave a speaker out for a harder test"
            if shared
            else f"the test voice, {leave_out}, is not in train; the validation part shares its voices with train",
        ),
    )
    return splits


def audio_pairs(rate: float, pairs: int = 105, speakers: int = 3) -> int:
    """How many of a digit's training pairs keep their recording in the published protocol.

    The share is rounded down to whole pairs and then up to a multiple of the speakers, but not past ``pairs``: of
    105 pairs 5 % are 6, 10 % are 12, 15 % are 15 and 20 % are 21, that is 5.7, 11.4, 14.3 and 20.0 %.

    Args:
        rate: the share of recordings that are there, in (0, 1].
        pairs: training pairs of a digit.
        speakers: how many speakers share them evenly.
    """
    if not 0 < rate <= 1:
        raise ConfigError(f"audio rate: expected a share in (0, 1], got {rate!r}.")
    whole = math.floor(pairs * rate + 1e-9)
    return min(pairs, math.ceil(whole / speakers) * speakers)


def audio_presence(keys: list[Key] | Splits, rate: float) -> PresenceTable:
    """Presence of the recordings in the training pairs: images always, a share of the recordings.

    Every speaker keeps the same number of recordings of each digit, the first in the order of their file names, so
    that the table of a smaller rate is contained in that of a larger one.

    Args:
        keys: the training pairs as (digit, speaker, take), or the splits, whose train and validation parts are meant.
        rate: share of the recordings that are there, rounded as :func:`audio_pairs` says.

    Returns:
        A table over the training pairs with the modalities ``image`` and ``audio``.
    """
    if isinstance(keys, Splits):
        keys = [_key(name) for part in (keys.train, keys.val) for name in part.ids]
    blocks: dict[tuple[int, str], list[Key]] = {}
    for key in keys:
        blocks.setdefault(key[:2], []).append(key)
    speakers = len({speaker for _, speaker in blocks})
    kept: set[Key] = set()
    for (digit, _), block in blocks.items():
        pairs = sum(len(other) for (also, _), other in blocks.items() if also == digit)
        kept.update(sorted(block, key=_name)[: audio_pairs(rate, pairs, speakers) // speakers])
    present = np.array([[True, key in kept] for key in keys])
    return PresenceTable(present, [_name(key) for key in keys], ("image", "audio"))


def _name(key: Key) -> str:
    return f"{key[0]}_{key[1]}_{key[2]}"


def _key(name: str) -> Key:
    digit, speaker, take = name.split("_")
    return int(digit), speaker, int(take)


def _in_test(key: Key, leave_out: str | None) -> bool:
    return key[1] == leave_out if leave_out else key[2] < TEST_TAKES


def _recordings(folder: Path) -> dict[Key, np.ndarray]:
    """The sounds of the three speakers, ordered by digit, speaker and file name."""
    keys = [(digit, speaker, take) for digit in range(10) for speaker in SPEAKERS for take in range(TAKES)]
    keys.sort(key=lambda key: (key[0], key[1], _name(key)))
    absent = [_name(key) for key in keys if not (folder / f"{_name(key)}.wav").is_file()]
    if absent:
        raise DataError(f"avmnist: {len(absent)} of {len(keys)} recordings are missing, the first is {absent[0]}.wav.")
    read = get_reader("wav", rate=8000)
    return {key: read(folder / f"{_name(key)}.wav").numpy() for key in keys}


def _train_images(place: Path, keys: list[Key]) -> np.ndarray:
    """The first images of each digit, in the order of the file."""
    stored = read_arrays(place / "mnist" / "train-10k.npz", ["image", "label"])
    digits = np.array([digit for digit, _, _ in keys])
    chosen = np.empty(len(keys), dtype=int)
    for digit in range(10):
        chosen[digits == digit] = np.flatnonzero(stored["label"] == digit)[: (digits == digit).sum()]
    return stored["image"][chosen]


def _test_images(place: Path, keys: list[Key]) -> np.ndarray:
    """The last images of each digit; the protocol names them by their position and sorts the names as text."""
    images = read_idx(place / "mnist" / "t10k-images-idx3-ubyte.gz")
    labels = read_idx(place / "mnist" / "t10k-labels-idx1-ubyte.gz")
    digits = np.array([digit for digit, _, _ in keys])
    chosen = np.empty(len(keys), dtype=int)
    for digit in range(10):
        by_name = sorted(np.flatnonzero(labels == digit).tolist(), key=lambda i: f"{i}.png")
        chosen[digits == digit] = by_name[-int((digits == digit).sum()) :]
    return images[chosen]


def _published(clips: list[np.ndarray]) -> np.ndarray:
    frames = [cepstrum(clip, 8000, 20, keep_every=3, frames=FRAMES).numpy().T for clip in clips]
    return (np.stack(frames) - 0.5) / 0.5


def _standardised(clips: list[np.ndarray], fitted: np.ndarray) -> np.ndarray:
    """Standardised with the clips ``fitted``; what lies behind the end of a clip is 0, the mean."""
    frames = [cepstrum(clip, 8000, 20, n_fft=512, hop=256, n_mels=40).numpy()[:FRAMES].T for clip in clips]
    sample = np.concatenate([frames[i] for i in fitted], axis=1)
    mean, scale = sample.mean(axis=1, keepdims=True), sample.std(axis=1, keepdims=True)
    values = np.zeros((len(clips), 20, FRAMES), dtype=np.float32)
    for row, frame in zip(values, frames):
        row[:, : frame.shape[1]] = (frame - mean) / scale
    return values
