"""One cell of a comparison: a data set, a presence setting, a method and a seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

from lacunar import datasets
from lacunar.bench.checks import found_in
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.description import SUFFIXES, Description, load_splits
from lacunar.data.splits import Splits
from lacunar.datasets.synthetic import World
from lacunar.errors import ConfigError, DataError, did_you_mean

__all__ = ["SETTINGS", "Cell", "load_problem", "read_description", "select", "without_setting"]

#: The six presence settings of three modalities: their missing rates, in the order of the modalities.
SETTINGS: dict[str, tuple[float, ...]] = {
    "a": (0.2, 0.5, 0.8),
    "b": (0.2, 0.8, 0.5),
    "c": (0.5, 0.2, 0.8),
    "d": (0.5, 0.8, 0.2),
    "e": (0.8, 0.2, 0.5),
    "f": (0.8, 0.5, 0.2),
}
#: Fields that came later: left out of a cell's key where they are empty, so that earlier results keep theirs.
_LATER = ("setting", "part", "text", "description")


@dataclass(frozen=True)
class Cell:
    """One training and its test scores.

    Attributes:
        problem: name of the problem in tables, its setting included.
        dataset: name of a data set in :mod:`lacunar.datasets`, or the path of a YAML description.
        options: arguments of a data set by name.
        only: modalities to keep; all when empty.
        rates: missing rates in train and validation; the test part keeps what it has.
        method: name of the method in tables.
        run: what the method is: ``{"peer": name}``, or ``{"objective": class, "arguments": {...}, "model": {...},
            "fit": {...}}``; ``"objective": "default"`` is what ``lacunar.fit`` does when it is given nothing.
        seed: of split, presence and training.
        setting: name of the presence setting, such as ``"a"``; empty where a problem has one setting only.
        part: the official part that is taken for the whole data set and split by seed; empty for all parts.
        text: arguments of the vectors that are made from the transcripts of the train part; empty for none.
        description: what :func:`read_description` says of a YAML description; empty for a data set by name.
    """

    problem: str
    dataset: str
    method: str
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    rates: Mapping[str, float] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    setting: str = ""
    part: str = ""
    text: Mapping[str, Any] = field(default_factory=dict)
    description: Mapping[str, Any] = field(default_factory=dict)

    @property
    def described(self) -> bool:
        """Whether the data are those of a YAML description."""
        return Path(self.dataset).suffix.lower() in SUFFIXES

    @property
    def key(self) -> str:
        """A name for the cell's folder that changes with anything in the cell, but not with where a description is."""
        content = {name: value for name, value in asdict(self).items() if value or name not in _LATER}
        if self.described:
            content["dataset"] = Path(self.dataset).name
        if self.description:
            content["description"] = json.dumps(self.description)  # the order of modalities and columns counts, too
        mark = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.problem}-{self.method}-{self.seed}".replace(" ", "_").replace("/", "_") + "-" + mark

    @property
    def data_name(self) -> str:
        """The problem without its setting: problems of one name share samples and splits."""
        return without_setting(self.problem, self.setting)


def select(cells: Sequence[Cell], pattern: str) -> list[Cell]:
    """The cells in whose ``problem | method | seed`` a text or, where it is in none, a regular expression is found."""
    names = [f"{cell.problem} | {cell.method} | {cell.seed}" for cell in cells]
    return list(compress(cells, found_in(names, pattern, "only")))


def without_setting(problem: str, setting: str) -> str:
    """The name of a problem without that of its presence setting."""
    return problem.removesuffix(f" ({setting})") if setting else problem


def read_description(path: str | Path) -> dict[str, Any]:
    """What a YAML description says and a hash of its table: when one of the two changes, so do the cells.

    Files that the table names are not looked at.

    Raises:
        ConfigError: the description is wrong.
        DataError: its table is not there.
    """
    description = Description.from_file(path)
    table = description.root / description.table
    if not table.is_file():
        raise DataError(f"{path}: table {table} not found; a path is read from the folder of the description.")
    # As it is read back from cell.json; YAML knows dates, JSON does not.
    says = json.loads(json.dumps(description.to_dict(), default=str))
    return {"says": says, "table": hashlib.sha256(table.read_bytes()).hexdigest()}


def _part(found: MultimodalDataset | Splits, cell: Cell) -> MultimodalDataset:
    known = found.parts if isinstance(found, Splits) else {}
    if cell.part not in known:
        raise ConfigError(
            f"{cell.problem}: part: data set {cell.dataset!r} has no official part {cell.part!r}."
            + did_you_mean(cell.part, known)
        )
    return known[cell.part]


def load_problem(cell: Cell) -> Splits:
    """The cell's data: official parts where the data set has them, else 60 / 15 / 25 % by seed; then cells hidden.

    A description says itself how its samples are split, by seed.
    """
    data: MultimodalDataset | Splits
    if cell.described:
        data = load_splits(cell.dataset, cell.seed)
        if cell.description and cell.description != read_description(cell.dataset):
            raise ConfigError(
                f"{cell.problem}: {cell.dataset} or its table has changed since the recipe was opened; run again."
            )
    else:
        found = datasets.load(cell.dataset, **cell.options)
        if isinstance(found, World):
            found = found.data
        data = _part(found, cell) if cell.part else found
    if cell.only:
        data = data.only(list(cell.only))
    if not isinstance(data, Splits):
        data = data.split(train=0.6, val=0.15, test=0.25, seed=cell.seed)
    for part in ("val", "test"):
        if getattr(data, part) is None:
            raise DataError(f"{cell.problem}: the data have no {part} part, and every method needs one to be compared.")
    if cell.rates:
        data = data.hide(dict(cell.rates), seed=cell.seed)
    if cell.text:
        from lacunar.datasets._text import text_vectors

        # After hiding: no transcript that is absent may shape the vectors.
        data = text_vectors(data, **{"seed": cell.seed, **cell.text})
    return data
