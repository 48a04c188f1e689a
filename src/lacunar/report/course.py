"""The section about how training went."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lacunar.report.figures import curves_figure, modality_figure, validation_figure
from lacunar.report.page import Block, Drawing, Section

__all__ = ["training_sections"]

#: What is drawn of each modality over time: prefix in the log, title, how to read it.
DIAGNOSTICS = {
    "phi": "φ: what it adds to the joint model",
    "upper": "U: what it can do alone",
    "B": "B: weight, how far it falls short",
    "A": "A: weight, how rare it is",
}
#: Why an epoch was kept.
KEPT = {
    "best": "the best mean over subsets",
    "loss": "the lowest validation loss, as was asked for",
    "last": "the last one, as was asked for",
}


def training_sections(
    history: pd.DataFrame,
    names: Sequence[str],
    best: int | None,
    score_name: str,
    select: str = "best",
    min_cell: int = 0,
) -> list[Section]:
    """Validation scores, loss terms and what the objective saw of each modality, over epochs.

    Args:
        history: one row per epoch, as ``run.history``.
        names: modalities in lattice order.
        best: the best epoch, from 0; None while training is unfinished.
        score_name: what the score is.
        select: which epoch was kept, as for :func:`lacunar.fit`.
        min_cell: counts of samples from 1 to ``min_cell - 1`` are not to be found from anything that is shown.
    """
    if history.empty:
        return []
    history = history.set_axis(history.index.astype(int) + 1)
    chosen = None if best is None or best < 0 else int(history.index[-1]) if select == "last" else best + 1
    blocks: list[Block] = []
    scores = history[[column for column in history if str(column) == "val/score"]]
    if len(scores.columns) and scores["val/score"].notna().any():
        full = "val/score/" + "+".join(names)
        lines = pd.DataFrame({"mean over subsets": history["val/score"]})
        if full in history and len(names) > 1:
            lines["everything present"] = history[full]
        single = [column for column in history if str(column).startswith("val/score/")]
        if len(single) > 1:
            lines["worst subset"] = history[single].min(axis=1)
        last = lines.dropna(how="all")
        kept = "" if chosen is None else f" The weights of epoch {chosen} were kept: {KEPT[select]}."
        blocks.append(
            Drawing(
                validation_figure(lines, chosen, score_name),
                f"Validation {score_name} over {len(last)} epochs; mean over subsets "
                f"{last['mean over subsets'].iloc[0]:.3f} at first, {last['mean over subsets'].iloc[-1]:.3f} at last.",
                "Scores of the network on the validation samples, which training never sees." + kept,
            )
        )
    terms = [column for column in history if str(column).startswith("loss/")]
    if terms:
        losses = history[terms].rename(columns=lambda column: str(column).removeprefix("loss/"))
        ends = ", ".join(f"{name} {losses[name].iloc[0]:.3f} to {losses[name].iloc[-1]:.3f}" for name in losses)
        blocks.append(
            Drawing(
                curves_figure(losses, "loss, weighted"),
                f"Loss terms over epochs: {ends}.",
                "Terms of the loss, each with its weight, averaged over the training samples of an epoch.",
            )
        )
    tables = {}
    for key, title in DIAGNOSTICS.items():
        if key == "A" and min_cell > 1:
            continue  # the availabilities, and so counts, can be read off it
        columns = {f"{key}/{name}": name for name in names if f"{key}/{name}" in history}
        if len(names) == 1 and key in history:
            columns = {key: names[0]}
        if columns:
            tables[title] = history[list(columns)].rename(columns=columns)
    if tables:
        last_row = "; ".join(
            f"{title.split(':')[0]} " + ", ".join(f"{name} {table[name].iloc[-1]:.3f}" for name in table)
            for title, table in tables.items()
        )
        blocks.append(
            Drawing(
                modality_figure(tables, names),
                f"What the objective saw of each modality. In the last epoch: {last_row}.",
                "φ is the Shapley value of a modality in the joint model on the training samples that have it, U the "
                "score of a frozen model of that modality alone. B is the mean gap between the two and A the inverse "
                "of the availability"
                + (" (not shown here, for it tells counts)" if min_cell > 1 else "")
                + ": a modality with a large A times B is pushed harder.",
            )
        )
    return [Section("training", "How training went", blocks)]
