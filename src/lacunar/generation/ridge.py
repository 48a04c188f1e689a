"""Ridge regression of an absent modality on those that are there."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lacunar.arguments import at_least
from lacunar.generation.base import Completer

__all__ = ["RidgeCompleter"]

#: Penalties to choose from. At the largest next to nothing is left of a column that cannot be predicted.
PENALTIES = np.logspace(-3, 6, 10)


class RidgeCompleter(Completer):
    """Fills an absent modality by ridge regression on all columns that a sample has.

    One regression for each available pattern and each modality to fill, on the training samples that have both; each
    column to fill has a penalty of its own, chosen by generalised (leave-one-out) cross-validation. Where fewer than
    ``min_rows`` training samples have all of it, the pattern gives up the modality whose loss leaves the most
    samples, until there are enough; with nothing left the filling is the mean.

    A regression is computed when its pattern is first met, from the training samples alone, so that no order of
    calls matters. Holds the training samples, in its state and in the files that it is saved to.

    Args:
        min_rows: fewest training samples for a regression.
        seed: not used; nothing is random.
    """

    name: ClassVar[str] = "ridge"

    def __init__(self, min_rows: int = 20, seed: int = 0):
        super().__init__(seed)
        at_least(2, min_rows=min_rows)
        self.min_rows = min_rows
        self._regressions: dict[tuple[tuple[int, ...], int], tuple[Tensor, Tensor]] = {}
        self.register_load_state_dict_post_hook(_forget)

    def _fit(self, views: list[Tensor], present: Tensor, target: Tensor | None) -> None:
        self._regressions = {}
        self._keep("known", present)
        for m, view in enumerate(views):
            self._keep(f"rows{m}", view.nan_to_num(0.0))

    def _fill(self, views: list[Tensor], present: Tensor) -> list[Tensor]:
        made = [torch.zeros_like(view) for view in views]
        for pattern in present.unique(dim=0):
            rows = (present == pattern).all(1).nonzero().squeeze(1)
            for m in (~pattern).nonzero().squeeze(1).tolist():
                sources = self._sources(pattern.nonzero().squeeze(1).tolist(), m)
                if not sources:
                    continue
                weight, shift = self._regression(sources, m, present.device)
                inputs = torch.cat([views[source][rows] for source in sources], 1)
                # In double precision, so that rounding does not depend on how many rows are asked for at once.
                filled = inputs.to(weight.dtype) @ weight + shift
                made[m] = made[m].index_copy(0, rows, filled.to(made[m].dtype))
        return made

    def _sources(self, available: list[int], target: int) -> tuple[int, ...]:
        """The modalities to predict from: what is available, as far as enough training samples have it."""
        known: Tensor = self.known  # type: ignore[assignment]
        sources, having = list(available), known[:, target]
        while sources and int((having & known[:, sources].all(1)).sum()) < self.min_rows:
            left = [sources[:i] + sources[i + 1 :] for i in range(len(sources))]
            sources = max(left, key=lambda rest: int((having & known[:, rest].all(1)).sum()))
        return tuple(sources)

    def _regression(self, sources: tuple[int, ...], target: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Weights ``(columns, d)`` and shift ``(d,)``."""
        if (sources, target) not in self._regressions:
            known: Tensor = self.known  # type: ignore[assignment]
            rows = known[:, [*sources, target]].all(1)
            inputs = torch.cat([self._rows_of(source)[rows] for source in sources], 1).cpu().double().numpy()
            self._regressions[sources, target] = _ridge(inputs, self._rows_of(target)[rows].cpu().double().numpy())
        dtype = torch.float32 if device.type == "mps" else torch.float64
        weight, shift = self._regressions[sources, target]
        return weight.to(device, dtype), shift.to(device, dtype)

    def _rows_of(self, m: int) -> Tensor:
        return getattr(self, f"rows{m}")


def _ridge(inputs: np.ndarray, outputs: np.ndarray) -> tuple[Tensor, Tensor]:
    """Weights and shift of the regression of every column of ``outputs`` on ``inputs``."""
    from sklearn.linear_model import RidgeCV

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant columns make singular systems, which the penalty settles
        found = RidgeCV(PENALTIES, alpha_per_target=True).fit(inputs, outputs)
    weight = np.atleast_2d(found.coef_).T
    return torch.from_numpy(np.ascontiguousarray(weight)), torch.from_numpy(np.atleast_1d(found.intercept_).copy())


def _forget(completer: Any, incompatible: Any) -> None:
    """Regressions of other training data are of no use after a state was loaded."""
    completer._regressions = {}
