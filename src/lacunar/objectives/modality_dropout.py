"""Training on what is left after modalities are dropped at random."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lacunar.data.batch import Batch
from lacunar.errors import ConfigError
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.base import Objective, batch_mean
from lacunar.objectives.ranges import Between, Ranges

__all__ = ["ModalityDropout"]


class ModalityDropout(Objective):
    """The task loss on a random subset of what each sample has.

    Each present modality is dropped with the same probability, and a sample that would lose all keeps one of them,
    drawn evenly. Dropped rows never reach an encoder.

    For every task and for incomplete training data. One stage.

    Args:
        rate: probability that a present modality is dropped.
        label_smoothing: see :class:`Objective`.

    Raises:
        ConfigError: an option out of range.

    References:
        Neverova et al., *ModDrop: Adaptive multi-modal gesture recognition*, 2015, arXiv:1501.00102.
    """

    ranges: ClassVar[Ranges] = {"rate": Between(0.1, 0.8)}

    def __init__(self, rate: float = 0.5, label_smoothing: float | None = None):
        super().__init__(label_smoothing)
        if not 0 <= rate < 1:
            raise ConfigError(f"ModalityDropout: expected a rate in [0, 1), got {rate}.")
        self.rate = rate

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        chance = torch.rand(batch.present.shape, device=batch.device)
        kept = batch.present & (chance >= self.rate)
        # The present modality with the largest draw is the one that would be dropped last.
        last = chance.masked_fill(~batch.present, -1.0).argmax(1, keepdim=True)
        survivors = torch.zeros_like(kept).scatter(1, last, True) & batch.present
        left = batch.hide(torch.where(kept.any(1, keepdim=True), kept, survivors))
        return {"task": batch_mean(self.losses(model(left), self._target(batch)))}

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
