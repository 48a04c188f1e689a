"""What stands before an encoder and is fitted on the train split only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lacunar.errors import ConfigError, DataError
from lacunar.models.configurable import Configurable
from lacunar.models.encoders._sequence import real_steps

if TYPE_CHECKING:
    from lacunar.data.dataset import MultimodalDataset

__all__ = ["HALF", "InputNoise", "Standardize", "standardizes"]

HALF = (torch.float16, torch.bfloat16)


class Standardize(Configurable):
    """Zero mean and unit variance, by the statistics of the train rows, which travel with the model.

    Vectors and sequences are scaled per feature, images and volumes per channel. Features that are constant in the
    train rows are centred only. A cast to half precision reaches what comes out; the statistics and the arithmetic
    stay in single precision, for a small spread on a large mean would be lost.

    Args:
        shape: shape of one sample, for sequences without the number of steps: ``(F,)``, ``(C, H, W)`` or
            ``(C, D, H, W)``.
        clip: bound on the absolute value of what comes out; None leaves extremes as they are.

    Attributes:
        mean, std: statistics, shape ``(F,)`` or ``(C, 1, ...)``.

    Shapes:
        ``(n, *shape)`` or sequences ``(n, T, F)``, with lengths ``(n,)``, to the same shape.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: Sequence[int], clip: float | None = 10.0):
        super().__init__()
        if not shape or (clip is not None and clip <= 0):
            raise ConfigError(f"Standardize: expected a shape and a positive clip, got {tuple(shape)}, {clip}.")
        self.shape, self.clip = tuple(shape), clip
        kept = (shape[0], *[1] * (len(shape) - 1))
        self.register_buffer("mean", torch.zeros(kept))
        self.register_buffer("std", torch.ones(kept))
        self._half: torch.dtype | None = None  # the type of what comes out, where it is not that of the statistics

    @classmethod
    def fit(cls, data: MultimodalDataset, name: str, clip: float | None = 10.0, batch_size: int = 256) -> Standardize:
        """Statistics of the observed rows of ``data`` that have the modality ``name``; pass the train split.

        Raises:
            DataError: when no row has the modality, or it holds integer tokens.
        """
        data = data.observed()  # what a completer made varies less than what was observed, and would set another scale
        if name in data.names and data.kinds[name] == "tokens":
            raise DataError(f"Modality {name!r} holds integer tokens, which cannot be standardised.")
        if name in data.names and not data.present[:, data.names.index(name)].any():
            raise DataError(f"Modality {name!r} is present in no row of {data.name}: nothing to fit on.")
        alone = data.only([name])
        fitted = cls(alone.shapes[name], clip)
        count = torch.zeros((), dtype=torch.float64)
        mean = torch.zeros(fitted.shape[0], dtype=torch.float64)
        squares = torch.zeros_like(mean)
        for batch in alone.batches(batch_size):
            values = fitted._values(batch.inputs[name].double(), batch.lengths.get(name))
            # Batches are merged by their own means: sums of squares would lose a small spread on a large mean.
            own, size = values.mean(0), len(values)
            difference, total = own - mean, count + size
            squares += (values - own).square().sum(0) + difference.square() * (count * size / total)
            mean += difference * (size / total)
            count = total
        std = (squares / count).sqrt()
        constant = std <= 1e-6 * mean.abs().clamp(min=1e-6)
        std = torch.where(constant, 1.0, std)
        fitted.mean.copy_(mean.view_as(fitted.mean))
        fitted.std.copy_(std.view_as(fitted.std))
        return fitted

    def _values(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Everything observed, one row per step, pixel or voxel: ``(count, features)``."""
        if len(self.shape) > 1:
            return x.movedim(1, -1).reshape(-1, self.shape[0])
        if x.ndim == 3 and lengths is not None:
            return x[real_steps(lengths, x.shape[1])]
        return x.reshape(-1, self.shape[0])

    def extra_repr(self) -> str:
        return f"{self.shape}, clip={self.clip}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Standardize:
        """Every move and cast of a module comes through here."""
        kept = {"mean": self.mean, "std": self.std}
        asked = fn(self.mean.new_empty(0, dtype=self._half or self.mean.dtype)).dtype
        super()._apply(fn, recurse)
        self._half = asked if asked in HALF else None
        for name, value in kept.items():
            if getattr(self, name).dtype in HALF:
                setattr(self, name, value.to(getattr(self, name).device))
        return self

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Scaled values; padding beyond ``lengths`` becomes zero."""
        scaled = (x - self.mean) / self.std
        if self.clip is not None:
            scaled = scaled.clamp(-self.clip, self.clip)
        if self._half is not None:
            scaled = scaled.to(self._half)
        if lengths is None or x.ndim != 3 or len(self.shape) > 1:
            return scaled
        return scaled.masked_fill(~real_steps(lengths, x.shape[1]).unsqueeze(2), 0.0)


def standardizes(encoder: nn.Module) -> bool:
    """Whether rows meet a :class:`Standardize` before any weight, so that they may come in single precision."""
    for part in encoder.modules():
        if [*part.parameters(recurse=False), *part.buffers(recurse=False)]:
            return isinstance(part, Standardize)
    return False


class InputNoise(Configurable):
    """Gaussian noise on standardised values while training; nothing in evaluation.

    Args:
        std: standard deviation of the noise, in units of the input.
    """

    def __init__(self, std: float = 0.3):
        super().__init__()
        if std < 0:
            raise ConfigError(f"InputNoise: expected a standard deviation of 0 or more, got {std}.")
        self.std = std

    def extra_repr(self) -> str:
        return f"{self.std}"

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of any shape, with noise while training."""
        return x + self.std * torch.randn_like(x) if self.training and self.std else x
