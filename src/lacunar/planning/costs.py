"""What collecting costs: cells, samples, labels, set-up, bundles and failures; and how much there is to be had."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from lacunar.data.plain_yaml import read_yaml
from lacunar.errors import ConfigError, did_you_mean

__all__ = ["CostModel", "Unit"]

Blocks = Sequence[tuple[Iterable[str], int]]
_BY_MODALITY = ("per_cell", "setup", "failure", "capacity", "minimum")
_FIELDS = (*_BY_MODALITY, "per_sample", "label", "bundles", "max_samples", "currency")


class Unit(NamedTuple):
    """What is ordered as one thing: a modality alone, or a bundle."""

    names: tuple[str, ...]
    price: float  #: of one order
    failure: float  #: of its least reliable member


@dataclass(frozen=True)
class CostModel:
    """Prices and limits of new data. A new sample of a subset S has S and nothing else.

    ``cost(S, n) = sum_{j in S} (F_j + a_j c_j) + n (c_0 + c_y)`` with set-up F, price per cell c, recruitment c_0 and
    label c_y. A modality that fails with probability q_j is asked for ``a_j = ceil(n / (1 - q_j))`` times, so that n
    are expected to arrive; every time is paid. A bundle's price replaces the cells of its members where that is
    cheaper; it is ordered as often as its least reliable member needs.

    Args:
        per_cell: price c_j of one cell of each modality.
        per_sample: price c_0 of finding one more sample, whatever is measured on it.
        label: price c_y of one label; every new sample is labelled.
        setup: fixed price F_j of the first cell of a modality; 0 where left out.
        bundles: modalities that are collected together and their price per sample: ``[(("blood", "urine"), 30)]``,
            ``{"blood+urine": 30}`` or ``[{"modalities": ["blood", "urine"], "price": 30}]``.
        failure: probability q_j in [0, 1) that a cell is asked for and does not arrive; 0 where left out.
        capacity: the most cells of a modality that can be asked for; no limit where left out.
        minimum: the fewest cells of a modality that are sold at all; 1 where left out.
        max_samples: the most new samples that can be had.
        currency: what the prices are in, for reports.

    Raises:
        ConfigError: a price that is negative, NaN or infinite, a probability outside [0, 1), an unknown modality.
    """

    per_cell: Mapping[str, float]
    per_sample: float = 0.0
    label: float = 0.0
    setup: Mapping[str, float] = field(default_factory=dict)
    bundles: Any = ()
    failure: Mapping[str, float] = field(default_factory=dict)
    capacity: Mapping[str, float] = field(default_factory=dict)
    minimum: Mapping[str, float] = field(default_factory=dict)
    max_samples: int | None = None
    currency: str = ""

    def __post_init__(self) -> None:
        prices = self.per_cell
        if not isinstance(prices, Mapping) or not prices:
            raise ConfigError(f"per_cell: expected a mapping from each modality to its price, got {prices!r}.")
        for name in _BY_MODALITY:
            given = getattr(self, name) or {}
            if not isinstance(given, Mapping):
                raise ConfigError(f"{name}: expected a mapping from modality to a number, got {given!r}.")
            for key in given:
                if key not in prices:
                    raise ConfigError(f"{name}: unknown modality {key!r}.{did_you_mean(key, prices)}")
            object.__setattr__(self, name, {str(key): _number(f"{name}, {key!r}", v) for key, v in given.items()})
        for name in ("per_sample", "label"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        for key, rate in self.failure.items():
            if rate >= 1:
                raise ConfigError(f"failure, {key!r}: expected a probability in [0, 1), got {rate:g}.")
        if self.max_samples is not None:
            object.__setattr__(self, "max_samples", int(_number("max_samples", self.max_samples)))
        object.__setattr__(self, "bundles", tuple(_bundles(self.bundles, self.per_cell)))

    @classmethod
    def read(cls, source: CostModel | Mapping[str, Any] | str | os.PathLike[str]) -> CostModel:
        """Costs from a YAML file or a mapping.

        Args:
            source: ``{"image": 50, "text": 1}``, a price per cell for each modality; or the arguments of this class
                by name; or the path of a YAML file that holds either.

        Raises:
            ConfigError: no such file, not YAML, an unknown key, or what the class refuses.
        """
        if isinstance(source, CostModel):
            return source
        place = "costs"
        if isinstance(source, (str, os.PathLike)):
            place = str(source)
            source = read_yaml(source, "Costs")
        if not isinstance(source, Mapping) or not source:
            raise ConfigError(f"{place}: expected a price for each modality, such as {{'image': 50}}, got {source!r}.")
        try:
            if "per_cell" not in source and not any(isinstance(v, (Mapping, list, tuple)) for v in source.values()):
                return cls(per_cell={str(key): value for key, value in source.items()})
            for key in source:
                if key not in _FIELDS:
                    raise ConfigError(f"unknown key {key!r}.{did_you_mean(key, _FIELDS)}")
            if "per_cell" not in source:
                raise ConfigError("the key 'per_cell', a price for each modality, is missing.")
            return cls(**{key: value for key, value in source.items() if value is not None})
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None

    # ------------------------------------------------------------------ what things cost

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities that have a price."""
        return tuple(self.per_cell)

    def check(self, names: Iterable[str]) -> CostModel:
        """These costs for these modalities.

        Raises:
            ConfigError: one of them has no price, or there is a price for something else.
        """
        names = tuple(names)
        for name in self.per_cell:  # first: a name that is spelled wrongly is also missing below
            if name not in names:
                raise ConfigError(f"costs: unknown modality {name!r}.{did_you_mean(name, names)}")
        for name in names:
            if name not in self.per_cell:
                raise ConfigError(f"costs: modality {name!r} has no price per cell. Give one; 0 when it is free.")
        return self

    def ask(self, name: str, cells: int, subset: Iterable[str] | str | None = None) -> int:
        """How many cells of a modality to ask for so that ``cells`` are expected to arrive: n / (1 - q), rounded up.

        Args:
            name: the modality.
            cells: that are to arrive.
            subset: what the samples get; in a bundle q is that of its least reliable member. Alone when left out.
        """
        return math.ceil(cells / (1 - self._failure(name, (name,) if subset is None else subset)) - 1e-9)

    def units(self, subset: Iterable[str] | str) -> tuple[Unit, ...]:
        """The cheapest way to order a subset: which bundles, and what alone."""
        names = self._names(subset)
        if names not in self._units:
            self._units[names] = self._cheapest(names)
        return self._units[names]

    def marginal(self, subset: Iterable[str] | str) -> float:
        """The price of one more sample of a subset, failures included, without set-up."""
        return self.per_sample + self.label + sum(unit.price / (1 - unit.failure) for unit in self.units(subset))

    def cost(self, subset: Iterable[str] | str, samples: int) -> float:
        """The price of ``samples`` new labelled samples of a subset; 0 for none.

        Args:
            subset: modality names, or a label such as ``"image+text"``.
            samples: how many arrive.
        """
        return self.cost_of([(self._names(subset), samples)])

    def cost_of(self, blocks: Blocks) -> float:
        """The price of several kinds of samples together, each ``(subset, samples)``; set-up is paid once."""
        total, started = 0.0, set()
        for subset, samples in blocks:
            if samples <= 0:
                continue
            names = self._names(subset)
            started |= set(names)
            total += samples * (self.per_sample + self.label)
            for unit in self.units(names):
                total += unit.price * math.ceil(samples / (1 - unit.failure) - 1e-9)
        return total + sum(self.setup.get(name, 0.0) for name in started)

    def affordable(self, subset: Iterable[str] | str, budget: float) -> int:
        """The largest number of new samples of a subset that a budget and the capacities allow; 0 when none.

        Raises:
            ConfigError: the subset costs nothing and nothing limits it.
        """
        names = self._names(subset)
        most, price = self.limit(names), self.marginal(names)
        if price > 0 and math.isfinite(budget):
            most = min(most, math.floor((budget - sum(self.setup.get(n, 0.0) for n in names)) / price + 1e-6))
        elif self.cost(names, 1) > budget:
            return 0
        if math.isinf(most):
            raise ConfigError(
                f"costs: samples of {'+'.join(names)} cost nothing, so that no budget limits them. Set a capacity for "
                "one of these modalities, max_samples, per_sample or label."
            )
        low, high = 0, max(int(most), 0)
        slack = 1e-9 * max(1.0, abs(budget))
        if self.cost(names, high) <= budget + slack:
            low = high
        while low < high:  # cost never falls with the number of samples
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.cost(names, middle) <= budget + slack else (low, middle - 1)
        return low if low >= self.least(names) else 0

    def limit(self, subset: Iterable[str] | str, used: Mapping[str, int] | None = None) -> float:
        """The largest number of samples of a subset that the capacities allow, whatever they cost; may be infinite.

        Args:
            subset: names or label.
            used: cells of each modality that are asked for already, for other samples.
        """
        most = math.inf if self.max_samples is None else float(self.max_samples)
        for name in self._names(subset):
            if name in self.capacity:
                room = self.capacity[name] - (used or {}).get(name, 0)
                most = min(most, math.floor(room * (1 - self._failure(name, subset)) + 1e-9))
        return most

    def least(self, subset: Iterable[str] | str) -> int:
        """The smallest number of samples of a subset that is sold: 1, or what the minimum batches ask for."""
        needed = [
            math.floor((self.minimum.get(name, 0.0) - 1) * (1 - self._failure(name, subset)) + 1e-9) + 1
            for name in self._names(subset)
        ]
        return max([1, *needed])

    def smallest(self, subset: Iterable[str] | str) -> float:
        """The price of the smallest purchase of a subset; infinite when it cannot be had at all."""
        names = self._names(subset)
        return self.cost(names, self.least(names)) if self.least(names) <= self.limit(names) else math.inf

    # ------------------------------------------------------------------ other costs

    def changed(self, name: str, factor: float) -> CostModel:
        """The same costs with one price multiplied.

        Args:
            name: a modality (its cells, its set-up and its share of every bundle), ``"per_sample"`` or ``"label"``.
            factor: at least 0.
        """
        if not factor >= 0 or math.isinf(factor):
            raise ConfigError(f"factor: expected a number from 0 up, got {factor!r}.")
        if name not in self.per_cell:
            if name not in ("per_sample", "label"):
                raise ConfigError(
                    f"changed: unknown modality {name!r}.{did_you_mean(name, (*self.names, 'per_sample', 'label'))}"
                )
            return replace(self, **{name: getattr(self, name) * factor})
        bundles = []
        for names, price in self.bundles:
            whole = sum(self.per_cell[member] for member in names)
            share = self.per_cell[name] / whole if whole > 0 else 1 / len(names)
            bundles.append((names, price * (1 + (factor - 1) * share) if name in names else price))
        return replace(
            self,
            per_cell={**self.per_cell, name: self.per_cell[name] * factor},
            setup={**self.setup, name: self.setup.get(name, 0.0) * factor},
            bundles=bundles,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data that :meth:`read` takes back."""
        content = {name: getattr(self, name) for name in _FIELDS}
        content["bundles"] = [{"modalities": list(names), "price": price} for names, price in self.bundles]
        return {key: dict(value) if isinstance(value, Mapping) else value for key, value in content.items()}

    def amount(self, value: float) -> str:
        """A price in words, such as ``'10,700 EUR'``."""
        text = f"{value:,.0f}" if value == round(value) or value >= 1000 else f"{value:,.2f}"
        return f"{text} {self.currency}".strip()

    # ------------------------------------------------------------------ inside

    @cached_property
    def _units(self) -> dict[tuple[str, ...], tuple[Unit, ...]]:
        return {}

    def _names(self, subset: Iterable[str] | str) -> tuple[str, ...]:
        names = subset.split("+") if isinstance(subset, str) else tuple(subset)
        for name in names:
            if name not in self.per_cell:
                raise ConfigError(f"costs: unknown modality {name!r}.{did_you_mean(name, self.per_cell)}")
        return tuple(name for name in self.per_cell if name in names)

    def _failure(self, name: str, subset: Iterable[str] | str) -> float:
        """How often an order of a modality fails within a subset: a bundle as often as its least reliable member."""
        return next((unit.failure for unit in self.units(subset) if name in unit.names), self.failure.get(name, 0.0))

    def _cheapest(self, names: tuple[str, ...]) -> tuple[Unit, ...]:
        options = [(Unit((name,), self.per_cell[name], self.failure.get(name, 0.0)),) for name in names]
        best = tuple(unit for option in options for unit in option)
        for members, price in self.bundles:
            if set(members) <= set(names):
                rest = tuple(name for name in names if name not in members)
                failure = max(self.failure.get(name, 0.0) for name in members)
                way = (Unit(members, price, failure), *(self.units(rest) if rest else ()))
                if _expected(way) < _expected(best) - 1e-12:
                    best = way
        return best


def _expected(units: Iterable[Unit]) -> float:
    return sum(unit.price / (1 - unit.failure) for unit in units)


def _number(what: str, value: Any) -> float:
    """A finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ConfigError(f"{what}: expected a number from 0 up, got {value!r}.")
    if not math.isfinite(value) or value < 0:
        raise ConfigError(f"{what}: expected a finite number from 0 up, got {value!r}.")
    return float(value)


def _bundles(given: Any, prices: Mapping[str, float]) -> Iterable[tuple[tuple[str, ...], float]]:
    if isinstance(given, Mapping):
        given = list(given.items())
    for entry in given or ():
        if isinstance(entry, Mapping):
            for key in entry:
                if key not in ("modalities", "price"):
                    raise ConfigError(f"bundles: unknown key {key!r}.{did_you_mean(key, ('modalities', 'price'))}")
            if set(entry) != {"modalities", "price"}:
                raise ConfigError(f"bundles: expected the keys 'modalities' and 'price', got {dict(entry)!r}.")
            members, price = entry["modalities"], entry["price"]
        elif isinstance(entry, (tuple, list)) and len(entry) == 2:
            members, price = entry
        else:
            raise ConfigError(f"bundles: expected modalities and a price, got {entry!r}.")
        members = tuple(members.split("+") if isinstance(members, str) else members)
        for name in members:
            if name not in prices:
                raise ConfigError(f"bundles: unknown modality {name!r}.{did_you_mean(name, prices)}")
        if len(set(members)) < 2:
            raise ConfigError(f"bundles: expected at least two modalities in a bundle, got {'+'.join(members)!r}.")
        yield tuple(name for name in prices if name in members), _number(f"bundles, {'+'.join(members)!r}", price)
