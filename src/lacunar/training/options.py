"""The arguments of :func:`lacunar.fit` that shape training, checked."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from lacunar.errors import ConfigError, did_you_mean

__all__ = ["TrainingOptions"]

SCHEDULES = ("one-cycle", "cosine", "constant")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true", "transformer-engine")


@dataclass(frozen=True)
class TrainingOptions:
    """How a model is trained; see :func:`lacunar.fit` for what each means."""

    max_epochs: int | None
    batch_size: int | None
    lr: float
    weight_decay: float
    schedule: str
    seed: int
    accumulate: int
    gradient_clip: float | None
    patience: int | None
    average: float | None
    validate_every: int
    select: str
    precision: str
    devices: Any
    strategy: str
    accelerator: str

    def checked(self, samples: int) -> TrainingOptions:
        """The same with defaults for this many training samples filled in.

        Raises:
            ConfigError: names the argument, what it may be and what it is.
        """
        for name, least in (
            ("max_epochs", 1),
            ("batch_size", 1),
            ("accumulate", 1),
            ("validate_every", 1),
            ("seed", 0),
            ("patience", 1),
        ):
            value = getattr(self, name)
            if value is None and name in ("max_epochs", "batch_size", "patience"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{name}: expected a whole number of at least {least}, got {value!r}.")
        for name, positive in (("lr", True), ("weight_decay", False), ("gradient_clip", True), ("average", False)):
            value = getattr(self, name)
            if value is None and name in ("gradient_clip", "average"):
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value < 0 or (positive and value == 0):
                raise ConfigError(
                    f"{name}: expected a number {'above 0' if positive else 'of at least 0'}, got {value!r}."
                )
        if self.average is not None and self.average >= 1:
            raise ConfigError(f"average: expected a decay in [0, 1) or None, got {self.average!r}.")
        known = {"schedule": SCHEDULES, "select": ("best", "loss", "last"), "precision": PRECISIONS}
        for name, values in known.items():
            value = getattr(self, name)
            if value not in values:
                raise ConfigError(f"{name}: unknown value {value!r}.{did_you_mean(value, values)}")
        return replace(
            self,
            max_epochs=self.max_epochs or 40,
            batch_size=self.batch_size or default_batch_size(samples),
        )

    def arguments(self) -> dict[str, Any]:
        """What a continued run must share."""
        return {name: value if _plain(value) else str(value) for name, value in asdict(self).items()}

    @classmethod
    def names(cls) -> list[str]:
        return [field.name for field in fields(cls)]


def default_batch_size(samples: int) -> int:
    """A power of two, 16 to 128, that gives an epoch some 8 steps or more."""
    return int(min(128, max(16, 2 ** math.floor(math.log2(max(samples, 16) / 8)))))


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, list))
