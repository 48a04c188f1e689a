"""Finished cells in one file, a line each: to keep with a project, to send, to merge with those of another machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lacunar.bench.store import Store
from lacunar.errors import RunError
from lacunar.training.files import write_whole

__all__ = ["export_cells", "import_cells"]

#: What of a cell says what was run; the rest is what came out.
_ABOUT = ("cell", "data", "presence", "split", "versions", "threads", "machine")


def export_cells(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> int:
    """Write all finished cells of a folder into one file of JSON lines, sorted by name.

    Cells that the file holds already and the folder does not are kept, so exports of several machines add up.

    Args:
        folder: of the results.
        path: the file.

    Returns:
        How many cells the file holds.

    Raises:
        RunError: the folder holds no finished cell, or the file is not such a file.
    """
    store, path = Store(folder), Path(path)
    lines = _read(path) if path.exists() else {}
    finished = store.keys()
    lines |= {key: {"key": key, **store.read(key)} for key in finished}
    if not lines:
        raise RunError(f"{store.path} holds no finished cell to export; run a recipe into it first.")
    text = "".join(json.dumps(lines[key], ensure_ascii=False, separators=(",", ":")) + "\n" for key in sorted(lines))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: file.write(text.encode()))
    return len(lines)


def import_cells(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> int:
    """Put the cells of a file into a folder of results, where a run goes on from them; what is there already stays.

    Returns:
        How many cells were put there.

    Raises:
        RunError: the file cannot be read; nothing is put into the folder then.
    """
    store, added = Store(folder), 0
    for key, line in _read(Path(path)).items():
        if not store.has(key):
            about = {name: line[name] for name in _ABOUT if name in line}
            store.write(key, about, {name: value for name, value in line.items() if name not in (*_ABOUT, "key")})
            added += 1
    return added


def _read(path: Path) -> dict[str, dict[str, Any]]:
    lines = {}
    try:
        with open(path, encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                line = json.loads(text)
                if not isinstance(line, dict) or not isinstance(line.get("cell"), dict) or not _plain(line.get("key")):
                    raise ValueError(f"line {number} is no cell")
                lines[line["key"]] = line
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as exported cells: {error}.") from error
    return lines


def _plain(key: Any) -> bool:
    """Whether a key is a name within the folder, and leads nowhere else."""
    return isinstance(key, str) and key not in ("", ".", "..") and Path(key).name == key
