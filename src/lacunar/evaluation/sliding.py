"""Whole volumes from a model that was trained on crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lacunar.data.batch import Batch
from lacunar.errors import ConfigError, DataError, MissingExtraError
from lacunar.lattice import Lattice, Pairs
from lacunar.models.multimodal import MultimodalModel, available_pairs
from lacunar.tasks import Task

__all__ = ["SlidingWindow"]


class SlidingWindow(nn.Module):
    """A model for volumes of any size: windows slide over them, and overlapping probabilities are averaged.

    Only the modalities of the asked subset are read, window by window; :func:`lacunar.evaluate` takes it like any
    other model.

    Args:
        model: trained on crops, with label maps as output.
        window: size of a window ``(d, h, w)``; volumes that are smaller are padded.
        overlap: of neighbouring windows, as a fraction of the window: 0.5 is the stride of 40 in windows of 80.
        windows_at_a_time: how many go through the model in one call.

    Raises:
        MissingExtraError: when MONAI is not installed (``pip install 'lacunar[medical]'``).
    """

    def __init__(self, model: MultimodalModel, window: Sequence[int], overlap: float = 0.5, windows_at_a_time: int = 4):
        super().__init__()
        if not 0 <= overlap < 1:
            raise ConfigError(f"SlidingWindow: overlap is a fraction in [0, 1), got {overlap}.")
        try:
            from monai.inferers import sliding_window_inference
        except ImportError as error:
            raise MissingExtraError("monai", "medical", "A sliding window") from error
        self._slide = sliding_window_inference
        self.model, self.window, self.overlap = model, tuple(window), overlap
        self.windows_at_a_time = windows_at_a_time

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names in lattice order."""
        return self.model.names

    @property
    def lattice(self) -> Lattice:
        return self.model.lattice

    @property
    def task(self) -> Task | None:
        return self.model.task

    @torch.no_grad()
    def predict_pairs(self, batch: Batch, pairs: Pairs) -> Tensor:
        """Log-probabilities ``(P, n_outputs, D, H, W)`` of (sample, subset) pairs of whole volumes."""
        volumes = batch.dense()
        shapes = {name: tuple(volume.shape[2:]) for name, volume in volumes.items()}
        if len(set(shapes.values())) > 1:
            raise DataError(f"SlidingWindow: the modalities of a sample must have one shape, got {shapes}.")
        channels = {name: volume.shape[1] for name, volume in volumes.items()}
        stacked = torch.cat(list(volumes.values()), 1)  # (B, sum of channels, D, H, W)
        outputs = []
        for row, code in zip(pairs.rows.tolist(), pairs.codes.tolist()):
            chosen = self.lattice.decode(torch.tensor([code], device=batch.device))

            def probabilities(windows: Tensor, chosen: Tensor = chosen) -> Tensor:
                return self._windows(windows, chosen, channels)

            averaged: Any = self._slide(
                stacked[row : row + 1], self.window, self.windows_at_a_time, probabilities, overlap=self.overlap
            )
            outputs.append(averaged.clamp_min(torch.finfo(averaged.dtype).tiny).log())
        return torch.cat(outputs)

    def _windows(self, windows: Tensor, chosen: Tensor, channels: dict[str, int]) -> Tensor:
        count = len(windows)
        parts = windows.split(list(channels.values()), 1)
        inputs = {name: part if there else part[:0] for name, part, there in zip(channels, parts, chosen[0].tolist())}
        present = chosen.expand(count, -1)
        batch = Batch(inputs, present, None, torch.arange(count, device=windows.device))
        return self.model(batch).softmax(1)

    def forward(self, batch: Batch) -> Tensor:
        """Log-probabilities ``(B, n_outputs, D, H, W)`` from everything that each sample has."""
        return self.predict_pairs(batch, available_pairs(self.lattice, batch))
