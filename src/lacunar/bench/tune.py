"""Searching the hyper-parameters of methods on validation, with the same number of trials for each."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import yaml

from lacunar.bench.cells import Cell, load_problem
from lacunar.bench.execute import limited, make_objective, prepare
from lacunar.bench.recipe import open_recipe
from lacunar.bench.store import Store
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError, MissingExtraError, did_you_mean
from lacunar.objectives import get
from lacunar.objectives.ranges import Between, Ranges
from lacunar.training.files import write_whole

__all__ = ["Study", "tune"]

TUNED = "tuned.yaml"


@dataclass(frozen=True)
class Study:
    """What the search for one method on one problem has found.

    Attributes:
        problem: name of the problem, its setting included.
        method: name of the method in the recipe.
        trials: how many are finished.
        first_score: validation score of the arguments as the recipe has them, which are the first trial.
        best_score: of the best trial.
        best: its arguments.
    """

    problem: str
    method: str
    trials: int
    first_score: float
    best_score: float
    best: Mapping[str, Any]


def tune(
    recipe: str | Path,
    out: str | Path,
    *,
    method: str | None = None,
    problem: str | None = None,
    trials: int | None = None,
    seeds: int = 1,
    n_jobs: int = 1,
    progress: Callable[[Study], None] | None = None,
) -> Path:
    """Search the ``ranges`` of methods with Optuna; run again to go on, or with more trials.

    A trial trains on the train part and scores ``run.best_score``, the validation mean over subsets, averaged over
    seeds; the test part is taken away before. The first trial is what the recipe says, so that tuning never chooses
    anything that is worse on validation.

    Args:
        recipe: a YAML file.
        out: folder: one SQLite file for each study, and ``tuned.yaml``, which a recipe takes as ``tuned:``.
        method: one method of the recipe; all that have ranges when left out.
        problem: one problem, setting included; all when left out.
        trials: of each study; what the recipe says when left out.
        seeds: how many a trial is averaged over.
        n_jobs: studies at a time.
        progress: called with each study as it ends.

    Returns:
        The path of ``tuned.yaml``.

    Raises:
        MissingExtraError: Optuna is not there.
        ConfigError: an unknown method or problem, or a method without ranges.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("optuna", "tune", "Tuning") from error
    opened = open_recipe(recipe)
    wanted = opened.trials if trials is None else trials
    for name, value in (("trials", wanted), ("seeds", seeds), ("n_jobs", n_jobs)):
        if value < 1:
            raise ConfigError(f"{name}: expected a whole number of at least 1, got {value}.")
    folder = Path(out).resolve()
    (folder / "studies").mkdir(parents=True, exist_ok=True)
    chosen = _chosen(opened.cells, method, problem)
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered", batch_size=1)
    calls = (joblib.delayed(_search)(cell, str(folder), wanted, seeds) for cell in chosen)
    for study in parallel(calls):
        _keep(folder, study)
        if progress is not None:
            progress(study)
    return folder / TUNED


def _chosen(cells: Sequence[Cell], method: str | None, problem: str | None) -> list[Cell]:
    """One cell for each problem and method that is to be tuned."""
    methods, problems = (list(dict.fromkeys(getattr(cell, name) for cell in cells)) for name in ("method", "problem"))
    for given, known, what in ((method, methods, "method"), (problem, problems, "problem")):
        if given is not None and given not in known:
            raise ConfigError(f"Unknown {what} {given!r}.{did_you_mean(given, known)}")
    first = {(cell.problem, cell.method): cell for cell in reversed(cells)}
    found = [
        cell
        for (where, name), cell in first.items()
        if method in (None, name) and problem in (None, where) and ranges_of(cell)
    ]
    if not found:
        raise ConfigError(f"{method or 'No method of the recipe'}: there are no ranges to search.")
    return sorted(found, key=lambda cell: (problems.index(cell.problem), methods.index(cell.method)))


def ranges_of(cell: Cell) -> Ranges:
    """What may be searched of a cell's method."""
    name = cell.run.get("objective", "default")
    if "peer" in cell.run or name in ("default", "table_2"):
        return {}
    return get(name).ranges


def _search(cell: Cell, folder: str, trials: int, seeds: int) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    store = Store(folder)
    with store.alone(f"study-{_mark(cell, seeds)}"), limited(1):
        storage = f"sqlite:///{Path(folder) / 'studies' / f'{_mark(cell, seeds)}.db'}"
        study = optuna.create_study(
            storage=storage, study_name=f"{cell.problem} | {cell.method}", direction="maximize", load_if_exists=True
        )
        # What a killed process was at is over, and is tried again.
        done = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
        if not done:
            study.enqueue_trial(_as_given(cell), skip_if_exists=True)
        data = [_without_test(load_problem(replace(cell, seed=seed))) for seed in range(seeds)]
        for number in range(len(done), trials):
            # The sampler's draws depend on the number of the trial alone, so that a search that goes on repeats none.
            study.sampler = optuna.samplers.TPESampler(seed=number)
            study.optimize(lambda trial: _validate(cell, trial, data, store), n_trials=1)
        done = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
        first = min(done, key=lambda trial: trial.number)
        assert first.value is not None
        return Study(cell.problem, cell.method, len(done), first.value, study.best_value, study.best_params)


def _mark(cell: Cell, seeds: int) -> str:
    """A name for the study that changes with anything in the cell but its seed."""
    whole = json.dumps([replace(cell, seed=0).key, seeds])
    return f"{cell.problem}-{cell.method}".replace(" ", "_").replace("/", "_") + (
        "-" + hashlib.sha256(whole.encode()).hexdigest()[:8]
    )


def _as_given(cell: Cell) -> dict[str, Any]:
    """The searched arguments as the recipe or the method's defaults have them, brought into their range."""
    given = dict(cell.run.get("arguments") or {})
    defaults = inspect.signature(get(cell.run["objective"])).parameters
    values = {}
    for name, span in ranges_of(cell).items():
        value = given.get(name, defaults[name].default)
        values[name] = min(max(value, span.low), span.high) if isinstance(span, Between) else value
    return values


def _without_test(data: Splits) -> Splits:
    return Splits(data.train, data.val, None)


def _validate(cell: Cell, trial: Any, data: Sequence[Splits], store: Store) -> float:
    from lacunar.training.fit import fit

    arguments = dict(cell.run.get("arguments") or {})
    for name, span in ranges_of(cell).items():
        if isinstance(span, Between):
            arguments[name] = trial.suggest_float(name, span.low, span.high, log=span.log)
        else:
            arguments[name] = trial.suggest_categorical(name, span.values)
    plan = {**cell.run, "arguments": arguments}
    scores = []
    for seed, parts in enumerate(data):
        objective = make_objective(plan)
        shared, model = prepare(objective, plan, parts, seed, store)
        run = fit(
            parts, model, objective, seed=seed, references=shared, progress=False,
            **{**plan.get("fit", {}), "experts": False},
        )  # fmt: skip
        scores.append(run.best_score)
    return sum(scores) / len(scores)


def _keep(folder: Path, study: Study) -> None:
    path = folder / TUNED
    content = (yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None) or {"problems": {}}
    content["problems"].setdefault(study.problem, {})[study.method] = dict(study.best)
    text = "# Written by 'lacunar bench tune'; a recipe takes it as tuned: PATH.\n" + yaml.safe_dump(content)
    write_whole(path, lambda file: file.write(text.encode()))
