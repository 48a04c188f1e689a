"""A class for every pixel or voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.tasks.base import OneOfClasses, as_array, to_plain

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["Segmentation"]


class Segmentation(OneOfClasses):
    """A label map per sample; the score is the hard Dice or IoU, averaged over regions.

    A region that is empty in truth and in prediction scores 1; empty in only one of them scores 0.

    Args:
        classes: the values in the label maps, in the order of the output channels, or their number. The first is
            the background.
        regions: named sets of classes to score, which may overlap, such as ``{"WT": [1, 2, 3], "TC": [1, 3],
            "ET": [3]}``. Every class but the background on its own when None.
        score: ``"dice"`` or ``"iou"``.
        dice_loss: weight of a soft Dice loss over the regions, added to the cross-entropy.
        label_smoothing: share of the target probability that is spread evenly over all classes in the loss.
    """

    kind = "segmentation"

    def __init__(
        self,
        classes: Sequence[Any] | int,
        regions: Mapping[str, Sequence[Any]] | None = None,
        score: str = "dice",
        dice_loss: float = 0.0,
        label_smoothing: float = 0.0,
    ):
        self.classes = tuple(range(classes)) if isinstance(classes, int) else tuple(to_plain(c) for c in classes)
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise DataError(f"Segmentation: expected at least two distinct classes, got {self.classes}.")
        if score not in ("dice", "iou"):
            raise ConfigError(f"score: unknown score {score!r}.{did_you_mean(score, ('dice', 'iou'))}")
        chosen = regions or {str(label): [label] for label in self.classes[1:]}
        self.regions: dict[str, tuple[Any, ...]] = {}
        for name, members in chosen.items():
            plain = tuple(to_plain(member) for member in members)
            unknown = [member for member in plain if member not in self.classes]
            if unknown or not plain:
                raise ConfigError(f"regions: {name!r} names {unknown or 'no class'}; the classes are {self.classes}.")
            self.regions[str(name)] = plain
        self.dice_loss, self.label_smoothing = float(dice_loss), float(label_smoothing)
        self.n_outputs = len(self.classes)
        self.score_name = score
        # (R, C), True where the class belongs to the region.
        self.membership = torch.tensor([[c in members for c in self.classes] for members in self.regions.values()])

    def encode(self, target: Any) -> Tensor:
        values = as_array(target)
        if values.ndim < 3 or values.dtype == object:
            raise DataError(f"target: expected label maps of one shape (N, H, W) or (N, D, H, W), got {values.shape}.")
        encoded = np.full(values.shape, -1, dtype=np.int64)
        for i, label in enumerate(self.classes):
            encoded[values == label] = i
        unknown = np.argwhere(encoded < 0)
        if len(unknown):
            raise DataError(
                f"target, row {int(unknown[0][0])}: expected the classes {self.classes}, "
                f"got {values[tuple(unknown[0])]} in {len(unknown)} places."
            )
        return torch.from_numpy(encoded)

    def decode(self, prediction: Tensor) -> np.ndarray:
        codes = self.predict(prediction) if prediction.is_floating_point() else prediction
        return np.asarray(self.classes)[codes.cpu().numpy()]

    def loss(self, output: Tensor, target: Tensor, smoothing: float | None = None) -> Tensor:
        """Cross-entropy of each sample averaged over its voxels, in nats, plus the weighted soft Dice loss."""
        smoothing = self.label_smoothing if smoothing is None else smoothing
        entropy = functional.cross_entropy(output.float(), target, reduction="none", label_smoothing=smoothing)
        loss = entropy.flatten(1).mean(dim=1)
        return loss + self.dice_loss * self._soft_dice_loss(output, target) if self.dice_loss else loss

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """Hard Dice or IoU of each sample, averaged over the regions."""
        return self.region_scores(output, target).mean(dim=1)

    def region_scores(self, output: Tensor, target: Tensor) -> Tensor:
        """Hard Dice or IoU of each region of each sample, float32, shape ``(B, R)``."""
        predicted, truth = self._in_region(self.predict(output)), self._in_region(target)
        both = (predicted & truth).sum(dim=2).float()
        total = predicted.sum(dim=2).float() + truth.sum(dim=2).float()
        ratio = 2 * both / total.clamp_min(1) if self.score_name == "dice" else both / (total - both).clamp_min(1)
        return torch.where(total == 0, torch.ones_like(ratio), ratio)

    def baseline(self, target: Tensor) -> Tensor:
        counts = torch.bincount(target.flatten(), minlength=self.n_outputs).double()
        prior = (counts / counts.sum()).float()
        return self.from_probabilities(prior).reshape(-1, *(1,) * (target.ndim - 1))

    def metrics(self) -> dict[str, Metric]:
        from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

        return {
            "voxel_accuracy": MulticlassAccuracy(self.n_outputs, average="micro"),
            "mean_iou": MulticlassJaccardIndex(self.n_outputs, average="macro"),
        }

    def to_config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "classes": list(self.classes),
            "regions": {name: list(members) for name, members in self.regions.items()},
            "score": self.score_name,
            "dice_loss": self.dice_loss,
            "label_smoothing": self.label_smoothing,
            "prior": self._prior_config(),
        }

    def _in_region(self, labels: Tensor) -> Tensor:
        """Which voxels lie in which region, boolean, shape ``(B, R, voxels)``."""
        table = self.membership.to(labels.device)
        return table[:, labels.flatten(1)].transpose(0, 1)

    def _soft_dice_loss(self, output: Tensor, target: Tensor) -> Tensor:
        table = self.membership.to(output.device, torch.float32)
        probability = torch.einsum("rc,bcv->brv", table, self.probabilities(output).flatten(2))
        truth = self._in_region(target).float()
        # One voxel on both sides makes the ratio 1 for two empty regions and keeps its gradient finite.
        ratio = (2 * (probability * truth).sum(2) + 1) / (probability.sum(2) + truth.sum(2) + 1)
        return 1 - ratio.mean(dim=1)

    def __str__(self) -> str:
        return f"segmentation into {self.n_outputs} classes, {self.score_name} over {', '.join(self.regions)}"
