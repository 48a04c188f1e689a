"""Train, validation and test parts of one data set."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lacunar.data.dataset import MultimodalDataset
from lacunar.data.matching_parts import check_parts, target_for
from lacunar.data.presence import PresenceTable, draw_presence, observed_presence
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.lattice import Lattice
from lacunar.tasks import Task

__all__ = ["PARTS", "Splits"]

logger = logging.getLogger(__name__)

PARTS = ("train", "val", "test")
DRAWN_BY = ("driver", "strength", "strata", "table")


class Splits:
    """The parts of a data set: validation is always there, and the test part is for the end.

    The task is copied and fitted on the train targets only; the three parts share it. Parts that were made apart may
    number their labels differently: they are numbered as in train.

    Args:
        train: samples to learn from.
        val: samples to select and to calibrate on.
        test: samples that are scored once, at the end; None when there are none.
        presence: the presence table that made the parts what they are; what they have when left out.

    Raises:
        DataError: an empty part, parts with different modalities, kinds, shapes or tasks, an id or a group in two
            parts, a class or a modality that no train sample has.
    """

    def __init__(
        self,
        train: MultimodalDataset,
        val: MultimodalDataset,
        test: MultimodalDataset | None = None,
        presence: PresenceTable | None = None,
    ):
        parts = {"train": train, "val": val, "test": test}
        given = {name: part for name, part in parts.items() if part is not None}
        check_parts(given)
        task = None
        if train.task is not None and train.target is not None:
            task = train.task.copy().fit(train.target)
            given = {name: part.with_task(task, target_for(name, part, train.task)) for name, part in given.items()}
        self.train, self.val, self.test = given["train"], given["val"], given.get("test")
        self.task: Task | None = task
        self.presence = presence or PresenceTable.join([observed_presence(part) for part in given.values()])
        for name, part in given.items():
            never = [modality for modality, count in zip(part.names, part.availability.tolist()) if not count]
            if never and name == "train":
                raise DataError(
                    f"Modality {never[0]!r} is never present in the {len(part)} train samples, so that nothing can be "
                    "learned about it. Leave it out with .only(...), or split in another way."
                )
            if never:
                logger.warning("no sample of the %s part has modality %s", name, ", ".join(never))

    @property
    def parts(self) -> dict[str, MultimodalDataset]:
        """The parts that there are, by name."""
        everything = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in everything.items() if part is not None}

    @property
    def card(self) -> Any:
        """Facts about the data worth printing (source, licence), or None."""
        return self.train.card

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names in lattice order."""
        return self.train.names

    @property
    def lattice(self) -> Lattice:
        return self.train.lattice

    @property
    def ids(self) -> dict[str, list[str]]:
        """Sample ids of each part: with ``make_splits(data, indices=splits.ids)`` the split can be made again."""
        return {name: part.ids.tolist() for name, part in self.parts.items()}

    @property
    def hash(self) -> str:
        """SHA-256 of which id is in which part, whatever the order."""
        return hashlib.sha256(json.dumps({name: sorted(ids) for name, ids in self.ids.items()}).encode()).hexdigest()

    def only(self, names: Sequence[str]) -> Splits:
        """The same parts with some of the modalities; samples that have none of them are left out."""
        return self._with({name: part.only(names) for name, part in self.parts.items()}, self.presence)

    def hide(
        self,
        presence: PresenceTable | Mapping[str, float] | float | None = None,
        law: str = "independent",
        *,
        seed: int = 0,
        parts: Sequence[str] = ("train", "val"),
        resolve_empty: str = "drop",
        **options: Any,
    ) -> Splits:
        """The same parts with fewer cells.

        Args:
            presence: a presence table that covers the samples of the parts, or missing rates to draw one from.
            law: the law to draw from, see :func:`lacunar.data.presence.draw_presence`; each part has its own draw.
            seed: seed of the draw.
            parts: the parts that lose cells. The test part stays as it is unless it is named, so that every subset
                can be scored on the same samples.
            resolve_empty: what happens to samples with nothing, see :func:`draw_presence`.
            **options: ``driver``, ``strength``, ``strata`` and ``table``, see :func:`draw_presence`. A driver or strata
                are names, or have a value for every sample of the data set that was split.

        Returns:
            New splits, whose ``presence`` is the table of all samples.

        Raises:
            ConfigError: an unknown part or option, or one that says nothing beside a presence table.
        """
        parts = [parts] if isinstance(parts, str) else list(parts)
        for name in parts:
            if name not in self.parts:
                raise ConfigError(f"parts: unknown part {name!r}.{did_you_mean(name, self.parts)}")
        for option in options:
            if option not in DRAWN_BY:
                raise ConfigError(f"hide: unknown option {option!r}.{did_you_mean(option, DRAWN_BY)}")
        if isinstance(presence, PresenceTable):
            # The defaults say nothing either way.
            asked = {
                "law": law not in ("independent", "table"),
                "seed": seed != 0,
                "resolve_empty": resolve_empty != "drop",
            }
            idle = [*(option for option, given in asked.items() if given), *options]
            if idle:
                raise ConfigError(
                    f"hide: {', '.join(idle)} would be about drawing a presence table, and one is given. Leave that "
                    "out, or give rates."
                )
        tables, hidden = [], {}
        for name, part in self.parts.items():
            if name not in parts:
                table = observed_presence(part)
            elif isinstance(presence, PresenceTable):
                table = PresenceTable(
                    presence.align(part.ids, part.names),
                    part.ids,
                    part.names,
                    law=presence.law,
                    seed=presence.seed,
                    asked=presence.asked,
                    resolve_empty=presence.resolve_empty,
                )
            else:
                table = draw_presence(
                    part, presence, law, seed=seed, resolve_empty=resolve_empty, **self._of_part(name, parts, options)
                )
                logger.info("%s: %s", name, table)
            tables.append(table)
            hidden[name] = part.hide(table) if name in parts else part
        drawn = [table for name, table in zip(self.parts, tables) if name in parts]
        rest = [table for name, table in zip(self.parts, tables) if name not in parts]
        whole = PresenceTable.join([*drawn, *rest])
        if drawn:  # the rates are those of the parts that lost cells
            told = PresenceTable.join(drawn)
            whole.realised, whole.empty = told.realised, told.empty
        return self._with(hidden, whole)

    def _of_part(self, name: str, parts: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of one part's draw: of lists with a value per sample, the values of its own samples."""
        rows, own = self.parts[name].row.numpy(), dict(options)
        for option in ("driver", "strata"):
            if options.get(option) is None or isinstance(options[option], str):
                continue
            values = np.asarray(options[option])
            if len(parts) == 1 and values.shape == rows.shape:
                continue
            everything = np.concatenate([part.row.numpy() for part in self.parts.values()])
            if len(np.unique(everything)) < len(everything):
                raise DataError(
                    f"{option}: the parts were made apart, so that one list of values cannot tell whose is whose. "
                    "Give the name of a subgroup attribute, or hide cells of one part at a time."
                )
            if values.ndim != 1 or len(values) <= everything.max():
                raise DataError(
                    f"{option}: expected a value for every sample of the data set that was split, at least "
                    f"{everything.max() + 1}, got shape {values.shape}."
                )
            own[option] = values[rows]
        return own

    def _with(self, parts: dict[str, MultimodalDataset], presence: PresenceTable) -> Splits:
        return Splits(parts["train"], parts["val"], parts.get("test"), presence)

    def describe(self) -> pd.DataFrame:
        """One row per part: samples, missing rate of each modality, samples of each class."""
        rows = {}
        for name, part in self.parts.items():
            row: dict[str, Any] = {"samples": len(part)}
            row |= {f"missing {modality}": rate for modality, rate in part.missing_rates.items()}
            if self.task is not None and self.task.kind == "classification" and part.target is not None:
                counts = np.bincount(part.target.numpy(), minlength=self.task.n_outputs)
                row |= {f"class {label}": int(n) for label, n in zip(getattr(self.task, "classes", ()), counts)}
            rows[name] = row
        return pd.DataFrame.from_dict(rows, orient="index")

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(part)} {name}" for name, part in self.parts.items())
        return f"Splits({self.train.name!r}: {sizes}; {', '.join(self.names)}; {self.task or 'no task'})"

    def __str__(self) -> str:
        table = self.describe().T
        rates = [str(row).startswith("missing ") for row in table.index]
        shown = pd.DataFrame(
            {
                part: [f"{value:.3f}" if rate else f"{value:.0f}" for value, rate in zip(table[part], rates)]
                for part in table
            },
            index=table.index,
        )
        title = f"{self.train.name}: {', '.join(f'{len(part)} {name}' for name, part in self.parts.items())}"
        dropped = sum(part.dropped for part in self.parts.values())
        lines = [title, f"task: {self.task or 'none'}", shown.to_string()]
        if self.presence.law != "observed":
            lines += ["", str(self.presence)]
        elif dropped:
            lines.append(f"{dropped} samples without any modality were left out")
        return "\n".join(lines)
