"""How far training has come: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lacunar.training.callbacks import EpochKeeper
from lacunar.training.quiet import wanted

__all__ = ["TrainingProgress", "wanted"]

#: Seconds between redraws of the bar, and between lines where there is no terminal.
REDRAW, LINE = 0.2, 15.0


class TrainingProgress(pl.Callback):
    """Shows epochs, the loss, the validation score and the time left, on standard error.

    Args:
        keeper: knows what the last epoch found.
    """

    def __init__(self, keeper: EpochKeeper):
        self.keeper = keeper
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal or self.console.is_jupyter
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._shown = self._began = 0.0
        self._first = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = self._shown = time.monotonic()
        self._first = trainer.current_epoch
        if not trainer.is_global_zero or not self.live:
            return
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[found]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console, auto_refresh=False, transient=True,
        )  # fmt: skip
        self._bar.start()
        self._task = self._bar.add_task("training", total=None, found="")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is None or time.monotonic() - self._shown < REDRAW:
            return
        self._draw(trainer, trainer.current_epoch + (batch_idx + 1) / max(trainer.num_training_batches, 1))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._bar is not None:
            if time.monotonic() - self._shown >= REDRAW:
                self._draw(trainer, trainer.current_epoch + 1)
        elif trainer.is_global_zero and not self.live and time.monotonic() - self._shown >= LINE:
            self._shown = time.monotonic()
            done = trainer.current_epoch + 1 - self._first
            left = (self._shown - self._began) / done * ((trainer.max_epochs or done) - trainer.current_epoch - 1)
            self._say(
                f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: {self._found()}, {_duration(left)} left"
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()
        if trainer.is_global_zero:
            best = self.keeper.selection
            self._say(
                f"trained {self.keeper.finished_epochs} epochs in {_duration(self.keeper.seconds)}; best epoch "
                f"{best.best_epoch + 1}: validation mean over subsets {best.best_score:.3f}"
            )

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _draw(self, trainer: pl.Trainer, epochs: float) -> None:
        assert self._bar is not None
        assert self._task is not None
        self._shown = time.monotonic()
        # The task counts from where this process began, so that the time left is right in a continued run.
        total = (trainer.max_epochs or 0) - self._first
        text = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        self._bar.update(self._task, completed=epochs - self._first, total=total, description=text, found=self._found())
        self._bar.refresh()

    def _found(self) -> str:
        last = self.keeper.last
        parts = [f"loss {last['loss']:.3f}"] if last.get("loss") is not None else []
        if last.get("val/score") is not None:
            parts.append(f"validation {last['val/score']:.3f}")
        return ", ".join(parts)

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
