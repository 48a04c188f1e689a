"""PASSION: each modality alone learns from all of them together, the laggards most."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError
from lacunar.lattice import Pairs
from lacunar.models.heads import unimodal_head
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.base import Objective, available_codes, batch_mean
from lacunar.objectives.features import feature_width
from lacunar.objectives.placing import beside
from lacunar.objectives.ranges import Between, Ranges
from lacunar.parallel import total

__all__ = ["PASSION", "prototype_similarity"]

#: Probabilities below this are as good as this in the distillation.
SMALLEST = 0.005


class PASSION(Objective):
    r"""PASSION: preference-aware self-distillation, for incomplete training data.

    The teacher is the model's prediction from everything a sample has, without gradient; the students are its
    predictions from each available modality alone. With ``w_m = N / N_m`` (inverse availability)

    ``L = task + separate sum k_m b_m w_m L_sep,m + distill sum b_m w_m L_kl,m + prototypes sum k_m w_m L_pro,m``

    ``L_sep`` is the task loss of one head shared by all modalities, on a modality's own features; ``L_kl`` the
    divergence of softened predictions; ``L_pro`` the squared difference of cosine similarities to class prototypes
    between student and teacher, whose mean absolute value ``d_m``, over classes that are there, is the distance of m to
    the teacher. ``k_m = 1`` where m lags within the batch, ``sum_n (d[n,m] / mean d[n] - 1) > 0``; ``b_m`` moves once
    an epoch with the relative distances, means over all samples that have m, and is clamped to [.1, 4] and scaled to
    norm sqrt(M). A sample with a single modality is its own teacher, at distance 0, and makes nothing lag. Losses are
    means over the batch to which a sample without m adds nothing, as at the published batch size of 1: ``w_m`` then
    makes modalities count alike, however rare they are.

    The original segments volumes; there, prototypes are class means over the voxels of a sample. For classes of
    whole samples they are class means over the rows of the batch that have m. Its deep supervision has no counterpart
    in a model with one output. Weighted cross-entropy and Dice give way to the task's loss.

    For classification and label maps, with incomplete training data, of two modalities or more. One stage.

    Args:
        separate: weight of the shared single-modality head's loss.
        distill: weight of the distillation.
        prototypes: weight of the prototype term.
        temperature: of the distillation.
        rate: step of the epoch weights; half again as much from the start, and again every ``period`` epochs.
        period: epochs between these increases.
        label_smoothing: see :class:`Objective`.

    Raises:
        ConfigError: an option out of range.

    Attributes:
        diagnostics: ``distance`` to the teacher, ``balance`` (b) and ``lags`` (k), each ``(M,)``.

    References:
        Shi et al., *PASSION: Towards Effective Incomplete Multi-Modal Medical Image Segmentation with Imbalanced
        Missing Rates*, ACM MM 2024, arXiv:2407.14796.
    """

    ranges: ClassVar[Ranges] = {"distill": Between(0.1, 2.0, log=True), "prototypes": Between(0.02, 0.5, log=True)}

    task_kinds: ClassVar[frozenset[str]] = frozenset({"classification", "segmentation"})
    balance: Tensor
    rate_weight: Tensor
    distance_sums: Tensor
    distance_counts: Tensor

    def __init__(
        self,
        separate: float = 1.0,
        distill: float = 0.5,
        prototypes: float = 0.1,
        temperature: float = 4.0,
        rate: float = 0.01,
        period: int = 100,
        label_smoothing: float | None = None,
    ):
        super().__init__(label_smoothing)
        named = {"separate": separate, "distill": distill, "prototypes": prototypes, "rate": rate}
        for name, value in named.items():
            if not value >= 0:
                raise ConfigError(f"PASSION: {name}: expected a number >= 0, got {value}.")
        if not temperature > 0 or period < 1:
            raise ConfigError(f"PASSION: expected temperature > 0 and period >= 1, got {temperature} and {period}.")
        self.separate, self.distill, self.prototypes = float(separate), float(distill), float(prototypes)
        self.temperature, self.rate, self.period = float(temperature), float(rate), period
        self.head: nn.Module | None = None

    def setup(self, model: MultimodalModel, data: MultimodalDataset) -> None:
        super().setup(model, data)
        M = len(data.names)
        if M < 2:
            raise ConfigError(f"PASSION compares modalities: expected at least 2, got {', '.join(data.names)}.")
        device = next(iter(model.parameters())).device
        if self.separate > 0:
            self.head = beside(model, unimodal_head(model.head, feature_width(model, data)))
        weight = len(data) / data.availability.clamp(min=1).to(torch.get_default_dtype())
        self.register_buffer("rate_weight", weight.to(device))
        self.register_buffer("balance", torch.ones(M, device=device))
        self.register_buffer("distance_sums", torch.zeros(M, device=device))
        self.register_buffer("distance_counts", torch.zeros(M, device=device))

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        target = self._target(batch)
        features = model.encode(batch)
        available = available_codes(model.lattice, batch, features.present)
        B = len(batch)
        # Everything first, then each modality alone; a sample with one modality is its own teacher.
        several = features.present.sum(1) > 1
        which, rows = (features.present & several[:, None]).T.nonzero(as_tuple=True)
        everyone = torch.arange(B, device=batch.device)
        pairs = Pairs(torch.cat([everyone, rows]), torch.cat([available, 1 << which]))
        result = model.decode(features, pairs)
        terms = {"task": batch_mean(self.losses(result.output[:B], target))}
        students, teacher = result.output[B:], result.output[:B].detach()[rows]
        # Of the same rows on both sides: a modality is not behind for being rare.
        theirs, _ = prototype_similarity(result.fused[:B].detach()[rows], target[rows], which, self._classes)
        mine, known = prototype_similarity(result.fused[B:], target[rows], which, self._classes)
        gap = mine - theirs
        distance = _over_classes(gap.detach().abs(), known)
        lags = self._lags(distance, rows, which, features.present)
        weight = self.balance * self.rate_weight
        if self.separate > 0:
            assert self.head is not None
            own, owner = features.present.T.nonzero(as_tuple=True)
            losses = self.losses(self.head(features.h[owner, own]), target[owner])
            terms["separate"] = self.separate * _summed(losses, own, owner, lags * weight, B)
        if self.distill > 0:
            terms["distill"] = self.distill * _summed(self.divergence(students, teacher), which, rows, weight, B)
        if self.prototypes > 0:
            squared = _over_classes(gap.square(), known)
            terms["prototypes"] = self.prototypes * _summed(squared, which, rows, lags * self.rate_weight, B)
        self._note(distance, which, lags, features.present)
        return terms

    @property
    def _classes(self) -> int:
        assert self.task is not None
        return self.task.n_outputs

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """``T^2`` times the mean over classes (and positions) of ``q (log q - log p)``, ``(P,)``."""
        q = torch.softmax(teacher / self.temperature, 1).clamp(min=SMALLEST)
        p = torch.softmax(student / self.temperature, 1).clamp(min=SMALLEST)
        return self.temperature**2 * (q * (q.log() - p.log())).flatten(1).mean(1)

    def _lags(self, distance: Tensor, rows: Tensor, which: Tensor, present: Tensor) -> Tensor:
        table = distance.new_zeros(present.shape).index_put((rows, which), distance)
        count = table.new_zeros(len(present)).index_add(0, rows, torch.ones_like(distance))
        mean = table.sum(1) / count.clamp(min=1)
        relative = distance / mean[rows].clamp(min=1e-12) - 1
        relative = torch.where(mean[rows] > 0, relative, 0.0)
        lead = total(distance.new_zeros(present.shape[1]).index_add(0, which, relative))
        return (lead > 1e-6).to(distance.dtype)

    @torch.no_grad()
    def _note(self, distance: Tensor, which: Tensor, lags: Tensor, present: Tensor) -> None:
        apart = distance.new_zeros(present.shape[1]).index_add(0, which, distance)
        sums = total(torch.stack([apart, present.sum(0).to(distance)]))
        if self.training:
            self.distance_sums += sums[0]
            self.distance_counts += sums[1]
        mean = sums[0] / sums[1].clamp(min=1)
        self.diagnostics = {"distance": mean, "balance": self.balance.clone(), "lags": lags}

    def on_epoch_end(self, model: MultimodalModel, data: MultimodalDataset, epoch: int) -> None:
        """Move the epoch weights with the relative distances of this epoch."""
        self._rebalance(self.distance_sums / self.distance_counts.clamp(min=1), epoch, self.distance_counts > 0)
        self.distance_sums.zero_()
        self.distance_counts.zero_()

    def _rebalance(self, distance: Tensor, epoch: int, known: Tensor) -> None:
        """``b <- clamp(b - rate R, .1, 4)``, ``R_m = (mean D - D_m) / mean D``, which is 0 where nobody had m."""
        centre = (distance[known].sum() / known.sum().clamp(min=1)).clamp(min=1e-12)
        ahead = torch.where(known, (centre - distance) / centre, 0.0)
        rate = self.rate * 1.5 ** (1 + epoch // self.period)
        moved = (self.balance - rate * ahead).clamp(0.1, 4.0)
        self.balance.copy_(moved * len(moved) ** 0.5 / moved.norm())

    def extra_repr(self) -> str:
        return f"separate={self.separate}, distill={self.distill}, prototypes={self.prototypes}"


def _summed(losses: Tensor, which: Tensor, rows: Tensor, weight: Tensor, B: int) -> Tensor:
    """Mean over the batch of each sample's weighted losses, summed over what it has; a sample without m counts 0."""
    return batch_mean(losses.new_zeros(B).index_add(0, rows, weight[which].to(losses.dtype) * losses))


def _over_classes(values: Tensor, known: Tensor) -> Tensor:
    """Mean over positions and the classes that have a prototype: ``(P, K, ...)`` to ``(P,)``."""
    each = values.flatten(2).mean(2) if values.ndim > 2 else values
    return (each * known).sum(1) / known.sum(1).clamp(min=1)


def prototype_similarity(fused: Tensor, target: Tensor, which: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Cosine similarity of every sample (or position) to the class prototypes, 0 for classes without one.

    Prototypes are class means: over the samples of the batch for features ``(P, F)``, apart for each modality; over
    the positions of each sample for features in space ``(P, F, *spatial)``.

    Args:
        fused: features of P predictions; those of whole samples are averaged over space.
        target: classes ``(P,)``, or label maps ``(P, *larger spatial)``.
        which: modality that each prediction is for, ``(P,)``.
        classes: their number K.

    Returns:
        Similarities ``(P, K)`` or ``(P, K, *spatial)``, and whether each class has a prototype there, ``(P, K)``.
    """
    if target.ndim > 1:
        small = nn.functional.interpolate(target[:, None].to(fused.dtype), size=fused.shape[2:], mode="nearest")
        member = nn.functional.one_hot(small[:, 0].long().flatten(1), classes).to(fused.dtype)  # (P, V, K)
        flat = fused.flatten(2)  # (P, F, V)
        counts = member.sum(1)  # (P, K)
        means = flat @ member / counts[:, None].clamp(min=1)  # (P, F, K)
        similarity = torch.einsum("pfv,pfk->pkv", _unit(flat, 1), _unit(means, 1))
        return similarity.unflatten(2, fused.shape[2:]), counts > 0
    fused = fused.flatten(2).mean(2) if fused.ndim > 2 else fused
    groups = int(which.max()) + 1 if len(which) else 1
    cell = which * classes + target
    sums = fused.new_zeros(groups * classes, fused.shape[1]).index_add(0, cell, fused)
    counts = fused.new_zeros(groups * classes).index_add(0, cell, fused.new_ones(len(cell)))
    means = (sums / counts.clamp(min=1)[:, None]).view(groups, classes, -1)
    known = counts.view(groups, classes)[which] > 0
    return torch.einsum("pf,pkf->pk", _unit(fused, 1), _unit(means, 2)[which]), known


def _unit(x: Tensor, dim: int) -> Tensor:
    return nn.functional.normalize(x, dim=dim, eps=1e-6)
