"""Writes ``docs/evidence.md`` from the results of the recipes; its words are in ``docs/evidence.template.md``.

Run the recipes first (they resume):

    python -m lacunar.bench run recipes/evidence.yaml results/evidence --n_jobs 2
    python -m lacunar.bench run recipes/table_2.yaml results/table_2 --n_jobs 2
    python -m lacunar.bench run recipes/ingredients.yaml results/ingredients --n_jobs 2
    python docs/make_evidence.py results
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pandas as pd

from lacunar.bench.store import Store
from lacunar.bench.tables import collect, comparison, markdown

HERE = Path(__file__).parent
NOT_PERCENT = ("log_loss", "seconds")
RECIPES = ("evidence", "ingredients", "table_2")


def main(folder: str) -> None:
    """Fill every ``{{table ...}}`` of the template, and keep the measured numbers beside it."""
    results = {name: collect(Path(folder) / name) for name in RECIPES if (Path(folder) / name / "cells").is_dir()}
    for name, frame in results.items():
        (HERE / "results").mkdir(exist_ok=True)
        frame.round(5).to_csv(HERE / "results" / f"{name}.csv", index=False)

    def fill(found: re.Match) -> str:
        asked = json.loads(found.group(1))
        frame = results.get(asked["recipe"], pd.DataFrame(columns=["problem", "method", "seed", "presence"]))
        frame = frame[~frame["method"].isin(asked.get("without", []))]
        wanted = [p for p in dict.fromkeys(frame["problem"]) if re.search(asked.get("problems", ""), p)]
        if "methods" in asked:
            frame = frame[frame["method"].isin(asked["methods"])]
        measure = asked.get("measure", "mean")
        table = comparison(frame, wanted, asked["against"], measure)
        if table.empty:
            return "*Not run yet: the recipe has the cells, the results do not.*"
        best = min if measure in ("log_loss", "ece", "seconds") else max
        return markdown(table, asked["against"], percent=measure not in NOT_PERCENT, best=best)

    def fact(found: re.Match) -> str:
        asked = json.loads(found.group(1))
        return last_epoch(Path(folder) / asked["recipe"], asked["methods"], asked["value"])

    text = (HERE / "evidence.template.md").read_text()
    text = re.sub(r"\{\{table (\{.*?\})\}\}", fill, text)
    text = re.sub(r"\{\{last (\{.*?\})\}\}", fact, text)
    (HERE / "evidence.md").write_text(text)


def last_epoch(folder: Path, methods: list[str], value: str) -> str:
    """A table of what the log said in the last epoch, by problem and modality: means over the seeds."""
    rows = []
    for result in Store(folder).results():
        if result["cell"]["method"] in methods:
            for name, number in result["last_epoch"].items():
                if name.startswith(f"{value}/"):
                    rows.append((result["cell"]["problem"], name.split("/", 1)[1], result["cell"]["method"], number))
    frame = pd.DataFrame(rows, columns=["problem", "modality", "method", value])
    table = frame.pivot_table(index=["problem", "modality"], columns="method", values=value, sort=False)[methods]
    lines = ["| problem | modality | " + " | ".join(methods) + " |", "|---|---|" + "---|" * len(methods)]
    for (problem, modality), row in table.iterrows():
        lines.append(f"| {problem} | {modality} | " + " | ".join(f"{number:.3f}" for number in row) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "results")
