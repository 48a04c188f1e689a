"""The paper's protocol, with the controls it lacks: arms that buy data, paired by seed, scored once on the test part.

The key subset comes from utilities inside the owned samples alone. All arms of a seed share these samples, the order
of what is bought next, initial weights, optimiser steps and validation samples.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.evaluation import SubsetTable, evaluate
from lacunar.planning.arms import Arm, Bought, buy, get_arm, owned_and_bought
from lacunar.planning.linear import linear_utilities, rehearsed_gains
from lacunar.planning.nested import NestedSubsets
from lacunar.planning.selection import select
from lacunar.planning.two_stage import Trained, Training, train_arm
from lacunar.planning.utility_table import UtilityTable

__all__ = ["PREDICTORS", "ProtocolResult", "choose_key", "predicted_gains", "run_protocol"]

#: What can be asked which subset to buy.
PREDICTORS = ("cooperation", "cooperation-full", "utility", "accuracy", "shapley", "rehearsal")

Tables = Mapping[str, UtilityTable]
Prepare = Callable[[Splits, np.ndarray], Splits]


@dataclass(frozen=True)
class ProtocolResult:
    """What one seed of the protocol found.

    Attributes:
        rows: one row per arm: ``arm``, ``title``, ``subset`` that was bought, ``score`` with everything observed
            (accuracy, or what the task scores by), further metrics, ``constant`` (the same score of the best constant
            prediction), ``labels``, ``cells`` and ``cost`` of what was bought, ``owned`` samples, ``trainings``,
            ``steps``, ``seconds``, ``unused`` parameters.
        tables: of each arm the scores of every test condition: only that subset observed, the rest completed by the
            arm's own generator.
        keys: the subset that each indicator chose.
        utilities: by metric, within the owned samples.
        predicted: of each indicator a score for every subset, shape ``(2^M,)``, NaN where it has none.
        trained: of each arm the model.
        owned: positions of the owned samples in the pool.
        pool: the prepared complete train samples.
        test: the prepared test samples.
        seconds: of the indicators (utilities and rehearsal).
    """

    rows: pd.DataFrame
    tables: dict[str, SubsetTable]
    keys: dict[str, tuple[str, ...]]
    utilities: Tables
    predicted: dict[str, np.ndarray]
    trained: dict[str, Trained]
    owned: np.ndarray
    pool: MultimodalDataset
    test: MultimodalDataset
    seconds: dict[str, float] = field(default_factory=dict)


def run_protocol(
    data: Splits,
    arms: Sequence[str | Mapping[str, Any] | Arm] = ("lower", "even", "sk-ll", "upper"),
    *,
    rho: float = 0.1,
    beta: float = 0.1,
    seed: int = 0,
    training: Training | None = None,
    indicator: str = "cooperation",
    size: int | None = None,
    prices: Mapping[str, float] | None = None,
    label: float = 0.0,
    by_group: bool = False,
    prepare: Prepare | None = None,
    make_model: Callable[[MultimodalDataset], nn.Module] | None = None,
    utilities: Tables | None = None,
    repeats: int = 1,
) -> ProtocolResult:
    """Run arms of the protocol for one seed.

    Args:
        data: the train part is the pool of N samples, of which complete ones are used; the test part is read once
            for each arm, at the end.
        arms: names of :data:`lacunar.planning.arms.ARMS`, mappings for :func:`get_arm` (which may name an
            ``indicator`` of their own), or arms.
        rho: share of the pool that is owned.
        beta: budget in cells, as a share of N.
        seed: of the pool's order, of weights, batches and completers.
        training: how every arm is trained.
        indicator: what chooses the key, one of :data:`PREDICTORS`; the paper's is ``"cooperation"``.
        size: number of modalities in the key; all but one when left out.
        prices: cost of a cell of each modality, 1 when left out.
        label: cost of a label.
        by_group: never own or buy a part of a group.
        prepare: from the parts and the owned positions to the same parts with modalities made from the owned samples
            alone, such as text features.
        make_model: another backbone, see :func:`train_arm`.
        utilities: tables with ``"log_loss"`` and ``"accuracy"`` to use; made by cross-validated linear models within
            the owned samples when left out.
        repeats: repeats of that cross-validation.

    Raises:
        ConfigError: an unknown arm, indicator or modality, or more than the pool has.
        DataError: no test part, or no complete samples.
    """
    if data.test is None:
        raise DataError("The protocol needs a test part: data.split(train=..., val=..., test=...).")
    training = training or Training()
    wanted = [_asked(arm, indicator) for arm in arms]
    doubled = [arm.name for arm, _ in wanted if [other.name for other, _ in wanted].count(arm.name) > 1]
    if doubled:
        raise ConfigError(f"arms: {doubled[0]!r} is there twice. Give one of them another name.")
    complete = data.train.present.all(1).numpy()
    if not complete.any():
        raise DataError("The protocol buys from samples that have every modality, and the train part has none.")
    data = Splits(data.train.select(complete), data.val, data.test.select(data.test.present.all(1)))
    order = NestedSubsets(data.train, seed, by_group=by_group)
    owned = order.share(rho)
    if prepare is not None:
        data = prepare(data, owned)
    assert data.test is not None
    pilot, names = data.train.select(owned), data.train.names
    began = time.process_time()
    known = utilities or linear_utilities(pilot, ("log_loss", "accuracy"), seeds=repeats)
    spent = {"utilities": time.process_time() - began}
    predicted = predicted_gains(known)
    if "rehearsal" in {name for _, name in wanted} or any(arm.subset for arm, _ in wanted):
        began = time.process_time()
        predicted["rehearsal"] = rehearsed_gains(pilot, training.completer)
        spent["rehearsal"] = time.process_time() - began
    keys = {name: choose_key(known, predicted, name, size) for name in predicted}
    strength = dict(zip(names, pilot.lattice.shapley(known["log_loss"].mean).tolist()))

    rows: list[dict[str, Any]] = []
    tables: dict[str, SubsetTable] = {}
    trained: dict[str, Trained] = {}
    finished: dict[tuple[Any, ...], str] = {}
    for arm, chooser in wanted:
        bought = buy(arm, order, names, rho, beta, keys[chooser], strength=strength, seed=seed)
        mark = (arm.completion, arm.dropout, arm.stages, bought.rows.tobytes(), bought.present.tobytes())
        if mark in finished:  # the same data trained in the same way: nothing to train again
            twin = finished[mark]
            trained[arm.name], tables[arm.name] = trained[twin], tables[twin]
        else:
            everything = owned_and_bought(data.train, owned, bought)
            trained[arm.name] = train_arm(arm, pilot, everything, data.val, training, seed, make_model)
            tables[arm.name] = evaluate(trained[arm.name].model, data.test, bootstrap=0)
            finished[mark] = arm.name
        rows.append(_row(arm, chooser, bought, tables[arm.name], trained[arm.name], len(owned), names, prices, label))
    return ProtocolResult(
        pd.DataFrame(rows), tables, keys, known, predicted, trained, owned, data.train, data.test, spent
    )  # fmt: skip


def predicted_gains(tables: Tables) -> dict[str, np.ndarray]:
    """What each indicator says of every subset, from utilities alone: shape ``(2^M,)``, NaN where it says nothing.

    ``cooperation`` is the paper's, of accuracies and divided by the subset's own gain; ``cooperation-full`` is that of
    log-likelihoods divided by one number for all, which is none; ``utility`` is the gain in log-likelihood,
    ``accuracy`` that in accuracy; ``shapley`` adds up the members' shares.
    """
    accuracy, likelihood = tables["accuracy"], tables["log_loss"]
    lattice = accuracy.lattice
    member = lattice.decode(np.arange(len(lattice))).astype(float)
    scores = {
        "cooperation": lattice.cooperation(accuracy.mean, "self", "raw"),
        "cooperation-full": lattice.cooperation(likelihood.mean, "none"),
        "utility": likelihood.mean - likelihood.mean[0],
        "accuracy": accuracy.mean - accuracy.mean[0],
        "shapley": member @ lattice.shapley(likelihood.mean),
    }
    return {name: np.asarray(values, dtype=float) for name, values in scores.items()}


def choose_key(
    tables: Tables, predicted: Mapping[str, np.ndarray], indicator: str, size: int | None = None
) -> tuple[str, ...]:
    """The subset to buy: by Algorithm 1 for ``"cooperation"``, else the best of its size.

    Args:
        tables: utilities, ``"accuracy"`` among them.
        predicted: from :func:`predicted_gains`.
        indicator: one of its keys.
        size: number of modalities; all but one when left out.

    Raises:
        ConfigError: an unknown indicator, or a size outside 1 to M.
    """
    if indicator not in predicted:
        raise ConfigError(f"indicator: unknown {indicator!r}.{did_you_mean(indicator, PREDICTORS)}")
    table = tables["accuracy"]
    lattice = table.lattice
    size = max(1, lattice.M - 1) if size is None else size
    if not 1 <= size <= lattice.M:
        raise ConfigError(f"size: expected 1 to {lattice.M} modalities, got {size}.")
    if indicator == "cooperation":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # degenerate values are the paper's affair here
            chosen = select(table, size, stop=False, on_negative="raw", draws=2)
        return tuple(name for name in lattice.names if name in chosen.subset)
    codes = [code for code in lattice.subsets if code.bit_count() == size]
    scores = np.nan_to_num(predicted[indicator][codes], nan=-np.inf)
    return lattice.subset(codes[int(scores.argmax())])


def _asked(given: str | Mapping[str, Any] | Arm, indicator: str) -> tuple[Arm, str]:
    """The arm, and what chooses its key."""
    if isinstance(given, Arm):
        return given, indicator
    fields = {"arm": given} if isinstance(given, str) else dict(given)
    chooser = fields.pop("indicator", indicator)
    if chooser not in PREDICTORS:
        raise ConfigError(f"indicator: unknown {chooser!r}.{did_you_mean(chooser, PREDICTORS)}")
    return get_arm(fields), chooser


def _row(
    arm: Arm,
    chooser: str,
    bought: Bought,
    table: SubsetTable,
    trained: Trained,
    owned: int,
    names: Sequence[str],
    prices: Mapping[str, float] | None,
    label: float,
) -> dict[str, Any]:
    full: Any = table.frame.loc[table.lattice.label(2**table.lattice.M - 1)]
    metrics = {name: float(full[name]) for name in ("balanced_accuracy", "f1", "log_loss", "mae", "r2") if name in full}
    return {
        "arm": arm.name, "title": arm.title, "indicator": chooser if arm.buys == "key" and not arm.subset else "",
        "subset": "+".join(bought.subset) or "none", "score": table.full, **metrics, "constant": table.baseline,
        "labels": bought.labels, "cells": bought.cells, "cost": bought.cost(names, prices, label), "owned": owned,
        "trainings": trained.trainings, "steps": trained.steps, "seconds": trained.seconds, "unused": trained.unused,
    }  # fmt: skip
