"""Repeats of an experiment: which subsets, which seeds, and the trainings side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from joblib import Parallel

from lacunar.errors import ConfigError, DataError
from lacunar.lattice import Lattice
from lacunar.planning.estimate_config import given_codes
from lacunar.planning.estimate_progress import CellProgress
from lacunar.planning.estimate_store import CellStore

__all__ = ["named_subsets", "run_jobs", "seed_list"]


def seed_list(seeds: int | Sequence[int]) -> list[int]:
    """The seeds 0, 1, ... of a number of repeats, or the given ones.

    Raises:
        ConfigError: no seed, a seed that is no whole number from 0 up, or one that is given twice.
    """
    if isinstance(seeds, (int, np.integer)) and not isinstance(seeds, bool):
        given = list(range(seeds))
    else:
        given = list(seeds) if isinstance(seeds, Iterable) else []
    if not given or any(isinstance(s, bool) or not isinstance(s, (int, np.integer)) or s < 0 for s in given):
        raise ConfigError(f"seeds: expected how many repeats, at least 1, or their seeds from 0 up, got {seeds!r}.")
    if len(set(given)) < len(given):
        raise ConfigError(f"seeds: expected each seed once, got {given}.")
    return [int(seed) for seed in given]


def named_subsets(
    lattice: Lattice, subsets: Sequence[Iterable[str] | str] | None, proper: bool = False
) -> list[tuple[str, ...]]:
    """Subsets as names in lattice order.

    Args:
        lattice: knows the names.
        subsets: names or labels; when left out all modalities together, or with ``proper`` every subset but that.
        proper: all modalities together are not allowed.

    Raises:
        DataError: an unknown modality, an empty subset or one that is given twice.
    """
    full = 2**lattice.M - 1
    if subsets is None:
        return [lattice.subset(code) for code in lattice.subsets if (code != full) == proper]
    found = []
    for code in given_codes(lattice, subsets):
        if code == 0:
            raise DataError("subsets: expected at least one modality in each, got none.")
        if proper and code == full:
            raise DataError(f"subsets: {lattice.label(code)} is everything, so there is nothing left to complete.")
        found.append(lattice.subset(code))
    if len(set(found)) < len(found):
        raise DataError(f"subsets: one is given twice among {', '.join(map('+'.join, found))}.")
    return found


def run_jobs(
    jobs: Mapping[str, Any], n_jobs: int | None, progress: bool, what: str, store: CellStore
) -> list[list[dict[str, Any]]]:
    """The rows of each job, in the order of the jobs, from the store or computed, while it is shown how many there are.

    Args:
        jobs: joblib's delayed calls by the key that the store keeps their rows under.
        n_jobs: how many at the same time.
        progress: show how far it is.
        what: the jobs are for.
        store: keeps rows as soon as they are there.
    """
    found = {key: cell["rows"] for key in jobs if (cell := store.read(key)) is not None}
    missing = [key for key in jobs if key not in found]
    try:
        with CellProgress(what, len(jobs), len(found), progress) as shown:
            for key, rows in zip(missing, Parallel(n_jobs=n_jobs, return_as="generator")(map(jobs.get, missing))):
                found[key] = rows
                store.write({"key": key, "rows": rows})
                shown.advance()
    except KeyboardInterrupt:
        kept = "nothing is kept without out="
        if store.path is not None:
            kept = f"{len(found)} of {len(jobs)} parts are kept in {store.path}"
        raise KeyboardInterrupt(f"The {what} was interrupted; {kept}. Run the same call to go on.") from None
    return [found[key] for key in jobs]
