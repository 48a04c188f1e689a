"""Makes readme.png: what ``lacunar.fit`` returns by default, scored on every subset of the embedded digits.

Run it from the root of the repository: ``python docs/figures/make_readme_figure.py``. It takes some minutes, and
seconds when it is run again: the trained model stays in ``runs/readme``.
"""

from pathlib import Path

import lacunar as lc

RATES = {"seen": 0.2, "heard": 0.5, "read": 0.8}  # fractions absent of the train and validation samples' cells


def main(figure: Path, out: Path) -> None:
    """Train, score the complete test samples on every subset, draw."""
    data = lc.datasets.load("digits").hide(RATES, seed=0)
    run = lc.fit(data, out=out)
    table = lc.evaluate(run.model, data.test, references=run.references)
    table.plot(figure)
    print(run, table, figure, sep="\n\n")


if __name__ == "__main__":
    main(Path(__file__).with_name("readme.png"), Path("runs/readme"))
