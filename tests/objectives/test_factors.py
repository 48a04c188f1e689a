import pytest
import torch

from lacunar.errors import ConfigError, DataError
from lacunar.lattice import Lattice
from lacunar.objectives.factors import (
    availability_factor,
    capability_gap,
    learning_state,
    released_shapley,
    sampled_shapley,
)


@pytest.mark.parametrize(
    ("upper", "phi", "count", "printed"),
    [
        (91, 23.6667, 101, 0.6667),
        (26, 11.6667, 65, 0.2205),
        (12, 4.0, 20, 0.4),
        (91, 59.6667, 105, 0.2984),
        (29, 34.6667, 79, -0.0717),
        (8, 10.6667, 25, -0.1067),
    ],
)
def test_table_6_batches_of_iemocap(upper, phi, count, printed):
    gap = torch.tensor([upper - phi])
    assert gap.item() / count == pytest.approx(printed, abs=6e-5)
    state = learning_state(gap, torch.tensor([float(count)]))
    assert state.item() == pytest.approx(max(printed, 0.0), abs=6e-5)  # training clamps what the table prints


def test_nobody_has_the_modality():
    assert learning_state(torch.tensor([0.0]), torch.tensor([0.0])).item() == 0.0


@pytest.mark.parametrize(
    "rates", [(0.2, 0.5, 0.8), (0.8, 0.5, 0.2), (0.2, 0.8, 0.5), (0.5, 0.2, 0.8), (0.5, 0.8, 0.2), (0.8, 0.2, 0.5)]
)
def test_availability_of_the_six_settings(rates):
    present = torch.zeros(1000, 3, dtype=torch.bool)
    for m, rate in enumerate(rates):
        present[: round(1000 * (1 - rate)), m] = True
    factor = availability_factor(present, normalise=False)
    assert factor.tolist() == pytest.approx([{0.2: 1.25, 0.5: 2.0, 0.8: 5.0}[rate] for rate in rates])
    normalised = availability_factor(present)
    assert normalised.mean().item() == pytest.approx(1.0)
    assert (normalised / factor).std().item() == pytest.approx(0.0, abs=1e-7)


def test_a_modality_that_is_never_there():
    with pytest.raises(DataError, match="Modality number 1 is never present"):
        availability_factor(torch.tensor([[True, False]]))


@pytest.mark.parametrize("M", [1, 2, 3, 4])
def test_a_perfect_model_keeps_the_floor(M):
    lattice = Lattice([f"m{m}" for m in range(M)])
    present = lattice.decode(lattice.codes[1:])
    values = torch.ones(len(present), len(lattice))
    values[:, 0] = 0
    gap = capability_gap(lattice, values, torch.ones(len(present), M), present)
    state = learning_state(gap.sum(0), present.sum(0).float())
    floor = 1 - (present / present.sum(1, keepdim=True)).sum(0) / present.sum(0)
    assert state.tolist() == pytest.approx(floor.tolist(), abs=1e-6)


def test_gap_variants_by_hand():
    lattice = Lattice(["a", "b"])
    values = torch.tensor([[0.0, 0.5, 0.25, 1.0]])  # none, a, b, a+b
    upper, present = torch.tensor([[0.9, 0.8]]), torch.ones(1, 2, dtype=torch.bool)
    phi = torch.tensor([[0.625, 0.375]])
    expected = {
        "shapley": upper - phi,
        "scaled": upper - 2 * phi,
        "standalone": upper - torch.tensor([[0.5, 0.25]]),
        "loo": upper - torch.tensor([[0.75, 0.5]]),
    }
    for name, gap in expected.items():
        torch.testing.assert_close(capability_gap(lattice, values, upper, present, name), gap)
    with pytest.raises(ConfigError, match="gap: expected one of"):
        capability_gap(lattice, values, upper, present, "shaply")


def test_gap_of_an_absent_modality_is_zero():
    lattice = Lattice(["a", "b"])
    values = torch.tensor([[0.0, 1.0, float("nan"), float("nan")]])
    for name in ("shapley", "standalone", "scaled", "loo"):
        gap = capability_gap(lattice, values, torch.tensor([[1.0, 7.0]]), torch.tensor([[True, False]]), name)
        assert gap[0, 1].item() == 0.0
        assert torch.isfinite(gap).all()


@pytest.mark.parametrize(("k", "useful", "useless"), [(3, 1 / 3, 1 / 2), (7, 1 / 7, 1 / 30)])
def test_the_released_formula_rewards_the_useless_in_the_dictator_game(k, useful, useless):
    lattice = Lattice(["x", "y", "z"])
    hits = (lattice.codes & 1).to(torch.float64)  # right exactly when x is there
    assert released_shapley(hits, k).tolist() == pytest.approx([useful, useless, useless])
    assert lattice.shapley(hits).tolist() == pytest.approx([1.0, 0.0, 0.0])


@pytest.mark.parametrize("empty", [0.0, 0.4])
def test_sampled_shapley_is_unbiased_and_exact_when_it_sees_everything(empty):
    M = 5
    lattice = Lattice([f"m{m}" for m in range(M)])
    generator = torch.Generator().manual_seed(0)
    present = torch.rand(6, M, generator=generator) < 0.8
    present[:, 0] = True
    values = torch.rand(6, len(lattice), generator=generator, dtype=torch.float64)
    values[:, 0] = empty
    exact = lattice.shapley(values, present)
    every = lattice.pairs(present)
    ones = torch.ones(len(every.rows), dtype=torch.float64)
    nothing = values[:, 0] if empty else None
    seen = sampled_shapley(lattice, every, ones, values[every.rows, every.codes], present, nothing)
    torch.testing.assert_close(seen, exact)
    draws = []
    for _ in range(4000):
        pairs, weight = lattice.sample_pairs(present, 6, generator)
        scores = values[pairs.rows, pairs.codes]
        draws.append(sampled_shapley(lattice, pairs, weight.to(torch.float64), scores, present, nothing))
    drawn = torch.stack(draws)
    error = drawn.std(0) / len(draws) ** 0.5
    assert ((drawn.mean(0) - exact).abs() <= 4.5 * error + 1e-12).all()
