"""What collecting a subset does to each subgroup, measured inside the pilot."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError, did_you_mean
from lacunar.evaluation.statistics import percentile_interval, resample_counts
from lacunar.planning.estimate_scoring import metric_for, score_output
from lacunar.planning.learner import Learner, complete_cases, held_out
from lacunar.planning.nested import NestedSubsets

__all__ = ["FEW", "Fairness", "attributes", "group_effect"]

logger = logging.getLogger(__name__)

FEW = 30
"""Below this many scored samples nothing is claimed of a subgroup."""


@dataclass(frozen=True, eq=False)
class Fairness:
    """Measured effect of a purchase by subgroup.

    Attributes:
        groups: one row per subgroup: ``attribute``, ``group``, ``n`` (samples scored), scores ``before`` and ``after``,
            ``gain`` with ``low`` and ``high``, ``note``; NaN where n is below 30.
        gaps: one row per attribute with at least two subgroups that are large enough: the largest difference between
            them ``before`` and ``after``, its ``change`` with ``low`` and ``high``.
        notes: how it was measured.
        trainings: models trained.
    """

    groups: pd.DataFrame
    gaps: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    trainings: int = 0


_GROUPS = ("attribute", "group", "n", "before", "after", "gain", "low", "high", "note")
_GAPS = ("attribute", "before", "after", "change", "low", "high")


def attributes(data: MultimodalDataset, asked: Sequence[str] | str | bool | None) -> list[str]:
    """Which attributes to report by: those asked for, all there are for None or True, none for False.

    Raises:
        ConfigError: an attribute that the data do not have.
    """
    known = [] if data.subgroups is None else [str(name) for name in data.subgroups.columns]
    if asked is None or asked is True:
        return known
    if asked is False:
        return []
    if not isinstance(asked, Iterable):
        raise ConfigError(f"subgroups: expected names of attributes, True or False, got {asked!r}.")
    names = [asked] if isinstance(asked, str) else list(asked)
    for name in names:
        if name not in known:
            told = did_you_mean(name, known) if known else " The data have none: give subgroups= when building them."
            raise ConfigError(f"subgroups: unknown attribute {name!r}.{told}")
    return names


def group_effect(
    data: MultimodalDataset,
    subset: Sequence[str],
    names: Sequence[str],
    learner: Learner,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    fill: bool = True,
    test: float = 0.25,
    confidence: float = 0.95,
    resamples: int = 1000,
    n_jobs: int | None = 1,
) -> Fairness:
    """Rehearse a purchase inside the pilot and score every subgroup before and after.

    For each seed a part of the complete samples is held out. Of the rest, half is what there is; the other half is
    bought with ``subset`` alone. Two models are trained, without and with the
    purchase, and both are scored on the held-out samples. Intervals resample seeds and samples jointly.

    Args:
        data: the pilot, with subgroups.
        subset: what is bought.
        names: attributes to report by.
        learner: how to complete, train and score.
        seeds: of the repeats.
        fill: complete what is not bought; otherwise it stays absent.
        test: share that is held out.
        confidence: nominal coverage of the intervals.
        resamples: bootstrap resamples.
        n_jobs: trainings at the same time.
    """
    known = complete_cases(data)
    assert known.subgroups is not None
    labels = {name: known.subgroups[name].astype(object) for name in names}
    large = any(labels[name].value_counts().max() >= FEW for name in names)
    before = after = np.full((len(seeds), len(known)), np.nan)
    trainings = 0
    if large:
        jobs = [delayed(_rehearsed)(known, tuple(subset), learner, seed, test, fill) for seed in seeds]
        for r, (rows, first, second) in enumerate(Parallel(n_jobs=n_jobs)(jobs)):
            if r == 0:
                before, after = before.copy(), after.copy()
            before[r, rows], after[r, rows] = first, second
        trainings = 2 * len(seeds)
    rows, gaps = [], []
    for name in names:
        made = _attribute(name, labels[name], before, after, confidence, resamples)
        rows += made[0]
        gaps += made[1]
    notes = [
        f"by subgroup: measured in the pilot, by adding {'+'.join(subset)} for one half of its complete samples to the "
        f"other half, {len(seeds)} seeds; the planned purchase is of another size"
    ]
    small = [f"{row[0]}={row[1]} (n={row[2]})" for row in rows if row[2] < FEW]
    if small:
        notes.append(f"no claim is made of subgroups below {FEW} scored samples: {', '.join(small)}")
    return Fairness(
        pd.DataFrame(rows, columns=list(_GROUPS)), pd.DataFrame(gaps, columns=list(_GAPS)), notes, trainings
    )


def _rehearsed(
    data: MultimodalDataset, subset: tuple[str, ...], learner: Learner, seed: int, test: float, fill: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions that were held out, and each one's score without and with the purchase."""
    rest, scored = held_out(data, test, seed)
    order = NestedSubsets(rest, seed)
    half = len(rest) // 2
    owned = np.zeros(len(rest), dtype=bool)
    owned[order.rows(half)] = True
    bought = {name: owned | (name in subset) for name in data.names}
    first = _items(learner, rest.select(owned), scored, seed)
    larger = rest.hide(bought)
    second = _items(learner, learner.complete(larger, seed) if fill else larger, scored, seed)
    position = {key: row for row, key in enumerate(data.ids)}
    return np.array([position[key] for key in scored.ids]), first, second


def _items(learner: Learner, train: MultimodalDataset, scored: MultimodalDataset, seed: int) -> np.ndarray:
    assert scored.task is not None
    assert scored.target is not None
    predict, _ = learner.train(train, seed)
    metric = metric_for(scored.task, learner.metric)
    return score_output(metric, scored.task, predict(scored), scored.target).items


def _attribute(
    name: str, values: pd.Series, before: np.ndarray, after: np.ndarray, confidence: float, resamples: int
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    rows: list[tuple[Any, ...]] = []
    means, draws = [], []
    scored = np.isfinite(before).any(axis=0)
    for group in sorted(values.dropna().unique(), key=str):
        member = (values == group).to_numpy(dtype=bool)
        n = int((member & scored).sum()) if scored.any() else int(member.sum())
        if n < FEW or not scored.any():
            rows.append((name, str(group), n, *[np.nan] * 5, f"n below {FEW}: no claim"))
            continue
        first, second = _draws(before, member, resamples), _draws(after, member, resamples)
        low, high = percentile_interval((second - first)[:, None], confidence)
        pair = float(np.nanmean(before[:, member])), float(np.nanmean(after[:, member]))
        rows.append((name, str(group), n, *pair, pair[1] - pair[0], float(low[0]), float(high[0]), ""))
        means.append(pair)
        draws.append((first, second))
    if len(means) < 2:
        return rows, []
    table, drawn = np.array(means), np.array(draws)  # (G, 2), (G, 2, D)
    gap, gap_draws = np.ptp(table, axis=0), np.ptp(drawn, axis=0)
    low, high = percentile_interval((gap_draws[1] - gap_draws[0])[:, None], confidence)
    return rows, [(name, float(gap[0]), float(gap[1]), float(gap[1] - gap[0]), float(low[0]), float(high[0]))]


def _draws(table: np.ndarray, member: np.ndarray, resamples: int) -> np.ndarray:
    """Means of a subgroup's scores ``(R, N)`` in resamples of seeds and samples, the same for every subgroup."""
    known = np.isfinite(table) & member
    filled = np.where(known, table, 0.0)
    generator, parts = np.random.default_rng([0, 11]), []
    for counts in resample_counts(table.shape[1], resamples, 0):
        picked = generator.multinomial(len(table), np.full(len(table), 1 / len(table)), size=len(counts))
        weight = (counts @ known.T.astype(float)) * picked
        total = (counts @ filled.T) * picked
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append(total.sum(axis=1) / weight.sum(axis=1))
    return np.concatenate(parts)
