"""What happens at the end of every epoch: hooks, validation, selection, the log."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from lacunar.errors import LacunarError
from lacunar.training.averaging import AveragedWeights
from lacunar.training.log import RunLog
from lacunar.training.module import ObjectiveModule
from lacunar.training.sampler import reseed
from lacunar.training.selection import Selection
from lacunar.training.validation import Validation, Validator

__all__ = ["EpochKeeper"]


class EpochKeeper(pl.Callback):
    """Averages weights after each step; after each epoch validates, selects, stops early and writes the log.

    Args:
        open_log: opens the log, given the lengths that a checkpoint knows of, or None at the start.
        validator: scores a model.
        selection: keeps the best weights.
        average: decay of the averaged weights, or None.
        validate_every: epochs from one validation to the next; the last epoch is always validated.
        keep: takes an epoch and the state of the model that predicts, after the epochs in ``snapshots``.
        snapshots: these epochs, from 0.
    """

    def __init__(
        self,
        open_log: Callable[[dict[str, int] | None], RunLog],
        validator: Callable[[int, int], Validator],
        selection: Selection,
        average: float | None,
        validate_every: int = 1,
        keep: Callable[[int, dict[str, Tensor]], None] | None = None,
        snapshots: frozenset[int] = frozenset(),
    ):
        self.keep, self.snapshots = keep, snapshots
        self.open_log, self.make_validator = open_log, validator
        self.selection, self.validate_every, self.decay = selection, validate_every, average
        self.averaged: AveragedWeights | None = None
        self.run_log: RunLog | None = None
        self.validator: Validator | None = None
        self.finished_epochs = 0
        self.seconds = 0.0
        self.interrupted = False
        self._offsets: dict[str, int] | None = None
        self._batches_seen = 0
        self._began = self._stepped = 0.0
        self._steps = 0
        self.last: dict[str, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, ObjectiveModule)
        if self.decay is not None:
            self.averaged = AveragedWeights(pl_module.parameters(), self.decay)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, ObjectiveModule)
        if self.averaged is not None:
            self.averaged.start()
        self.run_log = self.open_log(self._offsets)
        pl_module.run_log, pl_module.batches_seen = self.run_log, self._batches_seen
        self.validator = self.make_validator(trainer.global_rank, trainer.world_size)
        self._steps = trainer.global_step

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.averaged is not None and trainer.global_step > self._steps:
            self._steps = trainer.global_step
            self.averaged.update()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, ObjectiveModule)
        assert self.run_log is not None
        module, epoch = pl_module, pl_module._prepared
        self.run_log.flush()
        trained = time.perf_counter()
        reseed(module.device, module.seed, "epoch end", epoch)
        module.objective.on_epoch_end(module.model, module.data, epoch)
        last = epoch + 1 == trainer.max_epochs
        with self.averaged.applied() if self.averaged is not None else nullcontext():
            found = None
            if last or (epoch + 1) % self.validate_every == 0:
                found = self._validate(trainer, module)
            counts = found if module.objective.stage.selects or last else None
            best = self.selection.update(epoch, counts, lambda: _copy(module.state_dict()))
            if epoch in self.snapshots and self.keep is not None:
                self.keep(epoch, _copy(module.objective.build(module.model).state_dict()))
        tail: dict[str, Any] = {}
        if found is not None:
            tail = {"val/score": found.score, "val/loss": found.loss, "best": best}
            tail |= {f"val/score/{label}": score for label, score in found.scores.items()}
            tail = {key: None if value != value else value for key, value in tail.items()}
        now = time.perf_counter()
        self.finished_epochs = epoch + 1
        self.seconds += now - self._began
        times = {"seconds": now - self._began, "training": trained - self._began, "validation": now - trained}
        head = {"epoch": epoch, "steps": trainer.global_step, "batches": module.batches_seen}
        self.last = self.run_log.epoch(head, tail, times)
        self._offsets, self._batches_seen = self.run_log.sync(), module.batches_seen
        if self.selection.stop:
            trainer.should_stop = True

    def _validate(self, trainer: pl.Trainer, module: ObjectiveModule) -> Validation:
        assert self.validator is not None
        predictor = module.objective.build(module.model)
        precision = trainer.precision_plugin
        return self.validator(predictor, module.device, precision.forward_context(), precision.convert_input)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.interrupted = isinstance(exception, KeyboardInterrupt)
        if self.run_log is not None and not isinstance(exception, LacunarError):
            self.run_log.close()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.run_log is not None:
            self.run_log.close()

    def state_dict(self) -> dict[str, Any]:
        return {
            "selection": self.selection.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "offsets": self._offsets,
            "batches_seen": self._batches_seen,
            "finished_epochs": self.finished_epochs,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.selection.load_state_dict(state["selection"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self._offsets, self._batches_seen = state["offsets"], state["batches_seen"]
        self.finished_epochs, self.seconds = state["finished_epochs"], state["seconds"]


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}
