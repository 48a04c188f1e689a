"""The plan: what to collect, what it is expected to bring, and everything that a reader needs to question it."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lacunar.errors import RunError
from lacunar.planning.allocation import Allocation
from lacunar.planning.costs import CostModel
from lacunar.training.files import read_json, write_whole

__all__ = ["CLEAR", "Plan"]

FORMAT = 1
KIND = "lacunar plan"
CLEAR = 0.8
"""The probability of being best from which on a plan is told apart from the others."""
_FRAMES = ("candidates", "flips", "fairness", "gaps", "curve", "points", "rehearsal", "rehearsals", "utilities")


def _frame() -> pd.DataFrame:
    return pd.DataFrame()


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """What to collect next, as plain data. :func:`lacunar.plan` makes one.

    Scores are those of the metric, higher is better (losses are negated); gains and their intervals are in the same
    unit.

    Attributes:
        subset: the modalities to collect; empty: collect nothing.
        samples: new labelled samples.
        blocks: ``(subset, samples)``: which samples get what; one entry unless the money is split.
        cells: new cells of each modality.
        ask: cells to ask for, so that as many are expected to arrive.
        cost: the price.
        gain, low, high: expected gain of the score with all modalities and the ends of its interval; NaN where the
            strategy predicts none.
        now, score: predicted score before and after.
        p_best: probability that this is the best of the candidates; NaN where nothing is known of it.
        runner_up: label of the second best; "none" is to collect nothing.
        tied: labels that cannot be told from the best, where ``p_best`` is below 0.8.
        information: what knowing the truth about the candidates before buying would add to the expected gain.
        p_target: probability that a target score is reached; NaN for plans to a budget.
        flips: what would change the recommendation: ``what`` (cost, budget, quality, threshold), ``modality``,
            ``factor``, ``value`` and ``to``, what is recommended then.
        candidates: everything that was compared, one row each, nothing included: ``subset``, ``samples``, ``labels``,
            ``cost``, ``quality``, ``effective`` samples, ``score``, ``gain``, ``low``, ``high``, ``p_best``,
            ``gain_per_cost``, ``note``.
        fairness: measured effect by subgroup; None without subgroups.
        gaps: how the largest difference between subgroups changes; None without subgroups.
        curve: the learning curve: ``n``, ``score``, ``low``, ``high``.
        points: what it was fitted to: ``subset``, ``n``, ``seed``, ``score``.
        rehearsal: completion quality of each subset: ``subset``, ``quality``, ``low``, ``high`` and, where it was
            measured, what filling brought against not filling.
        rehearsals: the trainings that it rests on: ``seed``, ``subset``, ``arm``, ``score``, ``n``.
        utilities: the score of every subset: as :attr:`UtilityTable.frame`; empty where it was not needed.
        reason: why this, or why nothing, in words.
        assumptions: what has to hold for the numbers to hold.
        notes: what else to know.
        strategy, metric, budget, target, confidence, min_gain: what was asked for.
        costs: prices and limits, as :meth:`CostModel.read` takes them.
        names: all modalities.
        start: effective samples that there are, n_0.
        audit: hashes, seeds, models trained, seconds.
    """

    subset: tuple[str, ...]
    samples: int
    blocks: tuple[tuple[tuple[str, ...], int], ...]
    cells: dict[str, int]
    ask: dict[str, int]
    cost: float
    gain: float
    low: float
    high: float
    now: float
    score: float
    p_best: float
    runner_up: str
    tied: tuple[str, ...]
    information: float
    p_target: float
    flips: pd.DataFrame
    candidates: pd.DataFrame
    reason: str
    strategy: str
    metric: str
    budget: float | None
    target: float | None
    confidence: float
    min_gain: float
    costs: dict[str, Any]
    names: tuple[str, ...]
    start: float
    fairness: pd.DataFrame | None = None
    gaps: pd.DataFrame | None = None
    curve: pd.DataFrame = field(default_factory=_frame)
    points: pd.DataFrame = field(default_factory=_frame)
    rehearsal: pd.DataFrame = field(default_factory=_frame)
    rehearsals: pd.DataFrame = field(default_factory=_frame)
    utilities: pd.DataFrame = field(default_factory=_frame)
    assumptions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    audit: dict[str, Any] = field(default_factory=dict)

    @property
    def collect_nothing(self) -> bool:
        """Whether the recommendation is to collect nothing."""
        return not self.subset

    @property
    def label(self) -> str:
        """The recommended subset in words, ``"image+text"``, or ``"none"``."""
        return "+".join(self.subset) or "none"

    @property
    def clear(self) -> bool:
        """Whether the plan is the best one with a probability of at least 0.8."""
        return self.p_best >= CLEAR

    def allocate(self, ids: Sequence[str] | None = None, seed: int = 0) -> pd.DataFrame:
        """How many cells of each modality to collect, or for whom.

        Args:
            ids: candidates, one id each; at least :attr:`samples`. Which are taken depends on ids and seed alone.
            seed: of the order of the candidates.

        Returns:
            Without ids one row per modality: ``cells`` that are to arrive, ``ask`` to ask for. With ids one row per
            chosen candidate, and for each modality whether to collect it.

        Raises:
            DataError: too few candidates, or one that is there twice.
        """
        if ids is not None:
            return Allocation(self.names, self.blocks).assign(ids, seed)
        return pd.DataFrame({"cells": self.cells, "ask": self.ask}, index=pd.Index(self.names, name="modality"))

    # ------------------------------------------------------------------ as plain data

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON data; NaN becomes null."""
        content: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, pd.DataFrame):
                rows = [[_plain(cell) for cell in row] for row in value.itertuples(index=False)]
                value = {"columns": [str(name) for name in value.columns], "rows": rows}
            content[item.name] = _plain(value)
        return content

    @property
    def hash(self) -> str:
        """SHA-256 of the content."""
        return _digest(self.to_dict())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the plan as JSON, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = self.to_dict()
        text = json.dumps(
            {"kind": KIND, "format": FORMAT, "hash": _digest(content), **content},
            indent=1, ensure_ascii=False, allow_nan=False,
        )  # fmt: skip
        write_whole(path, lambda file: file.write(text.encode() + b"\n"))
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read a plan back.

        Raises:
            RunError: the file is no plan, of another format, or was changed since it was written.
        """
        path = Path(path)
        content = read_json(path)
        if not isinstance(content, dict) or content.get("kind") != KIND:
            raise RunError(f"{path} is not a plan.")
        if content.get("format") != FORMAT:
            raise RunError(f"{path} has format {content.get('format')!r}; this version reads {FORMAT}. Update lacunar.")
        known = [item.name for item in fields(cls)]
        if set(content) != {"kind", "format", "hash", *known}:
            odd = sorted(set(content) ^ {"kind", "format", "hash", *known})
            raise RunError(f"{path}: expected the fields of a plan; {', '.join(odd)} should not differ.")
        given = {name: content[name] for name in known}
        if _digest(given) != content["hash"]:
            raise RunError(f"{path} was changed after it was written: its content does not match its hash.")
        for name in _FRAMES:
            if given[name] is not None:
                given[name] = _read_frame(given[name])
        for name in ("cost", "gain", "low", "high", "now", "score", "p_best", "information", "p_target", "start"):
            given[name] = math.nan if given[name] is None else float(given[name])
        for name in ("subset", "tied", "names"):
            given[name] = tuple(given[name])
        given["blocks"] = tuple((tuple(subset), samples) for subset, samples in given["blocks"])
        return cls(**given)

    # ------------------------------------------------------------------ for people

    def amount(self, value: float) -> str:
        """A price in words."""
        return CostModel.read(self.costs).amount(value)

    def __repr__(self) -> str:
        return f"Plan({self.label}, {self.samples} samples, cost {self.cost:g}; {self.strategy})"

    def __str__(self) -> str:
        from lacunar.planning.plan_text import plan_text

        return plan_text(self)


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _read_frame(content: Mapping[str, Any]) -> pd.DataFrame:
    frame = pd.DataFrame(content["rows"], columns=content["columns"])
    for name in frame:
        if frame[name].map(lambda value: value is None or isinstance(value, (int, float))).all():
            whole = frame[name].map(lambda value: isinstance(value, int)).all() and len(frame)
            frame[name] = frame[name].astype(np.int64 if whole else np.float64)
    return frame
