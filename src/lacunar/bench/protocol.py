"""The paper's protocol over data sets, shares, budgets and seeds: cells that can be interrupted, one JSON file each."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from lacunar import datasets
from lacunar.bench.checks import found_in, mapping, names, of_known, whole_number
from lacunar.bench.generated import compare_generated
from lacunar.bench.pilot import pilot_rows
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.plain_yaml import read_yaml
from lacunar.data.splits import Splits
from lacunar.datasets.synthetic import World
from lacunar.errors import ConfigError
from lacunar.planning.linear import linear_utilities
from lacunar.planning.nested import NestedSubsets
from lacunar.planning.protocol import ProtocolResult, run_protocol
from lacunar.planning.two_stage import Training
from lacunar.training.files import read_json, write_json

__all__ = ["KINDS", "ProtocolCell", "collect", "load_parts", "protocol", "read_protocol_recipe", "run_protocol_cell"]

#: What a cell can be: the arms of one setting; indicators on small pilots; generated beside real features.
KINDS = ("arms", "pilot", "generated")
_OPTIONS = ("arms", "indicator", "sizes", "draws", "prices", "label")
_RUN = ("kind", "training", "problems", "settings", "seeds", *_OPTIONS)
_PROBLEM = ("dataset", "options", "only", "part", "text", "groups", "by_group", "prices", "label")


@dataclass(frozen=True)
class ProtocolCell:
    """One problem, setting and seed of a run of the recipe.

    Attributes:
        run: name of the run.
        problem: name of the problem.
        facts: of the problem: ``dataset``, its ``options``, modalities to keep (``only``), the official ``part`` that
            is taken for the whole (``"test"`` where features were fitted on the labels of the others), ``text`` to
            rebuild from the owned samples, and ``groups`` to report by.
        seed: of split, order, weights and batches.
        rho, beta: share of the pool that is owned, and the budget in cells as a share of the pool.
        kind: one of :data:`KINDS`.
        training: settings of :class:`Training`.
        options: of the run: ``arms``, ``indicator``, ``sizes`` and ``draws`` of pilots.
    """

    run: str
    problem: str
    facts: Mapping[str, Any]
    seed: int
    rho: float = 0.0
    beta: float = 0.0
    kind: str = "arms"
    training: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """A name for the cell's file that changes with anything in the cell."""
        content = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.run}-{self.problem}-{self.rho:g}-{self.beta:g}-{self.seed}-{content}".replace(" ", "_")


def read_protocol_recipe(path: str | Path) -> list[ProtocolCell]:
    """The cells of a recipe, seed by seed, so that what is there early is comparable.

    Raises:
        ConfigError: an unknown key, problem or training.
    """
    recipe = mapping(read_yaml(path, "Recipe"), str(path), ("problems", "trainings", "runs"))
    for key in ("problems", "trainings", "runs"):
        if not mapping(recipe.get(key), f"{path}, {key}"):
            raise ConfigError(f"{path}: expected {key}, a mapping from names to what they are.")
    cells = list(_cells(recipe, str(path)))
    return sorted(cells, key=lambda cell: cell.seed)


def _cells(recipe: Mapping[str, Any], path: str) -> Iterator[ProtocolCell]:
    for run, given in recipe["runs"].items():
        where = f"{path}, run {run!r}"
        asked = mapping(given, where, _RUN)
        for key in ("training", "problems"):
            if not asked.get(key):
                raise ConfigError(f"{where}: expected {key}.")
        kind = asked.get("kind", "arms")
        of_known([kind], KINDS, where, "kind")
        of_known([asked["training"]], recipe["trainings"], where, "training")
        problems = names(asked["problems"], f"{where}, problems")
        of_known(problems, recipe["problems"], where, "problem")
        seeds = whole_number(asked.get("seeds", 5), f"{where}, seeds")
        settings = list(_settings(asked.get("settings", [{"rho": [0.0], "beta": [0.0]}]), f"{where}, settings"))
        options = {key: asked[key] for key in _OPTIONS if key in asked}
        for problem in problems:
            facts = mapping(recipe["problems"][problem], f"{path}, problem {problem!r}", _PROBLEM)
            for seed, (rho, beta) in itertools.product(range(seeds), settings):
                training = recipe["trainings"][asked["training"]]
                yield ProtocolCell(run, problem, facts, seed, rho, beta, kind, training, options)


def _settings(given: Any, where: str) -> Iterator[tuple[float, float]]:
    """Shares and budgets, every pair of each block."""
    for block in given if isinstance(given, list) else [given]:
        lists: list[Any] = [mapping(block, where, ("rho", "beta")).get(name) for name in ("rho", "beta")]
        if not all(isinstance(values, list) and values for values in lists):
            example = "{rho: [0.1], beta: [0.3]}"
            raise ConfigError(f"{where}: expected lists rho and beta, such as {example}, got {block!r}.")
        yield from itertools.product(*lists)


@lru_cache(maxsize=8)
def _loaded(facts: str) -> Any:
    """The data of a problem, read once by each process."""
    given = json.loads(facts)
    data = datasets.load(given["dataset"], **given.get("options", {}))
    return data.data if isinstance(data, World) else data


@lru_cache(maxsize=16)
def _parts(facts: str, seed: int) -> Splits:
    given, data = json.loads(facts), _loaded(facts)
    if given.get("part"):
        data = data.parts[given["part"]]
    if given.get("only"):
        data = data.only(list(given["only"]))
    return data if isinstance(data, Splits) else data.split(train=0.6, val=0.15, test=0.25, seed=seed)


def load_parts(cell: ProtocolCell) -> Splits:
    """Official parts where the data set has them and none is taken for the whole, else 60 / 15 / 25 % by seed."""
    return _parts(json.dumps(cell.facts, sort_keys=True), cell.seed)


def _prepared(data: Splits, rows: np.ndarray, text: Mapping[str, Any]) -> Splits:
    from lacunar.datasets._text import text_vectors

    return text_vectors(data, rows=rows, **text)


def run_protocol_cell(cell: ProtocolCell, folder: str | Path) -> dict[str, Any]:
    """Run a cell and keep what it found; a cell that is there already is read back."""
    path = Path(folder) / "cells" / f"{cell.key}.json"
    if path.exists():
        return read_json(path)
    torch.set_num_threads(1)
    began, used = time.perf_counter(), time.process_time()
    data = load_parts(cell)
    found = _pilot(cell, data) if cell.kind == "pilot" else _arms(cell, data)
    result = {
        "cell": asdict(cell),
        "split": data.hash,
        "seconds": time.perf_counter() - began,
        "processor": time.process_time() - used,
        **found,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    return result


def _pilot(cell: ProtocolCell, data: Splits) -> dict[str, Any]:
    text = cell.facts.get("text")
    whole = data.train.select(data.train.present.all(1))
    if text:
        whole = _prepared(data, np.arange(len(data.train)), text).train.select(data.train.present.all(1))
    sizes, draws = cell.options.get("sizes", (50, 100, 200, 400, 800)), cell.options.get("draws", 10)
    return {"pilot": pilot_rows(whole, sizes, draws, cell.seed)}


@lru_cache(maxsize=32)
def _shared_utilities(facts: str, seed: int, rho: float) -> Any:
    """Utilities of the owned samples, which do not depend on what is bought."""
    given, data = json.loads(facts), _parts(facts, seed)
    pool = data.train.select(data.train.present.all(1))
    rows = NestedSubsets(pool, seed, by_group=given.get("by_group", False)).share(rho)
    if given.get("text"):
        complete = Splits(pool, data.val, data.test)
        pool = _prepared(complete, rows, given["text"]).train
    return linear_utilities(pool.select(rows), ("log_loss", "accuracy"))


def _arms(cell: ProtocolCell, data: Splits) -> dict[str, Any]:
    facts, options = cell.facts, cell.options
    arms = _arm_list(options.get("arms", ("lower", "even", "sk-ll", "upper")), data.names)
    utilities = _shared_utilities(json.dumps(facts, sort_keys=True), cell.seed, cell.rho)
    result = run_protocol(
        data,
        arms,
        rho=cell.rho,
        beta=cell.beta,
        seed=cell.seed,
        training=Training.read(cell.training),
        indicator=options.get("indicator", "cooperation"),
        by_group=facts.get("by_group", False),
        prepare=partial(_prepared, text=facts["text"]) if facts.get("text") else None,
        prices=options.get("prices", facts.get("prices")),
        label=options.get("label", facts.get("label", 0.0)),
        utilities=utilities,
    )
    found = _content(result, facts.get("groups", {}))
    found["seconds_of"] = {**result.seconds, "utilities": utilities["log_loss"].seconds}
    if cell.kind == "generated":
        found["generated"] = {arm: compare_generated(result, arm, cell.seed) for arm in result.trained}
    return found


def _arm_list(asked: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """The arms with ``every subset`` written out: SK-LL with each proper subset as its key."""
    arms: list[Any] = []
    for one in asked:
        if one == "every subset":
            for size in range(1, len(names)):
                for subset in itertools.combinations(names, size):
                    arms.append({"arm": "sk-ll", "name": "+".join(subset), "subset": list(subset)})
        else:
            arms.append(one)
    return arms


def _content(result: ProtocolResult, groups: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a result, as plain data."""
    lattice = next(iter(result.tables.values())).lattice
    labels = [lattice.label(code) for code in range(len(lattice))]
    kept = ("score", "balanced_accuracy", "f1", "log_loss")
    tables = {
        arm: json.loads(table.frame[[c for c in kept if c in table.frame]].to_json(orient="index"))
        for arm, table in result.tables.items()
    }
    found = {
        "rows": json.loads(result.rows.to_json(orient="records")),
        "subsets": tables,
        "keys": {name: "+".join(key) for name, key in result.keys.items()},
        "predicted": {name: dict(zip(labels, _plain(values))) for name, values in result.predicted.items()},
        "utilities": {metric: dict(zip(labels, _plain(table.mean))) for metric, table in result.utilities.items()},
        "indicator_trainings": next(iter(result.utilities.values())).trainings,
    }
    if groups:
        found["groups"] = _by_group(result, groups)
    return found


def _by_group(result: ProtocolResult, groups: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Score of each arm, with everything observed, within each group of the test samples."""
    rows = []
    for attribute, rule in groups.items():
        values = _column(result.test, rule["modality"], rule["column"])
        above = values > rule["cut"]
        for value, chosen in zip(rule["names"], (~above, above)):
            for arm, table in result.tables.items():
                full = table.scores[:, table.codes.index(2**table.lattice.M - 1)]
                score = float(full[chosen].mean()) if chosen.any() else None
                rows.append(
                    {"arm": arm, "attribute": attribute, "value": value, "n": int(chosen.sum()), "score": score}
                )
    return rows


def _column(data: MultimodalDataset, modality: str, column: int) -> np.ndarray:
    batch = data.__getitems__(range(len(data)))
    return batch.dense(float("nan"))[modality][:, column].numpy()


def _plain(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def protocol(recipe: Path, out: Path, n_jobs: int = 1, only: str = "", limit: int = 0) -> None:
    """Run the cells of a protocol recipe that are not there yet; interrupt and run again at will.

    Args:
        recipe: a YAML file with problems, trainings and runs.
        out: folder of the results.
        n_jobs: cells at a time, each on one thread.
        only: run cells whose ``run | problem`` holds this text or regular expression.
        limit: stop after this many seconds have begun their last cells; 0 runs everything.
    """
    everything = read_protocol_recipe(recipe)
    chosen = found_in([f"{cell.run} | {cell.problem}" for cell in everything], only, "only")
    cells = list(itertools.compress(everything, chosen))
    waiting = [cell for cell in cells if not (out / "cells" / f"{cell.key}.json").exists()]
    start = time.monotonic()
    print(f"{len(cells)} cells, {len(cells) - len(waiting)} finished before", file=sys.stderr, flush=True)

    def one(cell: ProtocolCell) -> tuple[ProtocolCell, str]:
        if limit and time.monotonic() - start > limit:
            return cell, "left for the next run"
        try:
            return cell, f"{run_protocol_cell(cell, out)['processor']:.1f} s"
        except Exception as error:  # one cell that fails must not take the others with it
            return cell, f"failed: {type(error).__name__}: {error}"

    failed = 0
    for done, (cell, said) in enumerate(
        Parallel(n_jobs=n_jobs, return_as="generator_unordered")(delayed(one)(cell) for cell in waiting), 1
    ):
        failed += said.startswith("failed")
        left = (time.monotonic() - start) / done * (len(waiting) - done) / 60
        where = f"{cell.run} | {cell.problem} | rho {cell.rho:g} beta {cell.beta:g} | {cell.seed}"
        print(f"[{done}/{len(waiting)}, {left:.0f} min left] {where}: {said}", file=sys.stderr, flush=True)
    if failed:
        sys.exit(f"{failed} cells failed; run the recipe again to try them once more")


def collect(folder: str | Path) -> dict[str, pd.DataFrame]:
    """The finished cells as frames: ``rows``, ``conditions``, ``indicators``, ``groups``, ``pilot``, ``generated``."""
    frames: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("rows", "conditions", "indicators", "groups", "pilot", "generated", "points", "costs")
    }
    for path in sorted((Path(folder) / "cells").glob("*.json")):
        result = read_json(path)
        cell = result["cell"]
        at = {key: cell[key] for key in ("run", "problem", "rho", "beta", "seed")}
        frames["pilot"] += [{**at, **row} for row in result.get("pilot", [])]
        for arm, content in result.get("generated", {}).items():
            frames["generated"] += [{**at, "arm": arm, **row} for row in content["numbers"]]
            frames["points"] += [{**at, "arm": arm, **row} for row in content["points"]]
        if "rows" not in result:
            continue
        frames["rows"] += [{**at, **row} for row in result["rows"]]
        frames["groups"] += [{**at, **row} for row in result.get("groups", [])]
        realised = {row["arm"]: row["score"] for row in result["rows"]}
        realised_loss = {row["arm"]: row.get("log_loss") for row in result["rows"]}
        for arm, table in result["subsets"].items():
            frames["conditions"] += [{**at, "arm": arm, "subset": s, "score": v["score"]} for s, v in table.items()]
        for name, values in result["predicted"].items():
            for subset, value in values.items():
                frames["indicators"].append(
                    {
                        **at, "indicator": name, "subset": subset, "value": value,
                        "chosen": result["keys"].get(name) == subset,
                        "accuracy": result["utilities"]["accuracy"][subset],
                        "realised": realised.get(subset), "realised_log_loss": realised_loss.get(subset),
                    }
                )  # fmt: skip
        spent = {f"seconds {name}": value for name, value in result["seconds_of"].items()}
        frames["costs"].append(
            {
                **at,
                "training": cell["training"].get("backbone"),
                "indicator_trainings": result["indicator_trainings"],
                **spent,
            }
        )
    return {name: pd.DataFrame(rows) for name, rows in frames.items()}
