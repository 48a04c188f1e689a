"""One cell of a comparison: a data set, a presence setting, a method and a seed; and the scores it ends in."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from lacunar import datasets
from lacunar.bench.peers import PEERS
from lacunar.data.splits import Splits
from lacunar.datasets.synthetic import World
from lacunar.errors import ConfigError, did_you_mean
from lacunar.evaluation import SubsetTable, evaluate
from lacunar.models.blend import Blend
from lacunar.models.defaults import default_model
from lacunar.objectives import Objective, get
from lacunar.objectives.mce import MCE
from lacunar.training.fit import fit
from lacunar.training.references import references

#: Intervals of a comparison are over seeds; those over test samples are for single tables.
BOOTSTRAP = 0

__all__ = ["Cell", "load_problem", "run_cell"]


@dataclass(frozen=True)
class Cell:
    """One training and its test scores.

    Attributes:
        problem: name of the problem in tables.
        dataset: name of a data set in :mod:`lacunar.datasets`.
        options: its arguments.
        only: modalities to keep; all when empty.
        rates: missing rates in train and validation; the test part keeps what it has.
        method: name of the method in tables.
        run: what the method is: ``{"peer": name}``, or ``{"objective": class, "arguments": {...}, "model": {...},
            "fit": {...}}``; ``"objective": "default"`` is what ``lacunar.fit`` does when it is given nothing.
        seed: of split, presence and training.
    """

    problem: str
    dataset: str
    method: str
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    rates: Mapping[str, float] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """A name for the cell's file that changes with anything in the cell."""
        content = json.dumps(asdict(self), sort_keys=True)
        return (
            f"{self.problem}-{self.method}-{self.seed}".replace(" ", "_").replace("/", "_")
            + "-"
            + (hashlib.sha256(content.encode()).hexdigest()[:8])
        )


def load_problem(cell: Cell) -> Splits:
    """The cell's data: official parts where the data set has them, else 60 / 15 / 25 % by seed; then cells hidden."""
    data = datasets.load(cell.dataset, **cell.options)
    if isinstance(data, World):
        data = data.data
    if cell.only:
        data = data.only(list(cell.only))
    if not isinstance(data, Splits):
        data = data.split(train=0.6, val=0.15, test=0.25, seed=cell.seed)
    return data.hide(dict(cell.rates), seed=cell.seed) if cell.rates else data


def run_cell(cell: Cell, folder: str | Path, threads: int = 1) -> dict[str, Any]:
    """Train, score the test part once, and keep the result; a cell that is there already is read back."""
    folder = Path(folder)
    path = folder / "cells" / f"{cell.key}.json"
    if path.exists():
        return json.loads(path.read_text())
    torch.set_num_threads(threads)
    data = load_problem(cell)
    start = time.perf_counter()
    table, variants, facts = _train_and_score(cell, data, folder)
    result = {
        "cell": asdict(cell),
        "presence": data.presence.hash,
        "split": data.hash,
        "seconds": time.perf_counter() - start,
        **_scores(table),
        "variants": {f"{cell.method}: {name}": _scores(other) for name, other in variants.items()},
        **facts,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(result, indent=1))
    os.replace(partial, path)
    return result


def _scores(table: SubsetTable) -> dict[str, Any]:
    subsets = json.loads(table.frame.to_json(orient="index"))
    return {"mean": table.mean, "worst": table.worst.score, "full": table.full, "subsets": subsets}


def _train_and_score(
    cell: Cell, data: Splits, folder: Path
) -> tuple[SubsetTable, dict[str, SubsetTable], dict[str, Any]]:
    """The table of the method, tables of its parts where it is a blend, and facts worth keeping."""
    assert data.test is not None
    plan = dict(cell.run)
    if "peer" in plan:
        if plan["peer"] not in PEERS:
            raise ConfigError(f"Unknown peer {plan['peer']!r}.{did_you_mean(plan['peer'], PEERS)}")
        return evaluate(PEERS[plan["peer"]](data, cell.seed), data.test, bootstrap=BOOTSTRAP), {}, {}
    shared = references(data.train, seed=cell.seed, cache=folder / "references", **plan.get("references", {}))
    model = None
    if "model" in plan:
        torch.manual_seed(cell.seed)
        model = default_model(data.train, **plan["model"])
    run = fit(data, model, _objective(plan), seed=cell.seed, references=shared, progress=False, **plan.get("fit", {}))
    table = evaluate(run.model, data.test, bootstrap=BOOTSTRAP, references=shared)
    variants = {}
    if isinstance(run.model, Blend):
        variants["joint model alone"] = evaluate(run.model.joint, data.test, bootstrap=BOOTSTRAP)
        experts = copy.copy(run.model)
        experts.joint_weight, experts.expert_weight = 0.0, 1.0
        variants["experts alone"] = evaluate(experts, data.test, bootstrap=BOOTSTRAP)
    state = run.history.iloc[-1].to_dict()
    facts = {
        "best_epoch": run.best_epoch,
        "fit_seconds": run.seconds,
        "below_experts": list(table.below_experts.index),
        "model": run.model.extra_repr(),
        "last_epoch": {name: value for name, value in state.items() if isinstance(value, (int, float, str))},
    }
    return table, variants, facts


def _objective(plan: Mapping[str, Any]) -> Objective | None:
    name, arguments = plan.get("objective", "default"), dict(plan.get("arguments", {}))
    if name == "default":
        return None
    if name == "table_2":
        return MCE.table_2(arguments.pop("row"), **arguments)
    return get(name)(**arguments)
