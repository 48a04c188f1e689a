"""What a look into trained networks finds: encoders by themselves, networks of one modality, fused features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lacunar.bench.cells import Cell, load_problem
from lacunar.bench.course import CELL, trained
from lacunar.bench.references import shared_references
from lacunar.bench.store import Store
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits
from lacunar.evaluation import capability, capability_trajectory, representation_quality
from lacunar.evaluation.outputs import joint_model
from lacunar.evaluation.subsets import expert_scores
from lacunar.models.references import References

if TYPE_CHECKING:
    from lacunar.training.run import Run

__all__ = ["SNAPSHOTS", "fused", "look_into", "probed", "single_networks"]

#: Times during training at which encoders are probed.
SNAPSHOTS = 5
#: Epochs of a network of one modality where the recipe names none.
EPOCHS = 20


def look_into(run: Run, cell: Cell, data: Splits, store: Store) -> dict[str, Any]:
    """What a probed cell keeps: the capability of its encoders, beside it networks of one modality, fused features.

    Args:
        run: what ``lacunar.fit`` returned.
        cell: what was run.
        data: its splits. Final encoders are probed on test, those during training on validation.
        store: where networks of one modality are kept: all methods of a problem and seed share them.
    """
    assert data.test is not None
    final = capability(run.model, data, heads=("linear",), seeds=1).reset_index()
    during = capability_trajectory(run.snapshots, data, joint_model(run.model)).reset_index()
    during["epoch"] += 1  # snapshots count epochs from 0
    facts: dict[str, Any] = {
        "capability": dict(zip(final["modality"], final["score"].astype(float))),
        "trajectory": during[["epoch", "modality", "score"]].to_dict("records"),
        "alone": single_networks(cell, data, store),
    }
    if data.task is not None and data.task.kind == "classification":
        pooled = representation_quality(run.model, data.test).loc["all"].drop("n").astype(float)
        facts["fused"] = pooled.where(np.isfinite(pooled), None).to_dict()
    return facts


def single_networks(cell: Cell, data: Splits, store: Store) -> list[dict[str, Any]]:
    """Scores of networks of one modality, trained on the train rows that have it, and on all before any were hidden.

    The latter are the upper bounds of Figs. 8 and 9 of MCE. One record for each training and modality: ``rows``
    (``observed`` or ``complete``), ``modality``, and its mean ``test`` and ``val`` score on the rows that have it.
    """
    from lacunar.training.references import NETWORK  # brings Lightning along, and only probed cells need it

    sources = {"observed": data}
    if cell.rates:
        sources["complete"] = load_problem(replace(cell, rates={}))
    records = []
    for rows, source in sources.items():
        epochs = cell.run.get("fit", {}).get("max_epochs", EPOCHS)
        models = dict.fromkeys(source.train.names, NETWORK)
        found = shared_references(source, store, cell.seed, models=models, out_of_fold=False, max_epochs=epochs)
        means = {part: _means(found, getattr(source, part), getattr(data, part)) for part in ("test", "val")}
        records += [
            {"rows": rows, "modality": name, **{part: means[part][m] for part in means}}
            for m, name in enumerate(source.train.names)
        ]
    return records


def _means(networks: References, data: MultimodalDataset, observed: MultimodalDataset) -> list[float]:
    """Mean score of each network on the rows that have its modality in ``observed``, as probes are scored on."""
    alike = data.select(np.flatnonzero(np.isin(data.ids, observed.ids)))  # a row that lost everything is not there
    scores = np.where(observed.present.numpy(), expert_scores(networks, alike, networks.task), np.nan)
    return np.nanmean(scores, axis=0).tolist()


def probed(results: Iterable[Mapping[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Capability of the encoders at the end (on test) and during training (on validation), and networks of one
    modality: a row for each problem and seed, whatever the method that it was kept with."""
    final, during, alone = [], [], []
    for at, result in trained(results):
        final += [{**at, "modality": name, "score": score} for name, score in result.get("capability", {}).items()]
        during += [{**at, **row} for row in result.get("trajectory", [])]
        alone += [{**at, **row} for row in result.get("alone", [])]
    networks = pd.DataFrame(alone, columns=[*CELL, "rows", "modality", "test", "val"]).drop(columns="method")
    return (
        pd.DataFrame(final, columns=[*CELL, "modality", "score"]),
        pd.DataFrame(during, columns=[*CELL, "epoch", "modality", "score"]),
        networks.drop_duplicates(["problem", "seed", "rows", "modality"]),
    )


def fused(results: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """How well fused features separate the classes, all subsets of the test samples pooled, one row per cell."""
    return pd.DataFrame([{**at, **result["fused"]} for at, result in trained(results) if result.get("fused")])
