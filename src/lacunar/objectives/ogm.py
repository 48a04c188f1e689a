"""On-the-fly gradient modulation: the encoder of the modality that leads learns more slowly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError
from lacunar.lattice import Pairs
from lacunar.models.multimodal import Features, MultimodalModel
from lacunar.objectives.base import Objective, Stage, available_codes, batch_mean
from lacunar.objectives.ranges import Between, OneOf, Ranges
from lacunar.parallel import total

__all__ = ["OGM", "alone"]


class OGM(Objective):
    r"""OGM-GE: gradients of leading encoders are scaled down, and noise makes up for what they lose.

    ``s_m`` is the mean confidence in the truth of the model when it sees only modality m, over the rows that have m:
    the probability of the true class, or ``exp(-loss)`` in tasks without one class for each sample;
    ``rho_m = s_m / mean of the others' s``. After the backward pass the gradients of encoder m are multiplied by
    ``k_m = 1 - tanh(strength * rho_m)`` (the paper's Eq. 10) where ``rho_m > 1`` and left alone otherwise; with
    ``noise`` those that are scaled get Gaussian noise of their own standard deviation (the release adds it to all).

    The published method reads ``W_m z_m + b / 2`` from a linear layer on concatenated features. Seeing m alone gives
    ``W_m z_m + b`` there, and is defined for every fusion and head. The release modulates only convolutions; here
    every weight with more than one axis is. An optimiser that normalises gradients undoes much of a steady scale.

    For every task and for incomplete training data, of two modalities or more. Stages: modulated, then plain.

    Args:
        strength: alpha of the paper, above 0; it used .1 to .8.
        noise: generalisation enhancement (GE).
        share: share of the epochs that are modulated; the paper's scripts use the first half.
        label_smoothing: see :class:`Objective`.

    Raises:
        ConfigError: an option out of range.

    Attributes:
        diagnostics: ``confidence``, ``rho`` and ``coefficient``, each ``(M,)``.

    References:
        Peng et al., *Balanced Multimodal Learning via On-the-fly Gradient Modulation*, CVPR 2022, arXiv:2203.15332.
    """

    ranges: ClassVar[Ranges] = {"strength": Between(0.1, 0.8), "noise": OneOf((True, False))}

    coefficient: Tensor

    def __init__(
        self, strength: float = 0.3, noise: bool = True, share: float = 0.5, label_smoothing: float | None = None
    ):
        if not 0 < share <= 1:
            raise ConfigError(f"OGM: share: expected a share of the epochs in (0, 1], got {share}.")
        if not strength > 0:
            raise ConfigError(f"OGM: strength: expected a number above 0, got {strength}.")
        self.share = share
        super().__init__(label_smoothing)
        self.strength, self.noise = float(strength), noise

    def stages(self) -> Sequence[Stage]:
        modulated = Stage("modulated", self.share)
        return (modulated,) if self.share == 1 else (modulated, Stage("plain", 1 - self.share))

    def setup(self, model: MultimodalModel, data: MultimodalDataset) -> None:
        super().setup(model, data)
        if len(data.names) < 2:
            raise ConfigError(f"OGM compares modalities: expected at least 2, got {', '.join(data.names)}.")
        device = next(iter(model.parameters())).device
        self.register_buffer("coefficient", torch.ones(len(data.names), device=device))

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        target = self._target(batch)
        features = model.encode(batch)
        codes = available_codes(model.lattice, batch, features.present)
        rows = torch.arange(len(batch), device=batch.device)
        terms = {"task": batch_mean(self.losses(model.predict(features, Pairs(rows, codes)), target))}
        if self.stage.name == "modulated":
            self._compare(model, features, target)
        else:
            self.coefficient.fill_(1.0)
        return terms

    @torch.no_grad()
    def _compare(self, model: MultimodalModel, features: Features, target: Tensor) -> None:
        pairs, which = alone(features)
        sure = self._confidence(model.predict(features, pairs), target[pairs.rows])
        sums = torch.zeros(2, features.present.shape[1], device=sure.device, dtype=sure.dtype)
        sums[0].index_add_(0, which, sure)
        sums[1].index_add_(0, which, torch.ones_like(sure))
        sums = total(sums)
        there = sums[1] > 0
        confidence = sums[0] / sums[1].clamp(min=1)
        partners = there.sum() - there.to(sums.dtype)
        others = (confidence.sum() - confidence) / partners.clamp(min=1)
        rho = torch.where(there & (partners > 0), confidence / others.clamp(min=1e-12), 1.0)
        self.coefficient.copy_(torch.where(rho > 1, 1 - torch.tanh(self.strength * rho), 1.0))
        self.diagnostics = {"confidence": confidence, "rho": rho, "coefficient": self.coefficient.clone()}

    def _confidence(self, output: Tensor, target: Tensor) -> Tensor:
        assert self.task is not None
        if self.task.kind == "classification":  # its loss may be smoothed or weighted by class
            return self.task.probabilities(output).gather(1, target[:, None]).squeeze(1)
        return torch.exp(-self.task.loss(output, target, smoothing=0.0))

    def after_backward(self, model: MultimodalModel) -> None:
        for coefficient, (_, encoder) in zip(self.coefficient.tolist(), model.named_encoders()):
            if coefficient == 1:
                continue
            for parameter in encoder.parameters():
                if parameter.grad is None or parameter.ndim < 2:
                    continue
                spread = parameter.grad.std() if self.noise and parameter.numel() > 1 else None
                parameter.grad.mul_(coefficient)
                if spread is not None:
                    parameter.grad.add_(torch.randn_like(parameter.grad) * spread)

    def extra_repr(self) -> str:
        return f"strength={self.strength}, noise={self.noise}"


def alone(features: Features) -> tuple[Pairs, Tensor]:
    """Every sample with each single modality that it has, and which modality that is, ``(P,)``."""
    which, rows = features.present.T.nonzero(as_tuple=True)
    return Pairs(rows, 1 << which), which
