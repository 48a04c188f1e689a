"""Shared and specific features: what is shared stands in for what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError, did_you_mean
from lacunar.models.channels import ChannelMLP
from lacunar.models.configurable import Configurable
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.base import Objective, Stage, available_codes, batch_mean
from lacunar.objectives.features import feature_width
from lacunar.objectives.patterns import random_subsets
from lacunar.objectives.placing import beside
from lacunar.objectives.ranges import Between, Ranges

__all__ = ["ShaSpec", "SharedSpecific"]


class SharedSpecific(Configurable):
    """A shared and a specific view of every modality; the shared views of what is there replace what is not.

    ``f_m = s_m + W [s_m; r_m]`` where m is present, the mean of the available ``s`` where it is absent, with
    ``s_m = E_s(h_m)`` and ``r_m = E_m(h_m)``. It takes the place of a completion module.

    Args:
        features: width C of one modality.
        modalities: their number M.
        substitute: ``"mean"`` of the available shared views, or the ``"first"`` of them, as the released code.

    Shapes:
        ``(P, M, C, *spatial)``, presence ``(P, M)`` -> ``(P, M, C, *spatial)``.
    """

    def __init__(self, features: int, modalities: int, substitute: Literal["mean", "first"] = "mean"):
        super().__init__()
        self.substitute = substitute
        self.shared = ChannelMLP([features, features, features])
        self.specific = nn.ModuleList([ChannelMLP([features, features, features]) for _ in range(modalities)])
        self.compose = ChannelMLP([2 * features, features])

    def views(self, h: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Shared and specific views, ``(P, M, C, *spatial)`` each, exact zeros where absent."""
        shared, specific = torch.zeros_like(h), torch.zeros_like(h)
        for m, encoder in enumerate(self.specific):
            rows = present[:, m].nonzero().squeeze(1)
            own = h[rows, m]
            place = rows, rows.new_tensor(m)
            shared = shared.index_put(place, self.shared(own).to(h.dtype))
            specific = specific.index_put(place, encoder(own).to(h.dtype))
        return shared, specific

    def join(self, shared: Tensor, specific: Tensor, present: Tensor) -> Tensor:
        """Features of all modalities from the views of those that are present."""
        seen = present.view(*present.shape, *[1] * (shared.ndim - 2))
        both = torch.cat([shared, specific], 2).flatten(0, 1)
        own = shared + self.compose(both).view_as(shared)
        if self.substitute == "mean":
            stand_in = (shared * seen).sum(1) / seen.sum(1).clamp(min=1)
        else:
            stand_in = shared[torch.arange(len(shared), device=shared.device), present.int().argmax(1)]
        return torch.where(seen, own, stand_in[:, None])

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """Features of all modalities from ``h``, which holds zeros where ``present`` is False."""
        return self.join(*self.views(h, present), present)


class ShaSpec(Objective):
    r"""ShaSpec: shared-specific feature modelling, trained on random subsets of what each sample has.

    ``L = task + alignment * L_dao + domain * L_dco``: shared views of different modalities are drawn together (mean
    L1 distance over the rows that have both of a pair, summed over pairs), and specific views must tell which modality
    they come from. A first stage trains on everything present, the second on random subsets (a uniform number of
    modalities, then a uniform subset of that size). Both losses leave out what a sample lacks; the release applies
    them to zeros too.

    The original was published for volumes, with convolutional encoders of its own; here the shared and specific
    encoders are layers on the features of the model's encoders, at every position of space. The domain classifier
    reads specific views averaged over space.

    For every task, label maps included, and for incomplete training data, of two modalities or more. Stages:
    everything present, which selects nothing, then random subsets.

    Args:
        alignment: alpha of the paper.
        domain: beta of the paper.
        warmup: share of the epochs that train on everything present (80k of 260k steps in the release).
        variant: ``"paper"``, or ``"released"``: the first available shared view stands in, and the alignment runs
            over neighbouring modalities only.
        label_smoothing: see :class:`Objective`.

    Raises:
        ConfigError: an option out of range.

    References:
        Wang et al., *Multi-modal Learning with Missing Modality via Shared-Specific Feature Modelling*, CVPR 2023,
        arXiv:2307.14126.
    """

    ranges: ClassVar[Ranges] = {"alignment": Between(0.01, 1.0, log=True), "domain": Between(0.005, 0.2, log=True)}

    def __init__(
        self,
        alignment: float = 0.1,
        domain: float = 0.02,
        warmup: float = 0.3,
        variant: Literal["paper", "released"] = "paper",
        label_smoothing: float | None = None,
    ):
        if not 0 <= warmup < 1:
            raise ConfigError(f"ShaSpec: warmup: expected a share of the epochs in [0, 1), got {warmup}.")
        if variant not in ("paper", "released"):
            raise ConfigError(f"ShaSpec: unknown variant {variant!r}.{did_you_mean(variant, ('paper', 'released'))}")
        self.warmup, self.variant = warmup, variant
        super().__init__(label_smoothing)
        if not alignment >= 0 or not domain >= 0:
            raise ConfigError(f"ShaSpec: alignment and domain: expected numbers >= 0, got {alignment} and {domain}.")
        self.alignment, self.domain = float(alignment), float(domain)
        self.views: SharedSpecific | None = None
        self.domain_head: nn.Linear | None = None

    def stages(self) -> Sequence[Stage]:
        dropping = Stage("random subsets", 1 - self.warmup)
        return (dropping,) if self.warmup == 0 else (Stage("everything present", self.warmup, selects=False), dropping)

    def setup(self, model: MultimodalModel, data: MultimodalDataset) -> None:
        super().setup(model, data)
        M = len(data.names)
        if M < 2:
            raise ConfigError(f"ShaSpec shares between modalities: expected at least 2, got {', '.join(data.names)}.")
        width = feature_width(model, data)
        self.views = beside(model, SharedSpecific(width, M, "mean" if self.variant == "paper" else "first"))
        self.domain_head = beside(model, nn.Linear(width, M))

    def build(self, model: nn.Module) -> nn.Module:
        assert isinstance(model, MultimodalModel)
        return self.with_parts(model, completion=self.views)

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        available_codes(model.lattice, batch, batch.present)
        if self.stage.name == "random subsets":
            batch = batch.hide(random_subsets(batch.present))
        predictor = self.build(model)
        assert isinstance(predictor, MultimodalModel)
        assert self.views is not None
        target, features = self._target(batch), predictor.encode(batch)
        shared, specific = self.views.views(features.h, features.present)
        completed = self.views.join(shared, specific, features.present)
        fused = predictor.fusion(completed, torch.ones_like(features.present))
        terms = {"task": batch_mean(self.losses(predictor.head(fused), target))}
        if self.alignment > 0:
            terms["alignment"] = self.alignment * self._aligned(shared, features.present)
        if self.domain > 0:
            rows, which = features.present.nonzero(as_tuple=True)
            seen = specific[rows, which]
            assert self.domain_head is not None
            guess = self.domain_head(seen.flatten(2).mean(2) if seen.ndim > 2 else seen)
            terms["domain"] = self.domain * batch_mean(nn.functional.cross_entropy(guess, which, reduction="none"))
        return terms

    def _aligned(self, shared: Tensor, present: Tensor) -> Tensor:
        M = present.shape[1]
        pairs = [(i, j) for i in range(M) for j in range(i + 1, M)]
        if self.variant == "released":
            pairs = sorted({(min(i, (i + 1) % M), max(i, (i + 1) % M)) for i in range(M)})
        distances = []
        for i, j in pairs:
            both = present[:, i] & present[:, j]
            distances.append(batch_mean((shared[both, i] - shared[both, j]).abs().flatten(1).mean(1)))
        return torch.stack(distances).sum()

    def extra_repr(self) -> str:
        return f"alignment={self.alignment}, domain={self.domain}, variant={self.variant!r}"
