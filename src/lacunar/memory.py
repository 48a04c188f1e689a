"""How many bytes of tensors live at the same time."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["LiveBytes", "fitting", "peak_bytes"]


def peak_bytes(run: Callable[[], Any]) -> int:
    """Largest sum of the bytes of the tensors that ``run`` makes, on any device; what is given to it is not counted."""
    with LiveBytes() as live:
        run()
    return live.peak


def fitting(peak: Callable[[int], int], bound: float, most: int) -> int:
    """How many items at a time stay within a bound.

    What lives at the peak grows in proportion to the items, or less: what is concluded from fewer items is never too
    many, and looking again from there comes closer.

    Args:
        peak: from a number of items to bytes.
        bound: in bytes.
        most: items that are tried; what more of them would take is concluded.
    """
    tried, fits = 0, 1
    while tried < most and fits > 1.05 * tried:
        tried = min(fits, most)
        fits = max(1, int(tried * bound / max(peak(tried), 1)))
    return fits


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operations make and that are still alive, on any device.

    Scratch space inside a kernel is not seen.

    Attributes:
        now: bytes alive.
        peak: the most that were alive at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.now = self.peak = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the default would import the compiler, which takes seconds

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if not isinstance(leaf, Tensor):
                continue
            storage = leaf.untyped_storage()
            key = storage._cdata
            if key in given or key in self.live:
                continue
            self.live[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, key)
        return result

    def _free(self, key: int) -> None:
        self.now -= self.live.pop(key, 0)
