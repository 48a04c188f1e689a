"""The coalition lattice: every subset of the modalities in one fixed order, and what a value per subset says.

A *value table* is an array ``(..., 2^M)`` whose entry ``S`` is the value v(S) of the subset with bit code ``S``,
the empty set at index 0. What reads tables takes torch tensors (gradients flow) or numpy arrays (and returns
arrays), with any leading dimensions, and returns the floating dtype that it was given.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from lacunar.errors import ConfigError, DataError, did_you_mean

__all__ = ["MAX_TABLE", "Lattice", "Pairs"]

MAX_TABLE = 12  # the largest M for which tables over all 2^M subsets are made
_BERNOULLI = (1, -1 / 2, 1 / 6, 0, -1 / 30, 0, 1 / 42, 0, -1 / 30, 0, 5 / 66, 0, -691 / 2730)  # to MAX_TABLE
Array = TypeVar("Array", Tensor, np.ndarray)
InteractionIndex = Literal["SII", "STII", "k-SII", "moebius"]


class Pairs(NamedTuple):
    """(sample, subset) pairs sorted by code, then by row, so that the pairs of one subset lie together."""

    rows: Tensor  #: (P,) int64, the sample's row in its batch
    codes: Tensor  #: (P,) int64, the subset's bit code


@dataclass(frozen=True, init=False, repr=False)
class Lattice:
    """All subsets of named modalities: bit ``m`` of a code stands for ``names[m]``, code 0 is the empty set.

    Immutable; equal when the names and their order are; 2^M long.

    Args:
        names: 1 to 63 distinct names in canonical order (without ``+`` and ``none``, which make labels).
    """

    names: tuple[str, ...]

    def __init__(self, names: Iterable[str]):
        names = (names,) if isinstance(names, str) else tuple(names)
        if not 1 <= len(names) <= 63:
            raise DataError(f"a lattice needs 1 to 63 modalities, got {len(names)}.")
        for name in names:
            if not isinstance(name, str) or name in ("", "none") or "+" in name:
                raise DataError(f"a modality name is a non-empty string without '+', not 'none'; got {name!r}.")
            if names.count(name) > 1:
                raise DataError(f"the modality name {name!r} occurs more than once.")
        object.__setattr__(self, "names", names)

    @property
    def M(self) -> int:  # noqa: N802
        """The number of modalities."""
        return len(self.names)

    def __len__(self) -> int:
        return 2**self.M

    def __bool__(self) -> bool:  # len() overflows at M = 63
        return True

    def __repr__(self) -> str:
        return f"Lattice({list(self.names)})"

    def index(self, subset: Iterable[str] | str | int) -> int:
        """The bit code of names in any order, of one name, or of a code; DataError for what is not in here."""
        try:
            code = operator.index(subset)  # type: ignore[arg-type]
        except TypeError:
            code = 0
            if not isinstance(subset, Iterable):
                raise DataError(f"a subset is modality names or a code, got {subset!r}.") from None
            for name in [subset] if isinstance(subset, str) else subset:  # type: ignore[union-attr]
                if name not in self.names:
                    raise DataError(f"unknown modality {name!r}.{did_you_mean(name, self.names)}") from None
                code |= 1 << self.names.index(name)
        if not 0 <= code < 2**self.M:
            raise DataError(f"subset code {code} is not in 0..{2**self.M - 1} ({self.M} modalities).")
        return code

    def subset(self, code: int) -> tuple[str, ...]:
        """The names in a subset, in canonical order."""
        return tuple(name for m, name in enumerate(self.names) if self.index(code) >> m & 1)

    def label(self, code: int) -> str:
        """The subset in words: ``'audio+text'``, or ``'none'`` for the empty set."""
        return "+".join(self.subset(code)) or "none"

    @property
    def codes(self) -> Tensor:
        """(2^M,) int64: every code, the order of every value table."""
        if self.M > MAX_TABLE:
            raise DataError(
                f"{self.M} modalities have 2^{self.M} subsets; tables over all of them stop at M = {MAX_TABLE}. Draw "
                "subsets instead: Lattice.sample_pairs to train, lacunar.sampling.sample_shapley for Shapley values."
            )
        return torch.arange(2**self.M)

    @property
    def subsets(self) -> list[int]:
        """The codes of the non-empty subsets, small subsets first, then by code."""
        return sorted(self.codes[1:].tolist(), key=lambda code: (code.bit_count(), code))

    def encode(self, present: Array) -> Array:
        """Presence flags to codes: (..., M) bool -> (...) int64."""
        flags = self._flags(present)
        return _like(present, (flags.long() << torch.arange(self.M, device=flags.device)).sum(-1))

    def decode(self, codes: Array) -> Array:
        """Codes to presence flags: (...) int64 -> (..., M) bool."""
        return _like(codes, _bits(_tensor(codes), self.M).bool())

    def size(self, codes: Array) -> Array:
        """The number of modalities in each subset: (...) int64 -> (...) int64."""
        return _like(codes, _bits(_tensor(codes), self.M).sum(-1))

    def feasible(self, present: Array) -> Array:
        """Which subsets lie within what a sample has: (..., M) bool -> (..., 2^M) bool; the empty set always."""
        missing = self.encode(~self._flags(present))[..., None]
        return _like(present, self.codes.to(missing.device) & missing == 0)

    def pairs(self, present: Tensor | np.ndarray) -> Pairs:
        """Every feasible non-empty (sample, subset) pair of a batch, (B, M) bool. M <= 12, or `sample_pairs`."""
        flags = self._flags(present, batch=True)
        # Codes lead, so that nonzero() already yields the order by code, then by row.
        code, rows = (self.codes[1:, None].to(flags.device) & self.encode(~flags) == 0).nonzero(as_tuple=True)
        return Pairs(rows, code + 1)

    def sample_pairs(
        self, present: Tensor | np.ndarray, budget: int, generator: torch.Generator | None = None
    ) -> tuple[Pairs, Tensor]:
        """At most ``budget`` feasible non-empty pairs per row, for any M, weighted so that their sums are unbiased.

        A row keeps its full available set, weight 1. Its other subsets, listed by code with the modalities in an
        order drawn for the row, are cut into ``budget - 1`` near-equal strata; one is drawn from each and weighs
        the stratum's size. So none repeats, and the sum of ``weight * f(row, code)`` over a row's pairs estimates
        the sum of f over ALL its feasible non-empty subsets without bias; ``budget`` or fewer all come, weight 1.

        Args:
            present: (B, M) bool.
            budget: pairs per row; ConfigError below 2, where only full sets could be drawn.
            generator: the source of the draws, on any device.
        """
        if budget < 2:
            raise ConfigError(f"budget must be at least 2 subsets per row (the full set and another), got {budget}.")
        home = self._flags(present, batch=True)
        flags = home if generator is None else home.to(generator.device)
        order = (torch.rand(flags.shape, generator=generator, device=flags.device) + ~flags).argsort(-1)
        count = flags.sum(-1, keepdim=True)
        others = ((1 << (count - 1).clamp(min=0)) - 1) * 2  # 2^k - 2, without the 2^63 that int64 cannot hold
        draws = max(1, min(budget - 1, 2**self.M - 2))
        stratum = torch.arange(draws, device=flags.device)
        share, extra = others // draws, others % draws
        width = share + (stratum < extra)
        # The remainder is uniform to 1e-9 at any width: a wide stratum all but divides 2^63, a narrow one is tiny.
        within = torch.randint(2**63 - 1, width.shape, generator=generator, device=flags.device) % width.clamp(min=1)
        local = 1 + stratum * share + torch.minimum(stratum, extra) + within
        drawn = (_bits(local, self.M) << order[:, None]).sum(-1)

        width = torch.cat([count.clamp(max=1), width], 1)
        rows, column = width.nonzero(as_tuple=True)
        codes, by_code = torch.cat([self.encode(flags)[:, None], drawn], 1)[rows, column].sort(stable=True)
        weight = width[rows, column][by_code].to(home.device, torch.get_default_dtype())
        return Pairs(rows[by_code].to(home.device), codes.to(home.device)), weight

    def restrict(self, values: Array, present: Tensor | np.ndarray) -> Array:
        """The games on what each sample has, v(S) := v(S ∩ available): a (..., 2^M) table without holes.

        Infeasible entries are never read and may hold NaN. ``present`` is (..., M) bool; dimensions broadcast.
        """
        table, close = self._open(values)
        available = self.encode(self._flags(present).to(table.device))
        table, within = torch.broadcast_tensors(table, self.codes.to(table.device) & available[..., None])
        return close(table.gather(-1, within))

    def shapley(self, values: Array, present: Tensor | np.ndarray | None = None) -> Array:
        """Exact Shapley values (MCE Eq. 5, per sample; SK-LL Eq. 3 before scaling).

        ``phi_m = sum_{S not containing m} |S|! (k - |S| - 1)! / k! (v(S + m) - v(S))`` over the k available
        modalities, (..., M) in all. They sum to v(available) - v(empty); an absent modality gets exactly 0.

        Args:
            values: (..., 2^M) value table (MCE Eq. 4: a row per sample). Infeasible entries may hold NaN.
            present: (..., M) bool, what each sample has; everything when left out.
        """
        table, close = self._open(values)
        game = table if present is None else self.restrict(table, present)
        phi = game @ _shapley_weights(self.M, table.dtype, table.device)
        # An absent modality is a dummy of the restricted game: 0 up to rounding, here made exact.
        return close(phi if present is None else phi.where(self._flags(present).to(phi.device), 0))

    def moebius(self, values: Array) -> Array:
        """Moebius coefficients ``a(S) = sum_{T ⊆ S} (-1)^(|S|-|T|) v(T)``; NaN spreads to supersets only."""
        table, close = self._open(values)
        return close(_butterfly(table, -1))

    def from_moebius(self, coefficients: Array) -> Array:
        """The inverse of `moebius`: the value table ``v(S) = sum_{T ⊆ S} a(T)``, (..., 2^M) both."""
        table, close = self._open(coefficients)
        return close(_butterfly(table, 1))

    def interactions(self, values: Array, order: int = 2, index: InteractionIndex = "SII") -> tuple[Array, Array]:
        """Interactions of every subset of 1 to ``order`` modalities: (K,) codes, by size then code, and (..., K).

        Args:
            values: (..., 2^M) value table without NaN (`restrict` fills the holes of per-sample tables).
            order: the size of the largest subset, 1 to M.
            index: ``"SII"``, Shapley interactions (Grabisch & Roubens 1999; order 1 is the Shapley value);
                ``"STII"``, Shapley-Taylor (Sundararajan et al. 2020) and ``"k-SII"``, SII aggregated up to
                ``order`` (Bordt & von Luxburg 2023), which sum to v(full) - v(empty); or ``"moebius"``.
        """
        _choice("index", index, ("SII", "STII", "k-SII", "moebius"))
        if not isinstance(order, int) or not 1 <= order <= self.M:
            raise ConfigError(f"order must be in 1..{self.M} (the number of modalities), got {order}.")
        table, close = self._open(values)
        codes = torch.tensor([code for code in self.subsets if code.bit_count() <= order], device=table.device)
        # Each index weighs a(T), T ⊇ S, by |S| and |T| - |S| alone: so add up a over supersets that are d larger.
        graded = table.new_zeros(*table.shape[:-1], self.M + 1, 2**self.M)
        graded[..., 0, :] = _butterfly(table, -1)
        for m in range(self.M):
            halves = graded.unflatten(-1, (1 << (self.M - 1 - m), 2, 1 << m))
            halves[..., 1:, :, 0, :].add_(halves[..., :-1, :, 1, :])
        by_size = [[_weight(index, s, d, order) for s in range(order + 1)] for d in range(self.M + 1)]
        weight = table.new_tensor(by_size)[:, self.size(codes)]
        return _like(values, codes), close((graded[..., codes] * weight).sum(-2))

    def cooperation(
        self,
        values: Array,
        normalise: Literal["full", "self", "none"] = "full",
        on_negative: Literal["nan", "raw"] = "nan",
        minimum: float = 1e-3,
    ) -> Array:
        """What each subset is worth beyond its modalities alone (SK-LL Eq. 4), (..., 2^M).

        ``C(S) = (f(S) - sum_{j in S} f({j})) / Z`` with ``f(S) = v(S) - v(empty)``. ``C({j}) = 0`` identically;
        C is unbounded below, and at most 1 with Z = f(S) > 0 and no negative single. For a pair the numerator is
        the Moebius coefficient; for a triple it mixes pairs and triple. Restricted to S this is SHAPE's relative
        cooperation (InterSHAP's SHAPE_rel, there by masking one model). It measures synergy, not value: strong but
        partly redundant modalities score below 0, a useless independent one about 0.

        Args:
            values: (..., 2^M) value table, v(empty) at index 0.
            normalise: Z. ``"self"``: f(S), the paper's, which blows up when small and flips the sign when
                negative. ``"full"``: f of all modalities, which ranks by absolute synergy. ``"none"``: 1.
            on_negative: where Z <= ``minimum``, ``"nan"`` gives NaN; ``"raw"`` divides anyway, as the paper does.
            minimum: the smallest meaningful Z, in the units of ``values``.
        """
        _choice("normalise", normalise, ("full", "self", "none"))
        _choice("on_negative", on_negative, ("nan", "raw"))
        table, close = self._open(values)
        gain = table - table[..., :1]
        several = (self.size(self.codes) > 1).to(table.device)
        synergy = gain - _butterfly(gain.masked_fill(several, 0), 1)  # the butterfly sums the singles within S
        if normalise == "none":
            return close(synergy)
        scale = gain if normalise == "self" else gain[..., -1:]
        # Below two modalities the numerator is 0; there Z = 1 keeps 0 / 0 out, gradients included.
        usable = several & (scale > minimum) if on_negative == "nan" else several.expand_as(table)
        return close((synergy / scale.where(usable, 1)).where(usable | ~several, torch.nan))

    def _flags(self, present: Tensor | np.ndarray, batch: bool = False) -> Tensor:
        flags = _tensor(present)
        if flags.dtype != torch.bool:
            raise DataError(f"present must be boolean (True means observed), got {flags.dtype}.")
        if flags.shape[-1:] != (self.M,) or (batch and flags.ndim != 2):
            rows = "B" if batch else "..."
            raise DataError(f"present must have shape ({rows}, {self.M}), got {tuple(flags.shape)}.")
        return flags

    def _open(self, values: Array) -> tuple[Tensor, Callable[[Tensor], Any]]:
        table, close = _widen(values)
        if table.shape[-1:] != (len(self.codes),):
            wanted = f"(..., {2**self.M}), one per subset of {self.M} modalities, the empty set first"
            raise DataError(f"values must have shape {wanted}; got {tuple(table.shape)}.")
        return table, close


def _choice(option: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise ConfigError(f"unknown {option} {given!r}.{did_you_mean(given, known)}")


def _tensor(array: Tensor | np.ndarray) -> Tensor:
    if isinstance(array, Tensor):
        return array
    plain = np.array(array, order="C")  # safe strides
    if plain.dtype.kind not in "fiub":
        raise DataError(f"expected an array of numbers or booleans, got {type(array).__name__} ({plain.dtype}).")
    return torch.from_numpy(plain)


def _like(given: Array, result: Tensor) -> Any:
    return result if isinstance(given, Tensor) else result.numpy()


def _widen(values: Array) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Float64, which neither autocast nor TF32 rounds; and the way back to the caller's dtype and array kind."""
    tensor = _tensor(values)
    dtype = tensor.dtype
    if not dtype.is_floating_point:
        dtype = torch.get_default_dtype() if isinstance(values, Tensor) else torch.float64
    inside = torch.float32 if tensor.device.type == "mps" else torch.float64  # mps has no float64
    return tensor.to(inside), lambda result: _like(values, result.to(dtype))


def _bits(codes: Tensor, M: int) -> Tensor:
    return codes[..., None] >> torch.arange(M, device=codes.device) & 1


def _butterfly(table: Tensor, sign: int) -> Tensor:
    """Add (1) or subtract (-1) the half without modality m to the half with it, for each m in turn."""
    out, M = table.clone(), table.shape[-1].bit_length() - 1
    for m in range(M):
        halves = out.unflatten(-1, (1 << (M - 1 - m), 2, 1 << m))
        halves[..., 1, :].add_(halves[..., 0, :], alpha=sign)
    return out


@lru_cache(maxsize=64)
def _shapley_weights(M: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(2^M, M): the weight of each v(S) in each phi_m."""
    with torch.inference_mode(False):  # a cached inference tensor could not take part in a later backward pass
        inside = _bits(torch.arange(2**M, device=device), M).bool()
        size = inside.sum(-1, keepdim=True)
        weight = torch.tensor([1 / (M * comb(M - 1, s)) for s in range(M)], dtype=dtype, device=device)
        return torch.where(inside, weight[(size - 1).clamp(min=0)], -weight[size.clamp(max=M - 1)])


def _weight(index: InteractionIndex, s: int, d: int, order: int) -> float:
    """The weight of the Moebius coefficient a(T) in the index of S ⊆ T, with s = |S| and d = |T| - |S|."""
    if index == "SII":
        return 1 / (d + 1)
    if index == "STII" and s == order:
        return 1 / comb(s + d, order)
    if index == "k-SII":  # Bernoulli numbers times the SII of what lies between S and T, up to the order
        return sum(comb(d, j) * _BERNOULLI[j] / (d - j + 1) for j in range(min(order - s, d) + 1))
    return float(d == 0)
