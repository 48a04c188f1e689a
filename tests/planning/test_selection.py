from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lacunar.errors import ConfigError, DataError
from lacunar.lattice import Lattice
from lacunar.planning.indicators import DegenerateUtilityWarning
from lacunar.planning.selection import cost_benefit, exhaustive, greedy_utility, select
from lacunar.planning.utility_table import UtilityTable

NAMES = ["a", "b", "c"]


def table(function, M=3, sd=None, names=None):
    values = [float(function(frozenset(m for m in range(M) if code >> m & 1))) for code in range(2**M)]
    spread = None if sd is None else np.full(2**M, sd) * (np.arange(2**M) > 0)
    return UtilityTable.of(names or [chr(97 + m) for m in range(M)], values, sd=spread)


XOR = table(lambda s: 0.5 + 0.5 * ({0, 1} <= s), sd=0.01)
ADDITIVE = table(lambda s: 0.3 + sum((0.05, 0.2, 0.1)[m] for m in s), sd=0.001)
#: a is strong, b adds to it, c is half redundant.
SYNERGY = table(
    lambda s: 0.5 + {0: 0, 1: 0.2, 2: 0.05, 4: 0.1, 3: 0.35, 5: 0.25, 6: 0.16, 7: 0.4}[sum(1 << m for m in s)], sd=0.005
)


# ---------------------------------------------------------------- Algorithm 1


def test_first_by_shapley_then_by_cooperation():
    chosen = select(SYNERGY)
    assert chosen.subset == ("a", "b") and chosen.label == "a+b"
    steps = chosen.steps
    assert list(steps["picked"]) == ["a", "b"] and list(steps.index) == [1, 2]
    phi = SYNERGY.lattice.shapley(SYNERGY.mean) / 0.4
    assert steps["score"].iloc[0] == pytest.approx(phi[0])
    assert steps["score"].iloc[1] == pytest.approx(0.1 / 0.35)
    assert steps["runner_up"].tolist() == ["b", "c"]
    assert steps["runner_up_score"].iloc[1] == pytest.approx((0.25 - 0.3) / 0.25)
    assert (
        steps["utility"].tolist() == pytest.approx([0.2, 0.35]) == [pytest.approx(0.2), pytest.approx(chosen.utility)]
    )
    assert chosen.low < chosen.utility < chosen.high
    assert "a+b" in str(chosen) and "selected in the draws" in str(chosen)


def test_xor_is_found_when_the_first_pick_is_one_of_the_two():
    """Shapley gives both a half and the noise nothing; singles are a coin flip between three that gain nothing."""
    chosen = select(XOR)
    assert set(chosen.subset) == {"a", "b"}
    # The paper's divisor, f(S), makes a chance gain of a pair with the noise look like more than all of the XOR.
    assert chosen.probability < 0.9 < 0.99 < select(XOR, normalise="full").probability
    assert any("tie of a, b" in note for note in chosen.notes)
    assert any("tie of a, b, c" in note for note in select(XOR, f1="singleton").notes)
    # With the noise listed first, the singleton rule starts with it and never recovers.
    noise_first = table(lambda s: 0.5 + 0.5 * ({1, 2} <= s), sd=0.01)
    assert select(noise_first, f1="singleton").subset == ("a",)
    assert set(select(noise_first).subset) == {"b", "c"}


def test_nothing_cooperates_in_an_additive_game():
    chosen = select(ADDITIVE, normalise="full", k=3)
    assert chosen.subset[0] == "b"
    exact = table(lambda s: 0.25 * len(s))
    stopped = select(exact, k=3)
    assert stopped.subset == ("a",) and any("stopped at 1 of 3" in note for note in stopped.notes)
    assert select(exact, k=3, stop=False).subset == ("a", "b", "c")


def test_the_forms_of_f2():
    values = np.random.default_rng(0).random(16) * 0.1 + 0.2 * Lattice("abcd").size(np.arange(16))
    given_values = UtilityTable.of(list("abcd"), values)
    gain = values - values[0]
    key = int(np.argmax(given_values.lattice.shapley(values)))
    for f2 in ("cooperation", "increment", "synergy"):
        steps = select(given_values, k=3, f2=f2, stop=False).steps
        first, second, third = (1 << "abcd".index(name) for name in steps["picked"])
        assert first == 1 << key
        two, three = first | second, first | second | third
        cooperation = {s: 1 - sum(gain[1 << m] for m in range(4) if s >> m & 1) / gain[s] for s in (two, three)}
        assert steps["score"].iloc[1] == pytest.approx(cooperation[two])  # all three agree at the second pick
        expected = {
            "cooperation": cooperation[three],
            "increment": cooperation[three] - cooperation[two],
            "synergy": (gain[three] - gain[two] - gain[third]) / gain[three],
        }[f2]
        assert steps["score"].iloc[2] == pytest.approx(expected)


def test_normalisers():
    assert select(SYNERGY, normalise="none").steps["score"].iloc[1] == pytest.approx(0.1)
    assert select(SYNERGY, normalise="full").steps["score"].iloc[1] == pytest.approx(0.1 / 0.4)


#: With a, b loses: a+b is below the baseline, and by more than the singles; c is merely redundant with a.
SPOILER = table(
    lambda s: 0.5 + {0: 0, 1: 0.3, 2: 0.05, 4: 0.1, 3: -0.1, 5: 0.32, 6: 0.12, 7: 0.35}[sum(1 << m for m in s)],
    sd=0.002,
)


def test_a_negative_joint_gain_is_never_picked_unless_asked_for():
    chosen = select(SPOILER, f1="singleton", stop=False)
    assert chosen.subset == ("a", "c")
    assert any("never picked" in note and "a+b" in note for note in chosen.notes)
    raw = select(SPOILER, f1="singleton", on_negative="raw")
    assert raw.subset == ("a", "b") and raw.steps["score"].iloc[1] > 1  # the sign flips, as in the paper's formula


def test_without_anything_to_divide_by_the_order_is_that_of_the_synergy():
    bad = table(lambda s: 0.5 - 0.1 * len(s) - 0.05 * ({0, 1} <= s))
    with pytest.warns(DegenerateUtilityWarning, match="unscaled f1"):
        chosen = select(bad, k=2, stop=False)
    assert chosen.subset == ("c", "a")  # the least bad, then one without the penalty
    assert any("the first pick is the least bad one" in note for note in chosen.notes)
    with pytest.warns(DegenerateUtilityWarning):
        assert select(bad).subset == ("c",)


def test_stability_is_that_of_the_rule_on_every_draw():
    chosen = select(SYNERGY, draws=300)
    assert chosen.stability.sum() == pytest.approx(1) and chosen.stability.is_monotonic_decreasing
    assert chosen.probability == pytest.approx(chosen.stability["a+b"])
    rows = SYNERGY.draws(300, 0)
    again = [set(select(UtilityTable.of(NAMES, row), draws=0).subset) for row in rows[:60]]
    assert np.mean([found == {"a", "b"} for found in again]) == pytest.approx(chosen.probability, abs=0.15)
    noisy = select(table(lambda s: 0.5 + 0.02 * len(s), sd=0.05), k=2, stop=False)
    assert noisy.probability < 0.8 and any("not a clear choice" in note for note in noisy.notes)
    assert select(SYNERGY, seed=1).stability.equals(select(SYNERGY, seed=1).stability)


def test_without_uncertainty_nothing_is_claimed():
    chosen = select(UtilityTable.of(NAMES, SYNERGY.mean))
    assert chosen.subset == ("a", "b") and not len(chosen.stability)
    assert np.isnan(chosen.probability) and np.isnan(chosen.low)
    assert any("no uncertainty" in note for note in chosen.notes)


def test_how_many():
    assert len(select(ADDITIVE, k=1).subset) == 1
    assert len(select(SYNERGY, stop=False).subset) == 2  # one is left to generate
    everything = select(SYNERGY, k=3, stop=False)
    assert len(everything.subset) == 3 and any("nothing is left to generate" in note for note in everything.notes)
    assert select(UtilityTable.of(["a"], [0.5, 0.7])).subset == ("a",)
    for k in (0, 4, -1, 1.5, True, "2"):
        with pytest.raises(ConfigError, match="k: expected (1 to 3|a whole number or None), "):
            select(SYNERGY, k=k)
        with pytest.raises(ConfigError, match="k: expected (1 to 3|a whole number or None), "):
            exhaustive(SYNERGY, k=k)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"f1": "shaply"}, "unknown f1 'shaply'. Did you mean 'shapley'"),
        ({"f2": "cooperate"}, "unknown f2 'cooperate'. Did you mean 'cooperation'"),
        ({"normalise": "slef"}, "unknown normalise 'slef'. Did you mean 'self'"),
        ({"on_negative": "NaN"}, "unknown on_negative 'NaN'"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(ConfigError, match=message):
        select(SYNERGY, **options)


def test_missing_values():
    values = {"none": 0.5, "a": 0.7, "b": 0.55, "c": 0.6, "a+b": 0.85, "a+c": 0.75}
    partial = UtilityTable.of(NAMES, values)
    with pytest.raises(DataError, match="needs every subset; there is no value for b\\+c, a\\+b\\+c"):
        select(partial)
    assert select(partial, f1="singleton").subset == ("a", "b")  # what the rule needs is there
    assert greedy_utility(partial).subset == ("a", "b")
    assert exhaustive(partial).subset == ("a", "b")


def test_another_order_of_the_names_changes_nothing():
    forward = select(SYNERGY, stop=False)
    backward = UtilityTable.of(["c", "b", "a"], {SYNERGY.lattice.label(c): SYNERGY.mean[c] for c in range(8)})
    assert select(backward, stop=False).subset == forward.subset


def test_a_table_of_one_model_is_named():
    masked = UtilityTable(tuple(NAMES), SYNERGY.mean, estimator="masked")
    assert any("ONE trained model" in note for note in select(masked).notes)


# ---------------------------------------------------------------- greedy and exhaustive


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float64, 4, elements=st.integers(1, 100), unique=True), st.integers(1, 4))
def test_greedy_takes_the_largest_weights_of_a_modular_game(weights, k):
    modular = table(lambda s: sum(weights[m] for m in s), M=4)
    expected = [chr(97 + m) for m in np.argsort(-weights)[:k]]
    assert list(greedy_utility(modular, k).subset) == expected
    assert set(exhaustive(modular, k).subset) == set(expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.frozensets(st.integers(0, 11), min_size=1), min_size=5, max_size=5), st.integers(1, 4))
def test_greedy_covers_at_least_1_minus_1_over_e_of_the_best(sets, k):
    coverage = table(lambda s: len(frozenset().union(*(sets[m] for m in s))) / 12, M=5)
    greedy, best = greedy_utility(coverage, k).utility, exhaustive(coverage, k).utility
    assert greedy >= (1 - 1 / np.e) * best - 1e-12


def test_greedy_misses_xor_and_exhaustive_finds_it():
    exact = UtilityTable.of(NAMES, XOR.mean)
    assert greedy_utility(exact).subset == ()
    assert exhaustive(exact).subset == ("a", "b") and exhaustive(exact).utility == pytest.approx(0.5)
    noise_first = table(lambda s: 0.5 + 0.5 * ({1, 2} <= s))
    assert greedy_utility(noise_first, k=2, stop=False).subset == ("a", "b")  # two of three, and the wrong two


def test_exhaustive_is_the_best_of_all():
    rng = np.random.default_rng(3)
    values = rng.random((4, 32)) * 0.2 + 0.1 * Lattice("abcde").size(np.arange(32))
    measured = UtilityTable(tuple("abcde"), values)
    chosen = exhaustive(measured, k=3)
    gains = measured.mean - measured.mean[0]
    best = max(c for n in (1, 2, 3) for c in (gains[sum(1 << m for m in s)] for s in combinations(range(5), n)))
    assert chosen.utility == pytest.approx(best)
    assert list(chosen.steps.index) == [1, 2, 3] and chosen.steps["p_top"].between(0, 1).all()
    assert chosen.stability.sum() == pytest.approx(1)


def test_a_budget():
    costs = {"a": 5.0, "b": 3.0, "c": 1.0}
    assert exhaustive(SYNERGY, costs=costs, budget=8).subset == ("a", "b")
    assert exhaustive(SYNERGY, costs=costs, budget=7).subset == ("a", "c")
    assert exhaustive(SYNERGY, costs=costs, budget=8).cost == 8
    for rule in (exhaustive, cost_benefit):
        nothing = rule(SYNERGY, costs=costs, budget=0.5)
        assert nothing.subset == () and nothing.label == "none" and nothing.utility == 0 and nothing.cost == 0
        assert any("nothing" in note for note in nothing.notes)
        assert "none" in str(nothing)
    with pytest.raises(ConfigError, match="budget: what does a subset cost"):
        exhaustive(SYNERGY, budget=3)
    with pytest.raises(ConfigError, match="budget: expected at least 0, got -1"):
        cost_benefit(SYNERGY, costs, -1)
    with pytest.raises(ConfigError, match="budget: expected a finite number, got nan"):
        cost_benefit(SYNERGY, costs, float("nan"))


def test_of_two_identical_modalities_the_cheaper_one():
    twins = table(lambda s: 0.5 + 0.3 * bool(s & {0, 1}) + 0.1 * (2 in s))
    assert exhaustive(twins, costs={"a": 2, "b": 1, "c": 1}, budget=10).subset == ("b", "c")
    assert exhaustive(twins, costs={"a": 1, "b": 2, "c": 1}, budget=10).subset == ("a", "c")
    assert cost_benefit(twins, {"a": 2, "b": 1, "c": 1}, 10).subset == ("b", "c")


def test_a_cheap_trifle_does_not_shut_out_what_matters():
    weights = (0.01, 0.5)
    trifle = table(lambda s: sum(weights[m] for m in s), M=2)
    chosen = cost_benefit(trifle, {"a": 0.1, "b": 10}, 10)
    assert chosen.subset == ("b",) and chosen.steps["criterion"].iloc[0] == "gain, the best affordable single"
    assert cost_benefit(trifle, {"a": 0.1, "b": 10}, 10.1).subset == ("a", "b")


def test_bundles_count_by_what_the_larger_subset_costs_more():
    class Visit:
        def cost(self, subset, samples):
            return samples * (10.0 if set(subset) & {"a", "b"} else 0.0) + samples * 6.0 * ("c" in subset)

    chosen = cost_benefit(table(lambda s: sum((0.2, 0.1, 0.15)[m] for m in s)), Visit(), 10)
    assert chosen.subset == ("a", "b") and chosen.cost == 10  # the second of the visit is free
    assert cost_benefit(ADDITIVE, Visit(), 10, samples=2).subset == ()


def test_nothing_is_collected_where_nothing_gains():
    useless = table(lambda s: 0.5 - 0.01 * len(s))
    assert exhaustive(useless).subset == () and greedy_utility(useless).subset == ()
    assert cost_benefit(useless, dict.fromkeys(NAMES, 1), 3).subset == ()


def test_ten_modalities_are_quick():
    lattice = Lattice([f"m{m}" for m in range(10)])
    values = np.random.default_rng(0).random((3, 1024)) * 0.05 + 1 - 0.8 ** lattice.size(np.arange(1024))
    big = UtilityTable(lattice.names, values)
    assert len(select(big, stop=False, draws=100).subset) == 9
    assert exhaustive(big, draws=100).utility >= greedy_utility(big, draws=100).utility - 1e-12
