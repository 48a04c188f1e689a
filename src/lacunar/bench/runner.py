"""Running many cells: on processes of this machine or on a Dask cluster, each once, in any order."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from lacunar.bench.cells import Cell
from lacunar.bench.execute import run_cell
from lacunar.bench.store import Store
from lacunar.bench.time_left import TimeLeft
from lacunar.errors import ConfigError, LacunarError, MissingExtraError, RunError

__all__ = ["Step", "run_cells"]

#: Workers that a cell may take with it in a run before it is left alone.
DEATHS = 2
#: What is said of a cell that another command is running.
ELSEWHERE = "run by another command"


@dataclass(frozen=True)
class Step:
    """A cell that has come to its end.

    Attributes:
        cell: which.
        done: how many of this run are over.
        total: how many this run has.
        left: seconds left, estimated; None while nothing is known.
        result: what came out; None when it failed or was left for the next run.
        problem: why there is no result.
        failed: whether that is a failure.
    """

    cell: Cell
    done: int
    total: int
    left: float | None
    result: dict[str, Any] | None = None
    problem: str = ""
    failed: bool = False

    @property
    def said(self) -> str:
        """What came out, in a line."""
        if self.result is None:
            return self.problem
        if "refused" in self.result:
            return f"refused: {self.result['refused']}"
        found = self.result
        return f"mean {found['mean']:.3f} worst {found['worst']:.3f} in {found['seconds']:.1f} s"


def run_cells(
    cells: Sequence[Cell],
    folder: str | Path,
    n_jobs: int = 1,
    cluster: str | None = None,
    threads: int = 1,
    limit: float = 0,
) -> Iterator[Step]:
    """Run the cells that are not there yet; stop at any time and call again to go on.

    Args:
        cells: what to run.
        folder: of the results. All workers of a cluster must see it under this path.
        n_jobs: cells at a time on this machine.
        cluster: ``"local:2"`` for a Dask cluster of two worker processes on this machine, or the address of a
            scheduler, such as ``"tcp://host:8786"``, whose workers have one thread each; None for processes of joblib.
        threads: of each cell. One is right for small data: cells side by side use the cores better.
        limit: begin no cell after this many seconds; 0 begins all.

    Yields:
        A :class:`Step` for each cell, in the order in which they end. A cell that fails does not take others with it.

    Raises:
        MissingExtraError: a cluster is asked for and the package for it is not there.
        RunError: a worker process on this machine died.
        ConfigError: a number of jobs or threads below 1, an address that cannot be read, or Dask workers that run
            several cells in one process.
    """
    for name, value in (("n_jobs", n_jobs), ("threads", threads)):
        if value < 1:
            raise ConfigError(f"{name}: expected a whole number of at least 1, got {value}.")
    store = Store(Path(folder).resolve())
    store.sweep()
    left, waiting = TimeLeft(cells), []
    for cell in cells:
        result = store.find(cell.key)
        if result is None:
            waiting.append(cell)
        else:
            left.ended(cell, result)
    until = time.time() + limit if limit else 0.0
    with _backend(cluster, n_jobs, threads) as (jobs, workers):
        left.workers = workers
        # One cell a task: what is lost with a worker is what it was just running.
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
        run = uuid.uuid4().hex
        done, elsewhere = 0, list[Cell]()
        try:
            # What another command is at comes last: two commands on one folder share the work.
            for wait, now in ((False, waiting), (True, elsewhere)):
                calls = (joblib.delayed(_one)(cell, str(store.path), threads, until, run, wait) for cell in now)
                for cell, result, problem, failed in parallel(calls):
                    if problem == ELSEWHERE:
                        elsewhere.append(cell)
                        continue
                    done += 1
                    left.ended(cell, result)
                    yield Step(cell, done, len(waiting), left.seconds, result, problem, failed)
        except TerminatedWorkerError as error:
            raise RunError(
                "A worker process died, as processes do when memory runs out. What is finished is kept: run again, "
                "with a smaller n_jobs."
            ) from error


def _one(
    cell: Cell, folder: str, threads: int, until: float, run: str, wait: bool = True
) -> tuple[Cell, dict[str, Any] | None, str, bool]:
    """A cell in a worker; an error comes back as text."""
    if until and time.time() > until:
        return cell, None, "left for the next run", False
    store = Store(folder)
    if not wait and store.busy(cell.key):
        return cell, None, ELSEWHERE, False
    # A cluster tries a cell again when its worker dies, and joblib waits forever for one that it has given up.
    deaths = store.taken(cell.key, run)
    if deaths >= DEATHS and not store.has(cell.key):
        return cell, None, f"failed: {deaths} workers died while they ran it, as they do when memory runs out", True
    store.note(cell.key, "taken", run=run)
    try:
        return cell, run_cell(cell, folder, threads), "", False
    except Exception as error:  # one cell that fails must not take the others with it
        store.write_failure(cell.key, traceback.format_exc())
        store.note(cell.key, "failed")
        text = str(error) if isinstance(error, LacunarError) else f"{type(error).__name__}: {error}"
        return cell, None, f"failed: {text}", True


@contextlib.contextmanager
def _backend(cluster: str | None, n_jobs: int, threads: int) -> Iterator[tuple[int, int]]:
    """Where joblib runs what follows: the ``n_jobs`` it is told, and how many cells run at a time."""
    if cluster is None:
        if n_jobs == 1:
            with joblib.parallel_config(backend="sequential"):
                yield 1, 1
            return
        # Libraries that read their number of threads when they are loaded see it in new processes.
        with joblib.parallel_config(backend="loky", inner_max_num_threads=threads):
            yield n_jobs, n_jobs
        return
    try:
        import distributed
    except ImportError as error:
        raise MissingExtraError("distributed", "cluster", "Running cells on a cluster") from error
    with contextlib.ExitStack() as stack:
        if cluster.startswith("local"):
            address: Any = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=_workers(cluster), threads_per_worker=1, processes=True, dashboard_address=None
                )
            )
        elif "://" in cluster:
            address = cluster
        else:
            raise ConfigError(
                f"cluster: expected 'local:2' (two workers here) or the address of a Dask scheduler such as "
                f"'tcp://host:8786', got {cluster!r}."
            )
        try:
            client = stack.enter_context(distributed.Client(address, timeout=20))
        except (OSError, TimeoutError) as error:
            raise ConfigError(f"cluster: no Dask scheduler answers at {cluster}.") from error
        _one_cell_a_process(client.nthreads())
        stack.enter_context(joblib.parallel_config(backend="dask", client=client))
        yield -1, max(1, sum(client.ncores().values()))


def _one_cell_a_process(threads: Mapping[str, int]) -> None:
    """Cells in threads of one process would share its random numbers, its limit of threads, its clock and memory."""
    for worker, count in threads.items():
        if count > 1:
            raise ConfigError(
                f"cluster: expected workers with one thread each, as cells share no process; {worker} has {count}. "
                "Start workers with --nthreads 1, several on a machine with --nworkers."
            )


def _workers(cluster: str) -> int:
    count = cluster.removeprefix("local").removeprefix(":") or str(os.cpu_count() or 1)
    if not count.isdigit() or int(count) < 1:
        raise ConfigError(f"cluster: expected 'local:2' for two workers, got {cluster!r}.")
    return int(count)
