"""Cells run once and only once: after an interruption, in parallel, and on a cluster that loses a worker."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from lacunar.bench.cells import Cell, load_problem
from lacunar.bench.execute import run_cell
from lacunar.bench.recipe import read_recipe
from lacunar.bench.runner import run_cells
from lacunar.bench.store import Store
from lacunar.bench.time_left import TimeLeft
from lacunar.cli import main
from lacunar.errors import ConfigError, MissingExtraError, RunError

# A peer needs no Lightning, which would take the processes of these tests some seconds to import.
LATE = {"late": {"peer": "late fusion"}}
WORLD = {"dataset": "synthetic", "options": {"world": "additive", "n": 120}}


def write(path, methods=None, seeds=2, problems=None, **more):
    given = LATE if methods is None else methods
    content = {"seeds": seeds, "methods": given, "problems": problems or {"world": WORLD}}
    path.write_text(yaml.safe_dump(content | more, sort_keys=False))
    return path


def tallies(folder):
    """How often each cell was begun and finished."""
    found = {}
    for line in Store(folder).log_lines():
        cell = found.setdefault(line["cell"], {"taken": 0, "begun": 0, "finished": 0, "failed": 0})
        cell[line["what"]] += 1
    return found


def test_an_interrupted_run_goes_on_and_finished_cells_stay(tmp_path):
    cells = read_recipe(write(tmp_path / "r.yaml", seeds=3))
    steps = run_cells(cells, tmp_path / "out")
    first = next(steps)
    steps.close()
    assert (first.done, first.total) == (1, 3)
    assert first.left > 0
    before = {path: path.read_bytes() for path in (tmp_path / "out" / "cells").glob("*/result.json")}
    assert 1 <= len(before) < 3
    rest = list(run_cells(cells, tmp_path / "out"))
    assert len(rest) == 3 - len(before)
    assert rest[-1].left == 0
    assert all(path.read_bytes() == text for path, text in before.items())
    assert {key: count["begun"] for key, count in tallies(tmp_path / "out").items()} == {cell.key: 1 for cell in cells}


def test_jobs_change_no_number(tmp_path):
    cells = read_recipe(write(tmp_path / "r.yaml"))
    for jobs in (1, 2):
        assert not [step.problem for step in run_cells(cells, tmp_path / str(jobs), jobs) if step.failed]
    for cell in cells:
        one, two = (Store(tmp_path / jobs).read(cell.key) for jobs in ("1", "2"))
        assert one["subsets"] == two["subsets"]
        assert one["presence"] == two["presence"]
        assert one["threads"] == two["threads"] == 1


def test_a_cell_is_whole_or_not_there(tmp_path, monkeypatch):
    cell = read_recipe(write(tmp_path / "r.yaml", seeds=1))[0]
    store = Store(tmp_path / "out")
    monkeypatch.setattr("lacunar.bench.store.os.rename", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, store.path)
    assert store.keys() == []
    assert not store.has(cell.key)
    monkeypatch.undo()
    result = run_cell(cell, store.path)
    assert store.keys() == [cell.key]
    assert not list(store.cells.glob(".*"))
    about = json.loads((store.cells / cell.key / "cell.json").read_text())
    assert about["cell"]["run"] == {"peer": "late fusion"}
    assert about["presence"] == load_problem(cell).presence.hash
    assert about["split"] == load_problem(cell).hash
    assert {"lacunar", "torch", "numpy"} <= set(about["versions"])
    assert result["resident_mb"] is None or result["resident_mb"] > 50


def test_a_cell_that_was_copied_in_part_is_run(tmp_path):
    cell = read_recipe(write(tmp_path / "r.yaml", seeds=1))[0]
    store = Store(tmp_path / "out")
    (store.cells / cell.key).mkdir(parents=True)
    (store.cells / cell.key / "cell.json").write_text("{}")
    assert [step.failed for step in run_cells([cell], store.path)] == [False]
    assert store.read(cell.key)["cell"]["problem"] == "world"
    assert sorted(path.name for path in store.cells.rglob("*")) == sorted([cell.key, "cell.json", "result.json"])


@pytest.mark.parametrize("file", ["cell.json", "result.json"])
def test_a_damaged_cell_is_named_set_aside_and_run_again(tmp_path, file):
    cell = read_recipe(write(tmp_path / "r.yaml", seeds=1))[0]
    store = Store(tmp_path / "out")
    run_cell(cell, store.path)
    whole = store.read(cell.key)["mean"]
    (store.cells / cell.key / file).write_text('{"mean": 0.')
    with pytest.raises(RunError, match=f"{file} cannot be read.* Run the recipe again: it sets this cell aside"):
        list(store.results())
    assert [step.failed for step in run_cells([cell], store.path)] == [False]
    assert store.read(cell.key)["mean"] == whole
    (aside,) = (store.path / "damaged").iterdir()
    assert (aside / file).read_text() == '{"mean": 0.'
    assert [line["what"] for line in store.log_lines()].count("damaged") == 1


def test_results_of_one_file_each_are_read_too(tmp_path):
    old = {"cell": {"problem": "p", "method": "m", "seed": 0}, "mean": 0.5, "seconds": 1.0}
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "p-m-0-abc.json").write_text(json.dumps(old))
    assert Store(tmp_path).keys() == ["p-m-0-abc"]
    assert list(Store(tmp_path).results()) == [old]
    assert Store(tmp_path).has("p-m-0-abc")


def test_fields_that_came_later_keep_earlier_keys():
    options = {"leave_out": "theo", "audio_rate": 0.2}
    cell = Cell("avmnist, theo", "avmnist", "default", 0, options, run={"objective": "default"})
    content = {"problem": "avmnist, theo", "dataset": "avmnist", "method": "default", "seed": 0, "options": options}
    content |= {"only": [], "rates": {}, "run": {"objective": "default"}}
    mark = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    assert cell.key == f"avmnist,_theo-default-0-{mark}"
    assert Cell(**{**cell.__dict__, "setting": "a"}).key != cell.key


def test_refusals_and_failures_are_told_apart(tmp_path, capsys):
    methods = {
        "full": {"objective": "MMIN", "arguments": {"teacher": True}},
        "late": {"peer": "late fusion"},
    }
    broken = {"dataset": "synthetic", "options": {"world": "additive", "n": 120}, "rates": {"nowhere": 0.5}}
    recipe = write(tmp_path / "r.yaml", methods, 1, {"world": {**WORLD, "rates": {"m0": 0.5}}, "broken": {**broken}})
    assert main(["bench", "run", str(recipe), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "refused: MMIN needs complete training data" in said.err
    assert "failed:" in said.err and "nowhere" in said.err
    store = Store(tmp_path / "out")
    assert len(store.keys()) == 2
    assert len(list(store.failures.glob("*.txt"))) == 2
    assert [r["cell"]["method"] for r in store.results() if "refused" in r] == ["full"]
    # What is refused is finished; what failed is tried again.
    assert len([step for step in run_cells(read_recipe(recipe), tmp_path / "out")]) == 2


def test_time_left_knows_slow_methods():
    cells = [Cell("p", "digits", method, seed) for method in ("slow", "fast") for seed in range(3)]
    left = TimeLeft(cells)
    assert left.seconds is None
    left.ended(cells[0], {"seconds": 60.0})
    assert left.seconds == pytest.approx(60 * 5)
    left.ended(cells[3], {"seconds": 2.0})
    assert left.seconds == pytest.approx(2 * 60 + 2 * 2)
    left.workers = 2
    left.ended(cells[4], {"seconds": 2.0})
    assert left.seconds == pytest.approx((2 * 60 + 2) / 2)
    left.workers = 8  # three cells are open, and none is shared
    left.ended(cells[5], {"seconds": 2.0})
    assert left.seconds == pytest.approx(2 * 60 / 2)
    left.ended(cells[1], None)
    left.ended(cells[2], None)
    assert left.seconds == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--cluster nowhere", "expected 'local:2' .two workers here. or the address"),
        ("--cluster local:x", "expected 'local:2' for two workers, got 'local:x'"),
        ("--n_jobs 0", "n_jobs: expected a whole number of at least 1, got 0"),
    ],
)
def test_mistakes_are_named(tmp_path, words, message):
    cells = read_recipe(write(tmp_path / "r.yaml"))
    options = dict(zip(*[iter(words.replace("--", "").split())] * 2))
    if "n_jobs" in options:
        options["n_jobs"] = int(options["n_jobs"])
    with pytest.raises(ConfigError, match=message):
        list(run_cells(cells, tmp_path / "out", **options))


def test_workers_of_several_threads_are_refused(tmp_path):
    distributed = pytest.importorskip("distributed")
    few = {"n_workers": 1, "processes": False, "dashboard_address": None, "local_directory": tmp_path / "dask"}
    refused = pytest.raises(ConfigError, match="one thread each, .* has 2. Start workers with --nthreads 1")
    with distributed.LocalCluster(threads_per_worker=2, **few) as cluster, refused:
        list(run_cells([], tmp_path, cluster=cluster.scheduler_address))


def test_a_missing_package_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lacunar\[cluster\]'"):
        list(run_cells([], tmp_path, cluster="local:2"))


def test_a_cell_that_kills_its_workers_is_left_alone(tmp_path):
    from lacunar.bench.runner import DEATHS, _one

    cell = read_recipe(write(tmp_path / "r.yaml", seeds=1))[0]
    store = Store(tmp_path)
    for _ in range(DEATHS):  # workers that took the cell and were never heard of again
        store.note(cell.key, "taken", run="this")
    _, result, problem, failed = _one(cell, str(tmp_path), 1, 0.0, "this")
    assert result is None and failed
    assert "2 workers died" in problem
    # Another run tries again.
    _, result, problem, failed = _one(cell, str(tmp_path), 1, 0.0, "another")
    assert result is not None and not failed


def test_a_process_that_dies_is_named(tmp_path, monkeypatch):
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    def die(*given):
        raise TerminatedWorkerError("gone")

    monkeypatch.setattr("lacunar.bench.runner._one", die)
    with pytest.raises(RunError, match="A worker process died"):
        list(run_cells(read_recipe(write(tmp_path / "r.yaml", seeds=1)), tmp_path))


def test_sigterm_ends_a_run_and_its_workers(tmp_path):
    """As batch systems send it: the exit status of an interruption, a word on going on, and nobody left behind."""
    long = {"joint": {"objective": "Joint", "fit": {"max_epochs": 100_000, "experts": False}}}
    recipe, out = write(tmp_path / "r.yaml", long), tmp_path / "out"
    command = [sys.executable, "-c", "import sys; from lacunar.cli import main; sys.exit(main())"]
    command += ["bench", "run", str(recipe), "--out", str(out), "--n_jobs", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until, begun = time.monotonic() + 120, []
        while len(begun) < 2 and process.poll() is None and time.monotonic() < until:
            begun = [line["pid"] for line in Store(out).log_lines() if line["what"] == "begun"]
            time.sleep(0.05)
        process.terminate()
        said = process.communicate(timeout=60)[1]
    assert len(set(begun)) == 2, said
    assert process.returncode == 130
    assert "run the same command again to go on" in said
    until = time.monotonic() + 20
    while any(map(works, begun)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(works, begun))


def works(pid):
    """Whether a process of this machine runs; one that is over but not yet waited for has no command."""
    line = Path(f"/proc/{pid}/cmdline")
    return line.exists() and bool(line.read_bytes())


def test_a_killed_worker_loses_no_result(tmp_path):
    """Two Dask workers, one killed in the middle of a cell: every cell is finished, and finished once."""
    distributed = pytest.importorskip("distributed")
    recipe = write(tmp_path / "r.yaml", seeds=8)
    out, killed = tmp_path / "out", []

    def kill_one() -> None:
        """Kill the process that has begun a cell, once another cell is finished."""
        until = time.monotonic() + 120
        while not killed and time.monotonic() < until:
            lines = Store(out).log_lines()
            over = {line["cell"] for line in lines if line["what"] == "finished"}
            busy = [line for line in lines if line["what"] == "begun" and line["cell"] not in over]
            if over and busy and len({line["pid"] for line in lines}) == 2:
                os.kill(busy[-1]["pid"], signal.SIGKILL)
                killed.append(busy[-1])
            time.sleep(0.02)

    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=tmp_path / "dask"
    ) as cluster:
        watcher = threading.Thread(target=kill_one)
        watcher.start()
        address = cluster.scheduler_address
        assert main(["bench", "run", str(recipe), "--out", str(out), "--cluster", address]) == 0
        watcher.join()
    assert killed, "no worker was killed in the middle of a cell"
    cells = read_recipe(recipe)
    assert sorted(Store(out).keys()) == sorted(cell.key for cell in cells)
    # No finished cell was begun again; at most the one that the killed worker was at was begun twice. (The kill may
    # have come between a result and its line in the log.)
    over = set()
    for line in Store(out).log_lines():
        assert not (line["what"] == "begun" and line["cell"] in over)
        over |= {line["cell"]} if line["what"] == "finished" else set()
    counts = tallies(out)
    assert all(count["finished"] <= 1 for count in counts.values())
    twice = {cell for cell, count in counts.items() if count["begun"] > 1}
    assert twice <= {killed[0]["cell"]}
    assert sum(count["begun"] for count in counts.values()) <= len(cells) + 1


def test_what_another_command_runs_comes_last(tmp_path):
    cells = read_recipe(write(tmp_path / "r.yaml", seeds=2))
    store = Store(tmp_path / "out")
    steps = run_cells(cells, tmp_path / "out")
    with store.alone(cells[0].key):
        assert store.busy(cells[0].key) and not store.busy(cells[1].key)
        assert next(steps).cell == cells[1]
    step = next(steps)
    assert step.cell == cells[0] and step.result is not None and (step.done, step.total) == (2, 2)
    assert list(steps) == [] and not store.busy(cells[0].key)
