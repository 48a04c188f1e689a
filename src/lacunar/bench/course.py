"""What the cells of a comparison say of how training went, as frames: weights of modalities and losses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from lacunar.bench.tables import data_name

__all__ = ["CELL", "FACTORS", "course_of", "courses", "factors", "trained"]

#: What objectives log of each modality: rarity, lag, score alone, Shapley contribution.
FACTORS = ("A", "B", "upper", "phi")
#: What a row of these frames is of.
CELL = ("problem", "data", "setting", "method", "seed")


def course_of(run: Any) -> dict[str, list[Any]]:
    """The loss of each epoch of a run, and loss and score on validation, None where an epoch was not validated."""
    columns = [name for name in ("loss", "val/loss", "val/score") if name in run.history]
    course = run.history[columns].round(6).astype(object)
    return course.where(course.notna(), None).to_dict("list")  # JSON has no NaN


def factors(results: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A, B, U and phi of each modality in the last epoch, with its missing rate in train, where a method logs them.

    One row per cell and modality: ``rate`` and the names in :data:`FACTORS`; NaN where one is not logged.
    """
    rows = []
    for at, result in trained(results):
        logged = result.get("last_epoch", {})
        for name in dict.fromkeys(key.split("/", 1)[1] for key in logged if key.startswith(("A/", "B/"))):
            values = {factor: logged.get(f"{factor}/{name}") for factor in FACTORS}
            rows.append({**at, "modality": name, "rate": result["cell"]["rates"].get(name), **values})
    frame = pd.DataFrame(rows, columns=[*CELL, "modality", "rate", *FACTORS])
    return frame.astype({name: float for name in ("rate", *FACTORS)})


def courses(results: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per cell and epoch: the loss in training, and loss and score on validation where it was scored."""
    parts = []
    for at, result in trained(results):
        if result.get("course"):
            part = pd.DataFrame(result["course"]).rename(columns=lambda name: name.replace("/", "_"))
            parts.append(part.assign(epoch=range(1, len(part) + 1), **at))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*CELL, "epoch", "loss"])


def trained(results: Iterable[Mapping[str, Any]]) -> Iterator[tuple[dict[str, Any], Mapping[str, Any]]]:
    """Results of cells that trained, each with what a row of these frames begins with."""
    for result in results:
        if "refused" not in result:
            cell = result["cell"]
            at = {"problem": cell["problem"], "data": data_name(cell), "setting": cell.get("setting", "")}
            yield {**at, "method": cell["method"], "seed": cell["seed"]}, result
