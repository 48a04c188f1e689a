"""A pool of samples of which only what has been bought exists: to rehearse a collection on data that are complete."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lacunar.data.dataset import MultimodalDataset
from lacunar.data.presence import observed_presence
from lacunar.data.presence_table import PresenceTable
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.planning.costs import CostModel

__all__ = ["Pool", "Purchase"]


class Purchase(NamedTuple):
    """One line of the ledger."""

    modalities: tuple[str, ...]
    samples: int  #: that the purchase was for
    labels: int  #: of them that were new, and came with a label
    cells: int
    cost: float
    left: float  #: of the budget afterwards; infinite without one


class Pool:
    """What is owned of a data set, and a shop for the rest.

    :attr:`data` holds the owned cells and the labels of the samples they belong to. Everything else is gone from it:
    its stores do not contain the values, so that no training and no completer can read them, by mistake or on
    purpose. They live behind :meth:`acquire`, which debits the costs and reveals what was paid for.

    A sample is labelled when its first cell is bought; that is when recruitment and label are paid. Set-up is paid
    once for each modality, at its first new cell. What is owned at the start is free. Cells always arrive here: a
    failure rate makes them dearer, as :class:`CostModel` says, but loses none.

    Args:
        data: all samples, with their targets. Cells that they lack cannot be bought.
        owned: what is owned at the start: sample ids (text) or positions (integers) of samples that are owned with
            all that they have, one boolean per sample, or a presence table for single cells, booleans ``(N, M)`` or
            :class:`PresenceTable`.
        costs: prices, as :meth:`CostModel.read` takes them; 1 for each cell when left out.
        budget: the most that can be spent; None for no limit.

    Raises:
        DataError: data without targets or with generated cells, an unknown sample, nothing owned.
        ConfigError: a negative budget, or costs for other modalities.
    """

    def __init__(
        self,
        data: MultimodalDataset,
        owned: PresenceTable | Tensor | np.ndarray | Sequence[Any],
        costs: CostModel | Mapping[str, Any] | str | os.PathLike[str] | None = None,
        budget: float | None = None,
    ):
        if data.target is None:
            raise DataError("Pool: the data have no target, so no sample that is bought would have a label.")
        if bool(data.generated.any()):
            raise DataError("Pool: some cells were generated, and what was never measured cannot be sold.")
        if budget is not None and not (budget >= 0 and math.isfinite(budget)):
            raise ConfigError(f"budget: expected a number from 0 up, or None for no limit, got {budget!r}.")
        self.names, self.budget = data.names, math.inf if budget is None else float(budget)
        self.costs = CostModel.read(dict.fromkeys(data.names, 1.0) if costs is None else costs).check(data.names)
        self._position = {str(key): row for row, key in enumerate(data.ids)}
        self._ids, self._offered = np.array(data.ids), data.present.numpy().copy()
        self._owned = self._start(owned)
        if not self._owned.any():
            raise DataError("Pool: expected at least one owned cell to start from, got none.")
        self._bought: Counter[tuple[str, ...]] = Counter()  # new samples, by what they have
        self._added: Counter[tuple[str, ...]] = Counter()  # further cells of samples that were owned
        self._sold = np.zeros(len(self.names), dtype=int)
        self._ledger: list[Purchase] = []
        # The only way to the true values: no attribute of this object refers to them.
        self._reveal: Callable[[np.ndarray], MultimodalDataset] = _vault(data)
        self.data = self._reveal(self._owned)

    # ------------------------------------------------------------------ what is there

    @property
    def spent(self) -> float:
        """What has been paid so far."""
        return sum(purchase.cost for purchase in self._ledger)

    @property
    def left(self) -> float:
        """What remains of the budget; infinite without one."""
        return self.budget - self.spent

    @property
    def labels(self) -> int:
        """Labels that have been bought."""
        return sum(purchase.labels for purchase in self._ledger)

    @property
    def cells(self) -> dict[str, int]:
        """Cells that have been bought of each modality."""
        return dict(zip(self.names, self._sold.tolist()))

    @property
    def ledger(self) -> pd.DataFrame:
        """One row per purchase: ``modalities``, ``samples``, ``labels``, ``cells``, ``cost``, ``left``."""
        frame = pd.DataFrame(self._ledger, columns=Purchase._fields)
        frame["modalities"] = ["+".join(names) for names in frame["modalities"]]
        return frame

    @property
    def owned(self) -> PresenceTable:
        """Which cells are owned, of the samples of which any are."""
        return observed_presence(self.data)

    def available(self, modalities: Iterable[str] | str | None = None, new: bool = True) -> np.ndarray:
        """Ids of samples of which all of some modalities can be bought, in the order of the data.

        Args:
            modalities: names, or a label such as ``"image+text"``; all of them when left out.
            new: only samples of which nothing is owned.
        """
        columns = self._columns(self.names if modalities is None else modalities)
        free = self._offered[:, columns].all(1) & ~self._owned[:, columns].any(1)
        if new:
            free &= ~self._owned.any(1)
        return self._ids[free]

    # ------------------------------------------------------------------ buying

    def quote(self, ids: Sequence[str] | np.ndarray, modalities: Iterable[str] | str) -> float:
        """What :meth:`acquire` would charge; nothing is bought.

        Raises: as :meth:`acquire`, but for the budget.
        """
        return self._order(ids, modalities)[3]

    def acquire(self, ids: Sequence[str] | np.ndarray, modalities: Iterable[str] | str) -> MultimodalDataset:
        """Buy some modalities of some samples: all of it, or nothing at all.

        Args:
            ids: of the samples; new ones get their label too.
            modalities: names, or a label such as ``"image+text"``.

        Returns:
            :attr:`data` with the new cells in it.

        Raises:
            DataError: an unknown id or modality, an id that is given twice, a cell that is owned already or that
                does not exist.
            ConfigError: more than the budget or the capacity allows.
        """
        rows, columns, new, price = self._order(ids, modalities)
        if price > self.left + 1e-9 * max(1.0, self.budget if math.isfinite(self.budget) else 1.0):
            raise ConfigError(
                f"Over budget: {len(rows)} samples of {'+'.join(self._chosen(columns))} cost "
                f"{self.costs.amount(price)}, and {self.costs.amount(self.left)} of "
                f"{self.costs.amount(self.budget)} are left. Buy fewer samples or modalities."
            )
        names = self._chosen(columns)
        kinds = self._bought + self._added + Counter({names: len(rows)})
        for name in names:
            most = self.costs.capacity.get(name, math.inf)
            asked = sum(self.costs.ask(name, count, kind) for kind, count in kinds.items() if name in kind)
            if asked > most:
                raise ConfigError(
                    f"Over capacity: {asked} cells of {name!r} would have been asked for, and there are {most:g}."
                )
        if not len(rows):
            return self.data
        self._bought[names] += new
        self._added[names] += len(rows) - new
        self._sold[columns] += len(rows)
        self._owned[np.ix_(rows, np.array(columns))] = True
        self._ledger.append(Purchase(names, len(rows), new, len(rows) * len(columns), price, self.left - price))
        self.data = self._reveal(self._owned)
        return self.data

    # ------------------------------------------------------------------ inside

    def _order(self, ids: Any, modalities: Any) -> tuple[np.ndarray, list[int], int, float]:
        """Positions, columns, how many of the samples are new, and the price."""
        columns = self._columns(modalities)
        given = [str(key) for key in ([ids] if isinstance(ids, str) else ids)]
        for key in given:
            if key not in self._position:
                raise DataError(f"acquire: unknown sample {key!r}.{did_you_mean(key, self._ids[:1000].tolist())}")
        rows = np.array([self._position[key] for key in given], dtype=int)
        if len(np.unique(rows)) < len(rows):
            twice = next(key for key, count in Counter(given).items() if count > 1)
            raise DataError(f"acquire: sample {twice!r} is in the order more than once.")
        for m in columns:
            for table, problem in ((self._owned, "is owned already"), (~self._offered, "does not exist")):
                clash = rows[table[rows, m]]
                if len(clash):
                    raise DataError(
                        f"acquire: {self.names[m]!r} of sample {self._ids[clash[0]]!r} {problem} "
                        f"({len(clash)} of {len(rows)} samples). See pool.available({self.names[m]!r}, new=False)."
                    )
        fresh = ~self._owned[rows].any(1)
        new = int(fresh.sum())
        names = self._chosen(columns)
        before = self._price(self._bought, self._added)
        after = self._price(self._bought + Counter({names: new}), self._added + Counter({names: len(rows) - new}))
        return rows, columns, new, after - before

    def _price(self, bought: Counter[tuple[str, ...]], added: Counter[tuple[str, ...]]) -> float:
        """Of everything: new samples as the costs say, further cells of owned ones without recruitment and label."""
        total = self.costs.cost_of(list(bought.items()))
        more = self.costs.cost_of(list(added.items())) - (self.costs.per_sample + self.costs.label) * added.total()
        started = [{name for names, count in kind.items() if count for name in names} for kind in (bought, added)]
        return total + more - sum(self.costs.setup.get(name, 0.0) for name in started[0] & started[1])

    def _columns(self, modalities: Iterable[str] | str) -> list[int]:
        names = modalities.split("+") if isinstance(modalities, str) else list(modalities)
        for name in names:
            if name not in self.names:
                raise DataError(f"Pool: unknown modality {name!r}.{did_you_mean(name, self.names)}")
        if not names:
            raise DataError("acquire: expected at least one modality: a label alone is not sold.")
        return sorted({self.names.index(name) for name in names})

    def _chosen(self, columns: list[int]) -> tuple[str, ...]:
        return tuple(self.names[m] for m in columns)

    def _start(self, owned: Any) -> np.ndarray:
        if isinstance(owned, PresenceTable):
            return np.asarray(owned.align(self._ids, self.names), dtype=bool) & self._offered
        given = np.asarray(owned)
        if given.dtype == bool and given.shape == self._offered.shape:
            return given & self._offered
        if given.dtype == bool and given.shape != (len(self._ids),):
            raise DataError(
                f"owned: expected {len(self._ids)} booleans or a table of shape {self._offered.shape}, "
                f"got {given.shape}."
            )
        rows = given
        if given.dtype.kind not in "iub":
            for key in given.tolist():
                if str(key) not in self._position:
                    raise DataError(f"owned: unknown sample {key!r}.{did_you_mean(key, self._ids[:1000].tolist())}")
            rows = np.array([self._position[str(key)] for key in given.tolist()], dtype=int)
        elif given.dtype != bool and given.size and not 0 <= given.min() <= given.max() < len(self._ids):
            raise DataError(
                f"owned: expected positions from 0 to {len(self._ids) - 1}, got {given.min()} to {given.max()}."
            )
        table = np.zeros_like(self._offered)
        table[rows] = self._offered[rows]
        return table

    def __str__(self) -> str:
        budget = "no limit" if math.isinf(self.budget) else self.costs.amount(self.budget)
        head = f"{len(self.data)} of {len(self._ids)} samples owned; {self.costs.amount(self.spent)} spent of {budget}"
        return head if not self._ledger else f"{head}\n{self.ledger.to_string(index=False)}"


def _vault(full: MultimodalDataset) -> Callable[[np.ndarray], MultimodalDataset]:
    """Holds the true values; gives back copies of what a table of cells says, and nothing else."""

    def reveal(owned: np.ndarray) -> MultimodalDataset:
        # select() alone would leave the other samples in the stores; hide() takes them out.
        return full.hide(torch.from_numpy(owned.copy()))

    return reveal
