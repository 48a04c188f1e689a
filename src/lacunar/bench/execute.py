"""Running a cell: train, score the test part once, keep what came out."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import joblib
import torch
from threadpoolctl import threadpool_limits

from lacunar.bench.cells import Cell, load_problem
from lacunar.bench.course import course_of
from lacunar.bench.machine import processor
from lacunar.bench.memory import ResidentPeak
from lacunar.bench.method import make_objective
from lacunar.bench.peers import PEERS
from lacunar.bench.probing import SNAPSHOTS, look_into
from lacunar.bench.references import shared_references
from lacunar.bench.store import Store
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.evaluation import SubsetTable, evaluate
from lacunar.memory import peak_bytes
from lacunar.models.blend import Blend
from lacunar.models.defaults import default_model
from lacunar.models.multimodal import MultimodalModel
from lacunar.models.references import References
from lacunar.objectives import Objective
from lacunar.training.folder import versions
from lacunar.training.options import default_batch_size
from lacunar.training.sampler import derive_seed

__all__ = ["by_method", "limited", "prepare", "run_cell"]

#: Intervals of a comparison are over seeds and problems; those over test samples are for single tables.
BOOTSTRAP = 0


def run_cell(cell: Cell, folder: str | Path, threads: int = 1) -> dict[str, Any]:
    """Train, score the test part once, and keep the result; a cell that is there already is read back.

    Args:
        cell: what to run.
        folder: where all results are.
        threads: of this cell. The number of cells at a time changes no number; the number of threads may.

    Returns:
        The result with its configuration. Where the method refuses the data it is ``{"refused": message, ...}``.
    """
    store = Store(folder)
    if store.has(cell.key):
        return store.read(cell.key)
    with store.alone(cell.key), limited(threads):
        if not store.has(cell.key):  # another process may have been faster
            store.note(cell.key, "begun")
            about, result = _run(cell, store)
            store.write(cell.key, about, result)
            store.note(cell.key, "finished")
    return store.read(cell.key)


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """So many threads in all libraries, and no parallel work within the cell."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads), joblib.parallel_config(backend="sequential"):
            yield
    finally:
        torch.set_num_threads(before)


def _run(cell: Cell, store: Store) -> tuple[dict[str, Any], dict[str, Any]]:
    data = load_problem(cell)
    about = {
        "cell": asdict(cell),
        "data": cell.data_name,
        "presence": data.presence.hash,
        "split": data.hash,
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "machine": processor(),
    }
    start, used = time.perf_counter(), time.process_time()
    try:
        with ResidentPeak() as resident:
            table, variants, facts = _train_and_score(cell, data, store)
    except (ConfigError, DataError) as error:
        if not by_method(error):
            raise
        return about, {"refused": str(error), "seconds": time.perf_counter() - start}
    result = {
        "seconds": time.perf_counter() - start,
        "processor": time.process_time() - used,
        "resident_mb": resident.megabytes,
        **_scores(table),
        "variants": {f"{cell.method}: {name}": _scores(other) for name, other in variants.items()},
        **facts,
    }
    return about, result


def by_method(error: BaseException) -> bool:
    """Whether the method itself raised it: then it refuses the data, and nothing has failed."""
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    frame = trace.tb_frame
    where = frame.f_globals.get("__name__", "")
    own = isinstance(frame.f_locals.get("self"), Objective)  # of another package
    return own or where.startswith("lacunar.objectives.") or where == "lacunar.bench.peers"


def _scores(table: SubsetTable) -> dict[str, Any]:
    subsets = json.loads(table.frame.to_json(orient="index"))
    return {
        "score": table.score_name,
        "mean": table.mean,
        "worst": table.worst.score,
        "full": table.full,
        "subsets": subsets,
    }


def _train_and_score(
    cell: Cell, data: Splits, store: Store
) -> tuple[SubsetTable, dict[str, SubsetTable], dict[str, Any]]:
    """The table of the method, tables of its parts where it is a blend, and facts worth keeping."""
    assert data.test is not None
    plan = dict(cell.run)
    if "peer" in plan:
        if plan["peer"] not in PEERS:
            raise ConfigError(f"Unknown peer {plan['peer']!r}.{did_you_mean(plan['peer'], PEERS)}")
        clock = _Clock()
        peer = PEERS[plan["peer"]](data, cell.seed)
        facts: dict[str, Any] = clock.read()
        return evaluate(peer, data.test, bootstrap=BOOTSTRAP), {}, facts
    from lacunar.training.fit import fit  # brings Lightning along, which peers need not wait for

    objective = make_objective(plan)
    start = time.perf_counter()
    shared, model = prepare(objective, plan, data, cell.seed, store)
    waited = time.perf_counter() - start
    # Around the whole call: what a method does between epochs counts.
    clock = _Clock()
    options = {**plan.get("fit", {}), **({"snapshots": SNAPSHOTS} if plan.get("probes") else {})}
    run = fit(data, model, objective, seed=cell.seed, references=shared, progress=False, **options)
    taken = clock.read()
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
        "best_score": run.best_score,
        **taken,
        "reference_seconds": waited,
        "below_experts": list(table.below_experts.index) if shared is not None else [],
        "model": run.model.extra_repr(),
        "last_epoch": {name: value for name, value in state.items() if isinstance(value, (int, float, str))},
        "course": course_of(run),
    }
    if plan.get("probes"):
        facts |= look_into(run, cell, data, store)
    # Last: the model is of no use after it.
    facts["step_mb"] = _step_megabytes(run.objective, model, data, plan.get("fit", {}))
    return table, variants, facts


class _Clock:
    """Wall and processor seconds since it was made; the latter hold on a busy machine, too."""

    def __init__(self) -> None:
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {
            "fit_seconds": time.perf_counter() - self.wall,
            "fit_processor": time.process_time() - self.processor,
        }


def prepare(
    objective: Objective | None, plan: Mapping[str, Any], data: Splits, seed: int, store: Store
) -> tuple[References | None, MultimodalModel]:
    """The references that a method needs, or None, and the untrained model, the same for all methods of a seed."""
    shared = None
    if objective is None or objective.needs_references:
        shared = shared_references(data, store, seed, **plan.get("references", {}))
    torch.manual_seed(seed if "model" in plan else derive_seed(seed, "setup"))
    return shared, default_model(data.train, **plan.get("model", {}))


def _step_megabytes(
    objective: Objective | None, model: MultimodalModel, data: Splits, options: Mapping[str, Any]
) -> float:
    """Peak of the tensor bytes that forward and backward of one batch make and that live at once, in MB."""
    assert objective is not None
    size = min(options.get("batch_size") or default_batch_size(len(data.train)), len(data.train))
    device = next(iter(model.parameters())).device
    batch = data.train.__getitems__(range(size)).to(device)
    model.train()
    objective.train()

    def step() -> None:
        torch.stack(list(objective(model, batch).values())).sum().backward()

    return peak_bytes(step) / 2**20
