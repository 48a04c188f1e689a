"""A linear model on all modalities side by side: seconds for what takes a network minutes.

For the questions that are about which data to buy, and not about networks, this backbone answers in a hundredth of
the time; absent modalities stand at the mean of the training data.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import DataError
from lacunar.lattice import Lattice, Pairs
from lacunar.models.multimodal import available_pairs
from lacunar.planning.utility_table import UtilityTable

__all__ = ["LinearModel", "dense_views", "linear_utilities", "rehearsed_gains"]


class LinearModel(nn.Module):
    """Multinomial logistic regression, or ridge regression, on standardised modalities side by side.

    Args:
        data: training samples; an absent modality counts as its mean.
        strength: inverse of the regularisation: C of the logistic regression, ``1 / alpha`` of the ridge.
        dropout: probability of hiding each modality in one further copy of the training samples; 0 adds none.
        seed: of the dropout.

    Raises:
        DataError: without a target, or for other tasks than classification and regression.
    """

    def __init__(self, data: MultimodalDataset, strength: float = 0.05, dropout: float = 0.0, seed: int = 0):
        super().__init__()
        if data.task is None or data.target is None or data.task.kind not in ("classification", "regression"):
            raise DataError(f"A linear model is for classes and numbers; {data.name!r} has {data.task or 'no target'}.")
        self.lattice, self.task = Lattice(data.names), data.task
        views, present = dense_views(data), data.present.numpy()
        # Generated cells vary less than observed ones: scaled by them, the observed ones would count for more.
        seen = present & ~data.generated.numpy()
        self.center = [np.nan_to_num(view[seen[:, m]].mean(0)) for m, view in enumerate(views)]
        spread = [view[seen[:, m]].std(0) for m, view in enumerate(views)]
        self.scale = [np.where(s > 1e-6, s, 1.0) for s in spread]
        x, y = self._side_by_side(views, present), data.target.numpy().reshape(len(data), -1).squeeze(1)
        if dropout > 0:
            draw = np.random.default_rng([seed, 5]).random(present.shape)
            kept = present & (draw >= dropout)
            last = np.where(present, draw, -1.0).argmax(1)
            kept[np.flatnonzero(~kept.any(1)), last[~kept.any(1)]] = True
            x, y = np.concatenate([x, self._side_by_side(views, kept & present)]), np.concatenate([y, y])
        with threadpool_limits(1):
            weight, bias = _fitted(x, y, self.task, strength)
        self.register_buffer("weight", torch.from_numpy(weight).float())
        self.register_buffer("bias", torch.from_numpy(bias).float())

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names in lattice order."""
        return self.lattice.names

    def predict_pairs(self, batch: Batch, pairs: Pairs, chunk: int | None = None) -> Tensor:
        """Raw outputs ``(P, n_outputs)`` of (sample, subset) pairs; what is outside the subset stands at its mean."""
        rows, kept = pairs.rows.numpy(), self.lattice.decode(pairs.codes).numpy()
        views = [view.numpy()[rows] for view in batch.dense(float("nan")).values()]
        x = torch.from_numpy(self._side_by_side([v.reshape(len(v), -1) for v in views], kept)).float()
        output = x @ self.weight.T + self.bias  # type: ignore[operator]
        return output[:, 0] if self.task.kind == "regression" and output.shape[1] == 1 else output

    def forward(self, batch: Batch) -> Tensor:
        """Raw outputs ``(B, n_outputs)`` from everything that each sample has."""
        return self.predict_pairs(batch, available_pairs(self.lattice, batch))

    def _side_by_side(self, views: Sequence[np.ndarray], present: np.ndarray) -> np.ndarray:
        parts = []
        for m, view in enumerate(views):
            part = np.where(present[:, m, None], (view - self.center[m]) / self.scale[m], 0.0)
            parts.append(part)
        return np.concatenate(parts, axis=1)


def dense_views(data: MultimodalDataset) -> list[np.ndarray]:
    """Each modality as float64 ``(N, d)``, flattened, NaN where absent.

    Raises:
        DataError: for sequences and tokens.
    """
    for name, kind in data.kinds.items():
        if kind in ("sequence", "tokens"):
            raise DataError(f"Modality {name!r} is a {kind}: a linear model needs one vector for each sample.")
    batch = data.__getitems__(range(len(data)))
    return [view.reshape(len(data), -1).double().numpy() for view in batch.dense(float("nan")).values()]


def linear_utilities(
    data: MultimodalDataset,
    metrics: Sequence[str] = ("log_loss",),
    folds: int = 5,
    seeds: int = 1,
    strength: float = 0.05,
) -> dict[str, UtilityTable]:
    """Utilities of all subsets by cross-validated linear models, within the given data alone.

    Args:
        data: complete samples, such as the pilot; they are split into folds, by group where there are groups.
        metrics: ``"log_loss"`` (negated) and ``"accuracy"``; for numbers both are the negated squared error.
        folds, seeds: of the cross-validation; each seed is one repeat, with a score for every sample.
        strength: see :class:`LinearModel`.

    Returns:
        A table for each metric, all from the same models.

    Raises:
        DataError: fewer samples than folds, or samples that lack a modality.
    """
    began = time.process_time()
    lattice, task = data.lattice, data.task
    if task is None or data.target is None:
        raise DataError(f"Utilities need a target, and {data.name!r} has none.")
    if len(data) < 2 * folds:
        raise DataError(f"Utilities: {folds} folds need at least {2 * folds} samples, got {len(data)}.")
    if not bool(data.present.all()):
        raise DataError("Utilities of linear models need complete samples; use lacunar.utilities for others.")
    items: dict[str, list[np.ndarray]] = {metric: [] for metric in metrics}
    trainings = 0
    y, views = data.target.numpy().reshape(len(data), -1).squeeze(1), dense_views(data)
    for seed in range(seeds):
        scores = {metric: np.full((len(data), len(lattice)), np.nan) for metric in metrics}
        for train, test in _folds(data, folds, seed):
            centre = [view[train].mean(0) for view in views]
            spread = [view[train].std(0) for view in views]
            z = [(v - c) / np.where(s > 1e-6, s, 1.0) for v, c, s in zip(views, centre, spread)]
            for code in [0, *lattice.subsets]:
                if code:
                    x = np.concatenate([z[m] for m in range(lattice.M) if code >> m & 1], axis=1)
                    with threadpool_limits(1):
                        weight, bias = _fitted(x[train], y[train], task, strength)
                    output = x[test] @ weight.T + bias
                    trainings += 1
                else:
                    output = _constant(y[train], task, len(test))
                for metric in metrics:
                    scores[metric][test, code] = _scores(output, y[test], task, metric)
        for metric in metrics:
            items[metric].append(scores[metric].astype(np.float32))
    return {
        metric: UtilityTable(
            data.names,
            np.stack([part.astype(np.float64).mean(0) for part in items[metric]]),
            metric,
            "retrain",
            seeds=np.arange(seeds),
            n_train=np.full((seeds, len(lattice)), len(data) - len(data) // folds),
            n_eval=np.full((seeds, len(lattice)), len(data)),
            items=items[metric],
            units=[np.arange(len(data))] * seeds,
            config={"model": "linear", "folds": folds, "strength": strength},
            trainings=trainings,
            seconds=time.process_time() - began,
        )
        for metric in metrics
    }


def rehearsed_gains(
    data: MultimodalDataset, completer: str = "ridge", folds: int = 5, strength: float = 0.05, seed: int = 0
) -> np.ndarray:
    """What buying each subset would have gained, tried out inside the data: the hold-out rehearsal for linear models.

    In each fold half of the training samples are owned; of the other half only the subset is kept, the rest is
    completed, and the log-likelihood of the held-out samples is compared with that of the owned half alone.

    Args:
        data: complete samples.
        completer: what completes the rest.
        folds: of the cross-validation.
        strength: see :class:`LinearModel`.
        seed: of folds and halves.

    Returns:
        Gain of each subset, float64, shape ``(2^M,)``; 0 for the empty set. All subsets buy equally many samples.
    """
    from lacunar import generation

    lattice, gains = data.lattice, np.zeros(len(data.lattice))
    full = torch.tensor([2**lattice.M - 1])
    for train, test in _folds(data, folds, seed):
        shuffled = np.random.default_rng([seed, 29]).permutation(train)
        owned = shuffled[: len(train) // 2]
        held = data.select(test)
        whole = held.__getitems__(range(len(held)))
        pairs = Pairs(torch.arange(len(held)), full.expand(len(held)))
        base = 0.0
        start = data.select(owned)
        made = generation.get(completer)(seed=seed).fit(start)
        for code in [0, *lattice.subsets]:
            if code == 0:
                training = start
            else:
                present = np.ones((len(shuffled), lattice.M), dtype=bool)
                present[len(owned) :] = [bool(code >> m & 1) for m in range(lattice.M)]
                training = made.complete(data.select(shuffled).hide(present))
            output = LinearModel(training, strength).predict_pairs(whole, pairs)
            assert held.target is not None
            score = -float(training.task.loss(output, held.target).mean())  # type: ignore[union-attr]
            base = score if code == 0 else base
            gains[code] += (score - base) * len(test) / len(data)
    return gains


def _fitted(x: np.ndarray, y: np.ndarray, task: Any, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights ``(outputs, d)`` and biases ``(outputs,)``; absent classes get a bias far below the others."""
    if task.kind == "regression":
        ridge = Ridge(alpha=1 / strength).fit(x, y.astype(float))
        return np.atleast_2d(ridge.coef_), np.atleast_1d(ridge.intercept_)
    weight, bias = np.zeros((task.n_outputs, x.shape[1])), np.full(task.n_outputs, -20.0)
    classes = np.unique(y)
    if len(classes) == 1:
        bias[classes] = 0.0
        return weight, bias
    model = LogisticRegression(C=strength, max_iter=200, tol=1e-3).fit(x, y)
    if len(classes) == 2:
        weight[classes[1]], bias[classes] = model.coef_[0], [0.0, model.intercept_[0]]
    else:
        weight[classes], bias[classes] = model.coef_, model.intercept_
    return weight, bias


def _constant(y: np.ndarray, task: Any, n: int) -> np.ndarray:
    """Output of the best constant prediction."""
    if task.kind == "regression":
        return np.full((n, 1), y.mean())
    counts = np.bincount(y.astype(np.int64), minlength=task.n_outputs)
    return np.tile(np.log((counts + 0.5) / (counts + 0.5).sum()), (n, 1))


def _scores(output: np.ndarray, y: np.ndarray, task: Any, metric: str) -> np.ndarray:
    """Score of each sample, higher is better."""
    if task.kind == "regression":
        return -((output[:, 0] - y) ** 2)
    if metric == "accuracy":
        return (output.argmax(1) == y).astype(float)
    shifted = output - output.max(1, keepdims=True)
    return shifted[np.arange(len(y)), y] - np.log(np.exp(shifted).sum(1))


def _folds(data: MultimodalDataset, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Train and test positions, in an order that depends on the ids and not on the order of the samples."""
    order = np.argsort(np.asarray(data.ids).astype(str))
    assert data.target is not None
    y = data.target.numpy()[order]
    cutter: Any
    if data.groups is not None and len(np.unique(data.groups)) >= folds:
        parts = GroupKFold(folds, shuffle=True, random_state=seed).split(y, y, np.asarray(data.groups)[order])
    elif data.task is not None and data.task.kind == "classification" and np.bincount(y).max() >= folds:
        cutter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        parts = cutter.split(y.reshape(-1, 1), y)
    else:
        parts = KFold(folds, shuffle=True, random_state=seed).split(y)
    return [(order[train], order[test]) for train, test in parts]
