"""UniMF: translators generate missing modalities, and a transformer fuses them through one shared token."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError
from lacunar.models.completion import divisor_of
from lacunar.models.configurable import Configurable
from lacunar.models.heads import unimodal_head
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.base import Objective, available_codes, batch_mean
from lacunar.objectives.features import feature_width, refuse_space
from lacunar.objectives.patterns import random_patterns
from lacunar.objectives.placing import beside
from lacunar.objectives.ranges import Between, OneOf, Ranges

__all__ = ["BottleneckFusion", "Translator", "UniMF", "fusion_attention", "translation_attention"]


def translation_attention(modalities: int, tokens: int, target_tokens: int) -> Tensor:
    """Who may attend to whom in translation: boolean ``(L, L)``, True where a row may look at a column.

    The sequence is the tokens of every source modality, START, and the shifted target. A source looks within itself
    and at START; START at all sources; a target at START and at targets up to itself. So START is the only bridge.
    """
    owner = torch.arange(modalities).repeat_interleave(tokens)
    sources, length = len(owner), len(owner) + 1 + target_tokens
    allowed = torch.zeros(length, length, dtype=torch.bool)
    allowed[:sources, :sources] = owner[:, None] == owner[None]
    allowed[:, sources] = True
    allowed[sources, : sources + 1] = True
    allowed[sources + 1 :, sources + 1 :] = torch.ones(target_tokens, target_tokens, dtype=torch.bool).tril()
    return allowed


def fusion_attention(modalities: int, tokens: int) -> Tensor:
    """Who may attend to whom in fusion, ``[CLS; modality tokens]``: modalities meet only in CLS, which sees all."""
    owner = torch.cat([torch.tensor([-1]), torch.arange(modalities).repeat_interleave(tokens)])
    allowed = owner[:, None] == owner[None]
    allowed[0], allowed[:, 0] = True, True
    return allowed


class _Tokens(nn.Module):
    """A modality's features cut into a few tokens, with positions and types."""

    def __init__(self, features: int, modalities: int, tokens: int, width: int, dropout: float):
        super().__init__()
        self.tokens = tokens
        self.embed = nn.Sequential(nn.Linear(features // tokens, width), nn.ReLU(), nn.Dropout(dropout))
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.kinds = nn.Parameter(0.02 * torch.randn(modalities, width))

    def forward(self, h: Tensor, kinds: Tensor) -> Tensor:
        """``(n, m, C)`` of the modalities ``kinds`` ``(n, m)`` -> ``(n, m, tokens, width)``."""
        return self.embed(h.unflatten(2, (self.tokens, -1))) + self.position + self.kinds[kinds][:, :, None]


def _encoder(width: int, heads: int, layers: int, dropout: float) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        width, divisor_of(width, heads), 4 * width, dropout, "relu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)


class Translator(Configurable):
    """One autoregressive transformer that generates any modality from any others; takes the place of a completion.

    Features are cut into ``tokens`` parts, which stand for the frames of the published sequences. One network
    serves all pairs of source set and target, told apart by type embeddings.

    Args:
        features: width C of one modality.
        modalities: their number M.
        tokens: parts a modality is cut into, lowered to a divisor of C.
        width: D, of a token inside.
        heads, layers, dropout: of the transformer.

    Shapes:
        ``(P, M, C)``, presence ``(P, M)`` -> ``(P, M, C)``.
    """

    allowed: Tensor

    def __init__(
        self,
        features: int,
        modalities: int,
        tokens: int = 4,
        width: int = 32,
        heads: int = 8,
        layers: int = 2,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.tokens = divisor_of(features, tokens)
        self.modalities, self.part = modalities, features // self.tokens
        self.embed = _Tokens(features, modalities, self.tokens, width, dropout)
        self.shifted = nn.Linear(self.part, width)
        self.start = nn.Parameter(0.02 * torch.randn(modalities, width))
        self.encoder = _encoder(width, heads, layers, dropout)
        self.output = nn.Linear(width, self.part)
        allowed = translation_attention(modalities, self.tokens, self.tokens - 1)
        self.register_buffer("allowed", allowed, persistent=False)

    def translate(self, h: Tensor, source: Tensor, target: Tensor, truth: Tensor | None = None) -> Tensor:
        """Features of one modality for each row.

        Args:
            h: features, ``(n, M, C)``.
            source: which of them may be read, boolean, ``(n, M)``.
            target: which modality to make, ``(n,)``.
            truth: its features ``(n, C)``, for teacher forcing; None generates one token after another.

        Returns:
            ``(n, C)``.
        """
        if len(h) == 0:  # which attention in torch refuses
            return h.new_zeros(0, h.shape[2])
        kinds = torch.arange(self.modalities, device=h.device).expand(len(h), -1)
        sources = self.embed(h * source[:, :, None], kinds).flatten(1, 2)
        hidden = torch.cat(
            [~source.repeat_interleave(self.tokens, 1), source.new_zeros(len(h), self.tokens)], 1
        )  # START and targets are always there
        if truth is not None:
            before = truth.unflatten(1, (self.tokens, -1))[:, :-1]
            sequence = torch.cat([sources, self._start(target), self._targets(before, target)], 1)
            seen = self.encoder(sequence, mask=~self.allowed, src_key_padding_mask=hidden)
            return self.output(seen[:, sources.shape[1] :]).flatten(1)
        return self._generate(torch.cat([sources, self._start(target)], 1), hidden, target).flatten(1)

    def _start(self, target: Tensor) -> Tensor:
        return (self.start[target] + self.embed.kinds[target])[:, None]

    def _targets(self, before: Tensor, target: Tensor) -> Tensor:
        return self.shifted(before) + self.embed.position[: before.shape[1]] + self.embed.kinds[target][:, None]

    def _generate(self, prefix: Tensor, hidden: Tensor, target: Tensor) -> Tensor:
        """One token after another, ``(n, tokens, part)``, after the sources and START.

        Targets see nothing of the sources but START, which sees no target: the prefix passes the layers once, and
        START is kept as it enters each.
        """
        layers, norm, length = self.encoder.layers, self.encoder.norm, prefix.shape[1]
        assert norm is not None
        barred, hidden, starts = ~self.allowed, hidden[:, :length].contiguous(), []
        for layer in layers:
            starts.append(prefix[:, -1:])
            prefix = layer(prefix, src_mask=barred[:length, :length], src_key_padding_mask=hidden)
        made = self.output(norm(prefix[:, -1:]))
        for count in range(1, self.tokens):
            seen, among = self._targets(made, target), slice(length - 1, length + count)
            for layer, start in zip(layers, starts):
                seen = layer(torch.cat([start, seen], 1), src_mask=barred[among, among])[:, 1:]
            made = torch.cat([made, self.output(norm(seen[:, -1:]))], 1)
        return made

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """Features with those of absent modalities generated from what is there."""
        rows, target = (~present).nonzero(as_tuple=True)
        if len(rows) == 0:
            return h
        return h.index_put((rows, target), self.translate(h[rows], present[rows], target).to(h.dtype))


class BottleneckFusion(Configurable):
    """A transformer in which modalities meet only in a CLS token, which is read out through a residual MLP.

    Args:
        features: width C of one modality.
        modalities: their number M.
        tokens, width, heads, layers, dropout: see :class:`Translator`.

    Shapes:
        ``(P, M, C)``, presence ``(P, M)`` -> ``(P, width)``.
    """

    allowed: Tensor

    def __init__(
        self,
        features: int,
        modalities: int,
        tokens: int = 4,
        width: int = 32,
        heads: int = 8,
        layers: int = 2,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.tokens = divisor_of(features, tokens)
        self.embed = _Tokens(features, modalities, self.tokens, width, dropout)
        self.cls = nn.Parameter(0.02 * torch.randn(width))
        self.encoder = _encoder(width, heads, layers, dropout)
        self.residual = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width))
        self.register_buffer("allowed", fusion_attention(modalities, self.tokens), persistent=False)
        self.out_features = width

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """The CLS token after all layers."""
        kinds = torch.arange(h.shape[1], device=h.device).expand(len(h), -1)
        tokens = self.embed(h, kinds).flatten(1, 2)
        sequence = torch.cat([self.cls.expand(len(h), 1, -1), tokens], 1)
        hidden = torch.cat([present.new_zeros(len(h), 1), ~present.repeat_interleave(self.tokens, 1)], 1)
        cls = self.encoder(sequence, mask=~self.allowed, src_key_padding_mask=hidden)[:, 0]
        return cls + self.residual(cls)


class UniMF(Objective):
    r"""UniMF: translation of what is missing, and fusion of real and generated modalities, in one step.

    ``L = task + translation * MSE(translated, true)``. Each batch shows a random subset of what each sample has; the
    rest is generated, token after token and without gradient, before fusion. The translator learns with teacher
    forcing wherever the truth is there: for every modality a sample has, from the others that are shown.

    The published method trains one model for each pattern, on complete data, and translates sequences; this is its
    port to incomplete data with one model for all patterns, on the features of the model's encoders cut into
    tokens. Features are taken as constants by the translation loss: encoders that are trained on it could make it
    vanish by collapsing.

    For classification, several labels and numbers, with incomplete training data whose features are vectors. One stage.

    Args:
        translation: weight of the translation loss.
        tokens: tokens of a modality.
        width: of a token.
        layers: of translator and fusion.
        dropout: of both.
        label_smoothing: see :class:`Objective`.

    Raises:
        ConfigError: an option out of range.

    References:
        Huan et al., *UniMF: A Unified Multimodal Framework for Multimodal Sentiment Analysis in Missing Modalities and
        Unaligned Multimodal Sequences*, IEEE TMM 2023, doi:10.1109/TMM.2023.3338769.
    """

    ranges: ClassVar[Ranges] = {
        "translation": Between(0.1, 3.0, log=True),
        "layers": OneOf((1, 2, 3)),
        "dropout": Between(0.0, 0.5),
    }

    task_kinds: ClassVar[frozenset[str]] = frozenset({"classification", "multilabel", "regression"})

    def __init__(
        self,
        translation: float = 1.0,
        tokens: int = 4,
        width: int = 32,
        layers: int = 2,
        dropout: float = 0.1,
        label_smoothing: float | None = None,
    ):
        super().__init__(label_smoothing)
        if not translation >= 0 or not 0 <= dropout < 1:
            raise ConfigError(
                f"UniMF: expected translation >= 0 and dropout in [0, 1), got {translation} and {dropout}."
            )
        if min(tokens, width, layers) < 1:
            raise ConfigError(f"UniMF: tokens, width and layers: expected at least 1, got {tokens}, {width}, {layers}.")
        self.translation, self.tokens, self.width = float(translation), tokens, width
        self.layers, self.dropout = layers, dropout
        self.translator: Translator | None = None
        self.fusion: BottleneckFusion | None = None
        self.head: nn.Module | None = None

    def setup(self, model: MultimodalModel, data: MultimodalDataset) -> None:
        super().setup(model, data)
        M = len(data.names)
        if M < 2:
            raise ConfigError(f"UniMF translates between modalities: expected at least 2, got {M}.")
        refuse_space(self, model, data)
        sizes = feature_width(model, data), M, self.tokens, self.width, 8, self.layers, self.dropout
        self.translator = beside(model, Translator(*sizes))
        self.fusion = beside(model, BottleneckFusion(*sizes))
        self.head = beside(model, unimodal_head(model.head, self.width))

    def build(self, model: nn.Module) -> nn.Module:
        assert isinstance(model, MultimodalModel)
        return self.with_parts(model, completion=self.translator, fusion=self.fusion, head=self.head)

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        assert self.translator is not None
        assert self.fusion is not None
        assert self.head is not None
        target = self._target(batch)
        available_codes(model.lattice, batch, batch.present)
        h, present = model.encode(batch).h, batch.present
        shown = random_patterns(present, everything=True)
        seen = h * shown[:, :, None]
        with torch.no_grad():
            filled = self.translator(seen, shown)
        filled = torch.where(shown[:, :, None], h, filled)
        fused = self.fusion(filled, torch.ones_like(present))
        terms = {"task": batch_mean(self.losses(self.head(fused), target))}
        if self.translation > 0:
            rows, which = present.nonzero(as_tuple=True)
            source = shown[rows].scatter(1, which[:, None], False)
            some = source.any(1)
            rows, which, source = rows[some], which[some], source[some]
            aim = h.detach()[rows, which]
            made = self.translator.translate(h.detach()[rows], source, which, aim)
            terms["translation"] = self.translation * batch_mean((made - aim).square().mean(1))
        return terms

    def extra_repr(self) -> str:
        return f"translation={self.translation}, tokens={self.tokens}, width={self.width}"
