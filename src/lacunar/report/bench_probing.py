"""The sections of a comparison about what is inside trained networks: capability of encoders, fused features."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lacunar.evaluation.statistics import seed_interval
from lacunar.report.bench_course import left_out
from lacunar.report.bench_numbers import NOTHING, points, spread
from lacunar.report.page import Block, Column, Drawing, Row, Section, Table, Text
from lacunar.report.style import INK, MOST_LINES, line_style, new_figure, quiet

__all__ = ["capability_figure", "capability_section", "fused_section"]

#: Networks of one modality, by the train rows that they saw.
_ALONE = {
    "observed": "a network of this modality alone, the same train samples",
    "complete": "a network of this modality alone, all train samples",
}
_FUSED = {
    "intra": "within classes", "inter": "between classes", "ratio": "ratio", "cosine": "cosine",
    "ratio_unit": "ratio, unit length", "silhouette": "silhouette", "norm": "length",
}  # fmt: skip


def capability_section(
    final: pd.DataFrame, during: pd.DataFrame, alone: pd.DataFrame, against: str = "", confidence: float = 0.95
) -> Section:
    """What each encoder can do alone at the end of training and on the way (Figs. 8 and 9 of MCE).

    Args:
        final: scores of probes by method and modality, from :func:`lacunar.bench.probing.probed`.
        during: the same with ``epoch``.
        alone: scores of networks of one modality, from the same.
        against: the method that encoders of the others are compared with, beside networks of one modality.
        confidence: of the intervals of differences.
    """
    if final.empty:
        return Section("capability", "Capability of the encoders")
    text = (
        "Each encoder is frozen and a linear head is trained on its features alone, on the train samples that have "
        "the modality. Percent, means over seeds and settings with the standard deviation over seeds; at the end of "
        "training on test, during it on validation."
    )
    if len(alone):
        text += (
            " Beside them networks that are trained on one modality from the start, on the same train samples and on "
            "all of them before any cell was hidden, which is the upper bound that the paper draws."
        )
    text += (
        f" Differences are paired by seed, in points, with Student's interval over seeds ({100 * confidence:g} %), not "
        "adjusted for how many there are."
    )
    blocks: list[Block] = [Text(text)]
    for data, part in final.groupby("data", sort=False):
        names = list(dict.fromkeys(part["modality"]))
        networks = alone[alone["data"] == data]
        bounds = networks.assign(method=networks["rows"].map(_ALONE), score=networks["test"])
        rows = _rows(pd.concat([part, bounds]), names)
        columns = [Column("method", False), *(Column(str(name)) for name in names)]
        own = during[during["data"] == data]
        if len(own):
            alt = f"{data}: capability of each encoder during training"
            shown = (
                f"One panel a modality, one line a method.{left_out(own)} Validation chose the probes, too: levels are "
                "somewhat too high, most where few samples have the modality; compare the lines with each other."
            )
            if len(networks):
                shown += " Dotted: a network of the modality alone that was trained on all train samples."
            blocks.append(Drawing(capability_figure(own, networks), alt, shown))
        blocks.append(Table(f"{data}: capability of each encoder", columns, rows))
        single = bounds[bounds["rows"] == "observed"]
        for base, others, said in (
            (part[part["method"] == against], part[part["method"] != against], f"minus {against}"),
            (single, part, f"minus {_ALONE['observed']}"),
        ):
            compared = _differences(others, base, names, confidence)
            if compared:
                blocks.append(Table(f"{data}: capability of each encoder {said}", columns, compared))
    return Section("capability", "Capability of the encoders", blocks)


def _rows(scores: pd.DataFrame, names: list[str]) -> list[Row]:
    by_seed = scores.groupby(["method", "modality", "seed"], sort=False)["score"].mean()
    groups = by_seed.groupby(level=[0, 1], sort=False)
    mean, deviation = groups.mean().unstack(), groups.std().unstack()
    return [
        Row([str(method), *(spread(mean.loc[method, name], deviation.loc[method, name]) for name in names)])
        for method in dict.fromkeys(scores["method"])
    ]


def _differences(scores: pd.DataFrame, base: pd.DataFrame, names: list[str], confidence: float) -> list[Row]:
    """Methods minus a base, by modality: paired by setting and seed, then averaged over settings. Nothing where no two
    seeds are shared."""
    cell = ["modality", "seed", "problem"]
    by_cell = scores.groupby([*cell, "method"], sort=False)["score"].mean().unstack("method")
    paired = by_cell.sub(base.groupby(cell)["score"].mean(), axis=0)
    gaps = paired.groupby(level=["modality", "seed"], sort=False).mean()
    rows, empty = [], True
    for method in dict.fromkeys(scores["method"]):
        cells = [str(method)]
        for name in names:
            own = gaps[method].xs(name, level="modality").dropna()
            if len(own) < 2:
                cells.append(NOTHING)
                continue
            found, empty = seed_interval(own.to_numpy(), confidence=confidence), False
            cells.append(f"{points(found.value)} [{points(found.low)}, {points(found.high)}]")
        rows.append(Row(cells))
    return [] if empty else rows


def capability_figure(during: pd.DataFrame, alone: pd.DataFrame | None = None) -> Figure:
    """Capability of each encoder by epoch: a panel a modality, a line a method.

    Args:
        during: columns ``method``, ``modality``, ``epoch`` and ``score``.
        alone: columns ``rows``, ``modality`` and ``val``; those of ``complete`` rows are a line across.
    """
    names, methods = list(dict.fromkeys(during["modality"])), list(dict.fromkeys(during["method"]))[:MOST_LINES]
    means = during.pivot_table(index="epoch", columns=["modality", "method"], values="score", sort=False).sort_index()
    bounds = pd.Series(dtype=float)
    if alone is not None:
        bounds = alone[alone["rows"] == "complete"].groupby("modality")["val"].mean()
    with quiet():
        figure = new_figure(2.8)
        panels = np.atleast_1d(figure.subplots(1, len(names)))
        for axes, name in zip(panels, names):
            for number, method in enumerate(methods):
                if (name, method) in means.columns:
                    line = means[name][method].dropna()
                    axes.plot(line.index, line, label=str(method), **line_style(number))
            if name in bounds:
                axes.axhline(bounds[name], color=INK, linewidth=1.0, linestyle=":")
            axes.set_title(str(name))
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panels[0].set_ylabel("probe score")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(methods), 5))
    return figure


def fused_section(fused: pd.DataFrame) -> Section:
    """How compact and how far apart classes are in the features that the head reads (Table 7 of MCE).

    Args:
        fused: from :func:`lacunar.bench.probing.fused`.
    """
    if fused.empty:
        return Section("fused", "Fused features")
    text = (
        "What the head reads, on the test samples under every subset of their modalities. Within classes: mean "
        "distance to the mean of the class; between classes: mean distance of two class means; their ratio, the lower "
        "the better; mean cosine of a sample with the mean of its class. Distances shrink with the features: the "
        "ratio after every sample is scaled to length one, the silhouette, and the length itself tell that from "
        "separation. Means over seeds and settings with the standard deviation over seeds."
    )
    blocks: list[Block] = [Text(text)]
    columns = [Column("method", False), *(Column(head) for head in _FUSED.values())]
    for data, part in fused.groupby("data", sort=False):
        by_seed = part.groupby(["method", "seed"], sort=False)[list(_FUSED)].mean()
        groups = by_seed.groupby(level=0, sort=False)
        mean, deviation = groups.mean(), groups.std()
        rows = [
            Row([str(method), *(_plain(mean.loc[method, one], deviation.loc[method, one]) for one in _FUSED)])
            for method in mean.index
        ]
        blocks.append(Table(f"{data}: fused features", columns, rows))
    return Section("fused", "Fused features", blocks)


def _plain(mean: float, deviation: float) -> str:
    if not np.isfinite(mean):
        return NOTHING
    return f"{mean:.2f}" + (f" ± {deviation:.2f}" if np.isfinite(deviation) else "")
