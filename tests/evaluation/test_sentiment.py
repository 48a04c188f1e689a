"""Sentiment metrics: hand-made vectors, one line a convention, and the constant predictor beside them."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch

from lacunar.errors import DataError
from lacunar.evaluation.sentiment import SENTIMENT_METRICS, sentiment_metrics

TRUTH = [-3.0, -1.0, 0.0, 0.0, 0.4, 2.6]
SAID = [-2.6, 0.2, 0.0, -0.1, 1.0, 5.0]

#: Worked out by hand: targets, predictions, metric, value.
TABLE = [
    # rounded and cut: -3 -3, -1 0, 0 0, 0 -0, 0 1, 3 3
    (TRUTH, SAID, "acc7", 4 / 6),
    # rounded and cut to 2: -2 -2, -1 0, 0 0, 0 -0, 0 1, 2 2
    (TRUTH, SAID, "acc5", 4 / 6),
    # the zeros are out: - -, - +, + +, + +
    (TRUTH, SAID, "acc2_non0", 3 / 4),
    # of the same four: negative F1 2/3 (precision 1, recall 1/2), positive 4/5 (precision 2/3, recall 1), two each
    (TRUTH, SAID, "f1_non0", (2 / 3 + 4 / 5) / 2),
    # at least 0: no no, no yes, yes yes, yes no, yes yes, yes yes
    (TRUTH, SAID, "acc2_ge0", 4 / 6),
    # above 0: no no, no yes, no no, no no, yes yes, yes yes
    (TRUTH, SAID, "acc2_gt0", 5 / 6),
    (TRUTH, SAID, "mae", (0.4 + 1.2 + 0.0 + 0.1 + 0.6 + 2.4) / 6),
    ([-1.0, 0.0, 1.0], [0.0, 1.0, 5.0], "corr", 5 / np.sqrt(2 * 14)),
    # halves go to the even neighbour
    ([0.0, 2.0, 2.0, -2.0], [0.5, 1.5, 2.5, -2.5], "acc7", 1.0),
    ([1.0, 2.0, 3.0, -3.0], [0.5, 1.5, 2.5, -2.5], "acc7", 0.25),
    # beyond 2 all is one class of acc5, and two of acc7
    ([3.0, 2.0, -3.0], [2.0, 3.0, -2.0], "acc5", 1.0),
    ([3.0, 2.0, -3.0], [2.0, 3.0, -2.0], "acc7", 0.0),
    # a prediction of exactly 0 is not positive, and is at least 0
    ([1.0, -1.0], [0.0, 0.0], "acc2_non0", 0.5),
    ([1.0, 2.0], [0.0, 0.0], "acc2_non0", 0.0),
    ([1.0, 2.0], [0.0, 0.0], "acc2_ge0", 1.0),
    ([1.0, 2.0], [0.0, 0.0], "acc2_gt0", 0.0),
    # weighted by the targets, not by the predictions: F1 of + is 6/7 (3 of 4), of - 0
    ([1.0, 1.0, 1.0, -1.0], [1.0, 1.0, 1.0, 1.0], "f1_non0", 0.75 * 6 / 7),
]  # fmt: skip


@pytest.mark.parametrize(("truth", "said", "metric", "value"), TABLE)
def test_table_of_hand_made_vectors(truth, said, metric, value):
    frame = sentiment_metrics(truth, said, constant=0.0)
    assert frame.loc[metric, "value"] == pytest.approx(value)
    tensors = sentiment_metrics(torch.tensor(truth)[:, None], torch.tensor(said), constant=0.0)
    assert tensors.loc[metric, "value"] == pytest.approx(value)


def test_targets_come_first():
    unequal = [1.0, 1.0, 1.0, -1.0], [1.0, -1.0, -1.0, -1.0]
    one = sentiment_metrics(*unequal, constant=0.0).loc["f1_non0", "value"]
    other = sentiment_metrics(*unequal[::-1], constant=0.0).loc["f1_non0", "value"]
    assert one == pytest.approx(0.75 * 0.5 + 0.25 * 0.5)
    assert other == pytest.approx(0.25 * 0.5 + 0.75 * 0.5)
    skewed = [1.0, 1.0, 1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0, -1.0]
    one = sentiment_metrics(*skewed, constant=0.0).loc["f1_non0", "value"]
    assert one == pytest.approx(0.8 * 2 / 3 + 0.2 * 0.5)
    assert sentiment_metrics(*skewed[::-1], constant=0.0).loc["f1_non0", "value"] != pytest.approx(one)


def test_constant_predictor_follows_each_convention():
    train = [-2.0, -2.2, -0.4, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0]
    truth = [-2.0, 0.0, 0.3, 1.0]
    found = sentiment_metrics(truth, [0.0, 0.0, 0.0, 0.0], constant=train)["constant predictor"]
    assert found["acc7"] == pytest.approx(2 / 4)  # class 0, the most frequent of train
    assert found["acc2_non0"] == pytest.approx(1 / 3)  # three positive, three negative: the first, 0, is not positive
    assert found["acc2_ge0"] == pytest.approx(3 / 4)
    assert found["acc2_gt0"] == pytest.approx(2 / 4)  # train has more that are not above 0
    assert found["mae"] == pytest.approx((2.0 + 0.0 + 0.3 + 1.0) / 4)  # the median
    assert found["corr"] == 0
    given = sentiment_metrics(truth, [0.0, 0.0, 0.0, 0.0], constant=1.0)["constant predictor"]
    assert given["mae"] == pytest.approx((3.0 + 1.0 + 0.7 + 0.0) / 4)
    assert given["acc2_gt0"] == pytest.approx(2 / 4)


@pytest.mark.parametrize("metric", ["acc7", "acc5", "acc2_non0", "f1_non0", "acc2_ge0", "acc2_gt0", "mae"])
def test_no_other_constant_does_better_on_train(metric):
    draw = np.random.default_rng(0)
    sign = -1 if metric == "mae" else 1
    for _ in range(5):
        train = draw.uniform(-3, 3, 41).round(1)
        best = sentiment_metrics(train, train, constant=train).loc[metric, "constant predictor"]
        every = [SENTIMENT_METRICS[metric](train, np.full(41, value)) for value in np.linspace(-3, 3, 61)]
        assert sign * best >= max(sign * value for value in every) - 1e-12


def test_constants_have_no_correlation_and_say_so(caplog):
    with caplog.at_level(logging.WARNING):
        frame = sentiment_metrics([0.1, 0.2, 0.3], [0.1, 0.1, 0.1], constant=0.0)
    assert frame.loc["corr", "value"] == 0
    assert "the predictions are constant" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        frame = sentiment_metrics([0.0, 0.0], [1.0, 2.0], constant=0.0)
    assert frame.loc["corr", "value"] == 0
    assert np.isnan(frame.loc[["acc2_non0", "f1_non0"]].to_numpy()).all()
    assert "the targets are constant" in caplog.text
    assert "every target is 0" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        sentiment_metrics(TRUTH, SAID, constant=TRUTH)
    assert not caplog.text


def test_frame():
    frame = sentiment_metrics(TRUTH, SAID, constant=TRUTH)
    assert isinstance(frame, pd.DataFrame)
    assert frame.index.name == "metric"
    assert list(frame.index) == ["acc7", "acc5", "acc2_non0", "f1_non0", "acc2_ge0", "acc2_gt0", "mae", "corr"]
    assert list(frame.columns) == ["value", "constant predictor"]


@pytest.mark.parametrize(
    ("truth", "said", "constant", "message"),
    [
        ([], [], 0.0, "target: expected one number for each sample, got shape \\(0,\\)"),
        ([1.0], [1.0, 2.0], 0.0, "1 targets, but 2 predictions"),
        ([1.0, np.nan], [1.0, 2.0], 0.0, "target, row 1: expected a finite number, got nan \\(1 such rows\\)"),
        ([1.0, 2.0], [np.inf, 2.0], 0.0, "prediction, row 0: expected a finite number, got inf"),
        ([1.0, 4.0], [1.0, 2.0], 0.0, "target, row 1: expected numbers from -3 to 3, got 4 .*that scale"),
        ([1.0, 2.0], [1.0, 2.0], [1.0, 60.0], "constant, row 1: expected numbers from -3 to 3, got 60"),
        ([1.0, 2.0], [1.0, 2.0], [], "constant: expected one number for each sample"),
        ([1.0, 2.0], [1.0, 2.0], np.nan, "constant, row 0: expected a finite number"),
        (["good", "bad"], [1.0, 2.0], 0.0, "target: expected numbers, got an array of <U4"),
        ([[1.0, 2.0]], [[1.0, 2.0]], 0.0, "target: expected one number for each sample, got shape \\(1, 2\\)"),
    ],
)
def test_bad_input(truth, said, constant, message):
    with pytest.raises(DataError, match=message):
        sentiment_metrics(truth, said, constant=constant)
