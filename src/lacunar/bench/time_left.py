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
        cells: all cells of a run.

    Attributes:
        workers: cells at a time.
    """

    def __init__(self, cells: Iterable[Cell]):
        self.workers = 1
        self._open = {cell.key: cell for cell in cells}
        self._seconds: dict[tuple[str, str], list[float]] = defaultdict(list)

    def ended(self, cell: Cell, result: Mapping[str, Any] | None) -> None:
        """Note a cell that is over, now or in an earlier run, and what came out; None where nothing did."""
        self._open.pop(cell.key, None)
        if result is not None:
            self._seconds[cell.data_name, cell.method].append(float(result["seconds"]))

    @property
    def seconds(self) -> float | None:
        """For the cells that are not over; None while nothing is known."""
        if not self._open:
            return 0.0
        if not self._seconds:
            return None
        return sum(self._expected(cell) for cell in self._open.values()) / min(self.workers, len(self._open))

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
