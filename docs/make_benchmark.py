"""Writes ``docs/benchmark.md`` from the results of the recipes; its words are in ``docs/benchmark.template.md``.

Run the recipes first (they resume), then fill in the page; every number in it comes from the results:

    lacunar bench run recipes/benchmark.yaml --out results/benchmark --n_jobs 2
    lacunar bench run recipes/benchmark_six.yaml --out results/benchmark_six --n_jobs 2
    lacunar bench run recipes/benchmark_mce.yaml --out results/benchmark_mce --n_jobs 2
    lacunar bench run recipes/benchmark_long.yaml --out results/benchmark_long --n_jobs 2
    lacunar bench run recipes/capability.yaml --out results/capability --n_jobs 2
    lacunar bench run recipes/weights.yaml --out results/weights --n_jobs 2
    python docs/make_benchmark.py results
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pandas as pd

from lacunar.bench.findings import find
from lacunar.bench.recipe import read_recipe
from lacunar.bench.store import Store
from lacunar.report.bench_facts import BenchFacts
from lacunar.report.bench_page import bench_page
from lacunar.report.page import Drawing, Page, Section, Table
from lacunar.report.style import quiet

HERE = Path(__file__).parent
REPORTED = HERE.parent / "recipes" / "reported.yaml"
NOTHING = "*Not run yet: the recipe has the cells, the results do not.*"


def main(folder: str, out: Path = HERE) -> None:
    """Fill every ``{{kind {...}}}`` of the template, draw its figures, and keep the scores beside it."""

    @cache
    def facts(recipe: str, against: str | None, problems: str) -> BenchFacts | None:
        place = Path(folder) / recipe
        if not any("refused" not in result for result in Store(place).results()):
            return None
        return find(place, against, problems, REPORTED if recipe == "benchmark" else None)

    @cache
    def page(recipe: str, against: str | None, problems: str) -> Page | None:
        found = facts(recipe, against, problems)
        return None if found is None else bench_page(found)

    def asked(text: str) -> tuple[dict, tuple[str, str | None, str]]:
        given = json.loads(text)
        return given, (given["recipe"], given.get("against"), given.get("problems", ""))

    def fill(match: re.Match[str]) -> str:
        kind, (given, which) = match.group(1), asked(match.group(2))
        if kind == "coverage":
            return coverage(given["recipe"], Store(Path(folder) / given["recipe"]))
        whole = page(*which)
        if whole is None:
            return NOTHING
        if kind == "verdict":
            return whole.verdict
        section = next((one for one in whole.sections if one.anchor == given["section"]), None)
        if kind == "figure":
            return figure(section, given, out)
        return tables(section, given)

    text = re.sub(r"\{\{(\w+) (\{.*?\})\}\}", fill, (HERE / "benchmark.template.md").read_text())
    (out / "results").mkdir(parents=True, exist_ok=True)
    for path in sorted(Path(folder).glob("*/cells")):
        found = facts(path.parent.name, None, "") if path.parent.name in text_recipes() else None
        if found is not None:
            frame = found.results.drop(columns=["data"]).round(5)
            pd.DataFrame(frame).to_csv(out / "results" / f"{path.parent.name}.csv", index=False)
    (out / "benchmark.md").write_text(text)


def text_recipes() -> set[str]:
    """Names of the recipes that the template speaks of."""
    return set(re.findall(r'"recipe": "(\w+)"', (HERE / "benchmark.template.md").read_text()))


def coverage(recipe: str, store: Store) -> str:
    """How many cells of a recipe have run: one row for the problems of a data set that are equally far."""
    cells, finished = read_recipe(HERE.parent / "recipes" / f"{recipe}.yaml"), set(store.keys())
    alike: dict[tuple, list[str]] = {}
    for problem in dict.fromkeys(cell.problem for cell in cells):
        own = [cell for cell in cells if cell.problem == problem]
        runs = Counter({cell.method: 0 for cell in own})
        runs.update(cell.method for cell in own if cell.key in finished)
        seeds = len({cell.seed for cell in own})
        usual = Counter(runs.values()).most_common(1)[0][0]
        apart = ", ".join(f"{method} ({count})" for method, count in runs.items() if count != usual)
        fact = (own[0].data_name, usual, seeds, apart)
        alike.setdefault(fact, []).append(own[0].setting)
    lines = ["| data | settings | seeds | of | methods with another number |", "|---|---|---:|---:|---|"]
    for (data, *counts, apart), settings in alike.items():
        listed = "; ".join(settings) or "as they are"
        lines.append("| " + " | ".join([data, listed, *map(str, counts), apart]) + " |")
    return "\n".join(lines)


def tables(section: Section | None, given: dict) -> str:
    """The tables of a section whose captions match, in Markdown."""
    found = [
        block
        for block in (section.blocks if section else [])
        if isinstance(block, Table) and re.search(given.get("caption", ""), block.caption)
    ]
    return "\n\n".join(markdown(table) for table in found) if found else NOTHING


def markdown(table: Table) -> str:
    """A table of the page in Markdown, below its caption; what is marked as the highest is bold."""

    def shown(cell: str) -> str:
        cell = cell.replace("|", "\\|")
        return f"**{cell[:-2]}**" if cell.endswith(" *") else cell

    lines = [f"{table.caption}:", "", "| " + " | ".join(column.title for column in table.columns) + " |"]
    lines.append("|" + "".join("---:|" if column.number else "---|" for column in table.columns))
    lines += ["| " + " | ".join(map(shown, row.cells)) + " |" for row in table.rows]
    return "\n".join(lines)


def figure(section: Section | None, given: dict, out: Path) -> str:
    """The section's first figure, or the first whose words match, as a file beside the page."""
    drawings = [block for block in (section.blocks if section else []) if isinstance(block, Drawing)]
    found = next((drawing for drawing in drawings if re.search(given.get("alt", ""), drawing.alt)), None)
    if found is None:
        return NOTHING
    name = "-".join(given[key] for key in ("recipe", "section", "name") if key in given) + ".svg"
    (out / "figures").mkdir(parents=True, exist_ok=True)
    with quiet():
        found.figure.savefig(out / "figures" / name, facecolor="white", metadata={"Date": None})
    return f"![{found.alt}](figures/{name})"


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "results")
