"""What an engineer would reach for today on vectors: scikit-learn, with no knowledge of lacunar's models.

Each peer is fitted on the train and validation parts of incomplete data, and is then a callable from a batch to outputs
of the task (log-probabilities of classes, logits of labels, numbers), so that :func:`lacunar.evaluate` gives it the
same table as a model.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer
from torch import Tensor

from lacunar.bench.learners import KINDS, boosted, linear, loss_of
from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError

__all__ = ["PEERS", "Boosting", "BoostingWithDropout", "LateFusion", "WeightedLateFusion"]


class Flat:
    """Every modality as vectors: images flattened, sequences summarised, text as counts of one to three letters."""

    def __init__(self, data: MultimodalDataset):
        self.kinds, self.counters = data.kinds, {}
        for name in data.names:
            if self.kinds[name] == "tokens":
                texts = list(_texts(data.only([name]).__getitems__(range(len(data.only([name])))), name))
                self.counters[name] = CountVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2).fit(texts)

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        """For each modality the rows of a batch that have it, ``(n_m, F)``."""
        return {name: self._rows(batch, name) for name in batch.names}

    def _rows(self, batch: Batch, name: str) -> np.ndarray:
        values = batch.inputs[name]
        if self.kinds[name] == "tokens":
            return self.counters[name].transform(_texts(batch, name)).toarray().astype(np.float64)
        if self.kinds[name] == "sequence":
            summaries = [
                torch.cat([row[:steps].mean(0), row[:steps].std(0, correction=0), row[:steps].amax(0)])
                for row, steps in zip(values, batch.lengths[name].tolist())
            ]
            return torch.stack(summaries).double().numpy() if summaries else np.empty((0, 3 * values.shape[2]))
        return values.flatten(1).double().numpy()


def _texts(batch: Batch, name: str) -> Iterator[str]:
    for row, steps in zip(batch.inputs[name].tolist(), batch.lengths[name].tolist()):
        yield "".join(map(chr, row[:steps]))


class _Peer:
    """Fitted on train and validation; called with a batch, answers outputs of the task, ``(B, outputs)``."""

    def __init__(self, data: Splits, seed: int = 0):
        if data.task is None or data.task.kind not in KINDS:
            raise ConfigError(f"{type(self).__name__} is defined for {', '.join(KINDS)}; the task is {data.task}.")
        self.task, self.seed = data.task, seed
        self.flat = Flat(data.train)
        self._fit(data.train, data.val)

    def __call__(self, batch: Batch) -> Tensor:
        said = self._said(batch)
        if self.task.kind != "regression":
            said = np.maximum(said, 1e-7)
        return self.task.from_probabilities(torch.from_numpy(said))

    def _fit(self, train: MultimodalDataset, val: MultimodalDataset) -> None:
        raise TypeError(f"{type(self).__name__} defines no fit.")

    def _said(self, batch: Batch) -> np.ndarray:
        raise TypeError(f"{type(self).__name__} defines no prediction.")


class Boosting(_Peer):
    """Histogram gradient boosting on the concatenated columns; absent modalities are NaN, which it splits on."""

    copies = 0

    def _fit(self, train: MultimodalDataset, val: MultimodalDataset) -> None:
        batch = _everything(train)
        table, target = self._table(batch), _target(batch)
        tables, targets = [table], [target]
        draw = np.random.default_rng(self.seed)
        for _ in range(self.copies):
            kept = batch.present.numpy() & (draw.random(batch.present.shape) >= 0.5)
            some = kept.any(1)
            tables.append(self._table(batch.hide(torch.from_numpy(kept)))[some])
            targets.append(target[some])
        self.learner = boosted(self.task, self.seed).fit(np.concatenate(tables), np.concatenate(targets))

    def _table(self, batch: Batch) -> np.ndarray:
        columns = []
        for name, rows in self.flat(batch).items():
            block = np.full((len(batch), rows.shape[1]), np.nan)
            block[batch.rows(name).numpy()] = rows
            columns.append(block)
        return np.concatenate(columns, 1)

    def _said(self, batch: Batch) -> np.ndarray:
        return self.learner(self._table(batch))


class BoostingWithDropout(Boosting):
    """The same, trained on four copies more in which each modality is absent with probability one half."""

    copies = 4


class LateFusion(_Peer):
    """A linear and a boosted-tree model per modality; the mean of what the present ones say."""

    def _fit(self, train: MultimodalDataset, val: MultimodalDataset) -> None:
        batch = _everything(train)
        self.experts = []
        for name, rows in self.flat(batch).items():
            target = _target(batch)[batch.rows(name).numpy()]
            self.experts.append([learner(self.task, self.seed).fit(rows, target) for learner in (linear, boosted)])
        self.weights: dict[int, np.ndarray] = {}

    def _opinions(self, batch: Batch) -> np.ndarray:
        """Mean of what each modality's two models say, ``(B, M, outputs)``, zero where absent."""
        table = np.zeros((len(batch), len(batch.names), self.task.n_outputs))
        for m, (name, rows) in enumerate(self.flat(batch).items()):
            table[batch.rows(name).numpy(), m] = np.mean([learner(rows) for learner in self.experts[m]], 0)
        return table

    def _said(self, batch: Batch) -> np.ndarray:
        weights = batch.present.numpy().astype(float)
        for pattern, learnt in self.weights.items():
            same = (batch.present.numpy() @ (1 << np.arange(len(batch.names)))) == pattern
            weights[same] = learnt
        weights /= weights.sum(1, keepdims=True)
        return (self._opinions(batch) * weights[:, :, None]).sum(1)


class WeightedLateFusion(LateFusion):
    """Late fusion whose weights are learnt for each presence pattern, by the loss on validation."""

    def _fit(self, train: MultimodalDataset, val: MultimodalDataset) -> None:
        super()._fit(train, val)
        batch = _everything(val)
        opinions, target, present = self._opinions(batch), _target(batch), batch.present.numpy()
        M = present.shape[1]
        for pattern in range(1, 1 << M):
            members = np.array([pattern >> m & 1 for m in range(M)], bool)
            rows = present[:, members].all(1)
            if members.sum() < 2 or not rows.any():
                continue
            some, candidates = opinions[rows].transpose(0, 2, 1), list(_simplex(members))
            losses = [loss_of(some @ weights, target[rows], self.task) for weights in candidates]
            self.weights[pattern] = candidates[int(np.argmin(losses))]


def _simplex(members: np.ndarray) -> Iterator[np.ndarray]:
    """Weights over the members that sum to 1: even ones first, then a grid, or draws where a grid is too large."""
    count = int(members.sum())
    yield members / count
    if count <= 4:
        rows: Iterator = (c for c in itertools.product(range(11), repeat=count) if sum(c) == 10)
    else:
        rows = iter(np.random.default_rng(0).dirichlet(np.ones(count), 300) * 10)
    for row in rows:
        weights = np.zeros(len(members))
        weights[members] = np.asarray(row) / 10
        yield weights


def _everything(data: MultimodalDataset) -> Batch:
    return data.__getitems__(range(len(data)))


def _target(batch: Batch) -> np.ndarray:
    assert batch.target is not None
    return batch.target.numpy()


PEERS: dict[str, Callable[..., _Peer]] = {
    "boosting": Boosting,
    "boosting + dropout": BoostingWithDropout,
    "late fusion": LateFusion,
    "late fusion, weighted": WeightedLateFusion,
}
