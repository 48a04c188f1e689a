"""CMU-MOSI: sentiment of utterances from text, voice and face."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from lacunar.data.arrays import from_arrays
from lacunar.data.splits import Splits
from lacunar.datasets._card import with_card
from lacunar.datasets._folders import find_folder, read_arrays
from lacunar.errors import ConfigError, did_you_mean

__all__ = ["mosi"]

FIELDS = ("text", "audio", "video", "y", "id", "video_id", "transcript")


def mosi(
    folder: str | Path | None = None,
    text: Literal["features", "transcript"] = "features",
    val: float = 0.15,
    seed: int = 0,
) -> Splits:
    """Utterances with ``text``, ``audio`` and ``video``, one vector each, and a positive or negative sentiment.

    No video occurs in two parts: the official train and test parts have none in common, and the validation part is
    cut from train by whole videos.

    Args:
        folder: where ``mosi.npz`` lies; see :func:`lacunar.datasets.load`.
        text: ``"features"``, 100 numbers that were fitted on the labels of the train part (its accuracy on train and
            on a validation part cut from it is far too good), or ``"transcript"``, the words themselves as UTF-8
            bytes, from which honest features can be made.
        val: share of the official train part that becomes the validation part, as nearly as whole videos allow.
        seed: fixes the validation part.
    """
    if text not in ("features", "transcript"):
        raise ConfigError(f"mosi: unknown text={text!r}.{did_you_mean(text, ('features', 'transcript'))}")
    keys = [f"{part}_{field}" for part in ("train", "test") for field in FIELDS]
    stored = read_arrays(find_folder("mosi", folder, ["mosi.npz"]) / "mosi.npz", keys)
    both = {field: np.concatenate([stored[f"train_{field}"], stored[f"test_{field}"]]) for field in FIELDS}
    words = both["text"] if text == "features" else both["transcript"].tolist()
    data = from_arrays(
        {"text": words, "audio": both["audio"], "video": both["video"]},
        both["y"].astype(np.int64),
        ids=both["id"].tolist(),
        groups=both["video_id"].tolist(),
        task="classification",
        name="mosi",
    )
    count = len(stored["train_y"])
    rows = np.arange(len(data))
    result = data.split(indices={"train": rows[:count], "test": rows[count:]}, val=val, seed=seed)
    cautions = [
        "utterance vectors only: the frames and words in time are not in the file",
        "the video features, too, look fitted on the labels of the official train part: a linear model of video alone "
        "is right for nine in ten utterances of held-out train videos and for half of the official test part",
    ]
    if text == "features":
        cautions.insert(
            0,
            "the text features were fitted on the labels of the official train part, from which the validation part "
            "is cut: text looks far better on train and validation than on test; use text='transcript' to avoid it",
        )
    with_card(
        result,
        title="CMU-MOSI: sentiment of utterances",
        source="CMU Multimodal Opinion Sentiment Intensity, utterance features of a public repository",
        licence="research use",
        cautions=cautions,
    )
    return result
