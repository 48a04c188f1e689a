"""Plain training on what is present."""

from __future__ import annotations

from torch import Tensor

from lacunar.data.batch import Batch
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.base import Objective, batch_mean

__all__ = ["Joint"]


class Joint(Objective):
    """The task loss on everything that each sample has: row (a) of Table 2 in MCE.

    For every task and for incomplete training data. One stage.

    Args:
        label_smoothing: see :class:`Objective`.
    """

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        return {"task": batch_mean(self.losses(model(batch), self._target(batch)))}
