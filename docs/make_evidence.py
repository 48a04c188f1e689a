"""Writes ``docs/evidence.md`` from the results of the recipes; its words are in ``docs/evidence.template.md``.

Run the recipes first (they resume; ``lacunar bench import docs/results/cells/table_2.jsonl --out results/table_2`` puts
the cells that were kept whole where they need not run again):

    python -m lacunar.bench run recipes/evidence.yaml results/evidence --n_jobs 2
    python -m lacunar.bench run recipes/table_2.yaml results/table_2 --n_jobs 2
    python -m lacunar.bench run recipes/ingredients.yaml results/ingredients --n_jobs 2
    python docs/make_evidence.py results

Rows that ``docs/results`` holds from earlier runs stay in the tables until their cells run again.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pandas as pd

from lacunar.bench.store import Store
from lacunar.bench.tables import LESS_IS_BETTER, collect, comparison, markdown

HERE = Path(__file__).parent
NOT_PERCENT = ("log_loss", "seconds")
NOTHING = "*Not run yet: the recipe has the cells, the results do not.*"
RECIPES = ("evidence", "ingredients", "table_2")


def main(folder: str) -> None:
    """Fill every ``{{table ...}}`` of the template, and keep the measured numbers beside it."""
    (HERE / "results").mkdir(exist_ok=True)
    results = {name: measured(Path(folder) / name, HERE / "results" / f"{name}.csv") for name in RECIPES}

    def fill(found: re.Match) -> str:
        asked = json.loads(found.group(1))
        frame = results[asked["recipe"]]
        frame = frame[~frame["method"].isin(asked.get("without", []))]
        wanted = [p for p in dict.fromkeys(frame["problem"]) if re.search(asked.get("problems", ""), p)]
        if "methods" in asked:
            frame = frame[frame["method"].isin(asked["methods"])]
        measure = asked.get("measure", "mean")
        table = comparison(frame, wanted, asked["against"], measure)
        if table.empty:
            return NOTHING
        best = min if measure in LESS_IS_BETTER else max
        return markdown(table, asked["against"], percent=measure not in NOT_PERCENT, best=best)

    def fact(found: re.Match) -> str:
        asked = json.loads(found.group(1))
        return last_epoch(Path(folder) / asked["recipe"], asked["methods"], asked["value"])

    text = (HERE / "evidence.template.md").read_text()
    text = re.sub(r"\{\{table (\{.*?\})\}\}", fill, text)
    text = re.sub(r"\{\{last (\{.*?\})\}\}", fact, text)
    (HERE / "evidence.md").write_text(text)


def measured(folder: Path, kept: Path) -> pd.DataFrame:
    """The rows of a recipe: those of the folder, and those kept from earlier runs of other cells; kept again."""
    frames = [pd.read_csv(kept, keep_default_na=False, na_values=[""])] if kept.exists() else []
    if Store(folder).keys():
        frames.append(collect(folder).round(5))
    keys = ["problem", "method", "seed"]
    if not frames:
        return pd.DataFrame(columns=[*keys, "presence"])
    rows = pd.concat(frames).drop_duplicates(keys, keep="last").sort_values(keys, ignore_index=True)
    rows.to_csv(kept, index=False)
    return rows


def last_epoch(folder: Path, methods: list[str], value: str) -> str:
    """A table of what the log said in the last epoch, by problem and modality: means over the seeds."""
    rows = []
    for result in Store(folder).results():
        if result["cell"]["method"] in methods:
            for name, number in result["last_epoch"].items():
                if name.startswith(f"{value}/"):
                    rows.append((result["cell"]["problem"], name.split("/", 1)[1], result["cell"]["method"], number))
    frame = pd.DataFrame(rows, columns=["problem", "modality", "method", value])
    table = frame.pivot_table(index=["problem", "modality"], columns="method", values=value, sort=False)
    table = table.reindex(columns=methods).dropna()  # problems on which all of the methods ran
    if table.empty:
        return NOTHING
    lines = ["| problem | modality | " + " | ".join(methods) + " |", "|---|---|" + "---|" * len(methods)]
    for (problem, modality), row in table.iterrows():
        lines.append(f"| {problem} | {modality} | " + " | ".join(f"{number:.3f}" for number in row) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "results")
