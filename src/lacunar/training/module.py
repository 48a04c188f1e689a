"""The LightningModule that trains any objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.base import Objective, stage_at
from lacunar.training.log import RunLog
from lacunar.training.sampler import EpochLoader, reseed

__all__ = ["ObjectiveModule", "make_optimizer", "parameter_groups"]


_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm, _NormBase)


class ObjectiveModule(pl.LightningModule):
    """A model and its objective, as Lightning trains them.

    Every step draws from a generator seeded by (seed, epoch, step), so that a killed epoch can be replayed.

    Args:
        model: what is trained.
        objective: how; set up already.
        data: the train part.
        lr: highest learning rate.
        weight_decay: of weight matrices; :func:`parameter_groups` says which parameters have none.
        schedule: ``"one-cycle"``, ``"cosine"`` or ``"constant"``.
        total_steps: steps of the optimiser in a run on all of ``data``, which the schedule is made for.
        batch_size: samples in a batch, over all processes.
        seed: of the run.
        num_workers: processes that load batches.
        fused: use the fused optimiser where the device has one.
    """

    def __init__(
        self,
        model: MultimodalModel,
        objective: Objective,
        data: MultimodalDataset,
        *,
        lr: float,
        weight_decay: float,
        schedule: str,
        total_steps: int,
        batch_size: int,
        seed: int = 0,
        num_workers: int = 0,
        fused: bool = True,
    ):
        super().__init__()
        self.model, self.objective, self.data = model, objective, data
        self.lr, self.weight_decay, self.schedule = lr, weight_decay, schedule
        self.total_steps, self.batch_size, self.seed = total_steps, batch_size, seed
        self.num_workers, self.fused = num_workers, fused
        self.run_log: RunLog | None = None
        self.batches_seen = 0
        self._prepared, self._batch, self._ended = -1, 0, False
        self._samples = data

    def setup(self, stage: str) -> None:
        plugin = self.trainer.precision_plugin
        if plugin.precision in ("bf16-true", "16-true"):
            # Inputs are standardised before they are rounded, and Lightning would round all of a batch at once.
            plugin.convert_input = partial(_convert_all_but_inputs, plugin.convert_input)  # type: ignore[method-assign]

    def prepare(self) -> tuple[int, MultimodalDataset]:
        """The epoch that is about to run and its samples; the objective's hooks are called once for each epoch."""
        # Lightning counts an epoch as processed before it is completed, and only this count is right on resuming.
        epoch = self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        # Lightning asks for the length of the loader once more after training.
        if epoch != self._prepared and not self._ended:
            reseed(self.device, self.seed, "epoch start", epoch)
            self._enter_stage(epoch)
            self.objective.on_epoch_start(self.model, self.data, epoch)
            self._samples = self.objective.training_set(self.data, epoch)
            self._prepared = epoch
        return epoch, self._samples

    def _enter_stage(self, epoch: int) -> None:
        """Tell the objective its stage, and that it begins when it does."""
        stages, epochs = self.objective.stages(), self.trainer.max_epochs or 1
        position = stage_at(stages, epoch, epochs)
        self.objective.stage = stages[position]
        if epoch == 0 or position != stage_at(stages, epoch - 1, epochs):
            self.objective.on_stage_start(self.model, self.data, stages[position])

    def on_train_end(self) -> None:
        self._ended = True

    def train_dataloader(self) -> EpochLoader:
        return EpochLoader(
            self.prepare,
            self.batch_size,
            self.seed,
            self.trainer.global_rank,
            self.trainer.world_size,
            self.num_workers,
            pin_memory=self.device.type == "cuda",
        )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch if batch.device == device else batch.to(device, non_blocking=True)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self._batch = batch_idx
        reseed(self.device, self.seed, "step", self._prepared, batch_idx, self.trainer.global_rank)
        terms = self.objective(self.model, batch)
        loss = torch.stack(list(terms.values())).sum()
        if self.run_log is not None:
            lr = self.trainer.optimizers[0].param_groups[0]["lr"]
            self.run_log.step(
                self._prepared, self.batches_seen, len(batch), float(lr), terms, self.objective.diagnostics
            )
        self.batches_seen += 1
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Without the rank: the gradients are those of all processes already, and must stay alike.
        reseed(self.device, self.seed, "gradients", self._prepared, self._batch)
        self.objective.after_backward(self.model)

    def configure_optimizers(self) -> Any:
        groups = parameter_groups((self.model, self.objective), self.weight_decay)
        fused = self.fused and self.device.type in ("cpu", "cuda")
        optimizer, scheduler = make_optimizer(groups, self.lr, self.schedule, self.total_steps, fused)
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        # By how much of the training is over: an objective's own training set may make more steps an epoch, or fewer.
        accumulate = self.trainer.accumulate_grad_batches
        steps = math.ceil(self.trainer.num_training_batches / accumulate)
        over = self._prepared + math.ceil((self._batch + 1) / accumulate) / steps
        due = min(round(self.total_steps * over / (self.trainer.max_epochs or 1)), self.total_steps - 1)
        while scheduler.last_epoch < due:
            scheduler.step()


def _convert_all_but_inputs(convert: Callable[[Batch], Batch], batch: Batch) -> Batch:
    return replace(convert(batch), inputs=batch.inputs)


def make_optimizer(
    groups: list[dict[str, Any]], lr: float, schedule: str, total_steps: int, fused: bool
) -> tuple[torch.optim.Optimizer, LRScheduler | None]:
    """AdamW and the schedule of its learning rate; None for a constant one."""
    optimizer = torch.optim.AdamW(groups, lr=lr, fused=fused)
    if schedule == "one-cycle":
        return optimizer, OneCycleLR(optimizer, max_lr=[lr] * len(groups), total_steps=max(total_steps, 2))
    if schedule == "cosine":
        return optimizer, CosineAnnealingLR(optimizer, T_max=total_steps)
    return optimizer, None


def parameter_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters, each once, in a group with weight decay and one without.

    Without are the parameters of norms, those with fewer than two axes, and those named ``position...``, as UniMF has
    them. The positions of a completion (``pos`` of :class:`lacunar.models.TokenTransformer`) have weight decay.
    """
    with_decay: list[nn.Parameter] = []
    without: list[nn.Parameter] = []
    seen: set[int] = set()
    for root in modules:
        for module in root.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) in seen or not parameter.requires_grad:
                    continue
                seen.add(id(parameter))
                free = parameter.ndim < 2 or isinstance(module, _NORMS) or name.startswith("position")
                (without if free else with_decay).append(parameter)
    groups = [{"params": with_decay, "weight_decay": weight_decay}, {"params": without, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
