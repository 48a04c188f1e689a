"""The sections about the data and about how training went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from lacunar.report.figures import (
    ROWS,
    curves_figure,
    modality_figure,
    pattern_figure,
    probe_figure,
    trajectory_figure,
    validation_figure,
)
from lacunar.report.page import Block, Column, Drawing, Preformatted, Row, Section, Table, Text, number
from lacunar.report.summary import DataSummary, Shown

__all__ = ["capability_section", "data_sections", "representation_section", "training_sections"]

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
MEASURES = {
    "intra": ("spread within classes", "mean distance of a class's samples to their centre"),
    "inter": ("distance between classes", "mean distance between two class centres"),
    "ratio": ("within / between", "smaller is better; does not depend on the scale"),
    "cosine": ("cosine consistency", "mean cosine of a class's samples with their centre; larger is better"),
    "ratio_unit": ("within / between, unit length", "the same after every sample is scaled to length one"),
    "silhouette": ("silhouette", "from -1 to 1; larger is better"),
    "fisher": ("Fisher ratio", "scatter between over scatter within classes; larger is better"),
    "norm": ("length", "mean length of a feature vector: tells shrinking from separating"),
}


def data_sections(data: DataSummary, min_cell: int = 0) -> list[Section]:
    """Who has what: patterns, missing rates, class counts, the card."""
    shown = data.shown(min_cell)
    counts, rates = shown.patterns, shown.rates
    complete = (2 ** len(data.names)) - 1
    absent = ", ".join(f"{name} {_percent(rates.iloc[m, 0])}" for m, name in enumerate(data.names))
    many = "pattern" if len(counts) == 1 else "patterns"
    # The sum of all parts would tell the size of one that is not shown.
    total = "Samples" if shown.samples.isna().any() else f"{number(int(shown.samples.sum()))} samples"
    text = f"{total} in {len(counts)} presence {many}. Missing rates ({rates.columns[0]}): {absent}. "
    frequent = ""
    if min_cell <= 1:
        whole = int(counts.loc[complete].sum()) if complete in counts.index else 0
        text += f"{number(whole)} samples have every modality."
        common = int(counts.iloc[0].sum())
        frequent = f"; the most frequent is {data.label(int(counts.index[0]))} with {common} samples"
    if data.dropped >= max(min_cell, 1):
        text += f" {number(data.dropped)} samples that had nothing were left out."
    drawing = Drawing(
        pattern_figure(counts, shown.members, data.names, rates),
        f"Presence patterns: {len(counts)} combinations{frequent}. Missing rates: {absent}.",
        "Each row is a combination of modalities that samples have, the most frequent first. A missing rate is the "
        "fraction of samples in which a modality is absent: .8 means that 8 of 10 samples lack it."
        + (f" The {ROWS} most frequent of {len(counts)} combinations are drawn." if len(counts) > ROWS else "")
        + (f" Counts below {min_cell} are not shown, nor what would tell them." if min_cell > 1 else ""),
    )
    rows = [
        Row([data.label(int(code)), *(_count(value, min_cell) for value in line)], shown.members[row].tolist())
        for row, (code, line) in enumerate(zip(counts.index, counts.to_numpy()))
    ]
    patterns = Table("Samples with each combination", [Column("pattern", False), *map(Column, counts.columns)], rows)
    columns = [Column("modality", False), Column("kind", False), Column("shape", False)]
    columns += [Column(f"missing, {part}") for part in rates.columns]
    about = [
        Row(
            [name, data.kinds[name], data.shapes[name], *(number(rate) for rate in rates.loc[name])],
            [other == name for other in data.names],
        )
        for name in data.names
    ]
    blocks: list[Block] = [Text(text), drawing, patterns]
    asked = data.presence.get("asked")
    if asked:
        columns.append(Column("asked for", hint="before samples that were left with nothing were taken out"))
        for row in about:
            row.cells.append(number(asked.get(row.cells[0], 0.0)))
        facts = f"law {data.presence.get('law')}, seed {data.presence.get('seed')}"
        blocks.append(Text(f"Some cells were hidden on purpose, for an experiment: {facts}."))
    blocks.append(Table("Modalities and their missing rates", columns, about))
    return [Section("presence", "Who has what", blocks), Section("card", "The data", _card(data, shown, min_cell))]


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


def capability_section(
    probes: pd.DataFrame | None,
    trajectory: pd.DataFrame | None,
    names: Sequence[str],
    score_name: str,
    min_cell: int = 0,
) -> Section:
    """What each encoder knows by itself, at the end and while it was trained.

    Args:
        probes: what :func:`lacunar.evaluation.capability` returns.
        trajectory: what :func:`lacunar.evaluation.capability_trajectory` returns.
        names: modalities in lattice order.
        score_name: what the score is.
        min_cell: above 1, how many samples have a modality is not shown, for patterns can be found from it.
    """
    blocks: list[Block] = []
    if probes is not None and len(probes):
        wide: Any = probes["score"].unstack(["rows", "head"]).reindex([name for name in names if name in probes.index])
        spread = probes["std"].unstack(["rows", "head"]).reindex(wide.index)
        bars = pd.DataFrame(index=wide.index)
        for column in wide:
            title = f"{column[1]} head, {column[0]} rows" if len({c[0] for c in wide}) > 1 else f"{column[1]} head"
            bars[title] = wide[column]
            if spread[column].notna().all():
                bars[f"{title} low"], bars[f"{title} high"] = (
                    wide[column] - spread[column],
                    wide[column] + spread[column],
                )
        bars["constant answer"] = probes["baseline"].groupby(level="modality").first()
        said = ", ".join(f"{name} {wide.loc[name].max():.3f}" for name in wide.index)
        blocks.append(
            Drawing(
                probe_figure(bars, score_name),
                f"Capability of each encoder, {score_name} of a fresh head: {said}.",
                "The encoder of each modality is frozen and a new head is trained on its features alone. Lines: one "
                "standard deviation over seeds.",
            )
        )
        columns = [Column("modality", False), Column("rows", False), Column("head", False), Column(score_name)]
        columns += [Column("std over seeds"), Column("constant answer")]
        counts = [] if min_cell > 1 else ["n_train", "n"]
        columns += [Column({"n_train": "trained on", "n": "scored on"}[name]) for name in counts]
        rows = [
            Row(
                [
                    *map(str, key), number(line["score"]), number(line["std"]), number(line["baseline"]),
                    *(number(int(line[count])) for count in counts),
                ],
                [name == key[0] for name in names],
            )
            for key, line in zip(probes.index, probes.to_dict("records"))
        ]  # fmt: skip
        blocks.append(Table("Probes of the frozen encoders", columns, rows))
    if trajectory is not None and len(trajectory):
        wide = trajectory["score"].groupby(level=["epoch", "modality"]).max().unstack("modality")
        wide = wide.set_axis(wide.index.astype(int) + 1)
        ends = ", ".join(f"{name} {wide[name].iloc[0]:.3f} to {wide[name].iloc[-1]:.3f}" for name in wide)
        blocks.append(
            Drawing(
                trajectory_figure(wide, names, None, score_name),
                f"Capability of each encoder during training: {ends}.",
                "The same probe on the weights of several epochs; scored on validation samples by the command line, "
                "since looking at a curve is a kind of selection.",
            )
        )
    return Section("capability", "What each encoder knows", blocks)


def representation_section(quality: pd.DataFrame | None, names: Sequence[str], min_cell: int = 0) -> Section:
    """How well the fused features separate the classes: what :func:`representation_quality` returns.

    With ``min_cell`` above 1 without the number of samples that have a subset, from which patterns can be found.
    """
    if quality is None or not len(quality):
        return Section("representation", "Representation quality")
    kept = [name for name in MEASURES if name in quality]
    counted = "n" in quality and min_cell <= 1
    columns = [Column("subset", False)] + ([Column("n")] if counted else [])
    columns += [Column(MEASURES[name][0], hint=MEASURES[name][1]) for name in kept]
    rows = []
    for label, line in zip(quality.index, quality.to_dict("records")):
        count = [number(int(line["n"]))] if counted else []
        shown = "all conditions" if label == "all" else str(label).replace("+", " + ")
        held = [label == "all" or name in str(label).split("+") for name in names]
        rows.append(Row([shown, *count, *(number(line[name]) for name in kept)], held))
    text = (
        "Features that the head reads, by class: compact classes that lie far apart are easy to tell. Distances depend "
        "on the scale of the features; ratio, cosine and the unit-length columns do not."
    )
    return Section("representation", "Representation quality", [Text(text), Table("Fused features", columns, rows)])


def _card(data: DataSummary, shown: Shown, min_cell: int) -> list[Block]:
    blocks: list[Block] = []
    columns = [Column("part", False), Column("samples")]
    labels, classes = shown.labels, list(map(str, shown.labels.index))
    columns += [Column(label) for label in classes]
    rows = []
    for part, count in shown.samples.items():
        cells = [str(part), _count(count, min_cell)]
        cells += [_count(labels.at[label, part], min_cell) if part in labels else "-" for label in classes]
        rows.append(Row(cells))
    title = "Samples in each part" + (" and of each class" if classes else "")
    blocks += [Text(f"{data.name}: {data.task}."), Table(title, columns, rows)]
    if data.card:
        blocks.append(Preformatted(data.card, "Data card"))
    return blocks


def _count(value: Any, min_cell: int) -> str:
    return f"fewer than {min_cell}, or hidden with it" if value != value else number(int(value))


def _percent(rate: Any) -> str:
    return "not shown" if rate != rate else f"{rate:.0%}".replace("%", " %")
