"""Weights at several times during training, for what is measured over them afterwards."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lacunar.errors import RunError

__all__ = ["Snapshots", "snapshot_epochs"]

SUFFIX = ".safetensors"


def snapshot_epochs(count: int, max_epochs: int) -> frozenset[int]:
    """Which epochs are kept, from 0: evenly spaced, the last one among them."""
    count = min(count, max_epochs)
    return frozenset(math.ceil(max_epochs * (number + 1) / count) - 1 for number in range(count))


class Snapshots(Mapping[int, "dict[str, Tensor]"]):
    """From epoch, from 0, to the ``state_dict`` of the model as it was validated then.

    Those in a folder are read when they are asked for, one at a time.

    Args:
        folder: where they are stored; None for those in memory.
        kept: those in memory, by epoch.
    """

    def __init__(self, folder: Path | None = None, kept: Mapping[int, dict[str, Tensor]] | None = None):
        self.folder, self.kept = folder, dict(kept or {})

    @staticmethod
    def name(epoch: int) -> str:
        """The file of an epoch."""
        return f"{epoch:06d}{SUFFIX}"

    def __getitem__(self, epoch: int) -> dict[str, Tensor]:
        if self.folder is None:
            return self.kept[epoch]
        if epoch not in self._epochs():
            raise KeyError(epoch)
        path = self.folder / self.name(epoch)
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{path} cannot be read: {error}.") from error

    def __iter__(self) -> Iterator[int]:
        return iter(self._epochs())

    def __len__(self) -> int:
        return len(self._epochs())

    def _epochs(self) -> list[int]:
        if self.folder is None:
            return sorted(self.kept)
        stems = [path.name.removesuffix(SUFFIX) for path in self.folder.glob(f"*{SUFFIX}")]
        return sorted(int(stem) for stem in stems if stem.isdigit())

    def __repr__(self) -> str:
        where = "in memory" if self.folder is None else f"in {self.folder}"
        return f"Snapshots(epochs {self._epochs()} {where})"
