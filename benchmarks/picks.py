"""Whether the amortised estimator picks the subsets that retraining would: ``python -m benchmarks.picks``.

The reference is one table of ``retrain`` utilities over five cuts of the data. Against it stand ten repeats of
``amortised``, each from one model on a cut of its own that the reference has not seen. A repeat agrees when, at every
size, the subset it ranks first has a reference utility within one standard error of the best of that size, the
standard error being that of the best one's mean over the five cuts. Finished trainings are kept, so that the same
command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import lacunar as lc
from lacunar import datasets
from lacunar.data.dataset import MultimodalDataset
from lacunar.planning.utility_table import UtilityTable

__all__ = ["agreement", "load", "measure"]

DATA = ("mfeat:fou+zer+mor", "mfeat", "htad", "tcga_brca")
#: The cuts of the reference; those of the amortised repeats are 0, 1, ...
REFERENCE = (100, 101, 102, 103, 104)


def load(name: str) -> MultimodalDataset:
    """A data set by its name, or some modalities of it: ``mfeat:fou+zer``."""
    base, _, chosen = name.partition(":")
    data = datasets.load(base)
    assert isinstance(data, MultimodalDataset)
    return data.only(chosen.split("+")) if chosen else data


def measure(name: str, repeats: int, epochs: int, n_jobs: int, out: Path) -> tuple[UtilityTable, UtilityTable]:
    """The reference table and the table of the amortised repeats, from the folder or computed."""
    data, place = load(name), out / f"{name.replace(':', '-')}-{epochs}"
    options: dict[str, Any] = {"metric": "log_loss", "fit": {"max_epochs": epochs}, "n_jobs": n_jobs}
    quick = lc.utilities(data, estimator="amortised", seeds=list(range(repeats)), out=place / "amortised", **options)
    slow = lc.utilities(data, estimator="retrain", seeds=list(REFERENCE), out=place / "retrain", **options)
    return slow, quick


@dataclass
class Judge:
    """What a reference says of the subsets of one size.

    Attributes:
        codes: the subsets.
        mean: utility of every subset, by code.
        best: the best of the size.
        error: the standard error of its mean.
        good: those within one standard error of it.
    """

    codes: np.ndarray
    mean: np.ndarray
    best: int
    error: float
    good: set[int]

    @classmethod
    def of(cls, values: np.ndarray, codes: np.ndarray) -> Judge:
        """From utilities over several cuts, ``(cuts, 2^M)``."""
        mean = values.mean(axis=0)
        best = int(codes[np.nanargmax(mean[codes])])
        error = standard_error(values[:, best])
        return cls(codes, mean, best, error, {int(code) for code in codes if mean[best] - mean[code] <= error})

    def pick(self, values: np.ndarray) -> int:
        """The subset of the size that one row of utilities ranks first."""
        return int(self.codes[np.nanargmax(values[self.codes])])

    def lost(self, pick: int) -> float:
        """What a pick has less than the best."""
        return float(self.mean[self.best] - self.mean[pick])


def standard_error(values: np.ndarray) -> float:
    """Of the mean over cuts."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def agreement(name: str, reference: UtilityTable, repeats: UtilityTable, epochs: int) -> pd.DataFrame:
    """How often the subset that a repeat ranks first is as good as the best of its size.

    Args:
        name: of the data.
        reference: utilities over several cuts.
        repeats: one row for each repeat that is judged.
        epochs: of an ordinary training, for the record.

    Returns:
        One row per size below the full set and one, ``every``, for all of them in one repeat: how many repeats
        ``agree``, of how many; the best subset, its utility and standard error, how many subsets ``tie`` with it
        within that; how many repeats of the reference, which train 2^M - 1 models each, agree with the mean of the
        others (``reference_agrees``), which is what retraining once would reach; the reference utility that the picks
        of either have ``lost`` against the best, in the mean; and what the repeats picked. ``amortised`` is the
        amortised mean of the best subset, and in ``every`` of the full set.
    """
    lattice, values = reference.lattice, reference.values
    rows, hits, own_hits = [], [], []
    for size in range(1, lattice.M):
        codes = np.array([code for code in lattice.subsets if code.bit_count() == size])
        judge = Judge.of(values, codes)
        others = [Judge.of(np.delete(values, row, axis=0), codes) for row in range(len(values))]
        picks = [judge.pick(row) for row in repeats.values]
        own = [judge.pick(row) for row in values]
        hits.append([pick in judge.good for pick in picks])
        own_hits.append([pick in other.good for pick, other in zip(own, others, strict=True)])
        counts = pd.Series(picks).value_counts()
        rows.append({
            "data": name, "size": str(size), "agree": sum(hits[-1]), "repeats": len(picks), "subsets": len(codes),
            "tie": len(judge.good), "best": lattice.label(judge.best),
            "utility": round(float(judge.mean[judge.best]), 4), "standard_error": round(judge.error, 4),
            "amortised": round(float(repeats.mean[judge.best]), 4),
            "reference_agrees": sum(own_hits[-1]), "reference_repeats": len(own),
            "lost": round(float(np.mean([judge.lost(pick) for pick in picks])), 4),
            "reference_lost": round(
                float(np.mean([other.lost(pick) for pick, other in zip(own, others, strict=True)])), 4
            ),
            "epochs": epochs,
            "picks": ", ".join(f"{lattice.label(int(code))} ({n})" for code, n in counts.items()),
        })  # fmt: skip
    whole = {
        "data": name, "size": "every", "agree": int(np.all(hits, axis=0).sum()), "repeats": len(repeats.values),
        "subsets": 2**lattice.M - 1, "reference_agrees": int(np.all(own_hits, axis=0).sum()),
        "reference_repeats": len(reference.values), "epochs": epochs, "best": lattice.label(2**lattice.M - 1),
        "utility": round(reference.full, 4), "standard_error": round(standard_error(values[:, -1]), 4),
        "amortised": round(repeats.full, 4), "worst_addition": worst_addition(reference),
        "amortised_worst_addition": worst_addition(repeats),
    }  # fmt: skip
    return pd.DataFrame([*rows, whole])


def worst_addition(table: UtilityTable) -> str:
    """The modality that adds least to a subset, in words: below zero, more data make worse models."""
    lattice, mean = table.lattice, table.mean
    steps = [(mean[code | 1 << m] - mean[code], code, m) for code in lattice.subsets for m in range(lattice.M)
             if not code >> m & 1]  # fmt: skip
    change, code, m = min(steps)
    return f"{lattice.names[m]} to {lattice.label(code)} {change:+.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.picks", description=__doc__)
    parser.add_argument(
        "data", nargs="*", default=DATA, help=f"data sets, or some modalities of one; {', '.join(DATA)}"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder of the trainings and of picks.csv, which keeps earlier rows",
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--epochs", type=int, nargs="+", default=[20], help="of an ordinary training; one or more")
    parser.add_argument("--n-jobs", type=int, default=1)
    given = parser.parse_args()
    path = given.out / "picks.csv"
    parts = [pd.read_csv(path, dtype={"size": str}, keep_default_na=False)] if path.exists() else []
    for name, epochs in itertools.product(given.data, given.epochs):
        reference, repeats = measure(name, given.repeats, epochs, given.n_jobs, given.out)
        parts = [part[(part["data"] != name) | (part["epochs"] != epochs)] for part in parts]
        parts.append(agreement(name, reference, repeats, epochs))
        pd.concat(parts, ignore_index=True).to_csv(path, index=False)
        shown = parts[-1].drop(columns=["data", "epochs", "picks"])
        print(f"{name}, {epochs} epochs\n{shown.to_string(index=False)}\n", flush=True)


if __name__ == "__main__":
    main()
