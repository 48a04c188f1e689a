"""What a report says about data: counts, never a sample; small as a file, and still there when the data are not."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lacunar.errors import RunError
from lacunar.lattice import Lattice

__all__ = ["DataSummary", "Shown", "suppress"]

FORMAT = 1
CLASSES = 20  # more of them are not listed


@dataclass
class DataSummary:
    """Counts of a data set and its parts.

    Attributes:
        name: what the data are called.
        names: modalities in lattice order.
        kinds, shapes: of each modality, in words.
        samples: samples in each part.
        patterns: for each part, samples by code of what they have.
        labels: for each part, samples by class; empty for other tasks.
        task: what is predicted, in words.
        card: source, licence and cautions, in words.
        dropped: samples that were left out because they had nothing.
        presence: law, seed, asked rates and hash of the presence table; empty when there is none.
        split_hash: hash of which id is in which part.
    """

    name: str
    names: list[str]
    kinds: dict[str, str]
    shapes: dict[str, str]
    samples: dict[str, int]
    patterns: dict[str, dict[int, int]]
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    task: str = ""
    card: str = ""
    dropped: int = 0
    presence: dict[str, Any] = field(default_factory=dict)
    split_hash: str = ""

    @classmethod
    def of(cls, data: Any) -> DataSummary:
        """Count a data set, or the parts of one."""
        parts = data.parts if hasattr(data, "parts") else {"all": data}
        first = next(iter(parts.values()))
        table = getattr(data, "presence", None)
        presence = {}
        if table is not None:
            presence = {"law": table.law, "seed": table.seed, "hash": table.hash, "asked": table.asked}
        return cls(
            name=str(first.name),
            names=list(first.names),
            kinds=dict(first.kinds),
            shapes={name: "x".join(map(str, shape)) or "-" for name, shape in first.shapes.items()},
            samples={name: len(part) for name, part in parts.items()},
            patterns={name: _patterns(part) for name, part in parts.items()},
            labels=_labels(parts),
            task=_task(first),
            card=_card(first.card),
            dropped=sum(int(part.dropped) for part in parts.values()),
            presence=presence,
            split_hash=str(getattr(data, "hash", "")),
        )

    @property
    def pattern_table(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Counts, one row per pattern and one column per part, the most frequent first; and its (K, M) members."""
        codes = sorted({code for counts in self.patterns.values() for code in counts})
        table = pd.DataFrame(
            {part: [counts.get(code, 0) for code in codes] for part, counts in self.patterns.items()}, index=codes
        )
        table = table.loc[table.sum(axis=1).sort_values(ascending=False, kind="stable").index]
        members = np.array([[code >> m & 1 for m in range(len(self.names))] for code in table.index], dtype=bool)
        return table, members.reshape(len(table), len(self.names))

    @property
    def observed(self) -> pd.DataFrame:
        """How many samples have each modality (rows) in each part (columns)."""
        columns = {
            part: [sum(n for code, n in counts.items() if code >> m & 1) for m in range(len(self.names))]
            for part, counts in self.patterns.items()
        }
        return pd.DataFrame(columns, index=self.names)

    @property
    def missing_rates(self) -> pd.DataFrame:
        """Fraction absent of each modality (rows) in each part (columns)."""
        return 1 - self.observed / pd.Series(self.samples).clip(lower=1)

    def shown(self, least: int = 0) -> Shown:
        """What may be shown when counts from 1 to ``least - 1`` may not be, nor what they could be found from."""
        counts, members = self.pattern_table
        classes = list(next(iter(self.labels.values()), {}))
        labels = pd.DataFrame(self.labels).reindex(classes) if len(classes) <= CLASSES else pd.DataFrame()
        sizes = pd.Series(self.samples, dtype=float)
        shown, rates = (suppress(counts, least), suppress(labels, least)), self.missing_rates
        for part, size in self.samples.items():
            columns = [(table[part], all_of[part]) for table, all_of in zip(shown, (counts, labels)) if part in table]
            # Where nothing is left to hide a small count behind, the size of the part goes, and all that adds up to it.
            if least > 1 and (0 < size < least or any(_told(all_of[own.isna()], least) for own, all_of in columns)):
                sizes[part] = np.nan
                for table in shown:
                    if part in table:
                        table[part] = np.nan
            # A missing rate is a sum of patterns: several tell the hidden ones.
            if shown[0][part].isna().any():
                rates[part] = np.nan
        # In the order of what is shown: the place of a hidden count would tell about how large it is.
        order = shown[0].sort_index().sum(axis=1).sort_values(ascending=False, kind="stable").index
        members = members[counts.index.get_indexer(order)]
        return Shown(sizes, shown[0].loc[order], members, shown[1], rates)

    def label(self, code: int) -> str:
        """The modalities of a pattern in words."""
        return Lattice(self.names).label(code) if code else "nothing"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the counts as JSON."""
        text = json.dumps({"format": FORMAT, "what": "lacunar data summary", **asdict(self)}, indent=1)
        partial = Path(path).with_name(f".{Path(path).name}.{os.getpid()}")
        try:
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DataSummary:
        """The counts that :meth:`save` wrote.

        Raises:
            RunError: the file cannot be read as counts.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content.pop("what") != "lacunar data summary" or content.pop("format") > FORMAT:
                raise ValueError("not a data summary of this version")
            patterns = {part: {int(code): n for code, n in row.items()} for part, row in content["patterns"].items()}
            return cls(**{**content, "patterns": patterns})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path}: no data summary can be read here ({error}).") from error


@dataclass
class Shown:
    """Counts of a data set with NaN in place of those that are not to be shown.

    Attributes:
        samples: samples in each part.
        patterns: one row per pattern and one column per part, those with the largest counts first.
        members: which modality is in which pattern, boolean, shape ``(K, M)``.
        labels: one row per class and one column per part; empty without classes, and with too many to list.
        rates: missing rates, one row per modality and one column per part.
    """

    samples: pd.Series
    patterns: pd.DataFrame
    members: np.ndarray
    labels: pd.DataFrame
    rates: pd.DataFrame


def suppress(table: pd.DataFrame, least: int) -> pd.DataFrame:
    """A table of counts in which small ones are NaN, so that nobody can be singled out.

    A count from 1 to ``least - 1`` is hidden. Hidden counts of a column that could be found from the column's sum, as a
    lone one always can, take the next smallest with them.

    Args:
        table: counts.
        least: the smallest count that may be shown; 0 or 1 hides nothing.
    """
    shown = table.astype(float)
    if least <= 1:
        return shown
    hidden = (shown > 0) & (shown < least)
    for column in shown:
        while _told(shown[column][hidden[column]], least):
            rest = shown[column].where(~hidden[column] & (shown[column] > 0)).dropna()
            if not len(rest):
                break
            hidden.loc[rest.idxmin(), column] = True
    return shown.mask(hidden)


def _told(hidden: pd.Series, least: int) -> bool:
    """Whether hidden counts follow from their sum: one alone, a small sum, all of them 1, or all ``least - 1``."""
    many, total = len(hidden), int(hidden.sum())
    return many == 1 or 0 < total < least or (many > 0 and total in (many, many * (least - 1)))


def _patterns(part: Any) -> dict[int, int]:
    codes, counts = part.lattice.encode(part.present).unique(return_counts=True)
    return dict(zip(codes.tolist(), counts.tolist()))


def _task(part: Any) -> str:
    if part.task is None:
        return "none: the data have no target"
    outputs = f"{part.task.n_outputs} output" + ("" if part.task.n_outputs == 1 else "s")
    return f"{part.task.kind}, {outputs}, scored by {part.task.score_name}"


def _labels(parts: dict[str, Any]) -> dict[str, dict[str, int]]:
    found = {}
    for name, part in parts.items():
        classes = getattr(part.task, "classes", None)
        if part.target is None or classes is None or part.task.kind != "classification":
            continue
        counts = np.bincount(part.target.numpy(), minlength=part.task.n_outputs)
        found[name] = {str(label): int(count) for label, count in zip(classes, counts)}
    return found


def _card(card: Any) -> str:
    if isinstance(card, Mapping):
        return "\n".join(f"{key}: {value}" for key, value in card.items() if value is not None)
    return "" if card is None else str(card)
