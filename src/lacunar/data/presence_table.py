"""Presence tables: which sample has which modality, as data that can be saved, hashed and shared."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lacunar.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from lacunar.data.dataset import MultimodalDataset

__all__ = ["PresenceTable", "observed_presence", "presence_by_name", "realised_rates", "refuse_repeats"]

FORMAT = 1


class PresenceTable:
    """Presence keyed by sample id and modality name; True means observed.

    Args:
        present: booleans, shape ``(N, M)``.
        ids: one id per sample, unique; stored as text.
        names: one name per modality, unique.
        law: the law that the table was drawn from, ``"table"`` for one that was given, ``"observed"`` for one that
            was read off a data set.
        seed: seed of the draw, if any.
        asked: missing rates that were asked for.
        resolve_empty: what happens to samples with nothing: ``"drop"``, ``"redraw"`` or ``"keep"``.
        realised: missing rate per modality as asked, as drawn (``before``) and with all-absent samples resolved
            (``after``); computed from the table when left out.
        empty: how many samples had nothing before they were resolved.

    Raises:
        DataError: wrong shape, repeated ids or names, or something other than booleans.
    """

    def __init__(
        self,
        present: Any,
        ids: Sequence[Any] | np.ndarray,
        names: Sequence[str],
        *,
        law: str = "table",
        seed: int | None = None,
        asked: Mapping[str, float] | None = None,
        resolve_empty: str = "drop",
        realised: pd.DataFrame | None = None,
        empty: int | None = None,
    ):
        self.names = tuple(str(name) for name in names)
        self.ids = np.array([str(key) for key in ids], dtype=object)
        cells = np.asarray(present)
        if cells.shape != (len(self.ids), len(self.names)):
            expected = (len(self.ids), len(self.names))
            raise DataError(f"Presence table: expected shape {expected} (ids, modalities), got {cells.shape}.")
        if not np.isin(cells, (0, 1)).all():
            raise DataError("Presence table: expected only True (observed) and False (absent).")
        self.present = cells.astype(bool)
        refuse_repeats("ids", self.ids)
        refuse_repeats("modalities", np.array(self.names, dtype=object))
        self.law, self.resolve_empty = law, resolve_empty
        self.seed = seed.item() if isinstance(seed, np.generic) else seed  # JSON knows no numpy numbers
        self.asked = None if asked is None else {str(key): float(rate) for key, rate in asked.items()}
        nothing = ~self.present.any(axis=1)
        self.empty = int(nothing.sum()) if empty is None else empty
        if realised is None:
            resolved = self.present if resolve_empty == "keep" else self.present[~nothing]
            realised = realised_rates(self.names, self.asked, self.present, resolved)
        self.realised = realised

    def __len__(self) -> int:
        return len(self.ids)

    def rates(self) -> dict[str, float]:
        """Fraction of all samples in the table in which each modality is absent."""
        return dict(zip(self.names, missing_rates(self.present).tolist()))

    def patterns(self) -> pd.Series:
        """How many samples have each combination of modalities, most frequent first."""
        rows, counts = np.unique(self.present, axis=0, return_counts=True)
        labels = ["+".join(np.array(self.names, dtype=object)[row]) or "nothing" for row in rows]
        return pd.Series(counts, index=labels, name="samples").sort_values(ascending=False, kind="stable")

    @property
    def hash(self) -> str:
        """SHA-256 of the content: the same whatever the order of samples and modalities."""
        by_name = np.argsort(np.array(self.names, dtype=object))
        digest = hashlib.sha256(json.dumps([self.names[m] for m in by_name]).encode())
        for row in np.argsort(self.ids):
            bits = "".join("1" if cell else "0" for cell in self.present[row, by_name])
            digest.update(json.dumps([self.ids[row], bits]).encode())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PresenceTable) and self.hash == other.hash

    def __hash__(self) -> int:
        return int(self.hash[:15], 16)

    def align(self, ids: Sequence[Any] | np.ndarray, names: Sequence[str] | None = None) -> np.ndarray:
        """Presence of the given samples in the given order, boolean, shape ``(len(ids), len(names))``.

        Raises:
            DataError: an id or a modality that the table does not have. What it has beyond them is ignored.
        """
        wanted = self.names if names is None else tuple(names)
        for name in wanted:
            if name not in self.names:
                raise DataError(
                    f"The presence table has no modality {name!r}.{did_you_mean(name, self.names)} "
                    "Add a column for it (True where it is observed)."
                )
        row_of = {key: row for row, key in enumerate(self.ids)}
        keys = [str(key) for key in ids]
        unknown = [key for key in keys if key not in row_of]
        if unknown:
            listing = ", ".join(map(repr, unknown[:3]))
            raise DataError(
                f"The presence table lacks {len(unknown)} of {len(keys)} sample ids, the first are {listing}."
                f"{did_you_mean(unknown[0], list(self.ids[:1000])) if len(unknown) < len(keys) else ''} "
                "It must be made for the samples it is used on."
            )
        columns = [self.names.index(name) for name in wanted]
        return self.present[[row_of[key] for key in keys]][:, columns]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the table as CSV behind one comment line of JSON; a file that exists is replaced as a whole."""
        target = Path(path)
        facts = {
            "format": FORMAT,
            "law": self.law,
            "seed": self.seed,
            "asked": self.asked,
            "resolve_empty": self.resolve_empty,
            "empty": self.empty,
            "realised": {
                str(key): list(map(_number, row)) for key, row in zip(self.realised.index, self.realised.values)
            },
            "hash": self.hash,
        }
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with open(temporary, "w", encoding="utf-8", newline="") as file:
                file.write("# " + json.dumps(facts) + "\n")
                # A carriage return ends a line, too, but is not quoted for it.
                returns = any("\r" in text for text in (*self.ids, *self.names))
                writer = csv.writer(
                    file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
                )
                writer.writerow(["id", *self.names])
                writer.writerows([key, *row.astype(int)] for key, row in zip(self.ids, self.present))
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PresenceTable:
        """Read a table that :meth:`save` wrote.

        Raises:
            DataError: no such file, another kind of file, or content that does not match its hash.
        """
        source = Path(path)
        if not source.is_file():
            raise DataError(f"Presence table not found: {source}.")
        try:
            with source.open(encoding="utf-8", newline="") as file:
                first = file.readline()
                facts = json.loads(first[1:]) if first.startswith("#") else None
                rows = list(csv.reader(file))
            if not isinstance(facts, dict) or facts.get("format") != FORMAT or not rows or rows[0][:1] != ["id"]:
                raise ValueError("no header of a presence table")
            names, body = rows[0][1:], rows[1:]
            cells = np.array([row[1:] for row in body]).reshape(len(body), len(names)).astype(int)
            realised = pd.DataFrame.from_dict(
                facts["realised"], orient="index", columns=list(REALISED), dtype=float
            ).rename_axis("modality")
            table = cls(
                cells,
                [row[0] for row in body],
                names,
                law=facts["law"],
                seed=facts["seed"],
                asked=facts["asked"],
                resolve_empty=facts["resolve_empty"],
                realised=realised,
                empty=facts["empty"],
            )
            recorded = facts["hash"]
        except (ValueError, KeyError, IndexError, TypeError, UnicodeDecodeError) as error:
            raise DataError(f"Not a presence table, or a damaged one: {source} ({error}).") from error
        if table.hash != recorded:
            raise DataError(
                f"Presence table {source}: the content does not match its hash (recorded {recorded[:12]}, "
                f"found {table.hash[:12]}). It was edited or damaged; restore it, or draw it again."
            )
        return table

    @classmethod
    def join(cls, tables: Sequence[PresenceTable]) -> PresenceTable:
        """One table of several with different samples and the same modalities."""
        first = tables[0]
        joined = cls(
            np.concatenate([table.align(table.ids, first.names) for table in tables]),
            np.concatenate([table.ids for table in tables]),
            first.names,
            law=first.law,
            seed=first.seed,
            asked=first.asked,
            resolve_empty=first.resolve_empty,
            empty=sum(table.empty for table in tables),
        )
        # What was drawn before empty samples were resolved is known to the parts only.
        drawn = [table.realised["before"].reindex(first.names).to_numpy() for table in tables]
        joined.realised["before"] = np.average(drawn, axis=0, weights=[len(table) for table in tables])
        return joined

    def __str__(self) -> str:
        seed = "" if self.seed is None else f", seed {self.seed}"
        lines = [f"presence of {len(self)} samples, law {self.law}{seed}, hash {self.hash[:12]}"]
        lines.append(self.realised.to_string(float_format="{:.3f}".format, na_rep="-"))
        if self.empty:
            fate = {"drop": "left out", "redraw": "drawn again", "keep": "kept"}.get(self.resolve_empty, "found")
            lines.append(f"{self.empty} samples had nothing: {fate}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"PresenceTable({len(self)} samples, {', '.join(self.names)}, law={self.law!r}, hash={self.hash[:12]})"


REALISED = ("asked", "before", "after")


def missing_rates(present: np.ndarray) -> np.ndarray:
    """Fraction absent per modality, shape ``(M,)``; NaN over no samples."""
    if len(present) == 0:
        return np.full(present.shape[1], np.nan)
    return 1.0 - present.mean(axis=0)


def realised_rates(
    names: Sequence[str], asked: Mapping[str, float] | None, before: np.ndarray, after: np.ndarray
) -> pd.DataFrame:
    """Missing rates as asked, as drawn, and once all-absent samples are resolved."""
    wanted = [np.nan if asked is None else asked.get(name, 0.0) for name in names]
    columns = dict(zip(REALISED, (wanted, missing_rates(before), missing_rates(after))))
    return pd.DataFrame(columns, index=list(names), dtype=float).rename_axis("modality")


def observed_presence(data: MultimodalDataset) -> PresenceTable:
    """The presence of a data set as it is."""
    return PresenceTable(data.present.numpy(), data.ids, data.names, law="observed", resolve_empty="keep")


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def refuse_repeats(what: str, values: np.ndarray) -> None:
    """DataError when a value is there more than once."""
    repeated = pd.Index(values).duplicated()
    if repeated.any():
        raise DataError(f"Presence table: {what} must be unique, {values[repeated][0]!r} is there more than once.")


def presence_by_name(present: Any, names: Sequence[str], count: int, ids: np.ndarray) -> dict[str, np.ndarray] | None:
    """Presence by modality, ``(count,)`` each, from a table, a frame, a mapping or an array; None for None."""
    if present is None:
        return None
    if isinstance(present, PresenceTable):
        present = dict(zip(names, np.asarray(present.align(ids, names)).T))
    if isinstance(present, (pd.DataFrame, Mapping)):
        table = {str(key): _by_id(str(key), present[key], ids) for key in present}
        for key, column in table.items():
            if column.ndim != 1:
                raise DataError(
                    f"present: modality {key!r}: expected True or False for each sample, got {present[key]!r}. Missing "
                    "rates are for splits, data.split(...).hide(rates), or for lacunar.draw_presence(data, rates)."
                )
    else:
        array = np.asarray(present)
        if array.shape != (count, len(names)):
            raise DataError(f"present: expected shape {(count, len(names))}, got {array.shape}.")
        table = dict(zip(names, array.T))
    for key, column in table.items():
        if key not in names:
            raise DataError(f"present: unknown modality {key!r}.{did_you_mean(key, names)}")
        if len(column) != count:
            raise DataError(f"present: modality {key!r} has {len(column)} rows, expected {count}.")
        if not np.isin(column, (0, 1)).all():
            raise DataError(f"present: modality {key!r} holds something other than True and False.")
        table[key] = column.astype(bool)
    return table


def _by_id(name: str, column: Any, ids: np.ndarray) -> np.ndarray:
    """Presence of one modality in the order of the samples; an index other than the row numbers holds their ids."""
    if not isinstance(column, pd.Series) or column.index.equals(pd.RangeIndex(len(column))):
        return np.asarray(column)
    row_of = {str(key): row for row, key in enumerate(column.index)}
    unknown = [key for key in ids if key not in row_of]
    if unknown or len(row_of) < len(column):
        why = (
            f"lacks {len(unknown)} of {len(ids)} sample ids, the first is {unknown[0]!r}" if unknown else "repeats ids"
        )
        raise DataError(
            f"present: the index of modality {name!r} {why}. Index it by sample id, or give it in the order of the "
            "samples with .reset_index(drop=True)."
        )
    return column.to_numpy()[[row_of[key] for key in ids]]
