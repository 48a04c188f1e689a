"""The sections of a plan's page: why, what it costs, what was compared, what would change it, what was measured."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from lacunar.planning.costs import CostModel
from lacunar.planning.result import Plan
from lacunar.report.page import Block, Column, Drawing, Row, Section, Table, Text
from lacunar.report.plan_figures import (
    candidate_figure,
    group_figure,
    learning_figure,
    money_figure,
    quality_figure,
)
from lacunar.report.plan_words import (
    NOTHING,
    axis,
    interval,
    listed,
    number,
    percent,
    rows_of,
    score,
    sentence,
    signed,
    unlabel,
)

__all__ = [
    "comparison_section", "cost_lines", "curve_section", "fairness_section", "flip_section", "order_section",
    "rehearsal_section", "utility_section", "why_section",
]  # fmt: skip

SHOWN = 12
"""Candidates in the figure and in the table; of more the others are listed by name."""
LINES = 5
"""Candidates whose gain is drawn against money."""
UNSURE = 0.5


def why_section(plan: Plan) -> Section:
    """What speaks for the recommendation, and how sure it is."""
    blocks: list[Block] = []
    if plan.reason and not plan.collect_nothing:
        blocks.append(Text(sentence(plan.reason)))
    if plan.runner_up and plan.p_best < UNSURE and not plan.collect_nothing:
        row = _row(plan, plan.runner_up)
        text = (
            f"Collecting {unlabel(plan.runner_up)} is more likely to gain most ({percent(float(row['p_best']))}), but "
            "less of its gain is sure. This plan goes by what is sure: the lower end of the interval."
        )
        if plan.strategy == "rehearsal" and float(row["p_best"]) > plan.p_best:
            blocks.append(Text(text, strong=True))
    elif plan.tied:
        text = f"With what the pilot shows it cannot be told apart from collecting {listed(map(unlabel, plan.tied), 'or')}."
        blocks.append(Text(text))
    if plan.information > 0 and not math.isnan(plan.gain):
        part = (
            f" ({plan.information / plan.gain:.0%} of the expected gain)".replace("%", "\u00a0%")
            if plan.gain > 0
            else ""
        )
        blocks.append(
            Text(f"Knowing for sure which choice is best before buying would add {number(plan.information)}{part}.")
        )
    if plan.collect_nothing and plan.budget:
        blocks.append(
            Text("The money is kept. A larger pilot narrows the intervals; see below what would change this.")
        )
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
    bought = compared[(compared["samples"] > 0) & compared["gain"].notna()]
    drawn = bought.head(SHOWN)
    if len(drawn):
        section.blocks.append(_gains(plan, drawn))
        money = _money(plan, drawn)
        if money is not None:
            section.blocks.append(money)
    if len(compared) > 1:
        section.blocks.append(_candidates(plan, compared))
    left = frame[~frame.index.isin(compared.index)]
    for note, part in left.groupby("note", sort=False):
        section.blocks.append(Text(_left_out(str(note), [unlabel(str(label)) for label in part["subset"]])))
    return section


def _gains(plan: Plan, drawn: pd.DataFrame) -> Drawing:
    table = drawn[["gain", "low", "high"]].assign(chosen=drawn["note"].str.startswith("recommended"))
    margins = [f"{int(row.samples):,} for {plan.amount(row.cost)}" for row in drawn.itertuples()]
    top = drawn.sort_values("gain", ascending=False).iloc[0]
    return Drawing(
        candidate_figure(
            table, np.array(rows_of(list(drawn["subset"]), plan.names)), plan.names, f"expected gain ({axis(plan.metric)})",
            margins,
        ),
        f"Expected gain of {len(drawn)} purchases. Largest: {unlabel(top['subset'])}, {signed(float(top['gain']))} "
        f"({interval(float(top['low']), float(top['high']))}). The table below holds every number.",
        f"Each row is a purchase: filled dots are what is collected. The line is the {100 * plan.confidence:g} % interval "
        "of what it gains; right of the dashed line it is better than collecting nothing. "
        + ("Orange: recommended. " if table["chosen"].any() else "")
        + "At the right: how many samples the money buys.",
    )  # fmt: skip


def _money(plan: Plan, drawn: pd.DataFrame) -> Drawing | None:
    """Gain against money, read off the learning curve at what each amount buys."""
    costs = CostModel.read(plan.costs)
    plain = drawn[~drawn["subset"].str.contains(" and ") & drawn["quality"].notna()]
    if not len(plan.curve) or len(plain) < 1:
        return None
    chosen = plain["note"].str.startswith("recommended")
    leading = pd.concat([plain[chosen], plain[~chosen].sort_values("gain", ascending=False)]).head(LINES)
    end = 1.4 * float(leading["cost"].max())
    if not end > 0:
        return None
    n, scores = plan.curve["n"].to_numpy(float), plan.curve["score"].to_numpy(float)
    lines = {}
    for row in leading.itertuples():
        least = costs.smallest(str(row.subset))
        amounts = np.unique(
            np.concatenate([np.linspace(0, end, 160), [min(least, end), max(min(least, end) - 1e-6, 0)]])
        )
        counts = np.array([costs.affordable(str(row.subset), float(amount)) for amount in amounts])
        effective = plan.start + max(float(row.quality), 0.0) * counts
        lines[str(row.subset)] = (amounts, np.interp(effective, n, scores) - np.interp(plan.start, n, scores))
    points = leading.rename(columns={"subset": "label"})[["label", "cost", "gain", "low", "high"]]
    currency = costs.currency or "money"
    shown = {unlabel(label): line for label, line in lines.items()}
    said = "; ".join(
        f"{unlabel(str(row.subset))} {signed(row.gain)} for {plan.amount(row.cost)}" for row in leading.itertuples()
    )
    return Drawing(
        money_figure(
            shown,
            points.assign(label=points["label"].map(unlabel)),
            f"spent ({currency})",
            "expected gain",
            plan.budget,
        ),
        f"Expected gain against money spent: {said}.",
        "What each amount would gain, for the leading purchases; the marks with their intervals are those that were "
        "compared. A curve that flattens says that more of the same is worth little.",
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
    for row, held in zip(compared.itertuples(), rows_of(list(compared["subset"]), plan.names)):
        chosen = row.note.startswith("recommended")
        note = row.note.removeprefix("recommended").removeprefix(", ")
        rows.append(
            Row(
                [
                    unlabel(str(row.subset)), f"{int(row.samples):,}", plan.amount(row.cost), number(row.quality),
                    signed(row.gain), "-" if row.subset == NOTHING else interval(row.low, row.high), percent(row.p_best),
                    signed(row.gain_per_cost * per), note,
                ],
                held, "recommended" if chosen else "", "best" if chosen else "",
            )
        )  # fmt: skip
    if not any(row.cells[-1] for row in rows):
        columns, rows = columns[:-1], [Row(row.cells[:-1], row.members, row.note, row.mark) for row in rows]
    return Table("Every purchase that was compared, in units of the score", columns, rows)


def _left_out(note: str, labels: list[str]) -> str:
    some = ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")
    if note == "not rehearsed":
        return f"Not compared: {some}. By what the pilot's subsets score alone they promised less."
    return f"Not compared: {some} ({note})."


def flip_section(plan: Plan) -> Section:
    """How far prices, budget and the rest can move before something else is recommended."""
    section = Section("flips", "What would change this")
    if not len(plan.flips):
        if len(plan.candidates) > 1:
            section.blocks.append(Text("No price, and not the budget, changes it within a factor of 16."))
        return section
    rows = []
    for flip in plan.flips.itertuples():
        then = "nothing" if flip.to == NOTHING else unlabel(flip.to)
        if flip.what == "threshold":
            rows.append(Row(["Gain that is worth buying for", number(plan.min_gain), number(flip.value), "", then]))
            continue
        what = {
            "cost": f"Price of {flip.modality}", "budget": "Budget",
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


def curve_section(plan: Plan) -> Section:
    """How the score grows with data."""
    section = Section("curve", "What more data are worth")
    if not len(plan.curve):
        return section
    chosen = plan.candidates[plan.candidates["note"].str.startswith("recommended") & (plan.candidates["samples"] > 0)]
    then = None
    if len(chosen) and not math.isnan(chosen.iloc[0]["effective"]):
        then = plan.start + float(chosen.iloc[0]["effective"])
    full = "+".join(plan.names)
    points = plan.points
    if len(points):
        points = points[points["subset"] == full]
    now = f"{plan.start:,.0f} complete samples"
    text = f"Now there are {now}"
    if then is not None:
        text += f"; with the purchase there is as much to learn from as in {then:,.0f}"
    far = then is not None and len(points) and then > 2 * float(points["n"].max())
    if far and then is not None:
        text += f". The curve was measured up to {float(points['n'].max()):,.0f} and is read {then / float(points['n'].max()):.1f} times beyond"
    blocks: list[Block] = [
        Text(text + ".", strong=bool(far and then is not None and then > 4 * float(points["n"].max())))
    ]
    values = f"from {score(float(plan.curve['score'].iloc[0]), plan.metric)} now"
    blocks.append(
        Drawing(
            learning_figure(plan.curve, points, plan.start, then, axis(plan.metric), plan.target),
            f"Learning curve of the model with all modalities, {values}"
            + (f" to {score(plan.score, plan.metric)} after the purchase." if then is not None else "."),
            f"Dots: models trained on parts of the pilot. The band is the {100 * plan.confidence:g} % interval of the "
            "curve. A purchase of incomplete samples counts as the complete ones it is worth.",
        )
    )
    section.blocks += blocks
    return section


def rehearsal_section(plan: Plan) -> Section:
    """How much generating recovers, and whether filling helps."""
    section = Section("rehearsal", "Does generating the rest help?")
    frame = plan.rehearsal
    if not len(frame):
        return section
    measured = {"filled", "not_filled", "benefit"} <= set(frame)
    known = frame[frame["quality"].notna()]
    if measured:
        helped = [unlabel(label) for label in frame.loc[frame["arm"] == "filled", "subset"]]
        text = (
            "Inside the pilot a part of the complete samples was cut down to what would be bought, the rest was "
            "generated or left absent, and a model was trained on each. "
        )
        if len(helped) == len(frame):
            text += "Generating the rest was better than leaving it absent for all of them."
        elif helped:
            text += (
                f"Generating the rest helped where {listed(helped, 'or')} was collected; elsewhere it is left absent."
            )
        else:
            text += "For none of them was generating the rest shown to be better than leaving it absent, so it is left absent."
        section.blocks.append(Text(text))
    if not len(known):
        section.blocks.append(
            Text("More complete samples brought no gain in the pilot that could be told from zero, so that there is "
                 "nothing that generating could have recovered.", strong=True)
        )  # fmt: skip
    else:
        members = np.array(rows_of(list(known["subset"]), plan.names))
        said = "; ".join(f"{unlabel(row.subset)} {number(row.quality)}" for row in known.itertuples())
        section.blocks.append(
            Drawing(
                quality_figure(known.reset_index(drop=True), members, plan.names),
                f"What one sample of each subset is worth, in complete samples: {said}.",
                "Grey: between as if nothing had been bought (0) and as good as complete samples (1). Lines: intervals.",
            )
        )
    if measured:
        columns = [
            Column("collected", False),
            Column("worth"),
            Column("interval"),
            Column("rest generated"),
            Column("rest absent"),
        ]
        columns += [Column("generated minus absent, score"), Column("interval"), Column("so the rest is", False)]
        rows = [
            Row(
                [
                    unlabel(row.subset), number(row.quality), interval(row.low, row.high), number(row.filled),
                    number(row.not_filled), signed(row.benefit), interval(row.benefit_low, row.benefit_high),
                    "generated" if row.arm == "filled" else "left absent",
                ],
                held,
            )
            for row, held in zip(frame.itertuples(), rows_of(list(frame["subset"]), plan.names))
        ]  # fmt: skip
        section.blocks.append(
            Table("The rehearsal. Worth: complete samples that one such sample amounts to", columns, rows)
        )
    return section


def fairness_section(plan: Plan) -> Section:
    """The effect by subgroup, measured."""
    section = Section("subgroups", "Whom it helps")
    frame = plan.fairness
    if frame is None or not len(frame):
        return section
    known = frame[frame["gain"].notna()]
    if len(known):
        labels = [f"{row.attribute}: {row.group} (n={row.n})" for row in known.itertuples()]
        said = "; ".join(f"{label} {signed(gain)}" for label, gain in zip(labels, known["gain"]))
        section.blocks.append(
            Drawing(
                group_figure(known.assign(label=labels).reset_index(drop=True), f"measured gain ({axis(plan.metric)})"),
                f"Measured gain by subgroup: {said}.",
                "Measured inside the pilot, where the same kind of samples was added to one half of the complete ones: "
                "the size of the gain is another, its order between subgroups is what to look at.",
            )
        )
    else:
        section.blocks.append(Text("Every subgroup is too small for a claim: below 30 scored samples.", strong=True))
    columns = [
        Column("subgroup", False),
        Column("n"),
        Column("before"),
        Column("after"),
        Column("gain"),
        Column("interval"),
    ]
    rows = []
    for row in frame.itertuples():
        cells = [f"{row.attribute}: {row.group}", f"{row.n:,}"]
        if math.isnan(row.gain):
            rows.append(Row([*cells, "-", "-", "-", "no claim below 30"]))
        else:
            cells += [score(row.before, plan.metric), score(row.after, plan.metric), signed(row.gain)]
            rows.append(Row([*cells, interval(row.low, row.high)], mark="worst" if row.high < 0 else ""))
    section.blocks.append(Table("Score of each subgroup without and with such samples", columns, rows))
    if plan.gaps is not None and len(plan.gaps):
        for row in plan.gaps.itertuples():
            clear = "narrows" if row.high < 0 else "widens" if row.low > 0 else "does not clearly change"
            section.blocks.append(
                Text(
                    f"The largest difference by {row.attribute} {clear}: {number(row.before)} before, {number(row.after)} "
                    f"after, change {signed(row.change)} ({interval(row.low, row.high)}).", strong=row.low > 0,
                )
            )  # fmt: skip
    return section


def utility_section(plan: Plan) -> Section:
    """What every subset scores by itself in the pilot."""
    frame = plan.utilities
    if not len(frame):
        return Section("utilities", "What each combination scores by itself")
    columns = [
        Column("combination", False),
        Column(axis(plan.metric)),
        Column("interval"),
        Column("more than a constant"),
    ]
    columns += [Column("trained on"), Column("scored on")]
    ordered = frame.sort_values("value", ascending=False)
    rows = [
        Row(
            [
                "no modality" if row.subset == NOTHING else unlabel(row.subset), number(row.value),
                f"{number(row.low)} to {number(row.high)}", signed(row.gain), f"{row.n_train:,.0f}", f"{row.n_eval:,.0f}",
            ],
            held,
        )
        for row, held in zip(ordered.itertuples(), rows_of(list(ordered["subset"]), plan.names))
    ]  # fmt: skip
    text = "A model for each combination, trained and scored inside the pilot. It chose which purchases to rehearse."
    if plan.strategy != "rehearsal":
        text = "A model for each combination, trained and scored inside the pilot."
    return Section(
        "utilities", "What each combination scores by itself", [Text(text), Table("Utilities", columns, rows)]
    )


def _row(plan: Plan, label: str) -> pd.Series:
    return plan.candidates[plan.candidates["subset"] == label].iloc[0]
