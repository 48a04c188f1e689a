"""Vectors from transcripts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lacunar.data.arrays import from_arrays
from lacunar.datasets._text import text_vectors


def test_vectors_know_how_the_cells_were_hidden():
    words = [f"it was {'good fun' if n % 2 else 'bad luck'} number {n % 5}" for n in range(60)]
    parts = from_arrays({"text": words, "sound": np.ones((60, 2))}, np.arange(60) % 2).split()
    hidden = parts.hide({"text": 0.4, "sound": 0.4}, seed=3)
    made = text_vectors(hidden, size=3)
    assert (made.presence.law, made.presence.seed, made.presence.empty) == ("independent", 3, hidden.presence.empty)
    assert made.presence.asked == hidden.presence.asked
    pd.testing.assert_frame_equal(made.presence.realised, hidden.presence.realised)
    left = np.concatenate([part.ids for part in made.parts.values()])
    assert hidden.presence.empty > 0
    assert made.presence.ids.tolist() == left.tolist()  # the table is of the samples that are left: its hash is kept
