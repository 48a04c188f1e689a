"""Modalities of any kind as sequences of tokens, and what MulT knows of a batch once they are encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from lacunar.errors import ConfigError
from lacunar.models.configurable import Configurable
from lacunar.models.encoders._sequence import embed, real_steps
from lacunar.models.multimodal import Features
from lacunar.models.preprocessing import Standardize

__all__ = ["TokenEncoder", "TokenFeatures", "TokenView", "slots", "spread", "to_steps"]

KINDS = ("vector", "sequence", "tokens", "image")


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


class TokenEncoder(Configurable):
    """Samples of one modality as tokens of one width: standardised, cut into tokens, convolved over time.

    A vector is one token, a step of a sequence is one, a symbol of a text is one, and so is a patch of an image.

    Args:
        kind: ``"vector"``, ``"sequence"``, ``"tokens"`` or ``"image"``.
        shape: of a sample, of sequences without their steps.
        width: C of the tokens.
        kernel: steps that the convolution sees; its ends are filled up, so that T stays what it is.
        dropout: rate on the raw steps.
        causal: the convolution sees no later step.
        vocabulary: number of symbols, for ``"tokens"``.
        patch: height and width of a patch of an image; one row of pixels when left out.
        steps: cut or fill up every sequence to this many steps and count all as real, as the released code does.
        standardize: scale by statistics of the train rows, see :class:`Standardize`; not for tokens.

    Shapes:
        ``(n, *shape)``, or sequences ``(n, T, *shape)`` with lengths ``(n,)`` -> ``(n, T, width)`` and lengths.
    """

    def __init__(
        self,
        kind: str,
        shape: Sequence[int],
        width: int,
        kernel: int = 1,
        dropout: float = 0.0,
        causal: bool = False,
        vocabulary: int | None = None,
        patch: Sequence[int] | None = None,
        steps: int | None = None,
        standardize: bool = True,
    ):
        super().__init__()
        if kind not in KINDS:
            raise ConfigError(
                f"MulT turns {', '.join(KINDS)} into tokens, not a {kind}: give encoders={{name: module}}."
            )
        if kernel < 1:
            raise ConfigError(f"MulT: kernel: expected a number of steps from 1, got {kernel}.")
        self.kind, self.width, self.causal, self.steps = kind, width, causal, steps
        self.kernel = kernel if kind in ("sequence", "tokens") else 1
        self.scale = Standardize(shape) if standardize and kind != "tokens" else None
        self.embedding = None
        self.patch: tuple[int, ...] | None = None
        if kind == "tokens":
            if vocabulary is None:
                raise ConfigError("MulT: tokens need vocabulary={name: number of symbols}.")
            self.embedding = nn.Embedding(vocabulary, width)
            columns = width
        elif kind == "image":
            self.patch = (1, shape[2]) if patch is None else tuple(patch)
            if len(self.patch) != 2 or any(size % side for size, side in zip(shape[1:], self.patch)):
                raise ConfigError(f"MulT: patches of {self.patch} do not divide images of {tuple(shape[1:])}.")
            columns = shape[0] * self.patch[0] * self.patch[1]
        else:
            columns = shape[0]
        self.columns = columns
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Conv1d(columns, width, self.kernel, bias=False)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens ``(n, T, width)`` and how many of them are real, ``(n,)``."""
        if self.scale is not None:
            x = self.scale(x, lengths) if self.kind == "sequence" else self.scale(x)
        if self.patch is not None:
            down, right = (side // size for side, size in zip(x.shape[2:], self.patch))
            cut = x.unflatten(3, (right, -1)).unflatten(2, (down, -1))
            x = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        elif self.kind == "vector":
            x = x[:, None]
        else:
            x = embed(x, self.embedding, self.columns, lengths)
        if lengths is None or self.kind not in ("sequence", "tokens"):
            lengths = torch.full((len(x),), x.shape[1], device=x.device)
        elif self.steps is not None:
            x = functional.pad(x[:, : self.steps], (0, 0, 0, max(0, self.steps - x.shape[1])))
            lengths = torch.full_like(lengths, self.steps)
        ahead = 0 if self.causal else (self.kernel - 1) // 2
        steps = functional.pad(self.dropout(x).transpose(1, 2), (self.kernel - 1 - ahead, ahead))
        return self.project(steps).transpose(1, 2), lengths.clamp(min=1)


def spread(encoded: Tensor | tuple[Tensor, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Tokens and lengths from what an encoder of any kind returns.

    Args:
        encoded: tokens ``(n, T, C)`` with lengths, features ``(n, C)``, which are one token, or features in space
            ``(n, C, *spatial)``, whose places are the tokens.
        name: of the modality.
    """
    if isinstance(encoded, tuple):
        tokens, lengths = encoded[0], encoded[1].clamp(min=1)
        # What is masked in attention is still multiplied, by zero: it has to be finite.
        return tokens.masked_fill(~real_steps(lengths, tokens.shape[1])[:, :, None], 0.0), lengths
    if encoded.ndim < 2:
        raise ConfigError(f"MulT: the encoder of {name!r} returned shape {tuple(encoded.shape)}, expected (n, C, ...).")
    tokens = encoded.flatten(2).transpose(1, 2) if encoded.ndim > 2 else encoded[:, None]
    return tokens, torch.full((len(tokens),), tokens.shape[1], device=tokens.device)


@dataclass
class TokenView:
    """What P (sample, subset) pairs show: ``on`` streams exist, ``real`` ones have tokens, others are ``single``."""

    features: TokenFeatures
    rows: Tensor
    on: Tensor
    slot: Tensor
    real: Tensor
    single: Tensor
    completed: Tensor

    def lengths(self, name: str, m: int, pairs: Tensor) -> Tensor:
        """Steps of modality m of some of the pairs, ``(n,)``."""
        real, lengths = self.real[pairs, m], torch.ones_like(pairs)
        return lengths.masked_scatter(real, self.features.lengths[name][self.slot[pairs, m][real]])

    def tokens(self, name: str, m: int, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of modality m of some of the pairs, ``(n, T, C)``, and how many are real."""
        real, slot, tokens = self.real[pairs, m], self.slot[pairs, m], self.features.tokens[name]
        if bool(real.all()):
            return tokens[slot], self.features.lengths[name][slot]
        x, at = self.single[pairs, m][:, None], real.nonzero().squeeze(1)
        if len(at):
            x = to_steps(x, tokens.shape[1]).index_copy(0, at, tokens[slot[at]])
        return x, self.lengths(name, m, pairs)


def to_steps(x: Tensor, steps: int) -> Tensor:
    """``x (n, T, C)`` filled up with zeros to so many steps."""
    return functional.pad(x, (0, 0, 0, steps - x.shape[1])) if x.shape[1] < steps else x


def slots(there: Tensor) -> Tensor:
    """Position of each row among those that are there, along the first axis; -1 where it is not."""
    return (there.cumsum(0) - 1).masked_fill(~there, -1)
