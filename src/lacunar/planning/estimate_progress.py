"""How far a utility table has come: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lacunar.training.quiet import wanted

__all__ = ["CellProgress"]

#: Seconds between lines where there is no terminal.
LINE = 15.0


class CellProgress:
    """Shows finished cells and the time left, on standard error.

    Args:
        text: what is being made.
        total: cells in all.
        done: cells that were there already.
        progress: False shows nothing; nor does ``LACUNAR_PROGRESS=none``.
    """

    def __init__(self, text: str, total: int, done: int, progress: bool):
        self.text, self.total, self.before, self.done = text, total, done, done
        self.console = Console(stderr=True)
        self.shown = wanted(progress) and total > done
        self.live = self.shown and (self.console.is_terminal or self.console.is_jupyter)
        self._bar: Progress | None = None

    def __enter__(self) -> CellProgress:
        self._began = self._said = time.monotonic()
        if self.live:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False),
                console=self.console, transient=True,
            )  # fmt: skip
            self._bar.start()
            # Only what is computed here tells how long the rest takes.
            self._task = self._bar.add_task(self.text, total=self.total - self.before)
        return self

    def advance(self) -> None:
        """One more cell is there."""
        self.done += 1
        if self._bar is not None:
            self._bar.advance(self._task)
        elif self.shown and time.monotonic() - self._said >= LINE:
            self._said = time.monotonic()
            left = (self._said - self._began) / (self.done - self.before) * (self.total - self.done)
            self.console.print(f"{self.text}: {self.done} of {self.total}, {left:.0f} s left", highlight=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
