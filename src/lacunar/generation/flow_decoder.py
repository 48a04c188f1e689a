"""From images under inverse flows to a missing modality: combining several sources, and decoding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lacunar.errors import ConfigError, did_you_mean
from lacunar.models.configurable import Configurable

__all__ = ["COMBINES", "DECODERS", "ChannelAttentionDecoder", "Combine", "ResidualDecoder", "make_decoder"]

COMBINES = ("mean", "gate", "concat")
DECODERS = ("residual", "attention", "identity")


class Combine(Configurable):
    """One image out of those that the available sources give.

    Args:
        features: channels C.
        modalities: number of modalities M, any.
        how: ``"mean"`` over the available sources, whatever their order; ``"gate"``, their average weighted by a
            softmax over learned scores of the available ones; ``"concat"``, a linear map of all M images, zeros
            where there is none, with flags that tell which there are. All three start as the mean, ``"concat"``
            as the sum over M.
    """

    def __init__(self, features: int, modalities: int, how: str = "mean"):
        super().__init__()
        if how not in COMBINES:
            raise ConfigError(f"Unknown way to combine sources {how!r}.{did_you_mean(how, COMBINES)}")
        self.how = how
        if how == "gate":
            self.score = nn.Linear(features, 1)
            self.source = nn.Parameter(torch.zeros(modalities))
            nn.init.zeros_(self.score.weight)
            nn.init.zeros_(self.score.bias)
        elif how == "concat":
            self.join = nn.Linear(modalities * (features + 1), features)
            with torch.no_grad():
                flags = torch.zeros(features, modalities)
                self.join.weight.copy_(torch.cat([torch.eye(features).repeat(1, modalities) / modalities, flags], 1))
                self.join.bias.zero_()

    def forward(self, images: Tensor, sources: Tensor) -> Tensor:
        """One image per row.

        Args:
            images: ``(n, M, T, C)``, zeros where there is no source.
            sources: which there are, boolean, shape ``(n, M)``, at least one in each row.

        Returns:
            ``(n, T, C)``.
        """
        there = sources.to(images.dtype)
        if self.how == "mean":
            return torch.einsum("nmtc,nm->ntc", images, there / there.sum(1, keepdim=True).clamp_min(1))
        if self.how == "gate":
            scores = self.score(images).squeeze(-1) + self.source[:, None]
            weights = scores.masked_fill(~sources[..., None], -torch.inf).softmax(dim=1)
            return torch.einsum("nmtc,nmt->ntc", images, weights)
        flat = images.transpose(1, 2).flatten(2)
        flags = there[:, None].expand(-1, flat.shape[1], -1)
        return self.join(torch.cat([flat, flags], dim=-1))


class ResidualDecoder(Configurable):
    """A linear map and a small network beside it that starts at zero; each step of a sequence by itself.

    It is told which sources there were, because the best correction for one is not the best for three.

    Args:
        features: channels C of the combined image.
        modalities: number of modalities M.
        out: numbers that come out; C when left out, and then the decoder starts as a copy.
        hidden: width of the network.
        dropout: probability of dropout inside it.
    """

    def __init__(
        self, features: int, modalities: int, out: int | None = None, hidden: int = 64, dropout: float = 0.1
    ):  # fmt: skip
        super().__init__()
        self.linear = nn.Linear(features, out or features)
        self.network = nn.Sequential(
            nn.Linear(features + modalities, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, out or features),
        )
        for parameter in (*self.linear.parameters(), *self.network[-1].parameters()):
            nn.init.zeros_(parameter)
        if out in (None, features):
            nn.init.eye_(self.linear.weight)

    def forward(self, image: Tensor, sources: Tensor) -> Tensor:
        """``(n, T, out)`` from the image ``(n, T, C)`` and the sources ``(n, M)`` it was made of."""
        flags = sources.to(image.dtype)[:, None].expand(-1, image.shape[1], -1)
        return self.linear(image) + self.network(torch.cat([image, flags], dim=-1))


class ChannelAttentionDecoder(Configurable):
    """The published decoder: residual blocks of convolutions over time with attention over channels.

    Args:
        features: channels C.
        blocks: residual blocks; 20 in the paper.
        reduction: how much narrower the bottleneck of the attention is than its 2 C channels.
    """

    def __init__(self, features: int, blocks: int = 4, reduction: int = 16):
        super().__init__()
        width = 2 * features
        self.widen = nn.Conv1d(features, width, 1)
        self.blocks = nn.ModuleList(_AttentionBlock(width, reduction) for _ in range(blocks))
        self.after = nn.Conv1d(width, width, 3, padding=1)
        self.narrow = nn.Conv1d(width, features, 1)

    def forward(self, image: Tensor, sources: Tensor) -> Tensor:
        """``(n, T, C)`` from the image ``(n, T, C)``; the sources are not looked at."""
        wide = self.widen(image.transpose(1, 2))
        deep = wide
        for block in self.blocks:
            deep = block(deep)
        return self.narrow(wide + self.after(deep)).transpose(1, 2)


class _AttentionBlock(nn.Module):
    def __init__(self, width: int, reduction: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=1), nn.ReLU(), nn.Conv1d(width, width, 3, padding=1)
        )  # fmt: skip
        narrow = max(width // reduction, 1)
        self.attention = nn.Sequential(
            nn.Conv1d(width, narrow, 1), nn.ReLU(), nn.Conv1d(narrow, width, 1), nn.Sigmoid()
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        inner = self.body(x)
        return x + inner * self.attention(inner.mean(dim=2, keepdim=True))


class _Identity(nn.Module):
    def forward(self, image: Tensor, sources: Tensor) -> Tensor:
        return image


def make_decoder(
    kind: str, features: int, modalities: int, out: int | None = None, hidden: int = 64, blocks: int = 4
) -> nn.Module:
    """A decoder by name: ``"residual"``, ``"attention"`` or ``"identity"``.

    Raises:
        ConfigError: an unknown name, or one that cannot change the width when ``out`` differs from ``features``.
    """
    if kind not in DECODERS:
        raise ConfigError(f"Unknown decoder {kind!r}.{did_you_mean(kind, DECODERS)}")
    if kind == "residual":
        return ResidualDecoder(features, modalities, out, hidden)
    if out not in (None, features):
        raise ConfigError(f"The {kind} decoder gives {features} channels, not {out}. Use decoder='residual'.")
    return ChannelAttentionDecoder(features, blocks) if kind == "attention" else _Identity()
