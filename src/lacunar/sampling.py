"""Sampled Shapley values: for more modalities than a value table can hold, or games too dear to play in full.

A Shapley value depends on a game only through its odd part, ``y(S) = (v(S) - v(complement of S)) / 2``: for
``u(S) = v(complement of S)`` every phi_m changes sign. So coalitions are always played in complementary pairs,
which is the antithetic pairing of permutations and KernelSHAP's paired sampling at once, and both estimators read
nothing but y. The sample is drawn before the game is played: no draw depends on a value, no coalition is played
twice, and the game is called once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Generic, Literal

import torch
from torch import Tensor

from lacunar.arguments import checked
from lacunar.errors import ConfigError, DataError
from lacunar.lattice import Array, _bits, _choice, _shapley_weights, _widen

__all__ = ["ShapleyEstimate", "sample_shapley"]

ROUNDS = 64  # of drawing; each spends what repeats in the rounds before it have saved


@dataclass(frozen=True)
class ShapleyEstimate(Generic[Array]):
    """Shapley values with their error.

    Attributes:
        values: (..., M) estimates; they sum to v(all) - v(none).
        standard_error: (..., M) standard errors of the estimates, 0 when exact. They carry no gradient.
        evaluations: how many coalitions were played.
        exact: whether every coalition was.
    """

    values: Array
    standard_error: Array
    evaluations: int
    exact: bool


@checked
def sample_shapley(
    game: Callable[[Tensor], Array],
    M: int,
    *,
    method: Literal["permutation", "least-squares"] = "permutation",
    budget: int = 2048,
    seed: int | torch.Generator = 0,
) -> ShapleyEstimate[Array]:
    """Shapley values of a game with up to 63 players, from at most ``budget`` coalitions.

    * ``"permutation"``: the marginal contributions (the sum of MCE Eq. 5) along random orders of the players, each
      order paired with its reverse. Unbiased. The standard error is that of the mean over independent pairs,
      ``(budget - 2) / (2 M - 2)`` of them or a few more: while they are few, take intervals from the t law.
    * ``"least-squares"``: KernelSHAP. The linear game closest to v in the Shapley kernel, efficiency a hard
      constraint; coalition sizes are played in full from the outside in while the budget reaches, the sizes in
      between sampled. Usually the more accurate, with a bias of the order of 1 / budget. The standard error is the
      sandwich estimate over independent pairs with leverage-corrected residuals (HC3).

    Either is exact, with standard error 0, when ``budget >= 2^M``. To value what one sample has, let the game play
    ``codes & available``; with permutations the absent players then get exactly 0.

    Args:
        game: from (K,) int64 coalition codes (bit m for player m) to (K, ...) values, torch or numpy; called once.
        M: the number of players, 1 to 63.
        method: the estimator.
        budget: the most coalitions to play.
        seed: of the draws, or a CPU generator.

    Returns:
        The estimate; its arrays are of the game's kind and dtype, on its device.

    Raises:
        ConfigError: an unknown method, or a budget too small for it to state an error.
        DataError: M outside 1..63, or a game that does not give one value per coalition.
    """
    _choice("method", method, ("permutation", "least-squares"))
    if not 1 <= M <= 63:
        raise DataError(f"the number of players must be in 1..63, got {M}.")
    # Five pairs of orders (two may agree by chance, and would claim no error); the smallest size and two pairs.
    least = min(2**M, 10 * M - 8 if method == "permutation" else 2 * M + 6)
    if budget < least:
        raise ConfigError(f"budget must be at least {least} coalitions for {M} players by {method!r}, got {budget}.")
    if budget >= 2**M:
        values, close = _play(game, torch.arange(2**M))
        # Unwrapped: the cache would keep a table that may be large and is used once.
        phi = values.movedim(0, -1) @ _shapley_weights.__wrapped__(M, values.dtype, values.device)
        return ShapleyEstimate(close(phi), close(torch.zeros_like(phi)), 2**M, True)

    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    design = _permutations if method == "permutation" else _least_squares
    codes, estimate = design(M, (budget - 2) // 2, generator)
    pairs = torch.cat([torch.zeros(1, dtype=torch.int64), _canonical(codes, M).unique()])
    values, close = _play(game, torch.cat([pairs, (2**M - 1) ^ pairs]))
    played, complement = values.flatten(1).chunk(2) if values.ndim > 1 else values[:, None].chunk(2)
    odd = (played - complement) / 2
    place = torch.searchsorted(pairs, _canonical(codes, M)).to(odd.device)
    sign = torch.where(codes == _canonical(codes, M), 1, -1).to(odd)
    # The empty set stands first: its odd part is -(v(all) - v(none)) / 2.
    phi, error = (x.T.reshape(*values.shape[1:], M) for x in estimate(odd[place] * sign[..., None], -2 * odd[0]))
    return ShapleyEstimate(close(phi), close(error), 2 * len(pairs), False)


# A design gives the (T, c) coalitions that it wants, T independent draws of c, and the function that turns their odd
# parts (T, c, O) and v(all) - v(none) (O,) into Shapley values and standard errors, (M, O) each.
Design = tuple[Tensor, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]


def _permutations(M: int, pairs: int, generator: torch.Generator) -> Design:
    def draw(count: int) -> Tensor:
        orders = torch.rand(count, M, generator=generator).argsort(-1)
        return (1 << orders).cumsum(-1)[:, :-1]  # the players that came first, then the first two, ...

    codes = _draw_within(draw, M - 1, pairs, M)

    def estimate(y: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        half = (total / 2).expand(len(y), 1, -1)
        gains = torch.cat([-half, y, half], 1).diff(dim=1)  # of each place, the mean over an order and its reverse
        place = M - 1 - _bits(codes, M).sum(1).to(y.device)
        gains = gains.gather(1, place[..., None].expand_as(gains))
        return gains.mean(0), gains.detach().std(0) / len(gains) ** 0.5

    return codes, estimate


def _least_squares(M: int, pairs: int, generator: torch.Generator) -> Design:
    # The Shapley kernel gives size s the mass 1 / (s (M - s)), up to a factor; s = M / 2 is its own complement.
    middle = [2 if 2 * s == M else 1 for s in range(M // 2 + 1)]
    mass = [0.0] + [1 / (s * (M - s) * middle[s]) for s in range(1, M // 2 + 1)]
    number = [comb(M, s) // middle[s] for s in range(M // 2 + 1)]
    whole: list[int] = []
    weight: list[float] = []
    size = 1  # is always played in full, which makes the system regular
    while size == 1 or pairs * mass[size] >= number[size] * sum(mass[size:]):
        whole += [sum(1 << m for m in members) for members in combinations(range(M), size)]
        weight += [mass[size] / number[size]] * number[size]
        pairs -= number[size]
        size += 1
    rest, law = sum(mass[size:]), torch.tensor([0.0] * size + mass[size:], dtype=torch.float64)

    def draw(count: int) -> Tensor:
        sizes = torch.multinomial(law, count, replacement=True, generator=generator)
        chosen = torch.rand(count, M, generator=generator).argsort(-1).argsort(-1) < sizes[:, None]
        return (chosen.long() << torch.arange(M)).sum(-1, keepdim=True)

    drawn = _draw_within(draw, 1, pairs, M)
    codes = torch.cat([torch.tensor(whole)[:, None], drawn])
    weights = torch.tensor(weight + [rest / len(drawn)] * len(drawn), dtype=torch.float64)

    def estimate(y: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        # In a pair the even part of v cancels: regress y on membership less 1/2, subject to sum(phi) = total.
        x, w, y = _bits(codes[:, 0], M).to(y) - 0.5, weights.to(y), y[:, 0]
        system = torch.ones(M + 1, M + 1, dtype=y.dtype, device=y.device)
        system[:M, :M], system[M, M] = x.T * w @ x, 0
        inverse = torch.linalg.inv(system)
        phi = inverse[:M, :M] @ (x.T * w @ y) + inverse[:M, M:] * total
        # Delta method: each draw moves phi by its residual times its row of the solution; whole sizes cannot vary.
        move = x @ inverse[:M, :M] * w[:, None]
        left_out = (1 - (move * x).sum(-1, keepdim=True)).clamp(min=1e-6)
        residual = ((y - x @ phi) / left_out).detach()[len(whole) :]
        move = move[len(whole) :]
        square = move.T.square() @ residual.square() - (move.T @ residual).square() / len(drawn)
        return phi, square.clamp(min=0).sqrt()

    return codes, estimate


def _draw_within(draw: Callable[[int], Tensor], width: int, pairs: int, M: int) -> Tensor:
    """Draws of ``width`` coalitions each, with at most ``pairs`` distinct complementary pairs between them.

    A round draws only what fits even if it is all new, and no draw is ever rejected: that would favour draws that
    repeat others.
    """
    drawn = draw(pairs // width)
    for _ in range(ROUNDS):
        left = pairs - len(_canonical(drawn, M).unique())
        if left < width:
            break
        drawn = torch.cat([drawn, draw(left // width)])
    return drawn


def _canonical(codes: Tensor, M: int) -> Tensor:
    """The one of each coalition and its complement that leaves out the last player."""
    return torch.where(codes >> (M - 1) & 1 == 1, (2**M - 1) ^ codes, codes)


def _play(game: Callable[[Tensor], Array], codes: Tensor) -> tuple[Tensor, Callable[[Tensor], Array]]:
    values = game(codes)
    if tuple(values.shape[:1]) != (len(codes),):
        raise DataError(
            f"the game must give one value (or array) per coalition: ({len(codes)}, ...); got {tuple(values.shape)}."
        )
    return _widen(values)
