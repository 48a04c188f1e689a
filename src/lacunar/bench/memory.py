"""The largest memory that this process took while something ran."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from types import TracebackType

__all__ = ["ResidentPeak"]

_STATUS, _REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class ResidentPeak:
    """Peak of the resident memory of this process within a ``with`` block, where Linux tells it.

    It holds everything that the process has, data and libraries included; the latter are the same for every cell.

    Attributes:
        megabytes: known after the block; None where the system does not tell.
    """

    def __init__(self) -> None:
        self.megabytes: float | None = None

    def __enter__(self) -> ResidentPeak:
        self._told = False
        with contextlib.suppress(OSError):
            _REFS.write_text("5")  # the peak starts again from what is resident now
            self._told = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._told:
            return
        with contextlib.suppress(OSError, ValueError, IndexError):
            line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
            found = int(line.split()[1]) / 1024
            self.megabytes = found if math.isfinite(found) else None
