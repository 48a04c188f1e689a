"""A subset table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lacunar.lattice import MAX_TABLE

if TYPE_CHECKING:
    from lacunar.evaluation.table import SubsetTable

__all__ = ["table_text"]

ALL_ROWS = 31
"""Up to five modalities every subset gets a line."""
SHOWN = ("generated", "balanced_accuracy", "macro_f1", "log_loss", "ece", "exact_match", "r2", "mae", "rmse")


def table_text(table: SubsetTable) -> str:
    """Every subset in one line up to five modalities, and beyond that sizes, single modalities and the worst."""
    frame = table.frame
    percent = f"{100 * table.confidence:g} %"
    head = f"{table.score_name} on {len(table) - 1} subsets, {len(table.ids)} samples, {percent} bootstrap intervals"
    blocks = [head, "", *_lines(table, _chosen(frame, len(table.names)))]
    if len(frame) - 1 > ALL_ROWS:
        blocks += ["", *_sizes(frame)]
    low, high = table.mean_interval
    blocks += ["", f"mean {table.mean:.3f} {_interval(low, high)}   worst {table.worst}   full {_number(table.full)}"]
    if len(table.names) <= MAX_TABLE and np.isfinite(table.values.numpy()).all():
        rows = table.shapley().to_dict("index")
        parts = [f"{name} {row['shapley']:+.3f} {_interval(row['low'], row['high'])}" for name, row in rows.items()]
        blocks += ["Shapley values: " + ", ".join(parts)]
    if table.expert_scores is not None:
        blocks += _expert_lines(table)
    blocks += [f"note: {note}" for note in table.notes]
    return "\n".join(blocks)


def _chosen(frame: pd.DataFrame, modalities: int) -> pd.DataFrame:
    if len(frame) - 1 <= ALL_ROWS:
        return frame
    lines = pd.concat(
        [frame[frame["size"] <= 1], frame[frame["size"] == modalities], frame.iloc[1:].nsmallest(5, "score")]
    )
    return lines[~lines.index.duplicated()]


def _lines(table: SubsetTable, frame: pd.DataFrame) -> list[str]:
    extra = [name for name in frame.columns if name in SHOWN or name.split()[0] in ("dice", "iou")]
    scale = max(float(np.nanmax(table.frame["high"].fillna(table.frame["score"]))), 1e-9)
    header = ["subset", "n", table.score_name, "interval", *(name.replace("_", " ") for name in extra), ""]
    rows = []
    for label, row in frame.iterrows():
        bar = "" if np.isnan(row["score"]) else "█" * round(20 * row["score"] / scale)
        cells = [str(label), f"{int(row['n'])}", _number(row["score"]), _interval(row["low"], row["high"])]
        rows.append([*cells, *(_number(row[name]) for name in extra), bar])
    return _aligned([header, *rows], left=(0, len(header) - 1))


def _sizes(frame: pd.DataFrame) -> list[str]:
    rows = [["modalities", "subsets", "mean", "lowest", "highest"]]
    for size, part in frame.iloc[1:].groupby("size"):
        figures = [part["score"].mean(), part["score"].min(), part["score"].max()]
        rows.append([str(size), str(len(part)), *(_number(figure) for figure in figures)])
    return _aligned(rows)


def _expert_lines(table: SubsetTable) -> list[str]:
    below = table.below_experts
    if below.empty:
        return ["on no subset is the model below the best single-modality expert in it"]
    clear = int(below["clear"].sum())
    lines = [
        f"below the best single-modality expert on {len(below)} of {len(table.experts)} subsets ({clear} clearly):"
    ]
    for name, row in below.head(8).to_dict("index").items():
        label = f"{name}: {row['score']:.3f} against {row['expert score']:.3f} of {row['expert']} alone"
        lines.append(f"  {label}, difference {row['difference']:+.3f} {_interval(row['low'], row['high'])}")
    return [*lines, f"  and {len(below) - 8} more"] if len(below) > 8 else lines


def _aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _interval(low: float, high: float) -> str:
    return "" if np.isnan(low) else f"[{low:.3f}, {high:.3f}]"
