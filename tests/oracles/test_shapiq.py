"""The lattice against shapiq, an independent implementation of the same indices."""

import numpy as np
import pytest

from lacunar.lattice import Lattice
from lacunar.sampling import sample_shapley

shapiq = pytest.importorskip("shapiq")


def exact_computer(values, M):
    """shapiq's exact computation of a value table: its games take (K, M) rows of membership."""
    return shapiq.ExactComputer(lambda rows: values[np.asarray(rows).astype(int) @ (1 << np.arange(M))], M)


def as_codes(result):
    return {sum(1 << m for m in members): value for members, value in result.dict_values.items() if members}


@pytest.mark.parametrize("M", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("seed", [0, 1])
def test_shapley_values(M, seed):
    values = np.random.default_rng(seed).normal(size=2**M)
    theirs = as_codes(exact_computer(values, M)("SV", 1))
    expected = [theirs[1 << m] for m in range(M)]
    assert Lattice([f"m{m}" for m in range(M)]).shapley(values) == pytest.approx(expected)
    assert sample_shapley(lambda codes: values[codes.numpy()], M).values == pytest.approx(expected)


@pytest.mark.parametrize("index", ["SII", "STII", "k-SII"])
@pytest.mark.parametrize(("M", "order"), [(2, 2), (3, 1), (3, 2), (4, 3), (5, 2), (5, 5), (6, 4)])
def test_interactions(index, M, order):
    values = np.random.default_rng(M + order).normal(size=2**M)
    theirs = as_codes(exact_computer(values, M)(index, order))
    codes, ours = Lattice([f"m{m}" for m in range(M)]).interactions(values, order, index)
    assert set(codes.tolist()) == set(theirs)
    assert ours == pytest.approx([theirs[code] for code in codes.tolist()])


@pytest.mark.parametrize("M", [1, 3, 6])
def test_moebius(M):
    values = np.random.default_rng(M).normal(size=2**M)
    theirs = as_codes(exact_computer(values, M)("Moebius", M))
    ours = Lattice([f"m{m}" for m in range(M)]).moebius(values)
    assert ours[0] == values[0]
    assert ours[1:] == pytest.approx([theirs[code] for code in range(1, 2**M)])
