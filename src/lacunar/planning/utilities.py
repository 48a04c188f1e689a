"""``lacunar.utilities``: what every subset of modalities is worth, from a pilot."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import joblib
import numpy as np

from lacunar.arguments import at_least, checked
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError, DataError, LacunarError, did_you_mean
from lacunar.lattice import MAX_TABLE, Lattice
from lacunar.models.defaults import default_model
from lacunar.planning.amortised import AmortisedCell, train_amortised
from lacunar.planning.batched import BatchedCell, train_batched, wanted
from lacunar.planning.estimate_cells import AnyCell, CellPlan, Job, side_by_side
from lacunar.planning.estimate_config import asked_codes, describe_model, plain_option
from lacunar.planning.estimate_pilot import Repeat, describe_pilot, make_repeats, pilot_of
from lacunar.planning.estimate_progress import CellProgress
from lacunar.planning.estimate_scoring import check_baseline, metric_for, score_constant
from lacunar.planning.estimate_store import CellStore
from lacunar.planning.retrain import fit_options, train_cell
from lacunar.planning.utility_table import UtilityTable
from lacunar.planning.weighting import diagnose, propensities
from lacunar.training.folder import fingerprint

__all__ = ["utilities"]

logger = logging.getLogger(__name__)

OFFERED = ("retrain", "amortised")
#: Tables of more items than this leave them out; intervals then rest on the repeats alone.
MOST_ITEMS = 20_000_000


@checked
def utilities(
    data: MultimodalDataset | Splits,
    make_model: Callable[[MultimodalDataset], Any] | None = None,
    *,
    estimator: str = "retrain",
    metric: str | None = None,
    seeds: int | Sequence[int] = 5,
    folds: int = 1,
    held_out: float = 0.25,
    val: float = 0.15,
    n_jobs: int | None = 1,
    baseline: str | float = "train",
    equal_n: bool = True,
    weights: str | None = None,
    fewest: int = 10,
    subsets: Iterable[Iterable[str] | str | int] | None = None,
    fit: Mapping[str, Any] | None = None,
    batched: bool | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> UtilityTable:
    """Estimate the held-out score of every subset of modalities, u(S), and of the constant that needs none (Eq. 2).

    For each seed, and each fold of it, the pilot is cut into a train, a validation and a held-out part. Models learn
    from the first, are selected on the second and scored on the third. A test part is never read.

    Args:
        data: the pilot; of splits the train and validation parts.
        make_model: from the train samples, restricted to a subset, to a new :class:`lacunar.MultimodalModel`, a
            scikit-learn estimator, or a list of estimators of which validation selects one. Estimators get the
            modalities as the standardised columns of one table. :func:`lacunar.default_model` when left out.
        estimator: ``"retrain"`` trains a model for each subset, 2^M - 1 in each repeat: what the subset is worth to
            someone who only has that. ``"amortised"`` trains one model on all subsets in each repeat, and reads every
            subset off it: as costly as one training. How often it picks what the former picks is measured in the
            documents (benchmarks).
        metric: ``"log_loss"``, ``"brier"``, ``"accuracy"``, ``"balanced_accuracy"``, ``"f1"`` (macro), ``"r2"``,
            ``"mae"`` or ``"score"`` (the task's own); losses and errors are negated, so that higher is better. When
            left out the log-loss for classes and labels, R2 for numbers and the Dice score for label maps.
        seeds: how many hold-outs, or their seeds.
        folds: 1 for a hold-out for each seed, more for a cross-validation for each.
        held_out, val: fractions of the pilot; with folds, a fold is held out instead.
        n_jobs: models trained at a time, by joblib; None takes what ``joblib.parallel_config`` says. Inside
            ``joblib.parallel_config(backend="dask")`` the same call runs on a Dask cluster, whose workers should have
            one thread each.
        baseline: the constant of the empty subset: fitted on ``"train"`` or on the ``"evaluation"`` samples,
            ``"chance"``, or a number (A2).
        equal_n: train every subset on equally many samples that have all of it: as many as the rarest has, nested,
            drawn by seed. False trains each on everything that there is of it.
        weights: ``"inverse-probability"`` weighs held-out samples by the inverse of their chance to have the subset,
            given the target and what is always observed: right when missingness depends on these.
        fewest: train samples below which a subset gets no value but a note.
        subsets: those to estimate, as names, labels such as ``"a+b"`` or codes; all when left out.
        fit: arguments of :func:`lacunar.fit` for networks, such as ``{"max_epochs": 20}``; ``objective`` too. Unless
            it says ``select``, epochs are selected by the validation loss for log-loss and Brier, else by score. The
            amortised estimator runs three quarters of the epochs, which cost no more than an ordinary training of
            that many (see :func:`lacunar.planning.amortised.amortised_options`).
        batched: train the networks of all subsets, and of several repeats, side by side as one
            (:mod:`lacunar.planning.batched`): the same training with other draws of dropout and noise, at a fraction
            of the time for small networks of vectors. None does so for the default model on vectors up to six
            modalities; True also for other networks of which it is possible.
        out: folder that keeps each finished cell, so that the same call goes on after an interruption, and the table
            as ``table.json``.
        progress: show progress and the time left on standard error.

    Returns:
        The table; its ``notes`` say what has no value and why, and what to be careful with.

    Raises:
        ConfigError: an unknown estimator, metric or argument, a metric that does not suit the task, or
            ``batched=True`` for models that cannot be stacked.
        DataError: a pilot that cannot be cut, has one class, or a modality that is never observed.
        RunError: ``out`` holds the cells of other data or another configuration.
    """
    began = time.perf_counter()
    pilot = pilot_of(data)
    task, lattice = pilot.task, pilot.lattice
    assert task is not None
    if estimator not in OFFERED:
        raise ConfigError(f"estimator: unknown {estimator!r}.{did_you_mean(estimator, OFFERED)}")
    if weights not in (None, "inverse-probability"):
        raise ConfigError(f"weights: expected None or 'inverse-probability', got {weights!r}.")
    at_least(2, fewest=fewest)
    if lattice.M > MAX_TABLE:
        raise DataError(f"{lattice.M} modalities have 2^{lattice.M} subsets; utilities stop at {MAX_TABLE}.")
    metric = metric_for(task, metric)
    check_baseline(baseline, task)
    codes = asked_codes(lattice, subsets)
    options = fit_options(fit, metric)
    make = default_model if make_model is None else make_model
    repeats = make_repeats(pilot, seeds, folds, held_out, val)
    together = wanted(batched, estimator, repeats[0].splits.train, make, options, equal_n)
    facts = describe_pilot(pilot)
    config: dict[str, Any] = {
        "estimator": estimator,
        "metric": metric,
        "baseline": baseline,
        "seeds": [repeat.seed for repeat in repeats if repeat.fold == 0],
        "folds": int(folds),
        "held_out": held_out if folds == 1 else 1 / folds,
        "val": val,
        "equal_n": bool(equal_n) if estimator == "retrain" else None,
        "batched": together,
        "weights": weights,
        "fewest": fewest,
        "subsets": [lattice.label(code) for code in codes],
        "fit": {name: plain_option(value) for name, value in sorted(options.items())},
        "model": describe_model(make, repeats[0].splits.train),
        "data": facts,
    }
    store = CellStore(out, config)
    notes = [
        f"{sentence}{'' if weights else '. weights=inverse-probability corrects the scores'}"
        for sentence in diagnose(pilot)
    ]
    for note in notes:
        logger.warning("%s", note)
    if pilot.generated.any():
        notes.append(f"{int(pilot.generated.sum())} cells of the pilot were generated and count as observed")
    chances = propensities(pilot, codes) if weights else None
    plan = CellPlan(lattice, codes, metric, make, options, equal_n, fewest, chances)
    by_repeat = [plan.jobs(repeat, estimator) for repeat in repeats]
    builders = side_by_side(by_repeat) if together else [job for jobs in by_repeat for job in jobs]
    if not builders:
        raise DataError("utilities: no subset can be estimated. " + " ".join(plan.notes(len(repeats))))
    records, trained, before = _run(builders, store, n_jobs, progress, f"utilities, {estimator}")
    table = _assemble(lattice, repeats, records, metric, task, baseline)
    notes += plan.notes(len(repeats))
    made = UtilityTable(
        lattice.names,
        metric=metric,
        estimator=estimator,
        split_hash=fingerprint([repeat.splits.ids for repeat in repeats]),
        data_hash=facts["hash"],
        config=config,
        notes=notes,
        trainings=trained,
        seconds=time.perf_counter() - began + before,
        **table,
    )
    if store.path is not None:
        made.save(store.path / "table.json")
    return made


def _run(
    jobs: list[Job], store: CellStore, n_jobs: int | None, progress: bool, text: str
) -> tuple[dict[str, list[dict[str, Any]]], int, float]:
    """Every cell, from the folder or computed: records by key, models trained, and seconds of the former."""
    every = [key for keys, _ in jobs for key in keys]
    found = {key: cell for key in every if (cell := store.read(key)) is not None}
    before = sum(cell["seconds"] for cell in found.values())
    missing = [(keys, make) for keys, make in jobs if any(key not in found for key in keys)]

    def tasks() -> Iterator[Any]:
        for _, make in missing:
            yield joblib.delayed(_compute)(make())

    try:
        with CellProgress(text, len(jobs), len(jobs) - len(missing), progress) as shown:
            if missing:
                for cells in joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")(tasks()):
                    for cell in cells:
                        store.write(cell)
                        found[cell["key"]] = cell
                    shown.advance()
    except KeyboardInterrupt:
        kept = "nothing is kept without out=" if store.path is None else f"{len(found)} of {len(every)} are kept"
        raise KeyboardInterrupt(f"The utility table was interrupted; {kept}. Run the same call to go on.") from None
    trained = sum(cell["trained"] for cell in found.values())
    return {key: cell["subsets"] for key, cell in found.items()}, trained, before


def _compute(cell: AnyCell) -> list[dict[str, Any]]:
    try:
        if isinstance(cell, BatchedCell):
            return train_batched(cell)
        return [train_amortised(cell) if isinstance(cell, AmortisedCell) else train_cell(cell)]
    except LacunarError as error:
        error.add_note(f"This was in cell {cell.key}.")
        raise


def _assemble(
    lattice: Lattice,
    repeats: list[Repeat],
    records: dict[str, list[dict[str, Any]]],
    metric: str,
    task: Any,
    baseline: str | float,
) -> dict[str, Any]:
    """The arrays of the table."""
    size, count = 2**lattice.M, len(repeats)
    values = np.full((count, size), np.nan)
    n_train, n_eval = np.zeros((count, size), dtype=np.int64), np.zeros((count, size), dtype=np.int64)
    items: list[np.ndarray] | None = []
    if sum(len(repeat.held) for repeat in repeats) * size > MOST_ITEMS:
        items = None
    for r, repeat in enumerate(repeats):
        train, held = repeat.splits.train, repeat.held
        assert held.target is not None
        constant = score_constant(metric, task, train.target, held.target, baseline, None)
        values[r, 0], n_train[r, 0], n_eval[r, 0] = constant.value, len(train), len(held)
        table = np.full((len(held), size), np.nan, dtype=np.float32)
        table[:, 0] = constant.items
        key = f"seed{repeat.seed}-fold{repeat.fold}-"
        for record in (record for name, found in records.items() if name.startswith(key) for record in found):
            code = record["code"]
            values[r, code] = np.nan if record["value"] is None else record["value"]
            n_train[r, code], n_eval[r, code] = record["n_train"], record["n_eval"]
            if record["items"]:
                table[np.array(record["rows"]), code] = record["items"]
        if items is not None:
            items.append(table)
    groups = [repeat.held.groups for repeat in repeats]
    units = [repeat.held_rows for repeat in repeats]
    if all(group is not None for group in groups):
        labels = np.unique(np.concatenate([group for group in groups if group is not None]))
        units = [np.searchsorted(labels, group) for group in groups if group is not None]
    return {
        "values": values, "n_train": n_train, "n_eval": n_eval,
        "seeds": np.array([repeat.seed for repeat in repeats]), "folds": np.array([repeat.fold for repeat in repeats]),
        "items": items, "units": None if items is None else units,
    }  # fmt: skip
