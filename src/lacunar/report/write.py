"""From a run to its page."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lacunar.errors import ConfigError, RunError, did_you_mean
from lacunar.report.course import training_sections
from lacunar.report.data import data_sections
from lacunar.report.encoders import capability_section, representation_section
from lacunar.report.page import Block, Column, Entries, Page, Preformatted, Row, Section, Table, Text
from lacunar.report.results import calibration_section, results_sections, tiles, verdict
from lacunar.report.summary import DataSummary

if TYPE_CHECKING:
    from lacunar.evaluation import SubsetTable

__all__ = ["DATA_FILE", "TABLE_FILE", "keep_frame", "report"]

#: What the command line leaves in the folder of a run, and a report finds there.
TABLE_FILE, DATA_FILE = "subsets.json", "data.json"
#: Further frames that are kept beside them, with the number of their index columns.
FRAMES = {"probes": 3, "trajectory": 4, "representation": 1, "calibration": 1, "subgroups": 2}


def report(
    run: Any,
    table: SubsetTable | None = None,
    data: Any = None,
    *,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
    part: str | None = None,
    probes: pd.DataFrame | None = None,
    trajectory: pd.DataFrame | None = None,
    representation: pd.DataFrame | None = None,
    calibration: pd.DataFrame | None = None,
    subgroups: pd.DataFrame | None = None,
    comparison: dict[str, SubsetTable] | None = None,
    min_cell: int = 0,
) -> Path:
    """Write one HTML file that needs nothing beside it: no script, no font, no network.

    The same input gives the same file, byte for byte.

    Args:
        run: a :class:`lacunar.Run`, or the folder of one.
        table: what :func:`lacunar.evaluate` found; the folder's ``subsets.json`` when left out.
        data: the splits (or a :class:`DataSummary` of them); the folder's ``data.json`` when left out. The frames
            below, too, are read from the folder when they are left out and :func:`keep_frame` put them there.
        path: the file to write; ``report.html`` in the run's folder when left out.
        title: heading of the page.
        part: the part of the data that the table is of, in words; ``"test"`` when left out, and ``"val"`` where the
            data are known to have no test part.
        probes: what :func:`lacunar.evaluation.capability` found.
        trajectory: what :func:`lacunar.evaluation.capability_trajectory` found.
        representation: what :func:`lacunar.evaluation.representation_quality` found.
        calibration: what :func:`lacunar.evaluation.reliability` found.
        subgroups: what ``table.by_subgroup`` found; computed when ``data`` are splits with subgroups.
        comparison: tables of other models on the same samples, by name.
        min_cell: counts of samples from 1 to ``min_cell - 1`` are not shown, nor other counts and rates that they could
            be found from, for data about people. Scores are shown, also those of few samples.

    Returns:
        The path of the file.

    Raises:
        RunError: the folder holds no run.
        ConfigError: a run without a folder, and no path given.
    """
    if min_cell < 0:
        raise ConfigError(f"min_cell: expected a whole number of at least 0, got {min_cell}.")
    facts = _Facts.of(run)
    if path is None:
        if facts.folder is None:
            raise ConfigError("report: the run was trained without out=; give path=, the file to write.")
        path = facts.folder / "report.html"
    if table is None and facts.folder is not None and (facts.folder / TABLE_FILE).exists():
        from lacunar.evaluation import SubsetTable

        table = SubsetTable.load(facts.folder / TABLE_FILE)
    if data is None and facts.folder is not None and (facts.folder / DATA_FILE).exists():
        data = DataSummary.load(facts.folder / DATA_FILE)
    part = _part_of(data) if part is None else part
    if data is not None and not isinstance(data, DataSummary):
        if subgroups is None and table is not None:
            subgroups = _by_subgroup(table, getattr(data, part, None))
        data = DataSummary.of(data)
    given = {
        "probes": probes, "trajectory": trajectory, "representation": representation, "calibration": calibration,
        "subgroups": subgroups,
    }  # fmt: skip
    frames = {name: _kept_frame(facts.folder, name) if frame is None else frame for name, frame in given.items()}
    page = _page(facts, table, data, frames, title, part, comparison or {}, min_cell)
    return _write(Path(path), page.html())


class _Facts:
    """What a run knows of itself, from memory or from its folder; the model is not needed."""

    def __init__(self, folder: Path | None, config: dict[str, Any], result: dict[str, Any], history: pd.DataFrame):
        self.folder, self.config, self.result, self.history = folder, config, result, history

    @classmethod
    def of(cls, run: Any) -> _Facts:
        if not isinstance(run, (str, os.PathLike)):
            names = ("best_epoch", "best_score", "epochs", "seconds")
            return cls(run.folder, run.config, {name: getattr(run, name) for name in names}, run.history)
        folder = Path(run)
        if not (folder / "config.json").exists():
            raise RunError(f"{folder} is not the folder of a run: it holds no config.json.")
        from lacunar.training.log import read_lines

        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            finished = folder / "result.json"
            result = json.loads(finished.read_text(encoding="utf-8")) if finished.exists() else {}
        except ValueError as error:
            raise RunError(f"{folder}: a file of the run cannot be read ({error}).") from error
        lines = [line for line in read_lines(folder / "log.jsonl") if line["kind"] == "epoch"]
        history = pd.DataFrame(lines).set_index("epoch") if lines else pd.DataFrame()
        return cls(folder, config, result, history)


def keep_frame(folder: str | os.PathLike[str], name: str, frame: pd.DataFrame) -> None:
    """Keep a frame in the folder of a run, for reports that are written later.

    Args:
        folder: of the run.
        name: ``"probes"``, ``"trajectory"``, ``"representation"``, ``"calibration"`` or ``"subgroups"``.
        frame: what the function of that purpose returned.
    """
    if name not in FRAMES:
        raise ConfigError(f"keep_frame: unknown frame {name!r}.{did_you_mean(name, FRAMES)}")
    # One score per seed is a list, which no table holds; mean and spread are kept.
    frame.drop(columns="scores", errors="ignore").to_csv(Path(folder) / f"{name}.csv")


#: Index columns that hold numbers; all others are names.
_NUMBERS = (("calibration", 0), ("trajectory", 0))


def _kept_frame(folder: Path | None, name: str) -> pd.DataFrame | None:
    if folder is None or not (folder / f"{name}.csv").exists():
        return None
    levels = list(range(FRAMES[name]))
    try:
        # Names stay text, whatever they look like; a modality may be called "1" or "NA".
        texts = dict.fromkeys([level for level in levels if (name, level) not in _NUMBERS], str)
        frame = pd.read_csv(folder / f"{name}.csv", dtype=texts, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise RunError(f"{folder / name}.csv cannot be read ({error}).") from error
    return frame.set_index([frame.columns[level] for level in levels])


def _part_of(data: Any) -> str:
    """The part that was scored: validation samples stand in where there is no test part."""
    parts = data.samples if isinstance(data, DataSummary) else getattr(data, "parts", {})
    return "val" if "val" in parts and "test" not in parts else "test"


def _by_subgroup(table: SubsetTable, part: Any) -> pd.DataFrame | None:
    attributes = getattr(part, "subgroups", None)
    if attributes is None or not len(attributes.columns) or len(attributes) != len(table.ids):
        return None
    return table.by_subgroup(attributes)


def _page(
    facts: _Facts, table: SubsetTable | None, data: DataSummary | None, frames: dict[str, pd.DataFrame | None],
    title: str | None, part: str, comparison: dict[str, SubsetTable], min_cell: int,
) -> Page:  # fmt: skip
    asked = facts.config.get("asked", {})
    known = data.names if data is not None else asked.get("train", {}).get("modalities", [])
    names = list(table.names) if table is not None else list(known)
    score_name = "score" if table is None else table.score_name
    sections: list[Section] = []
    if table is not None:
        sections += results_sections(table, frames["subgroups"], min_cell, part)
        if comparison:
            sections.insert(0, _comparison(table, comparison))
    if data is not None:
        sections += data_sections(data, min_cell)
    best, select = facts.result.get("best_epoch"), asked.get("select", "best")
    sections += training_sections(facts.history, names, best, score_name, select, min_cell)
    sections.append(capability_section(frames["probes"], frames["trajectory"], names, score_name, min_cell))
    sections.append(representation_section(frames["representation"], names, min_cell))
    if frames["calibration"] is not None and len(frames["calibration"]):
        sections.append(calibration_section(frames["calibration"], min_cell))
    sections += [_configuration(facts, data), _assumptions(table, data, part, asked)]
    heading = title or (data.name if data is not None else facts.folder.name if facts.folder else "Run")
    if table is not None:
        said, numbers = verdict(table, part, min_cell), tiles(table)
    else:
        said, numbers = "The model has not been scored yet: no table of subsets was given.", []
        if not facts.result:
            said = "Training is unfinished: run the same command again to go on."
    footer = f"Made by lacunar {facts.config.get('versions', {}).get('lacunar', '')}. One file, no network, no script."
    return Page(heading, said, names, numbers, [section for section in sections if section.blocks], footer)


def _comparison(table: SubsetTable, others: dict[str, SubsetTable]) -> Section:
    from lacunar.report.page import number

    columns = [Column("model", False), Column("mean over subsets"), Column("worst score"), Column("on", False)]
    columns += [Column("everything present"), Column("this model minus that one, mean"), Column("interval")]
    rows = [
        Row(
            [
                "this model",
                number(table.mean),
                number(table.worst.score),
                table.worst.subset,
                number(table.full),
                "",
                "",
            ]
        )
    ]
    for name, other in others.items():
        gap = table.difference(other).loc["mean"]
        rows.append(
            Row(
                [
                    name, number(other.mean), number(other.worst.score), other.worst.subset, number(other.full),
                    f"{gap['difference']:+.3f}", f"{gap['low']:+.3f} to {gap['high']:+.3f}",
                ]
            )
        )  # fmt: skip
    text = "The same data, the same missing cells, the same samples scored; differences are paired."
    return Section("comparison", "Compared with other ways of training", [Text(text), Table("Models", columns, rows)])


def _configuration(facts: _Facts, data: DataSummary | None) -> Section:
    asked, result = facts.config.get("asked", {}), facts.result
    plain = {key: value for key, value in asked.items() if not isinstance(value, (dict, list)) and value is not None}
    rows = [Row([str(key), str(value)]) for key, value in plain.items()]
    blocks: list[Block] = []
    if result:
        text = f"{result['epochs']} epochs in {result['seconds']:.0f} s"
        text += f"; best epoch {result['best_epoch'] + 1}, validation mean over subsets {result['best_score']:.4f}."
        blocks.append(Text(text))
    if rows:
        blocks.append(Table("Arguments of the training", [Column("argument", False), Column("value", False)], rows))
    for key, heading in (("objective", "Objective"), ("model", "Model")):
        if asked.get(key):
            lines = asked[key]
            blocks.append(Preformatted("\n".join(map(str, lines)) if isinstance(lines, list) else str(lines), heading))
    identity = [Row([name, str(value)]) for name, value in facts.config.get("versions", {}).items()]
    for which in ("train", "val"):
        if isinstance(asked.get(which), dict) and "hash" in asked[which]:
            identity.append(Row([f"{which} samples, SHA-256", str(asked[which]["hash"])]))
    if data is not None and data.split_hash:
        identity.append(Row(["split, SHA-256", data.split_hash]))
    if data is not None and data.presence.get("hash"):
        identity.append(Row(["presence table, SHA-256", str(data.presence["hash"])]))
    if identity:
        columns = [Column("what", False), Column("value", False)]
        blocks.append(Table("Versions and hashes: what to compare when a number differs", columns, identity))
    return Section("configuration", "Configuration", blocks)


def _assumptions(table: SubsetTable | None, data: DataSummary | None, part: str, asked: dict[str, Any]) -> Section:
    lines = [
        "A missing rate is the fraction of samples in which a modality is absent. Present means observed.",
        "An absent modality is not filled in: its encoder never sees a stand-in for it.",
        _selection(asked.get("select", "best"), asked.get("patience"), None if table is None else part),
    ]
    if table is not None:
        lines.append(
            f"Intervals are {100 * table.confidence:g} % percentile bootstrap intervals over the {part} samples "
            f"({table.resamples} resamples, seed {table.seed}): they say how much the score would vary with other "
            "samples of the same kind, not with another training seed."
        )
        lines.append("The worst of many subsets is picked after looking, so its score is a little pessimistic.")
        lines.append("Each subset is scored on the samples that have all of it; its other modalities are hidden.")
        if len(table) > 2:
            lines.append("The drop is against all modalities, on the samples that have them all, which may be fewer.")
    if data is not None and data.presence.get("law") == "not-at-random":
        lines.append("What is missing depends on the samples here: scores on other patterns may differ.")
    lines.append("Scores hold for samples like these; another hospital, device or year is another question.")
    return Section("assumptions", "How to read this", [Entries(lines)])


def _selection(select: str, patience: int | None, part: str | None) -> str:
    """What the validation samples decided, and which samples the scores are of, None when there are no scores."""
    if select != "last":
        said = "Weights were selected on the validation samples."
    elif patience is None:
        said = "The weights are those of the last epoch."
    else:
        said = "The weights are those of the last epoch; the validation samples said which one that is."
    if part == "test":
        return f"{said} The test samples were read once, after training."
    if part == "val" and (select != "last" or patience is not None):
        return f"{said} The scores are of the same samples, which makes them a little too good."
    return said


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path
