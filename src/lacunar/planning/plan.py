"""``lacunar.plan``: which modalities to collect next, how many, and whether at all."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from lacunar.arguments import at_least, checked
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.part import train_part
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError, did_you_mean
from lacunar.lattice import MAX_TABLE, Lattice
from lacunar.planning import strategies
from lacunar.planning.candidates import NOTHING, affordable, why_nothing
from lacunar.planning.costs import CostModel
from lacunar.planning.curves import Curves
from lacunar.planning.decide import Decision, decide, decide_target
from lacunar.planning.estimate_pilot import pilot_of
from lacunar.planning.estimate_scoring import metric_for
from lacunar.planning.fairness import Fairness, attributes, group_effect
from lacunar.planning.knowledge import Knowledge, Settings, learn, most_effective, outlook_of
from lacunar.planning.learner import Learner
from lacunar.planning.plan_parts import assemble
from lacunar.planning.rehearsal import Rehearsal
from lacunar.planning.repeats import seed_list
from lacunar.planning.result import Plan
from lacunar.planning.sensitivity import COLUMNS, flips
from lacunar.planning.strategies import Case, Strategy
from lacunar.planning.utilities import OFFERED
from lacunar.planning.utility_table import UtilityTable

__all__ = ["plan"]

logger = logging.getLogger(__name__)


@checked
def plan(
    data: MultimodalDataset | Splits,
    costs: CostModel | Mapping[str, Any] | str | os.PathLike[str],
    budget: float | None = None,
    *,
    target: float | None = None,
    utilities: UtilityTable | None = None,
    curves: Curves | pd.DataFrame | None = None,
    rehearsal: Rehearsal | Mapping[str, Any] | None = None,
    strategy: str = "rehearsal",
    make_model: Callable[[MultimodalDataset], Any] | None = None,
    completer: Any = "ridge",
    metric: str | None = None,
    seeds: int | Sequence[int] = 5,
    n_jobs: int | None = 1,
    fit: Mapping[str, Any] | None = None,
    estimator: str | None = None,
    top: int = 3,
    min_gain: float = 0.0,
    confidence: float = 0.95,
    assurance: float = 0.5,
    subgroups: Sequence[str] | str | bool | None = None,
    draws: int = 1000,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Plan:
    """Plan a collection: new labelled samples of some modalities, the others generated, or nothing.

    With ``strategy="rehearsal"``, n new samples of a subset S are worth ``q_S n`` complete ones, where a rehearsal
    inside the pilot measures q_S, and the score follows from a learning curve. What is recommended is the purchase
    whose gain is largest at the lower end of its interval, and nothing where no interval lies above ``min_gain``; for a
    target score the cheapest purchase that reaches it, of those whose interval lies above ``min_gain``. Whatever is not
    given and needed is measured: utilities to choose which subsets to rehearse, the learning curve, the rehearsal.

    Args:
        data: the pilot; of splits the train and validation parts, never the test part.
        costs: a price per cell for each modality, a :class:`CostModel`, its arguments, or the path of a YAML file.
        budget: what can be spent. Either this or ``target``.
        target: the score to reach, in units of the metric (losses are negated).
        utilities: the score of every subset, from :func:`lacunar.utilities`.
        curves: fitted learning curves of all modalities together, or their points.
        rehearsal: from :func:`lacunar.planning.rehearsal.rehearse`, or a completion quality for each subset by label:
            a number, ``(number, standard error)``, or draws.
        strategy: the rule, see :func:`lacunar.planning.strategies.available`.
        make_model: from training data to a network or a scikit-learn estimator; :func:`lacunar.default_model` when left
            out.
        completer: what generates the rest.
        metric: as in :func:`lacunar.utilities`; the task's usual one when left out.
        seeds: repeats of everything that is measured, or their seeds; a learning curve or a rehearsal takes at least 2.
        n_jobs: models trained at a time.
        fit: arguments of :func:`lacunar.fit` for networks.
        estimator: of the utilities, ``"retrain"`` or ``"amortised"``; when left out ``"amortised"``, which trains one
            model per repeat, for the default model of three modalities or more, and ``"retrain"`` otherwise.
        top: how many subsets to rehearse, beside all modalities together, which need no rehearsal.
        min_gain: the smallest gain worth buying for, in units of the metric.
        confidence: nominal coverage of the intervals.
        assurance: probability with which a target is to be reached.
        subgroups: attributes to measure the effect by: all of the data's when None, none for False.
        draws: bootstrap draws.
        seed: of the draws.
        out: folder for ``plan.json`` and for what lets an interrupted call go on with the trainings that it lacks.
        progress: show progress on standard error.

    Returns:
        The plan, as plain data.

    Raises:
        ConfigError: both or neither of budget and target, a negative budget, a modality without a price, an unknown
            strategy, metric or attribute.
        DataError: data that cannot be planned for, such as a modality that nothing has, or no sample with everything
            to measure a gain on; tables of other modalities.
        RunError: utilities of other data.
    """
    began = time.perf_counter()
    rule, prices = strategies.get(strategy), CostModel.read(costs)
    at_least(0, seed=seed)
    at_least(1, top=top, draws=draws)
    if estimator not in (None, *OFFERED):
        raise ConfigError(f"estimator: unknown {estimator!r}.{did_you_mean(str(estimator), OFFERED)}")
    _check_goal(rule, budget, target, confidence, assurance)
    asked = attributes(train_part(data, "plan"), subgroups)
    prices.check(data.names)
    lattice = Lattice(data.names)
    if lattice.M > MAX_TABLE:
        raise ConfigError(f"plan: {lattice.M} modalities have 2^{lattice.M} subsets; plans stop at {MAX_TABLE}.")
    pilot = pilot_of(data)
    assert pilot.task is not None
    metric = _metric(pilot, metric, utilities, curves, rehearsal)
    estimator = estimator or ("amortised" if make_model is None and lattice.M > 2 else "retrain")
    settings = Settings(
        make_model, completer, metric, seed_list(seeds), n_jobs, fit, estimator, top,
        draws, seed, None if out is None else Path(out), progress,
    )  # fmt: skip
    spend = math.inf if budget is None else float(budget)
    codes = _codes(lattice, prices, spend)
    start = float(pilot.present.all(dim=1).sum())
    if not codes:
        known = Knowledge(utilities=utilities)
        reason = why_nothing(lattice, prices, spend)
        found = Decision(Case(lattice, prices, spend, ()), None, NOTHING, {NOTHING: 1.0}, reason)
        table = pd.DataFrame(columns=list(COLUMNS))
        effect = None
    else:
        needs = {"outlook"} if target is not None else set(rule.needs)
        known = learn(pilot, needs, codes, settings, utilities, curves, rehearsal)
        most = most_effective(lattice, prices, spend, codes, start)
        outlook = outlook_of(known, lattice, start, most, draws, seed)
        options = {"min_gain": min_gain, "confidence": confidence, "draws": draws, "seed": seed}
        case = _case(lattice, prices, spend, rule, known, outlook, options)
        again = _decider(case, rule, target, assurance)
        found = again()
        table = flips(found, again, threshold=target is None and rule.name == "rehearsal")
        effect = _effect(pilot, asked, found, known, settings, confidence)
    made = assemble(
        found, known, pilot, table, effect, rule.name, metric, budget, target, confidence, min_gain, settings, start,
        time.perf_counter() - began,
    )  # fmt: skip
    if settings.out is not None:
        made.save(settings.out / "plan.json")
    return made


def _check_goal(
    rule: Strategy, budget: float | None, target: float | None, confidence: float, assurance: float
) -> None:
    if "realised" in rule.needs:
        raise ConfigError(f"strategy: {rule.name!r} knows what buying will have brought; only a backtest can ask it.")
    if (budget is None) == (target is None):
        both = "both" if budget is not None else "neither"
        raise ConfigError(f"plan: expected either a budget or a target score, got {both}.")
    at_least(0, budget=budget)
    if target is not None and rule.name != "rehearsal":
        raise ConfigError(
            f"target: only the strategy 'rehearsal' predicts scores, {rule.name!r} does not. Give a budget instead."
        )
    for name, value in (("confidence", confidence), ("assurance", assurance)):
        if not 0 < value < 1:
            raise ConfigError(f"{name}: expected a number between 0 and 1, got {value!r}.")


def _metric(pilot: MultimodalDataset, asked: str | None, utilities: Any, curves: Any, rehearsal: Any) -> str:
    """One metric for everything; what is given must agree."""
    found = {}
    for name, given in (("utilities", utilities), ("curves", curves), ("rehearsal", rehearsal)):
        if isinstance(given, pd.DataFrame):
            found[name] = given.attrs.get("metric")
        elif given is not None:
            found[name] = getattr(given, "metric", None)
    known = {name: value for name, value in found.items() if value not in (None, "score")}
    if asked is None and known:
        asked = next(iter(known.values()))
    assert pilot.task is not None
    metric = metric_for(pilot.task, asked)
    for name, value in known.items():
        if value != metric:
            raise ConfigError(f"metric: the plan is in {metric}, but {name} is in {value}. Use one for everything.")
    return metric


def _codes(lattice: Lattice, costs: CostModel, spend: float) -> dict[int, float]:
    """What can be bought, with how many samples; without a budget how many one unit of money buys."""
    if math.isfinite(spend):
        return {one.code: float(one.samples) for one in affordable(lattice, costs, spend)}
    named = {code: lattice.subset(code) for code in lattice.subsets}
    possible = {code: names for code, names in named.items() if costs.least(names) <= costs.limit(names)}
    return {code: 1 / max(costs.marginal(names), 1e-12) for code, names in possible.items()}


def _case(
    lattice: Lattice, costs: CostModel, spend: float, rule: Strategy, known: Knowledge, outlook: Any, options: Any
) -> Case:
    if not math.isfinite(spend):
        return Case(lattice, costs, spend, (), known.utilities, outlook, **options)
    # Only rules that read the outlook are kept to what was rehearsed; the others see everything that is affordable.
    limited = "outlook" in rule.needs
    case = Case.of(lattice, costs, spend, utilities=known.utilities, outlook=outlook if limited else None, **options)
    return case if limited else replace(case, outlook=outlook)


def _decider(case: Case, rule: Strategy, target: float | None, assurance: float) -> Callable[..., Decision]:
    def again(**changes: Any) -> Decision:
        if target is not None:
            return decide_target(replace(case, **changes), target, assurance)
        if not changes:
            return decide(case, rule)
        if "outlook" in rule.needs:
            return decide(case.changed(**changes), rule, explain=False)
        if "outlook" in changes:  # a rule that does not read it is not moved by it
            return decide(case, rule, explain=False)
        return decide(case.changed(**changes, outlook=None), rule, explain=False)

    return again


def _effect(
    pilot: MultimodalDataset, asked: list[str], found: Decision, known: Knowledge, settings: Settings, confidence: float
) -> Fairness | None:
    """The measured effect by subgroup of what is bought, or of what leads where nothing is."""
    one = found.best or next((one for one in found.case.candidates if one.label == found.leader), None)
    if not asked or one is None:
        return None
    if not bool(pilot.present.all(dim=1).any()):
        known.notes.append("the effect by subgroup is measured on samples that have everything, and there are none")
        return None
    learner = Learner(settings.make_model, settings.metric, settings.completer, settings.fit or {})
    subset = pilot.lattice.subset(one.code)
    effect = group_effect(
        pilot, subset, asked, learner, seeds=seed_list(settings.seeds), fill=known.fills(subset),
        confidence=confidence, resamples=settings.draws, n_jobs=settings.n_jobs,
    )  # fmt: skip
    known.trainings += effect.trainings
    return effect
