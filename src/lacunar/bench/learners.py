"""scikit-learn's estimators behind one face: a column for each output of the task, averages of which are answers."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lacunar.tasks.base import Task

__all__ = ["KINDS", "Learner", "boosted", "linear", "loss_of"]

#: Kinds of task that can be learnt so.
KINDS = ("classification", "multilabel", "regression")
_STRENGTHS = np.logspace(-1, 3, 9)


def linear(task: Task, seed: int) -> Learner:
    """Logistic or ridge regression on standardised columns."""
    model = RidgeCV(_STRENGTHS) if task.kind == "regression" else LogisticRegression(max_iter=1000)
    return Learner(make_pipeline(StandardScaler(), model), task)


def boosted(task: Task, seed: int) -> Learner:
    """Histogram gradient boosting, which splits on NaN."""
    kind = HistGradientBoostingRegressor if task.kind == "regression" else HistGradientBoostingClassifier
    return Learner(kind(random_state=seed), task)


class Learner:
    """An estimator of all outputs of a task.

    One classifier for classes that exclude each other, otherwise one estimator for each output: for every label a
    classifier of yes and no, for every number a regressor. An output that is the same in all rows is answered so.

    Args:
        estimator: of one column.
        task: what is learnt, of one of the :data:`KINDS`.
    """

    def __init__(self, estimator: BaseEstimator, task: Task):
        self.estimator, self.task = estimator, task

    def fit(self, rows: np.ndarray, target: np.ndarray) -> Learner:
        """Learn from ``(n, F)`` and encoded targets ``(n,)`` or ``(n, R)``, of at least one row."""
        columns = target.reshape(len(target), -1)
        if self.task.kind != "regression":
            columns = columns.astype(int)
        self.parts = [self._one(columns[:, column]).fit(rows, columns[:, column]) for column in range(columns.shape[1])]
        return self

    def _one(self, column: np.ndarray) -> BaseEstimator:
        if (column != column[0]).any():
            return clone(self.estimator)
        return DummyRegressor() if self.task.kind == "regression" else DummyClassifier()

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Probabilities of classes or of labels, or numbers, ``(n, outputs)``."""
        if not len(rows):
            return np.zeros((0, self.task.n_outputs))
        if self.task.kind == "regression":
            return np.stack([part.predict(rows) for part in self.parts], 1)
        if self.task.kind == "multilabel":
            return np.stack([_probabilities(part, rows, 2)[:, 1] for part in self.parts], 1)
        return _probabilities(self.parts[0], rows, self.task.n_outputs)


def _probabilities(classifier: BaseEstimator, rows: np.ndarray, classes: int) -> np.ndarray:
    """A column for every class, those that the classifier has not met included."""
    table = np.zeros((len(rows), classes))
    table[:, classifier.classes_] = classifier.predict_proba(rows)
    return table


def loss_of(said: np.ndarray, target: np.ndarray, task: Task) -> float:
    """Mean log-loss of probabilities, or squared error in units of the train variance.

    Args:
        said: as a :class:`Learner` answers, ``(n, outputs)``.
        target: encoded.
        task: fitted on the train part.
    """
    if task.kind == "classification":
        return float(-np.log(said[np.arange(len(said)), target] + 1e-9).mean())
    if task.kind == "multilabel":
        return float(-np.log(np.where(target > 0, said, 1 - said) + 1e-9).mean())
    unit = getattr(task, "std", None)
    error = said - target.reshape(len(target), -1)
    return float(np.square(error / (1.0 if unit is None else unit.numpy())).mean())
