"""Lightning without its advice, and progress only where it is wanted. Nothing here imports Lightning."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

__all__ = ["quiet", "wanted"]

#: Advice that does not apply here: the reason stands beside each.
_ADVICE = (
    r".*does not have many workers.*",  # packed batches come from memory
    r".*smaller than the logging interval.*",  # our log writes every step
    r".*available but not used.*",  # the user chose
    r".*in eval mode at the start of training.*",  # frozen references
    r".*`_dataset_state_dict`.*",
    r".*is an instance of `LRScheduler`.*",
    r".*Detected call of `lr_scheduler\.step\(\)` before.*",  # a scaler that skipped a step
    r".*isinstance\(treespec, LeafSpec\).*",  # a deprecation inside Lightning
    r".*`loss` was NaN or Inf.*",  # our log says so, and which term
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's tips and device lists to itself; its real warnings pass."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in _ADVICE:
            warnings.filterwarnings("ignore", message=message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)


def wanted(progress: bool) -> bool:
    """Whether to show progress; ``LACUNAR_PROGRESS=none`` silences it everywhere."""
    return progress and os.environ.get("LACUNAR_PROGRESS", "").lower() not in ("none", "0", "off")
