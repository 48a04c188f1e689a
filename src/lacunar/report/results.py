"""The sections about scores: the verdict, every subset, the experts, the contributions, the subgroups."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lacunar.lattice import MAX_TABLE
from lacunar.report.figures import ROWS, reliability_figure, subset_figure
from lacunar.report.page import Block, Column, Drawing, Entries, Row, Section, Table, Text, Tile, number
from lacunar.report.summary import suppress

if TYPE_CHECKING:
    from lacunar.evaluation import SubsetTable

__all__ = ["calibration_section", "results_sections", "tiles", "verdict"]

#: Below this many samples a score is flagged, as in subgroups.
FEW = 30
HINTS = {
    "balanced_accuracy": "mean recall of the classes: every class counts the same however frequent it is",
    "macro_f1": "F1 score, the mean over classes",
    "log_loss": "how surprised the model was by the truth, in nats: smaller is better",
    "brier": "squared distance of the probabilities from the truth: smaller is better",
    "ece": "expected calibration error: how far stated probabilities are from frequencies; smaller is better",
    "mae": "mean absolute error, in the units of the target: smaller is better",
    "rmse": "root mean squared error, in the units of the target: smaller is better",
    "r2": "share of the variance that is explained",
}
SHORT = {"ece": "ECE", "r2": "R²", "mae": "MAE", "rmse": "RMSE", "macro_f1": "macro F1", "brier": "Brier"}


def verdict(table: SubsetTable, part: str = "test", min_cell: int = 0) -> str:
    """What the scores say, in one or two sentences for somebody who has never seen the method."""
    names = _listed(table.names)
    samples = _samples(table, part, min_cell)
    only = _words(table.worst.subset)
    several, nobody = _scored(table) > 1, np.isnan(table.full)
    where = f"averaged over {_combinations(table)}" if several else f"given {only}"
    lead = f"No {part} sample has every modality; {where}"
    if table.score_name == "accuracy":
        full, mean, worst, guess = (_percent(v) for v in (table.full, table.mean, table.worst.score, table.baseline))
        text = f"Given {names}, the model is right on {full} of {samples}"
        if nobody:
            text = f"{lead} the model is right on {mean}"
        elif several:
            text += f"; {where} on {mean}"
        if several:
            text += f", and in the worst case (only {only}) still on {worst}"
        text += f", where always giving the commonest answer is right on {guess}."
    else:
        full, mean, worst, guess = (number(v) for v in (table.full, table.mean, table.worst.score, table.baseline))
        text = f"Given {names}, the model's {table.score_name} on {samples} is {full}"
        if nobody:
            text = f"{lead} the model's {table.score_name} is {mean}"
        elif several:
            text += f"; {where} it is {mean}"
        if several:
            text += f", and in the worst case (only {only}) {worst}"
        text += f". The best constant answer scores {guess}."
    if table.expert_scores is not None and len(table.below_experts):
        clear = int(table.below_experts["clear"].sum())
        if clear:
            text += f" On {clear} of the combinations a single modality's own model is clearly better: see below."
    return text


def _samples(table: SubsetTable, part: str, min_cell: int) -> str:
    """The samples that the score of the full set rests on, and a warning when they are few."""
    count = int(table.counts[table.codes.index(2**table.lattice.M - 1)])
    said = (
        f"the {part} samples" if count == len(table.ids) else f"the {number(count)} {part} samples that have them all"
    )
    if min_cell > 1 and count != len(table.ids):
        # Together with the number of all samples, it can tell the few that lack something.
        said = f"the {'few ' if count < min_cell else ''}{part} samples that have them all"
    return f"{said} (too few to rely on)" if 0 < count < FEW else said


def _scored(table: SubsetTable) -> int:
    """How many subsets some sample has, and means are over."""
    return int((table.counts[1:] > 0).sum())


def _combinations(table: SubsetTable) -> str:
    """What a mean over subsets is over, in words."""
    scored, M = _scored(table), table.lattice.M
    if scored == 2**M - 1:
        return f"all {scored} combinations of modalities"
    return f"{scored} of the {2**M - 1 if M <= MAX_TABLE else f'2^{M} - 1'} combinations of modalities"


def tiles(table: SubsetTable) -> list[Tile]:
    """The three numbers that matter."""
    low, high = table.mean_interval
    frame = table.frame
    full = frame.to_dict("records")[table.codes.index(2**table.lattice.M - 1)]
    worst = frame.to_dict("index")[table.worst.subset]
    return [
        Tile("Everything present", number(table.full), _interval(full["low"], full["high"])),
        Tile(f"Mean over {_scored(table)} subsets", number(table.mean), _interval(low, high)),
        Tile(f"Worst: {_words(table.worst.subset)}", number(table.worst.score), _interval(worst["low"], worst["high"])),
        Tile("Constant answer", number(table.baseline), f"{table.score_name}, {100 * table.confidence:g} % intervals"),
    ]


def results_sections(
    table: SubsetTable, subgroups: pd.DataFrame | None = None, min_cell: int = 0, part: str = "test"
) -> list[Section]:
    """Every subset, the experts, the contributions and the subgroups."""
    frame, members = table.frame.iloc[1:], _members(table)[1:]
    known = np.isfinite(frame["score"].to_numpy(float))
    experts = None
    if table.expert_scores is not None:
        means = [np.nanmean(column) if np.isfinite(column).any() else np.nan for column in table.expert_scores.T]
        experts = dict(zip(table.names, map(float, means)))
    ordered = frame[known].sort_values("score", ascending=False)
    alt = (
        f"{table.score_name} of {int(known.sum())} subsets of modalities. "
        + f"Best: {ordered.index[0]} {ordered['score'].iloc[0]:.3f}; "
        + f"worst: {ordered.index[-1]} {ordered['score'].iloc[-1]:.3f}. The table below holds every number."
    )
    many = known.sum() > ROWS
    drawing = Drawing(
        subset_figure(frame[known], members[known], table.names, table.score_name, experts),
        alt,
        "Each row is a combination of modalities: filled dots are present, pale ones absent. The bar is the "
        f"{100 * table.confidence:g} % bootstrap interval."
        + (f" Of {known.sum()} combinations the {ROWS // 2} best and the {ROWS // 2} worst are drawn." if many else "")
        + (" Diamonds: the model that was trained on that modality alone." if experts else ""),
    )
    sections = [Section("subsets", "Every combination of modalities", [drawing, _subset_table(table, min_cell, part)])]
    if table.notes:
        notes = [_uncounted(note) for note in table.notes] if min_cell > 1 else table.notes
        sections[0].blocks.append(Entries([_sentence(note) for note in notes]))
    sections.append(Section("experts", "Against single-modality models", _experts(table)))
    sections.append(Section("contributions", "What each modality contributes", _shapley(table)))
    if subgroups is not None and len(subgroups):
        sections.append(Section("subgroups", "Subgroups", _subgroups(subgroups, min_cell)))
    return sections


def calibration_section(bins: pd.DataFrame, min_cell: int = 0) -> Section:
    """Whether the stated probabilities can be believed.

    With ``min_cell`` above 1 without any number of answers, and without the bins of fewer than that.
    """
    used = bins[bins["count"] > 0]
    gap = (used["accuracy"] - used["confidence"]).abs().mul(used["count"]).sum() / max(used["count"].sum(), 1)
    lean = (used["confidence"] - used["accuracy"]).mul(used["count"]).sum()
    direction = "surer than it is right" if lean > 0 else "less sure than it could be"
    text = f"On average the stated confidence is off by {gap:.3f} (expected calibration error); "
    text += f"overall the model is {direction}."
    counted = min_cell <= 1
    drawn = used[used["count"] >= min_cell]
    if drawn.empty:
        return Section("calibration", "Calibration", [Text(text)])
    answers = f" over {int(used['count'].sum())} answers" if counted else ""
    drawing = Drawing(
        reliability_figure(drawn, counted),
        f"Reliability diagram: expected calibration error {gap:.3f}{answers}.",
        "All combinations of modalities together. Points on the diagonal: of the answers given with a confidence of "
        ".8, eight in ten are right. Below it the model is too sure. "
        + ("The lower panel counts the answers." if counted else f"Points of fewer than {min_cell} are not drawn."),
    )
    return Section("calibration", "Calibration", [Text(text), drawing])


def _subset_table(table: SubsetTable, min_cell: int, part: str) -> Table:
    frame = table.frame
    drop = table.drop_against_full if len(table) > 2 else None
    counts = [int(n) for n in frame["n"]]
    show_counts = min_cell <= 1 or (len(set(counts)) == 1 and counts[0] >= min_cell)
    extra = [column for column in table.metrics.columns if table.metrics[column].notna().any()]
    columns = [Column("subset", number=False)]
    if show_counts:
        columns.append(Column("n", hint="samples that have all of these modalities"))
    columns += [Column(table.score_name), Column(f"{100 * table.confidence:g} % interval")]
    if drop is not None and drop["drop"].notna().any():
        columns.append(
            Column("drop", hint="how much is lost against all modalities, on the samples that have them all")
        )
    else:
        drop = None
    columns += [Column(SHORT.get(name, name.replace("_", " ")), hint=HINTS.get(name, "")) for name in extra]
    body = frame.iloc[1:]
    best = body["score"].idxmax() if body["score"].notna().any() else None
    rows = []
    members = _members(table)
    for position, (label, line) in enumerate(frame.iterrows()):
        cells = ["nothing" if position == 0 else _words(str(label))]
        if show_counts:
            cells.append(number(int(line["n"])))
        cells += [number(line["score"]), _interval(line["low"], line["high"])]
        if drop is not None:
            loss = drop["drop"].iloc[position]
            cells.append(number(loss) if abs(loss) >= 0.0005 or np.isnan(loss) else "0.000")
        cells += [number(line[name]) for name in extra]
        note, mark = "few samples" if 0 < line["n"] < FEW else "", ""
        if position == 0:
            note = "constant answer"
        elif label == best and len(body) > 1:
            note, mark = "best" + (", few samples" if note else ""), "best"
        elif label == table.worst.subset and len(body) > 1:
            note, mark = "worst" + (", few samples" if note else ""), "worst"
        rows.append(Row(cells, members[position].tolist(), note, mark))
    return Table(f"Scores on the {part} samples", columns, rows)


def _experts(table: SubsetTable) -> list[Block]:
    if table.expert_scores is None:
        return []
    below = table.below_experts
    if below.empty:
        text = (
            "On no combination does the model score below the best of its own single-modality models: joint training "
            "cost no modality."
        )
        return [Text(text)]
    clear = int(below["clear"].sum())
    text = (
        f"On {len(below)} of {_scored(table)} combinations the model scores below the best single-modality model "
        f"among their members; on {clear} of them the whole interval of the difference lies below zero. "
        "The best single model is picked on these same samples, which favours it."
    )
    columns = [Column("subset", number=False), Column("best single model", number=False), Column("its score")]
    columns += [Column("this model"), Column("difference"), Column(f"{100 * table.confidence:g} % interval")]
    index = dict(zip(table.labels, _members(table)))
    rows = [
        Row(
            [
                _words(str(label)), str(line["expert"]), number(line["expert score"]), number(line["score"]),
                f"{line['difference']:+.3f}", _interval(line["low"], line["high"]),
            ],
            index[str(label)].tolist(), "clearly below" if line["clear"] else "", "below" if line["clear"] else "",
        )
        for label, line in below.iterrows()
    ]  # fmt: skip
    return [Text(text, strong=bool(clear)), Table("Below a single-modality model", columns, rows)]


def _shapley(table: SubsetTable) -> list[Block]:
    if table.lattice.M < 2 or table.lattice.M > 12 or not np.isfinite(table.values.numpy()).all():
        return []
    shares = table.shapley()
    text = (
        f"The gain of all modalities over a constant answer, {number(table.full - table.baseline)}, shared out fairly: "
        "a modality's share is its gain averaged over every order in which the modalities could be added (Shapley "
        "value)."
    )
    columns = [Column("modality", number=False), Column("share"), Column(f"{100 * table.confidence:g} % interval")]
    rows = [
        Row(
            [str(name), f"{line['shapley']:+.3f}", _interval(line["low"], line["high"])],
            [other == name for other in table.names],
        )
        for name, line in shares.iterrows()
    ]
    return [Text(text), Table("Contribution of each modality to the score with all of them", columns, rows)]


def _subgroups(found: pd.DataFrame, min_cell: int) -> list[Block]:
    columns = [
        Column("attribute", number=False),
        Column("value", number=False),
        Column("n"),
        Column("mean over subsets"),
    ]
    columns += [Column("interval"), Column("worst subset", number=False), Column("worst"), Column("full")]
    # All values of an attribute add up to the part, which would tell the size of a lone hidden one.
    of_attribute = found["n"].groupby(level=0, sort=False, dropna=False)
    many = of_attribute.transform(lambda n: suppress(pd.DataFrame({"n": n.to_numpy()}), min_cell)["n"].to_numpy())
    rows, hidden = [], int(many.isna().sum())
    for key, n, line in zip(found.index, many, found.to_dict("records")):
        attribute, value = key
        if np.isnan(n):
            continue
        cells = [str(attribute), str(value), number(int(line["n"])), number(line["mean"])]
        cells += [_interval(line["low"], line["high"]), number(line["worst subset"]), number(line["worst"])]
        rows.append(Row([*cells, number(line["full"])], None, "few samples" if line["few"] else ""))
    blocks: list[Block] = [Table("Scores by subgroup", columns, rows)] if rows else []
    if hidden:
        blocks.append(Text(f"{hidden} subgroups of fewer than {min_cell} samples, or hidden with them, are not shown."))
    return blocks


def _members(table: SubsetTable) -> np.ndarray:
    codes = np.array(table.codes, dtype=np.int64)
    return (codes[:, None] >> np.arange(table.lattice.M) & 1).astype(bool)


def _interval(low: float, high: float) -> str:
    return "" if np.isnan(low) or np.isnan(high) else f"{low:.3f} to {high:.3f}"


def _percent(value: float) -> str:
    return "an unknown share" if np.isnan(value) else f"{value:.1%}".replace("%", " %")


def _listed(names: tuple[str, ...]) -> str:
    if len(names) > 6:
        return f"all {len(names)} modalities"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _words(label: str) -> str:
    return label.replace("+", " + ")


def _uncounted(note: str) -> str:
    """A note of a table without numbers of samples."""
    note = re.sub(r" \(n from \d+ to \d+\)", "", note)
    return re.sub(r"^\d+ (?=samples have nothing|cells were generated)", "some ", note)


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:] + ("" if note.endswith(".") else ".")
