"""The two factors of MCE: how rare a modality is, and how far it falls short of what it can do alone."""

from __future__ import annotations

import torch
from torch import Tensor

from lacunar.errors import ConfigError, DataError
from lacunar.lattice import Lattice, Pairs

__all__ = ["GAPS", "availability_factor", "capability_gap", "learning_state", "released_shapley", "sampled_shapley"]

#: What a modality's contribution is measured by when it is compared with what the modality does alone.
GAPS = ("shapley", "standalone", "scaled", "loo")


def availability_factor(present: Tensor, normalise: bool = True) -> Tensor:
    """A, the speed factor of each modality (Eq. 3 of MCE): ``N / sum_n E[n, m]``.

    Args:
        present: presence in the training data, boolean, shape ``(N, M)``.
        normalise: divide by the mean over modalities, so that the loss weights mean the same at every missing rate.

    Returns:
        A, shape ``(M,)``.

    Raises:
        DataError: when a modality is never present.
    """
    counts = present.sum(0)
    if (counts == 0).any():
        raise DataError(f"Modality number {int((counts == 0).nonzero()[0])} is never present in the training data.")
    factor = len(present) / counts.to(torch.float32)
    return factor / factor.mean() if normalise else factor


def capability_gap(lattice: Lattice, values: Tensor, upper: Tensor, present: Tensor, gap: str = "shapley") -> Tensor:
    """How far each modality of each sample falls short of what it can do alone (Eq. 7 of MCE, per sample).

    Args:
        lattice: order of the subsets.
        values: score of every subset of each sample, ``(B, 2^M)``; entries that need an absent modality are ignored.
        upper: score of the frozen single-modality models, ``(B, M)``.
        present: presence, boolean, ``(B, M)``.
        gap: ``"shapley"`` is the paper's ``u - phi``. Its floor is not 0: a perfect model of k modalities keeps
            ``1 - 1/k``. The extensions compare like with like: ``"standalone"`` ``u - v({m})``, ``"scaled"``
            ``u - k phi``, ``"loo"`` ``u - [v(all) - v(all without m)]``.

    Returns:
        The gap, ``(B, M)``, 0 where a modality is absent.
    """
    if gap not in GAPS:
        raise ConfigError(f"gap: expected one of {', '.join(GAPS)}, got {gap!r}.")
    single = torch.ones(lattice.M, dtype=torch.int64, device=values.device) << torch.arange(
        lattice.M, device=values.device
    )
    if gap == "standalone":
        contribution = values[:, single]
    elif gap == "loo":
        everything = lattice.encode(present)[:, None]
        contribution = values.gather(1, everything) - values.gather(1, everything & ~single)
    else:
        contribution = lattice.shapley(values, present)
        if gap == "scaled":
            contribution = contribution * present.sum(1, keepdim=True)
    return torch.where(present, upper - contribution, 0.0)


def learning_state(gap: Tensor, count: Tensor) -> Tensor:
    """B, the batch factor of each modality (Eq. 8 of MCE): the mean gap of the samples that have it, not below 0.

    Args:
        gap: sum of the gaps over the batch, ``(M,)``.
        count: number of samples that have each modality, ``(M,)``.

    Returns:
        B, shape ``(M,)``; 0 where nobody has the modality.
    """
    return torch.where(count > 0, gap / count.clamp(min=1), 0.0).relu()


def sampled_shapley(
    lattice: Lattice, pairs: Pairs, weight: Tensor, scores: Tensor, present: Tensor, empty: Tensor | None = None
) -> Tensor:
    """Unbiased Shapley values from some of the subsets of each sample.

    What each subset scores beyond its even share of the full score is weighted by the inverse of its chance to be
    drawn; the even share has the Shapley value ``v(all) / k`` and is added back, which takes most of the noise out.

    Args:
        lattice: order of the subsets.
        pairs: the (sample, subset) pairs that were scored; every sample's full set is among them.
        weight: inverse probability of each pair, ``(P,)``.
        scores: score of each pair, ``(P,)``.
        present: presence, boolean, ``(B, M)``.
        empty: score of the empty subset, ``(B,)``; 0 when left out.

    Returns:
        Estimates of phi, ``(B, M)``, 0 where a modality is absent.
    """
    sizes = present.sum(1).clamp(min=1).to(scores.dtype)
    available = lattice.encode(present)
    whole = pairs.codes == available[pairs.rows]
    full = scores.new_zeros(len(present)).index_put((pairs.rows[whole],), scores[whole])
    chosen = lattice.decode(pairs.codes)
    size, k = chosen.sum(1).to(scores.dtype), sizes[pairs.rows]
    beyond = (scores - full[pairs.rows] * size / k) * weight

    def share(members: Tensor) -> Tensor:  # |S|! (k - |S| - 1)! / k!
        return torch.exp(torch.lgamma(members + 1) + torch.lgamma((k - members).clamp(min=1)) - torch.lgamma(k + 1))

    inside, outside = share((size - 1).clamp(min=0)), share(size.clamp(max=k - 1))
    member = chosen & present[pairs.rows]
    other = ~chosen & present[pairs.rows]
    marginal = beyond[:, None] * (member * inside[:, None] - other * outside[:, None])
    shared = full if empty is None else full - empty  # the empty set enters each contribution with -1 / k
    phi = (shared / sizes)[:, None] * present
    return phi.to(scores.dtype).index_add(0, pairs.rows, marginal.to(scores.dtype)) * present


def released_shapley(hits: Tensor, k: int, among: Tensor | None = None) -> Tensor:
    """The contribution that the released code of MCE computes; not a Shapley value.

    Subset hit counts are summed over the batch first, and every larger coalition is compared with the modality
    alone: ``w(0, k) v({i}) + sum_{S containing i, |S| > 1} w(|S| - 1, k) [v(S) - v({i})]``.

    Args:
        hits: sum of the scores over the samples for which each subset is feasible, ``(2^M,)``.
        k: what stands for the number of players: ``2^M - 1`` or the number of modalities present in the batch.
        among: boolean, ``(M,)``: subsets with other modalities are left out.

    Returns:
        The released contribution of each modality, ``(M,)``.
    """
    M = (len(hits) - 1).bit_length()
    lattice = Lattice([str(m) for m in range(M)])
    members = lattice.decode(lattice.codes).to(hits.device)
    size = members.sum(1)
    counted = torch.ones_like(size).bool() if among is None else ~(members & ~among).any(1)
    s = (size - 1).clamp(min=0).to(torch.float64)
    players = torch.tensor(float(k), dtype=torch.float64)
    share = torch.exp(torch.lgamma(s + 1) + torch.lgamma(players - s) - torch.lgamma(players + 1)).to(hits)
    contribution = []
    for m in range(M):
        alone = hits[1 << m]
        larger = members[:, m] & (size > 1) & counted
        contribution.append(share[1 << m] * alone + (share * (hits - alone))[larger].sum())
    return torch.stack(contribution)
