"""Ratios of times from interleaved rounds, and peaks of live tensor bytes."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from lacunar.memory import LiveBytes

__all__ = ["Figure", "Options", "Timings", "interleave", "peak_bytes"]

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        rounds: how often every alternative runs after warm-up.
        clock: ``"wall"``, or ``"cpu"`` for the processor time of this process, which other programs disturb less.
            Take one thread with it: threads that wait for each other burn processor time.
        toy: sizes that only show that everything runs.
    """

    rounds: int = 21
    clock: str = "wall"
    toy: bool = False


@dataclass(frozen=True)
class Figure:
    """A measured ratio.

    Attributes:
        section: the benchmark it belongs to.
        name: what is divided by what.
        value: median over the rounds.
        low: first quartile; equal to the value when nothing varies.
        high: third quartile.
        target: what it may be at most; None when it is only reported.
        note: what the floor is and where the rest goes, or a fact beside the figure.
    """

    section: str
    name: str
    value: float
    low: float
    high: float
    target: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the target is met, in a word."""
        if self.target is None:
            return ""
        return "met" if self.value <= self.target else "missed"


@dataclass
class Timings:
    """Seconds of every alternative in every round.

    Attributes:
        seconds: by name, shape ``(rounds,)``.
    """

    seconds: dict[str, np.ndarray] = field(default_factory=dict)

    def milliseconds(self, name: str) -> float:
        """Median time of one run."""
        return float(np.median(self.seconds[name])) * 1e3

    def ratio(self, one: str, other: str) -> tuple[float, float, float]:
        """Median and quartiles of one alternative's time divided by another's in the same round."""
        return quartiles(self.seconds[one] / self.seconds[other])

    def figure(
        self, section: str, name: str, one: str, other: str, target: float | None = None, note: str = ""
    ) -> Figure:
        """The ratio as a line of the table."""
        return Figure(section, name, *self.ratio(one, other), target, note)


def quartiles(values: np.ndarray) -> tuple[float, float, float]:
    """Median, first and third quartile."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)


def interleave(
    alternatives: Mapping[str, Callable[[], object]], options: Options, rounds: int | None = None, warm_up: int = 2
) -> Timings:
    """Run all alternatives in turn, there and back (A B C, C B A, ...), and note each one's time.

    What slows the machine for a while slows neighbours alike, so ratios are taken within a round.
    """
    clock = CLOCKS[options.clock]
    for run in alternatives.values():
        for _ in range(warm_up):
            run()
    taken: dict[str, list[float]] = {name: [] for name in alternatives}
    order = list(alternatives.items())
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds or options.rounds):
            for name, run in order:
                start = clock()
                run()
                taken[name].append(clock() - start)
            order.reverse()
            gc.collect()
    finally:
        gc.enable()
    return Timings({name: np.array(values) for name, values in taken.items()})


def peak_bytes(run: Callable[[], object], warm_up: int = 1) -> int:
    """Largest sum of the bytes of all tensors that ``run`` makes and that are alive at the same time."""
    for _ in range(warm_up):
        run()
    gc.collect()
    with LiveBytes() as live:
        run()
    return live.peak


def load() -> str:
    """How busy the machine is, in words."""
    try:
        import os

        return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {torch.get_num_threads()} threads used"
    except OSError:
        return "load unknown"
