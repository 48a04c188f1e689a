"""From a decision to a :class:`Plan`: the numbers of the recommendation, the comparison, and the words."""

from __future__ import annotations

import datetime
import math
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
import pandas as pd

from lacunar.data.dataset import MultimodalDataset
from lacunar.planning.allocation import Allocation
from lacunar.planning.candidates import NOTHING, Candidate
from lacunar.planning.decide import Decision, Estimates, estimate
from lacunar.planning.estimate_pilot import describe_pilot
from lacunar.planning.fairness import Fairness
from lacunar.planning.knowledge import Knowledge, Settings
from lacunar.planning.outlook import Outlook
from lacunar.planning.repeats import seed_list
from lacunar.planning.result import CLEAR, Plan
from lacunar.planning.strategies import Choice

__all__ = ["assemble"]

_MOST_LISTED = 6  # modalities, up to which every subset has a row
FEW_SEEDS = 5
"""Below this many repeats a plan says that its intervals are too narrow."""
_COLUMNS = (
    "subset", "samples", "labels", "cost", "quality", "effective", "score", "gain", "low", "high", "p_best",
    "gain_per_cost", "note",
)  # fmt: skip


def assemble(
    found: Decision, known: Knowledge, pilot: MultimodalDataset, flips: pd.DataFrame, effect: Fairness | None,
    strategy: str, metric: str, budget: float | None, target: float | None, confidence: float, min_gain: float,
    settings: Settings, start: float, seconds: float,
) -> Plan:  # fmt: skip
    """Put everything that is known of a decision into a plan."""
    case, lattice, costs = found.case, found.case.lattice, found.case.costs
    estimates, shares = estimate(case), dict(found.shares)
    if estimates is not None and target is None and not np.isnan(estimates.draws).all():
        # What is best is what gains most, whatever the rule that chose.
        shares = Choice(estimates.mean, estimates.draws, case.min_gain).shares(case)
    blocks = () if found.best is None else found.best.blocks
    named = tuple((lattice.subset(code), samples) for code, samples in blocks)
    bought = Allocation(lattice.names, named)
    k = next((i for i, one in enumerate(case.candidates) if one.label == found.label), None)
    gain, low, high = (0.0, 0.0, 0.0) if found.best is None else _gain(estimates, k)
    now = math.nan if case.outlook is None else case.outlook.now
    p_best = shares.get(found.label, 0.0) if shares else math.nan
    others = sorted((label for label in shares if label != found.label), key=lambda label: -shares[label])
    runner_up = others[0] if others and shares[others[0]] > 0 else ""
    near = [label for label in others if shares[label] >= 1 - confidence]
    frame = _candidates(found, estimates, shares, known, now)
    return Plan(
        subset=tuple(name for name in lattice.names if any(name in names for names, _ in named)),
        samples=bought.samples, blocks=named, cells=bought.cells,
        ask={name: sum(costs.ask(name, n, names) for names, n in named if name in names) for name in lattice.names},
        cost=0.0 if found.best is None else costs.cost_of(named),
        gain=gain, low=low, high=high, now=now, score=now + gain,
        p_best=p_best, runner_up=runner_up, tied=tuple(near) if shares and p_best < CLEAR else (),
        information=_information(estimates), p_target=_p_target(found, k, target),
        flips=flips, candidates=frame, reason=found.reason, strategy=strategy, metric=metric,
        budget=None if budget is None else float(budget), target=None if target is None else float(target),
        confidence=confidence, min_gain=float(min_gain), costs=costs.to_dict(), names=lattice.names, start=start,
        fairness=None if effect is None else effect.groups, gaps=None if effect is None else effect.gaps,
        curve=_curve(case.outlook, confidence), points=known.points.reset_index(drop=True),
        rehearsal=_quality(known, lattice),
        rehearsals=pd.DataFrame() if known.rehearsal is None else known.rehearsal.points,
        utilities=pd.DataFrame() if known.utilities is None else known.utilities.frame,
        assumptions=_assumptions(found, known, pilot, settings, metric, start),
        notes=_notes(found, known, effect, settings),
        audit=_audit(known, pilot, settings, seconds),
    )  # fmt: skip


def _gain(estimates: Estimates | None, k: int | None) -> tuple[float, float, float]:
    if estimates is None or k is None:
        return math.nan, math.nan, math.nan
    return float(estimates.mean[k]), float(estimates.low[k]), float(estimates.high[k])


def _information(estimates: Estimates | None) -> float:
    """Expected gain of knowing which candidate is best before buying: mean of the maxima less maximum of the means."""
    if estimates is None:
        return 0.0
    known = ~np.isnan(estimates.draws).any(axis=0)
    if not known.any():
        return 0.0
    table = estimates.draws[:, known]
    return max(0.0, float(np.maximum(table.max(axis=1), 0).mean() - max(table.mean(axis=0).max(), 0.0)))


def _p_target(found: Decision, k: int | None, target: float | None) -> float:
    outlook = found.case.outlook
    if target is None or outlook is None:
        return math.nan
    if found.best is None or k is None:
        return float((outlook.draws[:, 0] >= target).mean())
    return float((outlook.scores([found.best])[1][:, 0] >= target - 1e-12).mean())


def _candidates(
    found: Decision, estimates: Estimates | None, shares: Mapping[str, float], known: Knowledge, now: float
) -> pd.DataFrame:
    case = found.case
    nothing = 0.0 if case.outlook is not None else math.nan
    p_nothing = shares.get(NOTHING, 0.0) if shares else math.nan
    chosen = "recommended" if found.best is None else ""
    rows: list[tuple[Any, ...]] = [
        (NOTHING, 0, 0, 0.0, math.nan, 0.0, now, nothing, nothing, nothing, p_nothing, math.nan, chosen)
    ]
    for k, one in enumerate(case.candidates):
        gain, low, high = _gain(estimates, k)
        per_cost = gain / one.cost if one.cost > 0 else math.nan
        quality, effective = _worth(one, case.outlook)
        note = "recommended" if one.label == found.label else ""
        if case.outlook is not None and not case.outlook.knows(one):
            note = f"{note}, not rehearsed".removeprefix(", ")
        elif known.rehearsal is not None and not known.rehearsal.known and quality == 0:
            quality, note = math.nan, f"{note}, quality unknown: taken as 0".removeprefix(", ")
        share = shares.get(one.label, 0.0) if shares else math.nan
        rows.append(
            (one.label, one.samples, one.samples, one.cost, quality, effective, now + gain, gain, low, high, share,
             per_cost, note)
        )  # fmt: skip
    head = sorted(rows, key=lambda row: (row[-1] != "recommended", -_known(row[10]), -_known(row[7]), row[3]))
    listed = {row[0] for row in rows}
    if case.lattice.M <= _MOST_LISTED:
        absent = [code for code in case.lattice.subsets if case.lattice.label(code) not in listed]
        head += [_absent(case, code, found.reached) for code in absent]
    return pd.DataFrame(head, columns=list(_COLUMNS))


def _absent(case: Any, code: int, reached: bool) -> tuple[Any, ...]:
    """A subset that was not compared, and why."""
    names = case.lattice.subset(code)
    price = case.costs.smallest(names)
    if reached:
        why = "not needed: the target is reached already"
    elif math.isinf(price):
        why = "cannot be had: the smallest batch is above a capacity"
    elif price > case.budget:
        why = f"beyond the budget: the smallest purchase costs {case.costs.amount(price)}"
    elif case.outlook is not None and code in case.outlook.quality:
        why = "does not reach the target" if math.isinf(case.budget) else "not considered"
    else:
        why = "not rehearsed"
    nan = math.nan
    return (case.lattice.label(code), 0, 0, nan, nan, nan, nan, nan, nan, nan, nan, nan, why)


def _worth(one: Candidate, outlook: Outlook | None) -> tuple[float, float]:
    """Completion quality of the main subset, and complete samples that the purchase amounts to."""
    if outlook is None or not outlook.knows(one):
        return math.nan, math.nan
    return outlook.quality[one.code][0], sum(outlook.quality[code][0] * samples for code, samples in one.blocks)


def _known(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _curve(outlook: Outlook | None, confidence: float) -> pd.DataFrame:
    """The learning curve at some forty sizes."""
    if outlook is None:
        return pd.DataFrame(columns=["n", "score", "low", "high"])
    pick = np.unique(np.linspace(0, len(outlook.grid) - 1, 40).round().astype(int))
    tail = (1 - confidence) / 2
    low, high = np.quantile(outlook.draws[:, pick], [tail, 1 - tail], axis=0)
    return pd.DataFrame({"n": outlook.grid[pick], "score": outlook.mean[pick], "low": low, "high": high})


def _quality(known: Knowledge, lattice: Any) -> pd.DataFrame:
    if known.rehearsal is not None:
        return known.rehearsal.quality
    rows = []
    for code, (mean, draws) in sorted(known.quality.items()):
        if code != len(lattice) - 1:
            low, high = np.quantile(draws, [0.025, 0.975])
            rows.append((lattice.label(code), mean, float(low), float(high)))
    return pd.DataFrame(rows, columns=["subset", "quality", "low", "high"])


def _assumptions(
    found: Decision, known: Knowledge, pilot: MultimodalDataset, settings: Settings, metric: str, start: float
) -> list[str]:
    lines = [
        "new samples come from the same population as the pilot, each with a label and with exactly what is bought",
    ]
    partial = len(pilot) - int(start)
    if found.case.outlook is not None:
        made = settings.completer if isinstance(settings.completer, str) else type(settings.completer).__name__
        measured = "the rehearsal in the pilot measured for" if known.rehearsal is not None else "was given for"
        lines += [
            f"scores are {metric} of one model that sees every modality; at use all modalities are there",
            f"what is not bought is generated by {made}, where that helped, and n samples of a subset are worth q n "
            f"complete ones, with the quality q that {measured} each subset, at any n",
            f"the learning curve a - b n^-c goes on beyond what was measured, from n = {start:.0f} complete samples",
        ]
        if partial:
            lines.append(f"the {partial} incomplete samples of the pilot are not counted as data to learn from")
    elif found.case.utilities is not None:
        lines.append("what a subset scores alone in the pilot says what buying it is worth; the gain is not predicted")
    if any(rate > 0 for rate in found.case.costs.failure.values()):
        lines.append("cells that fail are asked for again, for the same samples, and every time is paid")
    lines.append("gaps of the samples that there are stay as they are: only new samples are bought")
    return lines


def _notes(found: Decision, known: Knowledge, effect: Fairness | None, settings: Settings) -> list[str]:
    case, lines = found.case, list(known.notes)
    full = case.lattice.names
    if case.outlook is not None and found.best is not None and known.curves is not None:
        effective = _worth(found.best, case.outlook)[1]
        if not math.isnan(effective):
            flag = known.curves.flag(full, case.outlook.start + effective)
            lines += [flag] if flag else []
    if known.utilities is not None:
        lines += [f"utilities: {note}" for note in known.utilities.notes]
    if effect is not None:
        lines += effect.notes
    repeats = len(seed_list(settings.seeds))
    if known.trainings and repeats < FEW_SEEDS:
        lines.append(f"intervals rest on {repeats} repeats of what was measured here, and may be far too narrow")
    return list(dict.fromkeys(lines))


def _audit(known: Knowledge, pilot: MultimodalDataset, settings: Settings, seconds: float) -> dict[str, Any]:
    table = known.utilities
    return {
        "data": describe_pilot(pilot),
        "split_hash": "" if table is None else table.split_hash,
        "utilities_hash": "" if table is None else table.hash,
        "estimator": "" if table is None else table.estimator,
        "seeds": seed_list(settings.seeds),
        "draws": settings.draws,
        "seed": settings.seed,
        "completer": settings.completer if isinstance(settings.completer, str) else type(settings.completer).__name__,
        "model": "default_model" if settings.make_model is None else _name(settings.make_model),
        "fit": {key: value if isinstance(value, (int, float, str)) else str(value) for key, value in
                (settings.fit or {}).items()},
        "trainings": known.trainings,
        "seconds": seconds,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}},
    }  # fmt: skip


_PACKAGES = ("lacunar", "numpy", "pandas", "scikit-learn", "torch")


def _name(made: Any) -> str:
    return getattr(made, "__qualname__", type(made).__qualname__)
