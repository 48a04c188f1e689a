"""Ranks and paired tests against independent implementations and against what is known by construction."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lacunar.bench.statistics import compare, holm, pivot, ranks, record, wilcoxon
from lacunar.bench.tables import comparison
from lacunar.errors import ConfigError, DataError


def results(problems=8, seeds=3, methods=("a", "b", "c"), settings=1, seed=0, shift=0.05, noise=0.01):
    """Method k is better by k shifts; problems differ, seeds differ less."""
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(problems):
        level = draw.normal(0.5, 0.1)
        for setting in range(settings):
            for s in range(seeds):
                for k, method in enumerate(methods):
                    rows.append(
                        {
                            "problem": f"p{number} ({setting})", "data": f"p{number}", "seed": s, "method": method,
                            "mean": level + shift * k + draw.normal(0, noise), "presence": f"{number}-{setting}-{s}",
                        }
                    )  # fmt: skip
    return pd.DataFrame(rows)


def test_holm_by_hand():
    # Sorted: .01 x 4, .02 x 3, .03 x 2 = .06 (not below .06), .5 x 1.
    found = holm([0.02, 0.5, 0.01, np.nan, 0.03])
    np.testing.assert_allclose(found, [0.06, 0.5, 0.04, np.nan, 0.06])
    assert holm([0.9, 0.8]).max() == 1.0


def test_friedman_and_ranks_agree_with_scipy():
    scores = pivot(results(problems=12, shift=0.004))
    by_problem = scores.groupby(level="problem", sort=False).mean()
    found = ranks(scores)
    chi = stats.friedmanchisquare(*(by_problem[name] for name in by_problem)).statistic
    n, k = by_problem.shape
    f = (n - 1) * chi / (n * (k - 1) - chi)
    assert found.p == pytest.approx(stats.f.sf(f, k - 1, (k - 1) * (n - 1)))
    expected = by_problem.apply(lambda row: stats.rankdata(-row), axis=1, result_type="expand").mean()
    np.testing.assert_allclose(found.average[list(by_problem)].to_numpy(), expected.to_numpy())
    assert (found.blocks, found.over) == (12, "data sets")


def test_nemenyi_has_the_critical_values_of_the_literature():
    # Demsar 2006, Table 5: q at .05 for 4 classifiers is 2.569; CD for 14 data sets 1.25.
    found = ranks(pivot(results(problems=14, methods=("a", "b", "c", "d"))))
    assert found.critical == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=2e-3)
    assert found.critical == pytest.approx(1.25, abs=5e-3)


def test_groups_join_what_cannot_be_told_apart():
    apart = ranks(pivot(results(problems=40, shift=0.2)))
    assert list(apart.average.index) == ["c", "b", "a"]
    assert apart.groups() == []
    same = ranks(pivot(results(problems=10, shift=0.0)))
    assert same.groups() == [tuple(same.average.index)]
    assert same.p > 0.01 > apart.p


def test_ranks_leave_out_methods_that_lack_problems():
    frame = results(problems=10)
    frame = frame[~((frame["method"] == "b") & frame["data"].isin(["p0", "p1", "p2"]))]
    found = ranks(pivot(frame))
    assert found.left_out == ("b",)
    assert found.blocks == 10
    less = frame[~((frame["method"] == "c") & (frame["data"] == "p9"))]
    assert ranks(pivot(less)).blocks == 9
    with pytest.raises(DataError, match="at least 2 methods and 2 data sets"):
        ranks(pivot(frame[frame["method"] == "a"]))


def test_differences_are_paired():
    frame = compare(pivot(results()), "a")
    assert frame["method"].tolist() == ["b", "c"]
    # Problems differ by .1, which would hide a shift of .05 if it were not paired.
    assert (frame["low"] > 0).all()
    np.testing.assert_allclose(frame["difference"], [0.05, 0.1], atol=0.01)
    assert (frame["better"] == 8).all()
    assert (frame["worse"] == 0).all()
    assert (frame["p_holm"] >= frame["p"]).all()
    # The exact two-sided p value of 8 differences of one sign.
    np.testing.assert_allclose(frame["p"], 2 / 2**8)
    pairs = compare(pivot(results()))
    assert len(pairs) == 3
    with pytest.raises(ConfigError, match="expected one of a, b, c, got 'z'"):
        compare(pivot(results()), "z")


def test_intervals_cover_what_they_should():
    """Under no difference some 5 % of the intervals leave zero out: problems vary more than seeds within them."""
    clear = 0
    for seed in range(100):
        draw = np.random.default_rng(seed)
        frame = results(problems=12, methods=("a", "b"), shift=0.0, seed=seed)
        effect = {f"p{number}": draw.normal(0, 0.05) for number in range(12)}
        frame.loc[frame["method"] == "b", "mean"] += frame["data"].map(effect)
        row = compare(pivot(frame), "a", resamples=400).iloc[0]
        clear += row["low"] > 0 or row["high"] < 0
    assert 0.01 <= clear / 100 <= 0.15


def test_settings_of_one_data_set_are_not_independent():
    """Six settings that share an effect are worth one data set: neither interval nor p may shrink with their number."""
    frame = results(problems=6, methods=("a", "b"), settings=6, shift=0.0, noise=1e-4)
    effect = dict(zip([f"p{number}" for number in range(6)], [-0.06, -0.02, 0.0, 0.02, 0.05, 0.07]))
    frame.loc[frame["method"] == "b", "mean"] += frame["data"].map(effect)
    row = compare(pivot(frame), "a").iloc[0]
    one = compare(pivot(frame[frame["problem"].str.endswith("(0)")]), "a").iloc[0]
    assert row["high"] - row["low"] == pytest.approx(one["high"] - one["low"], rel=0.1)
    assert row["low"] < 0 < row["high"]
    assert row["p"] == one["p"]
    assert (row["units"], row["over"]) == (6, "data sets")
    assert ranks(pivot(frame)).critical == ranks(pivot(frame[frame["problem"].str.endswith("(0)")])).critical


def test_seeds_of_one_data_set_have_students_interval():
    """A bootstrap over three seeds would leave zero out in a third of all cases, not in a twentieth."""
    clear = 0
    for seed in range(100):
        frame = pivot(results(problems=1, methods=("a", "b"), settings=2, shift=0.0, seed=seed))
        row = compare(frame, "a").iloc[0]
        clear += row["low"] > 0 or row["high"] < 0
    assert clear <= 12
    gap = (frame["b"] - frame["a"]).groupby(level="seed").mean()
    expected = stats.ttest_1samp(gap, 0).confidence_interval(0.95)
    np.testing.assert_allclose([row["low"], row["high"]], list(expected))
    assert (row["units"], row["over"], row["problems"]) == (3, "seeds", 2)
    # A seed that lacks one of the problems is of other problems than the rest.
    lacking = compare(frame.drop(("p0", "p0 (1)", 2)), "a").iloc[0]
    assert lacking["units"] == 2
    reach = (lacking["high"] - lacking["low"]) / 2
    assert reach == pytest.approx(stats.t.ppf(0.975, 1) * gap[[0, 1]].std(ddof=1) / 2**0.5)


def test_one_seed_of_one_data_set_has_no_interval():
    row = compare(pivot(results(problems=1, seeds=1)), "a").iloc[0]
    assert np.isnan([row["low"], row["high"]]).all()
    assert row["clearly_better"] == 0


def test_few_problems_take_seeds_as_units():
    row = compare(pivot(results(problems=2, seeds=5)), "a").iloc[0]
    assert (row["units"], row["over"], row["problems"]) == (10, "problems and seeds", 2)


@pytest.mark.parametrize("kind", ["no ties", "ties", "zeros"])
def test_the_signed_rank_test_is_exact(kind):
    draw = np.random.default_rng(3)
    for n in (6, 9):
        values = draw.normal(0.4, 1, n)
        if kind != "no ties":
            values = np.round(2 * values) / 2 + (kind == "ties") * 0.25
        nonzero = values[values != 0]
        rank = stats.rankdata(np.abs(values))[values != 0]
        signs = np.array(np.meshgrid(*[[0, 1]] * len(nonzero))).reshape(len(nonzero), -1)
        sums, own = rank @ signs, rank[nonzero > 0].sum()
        expected = min(1.0, 2 * min((sums <= own + 1e-9).mean(), (sums >= own - 1e-9).mean()))
        assert wilcoxon(values) == pytest.approx(expected)
        if kind == "no ties":
            assert wilcoxon(values) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue)


def test_ties_are_ties():
    assert wilcoxon(np.zeros(8)) == 1.0
    frame = results(methods=("a", "b"))
    frame["mean"] = 1 / 3
    scores = pivot(frame)
    assert record(scores).to_numpy().sum() == 0
    assert ranks(scores).average.tolist() == [1.5, 1.5]
    assert ranks(scores).p == 1.0


def test_wins_by_hand():
    wins = record(pivot(results(problems=5, shift=1.0)))
    assert wins.loc["c"].tolist() == [5, 5, 0]
    assert wins.loc["a"].tolist() == [0, 0, 0]


def test_ranks_and_wins_are_over_shared_seeds():
    easy = results(methods=("A", "B"), problems=6, seeds=2)
    easy["mean"] = np.where(easy["method"] == "B", 0.6, np.where(easy["seed"] == 1, 0.9, 0.5))
    frame = easy[(easy["method"] == "A") | (easy["seed"] == 0)]  # B lacks the seed on which A scores .9
    scores = pivot(frame)
    assert ranks(scores).average.to_dict() == {"B": 1.0, "A": 2.0}
    assert record(scores).to_numpy().tolist() == [[0, 0], [6, 0]]
    late = easy[easy["seed"] == 1].replace({"method": {"A": "C", "B": "D"}})  # C and D meet A there, and B nowhere
    wins = record(pivot(pd.concat([frame, late])))
    assert wins.loc["A"].tolist() == [0, 0, 0, 6]
    assert wins.loc["B"].tolist() == [6, 0, 0, 0]


@pytest.mark.parametrize("compared", [pivot, lambda frame: comparison(frame, ["p0 (0)"], "a")])
def test_what_cannot_be_paired_is_refused(compared):
    frame = results()
    frame.loc[0, "presence"] = "other"
    with pytest.raises(DataError, match="different presence tables"):
        compared(frame)
    frame = results().assign(split="one")
    frame.loc[0, "split"] = None  # of an earlier version: nothing to compare
    compared(frame)
    frame.loc[0, "split"] = "other"
    with pytest.raises(DataError, match=r"Problem 'p0 \(0\)', seed 0: methods were run on different splits"):
        compared(frame)
    frame = pd.concat([results(), results().iloc[:1]])
    with pytest.raises(DataError, match="was run with two configurations"):
        compared(frame)


def test_what_differs_by_rounding_alone_is_no_win():
    scores = pd.DataFrame({"a": [0.1, 0.2, 0.6], "b": [0.2, 0.4, 0.3]})
    scores.index = pd.MultiIndex.from_product([["d"], ["d (a)"], range(3)], names=["data", "problem", "seed"])
    assert (scores["a"] - scores["b"]).mean() != 0  # 2e-17
    row = compare(scores, "a").iloc[0]
    assert (row["better"], row["worse"], row["difference"]) == (0, 0, 0.0)
    assert record(scores).to_numpy().sum() == 0
