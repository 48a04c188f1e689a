"""A plan in words, for a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from lacunar.planning.candidates import NOTHING

if TYPE_CHECKING:
    from lacunar.planning.result import Plan

__all__ = ["plan_text"]

WIDTH = 110
_SHOWN = 12


def plan_text(plan: Plan) -> str:
    """What to do first, then how sure it is, then the comparison, then what it rests on."""
    return "\n".join([*_headline(plan), "", *_comparison(plan), *_flips(plan), *_fairness(plan), *_footing(plan)])


def _headline(plan: Plan) -> list[str]:
    asked = f"budget {plan.amount(plan.budget)}" if plan.budget is not None else f"target {plan.target:g}"
    title = f"Plan ({plan.strategy}, {asked}, {plan.metric}, higher is better)"
    if plan.collect_nothing:
        lines = [title, "", "COLLECT NOTHING", *_wrap(f"Why: {plan.reason}.")]
    else:
        kinds = ", and ".join(f"{samples:,} samples with {'+'.join(names)}" for names, samples in plan.blocks)
        cells = ", ".join(
            f"{name} {count:,}" + (f" (ask for {plan.ask[name]:,})" if plan.ask[name] != count else "")
            for name, count in plan.cells.items()
            if count
        )
        lines = [
            title, "", f"COLLECT {' + '.join(plan.subset).upper()}",
            *_wrap(f"{kinds}; cells: {cells}; price {plan.amount(plan.cost)}."),
        ]  # fmt: skip
        if plan.reason:
            lines += _wrap(f"Why: {plan.reason}.")
        if not math.isnan(plan.gain):
            lines += _wrap(
                f"Expected {plan.metric}: {plan.now:.4g} now, {plan.score:.4g} then; gain {plan.gain:+.4g} "
                f"[{plan.low:+.4g}, {plan.high:+.4g}] ({plan.confidence:.0%} interval)."
            )
        if not math.isnan(plan.p_target):
            lines += _wrap(f"Probability that the target is reached: {plan.p_target:.2f}.")
    if not math.isnan(plan.p_best):
        sure = f"Probability that this is the best choice: {plan.p_best:.2f}"
        second = "collecting nothing" if plan.runner_up == NOTHING else plan.runner_up
        sure += f"; next is {second}." if plan.runner_up else "."
        if plan.tied:
            others = ", ".join("nothing" if label == NOTHING else label for label in plan.tied)
            sure += f" It cannot be told apart from: {others}."
        lines += _wrap(sure)
    if plan.information > 0:
        lines += _wrap(f"Knowing for sure which is best before buying would be worth {plan.information:.2g} more.")
    return lines


def _comparison(plan: Plan) -> list[str]:
    frame = plan.candidates
    if not len(frame):
        return []
    shown = frame.head(_SHOWN)
    columns = {
        "what": shown["subset"],
        "samples": shown["samples"].map(lambda value: f"{value:,.0f}"),
        "price": shown["cost"].map(lambda value: "-" if math.isnan(value) else plan.amount(value)),
        "quality": shown["quality"].map(_number),
        "gain": [
            "-" if math.isnan(gain) else f"{gain:+.3g} [{low:+.3g}, {high:+.3g}]"
            for gain, low, high in zip(shown["gain"], shown["low"], shown["high"])
        ],
        "p(best)": shown["p_best"].map(lambda value: "-" if math.isnan(value) else f"{value:.2f}"),
        "note": shown["note"],
    }
    lines = ["Compared", *_indent(pd.DataFrame(columns).to_string(index=False))]
    if len(frame) > len(shown):
        lines.append(f"  and {len(frame) - len(shown)} more")
    return [*lines, ""]


def _flips(plan: Plan) -> list[str]:
    if not (plan.candidates["samples"] > 0).any():
        return []  # nothing could be bought, and the reason says what would have to change
    if not len(plan.flips):
        return ["Nothing within a factor of 16 of a price or the budget changes this.", ""]
    lines = []
    for row in _rows(plan.flips):
        to = "nothing" if row.to == NOTHING else row.to
        if row.what == "threshold":
            lines.append(f"  a gain worth buying for of {row.value:.3g}: {to}")
        else:
            price = "set-up" if plan.costs["per_cell"].get(row.modality) == 0 else "price"
            what = {"cost": f"{price} of {row.modality}", "quality": f"completion quality of {row.modality}"}.get(
                row.what, row.what
            )
            change = f"times {row.factor:.2f} (to {row.value:,.4g})"
            lines.append(f"  {what} {change}: {to}")
    return ["What would change it", *lines, ""]


def _fairness(plan: Plan) -> list[str]:
    if plan.fairness is None or not len(plan.fairness):
        return []
    lines = ["By subgroup"]
    for row in _rows(plan.fairness):
        told = (
            row.note or f"{row.before:.4g} to {row.after:.4g}, gain {row.gain:+.3g} [{row.low:+.3g}, {row.high:+.3g}]"
        )
        lines.append(f"  {row.attribute} {row.group} (n={row.n}): {told}")
    for row in _rows(plan.gaps):
        lines.append(
            f"  largest difference by {row.attribute}: {row.before:.3g} to {row.after:.3g}, change {row.change:+.3g} "
            f"[{row.low:+.3g}, {row.high:+.3g}]"
        )
    return [*lines, ""]


def _footing(plan: Plan) -> list[str]:
    lines = ["Assumed", *[line for text in plan.assumptions for line in _bullet(text)]] if plan.assumptions else []
    if plan.notes:
        lines += ["Notes", *[line for text in plan.notes for line in _bullet(text)]]
    trained = plan.audit.get("trainings")
    if trained is not None:
        lines.append(f"{trained} models trained in {plan.audit.get('seconds', 0.0):.0f} s.")
    return lines


def _rows(frame: pd.DataFrame | None) -> Iterator[Any]:
    return iter(()) if frame is None else frame.itertuples(index=False)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH)


def _bullet(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="- ", subsequent_indent="  ")


def _indent(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]
