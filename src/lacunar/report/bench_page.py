"""From what a comparison of methods found to its page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from lacunar.report.bench_course import course_section, factors_section
from lacunar.report.bench_facts import BenchFacts, Reported
from lacunar.report.bench_figures import cost_figure, critical_difference_figure, difference_figure, setting_figure
from lacunar.report.bench_numbers import NOTHING, interval, p_value, percent, points, spread
from lacunar.report.bench_probing import capability_section, fused_section
from lacunar.report.bench_sweep import sweep_section
from lacunar.report.page import Block, Column, Drawing, Entries, Page, Row, Section, Table, Text, Tile

__all__ = ["bench_page"]

#: Methods that a sentence names; more are counted.
MOST_NAMED = 10


def bench_page(facts: BenchFacts, title: str | None = None) -> Page:
    """The page of a comparison.

    Args:
        facts: what was found.
        title: heading.
    """
    sections = [
        _scores_section(facts),
        _differences_section(facts),
        _ranks_section(facts),
        _settings_section(facts),
        _parts_section("subsets", "Subset by subset", facts.subsets, _SUBSETS),
        _parts_section("modalities", "Modality by modality", facts.modalities, _MODALITIES),
        factors_section(facts.factors),
        sweep_section(facts.sweep),
        course_section(facts.course, facts.sweep.extremes if facts.sweep else ()),
        capability_section(facts.capability, facts.trajectory, facts.alone, facts.against, facts.confidence),
        fused_section(facts.fused),
        _cost_section(facts),
        _refused_section(facts),
        _reported_section(facts),
        _reading_section(facts),
    ]
    cells = len(facts.results[facts.results["variant_of"] == ""])
    tiles = [
        Tile("methods", str(len(facts.record))),
        Tile("data sets", str(facts.results["data"].nunique())),
        Tile("problems", str(facts.results["problem"].nunique()), "data sets x settings"),
        Tile("seeds", str(facts.seeds)),
        Tile("finished cells", str(cells)),
    ]
    footer = f"Made by lacunar {facts.versions.get('lacunar', '')}. One file, no network, no script."
    return Page(title or "Comparison of methods", _verdict(facts), (), tiles, [s for s in sections if s.blocks], footer)


def _verdict(facts: BenchFacts) -> str:
    average = facts.means["average"].dropna()
    average = average[average.index.isin(facts.record.index)]
    said = []
    if len(average):
        over = "all data sets" if len(facts.means.columns) > 2 else str(facts.means.columns[0])
        said.append(f"The highest mean over {over} is {percent(average.max())}, of {average.idxmax()}.")
    if facts.ranking is not None:
        first = str(facts.ranking.average.index[0])
        near = facts.ranking.average[facts.ranking.average - facts.ranking.average.iloc[0] <= facts.ranking.critical]
        said.append(f"{first} has the best mean rank, {facts.ranking.average.iloc[0]:.1f}.")
        if len(near) > 1:
            said.append(f"Ranks alone cannot tell it from {_listed(list(near.index[1:]))}.")
    frame = facts.differences["mean"]
    if len(frame) and frame["low"].isna().all():
        said.append("One seed of one data set gives no interval.")
    elif len(frame):
        above = frame[(frame["low"] > 0)]["method"].tolist()
        said.append(f"Above {facts.against} by an interval that leaves zero out: {_listed(above)}.")
    return " ".join(said) or "Too little has been run to compare."


def _listed(names: Sequence[str]) -> str:
    """Methods in words, apart even where a name has a comma; more than a reader would take in are counted."""
    if len(names) > MOST_NAMED:
        return f"{len(names)} others"
    return ("; " if any("," in name for name in names) else ", ").join(names) or "none"


def _scores_section(facts: BenchFacts) -> Section:
    text = (
        "Scores in percent, averaged over the seeds that all methods of a problem have and, where a data set has "
        "several, over presence settings. The mean is "
        "over all non-empty subsets of modalities. The highest of a column is marked; that alone says nothing about "
        "certainty."
    )
    parts = facts.means.index.difference(facts.record.index)
    if len(parts):
        text += f" Parts of a method, such as {parts[0]!r}, stand below it and are not ranked or compared."
    blocks: list[Block] = [Text(text), _scores("Mean over subsets", facts.means, facts.reported)]
    blocks.append(_scores("Worst subset", facts.worst))
    return Section("scores", "Scores", blocks)


def _scores(caption: str, table: pd.DataFrame, reported: Sequence[Reported] = ()) -> Table:
    if list(table.columns[1:]) == ["average"]:  # one data set, which is its own average
        table = table.drop(columns="average")
    reported = [one for one in reported if one.short and one.numbers.index.isin(table.index).any()]
    columns = [Column("method", False), *(Column(str(name)) for name in table.columns)]
    columns += [Column(f"reported: {one.short}", hint=f"{one.title}. {one.source}") for one in reported]
    rows = []
    for name, row in table.iterrows():
        cells = [_best(row[column], table[column]) for column in table.columns]
        for one in reported:
            known = one.numbers.index.isin([name])
            cells.append(f"{one.numbers[known].mean(axis=1).iloc[0]:.1f}" if known.any() else "")
        rows.append(Row([str(name), *cells]))
    return Table(caption, columns, rows)


def _best(value: float, column: pd.Series) -> str:
    if not np.isfinite(value):
        return NOTHING
    return percent(value) + (" *" if value >= column.max() - 1e-12 else "")


def _differences_section(facts: BenchFacts) -> Section:
    frame = facts.differences["mean"]
    if not len(frame):
        return Section("differences", "Differences")
    over = str(frame["over"].iloc[0])
    drawn = "of a bootstrap that draws data sets and, within them, seeds; from few data sets they are too narrow"
    if facts.results["data"].nunique() == 1:
        drawn = "Student's over the means of each seed, and speak of other seeds of this data set alone"
    text = (
        f"Each method minus {facts.against} in points, paired: the same samples, missing cells and seeds. Intervals "
        f"({100 * facts.confidence:g} %) are {drawn}. p is Wilcoxon's signed-rank test over {over}, adjusted by Holm "
        f"over the methods{_dependent(over, 'p')}."
    )
    smallest = 2.0 ** (1 - int(frame["units"].max()))  # all differences of one sign
    if smallest * len(frame) > 1 - facts.confidence:
        text += (
            f" From so few of them p cannot come below {p_value(smallest)}, nor below "
            f"{p_value(min(1.0, smallest * len(frame)))} once it is adjusted: read the intervals."
        )
    if facts.seeds > 1:
        text += " A problem is clear where Student's interval over its seeds leaves zero out."
    scaled = frame.assign(**{name: 100 * frame[name] for name in ("difference", "low", "high")})
    shown = "Methods by their difference: blue above, orange below the reference, grey where the interval holds zero."
    figure = difference_figure(scaled, facts.against)
    blocks: list[Block] = [Text(text), Drawing(figure, f"Differences to {facts.against} with intervals", shown)]
    blocks += [
        _differences(f"{name} over subsets, difference to {facts.against}", table, facts.seeds > 1)
        for name, table in (("Mean", frame), ("Worst", facts.differences["worst"]))
    ]
    return Section("differences", f"Differences to {facts.against}", blocks)


def _dependent(over: str, what: str) -> str:
    """Words for what is too small since its units are not independent."""
    if not over.startswith("problems"):
        return ""
    return f"; problems of one data set share samples and mostly agree, so that {what} is far too small where they do"


def _differences(caption: str, frame: pd.DataFrame, clear: bool) -> Table:
    heads = ["method", "difference", "interval", "p", "p, Holm", "problems"]
    counts = ["better", "clearly_better", "worse", "clearly_worse"] if clear else ["better", "worse"]
    heads += [name.replace("_", " ") for name in counts]
    columns = [Column(head, number > 0) for number, head in enumerate(heads)]
    rows = []
    for row in frame.sort_values("difference", ascending=False, kind="stable").to_dict("records"):
        cells = [str(row["method"]), points(row["difference"]), interval(row["low"], row["high"])]
        cells += [p_value(row["p"]), p_value(row["p_holm"])]
        cells += [str(row[name]) for name in ("problems", *counts)]
        rows.append(Row(cells))
    return Table(caption, columns, rows)


def _ranks_section(facts: BenchFacts) -> Section:
    found = facts.ranking
    if found is None:
        return Section("ranks", "Ranks")
    text = (
        f"Mean ranks over {found.blocks} {found.over}, 1 being the best. Friedman's test that all are equal: p "
        f"{p_value(found.p)}. Bars join methods whose mean ranks differ by no more than Nemenyi's critical difference "
        f"({found.critical:.2f} at {found.alpha:g}){_dependent(found.over, 'it')}."
    )
    blocks: list[Block] = [Text(text)]
    if found.left_out:
        blocks.append(Text(f"Left out, as they lack too many {found.over}: {', '.join(found.left_out)}."))
    figure = critical_difference_figure(found.average, found.critical, found.groups)
    order = ", ".join(f"{name} {value:.2f}" for name, value in found.average.items())
    blocks.append(Drawing(figure, f"Critical-difference diagram. Mean ranks: {order}"))
    names = list(facts.record.index)
    columns = [Column("method", False), *(Column(str(name)) for name in names)]
    rows = [
        Row([str(name), *("" if name == other else str(facts.record.loc[name, other]) for other in names)])
        for name in names
    ]
    blocks.append(Table("On how many problems the row's method is better than the column's", columns, rows))
    return Section("ranks", "Ranks, wins and losses", blocks)


def _settings_section(facts: BenchFacts) -> Section:
    blocks: list[Block] = []
    for name, table in facts.settings.items():
        settings = list(dict.fromkeys(table.columns.get_level_values(0)))
        columns = [Column("method", False), *(Column(str(setting)) for setting in settings)]
        rows = []
        for method, row in table.iterrows():
            cells = (spread(row[(setting, "mean")], row[(setting, "sd")]) for setting in settings)
            rows.append(Row([str(method), *cells]))
        some = table[table.index.isin(facts.record.index)]
        figure = setting_figure(some)
        blocks.append(Drawing(figure, f"{name}: scores by presence setting", "The best methods of this data set."))
        several = ", ± standard deviation over seeds" if facts.seeds > 1 else ""
        blocks.append(Table(f"{name}: mean over subsets in percent{several}", columns, rows))
    return Section("settings", "Setting by setting", blocks)


_SUBSETS = "Scores in percent on each subset of modalities, averaged over settings and seeds."
_MODALITIES = "Mean over the subsets that contain a modality, in percent, averaged over settings and seeds."


def _parts_section(anchor: str, title: str, tables: dict[str, pd.DataFrame], text: str) -> Section:
    blocks: list[Block] = [Text(text)]
    blocks += [_scores(name, table) for name, table in tables.items()]
    return Section(anchor, title, blocks)


def _cost_section(facts: BenchFacts) -> Section:
    cost = facts.cost
    heads = {"score": "mean over subsets", "seconds": "seconds of training", "ratio": f"over {facts.against}"}
    heads |= {"pairs": "in so many cells", "step_mb": "MB a step makes", "resident_mb": "MB resident, peak"}
    known = [name for name in heads if name in cost]
    columns = [Column("method", False), *(Column(heads[name]) for name in known)]
    shapes = {"score": percent, "seconds": "{:.1f}".format, "ratio": "{:.2f}".format}
    rows = [
        Row([str(name), *(_cell(row[column], shapes.get(column, "{:.0f}".format)) for column in known)])
        for name, row in cost.iterrows()
    ]
    text = (
        "Means over the finished cells of a method, which may come from several machines. The ratio is a geometric "
        "mean over the cells that both have from one kind of processor, or that do not say from which, as those of "
        "earlier versions; a method without such cells is not in the figure. Seconds are processor time, where it was "
        "noted. References that several methods share are not counted. What a step makes is the peak of tensor bytes "
        "alive at once in one forward and backward pass; the resident peak is of the whole process, data and libraries "
        "included."
    )
    figure = cost_figure(cost.assign(score=100 * cost["score"]), "mean over subsets, percent", facts.against)
    drawing = Drawing(
        figure, f"Score against time of training over {facts.against}, one dot a method that was compared"
    )
    return Section("cost", "Time and memory", [Text(text), drawing, Table("Cost of each method", columns, rows)])


def _cell(value: float, shape: Callable[[float], str]) -> str:
    return shape(value) if value is not None and np.isfinite(value) else NOTHING


def _refused_section(facts: BenchFacts) -> Section:
    if not len(facts.refused):
        return Section("refused", "Refused")
    # The same words with other numbers are one reason.
    kind = facts.refused["why"].str.replace(r"\d+", "#", regex=True)
    rows = []
    for (method, _), part in facts.refused.groupby(["method", kind], sort=False):
        problems = list(dict.fromkeys(part["problem"]))
        shown = ", ".join(problems) if len(problems) <= 3 else f"{problems[0]} and {len(problems) - 1} more"
        rows.append(Row([str(method), shown, str(part["cells"].sum()), part["why"].iloc[0]]))
    columns = [Column("method", False), Column("problems", False), Column("cells"), Column("why (the first)", False)]
    text = "A method that is not defined for some data says so and has no score there: that is not a failure."
    return Section("refused", "What methods refuse", [Text(text), Table("Refused", columns, rows)])


def _reported_section(facts: BenchFacts) -> Section:
    blocks: list[Block] = []
    for one in facts.reported:
        names = list(one.numbers.columns)
        columns = [Column(one.rows, False), *(Column(str(name)) for name in names)]
        rows = [
            Row([str(method), *(_cell(row[name], "{:g}".format) for name in names)])
            for method, row in one.numbers.iterrows()
        ]
        blocks.append(Text(f"{one.source}. {one.note}".strip()))
        blocks.append(Table(f"Reported, not measured here: {one.title}", columns, rows))
    return Section("reported", "What papers report", blocks)


def _footing(facts: BenchFacts) -> str:
    if not facts.apart:
        return "Those that train a network have the same one, with the same options of training."
    return (
        "Those that train a network have the same one, with the same options of training, but for "
        f"{_listed(facts.apart)}: the table below says what differs."
    )


def _reading_section(facts: BenchFacts) -> Section:
    lines = [
        "All methods of a seed meet the same split and the same missing cells.",
        _footing(facts),
        "Weights were selected on validation samples. The test samples were scored once for each cell.",
        "Test samples keep all modalities that they have. A subset is scored on the samples that have all of it.",
        "A method with several rows in an ablation appears in ranks as often: read them with that in mind.",
    ]
    blocks: list[Block] = [Entries(lines)]
    if len(facts.methods):
        columns = [Column("method", False), *(Column(str(name), False) for name in facts.methods.columns)]
        rows = [Row([str(name), *map(str, row)]) for name, row in zip(facts.methods.index, facts.methods.to_numpy())]
        blocks.append(Table("What each method was; what is not named has its default", columns, rows))
    if facts.versions:
        rows = [Row([name, version]) for name, version in facts.versions.items()]
        blocks.append(Table("Versions", [Column("what", False), Column("version", False)], rows))
    return Section("reading", "How to read this", blocks)
