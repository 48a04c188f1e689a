"""Finished cells as files, so that an interrupted call goes on where it was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lacunar.errors import RunError
from lacunar.planning.utility_table import named_differences
from lacunar.training.files import discard_leftovers, read_json, write_json

__all__ = ["CellStore"]

FORMAT = 1


class CellStore:
    """A folder with ``config.json``, what was asked, and a JSON file for each finished cell.

    Args:
        path: the folder; it need not exist. None keeps nothing.
        config: what was asked, plain data.
        what: what the cells are of.

    Raises:
        RunError: the folder holds something else, or cells of other data or another configuration; every difference
            is named.
    """

    def __init__(self, path: str | os.PathLike[str] | None, config: dict[str, Any], what: str = "utility"):
        self.path = None if path is None else Path(path)
        if self.path is None:
            return
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"out: {self.path} is a file; expected a folder, or a path that does not exist.")
        self.cells = self.path / "cells"
        kind = f"lacunar {what} cells"
        asked = {"kind": kind, "format": FORMAT, "asked": config}
        place = self.path / "config.json"
        if place.exists():
            stored = read_json(place)
            if not isinstance(stored, dict) or stored.get("kind") != kind or stored.get("format") != FORMAT:
                raise RunError(f"{place} is not the configuration of {what} cells that this version can go on with.")
            found = named_differences(stored["asked"], config)
            if found:
                listing = "\n".join(f"  {line}" for line in found)
                raise RunError(
                    f"{self.path} holds {what} cells of other data or another configuration (there: the folder, here: "
                    f"this call):\n{listing}\nUse another folder, or the same data and arguments to go on."
                )
        elif self.path.exists() and any(entry.name[:1] != "." for entry in self.path.iterdir()):
            raise RunError(f"{self.path} holds files but no config.json of {what} cells. Use an empty folder.")
        self.cells.mkdir(parents=True, exist_ok=True)
        discard_leftovers(self.cells)
        if not place.exists():
            write_json(place, asked)

    def read(self, key: str) -> dict[str, Any] | None:
        """A finished cell, or None."""
        if self.path is None or not (self.cells / f"{key}.json").exists():
            return None
        return read_json(self.cells / f"{key}.json")

    def write(self, cell: dict[str, Any]) -> None:
        """Keep a finished cell."""
        if self.path is not None:
            write_json(self.cells / f"{cell['key']}.json", cell)
