"""How long the cells that wait will take, from how long such cells took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from lacunar.bench.cells import Cell

__all__ = ["TimeLeft"]


class TimeLeft:
    """Expects of a cell what such cells took: the same method on the same problem, where there is one.

    Args:
        waiting: cells that are to run.
        finished: cells that did, each with its result.
        workers: cells at a time.
    """

    def __init__(
        self, waiting: Iterable[Cell], finished: Iterable[tuple[Cell, Mapping[str, Any]]] = (), workers: int = 1
    ):
        self.workers = workers
        self._open = {cell.key: cell for cell in waiting}
        self._seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
        for cell, result in finished:
            self._learn(cell, result)

    def ended(self, cell: Cell, result: Mapping[str, Any] | None) -> float | None:
        """Note a cell, and estimate the seconds left for the others; None while nothing is known."""
        self._open.pop(cell.key, None)
        if result is not None:
            self._learn(cell, result)
        if not self._open:
            return 0.0
        if not self._seconds:
            return None
        return sum(self._expected(cell) for cell in self._open.values()) / min(self.workers, len(self._open))

    def _learn(self, cell: Cell, result: Mapping[str, Any]) -> None:
        self._seconds[cell.data_name, cell.method].append(float(result["seconds"]))

    def _expected(self, cell: Cell) -> float:
        """Mean of such cells; else of this problem, else of this method, else of all."""
        known = self._seconds
        own = (
            known.get((cell.data_name, cell.method))
            or [second for (problem, _), seconds in known.items() if problem == cell.data_name for second in seconds]
            or [second for (_, method), seconds in known.items() if method == cell.method for second in seconds]
            or [second for seconds in known.values() for second in seconds]
        )
        return sum(own) / len(own)
