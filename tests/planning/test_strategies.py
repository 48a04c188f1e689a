"""Rules that choose what to buy, on tables whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lacunar.errors import ConfigError
from lacunar.lattice import Lattice
from lacunar.planning import strategies
from lacunar.planning.allocation import allocate, portion
from lacunar.planning.candidates import affordable, candidate, largest, mixtures, why_nothing
from lacunar.planning.costs import CostModel
from lacunar.planning.decide import decide, decide_target, estimate
from lacunar.planning.outlook import Outlook
from lacunar.planning.sensitivity import flips
from lacunar.planning.strategies import Case, Choice
from lacunar.planning.utility_table import UtilityTable

NAMES = ("t", "a", "v")
LATTICE = Lattice(NAMES)
#: t is strongest, and a cooperates with it best.
TABLE = {"none": 0.42, "t": 0.66, "a": 0.45, "v": 0.44, "t+a": 0.73, "t+v": 0.68, "a+v": 0.46, "t+a+v": 0.74}


def table(values=TABLE, sd=0.0):
    return UtilityTable.of(LATTICE, values, None if sd == 0 else np.full(8, sd))


def outlook(quality, a=1.0, b=2.0, c=0.5, start=100, spread=0.0, draws=200, most=1e5, lattice=LATTICE):
    """A curve a - b n^-c whose b varies by a factor, and qualities as numbers, pairs (mean, sd) or draws."""
    rng = np.random.default_rng(0)
    grid = Outlook.sizes(start, most)
    factor = 1 + spread * rng.normal(size=(draws, 1))
    made = {len(lattice) - 1: (1.0, np.ones(draws))}
    for label, value in quality.items():
        mean, sd = value if isinstance(value, tuple) else (value, 0.0)
        made[lattice.index(label.split("+"))] = (mean, np.clip(mean + sd * rng.normal(size=draws), 0, 1))
    return Outlook(start, grid, a - b * grid**-c, a - factor * b * grid**-c, made)


def case(costs, budget, **known):
    return Case.of(LATTICE, CostModel.read(costs), budget, **known)


EVEN = dict.fromkeys(NAMES, 1)


# ------------------------------------------------------------------ SK-LL


@pytest.mark.parametrize("pool", [1284, 16326])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_uniform_costs_reproduce_the_counts_of_the_paper(pool, share):
    budget = portion(pool, share)
    found = decide(case(EVEN, budget, utilities=table()), strategies.get("sk-ll"))
    strength = dict(zip(NAMES, LATTICE.shapley(table().mean)))
    expected = allocate("sk-ll", NAMES, budget, ("t", "a"), strength=strength)
    assert tuple((LATTICE.subset(code), n) for code, n in found.best.blocks) == expected.blocks
    assert found.best.blocks[0] == (LATTICE.index(("t", "a")), budget // 2)
    assert found.best.cost == budget
    even = decide(case(EVEN, budget), strategies.get("even"))
    assert even.best.blocks == ((7, budget // 3),)


def test_sk_ll_looks_at_no_price_but_cannot_buy_what_it_cannot_pay():
    dear = {"t": 100, "a": 100, "v": 1}
    found = decide(case(dear, 1000, utilities=table()), strategies.get("sk-ll"))
    assert found.label == "t+a"
    poor = decide(case(dear, 150, utilities=table()), strategies.get("sk-ll"))
    assert poor.label == "none"
    assert "does not pay one sample of the key subset t+a" in poor.reason
    assert poor.shares["none"] == 1.0


def test_how_often_sk_ll_would_choose_otherwise_is_told():
    found = decide(case(EVEN, 100, utilities=table(sd=0.03)), strategies.get("sk-ll"))
    assert sum(found.shares.values()) == pytest.approx(1)
    assert 0.2 < found.shares["t+a"] < 1
    assert decide(case(EVEN, 100, utilities=table()), strategies.get("sk-ll")).shares["t+a"] == 1


def test_without_synergy_sk_ll_buys_the_key_alone():
    additive = {"none": 0.5, "t": 0.7, "a": 0.6, "v": 0.55, "t+a": 0.75, "t+v": 0.72, "a+v": 0.62, "t+a+v": 0.77}
    assert decide(case(EVEN, 90, utilities=table(additive)), strategies.get("sk-ll")).best.blocks == ((1, 90),)


# ------------------------------------------------------------------ the others


def test_utility_per_cost_divides_by_the_price_of_a_sample():
    rule = strategies.get("utility-per-cost")
    assert decide(case(EVEN, 100, utilities=table()), rule).label == "t"
    assert decide(case({"t": 20, "a": 1, "v": 1}, 100, utilities=table()), rule).label == "a"
    worthless = {label: 0.5 for label in TABLE}
    found = decide(case(EVEN, 100, utilities=table(worthless)), rule)
    assert found.label == "none"
    assert "finds no purchase worth making" in found.reason


def test_even_random_and_best_single():
    assert decide(case({"t": 9, "a": 1, "v": 1}, 100, utilities=table()), strategies.get("best-single")).label == "t"
    assert decide(case({"t": 900, "a": 1, "v": 1}, 100, utilities=table()), strategies.get("best-single")).label == "a"
    assert decide(case({"t": 900, "a": 1, "v": 1}, 100), strategies.get("even")).label == "none"
    drawn = [decide(case(EVEN, 100, seed=seed), strategies.get("random")).label for seed in range(60)]
    assert len(set(drawn)) == 7
    assert drawn == [decide(case(EVEN, 100, seed=seed), strategies.get("random")).label for seed in range(60)]


def test_the_oracle_reads_what_really_happened():
    found = decide(case(EVEN, 100, realised={"t": 0.1, "a+v": 0.3, "t+a": 0.2}), strategies.get("oracle"))
    assert found.label == "a+v"
    assert decide(case(EVEN, 100, realised={"t": -0.1}), strategies.get("oracle")).label == "none"


def test_a_new_rule_is_one_function():
    @strategies.strategy("largest-test")
    def largest(case):
        """As many samples as possible."""
        return Choice([one.samples for one in case.candidates])

    try:
        assert strategies.get("largest-test").description == "As many samples as possible."
        assert decide(case({"t": 9, "a": 2, "v": 1}, 100), strategies.get("largest-test")).label == "v"
        with pytest.raises(ConfigError, match="'largest-test' is already registered"):
            strategies.strategy("largest-test")(lambda case: Choice([]))
    finally:
        del strategies._REGISTER["largest-test"]
    assert set(strategies.available()) == {
        "best-single", "even", "oracle", "random", "rehearsal", "sk-ll", "utility-per-cost"
    }  # fmt: skip


def test_unknown_names_are_answered_with_a_suggestion():
    with pytest.raises(ConfigError, match="unknown strategy 'rehersal'.*Did you mean 'rehearsal'"):
        strategies.get("rehersal")
    with pytest.raises(ConfigError, match="'sk-ll' needs utilities"):
        strategies.get("sk-ll")(case(EVEN, 10))


# ------------------------------------------------------------------ rehearsal


RULE = strategies.get("rehearsal")


def test_the_gain_is_read_off_the_curve_at_the_effective_samples():
    known = outlook({"t": 0.5, "t+a": 0.8})
    one = case({"t": 10, "a": 2, "v": 1}, 1200, outlook=known)
    found = estimate(one)
    for k, label in enumerate(["t", "t+a", "t+a+v"]):
        assert one.candidates[k].label == label
        n_eff = 100 + {"t": 0.5 * 120, "t+a": 0.8 * 100, "t+a+v": 92}[label]
        assert found.mean[k] == pytest.approx(2 * (100**-0.5 - n_eff**-0.5), abs=1e-5)
    assert decide(one, RULE).label == "t+a+v"


def test_xor_pairs_are_bought_where_they_are_affordable_and_singles_are_never():
    known = outlook({"t": 0.0, "a": 0.0, "t+a": (0.9, 0.05)}, spread=0.1)
    dear_rest = {"t": 1, "a": 1, "v": 50}
    found = decide(case(dear_rest, 100, outlook=known), RULE)
    assert found.label == "t+a"
    assert found.shares["t"] == found.shares["a"] == 0
    # Where two cells of a sample are more than the budget, singles are all there is, and they bring nothing.
    poor = decide(case({"t": 60, "a": 60, "v": 60}, 100, outlook=known), RULE)
    assert poor.label == "none"
    assert poor.shares["none"] == 1
    assert "no purchase is sure to gain more than 0" in poor.reason


def test_of_two_identical_modalities_the_cheaper_is_bought():
    known = outlook({"t": (0.7, 0.05), "a": (0.7, 0.05)}, spread=0.1)
    assert decide(case({"t": 10, "a": 9, "v": 30}, 900, outlook=known), RULE).label == "a"
    assert decide(case({"t": 9, "a": 10, "v": 30}, 900, outlook=known), RULE).label == "t"


def test_doubling_a_price_never_buys_more_of_it():
    rng = np.random.default_rng(1)
    for trial in range(60):
        quality = {label: float(rng.uniform(0, 1)) for label in ("t", "a", "v", "t+a", "t+v", "a+v")}
        known = outlook(quality, spread=0.05, draws=50)
        costs = CostModel(dict(zip(NAMES, rng.uniform(1, 40, 3))), per_sample=float(rng.uniform(0, 10)))
        one = Case.of(LATTICE, costs, 3000.0, outlook=known)
        before = _cells(decide(one, RULE).best)
        for m, name in enumerate(NAMES):
            after = _cells(decide(one.changed(costs=costs.changed(name, 2.0)), RULE).best)
            assert after[m] <= before[m], (trial, name)


def _cells(best):
    blocks = () if best is None else best.blocks
    return [sum(n for code, n in blocks if code >> m & 1) for m in range(3)]


def test_nothing_is_bought_where_the_interval_does_not_leave_zero_out():
    unsure = outlook({"t": (0.3, 0.3)}, spread=0.0)
    found = decide(case({"t": 1, "a": 900, "v": 900}, 100, outlook=unsure), RULE)
    assert found.label == "none"
    assert found.leader == "t"
    sure = outlook({"t": (0.3, 0.05)})
    assert decide(case({"t": 1, "a": 900, "v": 900}, 100, outlook=sure), RULE).label == "t"
    demanding = decide(case({"t": 1, "a": 900, "v": 900}, 100, outlook=sure, min_gain=0.1), RULE)
    assert demanding.label == "none"
    assert "more than 0.1" in demanding.reason


def test_shares_sum_to_one_and_count_nothing():
    known = outlook({"t": (0.3, 0.2), "a": (0.4, 0.2), "t+a": (0.5, 0.3)}, spread=0.2)
    found = decide(case({"t": 3, "a": 4, "v": 5}, 500, outlook=known, min_gain=0.05), RULE)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert 0 < found.shares["none"] < 1


def test_what_was_expected_to_gain_more_but_is_less_certain_is_named():
    known = outlook({"t": (0.6, 0.4), "a": 0.4}, draws=2000)
    found = decide(case({"t": 1, "a": 1, "v": 90}, 100, outlook=known), RULE)
    assert found.label == "a"
    assert "t is expected to gain more" in found.reason


# ------------------------------------------------------------------ what can be bought


def test_candidates_are_what_the_money_buys():
    costs = CostModel.read({"t": 50, "a": 5, "v": 1})
    found = {one.label: one.samples for one in affordable(LATTICE, costs, 50)}
    assert found == {"t": 1, "a": 10, "v": 50, "a+v": 8}
    assert affordable(LATTICE, costs, 0.5) == []
    assert why_nothing(LATTICE, costs, 0.5) == "the budget of 0.50 is below the smallest purchase, 1 for v"
    assert why_nothing(LATTICE, costs, 0.0) == "the budget is 0"
    capped = CostModel({"t": 1.0}, capacity={"t": 3}, minimum={"t": 5})
    assert "below the smallest batches" in why_nothing(Lattice(("t",)), capped, 10)


def test_money_that_a_capacity_leaves_goes_to_another_subset():
    costs = CostModel({"t": 1.0, "a": 1.0, "v": 100.0}, capacity={"t": 10})
    singles = affordable(LATTICE, costs, 100, [1, 2])
    found = {one.label: one for one in mixtures(LATTICE, costs, 100, singles)}
    assert list(found) == ["t and a"]
    assert found["t and a"].blocks == ((1, 10), (2, 90))
    assert found["t and a"].cost == 100
    known = outlook({"t": 1.0, "a": 0.1})
    best = decide(Case.of(LATTICE, costs, 100, outlook=known), RULE)
    assert best.label == "t and a"
    # Shared capacities are respected.
    assert mixtures(LATTICE, costs, 100, affordable(LATTICE, costs, 100, [1, 3])) == []


def test_a_mixture_is_listed_once_and_none_is_larger_than_the_largest():
    costs = CostModel({"t": 1.0, "a": 1.0, "v": 100.0}, capacity={"t": 10, "a": 20})
    singles = affordable(LATTICE, costs, 100, [1, 2])
    found = mixtures(LATTICE, costs, 100, singles)
    assert [one.label for one in found] == ["t and a"]
    assert largest(LATTICE, costs, singles) >= found[0].samples == 30
    few = CostModel({"t": 1.0, "a": 1.0, "v": 1.0}, max_samples=7)
    assert largest(LATTICE, few, affordable(LATTICE, few, 100)) == 7
    assert largest(LATTICE, few, []) == 0


def test_prices_of_mixtures_pay_set_up_once():
    costs = CostModel({"t": 1.0, "a": 1.0, "v": 1.0}, setup={"t": 50})
    assert candidate(LATTICE, costs, [(3, 4), (1, 2)]).cost == 50 + 8 + 2


# ------------------------------------------------------------------ targets


def test_the_cheapest_way_to_a_target():
    known = outlook({"t": 0.5, "t+a": 1.0})
    one = Case(LATTICE, CostModel.read({"t": 10, "a": 2, "v": 9}), math.inf, (), None, known)
    found = decide_target(one, 0.9)  # 1 - 2 n^-.5 = .9 at n = 400: 300 complete samples more
    assert found.label == "t+a"
    assert abs(found.best.samples - 300) <= 2
    assert found.shares["t+a"] == 1
    assert decide_target(one, 0.79).label == "none"
    assert "reached already" in decide_target(one, 0.79).reason
    far = decide_target(one, 1.01)
    assert far.label == "none"
    assert "no purchase reaches the target of 1.01" in far.reason


def test_more_assurance_buys_more_and_capacities_end_it():
    known = outlook({"t": (0.5, 0.1)}, spread=0.1, draws=500)
    one = Case(LATTICE, CostModel.read({"t": 1, "a": 50, "v": 50}), math.inf, (), None, known)
    counts = [decide_target(one, 0.9, assurance).best.samples for assurance in (0.3, 0.5, 0.9)]
    assert counts == sorted(counts) and counts[0] < counts[-1]
    reached = known.scores([decide_target(one, 0.9, 0.9).best])[1][:, 0] >= 0.9
    assert 0.88 <= reached.mean() <= 0.92
    capped = Case(LATTICE, CostModel({"t": 1, "a": 50, "v": 50}, max_samples=20), math.inf, (), None, known)
    found = decide_target(capped, 0.9)
    assert found.label == "none"
    assert sum(decide_target(one, 0.9).shares.values()) == pytest.approx(1)


# ------------------------------------------------------------------ what would flip it


def test_flips_are_where_the_recommendation_changes():
    known = outlook({"t": 0.8, "a": 0.4})
    costs = CostModel.read({"t": 10, "a": 10, "v": 1000})
    one = Case.of(LATTICE, costs, 1000, outlook=known)
    found = decide(one, RULE)
    assert found.label == "t"
    frame = flips(found, lambda **changes: decide(one.changed(**changes), RULE) if changes else found)
    row = frame[(frame["what"] == "cost") & (frame["modality"] == "t")].iloc[0]
    assert row["to"] == "a"
    assert row["factor"] == pytest.approx(2, rel=0.03)  # twice the price halves the effective samples
    assert row["value"] == pytest.approx(20, rel=0.03)
    row = frame[(frame["what"] == "cost") & (frame["modality"] == "a")].iloc[0]
    assert row["factor"] == pytest.approx(0.5, rel=0.03)
    row = frame[frame["what"] == "quality"].iloc[0]
    assert (row["modality"], row["to"]) == ("t", "a")
    assert row["factor"] == pytest.approx(0.5, rel=0.03)
    row = frame[frame["what"] == "threshold"].iloc[0]
    assert row["to"] == "none"
    assert decide(one.changed(min_gain=row["value"] * 0.99), RULE).label == "t"
    assert decide(one.changed(min_gain=row["value"] * 1.01), RULE).label == "none"
    assert not (frame["what"] == "budget").any()  # the rest of a sixteenth of it is still spent on t
    small = one.changed(budget=100)
    found = decide(small, RULE)
    frame = flips(found, lambda **changes: decide(small.changed(**changes), RULE) if changes else found)
    row = frame[frame["what"] == "budget"].iloc[0]
    assert row["to"] == "none" and row["value"] == pytest.approx(10, rel=0.01)


def test_curves_that_never_rise_promise_nothing():
    flat = outlook({"t": 1.0}, b=0.0)
    assert decide(case(EVEN, 100, outlook=flat), RULE).label == "none"
    assert np.isinf(flat.needed(1, 1.5)).all()
