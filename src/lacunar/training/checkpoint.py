"""Checkpoints at the end of every epoch: whole or not there, and read without unpickling anything."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import CheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from lacunar.errors import RunError
from lacunar.training.files import write_whole

__all__ = ["EpochCheckpoint", "WholeFiles", "read_checkpoint"]

FORMAT = 1


def read_checkpoint(path: Path, fingerprint: str) -> dict[str, Any]:
    """The content of a checkpoint.

    Args:
        path: the file.
        fingerprint: of the run that it must belong to.

    Raises:
        RunError: when it is corrupt, would have to be unpickled, or belongs to another run.
    """
    remedy = "Restore the file, or start again with resume=False."
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RunError(
            f"{path} holds more than tensors and plain values, or is corrupt; it is not read, as that could run "
            f"foreign code. {remedy}"
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise RunError(f"{path} is corrupt and cannot be read ({first[0]}). {remedy}") from error
    own = content.get("lacunar") if isinstance(content, dict) else None
    if not isinstance(own, dict):
        raise RunError(f"{path} is not a checkpoint of lacunar. {remedy}")
    if own.get("format") != FORMAT:
        raise RunError(f"{path} has format {own.get('format')!r}, this version reads {FORMAT}. {remedy}")
    if own.get("fingerprint") != fingerprint:
        raise RunError(f"{path} is the checkpoint of another run: model, data or arguments differ. {remedy}")
    return content


class WholeFiles(CheckpointIO):
    """How Lightning reads and writes checkpoints here: atomically, and without pickle on the way in.

    Args:
        content: a checkpoint that has been read already.
    """

    def __init__(self, content: dict[str, Any] | None = None):
        self.content = content

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        write_whole(Path(path), lambda file: torch.save(checkpoint, file))

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        content, self.content = self.content, None
        return content if content is not None else torch.load(path, map_location="cpu", weights_only=True)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class EpochCheckpoint(Checkpoint):
    """Saves everything after every epoch. Lightning calls it after all other callbacks.

    Args:
        path: the file.
        fingerprint: of the run.
    """

    def __init__(self, path: Path, fingerprint: str):
        self.path, self.fingerprint = path, fingerprint

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["lacunar"] = {"format": FORMAT, "fingerprint": self.fingerprint}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.save_checkpoint(self.path)
