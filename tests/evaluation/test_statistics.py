"""Intervals: against scipy, by coverage, and by what pairing and grouping do to them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lacunar.errors import ConfigError, DataError
from lacunar.evaluation.statistics import (
    bootstrap_means,
    paired_difference,
    percentile_interval,
    resample_counts,
    seed_interval,
)


def test_every_resample_draws_as_many_samples_as_there_are():
    blocks = list(resample_counts(50, 30, seed=3, block=500))
    assert [len(block) for block in blocks] == [10, 10, 10]
    assert (np.concatenate(blocks).sum(axis=1) == 50).all()
    groups = np.repeat([0, 1, 2, 3, 4], 10)
    grouped = np.concatenate(list(resample_counts(50, 30, seed=3, groups=groups)))
    assert (grouped.reshape(30, 5, 10) == grouped.reshape(30, 5, 10)[:, :, :1]).all()
    assert (grouped.reshape(30, 5, 10)[:, :, 0].sum(axis=1) == 5).all()


def test_bootstrap_means_leave_unknown_entries_out():
    values = np.array([[1.0, 2.0], [1.0, np.nan], [1.0, 2.0], [1.0, np.nan]])
    draws = bootstrap_means(values, 200, seed=0)
    assert (draws[:, 0] == 1).all()
    known = np.isfinite(draws[:, 1])
    assert (draws[known, 1] == 2).all()
    assert 0 < (~known).sum() < 40  # nobody drawn: 1 in 16
    low, high = percentile_interval(np.column_stack([draws, np.full(200, np.nan)]))
    assert low[:2].tolist() == high[:2].tolist() == [1, 2]
    assert np.isnan(low[2])


def test_the_interval_agrees_with_scipy():
    scores = np.random.default_rng(0).random(80)
    low, high = percentile_interval(bootstrap_means(scores[:, None], 4000, seed=1))
    expected = stats.bootstrap((scores,), np.mean, method="percentile", n_resamples=4000, rng=2).confidence_interval
    assert low[0] == pytest.approx(expected.low, abs=0.006)
    assert high[0] == pytest.approx(expected.high, abs=0.006)


@pytest.mark.parametrize("method", ["samples", "t", "bootstrap"])
def test_the_truth_is_covered_as_often_as_promised(method):
    generator, hits, trials = np.random.default_rng(5), 0, 200
    for trial in range(trials):
        a = generator.random(60) < 0.8
        b = generator.random(60) < 0.6
        if method == "samples":
            found = paired_difference(a, b, confidence=0.9, resamples=400, seed=trial)
        else:
            found = seed_interval(a, b, confidence=0.9, method=method, resamples=400, seed=trial)
        hits += found.low <= 0.2 <= found.high
    assert 0.83 * trials <= hits <= 0.96 * trials


def test_the_t_interval_is_the_paired_t_test():
    a, b = np.array([0.81, 0.79, 0.84, 0.80, 0.83]), np.array([0.78, 0.79, 0.80, 0.77, 0.79])
    found, expected = seed_interval(a, b), stats.ttest_rel(a, b)
    assert found.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.clear
    assert "+0.0280" in str(found)
    assert np.isnan(seed_interval([0.5]).low)
    assert seed_interval([0.5, 0.7]).value == pytest.approx(0.6)


def test_pairing_narrows_and_grouping_widens():
    generator = np.random.default_rng(0)
    hard = generator.random(300)
    a, b = hard + 0.05, hard + generator.normal(0, 0.02, 300)
    paired = paired_difference(a, b)
    broken = paired_difference(a, generator.permutation(b))
    assert paired.high - paired.low < 0.2 * (broken.high - broken.low)
    groups = np.arange(300) // 30
    shared = np.repeat(generator.normal(0, 1, 10), 30)
    alone = paired_difference(shared, np.zeros(300))
    together = paired_difference(shared, np.zeros(300), groups=groups)
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_seeds_and_samples_are_resampled_together():
    generator = np.random.default_rng(1)
    seeds, samples = generator.normal(0, 0.1, (8, 1)), generator.normal(0, 0.1, (1, 200))
    found = paired_difference(0.3 + seeds + samples, np.zeros((8, 200)))
    pooled = paired_difference((0.3 + seeds + samples).mean(0), np.zeros(200))
    assert found.value == pytest.approx(pooled.value)
    assert found.high - found.low > 2 * (pooled.high - pooled.low)


def test_bad_input():
    with pytest.raises(DataError, match="one shape"):
        paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(DataError, match="at least one pair"):
        paired_difference([np.nan], [1.0])
    with pytest.raises(ConfigError, match="confidence"):
        paired_difference([1.0], [0.0], confidence=95)
    with pytest.raises(ConfigError, match="method"):
        seed_interval([1.0, 2.0], method="z")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="one result per seed"):
        seed_interval([], [])
