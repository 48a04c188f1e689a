"""The section of a plan's page about a backtest: which rule would have bought best."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lacunar.planning.costs import CostModel
from lacunar.report.page import Block, Column, Drawing, Entries, Row, Section, Table, Text
from lacunar.report.plan_figures import backtest_figure
from lacunar.report.plan_words import axis, each, interval, number, percent, sentence, signed, unlabel

if TYPE_CHECKING:
    import pandas as pd

    from lacunar.planning.backtest import Backtest

__all__ = ["backtest_section"]


def backtest_section(found: Backtest, strategy: str) -> Section:
    """What every strategy bought, what came of it, and how well it had foreseen it."""
    summary, prices = found.summary, CostModel.read(found.config["costs"])
    trial = found.trials[0]
    text = (
        f"Of the complete samples {trial['test']:,} were set aside to score by, {trial['pilot']:,} played the pilot, "
        f"and {trial['pool']:,} were for sale, their values hidden until bought. Each rule could spend "
        f"{prices.amount(found.config['budget'])}. {_times(len(found.trials))}"
    )
    blocks: list[Block] = [Text(text), Text(_said(summary, strategy))]
    drawn = summary[summary["gain"].notna()].fillna({"gain_low": math.nan})
    said = "; ".join(f"{row.strategy} {signed(row.gain)}" for row in each(drawn))
    blocks.append(
        Drawing(
            backtest_figure(drawn.reset_index(drop=True), strategy, f"score ({axis(found.metric)})"),
            f"Realised gain of each rule: {said}.",
            f"Means over {len(found.trials)} repeats with {100 * found.config['confidence']:g} % intervals. Regret: "
            "what the best known purchase would have gained more, found by looking at the outcome. Orange: this plan's "
            "rule.",
        )
    )
    columns = [Column("rule", False), Column("bought most often", False), Column("realised gain"), Column("interval")]
    columns += [
        Column("regret"),
        Column("rank correlation", hint="Kendall's tau over subsets: what the rule goes by against the realised gain"),
        Column("bought nothing"), Column("spent"), Column("models trained"),
    ]  # fmt: skip
    rows = [
        Row(
            [
                row.strategy, unlabel(row.bought), signed(row.gain), interval(row.gain_low, row.gain_high),
                number(row.regret), number(row.kendall), percent(row.nothing), prices.amount(round(row.cost)),
                f"{row.trainings:,.0f}",
            ],
            mark="best" if row.strategy == strategy else "",
        )
        for row in each(summary)
    ]  # fmt: skip
    blocks.append(Table("Rules in the backtest, best first", columns, rows))
    notes = [*found.notes, *_exhausted(found)]
    if notes:
        blocks.append(Entries([sentence(note) for note in notes]))
    return Section("backtest", "Would this rule have bought well?", blocks)


def _times(count: int) -> str:
    return "This was done once." if count == 1 else f"This was done {count} times, with other samples each time."


def _said(summary: pd.DataFrame, strategy: str) -> str:
    """The plan's own rule against the others, in one sentence."""
    gains: dict[str, float] = dict(zip(summary["strategy"], summary["gain"]))
    regrets: dict[str, float] = dict(zip(summary["strategy"], summary["regret"]))
    if strategy not in gains:
        return f"The rule of this plan, {strategy}, was not among them."
    own = gains[strategy]
    text = f"This plan's rule, {strategy}, gained {signed(own)} on average"
    rivals = {name: gain for name, gain in gains.items() if name not in (strategy, "oracle")}
    if rivals:
        best = max(rivals, key=lambda name: rivals[name])
        if rivals[best] > own:
            text += f"; {best} gained {signed(rivals[best])}"
        else:
            text += f", no less than any other rule (next: {best}, {signed(rivals[best])})"
    return text + f". Hindsight would have gained {number(regrets[strategy])} more."


def _exhausted(found: Backtest) -> list[str]:
    """A word where the money bought nothing, or everything that there was."""
    subsets = found.subsets
    if not len(subsets):
        return ["the budget bought nothing in the backtest: give it a larger one"]
    pool = found.trials[0]["pool"]
    out = subsets.groupby("subset")["samples"].min() >= pool
    if out.any():
        few = ", ".join(unlabel(str(label)) for label in out[out].index[:6])
        return [f"of {few} the budget bought all {pool:,} samples that were for sale, so that more was left unspent"]
    return []
