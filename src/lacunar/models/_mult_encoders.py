"""Modalities of any kind as sequences of tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lacunar.errors import ConfigError
from lacunar.models.chain import takes_lengths
from lacunar.models.configurable import Configurable
from lacunar.models.encoders._sequence import embed, mean_over_steps, real_steps
from lacunar.models.preprocessing import Standardize

__all__ = ["OwnTokens", "TokenEncoder", "TokenModule"]

KINDS = ("vector", "sequence", "tokens", "image")


class TokenModule(Configurable, ABC):
    """Makes tokens of one modality; as an encoder of any other model it gives their mean.

    Shapes:
        ``(n, ...)``, for sequences with lengths ``(n,)`` -> ``(n, width)``.
    """

    @abstractmethod
    def tokens(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Finite tokens ``(n, T, width)`` and how many of them are real, at least 1, ``(n,)``."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mean of the real tokens, ``(n, width)``."""
        return mean_over_steps(*self.tokens(x, lengths))


class TokenEncoder(TokenModule):
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
        ``(n, *shape)``, or sequences ``(n, T, *shape)`` with lengths ``(n,)`` -> tokens ``(n, T, width)``.
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

    def tokens(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
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


class OwnTokens(TokenModule):
    """Tokens from an encoder of any kind.

    Args:
        encoder: from rows, and lengths if it takes them, to tokens ``(n, T, C)`` with lengths, to features
            ``(n, C)``, which are one token, or to features in space ``(n, C, *spatial)``, whose places are the tokens.
        width: C.
    """

    def __init__(self, encoder: nn.Module, width: int):
        super().__init__()
        self.encoder, self.width = encoder, width
        self._takes_lengths = takes_lengths(encoder)

    def tokens(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        given = [x] if lengths is None or not self._takes_lengths else [x, lengths]
        encoded = self.encoder(*given)
        if isinstance(encoded, tuple):
            tokens, lengths = encoded[0], encoded[1].clamp(min=1)
            # What is masked in attention is still multiplied, by zero: it has to be finite.
            tokens = tokens.masked_fill(~real_steps(lengths, tokens.shape[1])[:, :, None], 0.0)
        else:
            tokens = encoded[:, None] if encoded.ndim == 2 else encoded.flatten(2).transpose(1, 2)
            lengths = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
        if tokens.shape[2] != self.width:
            raise ConfigError(f"MulT: an encoder makes tokens of width {tokens.shape[2]}, expected {self.width}.")
        return tokens, lengths
