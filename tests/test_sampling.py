"""Sampled Shapley values against exact ones: unbiased, honest about their error, and thrifty with the game."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lacunar.errors import ConfigError, DataError
from lacunar.lattice import Lattice
from lacunar.sampling import sample_shapley

METHODS = ("permutation", "least-squares")
both = pytest.mark.parametrize("method", METHODS)


def lattice_of(M):
    return Lattice([f"m{m}" for m in range(M)])


def random_table(M, seed=0, *lead):
    """Growth with diminishing returns, plus noise of every order of interaction."""
    noise = torch.randn(*lead, 2**M, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return lattice_of(M).size(torch.arange(2**M)).double().sqrt() + 0.3 * noise


def least_budget(M, method):
    return min(2**M, 10 * M - 8 if method == "permutation" else 2 * M + 6)


class Game:
    """Plays a table, and remembers what it was asked."""

    def __init__(self, table):
        self.table, self.calls = table, []

    def __call__(self, codes):
        self.calls.append(codes)
        return self.table.movedim(-1, 0)[codes]


def estimates(table, M, seeds, **options):
    runs = [sample_shapley(Game(table), M, seed=seed, **options) for seed in range(seeds)]
    return torch.stack([run.values for run in runs]), torch.stack([run.standard_error for run in runs])


# ---------------------------------------------------------------------- exact when everything is seen


@both
@pytest.mark.parametrize("M", [1, 2, 3, 7, 12])
def test_exact_once_the_budget_covers_every_coalition(method, M):
    table = random_table(M, 0, 2)
    result = sample_shapley(Game(table), M, method=method, budget=2**M)
    assert result.exact
    assert result.evaluations == 2**M
    assert torch.allclose(result.values, lattice_of(M).shapley(table))
    assert (result.standard_error == 0).all()


def test_exact_above_the_largest_table():
    def game(codes):
        size = sum((codes >> m & 1).double() for m in range(14))
        return size + 3 * ((codes & 0b11) == 0b11)

    result = sample_shapley(game, 14, budget=2**14)
    assert result.exact
    assert torch.allclose(result.values, torch.tensor([2.5, 2.5] + [1.0] * 12, dtype=torch.float64))


@both
@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(0, 2**31), st.data())
def test_efficiency_holds_exactly_at_every_budget(method, M, seed, data):
    budget = data.draw(st.integers(least_budget(M, method), 2**M))
    game = Game(random_table(M, seed))
    result = sample_shapley(game, M, method=method, budget=budget, seed=seed)
    assert torch.isclose(result.values.sum(), game.table[-1] - game.table[0])
    assert torch.isfinite(result.standard_error).all()
    # The game is called once, never twice on a coalition, and not beyond its budget.
    (codes,) = game.calls
    assert len(codes) == len(codes.unique()) == result.evaluations <= budget
    assert codes.dtype == torch.int64
    assert result.exact == (budget == 2**M)


@both
@pytest.mark.parametrize("M", [13, 40, 63])
def test_additive_games_are_solved_by_any_sample(method, M):
    worth = torch.rand(M, generator=torch.Generator().manual_seed(M), dtype=torch.float64)

    def game(codes):
        return 1 + (codes[:, None] >> torch.arange(M) & 1).double() @ worth

    result = sample_shapley(game, M, method=method, budget=700)
    assert torch.allclose(result.values, worth)
    assert (result.standard_error < 1e-9).all()
    assert not result.exact


@both
def test_pairwise_games_are_solved_by_any_sample(method):
    # With complements played too, second-order interactions cancel: their odd part is additive.
    quadratic = torch.rand(20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def game(codes):
        x = (codes[:, None] >> torch.arange(20) & 1).double()
        return ((x @ quadratic) * x).sum(-1)

    result = sample_shapley(game, 20, method=method, budget=200)
    assert torch.allclose(result.values, (quadratic.sum(0) + quadratic.sum(1)) / 2)


def test_a_dummy_gets_exactly_nothing_from_permutations():
    table = random_table(8, 3).float()
    available = 0b10110101
    result = sample_shapley(lambda codes: table[codes & available], 8, budget=100)
    absent = torch.tensor([not available >> m & 1 for m in range(8)])
    assert (result.values[absent] == 0).all()
    assert (result.standard_error[absent] == 0).all()
    assert (result.standard_error[~absent] > 0).all()


# ---------------------------------------------------------------------- unbiased, and honest


@pytest.mark.parametrize(("M", "budget"), [(6, 52), (8, 80), (8, 250)])
def test_permutations_are_unbiased(M, budget):
    table, seeds = random_table(M, 5), 400
    values, _ = estimates(table, M, seeds, budget=budget)
    error = (values.mean(0) - lattice_of(M).shapley(table)).abs()
    assert (error < 4 * values.std(0) / seeds**0.5).all()
    assert values.std(0).min() > 0


@pytest.mark.parametrize(("M", "budget"), [(8, 120), (8, 250), (10, 300)])
def test_least_squares_is_unbiased_but_for_a_trifle(M, budget):
    table, seeds = random_table(M, 5), 300
    values, _ = estimates(table, M, seeds, method="least-squares", budget=budget)
    error = (values.mean(0) - lattice_of(M).shapley(table)).abs()
    # The bias is of the order of 1 / budget: here below a tenth of one run's error, itself small.
    assert (error < (0.1 + 4 / seeds**0.5) * values.std(0)).all()
    assert values.std(0).max() < 0.12


@pytest.mark.parametrize(
    ("method", "budget"), [("permutation", 200), ("permutation", 480), ("least-squares", 60), ("least-squares", 480)]
)
def test_the_standard_error_is_the_error(method, budget):
    """The 95 % interval covers 95 %, and the stated error has the size of the real one."""
    table = random_table(9, 2)
    values, error = estimates(table, 9, 200, method=method, budget=budget)
    miss = (values - lattice_of(9).shapley(table)).abs()
    covered = (miss <= 1.96 * error).double().mean()
    assert 0.90 < covered < 0.98  # 1800 intervals, the nine of one run dependent
    assert 0.9 < (error.square().mean() / miss.square().mean()).sqrt() < 1.15


@both
def test_more_coalitions_less_error(method):
    table = random_table(10, 1)
    errors = [estimates(table, 10, 20, method=method, budget=budget)[1].mean() for budget in (96, 300, 960)]
    assert errors[0] > 1.4 * errors[1] > 1.4**2 * errors[2] > 0


def test_what_repeats_is_spent_on_more_draws():
    # Of 256 coalitions 250 may be played: 17 pairs of orders if none repeated, many more as they do.
    table = random_table(8, 1)
    few = estimates(table, 8, 50, budget=130)[1].square().mean()
    many = estimates(table, 8, 50, budget=250)[1].square().mean()
    assert many < few / 3  # not / 2, as the budget alone would have it


# ---------------------------------------------------------------------- arrays, seeds, gradients


@both
def test_seeds_decide(method):
    table = random_table(8)

    def run(seed):
        return sample_shapley(Game(table), 8, method=method, budget=100, seed=seed).values

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    assert torch.equal(run(1), run(torch.Generator().manual_seed(1)))
    before = torch.random.get_rng_state()
    run(3)
    assert torch.equal(before, torch.random.get_rng_state())


@both
@pytest.mark.parametrize("budget", [60, 64])
def test_any_shape_and_kind_of_value(method, budget):
    table = random_table(6, 0, 3, 2).float()
    result = sample_shapley(Game(table), 6, method=method, budget=budget)
    assert result.values.shape == result.standard_error.shape == (3, 2, 6)
    assert result.values.dtype == torch.float32
    one = sample_shapley(Game(table[2, 1]), 6, method=method, budget=budget)
    assert torch.allclose(one.values, result.values[2, 1], atol=1e-6)
    assert torch.allclose(one.standard_error, result.standard_error[2, 1], atol=1e-6)
    array = sample_shapley(
        lambda codes: table.numpy()[..., codes.numpy()].transpose(2, 0, 1), 6, method=method, budget=budget
    )
    assert isinstance(array.values, np.ndarray)
    assert isinstance(array.standard_error, np.ndarray)
    assert np.allclose(array.values, result.values.numpy())


@both
def test_renaming_players_renames_the_exact_part(method):
    # Estimates differ draw by draw; what a symmetric game gives each player must not depend on its bit.
    table = lattice_of(9).size(torch.arange(2**9)).double() ** 1.7
    values, error = estimates(table, 9, 100, method=method, budget=120)
    assert (values.mean(0) - values.mean()).abs().max() < 5 * error.mean() / 10 + 1e-9


@both
def test_gradients_flow(method):
    table = random_table(6).requires_grad_()
    result = sample_shapley(Game(table), 6, method=method, budget=60)
    assert not result.standard_error.requires_grad
    result.values[0].backward()
    assert torch.isfinite(table.grad).all()
    assert torch.isclose((table.grad * table).sum(), result.values[0])  # linear in the game


# ---------------------------------------------------------------------- errors, word for word


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "permutations"}, ConfigError, "unknown method 'permutations'. Did you mean 'permutation'?"),
        ({"M": 64}, DataError, "the number of players must be in 1..63, got 64."),
        ({"M": 0}, DataError, "the number of players must be in 1..63, got 0."),
        ({"budget": 91}, ConfigError, "budget must be at least 92 coalitions for 10 players by 'permutation', got 91."),
        (
            {"budget": 25, "method": "least-squares"},
            ConfigError,
            "budget must be at least 26 coalitions for 10 players by 'least-squares', got 25.",
        ),
        (
            {"M": 2, "budget": 3},
            ConfigError,
            "budget must be at least 4 coalitions for 2 players by 'permutation', got 3.",
        ),
    ],
)
def test_errors(options, error, message):
    with pytest.raises(error) as caught:
        sample_shapley(lambda codes: codes.double(), **{"M": 10, **options})
    assert str(caught.value) == message


def test_a_game_must_value_every_coalition():
    with pytest.raises(DataError) as caught:
        sample_shapley(lambda codes: codes[1:].double(), 3)
    assert str(caught.value) == "the game must give one value (or array) per coalition: (8, ...); got (7,)."


@both
@pytest.mark.parametrize("M", [5, 6, 10, 30])
def test_the_least_budget_is_enough(method, M):
    def game(codes):  # a threshold: nothing to read off a single coalition
        return (codes[:, None] >> torch.arange(M) & 1).double().sum(-1).sub(M / 3).relu() ** 2 + codes.double().sqrt()

    result = sample_shapley(game, M, method=method, budget=least_budget(M, method))
    assert torch.isfinite(result.values).all()
    assert (result.standard_error > 0).all() or result.exact
    assert result.exact == (M == 5 and method == "permutation")
