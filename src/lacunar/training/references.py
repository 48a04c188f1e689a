"""Single-modality models trained from the same incomplete data, frozen, and scored out of fold."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone, is_classifier
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from lacunar.arguments import at_least, checked
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.part import one_part
from lacunar.errors import ConfigError, DataError, RunError, did_you_mean
from lacunar.models.defaults import default_model
from lacunar.models.pooling import fit_weights
from lacunar.models.references import EstimatorExpert, Expert, NetworkExpert, References, estimator_opinions
from lacunar.objectives.joint import Joint
from lacunar.tasks import Task
from lacunar.training.module import parameter_groups
from lacunar.training.options import default_batch_size

__all__ = ["references"]

logger = logging.getLogger(__name__)

#: Below this many samples a table is answered by the prior; a network is trained from two on.
FEWEST = 6
#: A class needs this many samples before its covariance says anything.
FEWEST_FOR_COVARIANCE = 10
#: A covariance of more columns costs more than it brings.
WIDEST_FOR_COVARIANCE = 400
#: Images of up to this many numbers are flattened for estimators; larger ones get a network.
LARGEST_IMAGE = 1024
STACK_RIDGE = 5.0
#: What stands for the default network of a modality.
NETWORK = "network"
#: In each forest.
TREES = 200


@checked
def references(
    data: MultimodalDataset,
    *,
    models: Mapping[str, Any] | None = None,
    out_of_fold: bool = True,
    folds: int = 5,
    seed: int = 0,
    cache: str | Path | None = None,
    max_epochs: int = 20,
    progress: bool | Callable[[str], None] = False,
) -> References:
    """Train one model per modality on the samples that have it, and score every sample with it (U, Eq. 6 of MCE).

    A modality of vectors gets a few scikit-learn estimators (a linear model, extremely randomised trees, a kernel
    approximation and, where classes have enough samples, linear and quadratic discriminants). Their log-probabilities,
    or numbers, are pooled by weights fitted out of fold. So do images of up to 1,024 numbers. Anything else gets
    lacunar's default network for its kind.

    Args:
        data: the training data, incomplete as they are. Validation and test samples must not be in it.
        models: overrides by modality: a scikit-learn estimator, a list of them, an encoder (``nn.Module``), or
            ``"network"`` for the default network.
        out_of_fold: score each sample by models that have not seen it. In sample, as in the paper, a tree scores 1.0
            and the gap to it means nothing.
        folds: number of folds; fewer where a modality has too few samples.
        seed: of folds, trees and networks.
        cache: a folder where references are kept by the content of the data and these arguments, and found again.
        max_epochs: of each network.
        progress: report each modality as it starts: True logs it, a callable is given the text.

    Raises:
        DataError: when a modality is never present, or the data have no target.
        ConfigError: for unknown modalities or words in ``models``.
    """
    data = one_part(data, "references", "data.train")
    if data.target is None or data.task is None:
        raise DataError(f"References need a target, and {data.name!r} has none.")
    at_least(2, folds=folds)
    at_least(1, max_epochs=max_epochs)
    at_least(0, seed=seed)
    if not isinstance(models or {}, Mapping):
        raise ConfigError(f"references: models: expected a mapping from modalities to models, got {models!r}.")
    for name in models or {}:
        if name not in data.names:
            raise ConfigError(f"references: unknown modality {name!r}.{did_you_mean(name, data.names)}")
    for name, given in (models or {}).items():
        if isinstance(given, str) and given != NETWORK:
            raise ConfigError(f"references: {name}: expected an estimator, an encoder or {NETWORK!r}, got {given!r}.")
    for name, count in zip(data.names, data.availability.tolist()):
        if count == 0:
            raise DataError(f"Modality {name!r} is present in no training sample: nothing can be learnt from it.")
    place = None if cache is None else Path(cache) / _content_key(data, models, out_of_fold, folds, seed, max_epochs)
    if place is not None and (place / "references.json").exists():
        return References.load(place)
    experts: dict[str, Expert] = {}
    outputs: dict[str, Tensor] = {}
    scores = torch.full(data.present.shape, torch.nan)
    for m, name in enumerate(data.names):
        say = progress if callable(progress) else logger.info if progress else logger.debug
        say(f"reference {m + 1} of {len(data.names)}: {name} ({int(data.availability[m])} samples)")
        rows = data.present[:, m].nonzero().squeeze(1)
        alone = data.only([name])
        given = (models or {}).get(name)
        network = isinstance(given, (str, nn.Module)) or (given is None and not _is_table(data, name))
        expert: Expert
        if (network and len(rows) > 1) or data.task.kind == "segmentation":  # one sample leaves the prior to say
            encoder = None if isinstance(given, str) else given
            expert, output = _network(alone, name, encoder, out_of_fold, folds, seed, max_epochs)
        else:
            expert, output = _estimators(alone, name, given, out_of_fold, folds, seed)
        experts[name] = expert
        outputs[name] = torch.full((len(data), *output.shape[1:]), torch.nan)
        outputs[name][rows] = output
        scores[rows, m] = data.task.score(output, data.target[rows])
    found = References(experts, data.task, data.ids, outputs, scores, out_of_fold)
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(RunError):  # another process made the same ones meanwhile
            found.save(place)
    return found


def _is_table(data: MultimodalDataset, name: str) -> bool:
    """Whether estimators on flattened values serve: vectors, and images so small that pixels are columns."""
    small = data.kinds[name] == "image" and math.prod(data.shapes[name]) <= LARGEST_IMAGE
    return data.kinds[name] == "vector" or small


def default_estimators(task: Task, count: int, width: int, rarest: int, seed: int) -> list[Any]:
    """The estimators that are stacked for a modality of ``width`` columns with ``count`` samples.

    Args:
        task: what is predicted.
        count: samples that have the modality.
        width: columns.
        rarest: samples of the rarest class among them.
        seed: of trees and kernels.
    """
    trees = {"n_estimators": TREES, "max_features": min(0.3, 120 / width), "random_state": seed}
    kernel = {"gamma": 0.5 / width, "n_components": min(count, 300), "random_state": seed}
    if task.kind == "regression":
        return [
            make_pipeline(StandardScaler(), Ridge(max(1.0, width / 3))),
            ExtraTreesRegressor(**trees),
            make_pipeline(StandardScaler(), Nystroem(**kernel), Ridge(1 / 30)),
        ]
    linear = LogisticRegression(C=min(1.0, 3 / width), max_iter=300)
    smooth = LogisticRegression(C=30.0, max_iter=300)
    if task.kind == "multilabel":
        linear, smooth = OneVsRestClassifier(linear), OneVsRestClassifier(smooth)
    estimators = [
        make_pipeline(StandardScaler(), linear),
        ExtraTreesClassifier(**trees),
        make_pipeline(StandardScaler(), Nystroem(**kernel), smooth),
    ]
    if task.kind == "classification" and rarest >= FEWEST_FOR_COVARIANCE and width <= WIDEST_FOR_COVARIANCE:
        estimators += [
            make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")),
            make_pipeline(StandardScaler(), QuadraticDiscriminantAnalysis(solver="eigen", shrinkage="auto")),
        ]
    return estimators


def _estimators(
    alone: MultimodalDataset, name: str, given: Any, out_of_fold: bool, folds: int, seed: int
) -> tuple[EstimatorExpert, Tensor]:
    task, target = alone.task, alone.target
    assert task is not None and target is not None
    values, _ = alone.columns[name].take(torch.arange(len(alone)))
    flat, labels = values.flatten(1).numpy().astype(np.float64), target.numpy()
    single = task.kind == "classification" and len(np.unique(labels)) == 1
    if len(flat) < FEWEST or single or not flat.std(axis=0).any():
        estimators: list[Any] = [DummyRegressor() if task.kind == "regression" else DummyClassifier(strategy="prior")]
    elif given is not None:
        estimators = list(given) if isinstance(given, (list, tuple)) else [given]
    else:
        rarest = int(np.bincount(labels, minlength=task.n_outputs).min()) if task.kind == "classification" else 0
        estimators = default_estimators(task, len(flat), flat.shape[1], rarest, seed)
    prior = task.baseline(target).to(torch.float32)

    def opinions_of(train: np.ndarray, asked: np.ndarray) -> tuple[list[Any], Tensor]:
        sized = estimators if given is not None else [_fit_to_size(e, len(train)) for e in estimators]
        # Problems this small are slower on several BLAS threads, and far slower when other jobs run beside them.
        with threadpool_limits(1):
            fitted = [_fitted(clone(estimator), flat[train], labels[train]) for estimator in sized]
            return fitted, estimator_opinions(fitted, flat[asked], task, prior)

    everything = np.arange(len(flat))
    fitted, seen = opinions_of(everything, everything)
    unseen = seen.clone()  # a single sample has no fold: it is answered by the prior either way
    for train, asked in _folds(task, labels, alone.groups, folds, seed):
        unseen[asked] = opinions_of(train, asked)[1]
    even = torch.full((len(fitted),), 1 / len(fitted))
    weights, _ = fit_weights(task, prior, unseen, target, even, STACK_RIDGE)
    expert = EstimatorExpert(fitted, task, weights.tolist(), prior.tolist())
    return expert, expert.combine(unseen if out_of_fold else seen)


def _fit_to_size(estimator: Any, count: int) -> Any:
    """A kernel approximation cannot have more components than a fold has samples."""
    if "nystroem__n_components" in estimator.get_params():
        estimator = clone(estimator).set_params(
            nystroem__n_components=min(count, estimator.get_params()["nystroem__n_components"])
        )
    return estimator


def _fitted(estimator: Any, flat: np.ndarray, labels: np.ndarray) -> Any:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    with warnings.catch_warnings():
        # Early stopping of the solver is regularisation enough; rare labels may be constant in a fold.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="Label .* is present in (all|not any)")
        if is_classifier(estimator) and labels.ndim == 1 and len(np.unique(labels)) == 1:
            return DummyClassifier(strategy="prior").fit(flat, labels)
        for shrinkage in (0.3, 0.9, 0.9):
            try:
                return estimator.fit(flat, labels)
            except np.linalg.LinAlgError:
                # Columns that are constant within a class leave nothing for the automatic shrinkage to work with.
                names = [name for name in estimator.get_params() if name.endswith("__shrinkage")]
                estimator.set_params(**dict.fromkeys(names, shrinkage))
        return DummyClassifier(strategy="prior").fit(flat, labels)


def _folds(task: Task, labels: np.ndarray, groups: np.ndarray | None, folds: int, seed: int) -> Any:
    """Train and held-out positions of every fold: no group is cut, classes stay in proportion where they can."""
    count = min(folds, len(labels))
    if len(labels) < 2:
        return []
    if groups is not None and len(np.unique(groups)) >= 2:
        from sklearn.model_selection import GroupKFold

        return GroupKFold(min(folds, len(np.unique(groups)))).split(labels, groups=groups)
    if task.kind == "classification" and np.bincount(labels).max() >= count:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The least populated class")
            return list(StratifiedKFold(count, shuffle=True, random_state=seed).split(labels, labels))
    return KFold(count, shuffle=True, random_state=seed).split(labels)


def _network(
    alone: MultimodalDataset, name: str, encoder: Any, out_of_fold: bool, folds: int, seed: int, max_epochs: int
) -> tuple[NetworkExpert, Tensor]:
    """A network expert and its outputs; three folds at most, for each is a training."""
    task, target = alone.task, alone.target
    assert task is not None and target is not None
    whole = _train_network(alone, name, encoder, seed, max_epochs)
    if not out_of_fold:
        return whole, _network_outputs(whole, alone, name)
    if len(alone) < 2:  # a single sample has no fold: it is answered by the prior
        return whole, task.expand(task.baseline(target).to(torch.float32), target)
    output: Tensor | None = None
    labels = target.numpy() if task.kind == "classification" else np.zeros(len(alone), dtype=int)
    for fold, (train, asked) in enumerate(_folds(task, labels, alone.groups, min(folds, 3), seed)):
        expert = _train_network(alone.select(train), name, encoder, seed + 1 + fold, max_epochs)
        part = _network_outputs(expert, alone.select(asked), name)
        output = torch.empty(len(alone), *part.shape[1:]) if output is None else output
        output[torch.as_tensor(asked)] = part
    assert output is not None
    return whole, output


def _train_network(alone: MultimodalDataset, name: str, encoder: Any, seed: int, max_epochs: int) -> NetworkExpert:
    """The default network for one modality, trained on all its samples for a fixed number of epochs.

    A plain loop: there is nothing to select, to resume or to distribute.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else None):
        torch.manual_seed(seed)
        model = default_model(alone, encoders=None if encoder is None else {name: _fresh(encoder)}).to(device)
        objective = Joint(label_smoothing=0.05)
        objective.setup(model, alone)
        size = default_batch_size(len(alone))
        optimizer = torch.optim.AdamW(parameter_groups([model], 0.01), 1e-3)
        steps = max_epochs * -(-len(alone) // size)
        # A fifth of the steps; where that is exactly one step the scheduler would divide by zero.
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 1e-3, total_steps=steps, pct_start=0.2 if steps != 5 else 0.25
        )
        for epoch in range(max_epochs):
            for batch in alone.loader(size, shuffle=True, seed=seed + epoch):
                optimizer.zero_grad()
                sum(objective(model, batch.to(device)).values()).backward()  # type: ignore[union-attr]
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
    return NetworkExpert(model, name)


def _fresh(encoder: nn.Module) -> nn.Module:
    """A copy of an encoder with its parameters drawn again, where its layers know how."""
    other = copy.deepcopy(encoder)
    for layer in other.modules():
        if callable(getattr(layer, "reset_parameters", None)):
            layer.reset_parameters()  # type: ignore[operator]
    return other


def _network_outputs(expert: NetworkExpert, alone: MultimodalDataset, name: str) -> Tensor:
    parts = [expert.output(batch.inputs[name], batch.lengths.get(name)).cpu() for batch in alone.batches()]
    return torch.cat(parts)


def _content_key(data: MultimodalDataset, models: Any, *options: Any) -> str:
    """A digest of what the references depend on: every observed value, targets, task, groups, and the arguments."""
    digest = hashlib.sha256(repr((FORMAT_OF_KEY, data.kinds, repr(models), options)).encode())
    digest.update(json.dumps(data.task.to_config(), sort_keys=True).encode())  # type: ignore[union-attr]
    digest.update(repr(None if data.groups is None else data.groups.tolist()).encode())  # no fold cuts a group
    digest.update("\n".join(data.ids.tolist()).encode())
    digest.update(np.ascontiguousarray(data.target.numpy()).tobytes())  # type: ignore[union-attr]
    for name in data.names:
        digest.update(data.present[:, data.names.index(name)].numpy().tobytes())
    for batch in data.batches(256):
        for name, rows in batch.inputs.items():
            steps = batch.lengths[name].tolist() if name in batch.lengths else None
            digest.update(repr((tuple(rows.shape), steps)).encode())
            digest.update(np.ascontiguousarray(rows.numpy()).tobytes())
    return digest.hexdigest()[:20]


FORMAT_OF_KEY = 3
