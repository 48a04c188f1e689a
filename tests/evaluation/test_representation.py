"""Table 7's metrics by hand and by what they must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score
from tests.helpers import small_model, vectors

from lacunar.errors import DataError
from lacunar.evaluation import representation_metrics, representation_quality
from lacunar.evaluation.representation import fused_features
from lacunar.tasks import Regression

DISTANCES = ["intra", "inter", "ratio", "fisher", "silhouette"]


def test_two_classes_of_two_points():
    z = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 6.0]])
    found = representation_metrics(z, [0, 0, 1, 1])
    # Means (2, 0) and (0, 4): distances 1, 1 and 2, 2; the means are sqrt(20) apart.
    assert found["intra"] == pytest.approx(1.5)
    assert found["inter"] == pytest.approx(np.sqrt(20))
    assert found["ratio"] == pytest.approx(1.5 / np.sqrt(20))
    assert found["cosine"] == pytest.approx(1)
    assert found["cosine_pairs"] == pytest.approx(1)
    # On the circle both classes are single points, a quarter turn apart.
    assert found["intra_unit"] == pytest.approx(0)
    assert found["inter_unit"] == pytest.approx(np.sqrt(2))
    # Mean of all: (1, 2); between 4 * (1 + 4), within 1 + 1 + 4 + 4.
    assert found["fisher"] == pytest.approx(20 / 10)
    assert found["norm"] == pytest.approx(3)
    assert found["silhouette"] == pytest.approx(silhouette_score(z, [0, 0, 1, 1]))
    turned = representation_metrics(np.array([[1.0, 0.0], [0.0, 1.0]]), ["a", "a"])
    assert turned["cosine"] == pytest.approx(np.sqrt(0.5))
    assert turned["cosine_pairs"] == pytest.approx(0)
    assert np.isnan(turned["inter"])


def test_what_the_metrics_do_not_depend_on():
    draw = np.random.default_rng(0)
    labels = np.arange(60) % 3
    z = draw.normal(size=(60, 5)) + 2 * draw.normal(size=(3, 5))[labels]
    plain = representation_metrics(z, labels)
    rotation = np.linalg.qr(draw.normal(size=(5, 5)))[0]
    moved = representation_metrics(z @ rotation + 7, labels)
    for name in DISTANCES:
        assert moved[name] == pytest.approx(plain[name]), name
    scaled = representation_metrics(5 * z, labels)
    for name in plain:
        factor = 5 if name in ("intra", "inter", "norm") else 1
        assert scaled[name] == pytest.approx(factor * plain[name]), name


def test_classes_of_one_sample_have_no_pairs():
    z = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    found = representation_metrics(z, [0, 0, 1])
    assert found["cosine_pairs"] == pytest.approx(np.sqrt(0.5))
    assert np.isnan(representation_metrics(z, [0, 1, 2])["cosine_pairs"])
    with pytest.raises(DataError, match="finite"):
        representation_metrics([[np.nan]], [0])
    with pytest.raises(DataError, match=r"\(N, F\)"):
        representation_metrics(z, [0, 1])


def test_every_condition_of_a_model():
    data = vectors(M=3, n=90)
    model = small_model(data)
    frame = representation_quality(model, data)
    assert list(frame.index) == ["all", *(data.lattice.label(code) for code in data.lattice.subsets)]
    assert frame.loc["all", "n"] == frame["n"].iloc[1:].sum()
    rows, _, fused = fused_features(model, data, [data.lattice.index("m1")], memory=0.001)
    alone = data.select(rows)
    with torch.no_grad():
        expected = model.decode(
            model.encode(alone[0].hide(["m1"])), data.lattice.pairs(torch.tensor([[0, 1, 0]]).bool())
        )
    torch.testing.assert_close(fused[0], expected.fused[0])
    assert frame.loc["m1", "intra"] == pytest.approx(representation_metrics(fused, alone.target)["intra"])
    assert list(representation_quality(model, data, ["m0", ["m0", "m1"]]).index) == ["all", "m0", "m0+m1"]
    numbers = data.with_task(Regression(), data.target.float())
    with pytest.raises(DataError, match="one class per sample"):
        representation_quality(small_model(numbers), numbers)
