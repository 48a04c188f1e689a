"""One seed of a backtest: hide, let every rule plan from the pilot, buy, train, and see what it came to."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import stats

from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import DataError, LacunarError
from lacunar.planning.candidates import NOTHING, Candidate, largest
from lacunar.planning.costs import CostModel
from lacunar.planning.knowledge import Knowledge, Settings, learn, outlook_of
from lacunar.planning.learner import Learner, crowd, held_out
from lacunar.planning.nested import NestedSubsets
from lacunar.planning.outlook import Outlook
from lacunar.planning.pool import Pool
from lacunar.planning.strategies import Case, Strategy, chosen_purchase, get
from lacunar.planning.utility_table import UtilityTable

__all__ = ["PREDICTORS", "Setting", "run_trial"]

Blocks = tuple[tuple[int, int], ...]

#: What each rule goes by, where that can be compared with what came of it.
PREDICTORS = {
    "rehearsal": "rehearsal",
    "sk-ll": "cooperation",
    "utility-per-cost": "utility-per-cost",
    "best-single": "utility",
}


@dataclass(frozen=True)
class Setting:
    """What is the same for all seeds of a backtest; the arguments of :func:`lacunar.planning.backtest.backtest`."""

    costs: CostModel
    budget: float
    strategies: tuple[str, ...]
    available: float
    test: float
    learner: Learner
    estimator: str
    repeats: int
    confidence: float
    min_gain: float
    draws: int
    top: int


def run_trial(data: MultimodalDataset, setting: Setting, seed: int) -> dict[str, Any]:
    """Everything that one seed finds, as plain data.

    Raises:
        DataError: the pilot is too small to learn from, with the seed in a note.
    """
    try:
        return _Trial(data, setting, seed).run()
    except LacunarError as error:
        error.add_note(f"This was in the backtest's seed {seed}.")
        raise


@dataclass(frozen=True)
class _Bought:
    """What a purchase came to."""

    score: float
    cost: float
    labels: int
    cells: dict[str, int]
    seconds: float
    notes: tuple[str, ...]


class _Trial:
    def __init__(self, data: MultimodalDataset, setting: Setting, seed: int):
        self.setting, self.seed, self.lattice = setting, seed, data.lattice
        self.learner = setting.learner
        self.rest, self.test = held_out(data, setting.test, seed)
        pool = NestedSubsets(self.rest, seed, by_group=self.rest.groups is not None)
        self.start = pool.fitting(max(2, round(setting.available * len(self.rest))))
        if not 2 <= len(self.start) < len(self.rest):
            raise DataError(
                f"{crowd(self.rest)} are too few to keep {setting.available:.0%} of them and sell the others."
            )
        # All purchases begin with the same samples, so that what is bought differs and not for whom.
        self.queue = self.rest.ids[pool.order[~np.isin(pool.order, self.start)]]
        most = len(self.queue) if setting.costs.max_samples is None else min(setting.costs.max_samples, len(self.queue))
        self.costs = replace(setting.costs, max_samples=most)
        self.pilot = Pool(self.rest, self.start, self.costs, setting.budget).data
        self.known: dict[tuple[Blocks, bool], _Bought] = {}

    # ------------------------------------------------------------------ what the rules may know

    @property
    def _settings(self) -> Settings:
        setting, learner = self.setting, self.learner
        return Settings(
            learner.make, learner.completer, learner.metric, setting.repeats, 1, learner.fit, setting.estimator,
            setting.top, setting.draws, self.seed, None, False,
        )  # fmt: skip

    @cached_property
    def utilities(self) -> UtilityTable:
        """Of the pilot."""
        known = learn(self.pilot, {"utilities"}, self._codes, self._settings, None, None, None)
        assert known.utilities is not None
        return known.utilities

    @cached_property
    def rehearsed(self) -> tuple[Knowledge, Outlook, float]:
        """What the rehearsal of the pilot found, what purchases are expected to come to, and how long it took."""
        began = time.perf_counter()
        most = float(largest(self.lattice, self.costs, list(self._case().candidates)))
        table = self.utilities if len(self._codes) - 1 > self.setting.top else None
        known = learn(self.pilot, {"outlook"}, self._codes, self._settings, table, None, None)
        outlook = outlook_of(known, self.lattice, float(len(self.pilot)), most, self.setting.draws, self.seed)
        assert outlook is not None
        return known, outlook, time.perf_counter() - began

    @cached_property
    def _codes(self) -> dict[int, float]:
        """The subsets that the budget buys, and how many samples of each."""
        return {one.code: float(one.samples) for one in self._case().candidates}

    def _case(self, **known: Any) -> Case:
        setting = self.setting
        return Case.of(
            self.lattice, self.costs, setting.budget, min_gain=setting.min_gain, confidence=setting.confidence,
            draws=setting.draws, seed=self.seed, **known,
        )  # fmt: skip

    # ------------------------------------------------------------------ what came of it

    def buy(self, blocks: Blocks, fill: bool) -> _Bought:
        """Buy through the pool, complete, train and score on the part that nobody has seen."""
        full = len(self.lattice) - 1
        fill = fill and any(code != full for code, _ in blocks)
        key = (blocks, fill)
        if key not in self.known:
            pool, taken = Pool(self.rest, self.start, self.costs, self.setting.budget), 0
            for code, samples in blocks:
                pool.acquire(self.queue[taken : taken + samples], self.lattice.subset(code))
                taken += samples
            found = self.learner.score(pool.data, self.test, self.seed, fill)
            self.known[key] = _Bought(found.score, pool.spent, pool.labels, pool.cells, found.seconds, found.notes)
        return self.known[key]

    def run(self) -> dict[str, Any]:
        start, setting = time.perf_counter(), self.setting
        lower = self.buy((), False)
        rules = [get(name) for name in setting.strategies]
        case = self._case()
        realised = {
            one.label: {fill: self.buy(one.blocks, fill).score - lower.score for fill in (True, False)}
            for one in case.candidates
        }
        rows = [self._planned(rule, realised) for rule in rules if rule.name != "oracle"]
        rows += [self._oracle()] if "oracle" in setting.strategies else []
        best = max(found.score for found in self.known.values())
        upper = self.learner.score(self.rest, self.test, self.seed)
        predicted = self._predicted(rules)
        agreement = {name: self._agreement(name, table, realised) for name, table in predicted.items()}
        for row in rows:
            found = agreement.get(PREDICTORS.get(row["strategy"], ""), {})
            row |= {"seed": self.seed, "lower": lower.score, "gain": row["score"] - lower.score}
            row |= {"regret": best - row["score"], "kendall": found.get("kendall"), "spearman": found.get("spearman")}
        subsets = [
            {
                "seed": self.seed, "subset": one.label, "samples": one.samples, "cost": one.cost,
                "filled": realised[one.label][True], "not_filled": realised[one.label][False],
                **{f"predicted by {name}": table.get(one.code) for name, table in predicted.items()},
            }
            for one in case.candidates
        ]  # fmt: skip
        return _plain(
            {
                "key": f"seed{self.seed}", "seed": self.seed, "strategies": rows, "subsets": subsets,
                "predictors": [{"seed": self.seed, "predictor": name, **found} for name, found in agreement.items()],
                "lower": lower.score, "upper": upper.score, "pilot": len(self.pilot), "pool": len(self.queue),
                "test": len(self.test), "seconds": time.perf_counter() - start,
                "notes": sorted({note for found in self.known.values() for note in found.notes}),
            }
        )  # fmt: skip

    def _planned(self, rule: Strategy, realised: Mapping[str, Mapping[bool, float]]) -> dict[str, Any]:
        """What a rule buys and what came of it."""
        known: dict[str, Any] = {}
        trainings, seconds = 0, 0.0
        if self._case().candidates:
            if "utilities" in rule.needs:
                known["utilities"] = self.utilities
            if "outlook" in rule.needs:
                found, known["outlook"], seconds = self.rehearsed
                trainings = found.trainings
            if "utilities" in rule.needs or ("outlook" in rule.needs and found.utilities is not None):
                trainings += self.utilities.trainings
                seconds += self.utilities.seconds
            if "realised" in rule.needs:
                known["realised"] = {label: max(gains.values()) for label, gains in realised.items()}
        case = self._case(**known)
        bought: Candidate | None = chosen_purchase(case, rule(case)) if case.candidates else None
        blocks = () if bought is None else bought.blocks
        fill = self._fills(rule, blocks)
        expected = math.nan
        if bought is not None and case.outlook is not None:
            expected = float(case.outlook.gains([bought])[0][0])
        return self._row(rule.name, bought, blocks, fill, expected, trainings, seconds)

    def _row(
        self, name: str, bought: Candidate | None, blocks: Blocks, fill: bool, expected: float, trainings: int,
        seconds: float,
    ) -> dict[str, Any]:  # fmt: skip
        found, full = self.buy(blocks, fill), len(self.lattice) - 1
        return {
            "strategy": name, "subset": NOTHING if bought is None else bought.label,
            "filled": bool(fill and any(code != full for code, _ in blocks)),
            "samples": sum(samples for _, samples in blocks), "labels": found.labels,
            "cells": sum(found.cells.values()), **{f"cells {key}": count for key, count in found.cells.items()},
            "cost": found.cost, "score": found.score, "predicted": expected, "trainings": trainings + 1,
            "minutes": (seconds + found.seconds) / 60,
        }  # fmt: skip

    def _fills(self, rule: Strategy, blocks: Blocks) -> bool:
        """Rules that rehearsed do what was better in the rehearsal; the others generate, as SK-LL does."""
        full = len(self.lattice) - 1
        partial = [code for code, _ in blocks if code != full]
        if "outlook" not in rule.needs or not partial:
            return bool(partial)
        return self.rehearsed[0].fills(self.lattice.subset(partial[0]))

    def _oracle(self) -> dict[str, Any]:
        """The best of every subset, filled and not, of what any rule bought, and of nothing."""
        trainings, seconds = len(self.known), sum(found.seconds for found in self.known.values())
        (blocks, fill), _ = max(self.known.items(), key=lambda item: (item[1].score, -item[1].cost))
        bought = Candidate(blocks, self.known[blocks, fill].cost, self._label(blocks)) if blocks else None
        return self._row("oracle", bought, blocks, fill, math.nan, trainings - 1, seconds)

    def _label(self, blocks: Blocks) -> str:
        return " and ".join(self.lattice.label(code) for code, _ in blocks)

    # ------------------------------------------------------------------ predicted against realised

    def _predicted(self, rules: Sequence[Strategy]) -> dict[str, dict[int, float]]:
        """For each predictor that a rule goes by, and plain utility beside them, a number for each subset."""
        wanted = {PREDICTORS[rule.name] for rule in rules if rule.name in PREDICTORS}
        case = self._case()
        if not case.candidates:
            return {}
        found: dict[str, dict[int, float]] = {}
        if wanted - {"rehearsal"}:
            mean = self.utilities.mean
            cooperation = self.lattice.cooperation(mean, normalise="self", on_negative="raw", minimum=0.0)
            found["utility"] = {one.code: float(mean[one.code] - mean[0]) for one in case.candidates}
            found["utility-per-cost"] = {
                one.code: found["utility"][one.code] * one.samples / max(one.cost, 1e-12) for one in case.candidates
            }
            found["cooperation"] = {one.code: float(cooperation[one.code]) for one in case.candidates}
        if "rehearsal" in wanted:
            knowledge, outlook, _ = self.rehearsed
            # Where no quality could be stated, the zeros that a cautious plan puts in their place order nothing.
            stated = knowledge.rehearsal is None or knowledge.rehearsal.known
            singles = [one for one in case.candidates if stated and outlook.knows(one)]
            found["rehearsal"] = dict(zip([one.code for one in singles], outlook.gains(singles)[0].tolist()))
        return found

    def _agreement(
        self, name: str, table: Mapping[int, float], realised: Mapping[str, Mapping[bool, float]]
    ) -> dict[str, Any]:
        """Rank correlation over subsets of what was predicted with what came of it; NaN where there is no order."""
        codes = [code for code, value in table.items() if np.isfinite(value)]
        full = len(self.lattice) - 1
        arms = [
            self.rehearsed[0].fills(self.lattice.subset(code)) if name == "rehearsal" and code != full else True
            for code in codes
        ]
        gains = [realised[self.lattice.label(code)][arm] for code, arm in zip(codes, arms)]
        values = [table[code] for code in codes]
        nothing = len(codes) < 3 or len(set(values)) < 2 or len(set(gains)) < 2
        return {
            "kendall": math.nan if nothing else float(stats.kendalltau(values, gains).statistic),
            "spearman": math.nan if nothing else float(stats.spearmanr(values, gains).statistic),
            "subsets": len(codes),
        }


def _plain(value: Any) -> Any:
    """JSON data; NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
