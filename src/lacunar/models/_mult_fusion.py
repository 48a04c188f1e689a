"""The two stages of MulT: between every two modalities, once for each sample; and within each, for every subset."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from lacunar.models._mult_layers import Stack
from lacunar.models._mult_tokens import TokenFeatures, TokenView, slots, to_steps
from lacunar.models.configurable import Configurable
from lacunar.models.encoders._sequence import in_buckets
from lacunar.models.multimodal import Features

__all__ = ["CrossFusion"]


class CrossFusion(Configurable):
    """Streams of all modalities that have looked into each other, side by side.

    Args:
        modalities: their number M.
        width: of a token.
        heads, layers, self_layers: of the stacks between two modalities, and within one.
        attention_dropout: by source.
        dropout, embedding_dropout: see :class:`Stack`.
        causal: no step sees later ones.

    Shapes:
        Pooled features ``(P, M, width)``, each read as one token, and presence ``(P, M)``
        -> ``(P, M * max(M - 1, 1) * width)``.
    """

    def __init__(
        self,
        modalities: int,
        width: int,
        heads: int,
        layers: int,
        self_layers: int,
        attention_dropout: Sequence[float],
        dropout: float = 0.1,
        embedding_dropout: float = 0.1,
        causal: bool = False,
    ):
        super().__init__()
        M, streams = modalities, max(modalities - 1, 1)
        self.modalities, self.width, self.causal, self.streams = M, width, causal, streams
        self.out_features = M * streams * width
        self.between = nn.ModuleList(
            Stack(width, heads, layers, attention_dropout[s], dropout, embedding_dropout)
            for t in range(M)
            for s in range(M)
            if s != t
        )
        self.within = nn.ModuleList(
            Stack(streams * width, heads, self_layers, attention_dropout[t], dropout, embedding_dropout, streams)
            for t in range(M)
        )

    def stack(self, t: int, s: int) -> Stack:
        """Through which target t looks into source s."""
        stack = self.between[t * (self.modalities - 1) + s - (s > t)]
        assert isinstance(stack, Stack)
        return stack

    def forward(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        """Fused features ``(P, F)`` of one token for each modality that is ``chosen (P, M)``."""
        names = [str(m) for m in range(self.modalities)]
        features = TokenFeatures.of(Features(tokens, chosen), names)
        rows = torch.arange(len(tokens), device=tokens.device)
        return self.fuse(TokenView(features, rows, chosen, features.slot, torch.zeros_like(chosen), tokens))

    def cross(
        self, tokens: dict[str, Tensor], lengths: dict[str, Tensor], present: Tensor
    ) -> tuple[dict[tuple[str, str], Tensor], Tensor]:
        """What each target finds in each source of the rows ``(B, M)`` that have both, and where each row's is."""
        names, slot = list(tokens), slots(present)
        both, crossed = present[:, :, None] & present[:, None, :], {}
        for t, target in enumerate(names):
            for s, source in enumerate(names):
                if s != t:
                    rows = both[:, t, s].nonzero().squeeze(1)
                    at, to = slot[rows, t], slot[rows, s]
                    crossed[target, source] = self.stack(t, s)(
                        tokens[target][at], lengths[target][at], tokens[source][to], lengths[source][to], self.causal
                    )
        return crossed, slots(both)

    def fuse(self, view: TokenView) -> Tensor:
        """Read-outs of all targets, ``(P, F)``; zeros for those that are not on, the others enlarged for them."""
        count, M = view.on.shape
        cells, read = [], []
        for t in range(M):
            pairs = view.on[:, t].nonzero().squeeze(1)
            cells.append(pairs * M + t)
            read.append(self._read_out(view, t, pairs))
        v = torch.cat(read)
        v = v.new_zeros(count * M, v.shape[1]).index_copy(0, torch.cat(cells), v).view(count, M, v.shape[1])
        # As many streams as there are keep the size that all of them would have.
        return (v * (M / view.on.sum(1).clamp(min=1).to(v.dtype))[:, None, None]).flatten(1)

    def _read_out(self, view: TokenView, t: int, pairs: Tensor) -> Tensor:
        """``v_t`` of those pairs ``(n,)`` that have the stream t, ``(n, streams * width)``."""
        real = view.real[pairs, t]
        read = partial(self.within[t], causal=self.causal, last=True)
        if self.modalities == 1:
            own, lengths = view.tokens(t, pairs)
            return in_buckets(read, own, lengths)
        others = [s for s in range(self.modalities) if s != t]
        steps = view.steps(t) if bool(real.any()) else 1
        z = torch.stack([self._found(view, t, s, pairs, steps) for s in others], 2)
        have = view.on[pairs][:, others]
        if not bool(have.all()):
            count = have.sum(1)
            usual = z.sum(2) / count.clamp(min=1)[:, None, None].to(z.dtype)
            alone = (count == 0).nonzero().squeeze(1)
            if len(alone):
                own, _ = view.tokens(t, pairs[alone])
                usual = usual.index_copy(0, alone, to_steps(own, steps).to(usual.dtype))
            z = torch.where(have[:, None, :, None], z, usual[:, :, None])
        return in_buckets(read, z.flatten(2), view.lengths(t, pairs))

    def _found(self, view: TokenView, t: int, s: int, pairs: Tensor, steps: int) -> Tensor:
        """``c_ts`` of some pairs ``(n,)``, zeros where s is not on, ``(n, steps, width)``."""
        ready = view.real[pairs, t] & view.real[pairs, s]
        at = ready.nonzero().squeeze(1)
        crossed = view.crossed(t, s, pairs[at])[:, :steps]
        if len(at) == len(pairs):
            return crossed
        c = crossed.new_zeros(len(pairs), steps, self.width).index_copy(0, at, crossed)
        rest = (view.on[pairs, s] & ~ready).nonzero().squeeze(1)
        if len(rest):
            x, lengths = view.tokens(t, pairs[rest])
            source, source_lengths = view.tokens(s, pairs[rest])
            made = self.stack(t, s)(x, lengths, source, source_lengths, self.causal)
            c = c.index_copy(0, rest, to_steps(made, steps).to(c.dtype))
        return c
