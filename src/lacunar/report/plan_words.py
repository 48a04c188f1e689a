"""How a plan's page says numbers: signs, prices, metrics, and the one sentence that matters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lacunar.report.page import Tile

if TYPE_CHECKING:
    import pandas as pd

    from lacunar.planning.result import Plan

__all__ = [
    "NOTHING", "UNSURE", "axis", "each", "headline", "interval", "listed", "number", "percent", "rows_of", "score",
    "sentence", "signed", "span", "tiles", "unlabel", "verdict",
]  # fmt: skip

NOTHING = "none"
UNSURE = 0.5
"""Probability of being best below which something else is as likely to be better."""
#: How a metric is called, and whether smaller raw values are better, so that scores carry a minus sign.
METRICS = {
    "log_loss": ("log-loss", True), "brier": ("Brier score", True), "accuracy": ("accuracy", False),
    "balanced_accuracy": ("balanced accuracy", False), "f1": ("F1", False), "r2": ("R²", False),
    "mae": ("mean absolute error", True),
}  # fmt: skip


def metric_name(metric: str) -> str:
    """The name of a metric."""
    return METRICS.get(metric, (metric.replace("_", " "), False))[0]


def axis(metric: str) -> str:
    """What a score is, for an axis: higher is better always."""
    name, flipped = METRICS.get(metric, (metric.replace("_", " "), False))
    return f"{name}, negated: higher is better" if flipped else name


def number(value: float) -> str:
    """Some three figures and a real minus sign; a dash where there is none."""
    if math.isnan(value):
        return "-"
    size = abs(value)
    if size >= 100:
        text = f"{value:,.0f}"
    elif size >= 0.01:
        text = f"{value:.2f}" if size >= 1 else f"{value:.3f}"
    else:
        text = f"{value:.2g}"
    return text.replace("-", "\u2212", 1)


def score(value: float, metric: str) -> str:
    """A score in the unit of the metric, losses as they are usually told."""
    flipped = METRICS.get(metric, ("", False))[1]
    return number(-value if flipped else value)


def signed(value: float) -> str:
    """A gain: with its sign."""
    if math.isnan(value):
        return "-"
    return "0" if value == 0 else ("+" if value > 0 else "") + number(value)


def interval(low: float, high: float) -> str:
    """Both ends with their signs."""
    return "-" if math.isnan(low) else f"{signed(low)} to {signed(high)}"


def span(low: float, high: float) -> str:
    """Both ends of what is no gain."""
    return "-" if math.isnan(low) else f"{number(low)} to {number(high)}"


def percent(share: float) -> str:
    """A probability; never surer than its draws."""
    if math.isnan(share):
        return "-"
    if 0 < share < 0.01:
        return "below 1 %"
    if 0.99 < share < 1:
        return "above 99 %"
    return f"{share:.0%}".replace("%", "\u00a0%")


def listed(words: Iterable[str], last: str = "and") -> str:
    """``a, b and c``."""
    found = list(words)
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} {last} {found[-1]}" if found else "nothing"


def unlabel(label: str) -> str:
    """A label in words: ``image+text`` as ``image + text``."""
    return "nothing" if label == NOTHING else label.replace("+", " + ")


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def headline(plan: Plan) -> str:
    """The recommendation in a few words."""
    return "Collect nothing" if plan.collect_nothing else f"Collect {listed(plan.subset)}"


def verdict(plan: Plan) -> str:
    """The recommendation in one sentence, with what is expected of it and how sure it is."""
    asked = f"With {plan.amount(plan.budget)}" if plan.budget is not None else ""
    if plan.target is not None:
        asked = f"To reach {metric_name(plan.metric)} {score(plan.target, plan.metric)}"
    if plan.collect_nothing:
        return f"{asked}, collect nothing: {_reason(plan)}."
    what = listed((f"{samples:,} new samples with {listed(names)}" for names, samples in plan.blocks), "and")
    text = f"{asked}, collect {what}, for {plan.amount(plan.cost)}"
    if not math.isnan(plan.gain):
        goes = "fall" if METRICS.get(plan.metric, ("", False))[1] else "rise"
        text += (
            f": {metric_name(plan.metric)} is expected to {goes} from {score(plan.now, plan.metric)} to "
            f"{score(plan.score, plan.metric)}, a gain of {number(plan.gain)} ({_confidence(plan)} interval "
            f"{number(plan.low)} to {number(plan.high)})"
        )
    else:
        text += f". The strategy {plan.strategy} predicts no gain"
    if not math.isnan(plan.p_target):
        text += f". The target is reached with a probability of {percent(plan.p_target)}"
    return text + "."


def tiles(plan: Plan) -> list[Tile]:
    """The numbers that matter."""
    best = plan.candidates[plan.candidates["subset"] == plan.runner_up]
    second = ""
    if plan.runner_up and len(best):
        row = best.iloc[0]
        second = f"probability {percent(float(row['p_best']))}"
        if plan.runner_up != NOTHING and not math.isnan(row["gain"]):
            second += f", gain {signed(float(row['gain']))}"
    found = []
    if plan.collect_nothing:
        kept = plan.budget is not None and plan.budget > 0
        found.append(Tile("Money kept", plan.amount(plan.budget) if kept and plan.budget else plan.amount(0)))
        bought = plan.candidates[(plan.candidates["samples"] > 0) & plan.candidates["gain"].notna()]
        if len(bought):
            row = bought.sort_values("gain", ascending=False).iloc[0]
            detail = f"{_confidence(plan)} interval {interval(row['low'], row['high'])}"
            found.append(Tile(f"Largest gain: {unlabel(row['subset'])}", signed(row["gain"]), detail))
    else:
        limit = f"of {plan.amount(plan.budget)}" if plan.budget is not None else ""
        found.append(Tile("Cost", plan.amount(plan.cost), limit))
        if not math.isnan(plan.gain):
            found.append(
                Tile(
                    "Expected gain", signed(plan.gain), f"{_confidence(plan)} interval {interval(plan.low, plan.high)}"
                )
            )
    if not math.isnan(plan.p_best) and (plan.candidates["samples"] > 0).any():
        found.append(Tile("Probability of being best", percent(plan.p_best), _told_apart(plan)))
    if plan.runner_up:
        found.append(Tile("Next best", unlabel(plan.runner_up), second))
    return found


def _told_apart(plan: Plan) -> str:
    if plan.p_best < UNSURE and not plan.collect_nothing and plan.strategy == "rehearsal":
        return "chosen for the gain that is sure"
    return f"not told apart from {listed(map(unlabel, plan.tied), 'or')}" if plan.tied else "of what was compared"


def _confidence(plan: Plan) -> str:
    return f"{100 * plan.confidence:g}\u00a0%"


def _reason(plan: Plan) -> str:
    return plan.reason or "no purchase is worth its price"


def each(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows of a frame, with its columns as attributes."""
    return iter(frame.itertuples(index=False))


def rows_of(labels: Sequence[str], names: Sequence[str]) -> list[list[bool]]:
    """Which modalities each label holds; a mixture holds those of all of its parts."""
    return [
        [name in {part for one in label.split(" and ") for part in one.split("+")} for name in names]
        for label in labels
    ]
