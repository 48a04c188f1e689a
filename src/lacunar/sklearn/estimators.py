"""One model for every subset of modalities, as a classifier and a regressor of scikit-learn."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.validation import check_is_fitted

from lacunar.arguments import arguments_for
from lacunar.data.arrays import from_arrays
from lacunar.data.columns import Column
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.frame import from_frame, table_levels
from lacunar.data.modality_spec import parse_modalities
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.sklearn.inputs import ModalityFrame, Positions, by_first_level, flat, named, says_nothing, with_ids

__all__ = ["MultimodalClassifier", "MultimodalRegressor"]


class _Multimodal(BaseEstimator):
    """What classifier and regressor share."""

    _task: str

    def __init__(
        self,
        modalities: Mapping[str, Any] | None = None,
        *,
        objective: Any = None,
        make_model: Callable[[MultimodalDataset], Any] | None = None,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        lr: float = 1e-3,
        validation: float = 0.15,
        experts: bool | None = None,
        random_state: int = 0,
        fit_options: Mapping[str, Any] | None = None,
        out: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ):
        self.modalities = modalities
        self.objective = objective
        self.make_model = make_model
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.validation = validation
        self.experts = experts
        self.random_state = random_state
        self.fit_options = fit_options
        self.out = out
        self.progress = progress

    def fit(self, X: Any, y: Any, groups: Any = None) -> Any:
        """Train on whatever each sample has; a part is set aside to select on.

        Args:
            X: a frame, an array ``(N, columns)``, a :class:`ModalityFrame` or a dictionary of arrays; NaN or None is
                absent. Samples that have nothing are left out.
            y: one target per sample.
            groups: samples of one group stay on one side of the validation split.
        """
        from lacunar.training.fit import fit

        # A fit that fails must not leave an earlier model behind that reads its input in another way.
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        X = named(X)
        self.modalities_ = self._resolved(X)
        self.absent_: dict[str, Column] = {}
        frames = X.modalities.items() if isinstance(X, ModalityFrame) else ()
        self.columns_ = {name: list(values.columns) for name, values in frames if isinstance(values, pd.DataFrame)}
        data = self._data(X, y, groups, self._task)
        if not isinstance(self.validation, Real) or not 0 < self.validation < 1:
            raise ConfigError(f"validation: expected a share of the samples in (0, 1), got {self.validation!r}.")
        never = [name for name, there in zip(data.names, data.present.any(0).tolist()) if not there]
        if never:
            raise DataError(
                f"Modality {never[0]!r} is absent from every sample: nothing can be learned about it. Leave it out "
                f"{'of the dictionary' if isinstance(X, ModalityFrame) else 'of modalities='}."
            )
        seed = _seed(self.random_state)
        nothing = torch.zeros(len(data), dtype=torch.bool)
        self.absent_ = {name: column.hide(nothing) for name, column in data.columns.items()}
        parts = data.split(train=1 - self.validation, val=self.validation, test=0.0, seed=seed)
        self.run_ = fit(
            parts,
            self._model(parts.train),
            self._objective(),
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            experts=self.experts,
            seed=seed,
            out=self.out,
            progress=self.progress,
            **self._fit_options(),
        )
        self.model_: Any = self.run_.model
        self.n_features_in_ = X.shape[1]
        if isinstance(X, pd.DataFrame) and all(isinstance(column, str) for column in X.columns):
            self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        self._after_fit()
        return self

    def _model(self, train: MultimodalDataset) -> Any:
        if self.make_model is None:
            return None
        if not callable(self.make_model):
            raise ConfigError(
                f"make_model: expected a function from the training data to a model, got {self.make_model!r}."
            )
        return self.make_model(train)

    def _fit_options(self) -> dict[str, Any]:
        from lacunar.training.fit import fit

        own = {*self.get_params(deep=False), "seed", "data", "model"}
        return arguments_for(fit, self.fit_options, own, "fit_options")

    def predict(self, X: Any) -> np.ndarray:
        """The prediction for each sample, from whatever it has; the prior where it has nothing."""
        table = self._table(X)
        numbers = [column for column in table if str(column).startswith("prediction_")]
        return table[numbers].to_numpy() if numbers else table["prediction"].to_numpy()

    def evaluate(self, X: Any, y: Any, **options: Any) -> Any:
        """The scores of every subset of modalities: see :func:`lacunar.evaluate`."""
        from lacunar.evaluation import evaluate

        check_is_fitted(self, "model_")
        return evaluate(self.model_, self._data(named(X), y, None, self.model_.task), **options)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        tags.no_validation = True
        return tags

    # ------------------------------------------------------------------ the parts

    def _after_fit(self) -> None:
        pass

    def _objective(self) -> Any:
        from lacunar.objectives import get

        if isinstance(self.objective, str):
            return get(self.objective)()
        # Training changes an objective, and what a user passed in stays as it is.
        return copy.deepcopy(self.objective)

    def _resolved(self, X: Any) -> Any:
        """Where the modalities are, with everything that the training table decides."""
        if isinstance(X, ModalityFrame):
            if self.modalities is not None:
                raise ConfigError("modalities: a dictionary names its modalities itself; leave the argument out.")
            return X.names
        if isinstance(X, np.ndarray):
            if self.modalities is None:
                raise ConfigError(
                    f"modalities: an array of {X.shape[1]} columns does not say which belong together. Give "
                    "modalities={'a': [0, 1, 2], 'b': slice(3, 9)}."
                )
            return Positions(self.modalities, X.shape[1])
        modalities = self.modalities
        if modalities is None:
            if not isinstance(X.columns, pd.MultiIndex):
                raise ConfigError(
                    "modalities: a frame does not say which columns belong together. Give modalities={'lab': 'lab_*', "
                    "'rna': [...]}, or columns of two levels whose first names the modality."
                )
            modalities = by_first_level(X.columns)
        frame = flat(X)
        resolved: dict[str, Any] = {}
        for name, spec in parse_modalities(modalities, list(frame.columns), {}).items():
            given = modalities[name]
            entry: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {}
            if spec.reader is None:
                # Closed: a text that new data hold in a column of numbers must not become a level.
                entry |= {"columns": list(spec.columns), "closed": True}
                levels = table_levels(spec, frame)
                if levels:
                    entry["categories"] = {column: list(listed) for column, listed in levels.items()}
            else:
                column = from_frame(frame, {name: given}, keep_empty=True).columns[name]
                entry["kind"] = column.kind
                if column.shape:
                    entry["shape"] = list(column.shape)
            resolved[name] = entry
        return resolved

    def _data(self, X: Any, y: Any, groups: Any, task: Any, keep_empty: bool = False) -> MultimodalDataset:
        where = self.modalities_
        values: Mapping[str, Any]
        if isinstance(where, tuple):
            if not isinstance(X, ModalityFrame):
                raise DataError(f"Expected a dictionary or a ModalityFrame, as in fit, got {type(X).__name__}.")
            for name in X.names:
                if name not in where:
                    raise DataError(f"Unknown modality {name!r}.{did_you_mean(name, where)}")
            values = {name: self._by_name(name, value) for name, value in X.modalities.items()}
        elif isinstance(where, Positions):
            values = where.cut(X)
        elif isinstance(X, pd.DataFrame):
            values = from_frame(with_ids(flat(X)), where, keep_empty=True).columns
        else:
            raise DataError(f"Expected a frame with the columns of fit, got {type(X).__name__}.")
        if self.absent_:
            # What is absent from every sample shows neither kind nor shape.
            nobody = torch.zeros(len(X), dtype=torch.int64)
            values = {
                name: column.select(nobody) if says_nothing(values.get(name)) else values[name]
                for name, column in self.absent_.items()
            }
        kinds = {name: column.kind for name, column in self.absent_.items()}
        return from_arrays(values, y, groups=groups, task=task, kinds=kinds, name="X", keep_empty=keep_empty)

    def _by_name(self, name: str, values: Any) -> Any:
        """The columns of a frame in a dictionary in the order of fit."""
        known = self.columns_.get(name)
        if known is None or not isinstance(values, pd.DataFrame):
            return values
        if set(values.columns) != set(known):
            apart = ", ".join(map(str, set(values.columns) ^ set(known)))
            raise DataError(f"Modality {name!r}: expected the columns of fit, and these differ: {apart}.")
        return values[known]

    def _table(self, X: Any) -> pd.DataFrame:
        from lacunar.prediction import predict

        check_is_fitted(self, "model_")
        return predict(self.model_, self._data(named(X), None, None, None, keep_empty=True))


class MultimodalClassifier(ClassifierMixin, _Multimodal):
    """Classification from whichever modalities a sample has.

    Args:
        modalities: which columns belong together: for a frame as in :func:`lacunar.from_frame` (``{"lab": "lab_*"}``),
            for an array positions or slices; left out for dictionaries, and for frames whose columns have two levels.
        objective: a training method, by class name or as an object; ``lacunar.fit`` chooses when left out.
        make_model: from the training data to a model; :func:`lacunar.default_model` when left out.
        max_epochs, batch_size, lr, experts: see :func:`lacunar.fit`.
        validation: share of the samples to select on.
        random_state: a whole number; fixes the split and the training.
        fit_options: further arguments of :func:`lacunar.fit`.
        out: folder of the run; None writes nothing.
        progress: show progress.

    Attributes:
        classes_: the labels, in the order of the columns of ``predict_proba``.
        run_, model_: the run and its model.
    """

    _task = "classification"

    def _after_fit(self) -> None:
        self.classes_ = np.asarray(self.model_.task.classes)

    def predict(self, X: Any) -> np.ndarray:
        """The label of each sample, one of ``classes_``; the most frequent one where a sample has nothing."""
        return super().predict(X).astype(self.classes_.dtype)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class, ``(N, classes)``."""
        table = self._table(X)
        found = table[[f"probability_{label}" for label in self.model_.task.classes]].to_numpy(dtype=np.float64)
        return found / found.sum(axis=1, keepdims=True)  # networks round in single precision

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy."""
        return float(accuracy_score(y, self.predict(X), sample_weight=sample_weight))


class MultimodalRegressor(RegressorMixin, _Multimodal):
    """Regression from whichever modalities a sample has.

    Arguments and attributes as in :class:`MultimodalClassifier`, without classes.
    """

    _task = "regression"

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Coefficient of determination R2."""
        return float(r2_score(y, self.predict(X), sample_weight=sample_weight))


def _seed(random_state: Any) -> int:
    if isinstance(random_state, bool) or not isinstance(random_state, (int, np.integer)) or random_state < 0:
        raise ConfigError(f"random_state: expected a whole number from 0 up, got {random_state!r}.")
    return int(random_state)
