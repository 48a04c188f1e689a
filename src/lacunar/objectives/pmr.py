"""Prototypical modal rebalance: class prototypes speed up the modality that lags behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError, did_you_mean
from lacunar.lattice import Pairs
from lacunar.models.multimodal import Features, MultimodalModel
from lacunar.objectives.base import Objective, Stage, available_codes, batch_mean
from lacunar.objectives.ranges import Between, Ranges
from lacunar.parallel import total

__all__ = ["PMR"]

#: Prototypes are computed from at least so many rows.
LEAST = 256


class PMR(Objective):
    r"""PMR: a cross-entropy against class prototypes for lagging modalities, and entropy for leading ones.

    ``p[n, m] = softmax_k(-||z[n, m] - c[m, k]||)`` classifies by the nearest prototype of modality m. With
    ``rho_m = mean p[n, m, y_n] / the largest of these means`` the loss is
    ``task + weight * sum_m clip(1 / rho_m - 1, 0, 1) * mean_n(-log p[n, m, y_n])``, and in the first epochs minus
    ``entropy * (largest coefficient) * mean_n H(p[n, leader])``, which slows the leader down. For two modalities
    this is the published soft switch. Means run over the rows that have the modality.
    The port of PMR to label maps that exists in other code is not here.

    Prototypes are class means of the features, in evaluation mode, once an epoch, over a part of the training rows;
    a class without a row keeps the prototype it had.

    For classification, with incomplete training data, of two modalities or more. Stages: with the entropy term (none as
    released), rebalanced, and plain for the last third of the epochs.

    Args:
        weight: alpha of the paper.
        entropy: mu of the paper, weight of the entropy term.
        momentum: share of the old prototype that is kept.
        part: share of the training rows that prototypes are computed from, at least 256 rows.
        variant: ``"paper"``, or ``"released"``: every coefficient but the leader's is 1, no entropy term.
        label_smoothing: see :class:`Objective`.

    Raises:
        ConfigError: an option out of range.

    Attributes:
        diagnostics: ``rho`` and ``coefficient``, each ``(M,)``.

    References:
        Fan et al., *PMR: Prototypical Modal Rebalance for Multimodal Learning*, CVPR 2023, arXiv:2211.07089.
    """

    ranges: ClassVar[Ranges] = {
        "weight": Between(0.1, 2.0, log=True),
        "entropy": Between(0.01, 1.0, log=True),
        "momentum": Between(0.0, 0.8),
    }

    task_kinds: ClassVar[frozenset[str]] = frozenset({"classification"})
    prototypes: Tensor
    known: Tensor

    def __init__(
        self,
        weight: float = 1.0,
        entropy: float = 0.1,
        momentum: float = 0.2,
        part: float = 0.1,
        variant: Literal["paper", "released"] = "paper",
        label_smoothing: float | None = None,
    ):
        if variant not in ("paper", "released"):
            raise ConfigError(f"PMR: unknown variant {variant!r}.{did_you_mean(variant, ('paper', 'released'))}")
        self.variant = variant
        super().__init__(label_smoothing)
        if not weight >= 0 or not entropy >= 0:
            raise ConfigError(f"PMR: weight and entropy: expected numbers >= 0, got {weight} and {entropy}.")
        if not 0 <= momentum < 1 or not 0 < part <= 1:
            raise ConfigError(f"PMR: expected momentum in [0, 1) and part in (0, 1], got {momentum} and {part}.")
        self.weight, self.entropy, self.momentum, self.part = float(weight), float(entropy), momentum, part

    def stages(self) -> Sequence[Stage]:
        """The published scripts rebalance in the first 100 of 150 epochs; the paper's entropy term is on early."""
        if self.variant == "released":
            return Stage("rebalanced", 2), Stage("plain", 1)
        return Stage("entropy", 0.5), Stage("rebalanced", 1.5), Stage("plain", 1)

    def setup(self, model: MultimodalModel, data: MultimodalDataset) -> None:
        super().setup(model, data)
        assert data.task is not None
        if len(data.names) < 2:
            raise ConfigError(f"PMR compares modalities: expected at least 2, got {', '.join(data.names)}.")
        training = model.training
        device = next(iter(model.parameters())).device
        with torch.no_grad():
            width = _pooled(model.eval().encode(data[0].to(device)).h).shape[2]
        model.train(training)
        shape = len(data.names), data.task.n_outputs
        self.register_buffer("prototypes", torch.zeros(*shape, width, device=device))
        self.register_buffer("known", torch.zeros(*shape, dtype=torch.bool, device=device))
        self._refresh(model, data)

    def on_epoch_start(self, model: MultimodalModel, data: MultimodalDataset, epoch: int) -> None:
        if epoch > 0 and self.stage.name != "plain":  # before the first epoch setup has just done it
            self._refresh(model, data)

    @torch.no_grad()
    def _refresh(self, model: MultimodalModel, data: MultimodalDataset) -> None:
        count = min(len(data), max(LEAST, round(self.part * len(data))))
        rows = torch.randperm(len(data))[:count]
        sums, counts = torch.zeros_like(self.prototypes), torch.zeros_like(self.known, dtype=self.prototypes.dtype)
        training = model.training
        model.eval()
        for part in rows.split(data.rows_at_once):
            batch = data.__getitems__(part.tolist()).to(sums.device)
            z = _pooled(model.encode(batch).h).to(sums.dtype)
            which, row = batch.present.T.nonzero(as_tuple=True)
            label = self._target(batch)[row]
            sums.index_put_((which, label), z[row, which], accumulate=True)
            counts.index_put_((which, label), torch.ones_like(z[row, which, 0]), accumulate=True)
        model.train(training)
        fresh = sums / counts.clamp(min=1)[..., None]
        met = counts > 0
        kept = torch.where(self.known, self.momentum, 0.0)[..., None]
        self.prototypes.copy_(torch.where(met[..., None], (1 - kept) * fresh + kept * self.prototypes, self.prototypes))
        self.known |= met

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        target = self._target(batch)
        features = model.encode(batch)
        codes = available_codes(model.lattice, batch, features.present)
        rows = torch.arange(len(batch), device=batch.device)
        terms = {"task": batch_mean(self.losses(model.predict(features, Pairs(rows, codes)), target))}
        if self.stage.name == "plain" or (self.weight == 0 and self.entropy == 0):
            return terms
        log_p = self.log_probabilities(features)  # (B, M, K)
        truth = log_p.gather(2, target[:, None, None].expand(-1, log_p.shape[1], 1)).squeeze(2)
        # A class without a prototype so far says nothing.
        usable = features.present & self.known[:, target].T
        coefficient, leader = self._compare(truth.detach(), usable)
        each = [batch_mean(-truth[:, m][usable[:, m]]) for m in range(truth.shape[1])]
        terms["prototypes"] = self.weight * (coefficient * torch.stack(each)).sum()
        if self.stage.name == "entropy" and self.entropy > 0:
            own = features.present[:, leader]
            surprise = torch.where(self.known[leader], -(log_p[:, leader].exp() * log_p[:, leader]), 0.0).sum(1)
            terms["entropy"] = -self.entropy * coefficient.max() * batch_mean(surprise[own])
        return terms

    def log_probabilities(self, features: Features) -> Tensor:
        """Log-probabilities of the classes by distance to the prototypes of each modality, ``(B, M, K)``."""
        z = _pooled(features.h).transpose(0, 1).to(self.prototypes.dtype)  # (M, B, C)
        squared = (z[:, :, None] - self.prototypes[:, None]).square().sum(3)
        distance = (squared + 1e-12).sqrt()  # the root has no gradient at 0
        far = distance.masked_fill(~self.known[:, None], torch.finfo(distance.dtype).max)
        return torch.log_softmax(-far, 2).transpose(0, 1)

    def _compare(self, truth: Tensor, usable: Tensor) -> tuple[Tensor, int]:
        """How much each modality lags, ``(M,)``, and the one of this batch that leads."""
        sums = total(torch.stack([(truth.exp() * usable).sum(0), usable.sum(0).to(truth.dtype)]))
        there = sums[1] > 0
        mean = sums[0] / sums[1].clamp(min=1)
        rho = torch.where(there, mean / mean.max().clamp(min=1e-12), 1.0)
        lag = 1 / rho.clamp(min=1e-12) - 1
        coefficient = lag.clamp(0, 1) if self.variant == "paper" else (lag > 0).to(lag.dtype)
        self.diagnostics = {"rho": rho, "coefficient": coefficient}
        return coefficient, int(mean.argmax())

    def extra_repr(self) -> str:
        return f"weight={self.weight}, entropy={self.entropy}, variant={self.variant!r}"


def _pooled(h: Tensor) -> Tensor:
    """One vector per modality: features ``(B, M, C, *spatial)`` averaged over space."""
    return h.flatten(3).mean(3) if h.ndim > 3 else h
