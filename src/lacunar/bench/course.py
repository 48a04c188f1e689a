"""What the cells of a comparison say of how training went, as frames: weights of modalities, losses, capability."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from lacunar.bench.tables import data_name

__all__ = ["FACTORS", "courses", "describe_training", "factors", "probed"]

#: What objectives log of each modality: rarity, lag, score alone, Shapley contribution.
FACTORS = ("A", "B", "upper", "phi")
#: Times during training at which encoders are probed.
SNAPSHOTS = 5
_CELL = ("problem", "data", "setting", "method", "seed")


def describe_training(run: Any, data: Any, probes: bool) -> dict[str, Any]:
    """What a cell keeps of its training: the losses of each epoch, and with ``probes`` the capability of its encoders.

    Args:
        run: what ``lacunar.fit`` returned.
        data: its splits. Final encoders are probed on test, those during training on validation.
        probes: whether to probe.
    """
    columns = [name for name in ("loss", "val/loss", "val/score") if name in run.history]
    course = run.history[columns].round(6).astype(object)
    # An epoch without validation has no number, and JSON no NaN.
    facts: dict[str, Any] = {"course": course.where(course.notna(), None).to_dict("list")}
    if probes:
        from lacunar.evaluation import capability, capability_trajectory
        from lacunar.evaluation.outputs import joint_model

        final = capability(run.model, data, heads=("linear",), seeds=1).reset_index()
        during = capability_trajectory(run.snapshots, data, joint_model(run.model)).reset_index()
        facts["capability"] = dict(zip(final["modality"], final["score"].astype(float)))
        during["epoch"] += 1  # snapshots count epochs from 0
        facts["trajectory"] = during[["epoch", "modality", "score"]].to_dict("records")
    return facts


def factors(results: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A, B, U and phi of each modality in the last epoch, with its missing rate in train, where a method logs them.

    One row per cell and modality: ``rate`` and the names in :data:`FACTORS`; NaN where one is not logged.
    """
    rows = []
    for at, result in _trained(results):
        logged = result.get("last_epoch", {})
        for name in dict.fromkeys(key.split("/", 1)[1] for key in logged if key.startswith(("A/", "B/"))):
            values = {factor: logged.get(f"{factor}/{name}") for factor in FACTORS}
            rows.append({**at, "modality": name, "rate": result["cell"]["rates"].get(name), **values})
    frame = pd.DataFrame(rows, columns=[*_CELL, "modality", "rate", *FACTORS])
    return frame.astype({name: float for name in ("rate", *FACTORS)})


def courses(results: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per cell and epoch: the loss in training, and loss and score on validation where it was scored."""
    parts = []
    for at, result in _trained(results):
        if result.get("course"):
            part = pd.DataFrame(result["course"]).rename(columns=lambda name: name.replace("/", "_"))
            parts.append(part.assign(epoch=range(1, len(part) + 1), **at))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*_CELL, "epoch", "loss"])


def probed(results: Iterable[Mapping[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Capability of the encoders at the end (on test) and during training (on validation), where cells were probed."""
    final, during = [], []
    for at, result in _trained(results):
        final += [{**at, "modality": name, "score": score} for name, score in result.get("capability", {}).items()]
        during += [{**at, **row} for row in result.get("trajectory", [])]
    return (
        pd.DataFrame(final, columns=[*_CELL, "modality", "score"]),
        pd.DataFrame(during, columns=[*_CELL, "epoch", "modality", "score"]),
    )


def _trained(results: Iterable[Mapping[str, Any]]) -> Iterator[tuple[dict[str, Any], Mapping[str, Any]]]:
    for result in results:
        if "refused" not in result:
            cell = result["cell"]
            at = {"problem": cell["problem"], "data": data_name(cell), "setting": cell.get("setting", "")}
            yield {**at, "method": cell["method"], "seed": cell["seed"]}, result
