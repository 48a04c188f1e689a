"""Drawing presence tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lacunar.arguments import checked
from lacunar.data import laws
from lacunar.data.presence_table import PresenceTable, observed_presence, realised_rates, refuse_repeats
from lacunar.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from lacunar.data.dataset import MultimodalDataset

__all__ = ["LAWS", "PresenceTable", "draw_presence", "observed_presence"]

LAWS = ("independent", "exact-marginal", "product-counts", "uniform-pattern", "not-at-random", "table")
RESOLVE = ("drop", "redraw", "keep")


@checked
def draw_presence(
    samples: MultimodalDataset | Sequence[Any] | np.ndarray | int,
    rates: Mapping[str, float] | float | None = None,
    law: str = "independent",
    *,
    seed: int = 0,
    resolve_empty: str = "drop",
    names: Sequence[str] | None = None,
    driver: Any = None,
    strength: Mapping[str, float] | float = 2.0,
    strata: Any = None,
    table: PresenceTable | str | os.PathLike[str] | None = None,
) -> PresenceTable:
    """Draw which sample has which modality.

    The draw depends on the seed, the sample id and the modality name only: permuting the samples permutes the table,
    and it is the same in every epoch, worker and resumed run.

    ===================  ============================================================================================
    law                  cells
    ===================  ============================================================================================
    ``independent``      every cell absent with its rate; nested: a lower rate only adds cells
    ``exact-marginal``   exactly ``round(N r)`` of a modality's N cells absent and no sample with nothing
    ``product-counts``   ``int(N * probability)`` samples of each pattern, at least 1 of each that is not empty
    ``uniform-pattern``  every non-empty pattern equally likely; takes no rates
    ``not-at-random``    probability of absence ``sigmoid(a_m + strength * z)`` of a standardised ``driver``
    ``table``            as given in ``table``
    ===================  ============================================================================================

    Args:
        samples: a data set, sample ids, or their number (ids are then ``"0"``, ``"1"``, ...). What a data set does
            not have stays absent; the law acts on the rest.
        rates: missing rate (fraction absent) per modality, in [0, 1); one number means every modality. A modality
            that is not named is never taken away.
        law: one of the laws above.
        seed: seed of the draw.
        resolve_empty: samples left with nothing are left out by :meth:`MultimodalDataset.hide` (``"drop"``), drawn
            again under the condition that something is present (``"redraw"``, which changes the rates: see
            ``realised``), or stay (``"keep"``).
        names: the modalities, when neither a data set nor a mapping of rates names them.
        driver: for ``not-at-random``, a value per sample; for a data set also ``"target"`` or the name of a subgroup
            attribute. Text is taken as ordered levels.
        strength: for ``not-at-random``, log-odds per standard deviation of the driver, for each modality or for all;
            a positive one makes high values of the driver miss more often.
        strata: for ``exact-marginal``, a label per sample, for a data set also ``"target"`` or the name of a subgroup
            attribute; counts are then exact within each stratum.
        table: for ``table``, a presence table or the path of a saved one.

    Raises:
        ConfigError: unknown law or option, a rate outside [0, 1), rates that the law cannot meet.
        DataError: unknown modality in ``rates``, or a driver that does not fit the samples.
    """
    data = samples if hasattr(samples, "columns") and hasattr(samples, "present") else None
    ids, names = _who(samples, data, names, rates, table)
    _check_choice("law", law, LAWS)
    _check_choice("resolve_empty", resolve_empty, RESOLVE)
    observed = np.ones((len(ids), len(names)), bool) if data is None else data.present.numpy()  # type: ignore[union-attr]
    asked = _rates(rates, names, law)
    wanted = np.array([asked[name] for name in names])
    absent = np.broadcast_to(wanted, observed.shape)
    for option, value, owner in (
        ("driver", driver, "not-at-random"),
        ("table", table, "table"),
        ("strata", strata, "exact-marginal"),
    ):
        if value is not None and law != owner:
            raise ConfigError(f"{option} belongs to law={owner!r}, got law={law!r}.")
    if law == "table":
        if table is None:
            raise ConfigError("law='table' needs table=, a presence table or the path of a saved one.")
        given = table if isinstance(table, PresenceTable) else PresenceTable.load(table)
        drawn = given.align(ids, names)
    elif law == "independent":
        drawn = laws.independent(seed, ids, names, wanted)
    elif law == "exact-marginal":
        drawn = np.empty(observed.shape, dtype=bool)
        for stratum in _strata(strata, data, len(ids)):
            drawn[stratum] = laws.exact_marginal(seed, ids[stratum], names, wanted, observed[stratum])
    elif law == "product-counts":
        drawn = laws.product_counts(seed, ids, names, wanted)
    elif law == "uniform-pattern":
        drawn = laws.uniform_pattern(seed, ids, names, observed)
    else:
        values = _driver(driver, data, len(ids))
        drawn, absent = laws.not_at_random(seed, ids, names, wanted, values, _strength(strength, names))
    before = drawn & observed
    empty = ~before.any(axis=1)
    after = before
    if resolve_empty == "redraw" and empty.any():
        if law in ("table", "exact-marginal"):
            raise ConfigError(
                f"resolve_empty='redraw' would change what law={law!r} promises ({int(empty.sum())} samples have "
                "nothing). Use 'drop' or 'keep'."
            )
        after = before.copy()
        after[empty] = laws.redraw(seed, ids[empty], names, np.where(observed, absent, 1.0)[empty])
    resolved = after if resolve_empty == "keep" else after[after.any(axis=1)]
    return PresenceTable(
        after,
        ids,
        names,
        law=law,
        seed=seed,
        asked=None if law == "table" else asked,
        resolve_empty=resolve_empty,
        realised=realised_rates(names, None if law == "table" else asked, before, resolved),
        empty=int(empty.sum()),
    )


def _who(samples: Any, data: Any, names: Any, rates: Any, table: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Sample ids and modality names from whichever argument has them."""
    if data is not None:
        return data.ids, data.names
    if names is None:
        names = (
            tuple(rates) if isinstance(rates, Mapping) else table.names if isinstance(table, PresenceTable) else None
        )
    if not names:
        raise ConfigError("draw_presence: which modalities? Give names=, rates= as a mapping, or a data set.")
    keys = range(samples) if isinstance(samples, (int, np.integer)) else samples
    ids = np.array([str(key) for key in keys], dtype=object)
    refuse_repeats("ids", ids)
    if len(ids) == 0:
        raise DataError("draw_presence: expected at least one sample, got none.")
    return ids, tuple(str(name) for name in names)


def _rates(rates: Mapping[str, float] | float | None, names: Sequence[str], law: str) -> dict[str, float]:
    if law in ("uniform-pattern", "table"):
        if rates is not None:
            raise ConfigError(f"law={law!r} has rates of its own; leave out rates=.")
        return dict.fromkeys(names, 1 - 2 ** (len(names) - 1) / (2 ** len(names) - 1))
    if rates is None:
        raise ConfigError(f"law={law!r} needs rates=, the fraction absent of each modality.")
    given = dict(rates) if isinstance(rates, Mapping) else dict.fromkeys(names, rates)
    for name, rate in given.items():
        if name not in names:
            raise DataError(f"rates: unknown modality {name!r}.{did_you_mean(name, names)}")
        number = isinstance(rate, (int, float, np.number)) and not isinstance(rate, bool)
        if not number or not 0 <= rate < 1:
            raise ConfigError(
                f"rates: expected the fraction absent in [0, 1) for modality {name!r}, got {rate!r}. "
                "Leave a modality out with data.only(...) if it is never there."
            )
    return {name: float(given.get(name, 0.0)) for name in names}


def _check_choice(what: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{what}: unknown value {value!r}.{did_you_mean(value, known)}")


def _attribute(option: str, name: str, data: Any) -> Any:
    """The target or a subgroup attribute of a data set, by name."""
    attributes = {} if data is None or data.subgroups is None else dict(data.subgroups.items())
    if data is not None and data.target is not None and data.target.ndim == 1:
        attributes["target"] = data.target.numpy()
    if name not in attributes:
        raise DataError(f"{option}: unknown attribute {name!r}.{did_you_mean(name, attributes)}")
    return attributes[name]


def _driver(driver: Any, data: Any, count: int) -> np.ndarray:
    if isinstance(driver, str):
        driver = _attribute("driver", driver, data)
    if driver is None:
        raise ConfigError("law='not-at-random' needs driver=, a value per sample that absence depends on.")
    values = np.asarray(driver)
    if values.shape != (count,):
        raise DataError(f"driver: expected {count} values, one per sample, got shape {values.shape}.")
    if pd.isna(values).any():
        raise DataError(f"driver: {int(pd.isna(values).sum())} of {count} values are missing.")
    if values.dtype.kind not in "fiub":
        values = np.unique(values.astype(str), return_inverse=True)[1]
    infinite = int((~np.isfinite(values.astype(float))).sum())
    if infinite:
        raise DataError(f"driver: {infinite} of {count} values are infinite. Give finite numbers, or ranks.")
    if np.ptp(values.astype(float)) == 0:
        raise DataError("driver: every sample has the same value, so that nothing can depend on it.")
    return values.astype(float)


def _strength(strength: Mapping[str, float] | float, names: Sequence[str]) -> np.ndarray:
    given = dict(strength) if isinstance(strength, Mapping) else dict.fromkeys(names, strength)
    for name, value in given.items():
        if name not in names:
            raise DataError(f"strength: unknown modality {name!r}.{did_you_mean(name, names)}")
        if not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
            raise ConfigError(f"strength: expected a finite number for modality {name!r}, got {value!r}.")
    return np.array([float(given.get(name, 0.0)) for name in names])


def _strata(strata: Any, data: Any, count: int) -> list[np.ndarray]:
    if strata is None:
        return [np.arange(count)]
    if isinstance(strata, str):
        strata = _attribute("strata", strata, data)
    labels = np.asarray(strata).astype(str)
    if labels.shape != (count,):
        raise DataError(f"strata: expected {count} labels, one per sample, got shape {labels.shape}.")
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]
