"""The page of measured ratios."""

from __future__ import annotations

import platform
import textwrap
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pandas as pd
import torch

from benchmarks.measure import Figure, Options
from lacunar.bench.machine import processor

__all__ = ["machine", "page", "picks_section"]

#: What ``python -m benchmarks.picks`` found, where the documents keep it.
PICKS = Path(__file__).parents[1] / "docs" / "results" / "picks.csv"

ABOUT = """\
# Benchmarks

`make bench` (or `python -m benchmarks`) measures all of this but the last section in one run and writes this page; one
benchmark alone runs with `python -m benchmarks step` (also `modalities`, `methods`, `loop`, `evaluation`, `bounded`,
`utilities`). All figures are ratios within the run: the alternatives run in turn (A B C, C B A, ...) after a warm-up, a
training step being forward, backward and optimiser, and the table gives the median over the rounds of the ratio within
a round, with its quartiles. Everything runs on the processor.

What is compared:

* **dense joint**: plain training as it is usually done: every encoder runs on every sample, with zeros for what is
  absent; the rest of the model sees the same numbers as in the packed step.
* **packed joint**: plain training, `lacunar.Joint`; encoders see only what exists.
* **MCE**: all three losses, both factors, exact Shapley values, every subset of every sample up to 6 modalities and a
  budget of 16 beyond. The paper reports 12.7 times its baseline for its own code (Table 8), on another machine.
* **floor**: one packed pass of the encoders and every pair of a sample and a subset through completion, fusion and head
  with a plain mean of losses. Whoever trains on every subset does at least this. It is measured in the same rounds.
* **every other method**: a step of its dearest stage, with its own networks and gradient hooks. Its floor: the networks
  that its definition runs, each as often as it says, with plain means of losses; it may cost 1.5 times that.

Memory is the peak of the bytes of all tensors that a step makes and that live at the same time, counted at every
operation; weights, optimiser state and the batch are there before and are not counted, nor is scratch space inside a
kernel.
"""

ABOUT_PICKS = """\
`{command}` (`--epochs` says how long an ordinary training is; the default of `lacunar.fit` is 40). The reference is a
table of `retrain` utilities (log-loss) over {cuts} cuts of the data; against it stand {repeats} repeats of
`amortised`, each one model on a cut of its own that the reference has not seen. A repeat agrees at a size when the
subset that it ranks first there has a reference utility within one standard error (of the mean over the cuts) of the
best one's. *Tied* is how many subsets of the size lie within that. *Retrained once* is how many single repeats of the
reference, with a model for every subset each, agree with the mean of the other {others}: what retraining once, at
2^M - 1 times the cost, would reach. After each stands how much reference utility its picks lose against the best, in
the mean. The two estimators differ in kind
where a model for one subset alone gets worse by a further modality, as it may with few samples, and the model of all
subsets, which is held back by having to serve each of them, does not."""


def machine(options: Options, before: str, after: str) -> str:
    """What the figures were measured on."""
    clock = "wall time" if options.clock == "wall" else "processor time of the process"
    return (
        f"{date.today()}; {processor()}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads; {clock}, {options.rounds} rounds. Before: {before}. After: {after}."
    )


def page(figures: Sequence[Figure], where: str) -> str:
    """The page in Markdown."""
    lines = [ABOUT, "## The machine", "", where, ""]
    for section in dict.fromkeys(figure.section for figure in figures):
        own = [figure for figure in figures if figure.section == section]
        lines += [f"## {section}", "", "| | ratio | quartiles | at most | |", "|---|---|---|---|---|"]
        for figure in own:
            target = "" if figure.target is None else f"{figure.target:g}"
            spread = f"{figure.low:.2f} to {figure.high:.2f}" if figure.high > figure.low else ""
            lines.append(f"| {figure.name} | **{figure.value:.2f}** | {spread} | {target} | {figure.verdict} |")
        lines += ["", *(f"- *{figure.name}*: {figure.note}" for figure in own if figure.note), ""]
    if PICKS.exists():
        lines += picks_section(pd.read_csv(PICKS, dtype={"size": str}, keep_default_na=False))
    return "\n".join(lines)


def picks_section(found: pd.DataFrame) -> list[str]:
    """The table of :func:`benchmarks.picks.agreement`, in Markdown."""
    found = found.assign(data=[f"{row.data}, {row.epochs} epochs" for row in found.itertuples()])
    whole = found[found["size"] == "every"].set_index("data")
    reached = "; ".join(
        f"{name} {row.agree} of {row.repeats} (retrained once {row.reference_agrees} of {row.reference_repeats})"
        for name, row in whole.iterrows()
    )
    first = found.iloc[0]
    command = "python -m benchmarks.picks --out results/picks"
    cuts = first.reference_repeats
    words = ABOUT_PICKS.format(command=command, cuts=cuts, others=cuts - 1, repeats=first.repeats)
    columns = ("data", "size", "amortised agrees", "retrained once", "best (standard error)", "tied", "picked")
    lines = [
        "## Does the amortised table pick what retraining would?", "", *textwrap.wrap(words, 120), "",
        f"At every size at once: {reached}. Asked for: 9 of 10.", "",
        f"| {' | '.join(columns)} |", "|---" * len(columns) + "|",
    ]  # fmt: skip
    for row in found[found["size"] != "every"].itertuples():
        lines.append(
            f"| {row.data} | {row.size} | **{row.agree} of {row.repeats}**, {float(row.lost):.3f} | "
            f"{row.reference_agrees} of {row.reference_repeats}, {float(row.reference_lost):.3f} | "
            f"{row.best}: {float(row.utility):.3f} ({float(row.standard_error):.3f}) | "
            f"{int(float(row.tie))} of {row.subsets} | {row.picks} |"
        )
    lines.append("")
    for name, row in whole.iterrows():
        lines.append(
            f"- *{name}*: with everything {float(row.utility):.3f} retrained, {float(row.amortised):.3f} amortised; "
            f"what adds least is {row.worst_addition} retrained, {row.amortised_worst_addition} amortised."
        )
    return [*lines, ""]
