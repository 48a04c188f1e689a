"""Makes patients.csv: an invented clinic in which most patients lack some of the measurements.

Four blood values and a questionnaire that nearly everybody has, imaging scores that half of them have, and genes
that one in three has. The illness shifts every value a little; imaging and genes tell the most.
"""

from pathlib import Path

import numpy as np
import pandas as pd

N, SEED = 700, 7
SHIFT = {"blood": (4, 0.55, 0.05), "survey": (5, 0.4, 0.2), "imaging": (3, 0.9, 0.5), "genes": (6, 0.5, 0.7)}


def main(folder: Path) -> None:
    """Write the table that patients.yaml describes, and one of new patients without a diagnosis."""
    rng = np.random.default_rng(SEED)
    ill = rng.random(N) < 0.4
    table = {"patient": [f"P{i:04d}" for i in range(N)], "hospital": rng.choice(["north", "south", "west"], N)}
    table |= {"sex": rng.choice(["female", "male"], N)}
    for name, (width, shift, missing) in SHIFT.items():
        values = rng.normal(size=(N, width)) + shift * ill[:, None]
        values[rng.random(N) < missing] = np.nan
        table |= {f"{name}_{column}": np.round(values[:, column], 2) for column in range(width)}
    frame = pd.DataFrame(table | {"diagnosis": np.where(ill, "ill", "healthy")})
    features = [column for column in frame if column.split("_")[0] in SHIFT]
    new = frame.tail(20).drop(columns="diagnosis")
    new.loc[new.index[3], features] = np.nan  # a patient of whom nothing is known yet
    frame.head(N - 20).to_csv(folder / "patients.csv", index=False)
    new.to_csv(folder / "new_patients.csv", index=False)


if __name__ == "__main__":
    main(Path(__file__).parent)
