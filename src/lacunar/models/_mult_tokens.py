"""What MulT knows of a batch once it is encoded, and what it sees of that for (sample, subset) pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from lacunar.models.multimodal import Features

__all__ = ["TokenFeatures", "TokenView", "slots", "to_steps"]


@dataclass
class TokenFeatures(Features):
    """Pooled features, and the tokens that they were pooled from.

    Attributes:
        tokens: of each modality, the projected tokens of the rows that have it, ``(n_m, T_m, C)``; what lies behind
            the end of a row is never read.
        lengths: how many tokens of each of these rows are real, at least 1, ``(n_m,)``.
        slot: where in ``tokens`` each sample's row is, int64 ``(B, M)``; -1 without. Such a cell is read as the one
            token ``h``, which a completer may have made.
        crossed: for each (target, source), what the target's tokens found in the source, ``(n_ts, T_t, C)``, of the
            rows that have both.
        crossed_slot: where in ``crossed[target, source]`` each sample's row is, int64 ``(B, M, M)``; -1 without.
    """

    tokens: dict[str, Tensor] = field(default_factory=dict)
    lengths: dict[str, Tensor] = field(default_factory=dict)
    slot: Tensor = None  # type: ignore[assignment]
    crossed: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    crossed_slot: Tensor = None  # type: ignore[assignment]

    @classmethod
    def of(cls, features: Features, names: Sequence[str]) -> TokenFeatures:
        """Features of any model as those of one token for each modality."""
        if isinstance(features, cls):
            return features
        h, M = features.h, len(names)
        nothing = {name: h.new_zeros(0, 1, h.shape[2]) for name in names}
        return cls(
            h=h,
            present=features.present,
            generated=features.generated,
            tokens=nothing,
            lengths={name: torch.zeros(0, dtype=torch.int64, device=h.device) for name in names},
            slot=torch.full((len(h), M), -1, device=h.device),
            crossed={(t, s): nothing[t] for t in names for s in names if s != t},
            crossed_slot=torch.full((len(h), M, M), -1, device=h.device),
        )

    def take(self, rows: Tensor, chosen: Tensor | None = None) -> Self:
        taken = super().take(rows, chosen)
        slot = self.slot[rows]
        return replace(
            taken,
            slot=slot if chosen is None else slot.masked_fill(~chosen, -1),
            crossed_slot=self.crossed_slot[rows],
        )

    def leaves(self) -> list[Tensor]:
        return [self.h, *self.tokens.values(), *self.crossed.values()]

    def detached(self, requires_grad: bool = False) -> Self:
        free = super().detached(requires_grad)
        return replace(
            free,
            tokens={key: value.detach().requires_grad_(requires_grad) for key, value in self.tokens.items()},
            crossed={key: value.detach().requires_grad_(requires_grad) for key, value in self.crossed.items()},
        )


@dataclass
class TokenView:
    """What P (sample, subset) pairs show of some features.

    Attributes:
        features: of a batch.
        rows: position of each pair in the batch, ``(P,)``.
        on: which streams exist, ``(P, M)``.
        slot: where each pair's tokens are, see :class:`TokenFeatures`.
        real: which streams have tokens; the others are the one token ``single``.
        single: ``(P, M, C)``.
    """

    features: TokenFeatures
    rows: Tensor
    on: Tensor
    slot: Tensor
    real: Tensor
    single: Tensor

    def steps(self, m: int) -> int:
        """Steps that the tokens of modality m are padded to."""
        return self.features.tokens[self._name(m)].shape[1]

    def lengths(self, m: int, pairs: Tensor) -> Tensor:
        """Steps of modality m of some of the pairs, ``(n,)``."""
        real, lengths = self.real[pairs, m], torch.ones_like(pairs)
        return lengths.masked_scatter(real, self.features.lengths[self._name(m)][self.slot[pairs, m][real]])

    def tokens(self, m: int, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of modality m of some of the pairs, ``(n, T, C)``, and how many are real."""
        real, slot, tokens = self.real[pairs, m], self.slot[pairs, m], self.features.tokens[self._name(m)]
        if bool(real.all()):
            return tokens[slot], self.features.lengths[self._name(m)][slot]
        # Under mixed precision features may come in another type than tokens.
        x, at = self.single[pairs, m][:, None].to(tokens.dtype), real.nonzero().squeeze(1)
        if len(at):
            x = to_steps(x, tokens.shape[1]).index_copy(0, at, tokens[slot[at]])
        return x, self.lengths(m, pairs)

    def crossed(self, t: int, s: int, pairs: Tensor) -> Tensor:
        """What target t found in source s, of pairs where both are real, ``(n, T_t, C)``."""
        found = self.features.crossed[self._name(t), self._name(s)]
        return found[self.features.crossed_slot[self.rows[pairs], t, s]]

    def _name(self, m: int) -> str:
        return list(self.features.tokens)[m]


def to_steps(x: Tensor, steps: int) -> Tensor:
    """``x (n, T, C)`` filled up with zeros to so many steps."""
    return functional.pad(x, (0, 0, 0, steps - x.shape[1])) if x.shape[1] < steps else x


def slots(there: Tensor) -> Tensor:
    """Position of each row among those that are there, along the first axis; -1 where it is not."""
    return (there.cumsum(0) - 1).masked_fill(~there, -1)
