"""The sections of a plan's page about the decision: how sure it is, what to order, what else there was."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from lacunar.planning.costs import CostModel
from lacunar.planning.result import Plan
from lacunar.report.page import Block, Column, Drawing, Row, Section, Table, Text
from lacunar.report.plan_figures import (
    candidate_figure,
    money_figure,
)
from lacunar.report.plan_words import (
    NOTHING,
    UNSURE,
    axis,
    each,
    interval,
    listed,
    number,
    percent,
    rows_of,
    sentence,
    signed,
    unlabel,
)

__all__ = [
    "comparison_section", "cost_lines", "flip_section", "order_section", "why_section",
]  # fmt: skip

SHOWN = 12
"""Candidates in the figure and in the table; of more the others are listed by name."""
WORTH = 0.05
"""Share of the largest gain from which on perfect information is worth a sentence."""
LINES = 5
"""Candidates whose gain is drawn against money."""


_EXTRA = {"per_sample": "finding a sample", "label": "a label"}


def why_section(plan: Plan) -> Section:
    """What speaks for the recommendation, and how sure it is."""
    blocks: list[Block] = []
    if plan.reason and not plan.collect_nothing:
        blocks.append(Text(sentence(plan.reason)))
    others = plan.candidates[plan.candidates["subset"] == plan.runner_up]
    likelier = len(others) > 0 and float(others.iloc[0]["p_best"]) > plan.p_best
    if likelier and plan.p_best < UNSURE and plan.strategy == "rehearsal" and not plan.collect_nothing:
        chance = percent(float(others.iloc[0]["p_best"]))
        text = f"Judged by what is most likely instead of what is sure, it would be {unlabel(plan.runner_up)}: "
        blocks.append(Text(f"{text}it gains most with a probability of {chance}.", strong=True))
    elif plan.tied:
        others_named = listed(map(unlabel, plan.tied), "or")
        blocks.append(Text(f"With what the pilot shows it cannot be told apart from collecting {others_named}."))
    largest = plan.candidates["gain"].max()
    if plan.information > WORTH * largest:
        part = f"{plan.information / largest:.0%}".replace("%", "\u00a0%")
        text = f"Knowing for sure which choice is best before buying would add {number(plan.information)}"
        blocks.append(Text(f"{text}, {part} of the largest gain."))
    if plan.collect_nothing and len(_bought(plan)):
        blocks.append(Text("A larger pilot narrows the intervals; further down stands what would change the answer."))
    return Section("why", "How sure this is", blocks)


def cost_lines(plan: Plan) -> list[tuple[str, int, float, float]]:
    """What is paid for: each thing, how many, the price of one, and of all; together they are the cost."""
    costs = CostModel.read(plan.costs)
    lines: dict[tuple[str, float], int] = {}

    def add(what: str, count: int, price: float) -> None:
        if price > 0 and count > 0:
            lines[what, price] = lines.get((what, price), 0) + count

    for name in plan.subset:
        add(f"set-up of {name}", 1, costs.setup.get(name, 0.0))
    for names, samples in plan.blocks:
        add("finding a sample", samples, costs.per_sample)
        for unit in costs.units(names):
            orders = math.ceil(samples / (1 - unit.failure) - 1e-9)
            add(" and ".join(unit.names) + (" together" if len(unit.names) > 1 else ""), orders, unit.price)
        add("label", samples, costs.label)
    return [(what, count, price, count * price) for (what, price), count in lines.items()]


def order_section(plan: Plan) -> Section:
    """What to order, and what each part of it costs."""
    if plan.collect_nothing:
        return Section("order", "What to order")
    costs, blocks = CostModel.read(plan.costs), []
    if any(plan.ask[name] != count for name, count in plan.cells.items()):
        asked = [
            f"{name}: ask for {plan.ask[name]:,}, so that {count:,} are expected to arrive"
            for name, count in plan.cells.items()
            if plan.ask[name] != count
        ]
        blocks.append(Text(sentence(listed(asked))))
    rows = [
        Row([what[:1].upper() + what[1:], f"{count:,}", costs.amount(price), costs.amount(total)])
        for what, count, price, total in cost_lines(plan)
    ]
    rows.append(Row(["Together", "", "", plan.amount(plan.cost)], mark="best"))
    columns = [Column("what", False), Column("how many"), Column("price of one"), Column("price")]
    table = Table(f"{plan.samples:,} new samples, each with a label", columns, rows)
    return Section("order", "What to order", [*blocks, table])


def comparison_section(plan: Plan) -> Section:
    """Everything that was compared: gains with intervals, gains against money, and the numbers."""
    section = Section("comparison", "What was compared")
    frame = plan.candidates
    compared = frame[(frame["samples"] > 0) | (frame["subset"] == NOTHING)]
    drawn = _bought(plan).head(SHOWN)
    if len(drawn):
        section.blocks.append(_gains(plan, drawn))
        money = _money(plan, drawn)
        if money is not None:
            section.blocks.append(money)
    if len(compared) > 1:
        section.blocks.append(_candidates(plan, compared))
    guessed = [unlabel(str(label)) for label in compared.loc[compared["note"].str.contains("unknown"), "subset"]]
    if guessed:
        text = (
            f"What samples of {listed(guessed, 'or')} are worth could not be told in this pilot, and was taken as "
            "nothing: they may be better than they look here."
        )
        section.blocks.append(Text(text, strong=True))
    left = frame[~frame.index.isin(compared.index)]
    dear = left["note"].str.startswith("beyond the budget")
    for note, part in left[~dear].groupby("note", sort=False):
        section.blocks.append(Text(_left_out(str(note), [unlabel(str(label)) for label in part["subset"]])))
    if dear.any():
        section.blocks.append(_beyond(plan, left[dear]))
    return section


def _bought(plan: Plan) -> pd.DataFrame:
    """The purchases that a gain is predicted for."""
    return plan.candidates[(plan.candidates["samples"] > 0) & plan.candidates["gain"].notna()]


def _beyond(plan: Plan, left: pd.DataFrame) -> Table:
    costs = CostModel.read(plan.costs)
    prices = sorted((costs.smallest(str(label)), str(label)) for label in left["subset"])
    members = rows_of([label for _, label in prices], plan.names)
    rows = [Row([unlabel(label), plan.amount(price)], held) for (price, label), held in zip(prices, members)]
    return Table("Beyond the budget", [Column("collect", False), Column("the smallest purchase costs")], rows)


def _gains(plan: Plan, drawn: pd.DataFrame) -> Drawing:
    chosen, guess = drawn["note"].str.startswith("recommended"), drawn["note"].str.contains("unknown")
    table = drawn[["gain", "low", "high"]].assign(chosen=chosen, guess=guess)
    margins = [f"{int(row.samples):,} for {plan.amount(row.cost)}" for row in each(drawn)]
    top = drawn.sort_values("gain", ascending=False).iloc[0]
    members = np.array(rows_of(list(drawn["subset"]), plan.names))
    return Drawing(
        candidate_figure(table, members, plan.names, f"expected gain ({axis(plan.metric)})", margins, plan.min_gain),
        f"Expected gain of {len(drawn)} purchases. Largest: {unlabel(top['subset'])}, {signed(float(top['gain']))} "
        f"({interval(float(top['low']), float(top['high']))}). The table below holds every number.",
        f"Each row is a purchase: filled dots are what is collected. The line is the {100 * plan.confidence:g} % "
        "interval of what it gains; right of the dashed line it is better than collecting nothing. "
        + ("Dotted: the smallest gain worth buying for. " if plan.min_gain > 0 else "")
        + ("Orange: recommended. " if chosen.any() else "")
        + ("Hollow: could not be measured, taken as 0. " if guess.any() else "")
        + "At the right: how many samples the money buys.",
    )  # fmt: skip


def _money(plan: Plan, drawn: pd.DataFrame) -> Drawing | None:
    """Gain against money, read off the learning curve at what each amount buys."""
    costs = CostModel.read(plan.costs)
    plain = drawn[~drawn["subset"].str.contains(" and ") & drawn["quality"].notna() & (drawn["cost"] > 0)]
    # Of what costs nothing but its set-up any amount buys without end.
    paid = [costs.marginal(label) > 0 or math.isfinite(costs.limit(label)) for label in plain["subset"].astype(str)]
    plain = plain[paid]
    if not len(plan.curve) or len(plain) < 1:
        return None
    chosen = plain["note"].str.startswith("recommended")
    leading = pd.concat([plain[chosen], plain[~chosen].sort_values("gain", ascending=False)]).head(LINES)
    end = 1.4 * float(leading["cost"].max())
    if not end > 0:
        return None
    n, scores = plan.curve["n"].to_numpy(float), plan.curve["score"].to_numpy(float)
    lines = {}
    for row in each(leading):
        least = costs.smallest(str(row.subset))
        amounts = np.unique(np.append(np.linspace(0, end, 400), min(least, end)))
        counts = np.array([costs.affordable(str(row.subset), float(amount)) for amount in amounts])
        effective = plan.start + max(float(row.quality), 0.0) * counts
        gains = np.interp(effective, n, scores) - np.interp(plan.start, n, scores)
        lines[unlabel(str(row.subset))] = amounts, gains
    points = leading.assign(label=leading["subset"].map(unlabel))[["label", "cost", "gain", "low", "high"]]
    first = points["label"].iloc[0] if chosen.any() else ""
    money = f"spent ({costs.currency})" if costs.currency else "spent"
    said = "; ".join(f"{row.label} {signed(row.gain)} for {plan.amount(row.cost)}" for row in each(points))
    return Drawing(
        money_figure(lines, points, money, "expected gain", plan.budget, first),
        f"Expected gain against money spent: {said}.",
        "What each amount would gain, for the leading purchases; the marks with their intervals are those that were "
        "compared. A mark is the mean over all draws of the curve and may lie off its line, which is the best fit. "
        "Where a line flattens, more of the same is worth little.",
    )


def _candidates(plan: Plan, compared: pd.DataFrame) -> Table:
    per = 1000.0
    columns = [Column("collect", False), Column("samples"), Column("price")]
    columns += [
        Column("worth", hint="complete samples that one such sample is worth: the completion quality"),
        Column("gain"), Column(f"{100 * plan.confidence:g}\u00a0% interval"),
        Column("probability of being best", hint="share of the bootstrap draws in which it gains most"),
        Column("gain per 1,000", hint="expected gain for 1,000 units of money"), Column("note", False),
    ]  # fmt: skip
    rows = []
    for row, held in zip(each(compared), rows_of(list(compared["subset"]), plan.names)):
        chosen = row.note.startswith("recommended")
        note = row.note.removeprefix("recommended").removeprefix(", ")
        rows.append(
            Row(
                [
                    unlabel(str(row.subset)), f"{int(row.samples):,}", plan.amount(row.cost), number(row.quality),
                    signed(row.gain), "-" if row.subset == NOTHING else interval(row.low, row.high),
                    percent(row.p_best), signed(row.gain_per_cost * per), note,
                ],
                held, "recommended" if chosen else "", "best" if chosen else "",
            )
        )  # fmt: skip
    kept = [k for k in range(len(columns)) if any(row.cells[k] not in ("", "-") for row in rows)]
    rows = [Row([row.cells[k] for k in kept], row.members, row.note, row.mark) for row in rows]
    columns = [columns[k] for k in kept]
    return Table("Every purchase that was compared, in units of the score", columns, rows)


def _left_out(note: str, labels: list[str]) -> str:
    some = ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")
    if note == "not rehearsed":
        return f"Not compared: {some}. By their own scores in the pilot they promised less for the money."
    return f"Not compared: {some} ({note})."


def flip_section(plan: Plan) -> Section:
    """How far prices, budget and the rest can move before something else is recommended."""
    section = Section("flips", "What would change this")
    if not len(plan.flips):
        if (plan.candidates["samples"] > 0).any():
            section.blocks.append(Text("No price, and not the budget, changes it within a factor of 16."))
        return section
    rows = []
    for flip in each(plan.flips):
        then = "nothing" if flip.to == NOTHING else unlabel(flip.to)
        if flip.what == "threshold":
            rows.append(Row(["Gain that is worth buying for", number(plan.min_gain), number(flip.value), "", then]))
            continue
        price = "Set-up" if plan.costs["per_cell"].get(flip.modality) == 0 else "Price"
        what = {
            "cost": f"{price} of {_EXTRA.get(flip.modality, flip.modality)}", "budget": "Budget",
            "quality": f"Worth of a sample with {unlabel(flip.modality)}",
        }.get(flip.what, flip.what)  # fmt: skip
        before = flip.value / flip.factor
        money = flip.what in ("cost", "budget")
        ends = [plan.amount(_round(value)) if money else number(value) for value in (before, flip.value)]
        change = flip.factor - 1
        moved = f"{change:+.0%}".replace("%", "\u00a0%").replace("-", "\u2212")
        rows.append(Row([what, *ends, moved if flip.factor < 3 else f"times {flip.factor:.1f}", then]))
    rows.sort(key=lambda row: row.cells[3] == "")
    columns = [
        Column("if this changed", False),
        Column("from"),
        Column("to"),
        Column("by"),
        Column("the plan would be", False),
    ]
    section.blocks.append(Table("The nearest change of each that leads to another recommendation", columns, rows))
    return section


def _round(value: float) -> float:
    """Three figures of a price that nobody has asked for yet."""
    return float(f"{value:.3g}")
