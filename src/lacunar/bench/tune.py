"""Searching the hyper-parameters of methods on validation, with the same number of trials for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib

from lacunar.bench.cells import Cell, load_problem
from lacunar.bench.execute import by_method, limited, prepare
from lacunar.bench.method import arguments_of, make_objective, ranges_of
from lacunar.bench.recipe import open_recipe
from lacunar.bench.store import Store
from lacunar.bench.tuned import TUNED, keep
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError, DataError, MissingExtraError, did_you_mean
from lacunar.objectives.ranges import Between

__all__ = ["Study", "tune"]


@dataclass(frozen=True)
class Study:
    """What the search for one method on one problem and seed has found.

    Attributes:
        problem: name of the problem, its setting included.
        method: name of the method in the recipe.
        seed: of split, presence and training.
        trials: how many are finished.
        first_score: validation score of the arguments as the recipe has them, which are the first trial.
        best_score: of the best trial.
        best: its arguments.
        refused: why the method refused the data; then it has no scores, and keeps its arguments.
    """

    problem: str
    method: str
    seed: int
    trials: int = 0
    first_score: float = float("nan")
    best_score: float = float("nan")
    best: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""


def tune(
    recipe: str | Path,
    out: str | Path,
    *,
    method: str | None = None,
    problem: str | None = None,
    trials: int | None = None,
    seeds: int | None = None,
    n_jobs: int = 1,
    progress: Callable[[Study], None] | None = None,
) -> Path:
    """Search the ``ranges`` of methods with Optuna; run again to go on, or with more trials.

    A trial trains on the train part and scores ``run.best_score``, the validation mean over subsets; the test part is
    taken away before. Each seed has a study of its own: where data are split by seed, the validation part of one holds
    samples of the test part of another. The first trial is what the recipe says without its ``tuned``, so that tuning
    never chooses anything that is worse on validation.

    Args:
        recipe: a YAML file.
        out: folder: one SQLite file for each study, and ``tuned.yaml``, which a recipe takes as ``tuned:``.
        method: one method of the recipe; all that have ranges when left out.
        problem: one problem, setting included; all when left out.
        trials: of each study; what the recipe says when left out.
        seeds: tune for so many seeds, the first ones; for all of the recipe when left out.
        n_jobs: studies at a time.
        progress: called with each study as it ends.

    Returns:
        The path of ``tuned.yaml``.

    Raises:
        MissingExtraError: Optuna is not there.
        ConfigError: an unknown method or problem, a method without ranges, or more seeds than the recipe has.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("optuna", "tune", "Tuning") from error
    opened = open_recipe(recipe, with_tuned=False)
    wanted = opened.trials if trials is None else trials
    for name, value in (("trials", wanted), ("seeds", seeds), ("n_jobs", n_jobs)):
        if value is not None and value < 1:
            raise ConfigError(f"{name}: expected a whole number of at least 1, got {value}.")
    folder = Path(out).resolve()
    (folder / "studies").mkdir(parents=True, exist_ok=True)
    chosen = _chosen(opened.cells, method, problem, seeds)
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered", batch_size=1)
    calls = (joblib.delayed(_search)(cell, str(folder), wanted) for cell in chosen)
    for study in parallel(calls):
        with Store(folder).alone("tuned"):  # several commands may tune into one folder
            keep(folder / TUNED, study.problem, study.method, study.seed, study.best, study.trials)
        if progress is not None:
            progress(study)
    return folder / TUNED


def _chosen(cells: Sequence[Cell], method: str | None, problem: str | None, seeds: int | None) -> list[Cell]:
    """The cells whose methods are to be tuned."""
    methods, problems = (list(dict.fromkeys(getattr(cell, name) for cell in cells)) for name in ("method", "problem"))
    for given, known, what in ((method, methods, "method"), (problem, problems, "problem")):
        if given is not None and given not in known:
            raise ConfigError(f"Unknown {what} {given!r}.{did_you_mean(given, known)}")
    found = [
        cell
        for cell in cells
        if method in (None, cell.method) and problem in (None, cell.problem) and ranges_of(cell.run)
    ]
    if not found:
        raise ConfigError(f"{method or 'No method of the recipe'}: there are no ranges to search.")
    known_seeds = len({cell.seed for cell in found})
    if seeds is not None and seeds > known_seeds:
        raise ConfigError(f"seeds: expected at most the {known_seeds} of the recipe, got {seeds}.")
    return [cell for cell in found if seeds is None or cell.seed < seeds]


def _search(cell: Cell, folder: str, trials: int) -> Study:
    import optuna

    # What fails is raised or, where a method refuses, told in a line: Optuna need not print it, too.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    complete, waiting = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.WAITING
    store = Store(folder)
    with store.alone(f"study-{cell.key}"), limited(1):
        study = optuna.create_study(
            storage=f"sqlite:///{Path(folder) / 'studies' / f'{cell.key}.db'}",
            study_name=f"{cell.problem} | {cell.method} | {cell.seed}",
            direction="maximize",
            load_if_exists=True,
        )
        # What a killed process was at is over, and is tried again.
        searched = ranges_of(cell.run)
        given = {name: value for name, value in arguments_of(cell.run).items() if name in searched}
        open_or_done = study.get_trials(states=(complete, waiting))
        if all(trial.system_attrs.get("fixed_params") != given for trial in open_or_done):
            study.enqueue_trial(given)
        data = _without_test(load_problem(cell))
        try:
            for number in range(len(study.get_trials(states=(complete,))), trials):
                # The sampler's draws depend on the trial's number alone, so that a search that goes on repeats none.
                study.sampler = optuna.samplers.TPESampler(seed=number)
                study.optimize(lambda trial: _validate(cell, trial, data, store), n_trials=1)
        except (ConfigError, DataError) as error:
            if not by_method(error):
                raise
            return Study(cell.problem, cell.method, cell.seed, refused=str(error))
        done = study.get_trials(states=(complete,))
        first = min(done, key=lambda trial: trial.number)
        assert first.value is not None
        scores = first.value, study.best_value
        return Study(cell.problem, cell.method, cell.seed, len(done), *scores, study.best_params)


def _without_test(data: Splits) -> Splits:
    return Splits(data.train, data.val, None)


def _validate(cell: Cell, trial: Any, data: Splits, store: Store) -> float:
    from lacunar.training.fit import fit

    arguments = dict(cell.run.get("arguments") or {})
    for name, span in ranges_of(cell.run).items():
        if isinstance(span, Between):
            arguments[name] = trial.suggest_float(name, span.low, span.high, log=span.log)
        else:
            arguments[name] = trial.suggest_categorical(name, span.values)
    plan = {**cell.run, "arguments": arguments}
    objective = make_objective(plan)
    shared, model = prepare(objective, plan, data, cell.seed, store)
    run = fit(
        data, model, objective, seed=cell.seed, references=shared, progress=False,
        **{**plan.get("fit", {}), "experts": False},
    )  # fmt: skip
    return run.best_score
