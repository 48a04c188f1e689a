"""The value of every subset read off one model that was trained on all of them."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lacunar.arguments import at_least
from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError
from lacunar.evaluation.outputs import subset_outputs
from lacunar.lattice import Pairs
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.base import Objective, available_codes, batch_mean
from lacunar.planning.retrain import one_thread, scored_record

__all__ = ["AmortisedCell", "RandomSubsets", "amortised_options", "train_amortised"]

#: What makes one training on all subsets no more costly than one ordinary training of as many epochs: two subsets a
#: sample and step from one encoder pass cost up to a third more, so fewer epochs are run, and the validation over all
#: subsets, which takes most of an ordinary epoch at six modalities, comes less often.
SUBSETS, EPOCHS, VALIDATE_EVERY = 2, 0.75, 5
#: Each subset is seen in few steps: at the usual 1e-3 single modalities stay under-trained, and the gaps between
#: subsets too small.
RATE = 3e-3


class RandomSubsets(Objective):
    """The task loss on a few random subsets of what each sample has, all read from one encoder pass.

    The size of a subset is drawn evenly from 1 to what the sample has, its members evenly: single modalities and
    whole sets, which half of all independent draws would miss, are trained on as often as what lies between.

    Args:
        subsets: drawn for each sample in each step.
        label_smoothing: see :class:`lacunar.Objective`.
    """

    def __init__(self, subsets: int = 2, label_smoothing: float | None = None):
        super().__init__(label_smoothing)
        at_least(1, subsets=subsets)
        self.subsets = subsets

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        target = self._target(batch)
        features = model.encode(batch)
        available_codes(model.lattice, batch, features.present)
        present = features.present.repeat(self.subsets, 1)
        rows = torch.arange(len(batch), device=present.device).repeat(self.subsets)
        codes = model.lattice.encode(random_subsets(present))
        output = model.predict(features, Pairs(rows, codes))
        return {"task": batch_mean(self.losses(output, target[rows]))}

    def extra_repr(self) -> str:
        return f"subsets={self.subsets}"


def amortised_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :func:`lacunar.fit` for the one training on all subsets.

    ``max_epochs`` (40 when left out) is that of an ordinary training of the same cost: three quarters of it are run,
    at a learning rate of 3e-3. An ``objective`` of your own is trained as it is asked for.
    """
    options = dict(given)
    if options.get("objective") is None:
        options["objective"] = RandomSubsets(SUBSETS)
        epochs = max(1, round(EPOCHS * (options.get("max_epochs") or 40)))
        options["max_epochs"] = epochs
        options.setdefault("validate_every", min(VALIDATE_EVERY, epochs))
        options.setdefault("lr", RATE)
    return options


def random_subsets(present: Tensor) -> Tensor:
    """A non-empty random subset of what each row has, its size drawn evenly, ``(n, M)`` bool for both."""
    chance = torch.rand(present.shape, device=present.device).masked_fill(~present, 2.0)
    place = chance.argsort(dim=1).argsort(dim=1)
    count = present.sum(dim=1, keepdim=True)
    size = (torch.rand(count.shape, device=present.device) * count).floor() + 1
    return (place < size) & present


@dataclass
class AmortisedCell:
    """A repeat, and all that is needed to train its one model and read off every subset.

    Attributes:
        key: names the cell's file.
        codes: the subsets to score.
        train, val, held: the parts of the repeat.
        rows: for each code the held-out samples that have it.
        counts: for each code how many train samples have it.
        weights: for each code what each of its held-out samples counts, or None.
        metric, make_model, fit, seed: as in :class:`lacunar.planning.retrain.Cell`.
    """

    key: str
    codes: list[int]
    train: MultimodalDataset
    val: MultimodalDataset
    held: MultimodalDataset
    rows: dict[int, np.ndarray]
    counts: dict[int, int]
    weights: dict[int, np.ndarray] | None
    metric: str
    make_model: Callable[[MultimodalDataset], Any]
    fit: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


def train_amortised(cell: AmortisedCell) -> dict[str, Any]:
    """Train one model on all subsets of what the train samples have, and score it on each subset held out.

    Returns:
        Plain data as :func:`lacunar.planning.retrain.train_cell` returns it, a record for each subset.
    """
    from lacunar.training.fit import fit

    start = time.perf_counter()
    with one_thread(), torch.random.fork_rng([]):
        torch.manual_seed(cell.seed)
        model = cell.make_model(cell.train)
        if not isinstance(model, MultimodalModel):
            raise ConfigError(
                "estimator='amortised' trains one network on all subsets: make_model must return a "
                f"lacunar.MultimodalModel, got {type(model).__name__}. Use estimator='retrain' for other models."
            )
        options = amortised_options(cell.fit)
        objective = copy.deepcopy(options.pop("objective"))
        run = fit(Splits(cell.train, cell.val), model, objective, seed=cell.seed, progress=False, **options)
        records = _read_off(run.model, cell)
    return {"key": cell.key, "trained": 1, "seconds": time.perf_counter() - start, "subsets": records}


def _read_off(model: Any, cell: AmortisedCell) -> list[dict[str, Any]]:
    found: dict[int, list[tuple[np.ndarray, Tensor]]] = {code: [] for code in cell.codes}
    for row, codes, output in subset_outputs(model, cell.held, cell.codes):
        for code in codes.unique().tolist():
            chosen = codes == code
            found[code].append((row[chosen].cpu().numpy(), output[chosen].cpu()))
    records = []
    for code in cell.codes:
        rows = np.concatenate([part[0] for part in found[code]])
        outputs = torch.cat([part[1] for part in found[code]])
        weight = None
        if cell.weights is not None:
            by_row = np.zeros(len(cell.held))
            by_row[cell.rows[code]] = cell.weights[code]
            weight = by_row[rows]
        record = {"code": code, "n_train": cell.counts[code], "n_eval": len(rows)}
        records.append(record | scored_record(cell.metric, outputs, cell.held.select(rows), rows, weight))
    return records
