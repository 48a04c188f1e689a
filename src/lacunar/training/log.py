"""The log of every step and epoch, in JSON lines, that a continued run goes on with as if nothing had happened."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from lacunar.errors import MissingExtraError, RunError
from lacunar.parallel import total, world_size
from lacunar.training.files import sync_folder

__all__ = ["LineFile", "RunLog", "read_lines"]

#: Steps that wait in memory, on their device, before they are written.
BUFFERED_STEPS = 64


class LineFile:
    """JSON lines that are appended to, and cut back to what a checkpoint knows of when a run is continued.

    Args:
        path: the file; None keeps the lines in memory.
        offset: bytes of the file to keep; None keeps all.
    """

    def __init__(self, path: Path | None, offset: int = 0):
        self.lines: list[dict[str, Any]] = []
        self._file: IO[bytes] | None = None
        if path is None:
            return
        new = not path.exists()
        self._file = open(path, "ab")  # noqa: SIM115  open as long as the run
        if self._file.seek(0, os.SEEK_END) < offset:
            self._file.close()
            raise RunError(
                f"{path} is shorter than when its checkpoint was written: the folder was changed. "
                "Restore the file, or start again with resume=False."
            )
        self._file.truncate(offset)
        self._file.seek(0, os.SEEK_END)
        if new:
            sync_folder(path.parent)

    def add(self, lines: list[dict[str, Any]]) -> None:
        if self._file is None:
            self.lines += lines
        else:
            self._file.write("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode())
            self._file.flush()

    def sync(self) -> int:
        """Make everything durable; returns the length in bytes."""
        if self._file is None:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class RunLog:
    """Loss terms and diagnostics of every step, and a line for every epoch.

    Steps wait on their device and are moved in groups, so that logging never makes a step wait. No line holds a
    time: the log of a continued run is the log of an uninterrupted one, bit for bit. Every process must call every
    method, as values are averaged over processes; only the first one writes.

    Args:
        names: the modalities, which name the entries of diagnostics of that length.
        folder: where ``log.jsonl`` and ``times.jsonl`` go; None keeps them in memory.
        writes: whether this process writes.
        offsets: lengths of the two files that are kept, from the checkpoint.
        tensorboard: write TensorBoard events next to the log.
        strict: raise an error as soon as a loss term is not finite.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        folder: Path | None = None,
        writes: bool = True,
        offsets: dict[str, int] | None = None,
        tensorboard: bool = False,
        strict: bool = True,
    ):
        self.names, self.strict = names, strict
        offsets = offsets or {"log": 0, "times": 0}
        home = folder if writes else None
        self.log = LineFile(home and home / "log.jsonl", offsets["log"])
        self.times = LineFile(home and home / "times.jsonl", offsets["times"])
        self._waiting: list[tuple[dict[str, Any], tuple[tuple[str, int], ...], Tensor]] = []  # -1: a scalar
        self._sums: dict[str, list[float]] = {}
        self._tensorboard = _writer(home / "tensorboard") if tensorboard and home else None

    def step(
        self, epoch: int, step: int, samples: int, lr: float, terms: dict[str, Tensor], diagnostics: dict[str, Tensor]
    ) -> None:
        """Note a step; costs no synchronisation.

        Args:
            epoch: its number.
            step: number of the batch since the run began.
            samples: size of the batch in this process.
            lr: learning rate.
            terms: weighted loss terms, scalars.
            diagnostics: scalars or vectors.
        """
        head = {"kind": "step", "epoch": epoch, "step": step, "lr": lr}
        values = {f"loss/{name}": value for name, value in terms.items()} | diagnostics
        flat = [value.detach().reshape(-1).float() for value in values.values()]
        device = flat[0].device
        packed = torch.cat([torch.full((1,), float(samples), device=device), *(part.to(device) for part in flat)])
        sizes = (-1 if value.ndim == 0 else value.numel() for value in values.values())
        self._waiting.append((head, tuple(zip(values, sizes)), packed))
        if len(self._waiting) >= BUFFERED_STEPS:
            self.flush()

    def flush(self) -> None:
        """Write the steps that wait.

        Raises:
            RunError: when a loss term is not finite.
        """
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        table = total(torch.cat([packed for _, _, packed in waiting])).cpu().numpy() / np.float32(world_size())
        lines, start = [], 0
        for head, layout, packed in waiting:
            row = table[start : start + len(packed)]
            start += len(packed)
            lines.append(self._line(head, layout, row))
        self.log.add(lines)
        for line in lines:
            self._events(line, line["step"])
        if self.strict:
            for line in lines:
                _refuse_infinite(line)

    def _line(self, head: dict[str, Any], layout: tuple[tuple[str, int], ...], row: np.ndarray) -> dict[str, Any]:
        samples = float(row[0]) * world_size()
        values, at = {}, 1
        for name, size in layout:
            for i in range(abs(size)):
                values[self._key(name, i, size)] = _plain(row[at + i])
            at += abs(size)
        losses = [value for key, value in values.items() if key.startswith("loss/")]
        whole = None if None in losses else _plain(np.float32(sum(losses)))  # type: ignore[arg-type]
        values = {"loss": whole, **values}
        for key, value in values.items():
            if value is not None:
                entry = self._sums.setdefault(key, [0.0, 0.0])
                entry[0] += samples * value
                entry[1] += samples
        return {**head, "samples": round(samples), **values}

    def _key(self, name: str, i: int, size: int) -> str:
        if size == -1:
            return name
        return f"{name}/{self.names[i] if size == len(self.names) else i}"

    def epoch(self, head: dict[str, Any], tail: dict[str, Any], times: dict[str, float]) -> dict[str, Any]:
        """Write the line of an epoch: the means of its steps by sample, and what validation found."""
        self.flush()
        means = {key: _plain(np.float64(summed / count)) for key, (summed, count) in self._sums.items() if count}
        self._sums = {}
        line = {"kind": "epoch", **head, **means, **tail}
        self.log.add([line])
        self.times.add([{"epoch": head["epoch"], **times}])
        self._events({f"epoch/{key}": value for key, value in line.items()}, head["epoch"])
        return line

    def sync(self) -> dict[str, int]:
        """Make the log durable and give its lengths, for the checkpoint."""
        return {"log": self.log.sync(), "times": self.times.sync()}

    def close(self) -> None:
        self.log.close()
        self.times.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _events(self, line: dict[str, Any], step: int) -> None:
        if self._tensorboard is None:
            return
        for key, value in line.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self._tensorboard.add_scalar(key, value, step)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; one that was cut off in writing is left out.

    Raises:
        RunError: when a line in the middle cannot be read.
    """
    lines: list[dict[str, Any]] = []
    if not path.exists():
        return lines
    content = path.read_bytes().split(b"\n")
    for number, text in enumerate(content[:-1], 1):
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise RunError(f"{path}, line {number}: not a line of a log ({error}).") from error
    return lines


def _plain(value: np.floating) -> float | None:
    """The shortest number that reads back as this one; None when it is not finite."""
    return float(str(value)) if math.isfinite(value) else None


def _refuse_infinite(line: dict[str, Any]) -> None:
    for key, value in line.items():
        if key.startswith("loss/") and value is None:
            raise RunError(
                f"The loss term {key.removeprefix('loss/')!r} is not finite in epoch {line['epoch']}, "
                f"step {line['step']}. "
                "Lower lr or gradient_clip, or check the data for extreme values; finished epochs are kept."
            )


def _writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "track", "tensorboard=True") from error
    return SummaryWriter(str(folder))
