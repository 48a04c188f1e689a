"""Nested, stratified subsets of a pool of samples: more data always holds what less data held.

The order depends on the ids and the seed alone, through SHA-256: not on the order of the file, of a dictionary, or on
the hash seed of the interpreter.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError, DataError
from lacunar.planning.allocation import portion

__all__ = ["NestedSubsets", "strata"]


def _hash(text: str, seed: int) -> int:
    """64 bits of an id and a seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{text}".encode()).digest()[:8], "big")


def strata(target: Any, bins: int = 4, ids: np.ndarray | None = None) -> np.ndarray:
    """What a subset is spread evenly over: the classes, or quantile bins of a number.

    Args:
        target: encoded targets, one for each sample; whole numbers are classes, others are binned.
        bins: number of quantile bins.
        ids: breaks ties between equal numbers, so that the bins do not depend on the order of the samples.

    Returns:
        int64 codes, shape ``(N,)``; one stratum for targets that have more than one number for each sample.
    """
    values = np.asarray(target)
    if values.ndim > 1 and values.reshape(len(values), -1).shape[1] > 1:
        return np.zeros(len(values), dtype=np.int64)
    values = values.reshape(len(values))
    if values.dtype.kind in "iub":
        return np.unique(values, return_inverse=True)[1].astype(np.int64)
    names = np.arange(len(values)) if ids is None else np.asarray(ids).astype(str)
    rank = np.empty(len(values), dtype=np.int64)
    rank[np.lexsort((names, values))] = np.arange(len(values))
    return rank * bins // max(len(values), 1)


class NestedSubsets:
    """A pool in one fixed stratified order, of which every subset is a prefix.

    A prefix of k samples has of each stratum what it should have, up to one sample: member r of a stratum of size s
    stands at ``(r + 1/2) / s``, and all members are merged by that place. So the available data at 10 % lie within
    those at 20 %, and what is bought next is what a larger start would have had next (A7 and A8 of the protocol).

    Args:
        data: the pool; only ids, target and groups are read.
        seed: of the order.
        bins: quantile bins of a numeric target.
        by_group: never cut through a group: a prefix then has as many whole groups as fit.

    Raises:
        DataError: ``by_group`` for data without groups.

    Attributes:
        order: positions in ``data``, int64, shape ``(N,)``.
    """

    def __init__(self, data: MultimodalDataset, seed: int = 0, bins: int = 4, by_group: bool = False):
        ids = np.asarray(data.ids).astype(str)
        codes = np.zeros(len(ids), dtype=np.int64) if data.target is None else strata(data.target.numpy(), bins, ids)
        self.groups = None
        if not by_group:
            self.order = _merged(ids, codes, seed)
            return
        if data.groups is None:
            raise DataError("by_group=True: the data have no groups. Give groups= when building them.")
        names, member = np.unique(np.asarray(data.groups).astype(str), return_inverse=True)
        counts = np.zeros((len(names), int(codes.max()) + 1))
        np.add.at(counts, (member, codes), 1)
        place = np.empty(len(names))
        place[_merged(names, counts.argmax(1), seed)] = np.arange(len(names))
        within = np.array([_hash(name, seed) for name in ids], dtype=np.uint64)
        self.order = np.lexsort((within, place[member]))
        self.groups = member[self.order]

    def __len__(self) -> int:
        return len(self.order)

    def rows(self, count: int, start: int = 0) -> np.ndarray:
        """Positions of ``count`` samples that follow the first ``start``, int64; with groups, of at most as many.

        Raises:
            ConfigError: a negative number, or more samples than the pool has.
        """
        if count < 0 or start < 0 or start + count > len(self):
            raise ConfigError(
                f"Expected samples within the {len(self)} of the pool, got {count} after the first {start}. "
                "Lower the available share or the budget."
            )
        if self.groups is None:
            return self.order[start : start + count]
        return self.order[self._whole(start) : self._whole(start + count)]

    def fitting(self, count: int) -> np.ndarray:
        """Positions of at most ``count`` samples, int64; of groups those that fit, and where none does the smallest.

        Without groups the first ``count``. Unlike :meth:`rows` this passes over a group that is too large for what is
        left, so that one of them early in the order does not end the search.
        """
        if self.groups is None:
            return self.rows(count)
        starts = np.flatnonzero(self.groups[1:] != self.groups[:-1]) + 1
        parts, chosen, left = np.split(self.order, starts), [], count
        for part in parts:
            if len(part) <= left:
                chosen.append(part)
                left -= len(part)
        return np.concatenate(chosen or [min(parts, key=len)])

    def share(self, rho: float) -> np.ndarray:
        """Positions of the first ``floor(rho * N)`` samples.

        Raises:
            ConfigError: a share outside [0, 1].
        """
        return self.rows(portion(len(self), rho))

    def _whole(self, count: int) -> int:
        """The largest number of samples up to ``count`` that ends between two groups."""
        assert self.groups is not None
        while 0 < count < len(self) and self.groups[count - 1] == self.groups[count]:
            count -= 1
        return count


def _merged(ids: np.ndarray, codes: np.ndarray, seed: int) -> np.ndarray:
    """Positions ordered so that every prefix is stratified by ``codes``."""
    if len(np.unique(ids)) < len(ids):
        raise DataError("Nested subsets need ids that occur once; at least one occurs twice.")
    hashes = np.array([_hash(name, seed) for name in ids], dtype=np.uint64)
    place = np.empty(len(ids))
    for code in np.unique(codes):
        members = np.flatnonzero(codes == code)
        members = members[np.argsort(hashes[members], kind="stable")]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.lexsort((hashes, place))
