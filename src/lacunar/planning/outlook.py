"""What new samples are expected to be worth: a learning curve, read at the samples that a purchase amounts to.

Buying n samples of a subset S and generating the rest is worth ``q_S n`` complete samples, with the completion quality
q_S that a rehearsal measures. The predicted score with all modalities is that of the learning curve at
``n_0 + sum q_S n_S``, where n_0 is what there is. Every draw pairs one draw of the curve with one of the qualities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lacunar.errors import ConfigError, DataError
from lacunar.planning.candidates import Candidate

__all__ = ["Outlook"]


@dataclass(frozen=True, eq=False)
class Outlook:
    """A learning curve of the full-modality score and the completion quality of the subsets that were rehearsed.

    Attributes:
        start: n_0, the effective number of samples that there are.
        grid: effective numbers of samples from ``start`` up, float64, shape ``(G,)``.
        mean: predicted scores at the grid, shape ``(G,)``; higher is better.
        draws: draws of them, shape ``(D, G)``.
        quality: for each code that was rehearsed its mean quality and D draws of it.
    """

    start: float
    grid: np.ndarray
    mean: np.ndarray
    draws: np.ndarray
    quality: Mapping[int, tuple[float, np.ndarray]]

    def __post_init__(self) -> None:
        if self.grid[0] != self.start or (np.diff(self.grid) <= 0).any():
            raise DataError("outlook: expected a rising grid of sample sizes that begins with what there is.")
        if self.mean.shape != self.grid.shape or self.draws.shape[1:] != self.grid.shape:
            raise DataError(f"outlook: expected scores at {len(self.grid)} sizes, got {self.draws.shape}.")

    @staticmethod
    def sizes(start: float, most: float, count: int = 200) -> np.ndarray:
        """A grid from ``start`` to ``start + most``, dense where it begins."""
        steps = np.geomspace(1.0, max(most, 2.0), count - 1)
        return start + np.concatenate([[0.0], steps])

    @property
    def now(self) -> float:
        """The predicted score with what there is."""
        return float(self.mean[0])

    def knows(self, one: Candidate) -> bool:
        """Whether every subset of a purchase was rehearsed."""
        return all(code in self.quality for code, _ in one.blocks)

    def scores(self, candidates: Sequence[Candidate]) -> tuple[np.ndarray, np.ndarray]:
        """Predicted scores after each purchase: means ``(K,)`` and draws ``(D, K)``."""
        mean, draws = np.empty(len(candidates)), np.empty((len(self.draws), len(candidates)))
        for k, one in enumerate(candidates):
            centre = self.start + sum(self.quality[code][0] * samples for code, samples in one.blocks)
            spread = np.full(len(self.draws), self.start)
            for code, samples in one.blocks:
                spread = spread + self.quality[code][1] * samples
            mean[k] = np.interp(centre, self.grid, self.mean)
            draws[:, k] = _read(self.draws, self.grid, spread)
        return mean, draws

    def gains(self, candidates: Sequence[Candidate]) -> tuple[np.ndarray, np.ndarray]:
        """Predicted gains over what there is: means ``(K,)`` and draws ``(D, K)``."""
        mean, draws = self.scores(candidates)
        return mean - self.mean[0], draws - self.draws[:, :1]

    def needed(self, code: int, target: float) -> np.ndarray:
        """For each draw, how many samples of a subset reach a score; infinite where no number does, shape ``(D,)``."""
        best = np.maximum.accumulate(self.draws, axis=1)
        after = (best < target).sum(axis=1)  # the first grid point that reaches it
        reached = after < len(self.grid)
        right = np.minimum(after, len(self.grid) - 1)
        left = np.maximum(right - 1, 0)
        rows = np.arange(len(best))
        step = best[rows, right] - best[rows, left]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(step > 0, (target - best[rows, left]) / step, 1.0)
            size = np.where(after == 0, self.grid[0], self.grid[left] + share * (self.grid[right] - self.grid[left]))
            quality = self.quality[code][1]
            count = np.where(size > self.start, (size - self.start) / np.where(quality > 0, quality, 0.0), 0.0)
        return np.where(reached, count, np.inf)

    def scaled(self, code: int, factor: float) -> Outlook:
        """The same outlook with another completion quality of one subset; never above 1 by scaling."""
        if code not in self.quality or not factor >= 0:
            raise ConfigError(f"scaled: expected a rehearsed subset and a factor from 0 up, got {code}, {factor!r}.")
        mean, draws = self.quality[code]
        most = max(1.0, mean)
        changed = (min(mean * factor, most), np.minimum(draws * factor, np.maximum(draws, most)))
        return replace(self, quality={**self.quality, code: changed})


def _read(table: np.ndarray, grid: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Row d of ``table (D, G)`` at ``at[d]``, linear between grid points and constant beyond them."""
    right = np.clip(np.searchsorted(grid, at), 1, len(grid) - 1)
    share = np.clip((at - grid[right - 1]) / (grid[right] - grid[right - 1]), 0.0, 1.0)
    rows = np.arange(len(table))
    return table[rows, right - 1] * (1 - share) + table[rows, right] * share
