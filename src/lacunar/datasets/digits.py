"""The embedded data set: digits that are seen, heard and read."""

from __future__ import annotations

import io
from importlib import resources
from typing import Literal, overload

import numpy as np

from lacunar.data.arrays import from_arrays
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits
from lacunar.datasets._card import with_card

__all__ = ["digits"]


@overload
def digits(seed: int = ..., split: Literal[True] = ...) -> Splits: ...
@overload
def digits(seed: int = ..., *, split: Literal[False]) -> MultimodalDataset: ...
def digits(seed: int = 0, split: bool = True) -> Splits | MultimodalDataset:
    """1,797 digits in three modalities, none of them enough alone; ships with lacunar and needs no network.

    * ``seen``: an 8x8 image (1, 8, 8) in [0, 1], scikit-learn's handwritten digits made worse by shift, blur, a
      covered patch and noise.
    * ``heard``: 24 frames of 13 cepstral coefficients (24, 13) of the English number word, spoken by a synthesiser in
      many accents, voices, speeds and pitches, in noise.
    * ``read``: the number word in one of thirteen languages with typing errors, as UTF-8 bytes.

    A logistic regression reads each modality alone with an accuracy between .6 and .8, and the average of the three
    probabilities with .9 or more (a test measures it). All 1,797 samples are complete: hide what should be missing.
    ``scripts/make_digits.py`` in the repository makes the stored file.

    Args:
        seed: fixes the split.
        split: return train, validation and test parts (60, 15 and 25 %, classes in proportion), or everything.

    Returns:
        The parts, or the whole set. ``subgroups`` holds the language that is read and the accent that is heard.
    """
    stored = resources.files("lacunar.datasets").joinpath("files/digits.npz").read_bytes()
    with np.load(io.BytesIO(stored), allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    data = from_arrays(
        {
            "seen": arrays["seen"][:, None].astype(np.float32) / 255,
            "heard": arrays["heard"].astype(np.float32) * arrays["heard_scale"],
            "read": arrays["read"].tolist(),
        },
        arrays["digit"].astype(np.int64),
        ids=[f"digit-{i:04d}" for i in range(len(arrays["digit"]))],
        subgroups={"language": arrays["language"], "accent": arrays["accent"]},
        task="classification",
        kinds={"seen": "image", "heard": "sequence", "read": "tokens"},
        name="digits",
    )
    result = data.split(train=0.6, val=0.15, test=0.25, seed=seed) if split else data
    with_card(
        result,
        title="Digits seen, heard and read",
        source="scikit-learn's copy of the UCI optical recognition of handwritten digits; speech synthesised with "
        "eSpeak NG 1.51; number words typed for this project. Made by scripts/make_digits.py.",
        licence="images BSD-3-Clause (as distributed with scikit-learn; UCI's original CC BY 4.0); coefficients of "
        "synthesised speech and words Apache-2.0, as lacunar",
        cautions=(
            "a teaching set: the three views of a sample share its digit and nothing else, so the modalities are "
            "independent given the label",
            "voices and languages occur in every part of the split; it does not measure transfer to a new voice",
        ),
    )
    return result
