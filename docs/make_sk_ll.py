"""Writes ``docs/sk-ll.md`` from the results of the protocol; its words are in ``docs/sk-ll.template.md``.

Run the recipes first (they resume):

    python -m lacunar.bench protocol recipes/sk_ll.yaml results/sk_ll
    python -m lacunar.bench protocol recipes/sk_ll_mult.yaml results/sk_ll
    python docs/make_sk_ll.py results/sk_ll

Rows that ``docs/results`` holds from earlier runs stay in the tables until their cells run again.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import matplotlib
import pandas as pd

from lacunar.bench.protocol import collect
from lacunar.bench.protocol_tables import TABLES

HERE = Path(__file__).parent
DIGITS = 4
CELL = ["run", "problem", "rho", "beta", "seed"]


def main(folder: str) -> None:
    """Fill every ``{{table {...}}}`` of the template, draw the figure, and keep the measured numbers beside it."""
    frames = collect(folder)
    (HERE / "results").mkdir(exist_ok=True)
    picture(frames["points"])
    frames = {name: measured(name, frame) for name, frame in frames.items() if name != "points"}

    def fill(found: re.Match) -> str:
        return TABLES[found.group(1)](frames, **json.loads(found.group(2)))

    text = (HERE / "sk-ll.template.md").read_text()
    text = re.sub(r"\{\{(\w+) (\{.*?\})\}\}(?!\})", fill, text, flags=re.S)
    (HERE / "sk-ll.md").write_text(text)


def measured(name: str, new: pd.DataFrame) -> pd.DataFrame:
    """The rows of a frame: the new ones, and those kept from earlier runs of other cells; kept again."""
    path = HERE / "results" / f"sk_ll_{name}.csv"
    if path.exists():
        kept = pd.read_csv(path, keep_default_na=False, na_values=[""])
        if len(new):
            again = pd.MultiIndex.from_frame(kept[CELL]).isin(pd.MultiIndex.from_frame(new[CELL]))
            kept = kept[~again]
        new = pd.concat([kept, new], ignore_index=True)
    if len(new):
        new.round(DIGITS).to_csv(path, index=False)
    return new


def picture(points: pd.DataFrame) -> None:
    """Real and generated features in two dimensions, for each share of owned samples (Fig. 3)."""
    if points.empty:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = list(dict.fromkeys(zip(points["run"], points["problem"])))
    shares = sorted(set(points["rho"]))
    figure, axes = pyplot.subplots(len(kinds), len(shares), figsize=(3 * len(shares), 2.8 * len(kinds)), squeeze=False)
    for row, (run, problem) in enumerate(kinds):
        for column, rho in enumerate(shares):
            axis = axes[row][column]
            part = points[(points["run"] == run) & (points["problem"] == problem) & (points["rho"] == rho)]
            for number, name in enumerate(dict.fromkeys(part["modality"])):
                for kind, marker in (("real", "o"), ("generated", "x")):
                    some = part[(part["modality"] == name) & (part["kind"] == kind)]
                    axis.scatter(some["x"], some["y"], s=9, marker=marker, color=f"C{number}", alpha=0.6, lw=0.8,
                                 label=f"{name}, {kind}")  # fmt: skip
            axis.set_xticks([])
            axis.set_yticks([])
            kind = ", with reconstruction" if "reconstructing" in run else ""
            axis.set_title(f"{problem}{kind}, {rho:.0%} owned", fontsize=8)
        axes[row][0].legend(fontsize=6, frameon=False)
    figure.tight_layout()
    (HERE / "figures").mkdir(exist_ok=True)
    figure.savefig(HERE / "figures" / "sk-ll-generated.png", dpi=110)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "results/sk_ll")
