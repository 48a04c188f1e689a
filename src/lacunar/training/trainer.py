"""One call of Lightning's Trainer, and everything it needs."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch.distributed as dist
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor

from lacunar.errors import ConfigError, RunError
from lacunar.models.multimodal import MultimodalModel
from lacunar.models.saving import take_types
from lacunar.objectives.base import Objective
from lacunar.training.callbacks import EpochKeeper
from lacunar.training.checkpoint import EpochCheckpoint, WholeFiles, read_checkpoint
from lacunar.training.folder import RunFolder
from lacunar.training.log import RunLog
from lacunar.training.module import ObjectiveModule
from lacunar.training.options import TrainingOptions
from lacunar.training.progress import TrainingProgress
from lacunar.training.selection import Selection
from lacunar.training.snapshots import Snapshots, snapshot_epochs
from lacunar.training.validation import Validator

if TYPE_CHECKING:
    from lacunar.data.splits import Splits

__all__ = ["Training", "check_device"]

logger = logging.getLogger(__name__)


class Training:
    """One call of Lightning's Trainer, and everything it needs."""

    def __init__(
        self,
        data: Splits,
        model: MultimodalModel,
        objective: Objective,
        options: TrainingOptions,
        folder: RunFolder | None,
        mark: str,
        num_workers: int,
        tensorboard: bool,
        first: bool,
        snapshots: int,
    ):
        self.data, self.options, self.folder, self.mark, self.first = data, options, folder, mark, first
        self.num_workers, self.tensorboard = num_workers, tensorboard
        self.lines: list[dict[str, Any]] = []
        assert options.batch_size is not None
        assert options.max_epochs is not None
        self.wanted = snapshot_epochs(snapshots, options.max_epochs)
        batches = math.ceil(len(data.train) / options.batch_size)
        self.module = ObjectiveModule(
            model, objective, data.train,
            lr=options.lr, weight_decay=options.weight_decay, schedule=options.schedule,
            total_steps=options.max_epochs * math.ceil(batches / options.accumulate),
            batch_size=options.batch_size, seed=options.seed, num_workers=num_workers,
            fused="mixed" not in options.precision,  # Lightning clips no gradients of a fused optimiser there
        )  # fmt: skip
        self.keeper = EpochKeeper(
            self._open_log,
            self._make_validator,
            Selection(options.select, options.patience),
            options.average,
            options.validate_every,
            self._keep if folder is None or first else None,
            self.wanted,
        )
        self.snapshots = Snapshots(None if folder is None else folder.snapshots)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put stored weights into model and objective.

        Raises:
            RunError: when they are those of another model.
        """
        take_types(self.module, tensors)
        try:
            self.module.load_state_dict(tensors)
        except RuntimeError as error:
            raise RunError(f"The stored weights are not those of this model and objective: {error}") from error

    def run(self, progress: bool, callbacks: Sequence[pl.Callback]) -> dict[str, Any]:
        """Train, or go on training, and load the selected weights."""
        folder, content = self.folder, None
        if folder is not None and folder.checkpoint.exists():
            content = read_checkpoint(folder.checkpoint, self.mark)
            kept = content["callbacks"][self.keeper.state_key]
            logger.info("%s: going on after %d finished epochs", folder.path, kept["finished_epochs"])
            if kept["finished_epochs"] >= (self.options.max_epochs or 0) or kept["selection"]["stop"]:
                self.keeper.load_state_dict(kept)
                content = None
                self._trained()
                return self._result()
        elif folder is not None and self.first:
            # A run that is killed in its first epoch starts again from the same weights.
            if folder.start.exists():
                self.load(folder.read_tensors(folder.start))
            else:
                folder.write_tensors(folder.start, self.module.state_dict())
        self.module.train()
        self._fit(content, progress, callbacks)
        self._trained()
        return self._result()

    def _fit(self, content: dict[str, Any] | None, progress: bool, callbacks: Sequence[pl.Callback]) -> None:
        options, folder = self.options, self.folder
        own: list[pl.Callback] = [self.keeper]
        if progress:
            own.append(TrainingProgress(self.keeper))
        if folder is not None:
            own.append(EpochCheckpoint(folder.checkpoint, self.mark))
        fixed = type(self.module.objective).training_set is Objective.training_set
        began_here = not dist.is_initialized()
        strategy = self._strategy()
        try:
            trainer = pl.Trainer(
                accelerator=options.accelerator, devices=options.devices, strategy=strategy,
                precision=options.precision,  # type: ignore[arg-type]
                max_epochs=options.max_epochs, accumulate_grad_batches=options.accumulate,
                gradient_clip_val=options.gradient_clip,
                callbacks=[*own, *callbacks], plugins=[WholeFiles(content)],
                logger=False, enable_checkpointing=folder is not None, enable_progress_bar=False,
                enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0,
                reload_dataloaders_every_n_epochs=0 if fixed else 1,
                default_root_dir=None if folder is None else folder.path,
            )  # fmt: skip
        except (MisconfigurationException, ValueError, TypeError):
            check_device(options)  # tells where it is to blame
            raise
        with _interrupts(self.keeper, folder), _one_group(began_here):
            trainer.fit(self.module, ckpt_path=None if content is None else folder.checkpoint)  # type: ignore[union-attr]

    def _strategy(self) -> str:
        """Several processes must not wait for gradients of the parts that a method has put its own in the place of."""
        asked = self.options.strategy
        whole = type(self.module.objective).build is Objective.build
        if whole or asked not in ("auto", "ddp") or str(self.options.devices) == "1":
            return asked
        found = check_device(self.options)
        several = isinstance(found.strategy, DDPStrategy) and found.world_size > 1
        return "ddp_find_unused_parameters_true" if several else asked

    def _trained(self) -> None:
        selection = self.keeper.selection
        if selection.weights is None:
            raise RunError("Training ended before its first epoch was finished.")
        self.load(selection.weights)
        if self.keeper.run_log is not None:
            self.lines = self.keeper.run_log.log.lines

    def _result(self) -> dict[str, Any]:
        selection = self.keeper.selection
        return {
            "best_epoch": selection.best_epoch,
            "best_score": selection.best_score,
            "best_loss": selection.best_loss,
            "epochs": self.keeper.finished_epochs,
            "seconds": self.keeper.seconds,
        }

    def _open_log(self, offsets: dict[str, int] | None) -> RunLog:
        return RunLog(
            self.data.train.names,
            None if self.folder is None else self.folder.path,
            writes=self.first,
            offsets=offsets,
            tensorboard=self.tensorboard,
            strict=self.options.precision != "16-mixed",
        )

    def _keep(self, epoch: int, state: dict[str, Tensor]) -> None:
        if self.folder is None:
            self.snapshots.kept[epoch] = state
        else:
            self.folder.snapshots.mkdir(exist_ok=True)
            self.folder.write_tensors(self.folder.snapshots / Snapshots.name(epoch), state)

    def _make_validator(self, rank: int, world: int) -> Validator:
        size = max(self.data.val.rows_at_once, self.options.batch_size or 0)
        return Validator(self.data.val, size, self.options.seed, rank, world, self.num_workers)


def check_device(options: TrainingOptions) -> pl.Trainer:
    """Ask Lightning now, before anything is written or trained, whether it can compute as it is told to."""
    try:
        return pl.Trainer(
            accelerator=options.accelerator, devices=options.devices, strategy=options.strategy,
            precision=options.precision,  # type: ignore[arg-type]
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
    except (MisconfigurationException, ValueError, TypeError) as error:
        asked = ", ".join(
            f"{name}={getattr(options, name)!r}" for name in ("accelerator", "devices", "strategy", "precision")
        )
        raise ConfigError(f"Cannot compute with {asked}: {error}") from error


@contextlib.contextmanager
def _interrupts(keeper: EpochKeeper, folder: RunFolder | None) -> Iterator[None]:
    """Ctrl-C as a KeyboardInterrupt that says how to go on; Lightning would end the process."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        if isinstance(error, SystemExit) and not keeper.interrupted:
            raise
        if folder is None:
            message = "Training was interrupted; nothing is kept without out=."
        else:
            message = (
                f"Training was interrupted. {keeper.finished_epochs} finished epochs are kept in {folder.path}: "
                "run the same command to go on."
            )
        logger.warning(message)
        raise KeyboardInterrupt(message) from None
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGINT, handler)  # Lightning leaves it ignored


@contextlib.contextmanager
def _one_group(began_here: bool) -> Iterator[None]:
    """Leave no process group behind that was not there before: sums over processes would wait for the others."""
    yield
    if began_here and dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
