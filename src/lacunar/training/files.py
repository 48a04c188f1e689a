"""Files that are either whole or not there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from lacunar.errors import RunError

__all__ = ["discard_leftovers", "read_json", "write_json", "write_whole"]

_MARK = ".unfinished"


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file so that its name never stands for a part of it, whenever the process or the machine dies.

    Args:
        path: the file.
        write: puts the content into an open binary file beside it, which then takes its name.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{_MARK}")
    try:
        with open(unfinished, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard_leftovers(folder: Path) -> None:
    """Remove the files and folders that a killed process was writing; all of ours have names that end alike."""
    for path in folder.glob(f".*{_MARK}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write plain data as JSON, all or nothing."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    write_whole(path, lambda file: file.write(text.encode() + b"\n"))


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        RunError: when it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
