"""How good a filling is, on observed cells that are hidden on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lacunar.arguments import at_least, checked
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.part import one_part
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.evaluation.outputs import evaluation_mode
from lacunar.evaluation.statistics import percentile_interval, resample_counts
from lacunar.generation.views import ROWS, encoded_views, value_views

if TYPE_CHECKING:
    from lacunar.generation.base import Completer

__all__ = ["hide_some", "score_completer"]


@checked
def score_completer(
    completer: Completer,
    data: MultimodalDataset,
    rate: float = 0.3,
    seed: int = 0,
    repeats: int = 5,
    *,
    hide: str | Sequence[str] | None = None,
    model: nn.Module | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """How near the filling comes to observed cells that are hidden on purpose, beside the mean of the training data.

    Errors are in standardised units: each column divided by its deviation in the training data (columns that did not
    vary there keep their units). ``r2`` is one minus the sum of squared
    errors over the sum of squares around the hidden cells' own means, over all columns together; filling with the
    training mean scores a little below 0, and 1 is perfect.

    Args:
        completer: fitted.
        data: samples that it was not fitted to. Cells that were generated are not used as truth.
        rate: share of the observed cells to hide. A sample always keeps one, so one with a single modality keeps it.
        seed: of what is hidden, and of the bootstrap.
        repeats: how many times cells are hidden anew.
        hide: hide cells of these modalities only: with one of them, everything else that a sample has stays.
        model: the model, for a completer that was fitted inside it.
        resamples: bootstrap resamples of samples (of groups, where the data have them).
        confidence: nominal coverage of the intervals.

    Returns:
        One row per modality: ``n`` hidden cells; ``r2`` and ``rmse``, each with ``low`` and ``high``; ``mean r2`` and
        ``mean rmse`` of the filling with the training mean, with theirs; ``gain``, how much smaller the rmse is than
        that of the mean, with the paired ``gain low`` and ``gain high``. NaN where no cell could be hidden.

    Raises:
        ConfigError: a rate outside 0 to 1, no repeats, or a completer inside a model without ``model``.
        DataError: other modalities than in training, or no cell can be hidden.
    """
    if not 0 < rate < 1:
        raise ConfigError(f"score: rate: expected a share between 0 and 1, got {rate}.")
    at_least(1, repeats=repeats, resamples=resamples)
    data = one_part(data, "score", "data.test or data.val").observed()
    values, present = _values(completer, data, model)
    chosen = _chosen(hide, data.names)
    draws = np.random.default_rng(seed)
    tallies = [_Tally(len(data)) for _ in values]
    with evaluation_mode(completer):
        for _ in range(repeats):
            kept = torch.from_numpy(hide_some(present.cpu().numpy(), rate, draws, chosen)).to(present.device)
            known = [torch.where(kept[:, m, None], part, torch.nan) for m, part in enumerate(values)]
            starts = range(0, len(data), ROWS)
            made = [completer._filled([part[i : i + ROWS] for part in known], kept[i : i + ROWS]) for i in starts]
            for m, part in enumerate(values):
                center, scale = completer._center(m), completer._scale(m)
                guess = torch.cat([chunk[m] for chunk in made])
                tallies[m].add((part - center) / scale, (guess - center) / scale, present[:, m] & ~kept[:, m])
    if not any(tally.count.sum() for tally in tallies):
        raise DataError(
            f"score: no cell could be hidden: of {len(data)} samples {int((data.present.sum(1) > 1).sum())} have more "
            "than one modality. Give more samples, or a higher rate."
        )
    sums = [tally.sums(part.shape[1]) for tally, part in zip(tallies, values)]
    rows = []
    for tally, sample_sums in zip(tallies, sums):
        drawn = [_figures(counts @ sample_sums) for counts in resample_counts(len(data), resamples, seed, data.groups)]
        low, high = percentile_interval(np.concatenate(drawn), confidence)
        point = _figures(sample_sums.sum(0)[None])[0]
        row: dict[str, float] = {"n": int(tally.count.sum())}
        for position, name in enumerate(("r2", "rmse", "mean r2", "mean rmse", "gain")):
            row |= {name: point[position], f"{name} low": low[position], f"{name} high": high[position]}
        rows.append(row)
    return pd.DataFrame(rows, index=pd.Index(data.names, name="modality"))


def hide_some(present: np.ndarray, rate: float, draws: np.random.Generator, chosen: np.ndarray) -> np.ndarray:
    """Presence ``(N, M)`` with a share of the cells hidden at random; every sample that has something keeps a cell.

    ``chosen (M,)`` says which modalities may lose cells.
    """
    order = np.where(chosen, draws.random(present.shape), 1.0)
    kept = present & (order >= rate)
    # Where everything would go, the cell with the largest draw stays.
    emptied = present.any(1) & ~kept.any(1)
    kept[emptied, np.where(present, order, -1.0)[emptied].argmax(1)] = True
    return kept


def _chosen(hide: str | Sequence[str] | None, names: tuple[str, ...]) -> np.ndarray:
    wanted = list(names) if hide is None else [hide] if isinstance(hide, str) else list(hide)
    for name in wanted:
        if name not in names:
            raise DataError(f"score: hide: unknown modality {name!r}.{did_you_mean(name, names)}")
    return np.array([name in wanted for name in names])


def _values(completer: Completer, data: MultimodalDataset, model: nn.Module | None) -> tuple[list[Tensor], Tensor]:
    completer._check_fitted()
    if not completer.inside_model:
        completer._check_data(data)
        values, _ = value_views(data)
    elif model is None:
        raise ConfigError("score: the completer was fitted inside a model: give it as model=.")
    elif data.names != completer.names:
        raise DataError(f"The completer was fitted to the modalities {completer.names}, the data have {data.names}.")
    else:
        values, shape = encoded_views(data, model)
        if shape != completer.feature_shape:
            raise DataError(f"The completer was fitted to features of shape {completer.feature_shape}, got {shape}.")
    device = completer._center(0).device
    return [part.to(device) for part in values], data.present.to(device)


class _Tally:
    """Sums of squares of each sample over the repeats: of the filling, of the mean, around the hidden cells' mean."""

    def __init__(self, samples: int):
        self.count = np.zeros(samples)
        self.error, self.mean_error, self.spread = np.zeros(samples), np.zeros(samples), np.zeros(samples)

    def add(self, truth: Tensor, made: Tensor, hidden: Tensor) -> None:
        """Standardised values and what was made of them, ``(N, d)``, for the hidden rows."""
        if not hidden.any():
            return
        where = hidden.cpu().numpy()
        value, guess = truth[hidden].double(), made[hidden].double()
        for total, around in ((self.error, guess), (self.mean_error, 0.0), (self.spread, value.mean(0))):
            total[where] += (value - around).square().sum(1).cpu().numpy()
        self.count[where] += 1

    def sums(self, columns: int) -> np.ndarray:
        """Entries hidden and sums of squares of every sample, ``(N, 4)``."""
        return np.stack([self.count * columns, self.error, self.mean_error, self.spread], 1)


def _figures(sums: np.ndarray) -> np.ndarray:
    """r2 and rmse of the filling, r2 and rmse of the mean, and the difference of the rmse, ``(R, 5)``."""
    count, error, mean_error, spread = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        rmse, mean_rmse = np.sqrt(error / count), np.sqrt(mean_error / count)
        r2, mean_r2 = (np.where(spread > 0, 1 - part / spread, np.nan) for part in (error, mean_error))
    return np.stack([r2, rmse, mean_r2, mean_rmse, mean_rmse - rmse], 1)
