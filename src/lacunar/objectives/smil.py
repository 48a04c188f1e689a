"""SMIL: meta-learning to impute a missing modality from prototypes, with noise that regularises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError
from lacunar.models.channels import ChannelMLP
from lacunar.models.configurable import Configurable
from lacunar.models.heads import unimodal_head
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.base import Objective, Stage, available_codes, batch_mean
from lacunar.objectives.features import feature_width, refuse_space
from lacunar.objectives.patterns import random_patterns
from lacunar.objectives.placing import beside
from lacunar.objectives.ranges import Between, Ranges
from lacunar.parallel import total

__all__ = ["SMIL", "MetaFusion"]


class MetaFusion(Configurable):
    """Imputation from prototypes and a perturbed hidden layer; it takes the place of a fusion.

    A missing modality is ``sum_k w_k c_k / sum_k w_k`` with ``w = softplus(g_0(what is there) + noise)``, so it lies
    in the convex hull of its prototypes. For rows that lack something, the concatenation ``u`` is raised by
    ``softplus(g_1(what is there) + noise)`` and the hidden layer ``a = ReLU(W u)`` by ``softplus(g_2(u) + noise)``.
    The noise is standard normal in training and absent at prediction; complete rows are never perturbed.

    Args:
        features: width C of one modality.
        modalities: their number M.
        prototypes: number K of prototypes of each modality.
        hidden: width of ``a``.
        dropout: rate on ``a``.

    Shapes:
        ``(P, M, C)``, presence ``(P, M)`` -> ``(P, hidden)``.
    """

    prototypes: Tensor

    def __init__(self, features: int, modalities: int, prototypes: int = 10, hidden: int = 64, dropout: float = 0.5):
        super().__init__()
        width = features * modalities
        self.register_buffer("prototypes", torch.zeros(modalities, prototypes, features))
        self.weigh = ChannelMLP([width + modalities, features, modalities * prototypes])
        self.raise_features = ChannelMLP([width + modalities, features, width])
        self.layer = nn.Linear(width, hidden)
        self.raise_hidden = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out_features = hidden

    def imputing(self) -> set[nn.Parameter]:
        """Parameters of the networks that weigh prototypes and raise features."""
        return {p for part in (self.weigh, self.raise_features, self.raise_hidden) for p in part.parameters()}

    def impute(self, h: Tensor, present: Tensor) -> Tensor:
        """All modalities ``(P, M, C)``: those that are there, and the rest from prototypes."""
        w = functional.softplus(self._noisy(self.weigh(_shown(h, present)))).unflatten(1, self.prototypes.shape[:2])
        made = torch.einsum("pmk,mkc->pmc", w / w.sum(2, keepdim=True), self.prototypes)
        return torch.where(present[:, :, None], h, made)

    def layers(self, h: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """``u (P, M C)`` and ``a (P, hidden)`` before dropout."""
        lacking = ~present.all(1, keepdim=True)
        u = self.impute(h, present).flatten(1)
        u = u + lacking * functional.softplus(self._noisy(self.raise_features(_shown(h, present))))
        a = torch.relu(self.layer(u))
        return u, a + lacking * functional.softplus(self._noisy(self.raise_hidden(u)))

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """The hidden layer of ``h``, which holds zeros where ``present`` is False."""
        return self.dropout(self.layers(h, present)[1])

    def _noisy(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x


def _shown(h: Tensor, present: Tensor) -> Tensor:
    return torch.cat([h.flatten(1), present.to(h.dtype)], 1)


class _Traced(nn.Module):
    """A model that also shows its ``u`` and ``a``, as one function of its parameters."""

    def __init__(self, model: MultimodalModel):
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        features, fusion = self.model.encode(batch), self.model.fusion
        assert isinstance(fusion, MetaFusion)
        u, a = fusion.layers(features.h, features.present)
        return self.model.head(fusion.dropout(a)), u, a


class SMIL(Objective):
    r"""SMIL: multimodal learning with severely missing modality, by meta-learning.

    A first stage trains the encoders with single-modality heads and the fusion on everything. Then prototypes of
    each modality are the K-means centres of its features over the complete rows, and every batch is split: on the
    incomplete rows the network takes an inner step, ``theta* = theta - lr grad task(incomplete rows)``; with
    ``theta*`` the complete rows are predicted with modalities hidden as those of the incomplete rows are. The loss is
    ``inner + outer + match * (MSE(u_true, u_imputed) + MSE(a_true, a_imputed))``, whose gradient runs through the
    inner step. The networks that weigh prototypes and raise features take no inner step; nor does the encoder of a
    modality that no incomplete row has, as it gets no gradient there.

    The imputing networks are noisy wherever the network trains; the release leaves the noise out of the passes with
    ``theta*``. The original knows one modality that is always there and one that may be missing; here any may be
    missing, and the imputer reads whatever is there. It needs some training rows that are complete. Where a batch has
    no incomplete row, the inner step is on its complete ones, and what is hidden of them is drawn; one without a
    complete row is trained on plainly. With several processes each takes its inner step on its own rows.

    For classification, several labels and numbers, with incomplete training data of two modalities or more whose
    features are vectors. Stages: preparation, which selects nothing, then meta-learning.

    Args:
        prototypes: K-means centres of each modality; fewer when there are fewer complete rows.
        match: weight of both matching terms.
        inner_lr: step size of the inner step; a tenth after every 1000 batches.
        second_order: differentiate through the inner gradient; False takes it as a constant (first-order MAML).
        hidden: width of the hidden layer.
        preparing: share of the epochs of the first stage.
        label_smoothing: see :class:`Objective`.

    Raises:
        ConfigError: an option out of range.

    References:
        Ma et al., *SMIL: Multimodal Learning with Severely Missing Modality*, AAAI 2021, arXiv:2103.05677.
    """

    ranges: ClassVar[Ranges] = {"inner_lr": Between(1e-4, 1e-1, log=True), "match": Between(1e-3, 0.1, log=True)}

    task_kinds: ClassVar[frozenset[str]] = frozenset({"classification", "multilabel", "regression"})
    batches: Tensor

    def __init__(
        self,
        prototypes: int = 10,
        match: float = 0.01,
        inner_lr: float = 1e-3,
        second_order: bool = True,
        hidden: int = 64,
        preparing: float = 0.3,
        label_smoothing: float | None = None,
    ):
        if not 0 < preparing < 1:
            raise ConfigError(f"SMIL: preparing: expected a share of the epochs in (0, 1), got {preparing}.")
        self.preparing = preparing
        super().__init__(label_smoothing)
        if prototypes < 1 or hidden < 1:
            raise ConfigError(f"SMIL: prototypes and hidden: expected at least 1, got {prototypes} and {hidden}.")
        if not match >= 0 or not inner_lr >= 0:
            raise ConfigError(f"SMIL: match and inner_lr: expected numbers >= 0, got {match} and {inner_lr}.")
        self.prototypes, self.match, self.inner_lr = prototypes, float(match), float(inner_lr)
        self.second_order, self.hidden = second_order, hidden
        self.fusion: MetaFusion | None = None
        self.head: nn.Module | None = None
        self.heads: nn.ModuleList | None = None

    def stages(self) -> Sequence[Stage]:
        return Stage("preparation", self.preparing, selects=False), Stage("meta-learning", 1 - self.preparing)

    def setup(self, model: MultimodalModel, data: MultimodalDataset) -> None:
        super().setup(model, data)
        M = len(data.names)
        if M < 2:
            raise ConfigError(f"SMIL imputes one modality from others: expected at least 2, got {M}.")
        complete = int(data.present.all(1).sum())
        if complete == 0:
            raise ConfigError(
                f"SMIL takes its prototypes from complete samples; none of the {len(data)} training samples has all of "
                f"{', '.join(data.names)}."
            )
        refuse_space(self, model, data)
        device = next(iter(model.parameters())).device
        width = feature_width(model, data)
        self.fusion = beside(model, MetaFusion(width, M, min(self.prototypes, complete), self.hidden))
        self.head = beside(model, unimodal_head(model.head, self.hidden))
        self.heads = beside(model, nn.ModuleList([unimodal_head(model.head, width) for _ in range(M)]))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64, device=device))

    def build(self, model: nn.Module) -> nn.Module:
        assert isinstance(model, MultimodalModel)
        return self.with_parts(model, completion=None, fusion=self.fusion, head=self.head)

    @torch.no_grad()
    def on_stage_start(self, model: MultimodalModel, data: MultimodalDataset, stage: Stage) -> None:
        """Prototypes from the features of the complete rows, when meta-learning begins."""
        if stage.name != "meta-learning":
            return
        from sklearn.cluster import KMeans

        assert self.fusion is not None
        complete = data.select(data.present.all(1))
        training = model.training
        model.eval()
        device = self.fusion.prototypes.device
        h = torch.cat([model.encode(batch.to(device)).h.float().cpu() for batch in complete.batches()])
        model.train(training)
        for m in range(h.shape[1]):
            seed = int(torch.randint(2**31 - 1, ()))
            centres = KMeans(self.fusion.prototypes.shape[1], n_init=3, random_state=seed).fit(h[:, m].numpy())
            self.fusion.prototypes[m] = torch.from_numpy(centres.cluster_centers_).to(self.fusion.prototypes)

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        available_codes(model.lattice, batch, batch.present)
        predictor = self.build(model)
        assert isinstance(predictor, MultimodalModel)
        if self.stage.name == "preparation":
            return self._prepare(predictor, batch)
        return self._meta(predictor, batch)

    def _prepare(self, predictor: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        assert self.heads is not None
        target, features = self._target(batch), predictor.encode(batch)
        fused = predictor.fusion(features.h, features.present)
        single = []
        for m, head in enumerate(self.heads):
            own = features.present[:, m]
            single.append(batch_mean(self.losses(head(features.h[own, m]), target[own])))
        return {"task": batch_mean(self.losses(predictor.head(fused), target)), "single": torch.stack(single).sum()}

    def _meta(self, predictor: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        complete = batch.present.all(1)
        some, whole = _rows(batch, ~complete), _rows(batch, complete)
        traced = _Traced(predictor)
        here = total(torch.stack([len(complete) - complete.sum(), complete.sum()]))  # alike in every process
        if here[1] == 0:  # nothing to compare with
            return {"task": batch_mean(self.losses(traced(batch)[0], self._target(batch)))}
        some = some if here[0] > 0 else whole
        idle = _idle(predictor, some)
        assert self.fusion is not None
        still = idle | self.fusion.imputing()
        slow = {name: p for name, p in traced.named_parameters() if p.requires_grad and p not in still}
        # Recurrent layers and attention have a second derivative only outside the fused kernels.
        with torch.backends.cudnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):
            inner = batch_mean(self.losses(traced(some)[0], self._target(some)))
            gradients = torch.autograd.grad(
                inner, list(slow.values()), create_graph=self.second_order, retain_graph=True, allow_unused=True
            )
            step = self.inner_lr * 0.1 ** (int(self.batches) // 1000)
            fast = {n: p if g is None else p - step * g for (n, p), g in zip(slow.items(), gradients)}
            hidden = whole.hide(self._patterns(some, whole))
            output, u, a = functional_call(traced, fast, (hidden,))
            _, true_u, true_a = functional_call(traced, fast, (whole,))
        if self.training:
            self.batches += 1
        terms = {"task": inner, "outer": batch_mean(self.losses(output, self._target(whole)))}
        if self.match > 0:
            error = (u - true_u).square().mean(1) + (a - true_a).square().mean(1)
            terms["match"] = self.match * batch_mean(error)
        return terms

    def _patterns(self, some: Batch, whole: Batch) -> Tensor:
        """What is shown of the complete rows: as much as of incomplete ones, or anything where there are none."""
        if len(some) == 0 or bool(some.present.all()):
            return random_patterns(whole.present, everything=False)
        return some.present[torch.randint(len(some), (len(whole),), device=whole.device)]

    def extra_repr(self) -> str:
        return f"prototypes={self.prototypes}, match={self.match}, second_order={self.second_order}"


def _idle(model: MultimodalModel, batch: Batch) -> set[nn.Parameter]:
    """Parameters of encoders that a batch has no row for: some layers have no second derivative on no rows."""
    there = batch.present.any(0).tolist()
    used = {p for encoder, some in zip(model.encoders, there) if some for p in encoder.parameters()}
    return {p for encoder, some in zip(model.encoders, there) if not some for p in encoder.parameters()} - used


def _rows(batch: Batch, chosen: Tensor) -> Batch:
    """Some samples of a batch."""
    inputs, lengths = {}, {}
    for m, (name, rows) in enumerate(batch.inputs.items()):
        stays = chosen[batch.present[:, m]]
        inputs[name] = rows[stays]
        if name in batch.lengths:
            lengths[name] = batch.lengths[name][stays]
    target = None if batch.target is None else batch.target[chosen]
    return Batch(inputs, batch.present[chosen], target, batch.index[chosen], lengths, batch.generated[chosen])
