"""The folder of a run: what was asked, whether it may go on, and what came out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as pack
from torch import Tensor, nn

import lacunar
from lacunar.data.columns import DenseColumn
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import RunError
from lacunar.training.files import discard_leftovers, read_json, write_json, write_whole

__all__ = ["RunFolder", "describe_data", "describe_module", "differences", "fingerprint", "versions"]

FORMAT = 1
#: Seconds to wait for a killed process's workers to let go of the folder.
PATIENCE = 10.0


class RunFolder:
    """Files of one run.

    ``config.json`` what was asked; ``log.jsonl``, ``times.jsonl`` what happened; ``checkpoint.pt`` the last finished
    epoch, while the run is unfinished; ``snapshots/`` weights of earlier epochs, where asked for;
    ``selected.safetensors``, ``model/`` and ``result.json`` what came out.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.config, self.result = self.path / "config.json", self.path / "result.json"
        self.checkpoint, self.start = self.path / "checkpoint.pt", self.path / "start.safetensors"
        self.selected, self.model = self.path / "selected.safetensors", self.path / "model"
        self.references, self.snapshots = self.path / "references", self.path / "snapshots"
        self.log, self.times = self.path / "log.jsonl", self.path / "times.jsonl"
        self.tensorboard = self.path / "tensorboard"

    @property
    def finished(self) -> bool:
        return self.result.exists()

    def begin(self, config: dict[str, Any], resume: bool) -> None:
        """Make the folder ready for a run with this configuration.

        Raises:
            RunError: when it holds another run (every difference is named), or files of something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"out: {self.path} is a file; expected a folder, or a path that does not exist.")
        discard_leftovers(self.path)
        discard_leftovers(self.snapshots)
        if self.config.exists() and not resume:
            self._clear()
        if self.config.exists():
            stored = read_json(self.config)
            if not isinstance(stored, dict) or stored.get("format") != FORMAT:
                raise RunError(f"{self.config} is not the configuration of a run that this version can go on with.")
            found = differences(stored["asked"], config["asked"])
            if found:
                listing = "\n".join(f"  {line}" for line in found)
                raise RunError(
                    f"{self.path} holds a run with other arguments:\n{listing}\n"
                    "Use another folder, the same arguments to go on, or resume=False to replace that run."
                )
            return
        for path in (self.result, self.checkpoint, self.selected, self.log, self.times, self.model, self.references):
            if path.exists():
                raise RunError(f"{self.path} holds {path.name!r} but no config.json: it is not the folder of a run.")
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.config, config)

    def _clear(self) -> None:
        import shutil

        for path in (self.result, self.checkpoint, self.start, self.selected, self.log, self.times):
            path.unlink(missing_ok=True)
        for folder in (self.model, self.references, self.snapshots, self.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)
        self.config.unlink()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; the system lets go of it however this process ends.

        Raises:
            RunError: when another process holds it.
        """
        if os.name != "posix":
            yield
            return
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"out: {self.path} is a file; expected a folder, or a path that does not exist.")
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "wb") as file:
            _hold(file, self.path)
            yield

    def write_tensors(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        content = pack({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()})
        write_whole(path, lambda file: file.write(content))

    def read_tensors(self, path: Path) -> dict[str, Tensor]:
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{path} cannot be read: {error}. Start again with resume=False.") from error


def _hold(file: IO[bytes], path: Path) -> None:
    import fcntl

    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise RunError(f"{path} is in use: another process is training into it.") from None
            time.sleep(0.1)
        except OSError:  # a file system without locks
            return


def versions() -> dict[str, str]:
    """Versions of what results depend on."""
    packages = ("torch", "numpy", "scikit-learn", "pytorch-lightning")
    return {"lacunar": lacunar.__version__, "python": platform.python_version(), **{p: version(p) for p in packages}}


def fingerprint(asked: Any) -> str:
    """SHA-256 of what was asked."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def describe_data(data: MultimodalDataset) -> dict[str, Any]:
    """What a run remembers of its data: sizes, the task, and a hash of ids, presence, targets and (some) values."""
    digest = hashlib.sha256("\0".join(data.ids.tolist()).encode())
    digest.update(np.packbits(data.present.numpy()).tobytes())
    if data.target is not None:
        digest.update(np.ascontiguousarray(data.target.numpy()).tobytes())
    for column in data.columns.values():
        if isinstance(column, DenseColumn):
            flat = column.values.reshape(-1)
            digest.update(np.ascontiguousarray(flat[:: max(1, len(flat) // 250_000)].numpy()).tobytes())
    return {
        "modalities": list(data.names),
        "samples": len(data),
        "observed": dict(zip(data.names, data.availability.tolist())),
        # As it is read back from the folder: a tuple would differ from the list that JSON makes of it.
        "task": None if data.task is None else json.loads(json.dumps(data.task.to_config(), sort_keys=True)),
        "hash": digest.hexdigest(),
    }


def describe_module(module: nn.Module) -> list[str]:
    """A line for every part of a module: its class, its plain attributes and the shapes of its parameters."""
    lines = []
    for name, part in module.named_modules():
        options = {
            key: value
            for key, value in sorted(vars(part).items())
            if not key.startswith("_") and key != "training" and _is_plain(value)
        }
        shapes = {key: list(value.shape) for key, value in part.named_parameters(recurse=False)}
        facts = [f"{key}={value!r}" for key, value in options.items()]
        facts += [f"{key}{shape}" for key, shape in shapes.items()]
        lines.append(f"{name + ': ' if name else ''}{type(part).__name__}({', '.join(facts)})")
    return lines


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def differences(stored: Any, asked: Any, name: str = "") -> list[str]:
    """Each place where two configurations differ, in words."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        keys = [*stored, *(key for key in asked if key not in stored)]
        absent = "nothing"
        return [
            line
            for key in keys
            for line in differences(
                stored.get(key, absent), asked.get(key, absent), f"{name}.{key}" if name else str(key)
            )
        ]
    if isinstance(stored, list) and isinstance(asked, list) and name in ("model", "objective"):
        for there, here in zip([*stored, "nothing"], [*asked, "nothing"]):
            if there != here:
                return [f"{name}: the folder has {there}, this call has {here}"]
        return (
            [] if len(stored) == len(asked) else [f"{name}: the folder has {len(stored)} parts, this call {len(asked)}"]
        )
    if stored == asked:
        return []
    return [f"{name}: the folder has {stored!r}, this call has {asked!r}"]
