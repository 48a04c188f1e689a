"""The sections of a plan's page about what was measured: the curve, the rehearsal, the subgroups, the utilities."""

from __future__ import annotations

import math

import numpy as np

from lacunar.planning.result import Plan
from lacunar.report.page import Block, Column, Drawing, Row, Section, Table, Text
from lacunar.report.plan_figures import group_figure, learning_figure, quality_figure
from lacunar.report.plan_words import (
    NOTHING,
    axis,
    each,
    interval,
    listed,
    number,
    rows_of,
    score,
    signed,
    span,
    unlabel,
)

__all__ = ["curve_section", "fairness_section", "rehearsal_section", "utility_section"]

FAR = 4
"""How many times beyond what was measured a curve is no more than a guess."""


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
    text, strong = f"Now there are {now}", False
    if then is not None:
        text += f"; with the purchase there is as much to learn from as in {then:,.0f}"
    if then is not None and len(points) and then > 2 * points["n"].max():
        reach = float(points["n"].max())
        text += f". The curve was measured up to {reach:,.0f} and is read at {then / reach:.1f} times as many"
        strong = then > FAR * reach
    blocks: list[Block] = [Text(text + ".", strong)]
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
            text += (
                "For none of them was generating shown to be better than leaving the rest absent: it is left absent."
            )
        section.blocks.append(Text(text))
    if not len(known):
        section.blocks.append(
            Text("More complete samples brought no gain in the pilot that could be told from zero, so that there is "
                 "nothing that generating could have recovered.", strong=True)
        )  # fmt: skip
    else:
        members = np.array(rows_of(list(known["subset"]), plan.names))
        said = "; ".join(f"{unlabel(row.subset)} {number(row.quality)}" for row in each(known))
        section.blocks.append(
            Drawing(
                quality_figure(known.reset_index(drop=True), members, plan.names),
                f"What one sample of each subset is worth, in complete samples: {said}.",
                "Grey: from as if nothing had been bought (0) to as good as complete samples (1). Lines: intervals.",
            )
        )
    if measured:
        columns = [
            Column("collected", False),
            Column("worth"),
            Column("interval"),
            Column("generated"),
            Column("absent"),
        ]
        columns += [Column("benefit"), Column("interval"), Column("the rest is", False)]
        rows = [
            Row(
                [
                    unlabel(row.subset), number(row.quality), span(row.low, row.high), number(row.filled),
                    number(row.not_filled), signed(row.benefit), interval(row.benefit_low, row.benefit_high),
                    "generated" if row.arm == "filled" else "absent",
                ],
                held,
            )
            for row, held in zip(each(frame), rows_of(list(frame["subset"]), plan.names))
        ]  # fmt: skip
        section.blocks.append(
            Table(
                "Worth: complete samples that one such sample amounts to. Benefit: generating minus leaving absent, "
                "in units of the score",
                columns,
                rows,
            )
        )
    return section


def fairness_section(plan: Plan) -> Section:
    """The effect by subgroup, measured."""
    section = Section("subgroups", "Whom it helps")
    frame = plan.fairness
    if frame is None or not len(frame):
        return section
    known = frame[frame["gain"].notna()]
    if len(known) > 1:
        labels = [f"{row.attribute}: {row.group} (n={row.n})" for row in each(known)]
        said = "; ".join(f"{label} {signed(gain)}" for label, gain in zip(labels, known["gain"]))
        section.blocks.append(
            Drawing(
                group_figure(known.assign(label=labels).reset_index(drop=True), f"measured gain ({axis(plan.metric)})"),
                f"Measured gain by subgroup: {said}.",
                "Measured inside the pilot, where the same kind of samples was added to one half of the complete ones: "
                "the size of the gain is another, its order between subgroups is what to look at.",
            )
        )
    elif not len(known):
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
    for row in each(frame):
        cells = [f"{row.attribute}: {row.group}", f"{row.n:,}"]
        if math.isnan(row.gain):
            rows.append(Row([*cells, "-", "-", "-", "no claim below 30"]))
        else:
            cells += [score(row.before, plan.metric), score(row.after, plan.metric), signed(row.gain)]
            rows.append(Row([*cells, interval(row.low, row.high)], mark="worst" if row.high < 0 else ""))
    section.blocks.append(Table("Score of each subgroup without and with such samples", columns, rows))
    if plan.gaps is not None and len(plan.gaps):
        for row in each(plan.gaps):
            clear = "narrows" if row.high < 0 else "widens" if row.low > 0 else "does not clearly change"
            section.blocks.append(
                Text(
                    f"The largest difference by {row.attribute} {clear}: {number(row.before)} before, "
                    f"{number(row.after)} after, change {signed(row.change)} ({interval(row.low, row.high)}).",
                    strong=row.low > 0,
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
                span(row.low, row.high), signed(row.gain), f"{row.n_train:,.0f}", f"{row.n_eval:,.0f}",
            ],
            held,
        )
        for row, held in zip(each(ordered), rows_of(list(ordered["subset"]), plan.names))
    ]  # fmt: skip
    text = "A model for each combination, trained and scored inside the pilot. It chose which purchases to rehearse."
    if plan.strategy != "rehearsal":
        text = "A model for each combination, trained and scored inside the pilot."
    return Section(
        "utilities", "What each combination scores by itself", [Text(text), Table("Utilities", columns, rows)]
    )
