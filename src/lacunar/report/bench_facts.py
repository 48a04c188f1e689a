"""What a comparison of methods found, as its page takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from lacunar.report.bench_sweep import Sweep

__all__ = ["BenchFacts", "Ranking", "Reported"]


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of methods; see :class:`lacunar.bench.statistics.Ranks`."""

    average: pd.Series
    critical: float
    p: float
    blocks: int
    over: str
    groups: Sequence[Sequence[str]]
    left_out: Sequence[str]
    alpha: float


@dataclass(frozen=True)
class Reported:
    """A table of a paper: its numbers are never mixed with what was measured here.

    Attributes:
        short: heading of its column beside measured means over subsets; empty where it holds something else.
        title: what is measured, on what.
        source: the paper.
        note: why it cannot be compared with the numbers beside it.
        numbers: methods, or whatever its ``rows`` are, by column.
        rows: what a row is of.
    """

    short: str
    title: str
    source: str
    note: str
    numbers: pd.DataFrame
    rows: str = "method"


@dataclass(frozen=True)
class BenchFacts:
    """What a comparison found.

    Attributes:
        against: the method that the others are compared with.
        confidence: of the intervals.
        results: one row per cell.
        means, worst: methods by data set, and ``average``: of the mean and the worst over subsets.
        settings: for each data set with several settings, methods by (setting, ``mean`` or ``sd``).
        subsets, modalities: for each data set methods by subset, and by modality (mean over subsets with it).
        differences: by measure, one row per method: its difference to ``against``.
        pairs: differences of all pairs.
        record: how often the row's method beats the column's.
        ranking: mean ranks; None where there is too little to rank.
        cost: per method score, seconds, ratio of seconds, memory.
        refused: problems and methods that refuse them.
        reported: tables of papers.
        factors, course: how training went, see :mod:`lacunar.bench.course`.
        capability, trajectory, alone, fused: what is inside trained networks, see :mod:`lacunar.bench.probing`.
        sweep: methods that are ``against`` with other numbers; None where there are none.
        seeds: how many.
        versions: of what the results depend on.
        methods: one row per method: what it was, in words.
        apart: methods with another network or other options of training than most.
    """

    against: str
    confidence: float
    results: pd.DataFrame
    means: pd.DataFrame
    worst: pd.DataFrame
    settings: dict[str, pd.DataFrame]
    subsets: dict[str, pd.DataFrame]
    modalities: dict[str, pd.DataFrame]
    differences: dict[str, pd.DataFrame]
    pairs: pd.DataFrame
    record: pd.DataFrame
    ranking: Ranking | None
    cost: pd.DataFrame
    refused: pd.DataFrame
    reported: list[Reported] = field(default_factory=list)
    factors: pd.DataFrame = field(default_factory=pd.DataFrame)
    course: pd.DataFrame = field(default_factory=pd.DataFrame)
    capability: pd.DataFrame = field(default_factory=pd.DataFrame)
    trajectory: pd.DataFrame = field(default_factory=pd.DataFrame)
    alone: pd.DataFrame = field(default_factory=pd.DataFrame)
    fused: pd.DataFrame = field(default_factory=pd.DataFrame)
    sweep: Sweep | None = None
    seeds: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    methods: pd.DataFrame = field(default_factory=pd.DataFrame)
    apart: Sequence[str] = ()
