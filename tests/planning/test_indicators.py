from __future__ import annotations

import warnings
from itertools import permutations
from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lacunar.errors import ConfigError, DataError
from lacunar.lattice import Lattice
from lacunar.planning import indicators as ind
from lacunar.planning.indicators import DegenerateUtilityWarning

LATTICE = Lattice(["a", "b", "c"])


def game(function, M=3):
    """Values of a set function of membership, in lattice order."""
    return np.array([float(function(frozenset(m for m in range(M) if code >> m & 1))) for code in range(2**M)])


ADDITIVE = game(lambda s: 0.4 + sum((0.05, 0.1, 0.2)[m] for m in s))
XOR = game(lambda s: 0.5 + 0.5 * ({0, 1} <= s))  # c is noise
DUPLICATE = game(lambda s: 0.5 + 0.3 * bool(s & {0, 1}) + 0.1 * (2 in s))
DICTATOR = game(lambda s: 0.5 + 0.4 * (1 in s))


def tables(M=None):
    values = st.floats(-1, 1, allow_nan=False, width=32)
    if M is not None:
        return hnp.arrays(np.float64, 2**M, elements=values)
    return st.integers(1, 5).flatmap(tables)


def lattice_of(values):
    return Lattice([f"m{m}" for m in range(int(values.shape[-1]).bit_length() - 1)])


# ---------------------------------------------------------------- known games


def test_additive_game():
    assert ind.singleton(ADDITIVE, LATTICE) == pytest.approx([0.05, 0.1, 0.2])
    assert ind.shapley(ADDITIVE, LATTICE) * 0.35 == pytest.approx([0.05, 0.1, 0.2])
    assert ind.marginal_gain(ADDITIVE, LATTICE) == pytest.approx([0.05, 0.1, 0.2])
    assert ind.mci(ADDITIVE, LATTICE) == pytest.approx([0.05, 0.1, 0.2])
    for normalise in ("full", "self", "none"):
        assert ind.cooperation(ADDITIVE, LATTICE, normalise) == pytest.approx(np.zeros(8), abs=1e-12)
    assert ind.shape(ADDITIVE, LATTICE) == pytest.approx(np.zeros(8), abs=1e-12)
    for pairwise in (ind.interaction, ind.banzhaf):
        assert pairwise(ADDITIVE, LATTICE)[[3, 5, 6]] == pytest.approx(np.zeros(3), abs=1e-12)


def test_xor_of_two_and_noise():
    with pytest.warns(DegenerateUtilityWarning):  # pairs with the noise gain nothing
        scores = ind.cooperation(XOR, LATTICE, "self")
    assert scores[3] == scores[7] == pytest.approx(1.0)
    assert np.isnan(scores[[5, 6]]).all()
    assert ind.cooperation(XOR, LATTICE)[[3, 5, 6]] == pytest.approx([1, 0, 0])
    assert ind.shapley(XOR, LATTICE) == pytest.approx([0.5, 0.5, 0])
    assert ind.singleton(XOR, LATTICE) == pytest.approx([0, 0, 0])
    assert ind.mci(XOR, LATTICE) == pytest.approx([0.5, 0.5, 0])
    assert ind.interaction(XOR, LATTICE)[[3, 5, 6]] == pytest.approx([0.5, 0, 0])
    assert ind.banzhaf(XOR, LATTICE)[[3, 5, 6]] == pytest.approx([0.5, 0, 0])


def test_duplicate_modality():
    assert ind.cooperation(DUPLICATE, LATTICE, "self")[3] == pytest.approx(-1)
    assert ind.shape(DUPLICATE, LATTICE)[3] == pytest.approx(-1)
    assert ind.synergy(DUPLICATE, LATTICE)[3] == pytest.approx(-0.3)
    assert ind.shapley(DUPLICATE, LATTICE) * 0.4 == pytest.approx([0.15, 0.15, 0.1])
    assert ind.marginal_gain(DUPLICATE, LATTICE) == pytest.approx([0, 0, 0.1])
    assert ind.mci(DUPLICATE, LATTICE) == pytest.approx([0.3, 0.3, 0.1])


def test_dictator():
    assert ind.shapley(DICTATOR, LATTICE) == pytest.approx([0, 1, 0])
    assert ind.perceptual(DICTATOR, LATTICE)[[1, 2, 4]] == pytest.approx([0, 0.4, 0])
    assert ind.synergy(DICTATOR, LATTICE) == pytest.approx(np.zeros(8), abs=1e-12)


def test_triples_mix_pairs_and_triple():
    values = np.random.default_rng(0).normal(size=8)
    moebius = LATTICE.moebius(values)
    synergy = ind.synergy(values, LATTICE)
    assert synergy[[3, 5, 6]] == pytest.approx(moebius[[3, 5, 6]])
    assert synergy[7] == pytest.approx(moebius[[3, 5, 6, 7]].sum())
    assert synergy[[0, 1, 2, 4]] == pytest.approx(np.zeros(4), abs=1e-12)


def test_marginal_gain_on_top_of_some():
    assert ind.marginal_gain(XOR, LATTICE, given=()) == pytest.approx([0, 0, 0])
    found = ind.marginal_gain(XOR, LATTICE, given=["a"])
    assert np.isnan(found[0]) and found[1:] == pytest.approx([0.5, 0])
    with pytest.raises(DataError, match="unknown modality 'd'"):
        ind.marginal_gain(XOR, LATTICE, given=["d"])


def test_perceptual_score_of_sets_and_its_normalisers():
    values = game(lambda s: [0.5, 0.6, 0.7, 0.9][len(s)])
    assert ind.perceptual(values, LATTICE)[[0, 1, 3, 7]] == pytest.approx([0, 0.2, 0.3, 0.4])
    assert ind.perceptual(values, LATTICE, "model")[1] == pytest.approx(0.2 / 0.9)
    assert ind.perceptual(values, LATTICE, "task")[1] == pytest.approx(0.2 / 0.5)
    assert ind.perceptual(values - 1, LATTICE, "task", best=0)[1] == pytest.approx(0.2 / 0.5)
    assert np.isnan(ind.perceptual(values - 1, LATTICE, "model")).all()


def test_shapley_is_the_mean_over_all_orders():
    values = np.random.default_rng(1).normal(size=16) + np.arange(16)
    lattice, phi = lattice_of(values), np.zeros(4)
    for order in permutations(range(4)):
        code = 0
        for m in order:
            phi[m] += values[code | 1 << m] - values[code]
            code |= 1 << m
    assert ind.shapley(values, lattice) * (values[-1] - values[0]) == pytest.approx(phi / factorial(4))


# ---------------------------------------------------------------- properties


@settings(max_examples=60, deadline=None)
@given(tables())
def test_shares_sum_to_one_and_never_reverse_the_order(values):
    lattice = lattice_of(values)
    gain = values[-1] - values[0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scaled = ind.shapley(values, lattice)
    raw = lattice.shapley(values)
    degenerate = gain <= ind.MINIMUM_GAIN
    assert any(issubclass(w.category, DegenerateUtilityWarning) for w in caught) == degenerate
    assert scaled.sum() == pytest.approx(gain if degenerate else 1, abs=1e-12 if degenerate else 1e-9)
    more = raw[:, None] > raw[None, :]
    assert (scaled[:, None] >= scaled[None, :])[more].all()


def test_efficiency_is_exact_to_rounding():
    values = np.random.default_rng(5).random((200, 32))
    values[:, -1] = values[:, 0] + 0.2 + values[:, -1]
    assert np.abs(ind.shapley(values, lattice_of(values)).sum(-1) - 1).max() < 1e-12


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from(["full", "self"]))
def test_cooperation_divides_by_positive_gains_only(values, normalise):
    lattice = lattice_of(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = ind.cooperation(values, lattice, normalise)
    synergy, gain = ind.synergy(values, lattice), ind.utility(values, lattice)
    scale = np.broadcast_to(gain[-1], gain.shape) if normalise == "full" else gain
    several = lattice.size(np.arange(len(lattice))) > 1
    assert (np.isnan(scores) == (several & (scale <= ind.MINIMUM_GAIN))).all()
    known = several & ~np.isnan(scores)
    assert (scores[known] * scale[known]) == pytest.approx(synergy[known], abs=1e-9)
    assert scores[~several] == pytest.approx(0, abs=0)
    if normalise == "self" and (gain[1 << np.arange(lattice.M)] >= 0).all():
        assert (scores[known] <= 1 + 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(tables(3), st.floats(-3, 3))
def test_a_constant_added_to_all_scores_changes_nothing(values, shift):
    for name, entry in ind.available().items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name in ("shapley", "cooperation", "shape") and values[-1] - values[0] < 0.01:
                continue
            first, second = (entry.function(v, LATTICE) for v in (values, values + shift))
        gains = ind.utility(values, LATTICE)
        if name == "shape" and (np.abs(gains - ind.MINIMUM_GAIN) < 1e-6).any():
            continue
        np.testing.assert_allclose(first, second, atol=1e-6, rtol=1e-6)


def test_leading_dimensions_pass_through():
    values = np.random.default_rng(2).random((4, 5, 8)) + np.arange(8)
    for name, entry in ind.available().items():
        whole = entry.function(values, LATTICE)
        assert whole.shape[:-1] == (4, 5), name
        np.testing.assert_allclose(whole[2, 3], entry.function(values[2, 3], LATTICE))


# ---------------------------------------------------------------- degenerate and wrong input


def test_a_negative_gain_warns_and_keeps_the_order():
    values = game(lambda s: 0.5 - 0.1 * (0 in s) - 0.05 * (1 in s) + 0.02 * (2 in s))
    with pytest.warns(DegenerateUtilityWarning, match="the gain of all modalities, -0.13, is not above 0.001"):
        scores = ind.shapley(values, LATTICE)
    assert scores == pytest.approx([-0.1, -0.05, 0.02])
    assert np.isnan(ind.shapley(values, LATTICE, on_degenerate="nan")).all()
    with pytest.warns(DegenerateUtilityWarning, match="NaN there"):
        assert np.isnan(ind.cooperation(values, LATTICE)[3:]).sum() == 4  # pairs and the triple; singles are 0


def test_raw_cooperation_flips_the_sign_of_what_is_below_the_baseline():
    values = game(lambda s: 0.5 - 0.1 * (s >= {0, 1}))
    with pytest.warns(DegenerateUtilityWarning, match="the sign flips"):
        assert ind.cooperation(values, LATTICE, "self", "raw")[3] == pytest.approx(1)  # worse together, and C = 1
    assert ind.synergy(values, LATTICE)[3] == pytest.approx(-0.1)


def test_values_that_are_missing_stay_missing():
    values = XOR.copy()
    values[5] = np.nan
    assert np.isnan(ind.utility(values, LATTICE)).sum() == 1
    assert np.isnan(ind.shapley(values, LATTICE)).all()
    assert ind.cooperation(values, LATTICE)[3] == pytest.approx(1)
    assert ind.mci(values, LATTICE) == pytest.approx([0.5, 0.5, 0])


def test_one_modality():
    lattice, values = Lattice(["a"]), np.array([0.2, 0.7])
    assert ind.shapley(values, lattice) == pytest.approx([1])
    assert ind.cooperation(values, lattice) == pytest.approx([0, 0])
    assert np.isnan(ind.interaction(values, lattice)).all() and np.isnan(ind.banzhaf(values, lattice)).all()


def test_wrong_input():
    with pytest.raises(DataError, match=r"values must have shape \(..., 8\).*got \(4,\)"):
        ind.utility(np.zeros(4), LATTICE)
    with pytest.raises(ConfigError, match="unknown indicator 'coperation'. Did you mean 'cooperation'"):
        ind.get("coperation")
    with pytest.raises(ConfigError, match="unknown normalise 'ful'. Did you mean 'full'"):
        ind.cooperation(XOR, LATTICE, "ful")
    with pytest.raises(ConfigError, match="indicator 'shapley': unknown option 'minimun'. Did you mean 'minimum'"):
        ind.get("shapley").check_options(["minimun"])


def test_a_new_indicator_is_one_function():
    try:

        @ind.indicator("size of a subset")
        def size(values, lattice):
            """How many there are."""
            return np.broadcast_to(lattice.size(np.arange(len(lattice))), values.shape)

        assert ind.get("size of a subset").description == "How many there are."
        with pytest.raises(ConfigError, match="already registered"):
            ind.indicator("size of a subset")(ind.utility)
    finally:
        from lacunar.planning import indicator_register

        indicator_register._REGISTER.pop("size of a subset", None)


def test_every_indicator_is_described():
    known = ind.available()
    assert {"utility", "singleton", "marginal_gain", "shapley", "cooperation", "synergy", "shape", "perceptual"} <= set(
        known
    )
    assert {"interaction", "banzhaf", "mci"} <= set(known)
    assert all(entry.description.endswith(".") for entry in known.values())
