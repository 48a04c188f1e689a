"""The sections about the data: who has what, and the card."""

from __future__ import annotations

from typing import Any

from lacunar.report.figures import ROWS, pattern_figure
from lacunar.report.page import Block, Column, Drawing, Preformatted, Row, Section, Table, Text, number
from lacunar.report.summary import DataSummary, Shown

__all__ = ["data_sections"]


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
