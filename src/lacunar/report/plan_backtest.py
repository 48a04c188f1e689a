"""The section of a plan's page about a backtest: which rule would have bought best."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lacunar.planning.costs import CostModel
from lacunar.report.page import Block, Column, Drawing, Entries, Row, Section, Table, Text
from lacunar.report.plan_figures import backtest_figure
from lacunar.report.plan_words import axis, interval, number, percent, sentence, signed, unlabel

if TYPE_CHECKING:
    import pandas as pd

    from lacunar.planning.backtest import Backtest

__all__ = ["backtest_section"]


def backtest_section(found: Backtest, strategy: str) -> Section:
    """What every strategy bought, what came of it, and how well it had foreseen it."""
    summary, prices = found.summary, CostModel.read(found.config["costs"])
    trial = found.trials[0]
    text = (
        f"Of the complete samples {trial['test']:,} were set aside to score by, {trial['pilot']:,} played the pilot, and "
        f"{trial['pool']:,} were for sale, their values hidden until bought. Each rule spent "
        f"{prices.amount(found.config['budget'])}; {_times(len(found.trials))}."
    )
    blocks: list[Block] = [Text(text), Text(_said(summary, strategy))]
    drawn = summary[summary["gain"].notna()].fillna({"gain_low": math.nan})
    said = "; ".join(f"{row.strategy} {signed(row.gain)}" for row in drawn.itertuples())
    blocks.append(
        Drawing(
            backtest_figure(drawn.reset_index(drop=True), strategy, f"score ({axis(found.metric)})"),
            f"Realised gain of each rule: {said}.",
            f"Means over {len(found.trials)} repeats with {100 * found.config['confidence']:g} % intervals. Regret is what the "
            "best known purchase would have gained more; it was found by looking at the outcome. Orange: this plan's rule.",
        )
    )
    columns = [Column("rule", False), Column("bought most often", False), Column("realised gain"), Column("interval")]
    columns += [
        Column("regret"), Column("interval"),
        Column("rank correlation", hint="Kendall's tau over subsets: what the rule goes by against the realised gain"),
        Column("bought nothing"), Column("spent"), Column("models trained"),
    ]  # fmt: skip
    rows = [
        Row(
            [
                row.strategy, unlabel(row.bought), signed(row.gain), interval(row.gain_low, row.gain_high),
                number(row.regret), f"{number(row.regret_low)} to {number(row.regret_high)}"
                if not math.isnan(row.regret_low) else "-", number(row.kendall), percent(row.nothing),
                prices.amount(row.cost), f"{row.trainings:,.0f}",
            ],
            mark="best" if row.strategy == strategy else "",
        )
        for row in summary.itertuples()
    ]  # fmt: skip
    blocks.append(Table("Rules in the backtest, best first", columns, rows))
    notes = [*found.notes, *_exhausted(found)]
    if notes:
        blocks.append(Entries([sentence(note) for note in notes]))
    return Section("backtest", "Would this rule have bought well?", blocks)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times, with other samples each time"


def _said(summary: pd.DataFrame, strategy: str) -> str:
    """The plan's own rule against the others, in one sentence."""
    lines = summary.set_index("strategy")
    if strategy not in lines.index:
        return f"The rule of this plan, {strategy}, was not among them."
    own = lines.loc[strategy]
    text = f"This plan's rule, {strategy}, gained {signed(float(own['gain']))} on average"
    rivals = lines.drop(index=[name for name in (strategy, "oracle") if name in lines.index])
    if len(rivals):
        better = rivals[rivals["gain"] > own["gain"]]
        if len(better):
            text += f"; {better.index[0]} gained {signed(float(better['gain'].iloc[0]))}"
        else:
            text += f", as much as or more than any other rule (next: {rivals.index[0]}, {signed(float(rivals['gain'].iloc[0]))})"
    return text + f". Hindsight would have gained {number(float(own['regret']))} more."


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
