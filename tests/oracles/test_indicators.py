"""Pairwise indicators against shapiq, an independent implementation of the same indices."""

import numpy as np
import pytest

from lacunar.lattice import Lattice
from lacunar.planning.indicators import get

shapiq = pytest.importorskip("shapiq")


@pytest.mark.parametrize("M", [2, 3, 5])
@pytest.mark.parametrize(("name", "index"), [("interaction", "SII"), ("banzhaf", "BII")])
def test_pairs_against_shapiq(M, name, index):
    values = np.random.default_rng(M).normal(size=2**M)
    computer = shapiq.ExactComputer(lambda rows: values[np.asarray(rows).astype(int) @ (1 << np.arange(M))], M)
    theirs = computer(index, 2).dict_values
    ours = get(name).function(values, Lattice([f"m{m}" for m in range(M)]))
    for code in range(2**M):
        members = tuple(m for m in range(M) if code >> m & 1)
        if len(members) == 2:
            assert ours[code] == pytest.approx(theirs[members])
        else:
            assert np.isnan(ours[code])
