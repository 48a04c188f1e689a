"""The YAML description of a data set: which table, which columns, which files."""

from __future__ import annotations

import dataclasses
import logging
import os
import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lacunar.arguments import checked
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.frame import from_frame, table_levels
from lacunar.data.modality_spec import parse_modalities
from lacunar.data.plain_yaml import read_yaml
from lacunar.data.splits import PARTS, Splits
from lacunar.data.splitting import make_splits
from lacunar.data.table import read_table
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.tasks import Task

__all__ = ["SUFFIXES", "Description", "load_description", "load_splits"]

logger = logging.getLogger(__name__)

#: How the path of a description ends.
SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Description:
    """What a description file says. It is stored with a run, and reads new data in the same way.

    Attributes:
        table: the CSV (or TSV, or Parquet) file with one row per sample, relative to ``root``.
        modalities: see :func:`lacunar.from_frame`.
        id: column of sample ids; row numbers when None.
        target: column to predict, or several.
        task: name of the task; inferred from the target when None.
        group: column of groups that no split may cut through.
        subgroups: columns to report results by.
        splits: a column that says train, val or test, or the fractions of the three; the default split when None.
        name: what to call the data in reports.
        licence: terms that the data are under.
        root: folder that the table and relative paths start from.
    """

    table: str
    modalities: dict[str, Any]
    id: str | None = None
    target: str | tuple[str, ...] | None = None
    task: str | None = None
    group: str | None = None
    subgroups: tuple[str, ...] = ()
    splits: str | dict[str, float] | None = None
    name: str = "data"
    licence: str | None = None
    root: Path = field(default_factory=Path)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Description:
        """Read a description; nothing in it is ever executed.

        Raises:
            ConfigError: no such file, not YAML, an unknown or missing key, a key of the wrong type.
        """
        source = Path(path)
        return cls.from_dict(read_yaml(source, "Data description"), source.parent, str(source), name=source.stem)

    @classmethod
    def from_dict(
        cls, content: Any, root: str | os.PathLike[str] = ".", place: str = "description", name: str = "data"
    ) -> Description:
        """The description that a mapping holds; ``place`` says in messages where the mapping came from."""
        if not isinstance(content, Mapping):
            raise ConfigError(
                f"{place}: expected a mapping with the keys table and modalities, got {reprlib.repr(content)}."
            )
        known = [item.name for item in dataclasses.fields(cls) if item.name != "root"]
        for key in content:
            if key not in known:
                raise ConfigError(f"{place}: unknown key {key!r}.{did_you_mean(key, known)}")
        for key in ("table", "modalities"):
            if not content.get(key):
                raise ConfigError(f"{place}: the key {key!r} is missing.")
        for key in ("table", "id", "task", "group", "name", "licence"):
            if not isinstance(content.get(key), (str, type(None))):
                raise ConfigError(f"{place}: {key}: expected text, got {content[key]!r}.")
        if not isinstance(content["modalities"], Mapping):
            raise ConfigError(
                f"{place}: modalities: expected a mapping from names to columns, got {content['modalities']!r}."
            )
        given = dict(content)
        for key in ("target", "subgroups"):
            value = given.get(key)
            if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
                given[key] = tuple(value)
            elif value is not None and not isinstance(value, (str, tuple)):
                raise ConfigError(f"{place}: {key}: expected a column or a list of columns, got {value!r}.")
        if isinstance(given.get("subgroups"), str):
            given["subgroups"] = (given["subgroups"],)
        _check_splits(place, given.get("splits"))
        return cls(
            **{"name": name, **{key: value for key, value in given.items() if value is not None}}, root=Path(root)
        )

    def to_dict(self) -> dict[str, Any]:
        """The description as plain JSON data, without the folder; :meth:`from_dict` reads it back."""
        content = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "root"}
        content["subgroups"] = list(self.subgroups)
        if isinstance(self.target, tuple):
            content["target"] = list(self.target)
        return content

    def read(
        self, table: str | os.PathLike[str] | pd.DataFrame | None = None, task: Task | None = None
    ) -> pd.DataFrame:
        """The rows of the table, or of another file with the same columns; ids, codes and characters stay text.

        ``task``, that of a trained model, says whether labels are text, whatever those of this table look like.
        """
        if isinstance(table, pd.DataFrame):
            return table
        ids = [column for column in (self.id, self.group) if column]
        ids += [self.splits] if isinstance(self.splits, str) else []
        texts: dict[str, list[str]] = {}
        for given in self.modalities.values():
            if isinstance(given, Mapping) and isinstance(given.get("categories"), Mapping):
                coded = given["categories"].items()
                texts |= {str(column): list(map(str, _listed(levels))) for column, levels in coded}
            if isinstance(given, Mapping) and given.get("kind") == "tokens" and "path" not in given:
                texts |= {str(column): [] for column in _listed(given.get("columns"))}
        classes = getattr(task, "classes", ())
        if isinstance(self.target, str) and classes and all(isinstance(label, str) for label in classes):
            texts[self.target] = []
        return read_table(self.root / self.table if table is None else Path(table), ids=ids, texts=texts)

    def resolved(self, frame: pd.DataFrame) -> Description:
        """The same description with everything written down that new data cannot be left to decide.

        Patterns become the columns that they matched, in their order; text columns get their levels (which there are
        in ``frame``, not how often); columns of paths get the kind and the shape of what their files hold. Rows that
        ``splits`` leaves out say nothing.
        """
        if isinstance(self.splits, str) and self.splits in frame:
            frame = frame[_said(frame[self.splits]) != ""]
        specs = parse_modalities(self.modalities, [str(column) for column in frame.columns], self._reserved())
        files = any(spec.reader is not None for spec in specs.values())
        data = self.dataset(frame) if files else None
        modalities = {}
        for name, given in self.modalities.items():
            entry = dict(given) if isinstance(given, Mapping) else {"columns": given}
            if specs[name].reader is not None and data is not None:
                entry["kind"] = data.kinds[name]
                if data.shapes[name]:  # tokens have none
                    entry["shape"] = list(data.shapes[name])
            else:
                entry["columns"] = list(specs[name].columns)
                levels = table_levels(specs[name], frame)
                if levels:
                    entry["categories"] = {column: list(listed) for column, listed in levels.items()}
                entry["closed"] = True
            modalities[name] = entry
        return dataclasses.replace(self, modalities=modalities)

    def following(self, trained: Description, columns: Collection[str]) -> Description:
        """This description with the columns, levels and kinds of a :meth:`resolved` one that a model was trained by.

        Args:
            trained: what the model was trained by.
            columns: the columns of the table that this description is for. A modality whose listed columns are all
                missing is taken for absent.

        Raises:
            DataError: a modality is made of other columns than the model knows.
        """
        absent = [column for wanted in self._absent(columns).values() for column in wanted]
        specs = parse_modalities(self.modalities, [*columns, *absent], self._reserved())
        modalities = dict(self.modalities)
        for name, spec in specs.items():
            known = trained.modalities.get(name)
            if isinstance(known, Mapping) and (spec.reader is None) == ("columns" in known):
                if spec.reader is None and set(spec.columns) != set(known["columns"]):
                    odd = sorted(set(spec.columns) ^ set(known["columns"]))
                    raise DataError(
                        f"Modality {name!r}: the model was trained on {len(known['columns'])} columns, these are "
                        f"{len(spec.columns)}; {odd[0]!r} is in one of them only."
                    )
                own = modalities[name] if isinstance(modalities[name], Mapping) else {}
                told = ("kind", "shape") if spec.reader else ("columns", "kind", "shape", "categories", "closed")
                kept = {key: value for key, value in own.items() if key not in told}
                modalities[name] = {**kept, **{key: known[key] for key in told if key in known}}
        return dataclasses.replace(self, modalities=modalities)

    def dataset(
        self,
        table: str | os.PathLike[str] | pd.DataFrame | None = None,
        *,
        task: Task | None = None,
        predict: bool = False,
    ) -> MultimodalDataset:
        """The data set.

        Args:
            table: another table with the same columns, such as new data; relative paths in it start from its own
                folder. A frame's start from the description's.
            task: the task of a trained model, so that labels are numbered as it knows them.
            predict: read data to predict: the target and group columns are not read, subgroup columns need not be
                there, a modality whose listed columns are all missing is absent everywhere, and samples that have
                nothing are kept.
        """
        frame = self.read(table, task)
        columns = [str(column) for column in frame.columns]
        target: Any = self.target
        group, subgroups = self.group, self.subgroups
        # No modality may hold them, read or not.
        reserved = {role: held for role, held in self._reserved().items() if role != "id"}
        if predict:
            target = group = None
            subgroups = tuple(column for column in subgroups if column in columns)
            frame = self._with_absent_columns(frame)
            columns = [str(column) for column in frame.columns]
        self._check_splits_column(columns, predict)
        root = Path(table).parent if isinstance(table, (str, os.PathLike)) else self.root
        data = from_frame(
            frame,
            self.modalities,
            target,
            id=self.id,
            group=group,
            subgroups=subgroups,
            task=task if task is not None else self.task,
            root=root,
            name=self.name,
            keep_empty=predict,
            reserved=reserved,
        )
        data.card = {"name": self.name, "licence": self.licence, "table": self.table}
        return data

    def split(self, seed: int = 0, by_class: bool = True) -> Splits:
        """The parts that the description asks for: by its column, by its fractions, or the default ones.

        Raises:
            DataError: a row whose part is none of train, val and test; see :func:`make_splits` for the rest.
        """
        if self.splits is None or isinstance(self.splits, dict):
            # A part that is not named gets nothing, as soon as one is named.
            fractions: dict[str, Any] = {**dict.fromkeys(PARTS, 0.0), **self.splits} if self.splits else {}
            return make_splits(self.dataset(), **fractions, seed=seed, by_class=by_class)
        frame = self.read()
        self._check_splits_column([str(column) for column in frame.columns], False)
        ids = frame[self.id].astype(str) if self.id else pd.Series(frame.index.astype(str))
        part = _said(frame[self.splits])
        if not (part != "").any():
            raise DataError(f"splits: column {self.splits!r} is empty in every row; expected train, val or test.")
        # What a row that is left out holds, such as a class of its own or no target, must not count.
        data = self.dataset(frame[part != ""])
        logger.info("splits: %d of %d rows are in no part and left out", int((part == "").sum()), len(part))
        odd = ~part.isin([*PARTS, ""])
        if odd.any():
            row = int(np.flatnonzero(odd)[0])
            raise DataError(
                f"splits: column {self.splits!r} says {part.iloc[row]!r} for id {ids.iloc[row]!r}."
                f"{did_you_mean(part.iloc[row], PARTS)} An empty cell leaves the sample out."
            )
        known = set(data.ids.tolist())  # a sample that has nothing is no longer there
        indices = {
            name: np.array([key for key in ids[part.to_numpy() == name] if key in known], dtype=object)
            for name in PARTS
            if (part == name).any()
        }
        return make_splits(data, seed=seed, indices=indices, by_class=by_class)

    def _reserved(self) -> dict[str, tuple[str, ...]]:
        targets = (self.target,) if isinstance(self.target, str) else self.target or ()
        single = {"id": self.id, "group": self.group, "splits": self.splits if isinstance(self.splits, str) else None}
        return {"target": targets, **{role: (column,) if column else () for role, column in single.items()}}

    def _absent(self, columns: Collection[str]) -> dict[str, list[str]]:
        """The columns of modalities that a table says nothing about at all."""
        columns, absent = set(columns), {}
        for name, given in self.modalities.items():
            listed = given.get("path") or given.get("columns") if isinstance(given, Mapping) else given
            wanted = [str(column) for column in _listed(listed)]
            if not any(set("*?[") & set(column) or column in columns for column in wanted):
                absent[name] = wanted
        return absent

    def _with_absent_columns(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Empty columns for modalities that a table says nothing about at all."""
        absent = self._absent([str(column) for column in frame.columns])
        for name in absent:
            logger.warning("modality %s: the table has none of its columns; it is absent from every sample", name)
        added = [column for wanted in absent.values() for column in wanted]
        if not added:
            return frame
        return pd.concat([frame, pd.DataFrame(np.nan, index=frame.index, columns=added)], axis=1)

    def _check_splits_column(self, columns: list[str], predict: bool) -> None:
        if isinstance(self.splits, str) and self.splits not in columns and not predict:
            raise DataError(f"splits: no column {self.splits!r} in the table.{did_you_mean(self.splits, columns)}")


def load_description(path: str | os.PathLike[str]) -> MultimodalDataset:
    """The data set that a YAML file describes.

    Raises:
        ConfigError: the description is wrong; the message names the file and the key.
        DataError: the table or a file is.
    """
    with _told_with(path):
        return Description.from_file(path).dataset()


@checked
def load_splits(path: str | os.PathLike[str], seed: int = 0) -> Splits:
    """The train, validation and test parts of the data set that a YAML file describes."""
    with _told_with(path):
        return Description.from_file(path).split(seed)


def _listed(given: Any) -> list[Any]:
    """What is given as a list, or as a single entry."""
    return list(given) if isinstance(given, (list, tuple)) else [] if given is None else [given]


def _said(column: pd.Series) -> pd.Series:
    """What a column of parts says, as text; empty where the row is left out."""
    return column.fillna("").astype(str).str.strip()


def _check_splits(place: str, splits: Any) -> None:
    if splits is None or isinstance(splits, str):
        return
    if not isinstance(splits, Mapping):
        raise ConfigError(f"{place}: splits: expected a column or fractions of train, val and test, got {splits!r}.")
    for key, value in splits.items():
        if key not in PARTS:
            raise ConfigError(f"{place}: splits: unknown part {key!r}.{did_you_mean(key, PARTS)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"{place}: splits: expected a fraction for {key!r}, got {value!r}.")


class _told_with:  # noqa: N801  reads as a statement
    """Puts the name of the description in front of what its data set is refused for."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = str(path)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (DataError, ConfigError)) and self.path not in str(error):
            raise type(error)(f"{self.path}: {error}") from error
