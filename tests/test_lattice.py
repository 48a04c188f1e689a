"""The lattice against the axioms, against brute force, and against what people will feed it."""

import copy
import math
import pickle
import time
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lacunar.errors import ConfigError, DataError
from lacunar.lattice import Lattice

quick = settings(max_examples=50, deadline=None)
NAMES = ("image", "audio", "text")


def lattice_of(M):
    return Lattice([f"m{m}" for m in range(M)])


def random_game(M, seed, *lead):
    return torch.randn(*lead, 2**M, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_presence(M, seed, *lead):
    return torch.rand(*lead, M, generator=torch.Generator().manual_seed(seed)) < 0.6


sizes, seeds = st.integers(1, 6), st.integers(0, 2**31)


# ---------------------------------------------------------------------- names and codes


def test_codes_follow_the_order_of_the_names():
    lattice = Lattice(NAMES)
    assert (lattice.M, len(lattice), lattice.names) == (3, 8, NAMES)
    assert lattice.index({"text", "image"}) == 0b101
    assert lattice.index("audio") == 0b010
    assert lattice.index([]) == 0
    assert lattice.index(np.int64(6)) == lattice.index(torch.tensor(6)) == 6
    assert lattice.subset(0b101) == ("image", "text")
    assert [lattice.label(code) for code in (0, 2, 5)] == ["none", "audio", "image+text"]
    assert lattice.codes.tolist() == list(range(8))
    assert lattice.subsets == [1, 2, 4, 3, 5, 6, 7]
    assert all(lattice.index(lattice.subset(code)) == code for code in range(8))


def test_equal_by_names_and_order():
    assert Lattice(NAMES) == Lattice(iter(NAMES))
    assert hash(Lattice(NAMES)) == hash(Lattice(list(NAMES)))
    assert Lattice(NAMES) != Lattice(NAMES[::-1])
    assert eval(repr(Lattice(NAMES))) == Lattice(NAMES)
    assert pickle.loads(pickle.dumps(Lattice(NAMES))) == copy.deepcopy(Lattice(NAMES)) == Lattice(NAMES)
    with pytest.raises(AttributeError):
        Lattice(NAMES).names = ("a",)


@pytest.mark.parametrize("M", [1, 5, 12, 40, 63])
def test_encode_and_decode_are_inverse(M):
    lattice = lattice_of(M)
    present = random_presence(M, 0, 20, 3)
    present[0, 0], present[0, 1] = True, False
    codes = lattice.encode(present)
    assert codes[0, 0] == 2**M - 1
    assert codes[0, 1] == 0
    assert codes.shape == (20, 3)
    assert torch.equal(lattice.decode(codes), present)
    assert torch.equal(lattice.size(codes), present.sum(-1))
    assert codes[1, 2] == lattice.index([n for n, p in zip(lattice.names, present[1, 2]) if p])
    back = lattice.encode(present.numpy())
    assert isinstance(back, np.ndarray)
    assert back.tolist() == codes.tolist()
    assert isinstance(lattice.decode(back), np.ndarray)


def test_a_lattice_of_63_works_without_a_table():
    lattice = lattice_of(63)
    assert bool(lattice)
    assert lattice.index(lattice.names) == 2**63 - 1
    assert lattice.subset(2**62) == ("m62",)


@quick
@given(sizes, seeds)
def test_feasible_and_pairs_are_the_subsets_of_what_is_present(M, seed):
    lattice, present = lattice_of(M), random_presence(M, seed, 9)
    expected = [
        [set(lattice.subset(c)) <= set(lattice.subset(int(lattice.encode(p)))) for c in range(2**M)] for p in present
    ]
    assert lattice.feasible(present).tolist() == expected
    assert lattice.feasible(present.numpy()).tolist() == expected
    assert lattice.feasible(present[0]).tolist() == expected[0]
    pairs = lattice.pairs(present)
    assert list(zip(*(x.tolist() for x in (pairs.codes, pairs.rows)))) == [
        (code, row) for code in range(1, 2**M) for row in range(9) if expected[row][code]
    ]


# ---------------------------------------------------------------------- a budget of pairs


@pytest.mark.parametrize("M", [1, 3, 6, 20, 63])
@pytest.mark.parametrize("budget", [2, 3, 8, 100])
def test_sampled_pairs_keep_the_full_set_and_never_repeat(M, budget):
    lattice, present = lattice_of(M), random_presence(M, budget, 40)
    present[0], present[1], present[2] = True, False, False
    present[2, M // 2] = True
    pairs, weight = lattice.sample_pairs(present, budget, torch.Generator().manual_seed(3))
    available = lattice.encode(present)
    assert torch.equal(pairs.codes & available[pairs.rows], pairs.codes)
    assert (pairs.codes > 0).all()
    listed = list(zip(pairs.codes.tolist(), pairs.rows.tolist()))
    assert listed == sorted(set(listed))
    counts = torch.bincount(pairs.rows, minlength=40)
    assert counts.tolist() == [min(budget, 2 ** int(k) - 1) for k in present.sum(-1)]
    full = pairs.codes == available[pairs.rows]
    assert pairs.rows[full].sort().values.tolist() == [n for n in range(40) if available[n]]
    assert (weight[full] == 1).all()
    # The weights of a row count its feasible subsets.
    total = torch.zeros(40, dtype=torch.float64).index_add(0, pairs.rows, weight.double())
    assert torch.allclose(total, 2.0 ** present.sum(-1).double() - 1, rtol=1e-6)


def test_a_large_budget_takes_every_pair_once():
    lattice, present = lattice_of(5), random_presence(5, 1, 30)
    pairs, weight = lattice.sample_pairs(present, 31)
    assert all(torch.equal(a, b) for a, b in zip(pairs, lattice.pairs(present)))
    assert (weight == 1).all()
    assert weight.dtype == torch.get_default_dtype()


@pytest.mark.parametrize("budget", [2, 4, 6])
def test_weighted_sums_over_sampled_pairs_are_unbiased(budget):
    # Every subset of every row is hit 1 / weight of the time: its mean weight over many draws is 1.
    lattice, repeats = lattice_of(4), 6000
    rows = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    generator = torch.Generator().manual_seed(budget)
    pairs, weight = lattice.sample_pairs(rows.repeat(repeats, 1), budget, generator)
    seen = torch.zeros(5 * 16, dtype=torch.float64)
    seen.index_add_(0, pairs.rows % 5 * 16 + pairs.codes, weight.double())
    mean, expected = seen.view(5, 16) / repeats, lattice.feasible(rows).double()
    expected[:, 0] = 0
    variance = (14 / (budget - 1) + 1) * expected  # of one weight: at most its largest value, less 1
    assert ((mean - expected).abs() <= 4.5 * (variance / repeats).sqrt()).all()
    assert float(mean.sum()) == pytest.approx(float(expected.sum()), rel=1e-9)  # exactly so, draw by draw


def test_sampled_pairs_of_63_modalities_favour_none():
    lattice = lattice_of(63)
    present = torch.ones(4000, 63, dtype=torch.bool)
    pairs, _ = lattice.sample_pairs(present, 2, torch.Generator().manual_seed(0))
    drawn = lattice.decode(pairs.codes[pairs.codes != 2**63 - 1]).double()
    assert drawn.shape == (4000, 63)
    assert ((drawn.mean(0) - 0.5).abs() < 4.5 * 0.5 / 4000**0.5).all()


def test_strata_treat_modalities_alike():
    # Strata by code in one fixed order would never draw image and audio for the same row.
    present = torch.ones(500, 3, dtype=torch.bool)
    pairs, _ = Lattice(NAMES).sample_pairs(present, 3, torch.Generator().manual_seed(0))
    drawn = torch.zeros(500, 8, dtype=torch.bool)
    drawn[pairs.rows, pairs.codes] = True
    together = [int((drawn[:, a] & drawn[:, b]).sum()) for a, b in ((1, 2), (1, 4), (2, 4))]
    assert min(together) > 0.6 * max(together)


def test_sampled_pairs_follow_their_generator():
    lattice, present = lattice_of(8), random_presence(8, 0, 50)

    def draw(seed):
        return lattice.sample_pairs(present, 5, torch.Generator().manual_seed(seed))[0].codes.tolist()

    assert draw(1) == draw(1) != draw(2)


def test_no_rows_are_ordinary():
    lattice, none = lattice_of(3), torch.zeros(0, 3, dtype=torch.bool)
    assert lattice.pairs(none).rows.shape == (0,)
    assert lattice.sample_pairs(none, 4)[1].shape == (0,)
    values = torch.zeros(0, 8)
    assert lattice.shapley(values, none).shape == (0, 3)
    assert lattice.moebius(values).shape == (0, 8)
    assert lattice.interactions(values)[1].shape == (0, 6)
    assert lattice.cooperation(values).shape == (0, 8)


# ---------------------------------------------------------------------- Shapley: axioms


def brute_force_shapley(v, M, available):
    """The mean marginal contribution over all orders of the available modalities."""
    phi = np.zeros(M)
    orders = list(permutations([m for m in range(M) if available >> m & 1]))
    for order in orders:
        before = 0
        for m in order:
            phi[m] += float(v[before | 1 << m] - v[before]) / len(orders)
            before |= 1 << m
    return phi


@quick
@given(st.integers(1, 5), seeds)
def test_shapley_is_the_mean_over_orders_of_what_is_available(M, seed):
    lattice, v, present = lattice_of(M), random_game(M, seed, 4), random_presence(M, seed, 4)
    available = lattice.encode(present).tolist()
    expected = np.stack([brute_force_shapley(v[n], M, available[n]) for n in range(4)])
    holes = v.masked_fill(~lattice.feasible(present), torch.nan)
    assert np.allclose(lattice.shapley(holes, present), expected)
    assert np.allclose(lattice.shapley(v)[0], brute_force_shapley(v[0], M, 2**M - 1))


@quick
@given(st.one_of(sizes, st.just(12)), seeds)
def test_efficiency_and_absent_is_zero(M, seed):
    lattice, v, present = lattice_of(M), random_game(M, seed, 3), random_presence(M, seed, 3)
    phi = lattice.shapley(v.masked_fill(~lattice.feasible(present), torch.nan), present)
    gain = v.gather(-1, lattice.encode(present)[:, None])[:, 0] - v[:, 0]
    assert torch.allclose(phi.sum(-1), gain)
    assert (phi[~present] == 0).all()
    assert torch.allclose(lattice.shapley(v).sum(-1), v[:, -1] - v[:, 0])
    assert torch.allclose(lattice.shapley(v, torch.ones(M, dtype=torch.bool)), lattice.shapley(v))


@quick
@given(st.integers(2, 6), seeds, st.data())
def test_symmetry(M, seed, data):
    i, j = data.draw(st.sampled_from(list(combinations(range(M), 2))))
    lattice, v = lattice_of(M), random_game(M, seed)
    swapped = lattice.decode(lattice.codes)
    swapped[:, [i, j]] = swapped[:, [j, i]]
    v = v + v[lattice.encode(swapped)]  # a game in which i and j do the same
    assert torch.isclose(lattice.shapley(v)[i], lattice.shapley(v)[j])


@quick
@given(st.one_of(sizes, st.just(12)), seeds, st.data())
def test_dummy(M, seed, data):
    m = data.draw(st.integers(0, M - 1))
    lattice, v = lattice_of(M), random_game(M, seed)
    has = lattice.codes >> m & 1
    v = v[lattice.codes & ~(1 << m)] + 0.7 * has  # m adds 0.7 to everything
    assert torch.isclose(lattice.shapley(v)[m], torch.tensor(0.7, dtype=torch.float64))


@quick
@given(sizes, seeds)
def test_additivity(M, seed):
    lattice, v, w = lattice_of(M), random_game(M, seed, 2), random_game(M, seed + 1, 2)
    present = random_presence(M, seed, 2)
    assert torch.allclose(
        lattice.shapley(v - 3 * w, present), lattice.shapley(v, present) - 3 * lattice.shapley(w, present)
    )


def test_the_dictator_gets_everything():
    lattice = Lattice(NAMES)
    v = (lattice.codes & lattice.index("image") > 0).float()
    assert torch.allclose(lattice.shapley(v), torch.tensor([1.0, 0, 0]), atol=1e-12)
    assert torch.allclose(lattice.cooperation(v), torch.zeros(8))


@quick
@given(st.integers(2, 6), seeds)
def test_renaming_permutes_the_values(M, seed):
    """Modalities in another order: the same game, so the same values under the same names."""
    order = torch.randperm(M, generator=torch.Generator().manual_seed(seed))
    lattice, v, present = lattice_of(M), random_game(M, seed), random_presence(M, seed)
    other = Lattice([lattice.names[m] for m in order])
    to_old = [lattice.index(other.subset(code)) for code in range(2**M)]
    assert torch.allclose(other.shapley(v[to_old], present[order]), lattice.shapley(v, present)[order])
    assert torch.allclose(other.moebius(v[to_old]), lattice.moebius(v)[to_old])
    assert torch.allclose(other.cooperation(v[to_old], "none"), lattice.cooperation(v, "none")[to_old])
    for index in ("SII", "STII", "k-SII"):
        codes, mine = lattice.interactions(v, 2, index)
        _, theirs = other.interactions(v[to_old], 2, index)
        at = {code: k for k, code in enumerate(codes.tolist())}
        assert torch.allclose(theirs, mine[[at[to_old[code]] for code in codes.tolist()]])


def test_dimensions_broadcast():
    lattice, v, present = lattice_of(3), random_game(3, 0, 5, 1), random_presence(3, 0, 4)
    phi = lattice.shapley(v, present)
    assert phi.shape == (5, 4, 3)
    assert torch.allclose(phi[2, 3], lattice.shapley(v[2, 0], present[3]))


def test_gradients_flow_and_never_from_what_is_infeasible():
    lattice, present = lattice_of(3), torch.tensor([[True, False, True], [False, False, False]])
    v = random_game(3, 0, 2).masked_fill(~lattice.feasible(present), torch.nan).requires_grad_()
    (lattice.shapley(v, present) ** 2).sum().backward()
    assert torch.isfinite(v.grad).all()
    assert (v.grad[~lattice.feasible(present)] == 0).all()
    assert v.grad[0].abs().sum() > 0
    smooth = random_game(3, 1, 2).requires_grad_()
    for function in (
        lambda x: lattice.shapley(x, present),
        lattice.moebius,
        lattice.from_moebius,
        lambda x: lattice.interactions(x, 2, "STII")[1],
        lambda x: lattice.cooperation(x, "self", "raw"),
    ):
        assert torch.autograd.gradcheck(function, smooth)


def test_inference_mode_leaves_nothing_behind():
    lattice = Lattice([f"once{m}" for m in range(7)])  # a size that no other test has cached
    with torch.inference_mode():
        lattice.shapley(random_game(7, 0))
    lattice.shapley(random_game(7, 0).requires_grad_()).sum().backward()


def test_autocast_does_not_round():
    lattice, v = lattice_of(4), random_game(4, 0, 6).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = lattice.shapley(v)
    assert torch.equal(inside, lattice.shapley(v))
    assert inside.dtype == torch.float32


def test_shapley_is_fast():
    lattice, v, present = lattice_of(6), torch.rand(128, 64), random_presence(6, 0, 128)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        lattice.shapley(v, present)
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3  # about 0.07 ms on one core


# ---------------------------------------------------------------------- Moebius and interactions


@quick
@given(st.one_of(sizes, st.just(12)), seeds)
def test_moebius_and_its_inverse(M, seed):
    lattice, v = lattice_of(M), random_game(M, seed, 2)
    assert torch.allclose(lattice.from_moebius(lattice.moebius(v)), v, atol=1e-9)
    if M <= 6:
        signs = torch.tensor(
            [[(-1.0) ** (S ^ T).bit_count() if T & S == T else 0 for T in range(2**M)] for S in range(2**M)]
        ).double()
        assert torch.allclose(lattice.moebius(v), v @ signs.T)


def test_holes_spread_to_supersets_only():
    lattice, present = lattice_of(4), torch.tensor([[True, False, True, True]])
    v, feasible = random_game(4, 0, 1), lattice.feasible(present)
    holes = v.masked_fill(~feasible, torch.nan)
    assert torch.equal(lattice.moebius(holes)[feasible], lattice.moebius(v)[feasible])
    assert torch.equal(lattice.cooperation(holes, "none")[feasible], lattice.cooperation(v, "none")[feasible])
    assert torch.equal(lattice.restrict(holes, present), v[:, lattice.codes & 0b1101])


@quick
@given(sizes, seeds, st.data())
def test_interactions_by_hand_and_their_sums(M, seed, data):
    order = data.draw(st.integers(1, M))
    lattice, v = lattice_of(M), random_game(M, seed)
    codes, sii = lattice.interactions(v, order)
    assert codes.tolist() == [code for code in lattice.subsets if code.bit_count() <= order]
    assert torch.allclose(sii[:M], lattice.shapley(v))
    for S, value in zip(codes.tolist(), sii.tolist()):  # the definition, by discrete derivatives
        s, expected = S.bit_count(), 0.0
        inner = [L for L in range(2**M) if L & S == L]
        for T in (T for T in range(2**M) if T & S == 0):
            weight = 1 / ((M - s + 1) * math.comb(M - s, T.bit_count()))
            expected += weight * sum((-1) ** (s - L.bit_count()) * float(v[T | L]) for L in inner)
        assert value == pytest.approx(expected, abs=1e-9)
    for index in ("STII", "k-SII"):
        assert torch.isclose(lattice.interactions(v, order, index)[1].sum(), v[-1] - v[0])
    assert torch.equal(lattice.interactions(v, order, "moebius")[1], lattice.moebius(v)[codes])


@pytest.mark.parametrize("index", ["STII", "k-SII"])
def test_interactions_of_every_order_at_twelve(index):
    lattice, v = lattice_of(12), random_game(12, 0)
    codes, values = lattice.interactions(v, 12, index)
    assert len(codes) == 2**12 - 1
    assert torch.allclose(values, lattice.moebius(v)[codes], atol=1e-8)  # of full order, both are Moebius


# ---------------------------------------------------------------------- cooperation


def test_cooperation_by_hand():
    lattice = Lattice(NAMES)
    v = torch.tensor([0.5, 0.6, 0.7, 0.9, 0.5, 0.6, 0.4, 1.0], dtype=torch.float64)  # f: .1 .2 .4 0 .1 -.1 .5
    synergy = torch.tensor([0, 0, 0, 0.1, 0, 0, -0.3, 0.2], dtype=torch.float64)
    assert torch.allclose(lattice.cooperation(v, "none"), synergy)
    assert torch.allclose(lattice.cooperation(v), synergy / 0.5)
    own = torch.tensor([0, 0, 0, 0.25, 0, 0, 3, 0.4], dtype=torch.float64)
    assert torch.allclose(lattice.cooperation(v, "self", "raw"), own)  # f < 0: a loss reads as C = 3
    own[6] = torch.nan
    assert torch.allclose(lattice.cooperation(v, "self"), own, equal_nan=True)
    assert lattice.cooperation(v, "self", minimum=0.45).isnan().tolist() == [False] * 3 + [True] + [
        False,
        True,
        True,
        False,
    ]
    worse = v.clone()
    worse[7] = 0.5  # all together no better than nothing
    assert lattice.cooperation(worse).isnan().tolist() == [code in (3, 5, 6, 7) for code in range(8)]


@quick
@given(sizes, seeds)
def test_cooperation_of_one_is_zero_and_of_two_is_moebius(M, seed):
    lattice, v = lattice_of(M), random_game(M, seed)
    small = lattice.size(lattice.codes) <= 1
    for normalise in ("full", "self", "none"):
        for on_negative in ("nan", "raw"):
            assert (lattice.cooperation(v, normalise, on_negative)[small] == 0).all()
    assert (lattice.cooperation(torch.ones(2**M), "self", "raw")[small] == 0).all()  # not 0 / 0
    pairs = lattice.size(lattice.codes) == 2
    assert torch.allclose(lattice.cooperation(v, "none")[pairs], lattice.moebius(v)[pairs])


def test_cooperation_gradient_survives_a_worthless_modality():
    lattice, v = Lattice(["a", "b"]), torch.tensor([0.0, 0.0, 0.5, 1.0], requires_grad=True)
    lattice.cooperation(v, "self", "raw").sum().backward()
    assert torch.isfinite(v.grad).all()


# ---------------------------------------------------------------------- arrays


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numpy_in_numpy_out(dtype):
    lattice, present = lattice_of(3), random_presence(3, 0, 5)
    v = random_game(3, 0, 5).to(getattr(torch, dtype))
    array = v.numpy().copy()
    array.flags.writeable = False
    for name in ("shapley", "moebius", "from_moebius", "cooperation"):
        out, expected = getattr(lattice, name)(array), getattr(lattice, name)(v)
        assert isinstance(out, np.ndarray)
        assert out.dtype == dtype
        assert expected.dtype == v.dtype
        assert np.array_equal(out, expected.numpy(), equal_nan=True)
    assert np.array_equal(lattice.shapley(array, present.numpy()), lattice.shapley(v, present).numpy())
    codes, values = lattice.interactions(array, 2)
    assert isinstance(codes, np.ndarray)
    assert values.dtype == dtype
    assert np.allclose(lattice.shapley(array[::-1]), lattice.shapley(v).numpy()[::-1])
    assert np.array_equal(array, v.numpy())  # untouched


def test_scores_may_be_booleans_or_counts():
    lattice = lattice_of(2)
    hits = torch.tensor([False, True, False, True])
    assert lattice.shapley(hits).dtype == torch.float32
    assert torch.allclose(lattice.shapley(hits), torch.tensor([1.0, 0.0]), atol=1e-12)
    assert lattice.shapley(np.array([0, 1, 0, 3])).tolist() == pytest.approx([2, 1])


# ---------------------------------------------------------------------- errors, word for word


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda L: L.index("imagee"), DataError, "unknown modality 'imagee'. Did you mean 'image'?"),
        (lambda L: L.index(["image", "xyz"]), DataError, "unknown modality 'xyz'. Known: 'image', 'audio', 'text'."),
        (lambda L: L.index(8), DataError, "subset code 8 is not in 0..7 (3 modalities)."),
        (lambda L: L.label(-1), DataError, "subset code -1 is not in 0..7 (3 modalities)."),
        (lambda L: Lattice([]), DataError, "a lattice needs 1 to 63 modalities, got 0."),
        (lambda L: lattice_of(64), DataError, "a lattice needs 1 to 63 modalities, got 64."),
        (
            lambda L: Lattice("a+b"),
            DataError,
            "a modality name is a non-empty string without '+', not 'none'; got 'a+b'.",
        ),
        (
            lambda L: Lattice(["a", ""]),
            DataError,
            "a modality name is a non-empty string without '+', not 'none'; got ''.",
        ),
        (lambda L: Lattice([0]), DataError, "a modality name is a non-empty string without '+', not 'none'; got 0."),
        (lambda L: Lattice(["a", "b", "a"]), DataError, "the modality name 'a' occurs more than once."),
        (
            lambda L: lattice_of(13).codes,
            DataError,
            "13 modalities have 2^13 subsets; tables over all of them stop at M = 12. Draw subsets instead: "
            "Lattice.sample_pairs to train, lacunar.sampling.sample_shapley for Shapley values.",
        ),
        (
            lambda L: L.shapley(torch.zeros(4, 7)),
            DataError,
            "values must have shape (..., 8), one per subset of 3 modalities, the empty set first; got (4, 7).",
        ),
        (
            lambda L: L.feasible(torch.ones(2, 3)),
            DataError,
            "present must be boolean (True means observed), got torch.float32.",
        ),
        (
            lambda L: L.shapley(torch.zeros(2, 8), torch.ones(2, 4, dtype=torch.bool)),
            DataError,
            "present must have shape (..., 3), got (2, 4).",
        ),
        (lambda L: L.pairs(torch.ones(3, dtype=torch.bool)), DataError, "present must have shape (B, 3), got (3,)."),
        (
            lambda L: L.sample_pairs(torch.ones(2, 3, dtype=torch.bool), 1),
            ConfigError,
            "budget must be at least 2 subsets per row (the full set and another), got 1.",
        ),
        (
            lambda L: L.interactions(torch.zeros(8), 4),
            ConfigError,
            "order must be in 1..3 (the number of modalities), got 4.",
        ),
        (
            lambda L: L.interactions(torch.zeros(8), 2, "SSII"),
            ConfigError,
            "unknown index 'SSII'. Did you mean 'SII'?",
        ),
        (
            lambda L: L.cooperation(torch.zeros(8), "fulll"),
            ConfigError,
            "unknown normalise 'fulll'. Did you mean 'full'?",
        ),
        (
            lambda L: L.cooperation(torch.zeros(8), "full", "zero"),
            ConfigError,
            "unknown on_negative 'zero'. Known: 'nan', 'raw'.",
        ),
    ],
)
def test_errors(act, error, message):
    with pytest.raises(error) as caught:
        act(Lattice(NAMES))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "method", ["subsets", "pairs", "feasible", "shapley", "moebius", "interactions", "cooperation"]
)
def test_nothing_makes_a_table_above_twelve(method):
    lattice = lattice_of(40)
    argument = torch.ones(1, 40, dtype=torch.bool) if method in ("pairs", "feasible") else torch.zeros(8)
    with pytest.raises(DataError, match="stop at M = 12"):
        lattice.subsets if method == "subsets" else getattr(lattice, method)(argument)
