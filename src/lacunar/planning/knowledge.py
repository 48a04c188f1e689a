"""What a plan has to know, measured where it is not given: utilities, a learning curve, a rehearsal."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError, DataError
from lacunar.lattice import Lattice
from lacunar.planning.candidates import affordable, largest
from lacunar.planning.costs import CostModel
from lacunar.planning.curves import Curves, fit_curves, learning_curves
from lacunar.planning.outlook import Outlook
from lacunar.planning.rehearsal import Rehearsal, rehearse
from lacunar.planning.repeats import seed_list
from lacunar.planning.utilities import utilities as estimate_utilities
from lacunar.planning.utility_table import UtilityTable, a_table

__all__ = ["FAR", "Knowledge", "Settings", "learn", "most_effective", "outlook_of", "prefilter"]

logger = logging.getLogger(__name__)

FAR = 100
"""How many times the data that there are a target score may need before it counts as out of reach."""


@dataclass(frozen=True)
class Settings:
    """How to measure what is not given; the arguments of :func:`lacunar.plan`."""

    make_model: Any = None
    completer: Any = "ridge"
    metric: str | None = None
    seeds: int | Sequence[int] = 5
    n_jobs: int | None = 1
    fit: Mapping[str, Any] | None = None
    estimator: str = "retrain"
    top: int = 3
    draws: int = 1000
    seed: int = 0
    out: Path | None = None
    progress: bool = True

    def folder(self, what: str) -> Path | None:
        """Where finished trainings of a kind are kept."""
        return None if self.out is None else self.out / what


@dataclass(eq=False)
class Knowledge:
    """What is known.

    Attributes:
        utilities: the score of every subset, or None.
        points: what the learning curve was fitted to; empty where it was given fitted.
        curves: fitted learning curves, or None.
        rehearsal: completion qualities, measured; or None.
        quality: completion quality of each code: mean and draws.
        trainings: models trained for it now.
        notes: what to know.
    """

    utilities: UtilityTable | None = None
    points: pd.DataFrame = field(default_factory=pd.DataFrame)
    curves: Curves | None = None
    rehearsal: Rehearsal | None = None
    quality: dict[int, tuple[float, np.ndarray]] = field(default_factory=dict)
    trainings: int = 0
    notes: list[str] = field(default_factory=list)

    def fills(self, subset: Sequence[str]) -> bool:
        """Whether the rest of a subset is better generated than left absent; assumed where it was not rehearsed."""
        measured = self.rehearsal is not None and "+".join(subset) in self.rehearsal.draws
        return self.rehearsal.fills(subset) if measured and self.rehearsal is not None else True


def learn(
    pilot: MultimodalDataset,
    needs: Iterable[str],
    codes: Mapping[int, float],
    settings: Settings,
    utilities: UtilityTable | None,
    curves: Curves | pd.DataFrame | None,
    rehearsal: Rehearsal | Mapping[str, Any] | None,
) -> Knowledge:
    """Take what is given and measure the rest of what is needed.

    Args:
        pilot: the data.
        needs: ``"utilities"``, ``"outlook"``.
        codes: the subsets that can be bought, each with the samples that are had of it, or had for one unit of money.
        settings: how to measure.
        utilities, curves, rehearsal: what is known already.

    Raises:
        DataError: what is given is of other modalities, or rests on one seed; or no sample is complete.
        ConfigError: what is given is of another type, or one seed for what has to be measured.
    """
    lattice, needs = pilot.lattice, set(needs)
    known = Knowledge(utilities=_checked(utilities, pilot))
    full = len(lattice) - 1
    proper = [code for code in codes if code != full]
    many = "outlook" in needs and rehearsal is None and len(proper) > settings.top
    if "outlook" in needs or curves is not None or rehearsal is not None:
        _check_measurable(pilot, settings, curves is None, rehearsal is None and bool(proper))
    if known.utilities is None and ("utilities" in needs or many):
        known.utilities = estimate_utilities(
            pilot, settings.make_model, estimator=settings.estimator, metric=settings.metric, seeds=settings.seeds,
            n_jobs=settings.n_jobs, fit=settings.fit, progress=settings.progress,
            out=settings.folder("utilities"),
        )  # fmt: skip
        known.trainings += known.utilities.trainings
    if "outlook" not in needs and curves is None and rehearsal is None:
        return known
    _take_curves(known, pilot, curves, settings)
    if isinstance(rehearsal, Rehearsal):
        if rehearsal.lattice.names != lattice.names:
            raise DataError(f"rehearsal: expected the modalities {lattice.names}, got {rehearsal.lattice.names}.")
        known.rehearsal = rehearsal
    elif isinstance(rehearsal, Mapping):
        known.quality = _given_quality(lattice, rehearsal, settings)
    elif rehearsal is not None:
        raise ConfigError(f"rehearsal: expected a Rehearsal, or a quality for each subset, got {rehearsal!r}.")
    else:
        chosen = prefilter(known.utilities, codes, proper, settings.top)
        left = [lattice.label(code) for code in proper if code not in chosen]
        if left:
            known.notes.append(f"rehearsed were the {len(chosen)} most promising subsets; not {_few(left)}")
        if chosen:
            known.rehearsal = rehearse(
                pilot, [lattice.subset(code) for code in chosen], completer=settings.completer,
                make_model=settings.make_model, metric=settings.metric, seeds=settings.seeds, draws=settings.draws,
                fit=settings.fit, n_jobs=settings.n_jobs, out=settings.folder("rehearsal"), progress=settings.progress,
            )  # fmt: skip
            known.trainings += known.rehearsal.trainings
    if known.rehearsal is not None:
        for label in known.rehearsal.draws:
            known.quality[lattice.index(label.split("+"))] = known.rehearsal.effective(label)
        known.notes += known.rehearsal.notes
    known.quality[full] = (1.0, np.ones(1))
    return known


def prefilter(table: UtilityTable | None, codes: Mapping[int, float], proper: Sequence[int], top: int) -> list[int]:
    """The subsets worth a rehearsal: those with the most samples times their share of the gain of all modalities.

    The share f(S) / f(all) stands in for the completion quality: what a subset knows itself, generation can pass on.
    """
    if table is None or len(proper) <= top:
        return list(proper)
    gain = table.mean - table.mean[0]
    whole = gain[-1] if gain[-1] > 0 else np.nanmax(gain)
    share = np.clip(np.nan_to_num(gain) / whole, 0, 1) if whole > 0 else np.ones(len(gain))
    ranked = sorted(proper, key=lambda code: (-share[code] * codes[code], -codes[code], code))
    return sorted(ranked[:top], key=lambda code: (code.bit_count(), code))


def outlook_of(known: Knowledge, lattice: Lattice, start: float, most: float, draws: int, seed: int) -> Outlook | None:
    """The learning curve and the qualities together.

    Args:
        known: with curves and qualities.
        lattice: the modalities.
        start: complete samples that there are.
        most: the largest number of effective samples that will be asked about.
        draws: how many.
        seed: pairs draws of the curve with draws of the quality.
    """
    if known.curves is None:
        return None
    grid = Outlook.sizes(max(start, 1.0), most)
    found = known.curves.predict(lattice.names, grid)
    rng = np.random.default_rng([seed, 3])
    table = np.asarray(found.draws)[np.arange(draws) % len(found.draws)]
    pick: dict[int, np.ndarray] = {}  # the same resample in every subset that has as many draws
    quality = {}
    for code, (mean, drawn) in known.quality.items():
        if len(drawn) not in pick:
            pick[len(drawn)] = rng.integers(len(drawn), size=draws)
        quality[code] = (mean, np.asarray(drawn, dtype=float)[pick[len(drawn)]])
    return Outlook(float(grid[0]), grid, np.asarray(found.mean, dtype=float), table, quality)


def most_effective(lattice: Lattice, costs: CostModel, budget: float, codes: Iterable[int], start: float) -> float:
    """How far the curve may be read: 16 times the budget, which is what sensitivity asks about, or FAR for a target."""
    far = FAR * max(start, 10.0)
    if not np.isfinite(budget):
        return far
    return float(min(max(largest(lattice, costs, affordable(lattice, costs, 16 * budget, codes)), 2), 1e7))


def _checked(table: UtilityTable | None, pilot: MultimodalDataset) -> UtilityTable | None:
    if table is None:
        return None
    if a_table(table, "utilities").names != pilot.names:
        raise DataError(
            f"utilities: expected a table of the modalities {', '.join(pilot.names)}, got {', '.join(table.names)}."
        )
    if table.data_hash:
        table.require(pilot, where="utilities: the table")
    return table


def _take_curves(
    known: Knowledge, pilot: MultimodalDataset, curves: Curves | pd.DataFrame | None, settings: Settings
) -> None:
    if isinstance(curves, Curves):
        known.curves = _repeated(curves)
        known.notes += curves.notes
        return
    if curves is None:
        curves = learning_curves(
            pilot, None, make_model=settings.make_model, metric=settings.metric, seeds=settings.seeds,
            fit=settings.fit, n_jobs=settings.n_jobs, out=settings.folder("curves"), progress=settings.progress,
        )  # fmt: skip
        known.trainings += len(curves)
    elif not isinstance(curves, pd.DataFrame):
        raise ConfigError(f"curves: expected Curves, or points as learning_curves gives them, got {type(curves)}.")
    known.points = curves
    known.curves = _repeated(fit_curves(curves, metric=settings.metric, draws=settings.draws, seed=settings.seed))
    known.notes += known.curves.notes


def _repeated(curves: Curves) -> Curves:
    """The curves, unless they are of one seed, after which nothing looks uncertain."""
    if curves.repeats < 2:
        raise DataError(
            "curves: expected points of at least 2 seeds, got 1: one says nothing of how sure a gain is. Measure more "
            "with lacunar.learning_curves(seeds=5)."
        )
    return curves


def _check_measurable(pilot: MultimodalDataset, settings: Settings, curve: bool, rehearsed: bool) -> None:
    """What would stop a learning curve or a rehearsal is told before anything is trained."""
    what = " and ".join(["the learning curve"] * curve + ["the rehearsal"] * rehearsed)
    if what and not bool(pilot.present.all(dim=1).any()):
        raise DataError(
            f"{pilot.name}: no sample has all of {', '.join(pilot.names)}, and {what} can be measured on such samples "
            "only. Collect all of them for some samples, give curves= and rehearsal= from elsewhere, or use a strategy "
            "that needs neither: 'utility-per-cost', 'best-single', 'even'."
        )
    if what and len(seed_list(settings.seeds)) < 2:
        raise ConfigError(
            f"seeds: expected at least 2 repeats of {what}, got 1: one says nothing of how sure a gain is. Use "
            "seeds=2 or more."
        )


def _given_quality(
    lattice: Lattice, given: Mapping[str, Any], settings: Settings
) -> dict[int, tuple[float, np.ndarray]]:
    """Qualities by label: a number, a number with its standard error, or draws."""
    rng, found = np.random.default_rng([settings.seed, 4]), {}
    for label, value in given.items():
        code = lattice.index(str(label).split("+"))
        if code == len(lattice) - 1:
            raise ConfigError(f"rehearsal: {label} is everything, and its quality is 1.")
        try:
            numbers = np.atleast_1d(np.asarray(value, dtype=float))
        except (TypeError, ValueError):
            numbers = np.empty(0)
        if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
            raise ConfigError(
                f"rehearsal, {label!r}: expected a quality, (quality, standard error) or draws, all finite numbers, "
                f"got {value!r}."
            )
        if isinstance(value, tuple) and len(value) == 2:
            if numbers[1] < 0:
                raise ConfigError(f"rehearsal, {label!r}: expected a standard error from 0 up, got {value!r}.")
            mean = float(numbers[0])
            draws = rng.normal(mean, numbers[1], size=settings.draws)
        else:
            draws, mean = numbers, float(numbers.mean())
        found[code] = (float(np.clip(mean, 0, 1)), np.clip(draws, 0, 1))
    return found


def _few(labels: Sequence[str]) -> str:
    return ", ".join(labels[:6]) + (f" and {len(labels) - 6} more" if len(labels) > 6 else "")
