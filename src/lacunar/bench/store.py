"""Where the results of cells lie: one folder for each, whole or not there at all.

``cells/KEY/cell.json`` says what was run, with versions and hashes, ``cells/KEY/result.json`` what came out. Earlier
results, one file ``cells/KEY.json`` for each cell, are read as well. ``log.jsonl`` has a line whenever a cell begins
and ends, with the process that runs it. A cell that cannot be read is set aside in ``damaged`` and run again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lacunar.errors import RunError
from lacunar.training.files import read_json, write_json

__all__ = ["Store"]

_UNFINISHED = ".unfinished"
#: A half-written folder of this age, in seconds, belongs to nobody.
_ABANDONED = 3600


class Store:
    """The results in a folder.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.cells, self.log, self.failures = self.path / "cells", self.path / "log.jsonl", self.path / "failures"

    def has(self, key: str) -> bool:
        """Whether a cell is finished."""
        folder = self.cells / key
        whole = (folder / "cell.json").exists() and (folder / "result.json").exists()
        return whole or (self.cells / f"{key}.json").exists()

    def keys(self) -> list[str]:
        """Names of all finished cells, sorted."""
        if not self.cells.is_dir():
            return []
        new = {path.parent.name for path in self.cells.glob("*/result.json")}
        old = {path.stem for path in self.cells.glob("*.json")}
        return sorted(key for key in new | old if not key.startswith(".") and self.has(key))

    def read(self, key: str) -> dict[str, Any]:
        """A finished cell: its result, with its configuration under ``"cell"``.

        Raises:
            RunError: the cell is not there, or its files cannot be read.
        """
        folder = self.cells / key
        try:
            if (folder / "result.json").exists():
                return {**read_json(folder / "cell.json"), **read_json(folder / "result.json")}
            return read_json(self.cells / f"{key}.json")
        except RunError as error:
            raise RunError(f"{error}. Run the recipe again: it sets this cell aside and repeats it.") from error

    def find(self, key: str) -> dict[str, Any] | None:
        """A finished cell, or None; what cannot be read is set aside, so that the cell can be run again."""
        if not self.has(key):
            return None
        try:
            return self.read(key)
        except RunError as error:
            aside = self.path / "damaged"
            aside.mkdir(exist_ok=True)
            for path in (self.cells / key, self.cells / f"{key}.json"):
                with contextlib.suppress(OSError):  # another process did it meanwhile
                    os.rename(path, aside / f"{path.name}.{time.time_ns()}")
            self.note(key, "damaged", why=str(error))
            return None

    def results(self) -> Iterator[dict[str, Any]]:
        """All finished cells, by name."""
        for key in self.keys():
            yield self.read(key)

    def write(self, key: str, about: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Keep a finished cell; what another process has kept meanwhile stays."""
        self.cells.mkdir(parents=True, exist_ok=True)
        unfinished = self.cells / f".{key}.{socket.gethostname()}.{os.getpid()}{_UNFINISHED}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            write_json(unfinished / "cell.json", about)
            write_json(unfinished / "result.json", result)
            if (self.cells / key).is_dir() and not self.has(key):
                # Copied in part: no folder can take the name of one that is not empty.
                os.rename(self.cells / key, unfinished / "replaced")
                shutil.rmtree(unfinished / "replaced")
            # The folder takes its name when everything is in it; a finished one that has it already is not replaced.
            os.rename(unfinished, self.cells / key)
        except OSError as error:
            if not self.has(key):
                raise RunError(f"{self.cells / key} cannot be written: {error}") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        (self.failures / f"{key}.txt").unlink(missing_ok=True)

    def write_failure(self, key: str, text: str) -> None:
        """Keep where a cell failed, until it succeeds."""
        self.failures.mkdir(parents=True, exist_ok=True)
        (self.failures / f"{key}.txt").write_text(text, encoding="utf-8")

    def note(self, key: str, what: str, **more: Any) -> None:
        """Add a line to the log: lines of several processes do not mix."""
        self.path.mkdir(parents=True, exist_ok=True)
        line = {"cell": key, "what": what, "pid": os.getpid(), "host": socket.gethostname(), "time": time.time()} | more
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, (json.dumps(line) + "\n").encode())
        finally:
            os.close(descriptor)

    def log_lines(self) -> list[dict[str, Any]]:
        """What the log says, in order."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines() if line.strip()]

    def taken(self, key: str, run: str) -> int:
        """How often workers have taken a cell in a run."""
        if not self.log.exists():
            return 0
        mark, name = json.dumps(run), json.dumps(key)
        with open(self.log, encoding="utf-8") as lines:
            return sum(mark in line and name in line for line in lines)

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Let one process at a time do what has this name; the system lets go of it however a process ends."""
        if os.name != "posix":
            yield
            return
        import fcntl

        folder = self.path / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / name, "wb") as file:
            with contextlib.suppress(OSError):  # a file system without locks: the work may be done twice
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def busy(self, name: str) -> bool:
        """Whether some process does what has this name just now."""
        if os.name != "posix" or not (self.path / ".locks" / name).exists():
            return False
        import fcntl

        with open(self.path / ".locks" / name, "wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            except OSError:  # a file system without locks
                return False
        return False

    def sweep(self) -> None:
        """Remove what killed processes were writing long ago."""
        for path in self.cells.glob(f".*{_UNFINISHED}"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(path, ignore_errors=True)
