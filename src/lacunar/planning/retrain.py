"""What a subset is worth to a model that is trained from scratch on it alone (Eq. 2 of SK-LL): a cell, a model."""

from __future__ import annotations

import contextlib
import copy
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.utils import get_tags
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from lacunar.arguments import arguments_for
from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError, DataError
from lacunar.lattice import Pairs
from lacunar.models.multimodal import MultimodalModel
from lacunar.models.references import CAUTION, estimator_output
from lacunar.objectives.base import Objective
from lacunar.objectives.joint import Joint
from lacunar.planning.estimate_scoring import PROBABILISTIC, score_output
from lacunar.tasks import Task

__all__ = ["Cell", "WholeSubset", "fit_options", "one_thread", "table_of", "train_cell"]

logger = logging.getLogger(__name__)

#: Held-out samples below which a score says nothing.
FEWEST_SCORED = 3
#: Arguments of fit that utilities sets itself.
OWN = ("data", "model", "seed", "out", "progress", "resume", "references", "snapshots", "tensorboard", "finish")
BATCH = 256


@dataclass
class Cell:
    """A subset in a repeat, and all that is needed to train and score it, anywhere.

    Attributes:
        key: names the cell's file.
        code: of the subset.
        label: the subset in words.
        train, val: samples to learn from and to select on, with the subset's modalities only.
        held: the held-out samples that have all of the subset.
        rows: their positions in the held-out part.
        weight: what each of them counts, or None.
        metric: of the score.
        make_model: from ``train`` to a model.
        fit: arguments of :func:`lacunar.fit`.
        seed: of the repeat.
    """

    key: str
    code: int
    label: str
    train: MultimodalDataset
    val: MultimodalDataset
    held: MultimodalDataset
    rows: np.ndarray
    weight: np.ndarray | None
    metric: str
    make_model: Callable[[MultimodalDataset], Any]
    fit: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


class WholeSubset(Joint):
    """Plain training; validation scores what each sample has, not its subsets, which nobody will ask this model for."""

    def build(self, model: nn.Module) -> nn.Module:
        return _Whole(model) if isinstance(model, MultimodalModel) else model


class _Whole(nn.Module):
    """Answers every (sample, subset) pair with the prediction from all that the sample has."""

    def __init__(self, model: MultimodalModel):
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return self.model(batch)

    def predict_pairs(self, batch: Batch, pairs: Pairs) -> Tensor:
        return self.model(batch)[pairs.rows]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: models this small are slower on several, and the cells share the cores already."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def fit_options(given: Mapping[str, Any] | None, metric: str) -> dict[str, Any]:
    """Arguments for :func:`lacunar.fit`, checked.

    Where the metric judges probabilities, so does the choice of the epoch: the most accurate one may well be
    overconfident.

    Raises:
        ConfigError: an argument that fit does not know, or that is set for each cell.
    """
    usual = {"experts": False, "select": "loss" if metric in PROBABILISTIC else "best"}
    if not given:
        return usual
    from lacunar.training.fit import fit  # brings Lightning, which estimators do without

    return {**usual, **arguments_for(fit, given, OWN)}


def train_cell(cell: Cell) -> dict[str, Any]:
    """Train the model of one cell, select it on validation and score it on the held-out samples.

    Returns:
        Plain data: ``key``, ``trained`` (models), ``seconds`` and ``subsets``, one record.
    """
    start = time.perf_counter()
    record: dict[str, Any] = {"code": cell.code, "n_train": len(cell.train), "n_eval": len(cell.held)}
    with one_thread(), torch.random.fork_rng([]):
        torch.manual_seed(cell.seed)
        made = cell.make_model(cell.train)
        trained = len(made) if isinstance(made, (list, tuple)) else 1
        if isinstance(made, MultimodalModel):
            output = _network(cell, made)
        else:
            candidates = list(made) if isinstance(made, (list, tuple)) else [made]
            output, record["n_train"] = _estimators(cell, candidates)
        record |= scored_record(cell.metric, output, cell.held, cell.rows, cell.weight)
    return {"key": cell.key, "trained": trained, "seconds": time.perf_counter() - start, "subsets": [record]}


def scored_record(
    metric: str, output: Tensor, held: MultimodalDataset, rows: np.ndarray, weight: np.ndarray | None
) -> dict[str, Any]:
    """The score of outputs on held-out samples as plain data."""
    assert held.task is not None
    assert held.target is not None
    scored = score_output(metric, held.task, output.detach().cpu(), held.target, weight)
    finite = bool(np.isfinite(scored.value))
    return {
        "value": float(scored.value) if finite else None,
        "rows": np.asarray(rows).tolist(),
        "items": np.asarray(scored.items, dtype=np.float64).tolist() if finite else [],
    }


def _network(cell: Cell, model: MultimodalModel) -> Tensor:
    from lacunar.training.fit import fit

    options = dict(cell.fit)
    given = options.pop("objective", None)
    objective: Objective = WholeSubset() if given is None else copy.deepcopy(given)
    run = fit(Splits(cell.train, cell.val), model, objective, seed=cell.seed, progress=False, **options)
    parts = []
    with torch.no_grad():
        run.model.eval()
        device = next(iter(run.model.parameters())).device
        for batch in cell.held.batches(BATCH):
            parts.append(run.model(batch.to(device)).cpu())
    return torch.cat(parts)


def table_of(data: MultimodalDataset) -> np.ndarray:
    """The modalities as columns of one table, NaN where absent, float64, ``(N, D)``.

    Raises:
        ConfigError: a modality is no vector (or small image); scikit-learn has no use for it.
    """
    parts = []
    for m, name in enumerate(data.names):
        if data.kinds[name] not in ("vector", "image", "volume"):
            raise ConfigError(
                f"make_model returned a scikit-learn estimator, and modality {name!r} is a {data.kinds[name]}: only "
                "vectors and images can be columns of a table. Return a network, or leave the modality out."
            )
        rows = data.present[:, m].nonzero().squeeze(1)
        values, _ = data.columns[name].take(rows)
        flat = values.flatten(1).numpy().astype(np.float64)
        column = np.full((len(data), flat.shape[1]), np.nan)
        column[rows.numpy()] = flat
        parts.append(column)
    return np.concatenate(parts, axis=1)


def _estimators(cell: Cell, candidates: list[Any]) -> tuple[Tensor, int]:
    """Outputs of the estimator that validation selects, and how many samples it learned from."""
    task, target = cell.train.task, cell.train.target
    assert task is not None and target is not None
    for model in candidates:
        if not hasattr(model, "fit") or not (hasattr(model, "predict_proba") or hasattr(model, "predict")):
            raise ConfigError(
                "make_model: expected a lacunar.MultimodalModel, a scikit-learn estimator or a list of these "
                f"estimators, got {type(model).__name__} for {cell.label}."
            )
    columns = table_of(cell.train)
    with np.errstate(invalid="ignore"):
        centre, scale = np.nanmean(columns, axis=0), np.nanstd(columns, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    whole = np.isfinite(columns).all(axis=1)
    labels = target.numpy()
    best, best_score, learned = None, -np.inf, 0
    for model in candidates:
        own = whole if not get_tags(model).input_tags.allow_nan else np.ones_like(whole)
        if task.kind == "classification" and len(np.unique(labels[own])) < task.n_outputs:
            raise DataError(
                f"{cell.label}: the {int(own.sum())} training samples that have all of it lack a class, and "
                f"{type(model).__name__} takes no others."
            )
        settle(model, cell.seed)
        model.fit(
            (columns[own] - centre) / scale, labels[own].astype(int) if task.kind == "multilabel" else labels[own]
        )
        if len(candidates) == 1:
            best, learned = model, int(own.sum())
            break
        val = cell.val.select(cell.val.present.all(dim=1)) if len(cell.val) else cell.val
        assert val.target is not None
        reached = -np.inf
        if len(val):
            output = _outputs(model, (table_of(val) - centre) / scale, task, cell)
            reached = score_output(cell.metric, task, output, val.target).value
        if best is None or reached > best_score:
            best, best_score, learned = model, reached, int(own.sum())
    return _outputs(best, (table_of(cell.held) - centre) / scale, task, cell), learned


def settle(model: Any, seed: int) -> None:
    """Give every random state of an estimator that is open the seed of the repeat."""
    if hasattr(model, "get_params"):
        open_states = [
            name for name, value in model.get_params().items() if name.endswith("random_state") and value is None
        ]
        if open_states:
            model.set_params(**dict.fromkeys(open_states, seed))


def _outputs(model: Any, columns: np.ndarray, task: Task, cell: Cell) -> Tensor:
    """Raw outputs; a little of the prior keeps what an estimator never saw from being impossible."""
    if task.kind == "regression":
        return estimator_output(model, columns, task)
    if hasattr(model, "predict_proba"):
        probabilities = estimator_output(model, columns, task)
    elif cell.metric in PROBABILISTIC:
        raise ConfigError(
            f"metric={cell.metric!r} needs probabilities, and {type(model).__name__} has no predict_proba. Use another "
            "metric, or a model that has."
        )
    else:
        said = np.asarray(model.predict(columns))
        hard = said if task.kind == "multilabel" else np.eye(task.n_outputs)[said.astype(int)]
        probabilities = torch.from_numpy(np.asarray(hard, dtype=np.float64))
    assert cell.train.target is not None
    usual = task.probabilities(task.baseline(cell.train.target)[None].double()).double()
    return task.from_probabilities((1 - CAUTION) * probabilities.double() + CAUTION * usual)
