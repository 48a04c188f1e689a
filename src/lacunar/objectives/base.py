"""What every training method is: named loss terms from a model and a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from lacunar.arguments import checked
from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError, DataError
from lacunar.lattice import Lattice
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.ranges import Ranges
from lacunar.parallel import total, world_size
from lacunar.tasks import Task

if TYPE_CHECKING:
    from lacunar.models.references import References

__all__ = ["Objective", "Stage", "available_codes", "batch_mean", "stage_at"]


@dataclass(frozen=True)
class Stage:
    """A part of a training run.

    Attributes:
        name: what it is for.
        share: its share of the epochs; shares are relative, and every stage has at least one epoch.
        selects: whether its epochs may be chosen on validation; False for those that only prepare.
    """

    name: str
    share: float = 1.0
    selects: bool = True


def stage_at(stages: Sequence[Stage], epoch: int, max_epochs: int) -> int:
    """Position of the stage that an epoch belongs to.

    Raises:
        ConfigError: when there are more stages than epochs.
    """
    if len(stages) > max_epochs:
        listing = ", ".join(stage.name for stage in stages)
        raise ConfigError(f"max_epochs: expected at least one for each of the stages {listing}, got {max_epochs}.")
    whole, passed = sum(stage.share for stage in stages), 0.0
    for position, stage in enumerate(stages[:-1]):
        passed += stage.share
        end = round(max_epochs * passed / whole)
        end = min(max(end, position + 1), max_epochs - (len(stages) - 1 - position))
        if epoch < end:
            return position
    return len(stages) - 1


def available_codes(lattice: Lattice, batch: Batch, present: Tensor) -> Tensor:
    """Code of what each sample of a batch has, ``(B,)``.

    Raises:
        DataError: names a sample that has nothing.
    """
    codes = lattice.encode(present)
    if (codes == 0).any():
        row = int(batch.index[codes == 0][0])
        raise DataError(f"Sample {row} has no modality: leave such samples out of training.")
    return codes


def batch_mean(values: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over the global batch; 0, with a zero gradient, over nothing.

    Under distributed training the sum of this process is divided by the count of all processes and multiplied by
    their number, so that the averaged gradients are those of one process with the whole batch.

    Args:
        values: one value per row, shape ``(n,)``.
        weight: what each row counts, shape ``(n,)``; 1 when left out.
    """
    count = total(values.new_tensor(float(len(values))) if weight is None else weight.sum())
    summed = values.sum() if weight is None else (values * weight).sum()
    return summed * world_size() / count.clamp(min=torch.finfo(values.dtype).tiny)


class Objective(nn.Module):
    """A training method.

    ``setup`` learns what it must from the training data, ``forward`` turns a batch into named loss terms, already
    weighted, whose sum is the loss. All state lives in parameters, buffers and submodules, so that a checkpoint
    holds it. A new method is a subclass in a file of its own.

    Args:
        label_smoothing: how much of the target is spread over all classes; the task's own when None.

    Attributes:
        diagnostics: what the last batch showed, by name: tensors of shape ``(M,)`` or scalars, without gradient.
    """

    #: Whether the method is defined only when every training sample has every modality.
    requires_complete_training_data: ClassVar[bool] = False
    #: Where its hyper-parameters may lie when they are tuned.
    ranges: ClassVar[Ranges] = {}
    #: Kinds of task that the method is defined for.
    task_kinds: ClassVar[frozenset[str]] = frozenset({"classification", "multilabel", "regression", "segmentation"})

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in cls.__dict__:
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]

    @checked
    def __init__(self, label_smoothing: float | None = None):
        super().__init__()
        if label_smoothing is not None and not 0 <= label_smoothing < 1:
            raise ConfigError(f"label_smoothing: expected a number in [0, 1), got {label_smoothing}.")
        self.label_smoothing = label_smoothing
        self.diagnostics: dict[str, Tensor] = {}
        self.task: Task | None = None
        self._stage: Stage | None = None

    @property
    def stage(self) -> Stage:
        """The stage that is on: the first one until training says otherwise."""
        return self._stage or self.stages()[0]

    @stage.setter
    def stage(self, stage: Stage) -> None:
        self._stage = stage

    @property
    def needs_references(self) -> bool:
        """Whether frozen single-modality models must be given before training starts."""
        return False

    def use_references(self, references: References) -> None:
        """Take the frozen single-modality models that the method needs."""
        raise ConfigError(f"{type(self).__name__} uses no references.")

    def setup(self, model: MultimodalModel, data: MultimodalDataset) -> None:
        """Learn facts of the training data and create what the method owns.

        Raises:
            ConfigError: when the method is not defined for this task or for incomplete training data.
            DataError: when the data have no target.
        """
        name = type(self).__name__
        if data.target is None or data.task is None:
            raise DataError(f"{name}: training needs a target, and {data.name!r} has none.")
        if data.task.kind not in self.task_kinds:
            kinds = ", ".join(sorted(self.task_kinds))
            raise ConfigError(f"{name} is defined for {kinds}, not for {data.task.kind}.")
        if self.requires_complete_training_data and not bool(data.present.all()):
            absent = int((~data.present.all(1)).sum())
            raise ConfigError(f"{name} needs complete training data; {absent} of {len(data)} samples lack a modality.")
        self.task = data.task
        if model.task is None:
            model.task = data.task

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        """Loss terms of a batch, each a scalar; their sum is what is minimised."""
        raise TypeError(f"{type(self).__name__} defines no forward(model, batch).")

    def build(self, model: nn.Module) -> nn.Module:
        """The model that predicts; differs from ``model`` when the method adds modules to it."""
        return model

    def with_parts(self, model: MultimodalModel, **parts: nn.Module | None) -> MultimodalModel:
        """The model with modules of this method in the place of its own; all else is shared, nothing is copied.

        For methods whose :meth:`build` gives another model. Kept as long as the model stays the same.

        Raises:
            ConfigError: a model whose own way to compute would be lost (:meth:`MultimodalModel.with_parts`).
        """
        kept = self.__dict__.get("_with_parts")
        wanted = (model, *parts.values())
        if kept is None or len(kept[0]) != len(wanted) or any(a is not b for a, b in zip(kept[0], wanted)):
            kept = wanted, model.with_parts(**parts)
            # Not as a submodule: the model belongs to whoever trains it.
            object.__setattr__(self, "_with_parts", kept)
        kept[1].task = model.task
        return kept[1].train(model.training)

    def stages(self) -> Sequence[Stage]:
        """The stages of a training run, in order; ``self.stage`` is the one that is on."""
        return (Stage("train"),)

    def on_stage_start(self, model: MultimodalModel, data: MultimodalDataset, stage: Stage) -> None:
        """Called before the first epoch of each stage, and not again when a run is continued within it.

        What it changes must be in the ``state_dict``. A part that rests during a stage is left out of ``forward``.
        """

    def training_set(self, data: MultimodalDataset, epoch: int) -> MultimodalDataset:
        """The samples of one epoch."""
        return data

    def on_epoch_start(self, model: MultimodalModel, data: MultimodalDataset, epoch: int) -> None:
        """Called before each epoch."""

    def on_epoch_end(self, model: MultimodalModel, data: MultimodalDataset, epoch: int) -> None:
        """Called after each epoch."""

    def after_backward(self, model: MultimodalModel) -> None:
        """Called when gradients are there and before the optimiser moves."""

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Task loss of each row, shape ``(n,)``."""
        if self.task is None:
            raise ConfigError(f"{type(self).__name__}: call setup(model, data) before the first batch.")
        if output.ndim > 1 and output.shape[1] != self.task.n_outputs:
            raise ConfigError(
                f"The head gives {output.shape[1]} outputs for each sample, the target needs {self.task.n_outputs}: "
                f"{self.task}. Make the model's head that wide."
            )
        return self.task.loss(output, target, smoothing=self.label_smoothing)

    def _target(self, batch: Batch) -> Tensor:
        if batch.target is None:
            raise DataError("Training needs a target, and this batch has none.")
        return batch.target
