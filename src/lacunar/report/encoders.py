"""The sections about what the encoders know and how the fused features lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from lacunar.report.figures import probe_figure, trajectory_figure
from lacunar.report.page import Block, Column, Drawing, Row, Section, Table, Text, number

__all__ = ["capability_section", "representation_section"]

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
