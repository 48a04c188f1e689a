"""What a utility table says of each subset or modality, as pure functions, and the register of them.

Every indicator takes ``values (..., 2^M)`` in lattice order, the constant baseline v(none) first, and the lattice, and
returns a score for each subset ``(..., 2^M)`` or for each modality ``(..., M)``. Leading dimensions (repeats, bootstrap
draws) pass through. Throughout ``f(S) = v(S) - v(none)`` is the utility gain (Eq. 2 of SK-LL) and higher is better.
NaN in means NaN out wherever a value is needed that is not there.

A new indicator is one function under :func:`indicator`::

    @indicator("worst_member")
    def worst_member(values, lattice): ...
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from itertools import combinations
from typing import Any, Literal

import numpy as np

from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.lattice import Lattice
from lacunar.planning.indicator_register import DegenerateUtilityWarning, Indicator, available, get, indicator

__all__ = [
    "MINIMUM_GAIN",
    "DegenerateUtilityWarning",
    "Indicator",
    "available",
    "banzhaf",
    "cooperation",
    "get",
    "indicator",
    "interaction",
    "marginal_gain",
    "mci",
    "perceptual",
    "shape",
    "shapley",
    "singleton",
    "synergy",
    "utility",
]

MINIMUM_GAIN = 1e-3
"""The smallest gain that means something to divide by, in the units of the values."""


def _several(M: int) -> range:
    return range(min(2, M), M + 1)


def _pairs(M: int) -> range:
    return range(2, 3)


def _singles(M: int) -> range:
    return range(1, 2)


@indicator("utility")
def utility(values: np.ndarray, lattice: Lattice) -> np.ndarray:
    """What each subset gains over the constant baseline.

    f(S) of Eq. 2, ``(..., 2^M)``. Of the best possible predictor f is never negative and never falls when a modality
    is added; of trained models, scored on held-out samples, neither holds. With 0/1 loss it has plateaus: a modality
    can carry information and have f = 0, where log-loss or Brier show it. Of all indicators it is the one whose top
    is least often changed by noise: every other one here is a difference or a ratio of its values.
    """
    table = _open(values, lattice)
    return table - table[..., :1]


@indicator("singleton")
def singleton(values: np.ndarray, lattice: Lattice) -> np.ndarray:
    """What each modality gains alone.

    f({j}), ``(..., M)``; blind to redundancy and to synergy, but it needs M + 1 values only.
    """
    return utility(values, lattice)[..., _bits(lattice)]


@indicator("marginal_gain")
def marginal_gain(values: np.ndarray, lattice: Lattice, given: Iterable[str] | str | int | None = None) -> np.ndarray:
    """What each modality adds to those that are given.

    f(given + j) - f(given), ``(..., M)``; NaN for members of ``given``.

    Args:
        values: ``(..., 2^M)``.
        lattice: the modalities.
        given: names or code of a subset; None for all the others: what is lost when only j is left out.
    """
    table, bits, full = _open(values, lattice), _bits(lattice), len(lattice) - 1
    if given is None:
        return table[..., -1:] - table[..., full ^ bits]
    code = lattice.index(given)
    return np.where(code & bits, np.nan, table[..., code | bits] - table[..., code, None])


def _shapley_order(values: np.ndarray, lattice: Lattice, **options: Any) -> np.ndarray:
    return lattice.shapley(_open(values, lattice))


@indicator("shapley", order=_shapley_order, share=True)
def shapley(
    values: np.ndarray,
    lattice: Lattice,
    minimum: float = MINIMUM_GAIN,
    on_degenerate: Literal["unscaled", "nan"] = "unscaled",
) -> np.ndarray:
    """Each modality's Shapley value as a share of the gain of all of them.

    ``phi_j / Z`` with ``Z = f(all)`` (Eq. 3), ``(..., M)``: the shares sum to 1. Where ``Z <= minimum`` they would
    explode, and with a negative Z their order would be reversed: there phi itself is returned, in the units of the
    values, with a :class:`DegenerateUtilityWarning`. Shapley values share the gain of the FULL set out among its
    members; the sum over a subset is not what that subset is worth, and two modalities that hold the same get half
    each, however useful either is.

    Args:
        values: ``(..., 2^M)``.
        lattice: the modalities.
        minimum: the smallest Z to divide by, in the units of the values.
        on_degenerate: where Z is not above ``minimum``: ``"unscaled"``, or ``"nan"`` for NaN without a warning.
    """
    _choice("on_degenerate", on_degenerate, ("unscaled", "nan"))
    table = _open(values, lattice)
    phi, full = lattice.shapley(table), table[..., -1:] - table[..., :1]
    usable = full > minimum
    if on_degenerate == "nan":
        return np.where(usable, phi / np.where(usable, full, 1.0), np.nan)
    if (full <= minimum).any():
        _warn(f"the gain of all modalities, {_few(full[full <= minimum])}, is not above {minimum:g}: unscaled values")
    return phi / np.where(usable, full, 1.0)


def _cooperation_order(
    values: np.ndarray, lattice: Lattice, normalise: str = "full", **options: Any
) -> np.ndarray | None:
    # f(all) is one number for all subsets: without it the order is the same, and cannot be reversed.
    return synergy(values, lattice) if normalise == "full" else None


@indicator("cooperation", sizes=_several, order=_cooperation_order, share=True)
def cooperation(
    values: np.ndarray,
    lattice: Lattice,
    normalise: Literal["full", "self", "none"] = "full",
    on_negative: Literal["nan", "raw"] = "nan",
    minimum: float = MINIMUM_GAIN,
) -> np.ndarray:
    """What each subset is worth beyond the sum of its modalities alone, as a share.

    ``C(S) = (f(S) - sum_{j in S} f({j})) / Z`` (Eq. 4), ``(..., 2^M)``. What to know of it:

    * ``C({j}) = 0`` identically. C has no lower bound; it is at most 1 where no single is negative and f(S) > 0.
    * With Z = f(S) it is the relative form of SHAPE's cooperation (Hu et al. 2022) in the game of S alone, which is
      also computed by the code of InterSHAP (Wenderoth et al. 2025); there for one model whose inputs are replaced,
      here for models trained on each subset.
    * For a pair the numerator is the Moebius coefficient, for a triple it mixes the pairs' with the triple's.
    * With Z = f(S) the sign flips where f(S) < 0: a pair that does WORSE than the sum gets C > 0. Where f(S) is
      small C explodes: a weak pair with a little synergy outranks a strong pair with more of it. That happens
      within the published tables (Table 5 of SK-LL, first row).
    * It measures synergy, not value: a strong modality that is partly redundant gets C < 0 and is refused, while a
      useless independent one gets C of about 0. Under the noise of the published tables its top changes in 15 to 46
      percent of re-runs with 5 seeds, that of the plain utility in 0 to 8.

    Args:
        values: ``(..., 2^M)``.
        lattice: the modalities.
        normalise: Z. ``"full"``: f of all modalities, so that the order is that of the absolute synergy.
            ``"self"``: f(S), the paper's. ``"none"``: 1.
        on_negative: where ``Z <= minimum``: ``"nan"``, or ``"raw"`` to divide anyway, as the paper does.
        minimum: the smallest Z to divide by, in the units of the values.

    Warns:
        DegenerateUtilityWarning: Z is not above ``minimum`` for a subset of two or more.
    """
    table = _open(values, lattice)
    score = lattice.cooperation(table, normalise, on_negative, minimum)
    gain = table - table[..., :1]
    scale = {"full": gain[..., -1:], "self": gain[..., _sizes(lattice) > 1]}.get(normalise)
    if scale is not None and (scale <= minimum).any():
        what = "NaN there" if on_negative == "nan" else "divided by it anyway, the sign flips where it is negative"
        _warn(f"the gain to divide by, {_few(scale[scale <= minimum])}, is not above {minimum:g}: {what}")
    return score


@indicator("synergy", sizes=_several)
def synergy(values: np.ndarray, lattice: Lattice) -> np.ndarray:
    """What each subset is worth beyond the sum of its modalities alone, in the units of the values.

    The numerator of Eq. 4, ``(..., 2^M)``: no divisor, nothing to explode or to flip.
    """
    return lattice.cooperation(_open(values, lattice), "none")


@indicator("shape", sizes=_several)
def shape(values: np.ndarray, lattice: Lattice, relative: bool = True, minimum: float = MINIMUM_GAIN) -> np.ndarray:
    """SHAPE's cooperation of each subset, as a share of that subset's own gain.

    ``(f(S) - sum_{j in S} f({j})) / f(S)`` (Hu et al. 2022, with v(none) of a constant predictor), ``(..., 2^M)``;
    SHAPE's marginal contributions are :func:`shapley` of the same table. On a table of one model whose absent inputs
    are replaced (:func:`lacunar.planning.reliance.replaced_utilities`) it is SHAPE as its authors run it and says how
    the model combines what it is given. On a table of retrained models it is :func:`cooperation` with
    ``normalise="self"``.

    Args:
        values: ``(..., 2^M)``.
        lattice: the modalities.
        relative: divide by f(S); NaN where it is not above ``minimum``. False leaves the units of the values.
        minimum: the smallest gain to divide by.
    """
    return lattice.cooperation(_open(values, lattice), "self" if relative else "none", "nan", minimum)


def _perceptual_order(values: np.ndarray, lattice: Lattice, **options: Any) -> np.ndarray:
    return perceptual(values, lattice)


@indicator("perceptual", sizes=_singles, order=_perceptual_order)
def perceptual(
    values: np.ndarray,
    lattice: Lattice,
    normalise: Literal["none", "model", "task"] = "none",
    best: float = 1.0,
    minimum: float = MINIMUM_GAIN,
) -> np.ndarray:
    """What is lost when a subset is taken away from all modalities.

    ``v(all) - v(all without A)`` for every A, ``(..., 2^M)``. On a table of one model in which what is left out is
    permuted across samples (:func:`lacunar.planning.reliance.permuted_utilities`) this is the perceptual score of
    Gat et al. 2021; a set of modalities is permuted jointly. It may be negative.

    Args:
        values: ``(..., 2^M)``.
        lattice: the modalities.
        normalise: ``"model"`` divides by v(all), for scores of which 0 is the worst; ``"task"`` by what a perfect
            model would gain over the constant baseline, ``best - v(none)``.
        best: the score of a perfect model, 1 for accuracy and 0 for negated losses.
        minimum: NaN where the divisor is not above it.
    """
    _choice("normalise", normalise, ("none", "model", "task"))
    table = _open(values, lattice)
    lost = table[..., -1:] - table[..., ::-1]  # the complement of S is code 2^M - 1 - S
    if normalise == "none":
        return lost
    scale = table[..., -1:] if normalise == "model" else best - table[..., :1]
    usable = scale > minimum
    return np.where(usable, lost / np.where(usable, scale, 1.0), np.nan)


@indicator("interaction", sizes=_pairs)
def interaction(values: np.ndarray, lattice: Lattice) -> np.ndarray:
    """The Shapley interaction of each pair.

    ``sum_{S containing i, j} a(S) / (|S| - 1)`` with the Moebius coefficients a (SII of Grabisch and Roubens 1999):
    what the two are worth together beyond each alone, averaged over what else is there. ``(..., 2^M)``, NaN but at
    pairs. For M = 2 it is the synergy of the pair; with more, unlike the synergy, it sees the rest.
    """
    table = _open(values, lattice)
    scores = np.full_like(table, np.nan)
    if lattice.M > 1:
        codes, found = lattice.interactions(table, 2, "SII")
        pairs = np.array([int(code).bit_count() == 2 for code in codes])
        scores[..., codes[pairs]] = found[..., pairs]
    return scores


@indicator("banzhaf", sizes=_pairs)
def banzhaf(values: np.ndarray, lattice: Lattice) -> np.ndarray:
    """The Banzhaf interaction of each pair.

    The mean over all subsets S of the others of ``v(S + i + j) - v(S + i) - v(S + j) + v(S)``: like the Shapley
    interaction, with every S weighing the same. ``(..., 2^M)``, NaN but at pairs.
    """
    table, codes = _open(values, lattice), np.arange(len(lattice))
    scores = np.full_like(table, np.nan)
    for i, j in combinations(_bits(lattice), 2):
        rest = codes[codes & (i | j) == 0]
        both, none = table[..., rest | i | j], table[..., rest]
        scores[..., i | j] = (both - table[..., rest | i] - table[..., rest | j] + none).mean(axis=-1)
    return scores


@indicator("mci")
def mci(values: np.ndarray, lattice: Lattice) -> np.ndarray:
    """The most that each modality adds to any set of others.

    ``max_S f(S + j) - f(S)`` (marginal contribution importance), ``(..., M)``, over the sets that have values. It is
    f({j}) where contributions shrink as sets grow. The largest of many noisy differences is biased upwards.
    """
    table, codes = _open(values, lattice), np.arange(len(lattice))
    added = [table[..., codes[codes & bit != 0]] - table[..., codes[codes & bit == 0]] for bit in _bits(lattice)]
    return np.stack([np.fmax.reduce(part, axis=-1) for part in added], axis=-1)


def _open(values: np.ndarray, lattice: Lattice) -> np.ndarray:
    table = np.asarray(values, dtype=np.float64)
    if table.shape[-1:] != (len(lattice.codes),):
        raise DataError(
            f"values must have shape (..., {len(lattice)}), one per subset of {lattice.M} modalities, the empty set "
            f"first; got {table.shape}."
        )
    return table


def _bits(lattice: Lattice) -> np.ndarray:
    return 1 << np.arange(lattice.M)


def _sizes(lattice: Lattice) -> np.ndarray:
    return lattice.size(np.arange(len(lattice)))


def _few(numbers: np.ndarray) -> str:
    flat = np.unique(numbers.ravel())
    return f"{flat[0]:.4g}" if len(flat) == 1 else f"{flat[0]:.4g} to {flat[-1]:.4g}"


def _choice(option: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise ConfigError(f"unknown {option} {given!r}.{did_you_mean(given, known)}")


def _warn(message: str) -> None:
    warnings.warn(message, DegenerateUtilityWarning, stacklevel=3)
