"""Which trainings a utility table takes, what each learns from, and why some subsets get no value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lacunar.data.dataset import MultimodalDataset
from lacunar.lattice import Lattice
from lacunar.planning.amortised import AmortisedCell
from lacunar.planning.batched import BatchedCell, groups_of
from lacunar.planning.equal_n import balanced_order, equal_size, having, rows_for
from lacunar.planning.estimate_pilot import Repeat
from lacunar.planning.retrain import FEWEST_SCORED, Cell
from lacunar.planning.set_aside import set_aside, ungrouped
from lacunar.tasks.base import to_plain

__all__ = ["AnyCell", "CellPlan", "Job", "side_by_side"]

#: Share of the train samples that validate where no validation sample has a subset.
STAND_IN = 0.15

AnyCell = Cell | AmortisedCell | BatchedCell

#: The names of what a job gives, one for each repeat it belongs to, and what makes the job.
Job = tuple[tuple[str, ...], Callable[[], AnyCell]]


def side_by_side(by_repeat: list[list[Job]]) -> list[Job]:
    """The cells of several repeats as one job."""

    def job(repeats: list[list[Job]]) -> Job:
        keys = tuple(jobs[0][0][0].rpartition("-")[0] + "-together" for jobs in repeats)
        return keys, lambda: BatchedCell({key: [make() for _, make in jobs] for key, jobs in zip(keys, repeats)})  # type: ignore[misc]

    return [job(group) for group in groups_of([jobs for jobs in by_repeat if jobs])]


class CellPlan:
    """Which cells there are, what each trains on, and why some are not there."""

    def __init__(
        self,
        lattice: Lattice,
        codes: list[int],
        metric: str,
        make_model: Callable[[MultimodalDataset], Any],
        fit: dict[str, Any],
        equal_n: bool,
        fewest: int,
        chances: dict[int, np.ndarray] | None,
    ):
        self.lattice, self.codes, self.metric, self.make_model, self.fit = lattice, codes, metric, make_model, fit
        self.equal_n, self.fewest, self.chances = equal_n, fewest, chances
        self._reasons: dict[int, list[str]] = {}
        self._sizes: list[tuple[int, int]] = []

    def jobs(self, repeat: Repeat, estimator: str) -> list[Job]:
        """The cells of a repeat: a name for each, and what makes it."""
        train, held = repeat.splits.train, repeat.held
        usable = []
        for code in self.codes:
            learnable, scorable = len(having(train, code)), len(having(held, code))
            if learnable < self.fewest:
                self._skip(code, f"{learnable} training samples have all of it, fewer than {self.fewest}")
            elif scorable < FEWEST_SCORED:
                self._skip(code, f"{scorable} held-out samples have all of it, fewer than {FEWEST_SCORED}")
            else:
                usable.append(code)
        key = f"seed{repeat.seed}-fold{repeat.fold}"
        if estimator == "amortised":
            return [((f"{key}-all",), lambda: self._amortised(f"{key}-all", repeat, usable))] if usable else []
        size = equal_size(train, self.lattice, usable, self.fewest) if self.equal_n else None
        if size is not None:
            self._sizes.append((size, max(len(having(train, code)) for code in usable)))
        order = balanced_order(train, repeat.number)
        found: list[Job] = []
        for code in sorted(usable, key=lambda code: -code.bit_count()):
            rows = self._rows(train, code, order, size)
            whole = np.intersect1d(rows, having(train, code))
            lost = self._lost_class(train, whole)
            if lost is not None:
                self._skip(code, f"the {len(whole)} training samples that have all of it hold none of class {lost!r}")
                continue
            name = f"{key}-subset{code}"
            found.append(((name,), lambda name=name, code=code, rows=rows: self._retrain(name, repeat, code, rows)))  # type: ignore[misc]
        return found

    def _rows(self, train: MultimodalDataset, code: int, order: np.ndarray, size: int | None) -> np.ndarray:
        if not self.equal_n:  # everything there is of the subset, whole or in part
            members = [m for m in range(self.lattice.M) if code >> m & 1]
            return np.flatnonzero(train.present.numpy()[:, members].any(axis=1))
        return rows_for(order, having(train, code), _labels(train), size)

    def _retrain(self, key: str, repeat: Repeat, code: int, rows: np.ndarray) -> Cell:
        names = list(self.lattice.subset(code))
        splits = repeat.splits
        whole = having(splits.val, code)
        if len(whole):
            learn, val = splits.train.select(rows), splits.val.select(whole)
        else:
            learn, val = self._stand_in(splits.train, code, rows, repeat.number)
        asked = having(repeat.held, code)
        weight = None if self.chances is None else 1 / self.chances[code][repeat.held_rows[asked]]
        return Cell(
            key, code, self.lattice.label(code), learn.only(names), val.only(names),
            repeat.held.select(asked).only(names), asked, weight, self.metric, self.make_model, self.fit, repeat.number,
        )  # fmt: skip

    def _stand_in(
        self, train: MultimodalDataset, code: int, rows: np.ndarray, seed: int
    ) -> tuple[MultimodalDataset, MultimodalDataset]:
        """Some of the train samples validate, where no validation sample has the subset; the others are learned from.

        Those that validate have all of it, hold the classes in their proportions, and are whole groups.
        """
        whole = rows
        if not self.equal_n:  # then rows are in the order of the file, and some have only a part
            whole = rows_for(balanced_order(train, seed), having(train, code), _labels(train), None)
        if train.groups is not None:
            chosen = set_aside(train, whole, STAND_IN, seed)
            if chosen is not None:
                others = rows[~np.isin(train.groups[rows], train.groups[chosen])]
                return train.select(others), train.select(chosen)
            train = ungrouped(train)
        chosen = whole[-max(1, round(STAND_IN * len(whole))) :]
        return train.select(rows[~np.isin(rows, chosen)]), train.select(chosen)

    def _amortised(self, key: str, repeat: Repeat, codes: list[int]) -> AmortisedCell:
        train, held = repeat.splits.train, repeat.held
        rows = {code: having(held, code) for code in codes}
        weights = None
        if self.chances is not None:
            weights = {code: 1 / self.chances[code][repeat.held_rows[rows[code]]] for code in codes}
        counts = {code: len(having(train, code)) for code in codes}
        return AmortisedCell(
            key, codes, train, repeat.splits.val, held, rows, counts, weights, self.metric, self.make_model, self.fit,
            repeat.number,
        )  # fmt: skip

    def _lost_class(self, train: MultimodalDataset, rows: np.ndarray) -> Any:
        if train.task is None or train.task.kind != "classification" or train.target is None:
            return None
        seen = np.bincount(train.target.numpy()[rows], minlength=train.task.n_outputs)
        lost = np.flatnonzero(seen == 0)
        return to_plain(train.task.decode(torch.from_numpy(lost[:1]))[0]) if len(lost) else None

    def _skip(self, code: int, reason: str) -> None:
        self._reasons.setdefault(code, []).append(reason)

    def notes(self, repeats: int) -> list[str]:
        """What has no value and why, and what equal numbers of samples cost."""
        made = [
            f"{self.lattice.label(code)} has no value in {len(reasons)} of {repeats} repeats: {reasons[0]}. Collect "
            f"more samples that have {' and '.join(self.lattice.subset(code))}."
            for code, reasons in sorted(self._reasons.items())
        ]
        short = [(size, most) for size, most in self._sizes if size < most]
        if short:
            size, most = short[0]
            made.append(
                f"every subset was trained on equally many samples, {size} in the first repeat, which is what the "
                f"rarest subset has; others have up to {most} (equal_n=False trains on all)"
            )
        return made


def _labels(data: MultimodalDataset) -> np.ndarray | None:
    """The class of each sample, where there are classes."""
    if data.task is None or data.task.kind != "classification" or data.target is None:
        return None
    return data.target.numpy()
