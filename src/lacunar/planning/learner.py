"""How a plan learns from data with gaps: fill them or not, train, and score what was held out."""

from __future__ import annotations

import copy
import inspect
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits
from lacunar.data.splitting import make_splits
from lacunar.errors import ConfigError, DataError
from lacunar.generation import Completer
from lacunar.generation import get as get_completer
from lacunar.models.references import estimator_opinions
from lacunar.planning.estimate_config import plain_option
from lacunar.planning.estimate_pilot import describe_pilot
from lacunar.planning.estimate_scoring import metric_for, score_constant, score_output
from lacunar.planning.nested import NestedSubsets
from lacunar.planning.retrain import WholeSubset, fit_options, one_thread, settle
from lacunar.planning.set_aside import set_aside, ungrouped
from lacunar.training.folder import describe_module

__all__ = ["Learner", "Outcome", "complete_cases", "crowd", "held_out"]

logger = logging.getLogger(__name__)

Predictor = Callable[[MultimodalDataset], Tensor]
DENSE = ("vector", "image", "volume")


@dataclass(frozen=True)
class Outcome:
    """What one training came to.

    Attributes:
        score: on the held-out samples, higher is better.
        baseline: of the constant prediction that the training targets suggest, on the same samples.
        n: samples that were trained on.
        seconds: for completing, training and scoring.
        notes: what went differently from usual.
    """

    score: float
    baseline: float
    n: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def gain(self) -> float:
        return self.score - self.baseline


@dataclass(frozen=True)
class Learner:
    """One way to learn, the same for every candidate of a plan.

    Args:
        make_model: from training data to a model: a network, which :func:`lacunar.fit` trains, or a scikit-learn
            estimator, which sees the standardised columns of all modalities side by side. An estimator or network
            itself is copied, and an estimator's class is called. :func:`lacunar.default_model` when left out.
        metric: what to score by, one of :data:`lacunar.planning.estimate_scoring.METRICS`; the task's usual one when
            left out.
        completer: what fills gaps when it is asked to: a name of :func:`lacunar.generation.available`, a completer
            (copied, and fitted anew each time), its class, or a function of the seed.
        fit: options of :func:`lacunar.fit` for networks; ``objective`` may be a function that makes one. Networks
            learn from what each sample has when none is given.
        val: share of the training samples that select a network's epoch.
    """

    make_model: Any = None
    metric: str | None = None
    completer: Any = "ridge"
    fit: Mapping[str, Any] = field(default_factory=dict)
    val: float = 0.2

    def __post_init__(self) -> None:
        if not isinstance(self.fit, Mapping):
            raise ConfigError(
                f"fit: expected arguments of lacunar.fit, such as {{'max_epochs': 20}}, got {self.fit!r}."
            )

    def score(self, train: MultimodalDataset, test: MultimodalDataset, seed: int = 0, fill: bool = False) -> Outcome:
        """Train on what there is, and score on held-out samples with all that they have.

        Args:
            train: labelled samples, complete or not.
            test: other samples, of the same modalities.
            seed: of weights, shuffling and completion.
            fill: complete the training samples first; the completer is fitted on what is observed in them.

        Raises:
            DataError: no target, or no sample to train on.
        """
        start = time.perf_counter()
        task = train.task
        if train.target is None or test.target is None or task is None:
            raise DataError("Expected training and held-out samples with a target, got none.")
        metric = metric_for(task, self.metric)
        if fill:
            train = self.complete(train, seed)
        predict, notes = self.train(train, seed)
        value = score_output(metric, task, predict(test), test.target).value
        baseline = score_constant(metric, task, train.target, test.target, "train", None).value
        return Outcome(value, baseline, len(train), time.perf_counter() - start, notes)

    def complete(self, data: MultimodalDataset, seed: int = 0) -> MultimodalDataset:
        """Every gap filled and flagged, by a completer that is fitted to these very samples and knows nothing else."""
        if bool(data.present.all()) or self.completer is None:
            return data
        return self.make_completer(seed).fit(data).complete(data)

    def make_completer(self, seed: int = 0) -> Completer:
        """A completer that has not been fitted.

        Raises:
            ConfigError: an unknown name, or something else than a completer.
        """
        given = self.completer
        if isinstance(given, str):
            given = get_completer(given)
        made = copy.deepcopy(given) if isinstance(given, Completer) else None
        if made is None and isinstance(given, type):
            made = given(seed=seed)
        elif made is None and callable(given):
            made = given(seed)
        if not isinstance(made, Completer):
            raise ConfigError(f"completer: expected a name such as 'ridge', or a completer, got {self.completer!r}.")
        return made

    def describe(self, data: MultimodalDataset) -> dict[str, Any]:
        """Itself and the data as plain facts, by which stored results are known to be of the same learner and data."""
        with torch.random.fork_rng():
            model = self.make(data.observed())
        return {
            "model": describe_module(model) if isinstance(model, nn.Module) else " ".join(repr(model).split()),
            "metric": self.metric,
            "completer": None if self.completer is None else describe_module(self.make_completer()),
            "fit": {name: plain_option(value) for name, value in sorted(self._fit_options(data).items())},
            "val": self.val,
            "data": describe_pilot(data),
        }

    def _fit_options(self, data: MultimodalDataset) -> dict[str, Any]:
        assert data.task is not None
        return fit_options(self.fit, metric_for(data.task, self.metric))

    def train(self, data: MultimodalDataset, seed: int = 0) -> tuple[Predictor, tuple[str, ...]]:
        """From training samples to a function from samples to raw outputs, ``(N, n_outputs, ...)``; and notes."""
        assert data.task is not None
        assert data.target is not None
        if data.task.kind == "classification" and len(data.target.unique()) < 2:
            prior = _prior(data)
            note = f"the {len(data)} training samples are of one class: it is predicted for every sample"
            return (lambda samples: prior.expand(len(samples), -1)), (note,)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.make(data.observed())
        if isinstance(model, nn.Module):
            return self._train_network(data, model, seed), ()
        return _train_estimator(data, model, seed), ()

    def make(self, data: MultimodalDataset) -> Any:
        """A model for some training data that has learned nothing.

        Raises:
            ConfigError: ``make_model`` makes neither a network nor one estimator.
        """
        given = self.make_model
        if given is None:
            from lacunar.models.defaults import default_model

            return default_model(data)
        if isinstance(given, nn.Module):
            return copy.deepcopy(given)
        if isinstance(given, type) and hasattr(given, "fit"):
            return given()
        if hasattr(given, "fit") and hasattr(given, "predict"):
            from sklearn.base import clone

            return clone(given)
        if not callable(given):
            raise ConfigError(f"make_model: expected a function from data to a model, got {type(given).__name__}.")
        made = given(data) if inspect.signature(given).parameters else given()
        if not isinstance(made, nn.Module) and not (hasattr(made, "fit") and hasattr(made, "predict")):
            raise ConfigError(
                f"make_model: expected it to return a network or a scikit-learn estimator, got {type(made).__name__}."
            )
        return made

    def _train_network(self, data: MultimodalDataset, model: Any, seed: int) -> Predictor:
        from lacunar.training.fit import fit

        options = {"seed": seed, **self._fit_options(data)}
        objective = options.pop("objective", None)
        if objective is None:
            objective = WholeSubset()
        elif isinstance(objective, nn.Module):
            objective = copy.deepcopy(objective)
        else:
            objective = objective()
        with one_thread():
            run = fit(_with_validation(data, self.val, seed), model, objective, progress=False, **options)
        return lambda samples: _outputs(run.model, samples)


@torch.no_grad()
def _outputs(model: nn.Module, samples: MultimodalDataset) -> Tensor:
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return torch.cat([model(batch.to(device)).float().cpu() for batch in samples.batches(256)])


def _with_validation(data: MultimodalDataset, share: float, seed: int) -> Splits:
    """To train and to validate on: complete samples with nothing generated validate, where there are any.

    Of groups whole ones validate, and none of their samples is trained on.
    """
    real, everything = (data.present.all(1) & ~data.generated.any(1)).numpy(), np.arange(len(data))
    rows = np.flatnonzero(real) if real.any() else everything
    if data.groups is not None:
        for candidates in (rows, everything):
            chosen = set_aside(data, candidates, share, seed)
            if chosen is not None:
                others = ~np.isin(data.groups, data.groups[chosen])
                return make_splits(data, indices={"train": data.ids[others], "val": data.ids[chosen]})
        data = ungrouped(data)
    part = data.select(rows)
    count = max(1, round(share * len(part)))
    ids = part.ids[NestedSubsets(part, seed).rows(count)]
    return make_splits(data, indices={"train": data.ids[~np.isin(data.ids, ids)], "val": ids})


def _train_estimator(data: MultimodalDataset, estimator: Any, seed: int) -> Predictor:
    assert data.task is not None
    assert data.target is not None
    task, prior = data.task, _prior(data)
    if task.kind in ("classification", "multilabel") and not hasattr(estimator, "predict_proba"):
        raise ConfigError(
            f"make_model: {type(estimator).__name__} gives no probabilities (predict_proba). Use another."
        )
    settle(estimator, seed)
    columns = _Columns(data)
    with one_thread():
        estimator.fit(columns(data), data.target.numpy())

    def predict(samples: MultimodalDataset) -> Tensor:
        return prior + estimator_opinions([estimator], columns(samples), task, prior)[:, 0]

    return predict


def _prior(data: MultimodalDataset) -> Tensor:
    assert data.task is not None
    assert data.target is not None
    prior = data.task.baseline(data.target)
    if data.task.kind != "classification":
        return prior
    # A class that did not occur is unlikely, not impossible.
    counts = torch.bincount(data.target, minlength=data.task.n_outputs) + 0.5
    return data.task.from_probabilities(counts / counts.sum())


class _Columns:
    """All modalities side by side, standardised by what was observed of them in training, float64 ``(N, sum d)``.

    An absent modality is zero, its mean; and where the training samples have gaps, one column for each modality with
    gaps says whether it is there.
    """

    def __init__(self, train: MultimodalDataset):
        for name, kind in train.kinds.items():
            if kind not in DENSE:
                raise DataError(
                    f"Modality {name!r}: an estimator needs columns, and these are {kind}. Give a make_model that "
                    "returns a network, or turn each sample into one vector first."
                )
        self.names = train.names
        self.gaps = [m for m, count in enumerate(train.availability.tolist()) if count < len(train)]
        self.facts = {}
        # What was generated varies less than what was observed: scaled by it, the observed would grow, and count more.
        for name, rows in self._rows(train.observed()).items():
            center = rows.mean(0) if len(rows) else np.zeros(rows.shape[1])
            scale = rows.std(0) if len(rows) else np.ones(rows.shape[1])
            self.facts[name] = center, np.where(scale > 1e-6 * (1 + abs(center)), scale, 1.0)

    def __call__(self, data: MultimodalDataset) -> np.ndarray:
        parts = []
        for m, (name, rows) in enumerate(self._rows(data).items()):
            center, scale = self.facts[name]
            table = np.zeros((len(data), rows.shape[1]))
            table[data.present[:, m].numpy()] = (rows - center) / scale
            parts.append(table)
        return np.concatenate([*parts, data.present[:, self.gaps].numpy().astype(float)], axis=1)

    def _rows(self, data: MultimodalDataset) -> dict[str, np.ndarray]:
        return {
            name: column.take(column.present.nonzero().squeeze(1))[0].flatten(1).double().numpy()
            for name, column in data.columns.items()
        }


def complete_cases(data: MultimodalDataset, names: Sequence[str] | None = None) -> MultimodalDataset:
    """The samples that have all of some modalities (of all, when left out), with these alone.

    Raises:
        DataError: no sample has them all.
    """
    part = data if names is None else data.only(list(names))
    rows = part.present.all(1)
    if not bool(rows.any()):
        raise DataError(f"{data.name}: no sample has all of {', '.join(part.names)}, so they cannot be compared.")
    return part.select(rows)


def held_out(data: MultimodalDataset, share: float, seed: int) -> tuple[MultimodalDataset, MultimodalDataset]:
    """Samples to train on and samples to score on, stratified, by groups where there are any.

    Groups that are larger than what is still to be held out are trained on; where all are, the smallest is held out.

    Raises:
        ConfigError: a share outside (0, 1).
        DataError: too few samples or groups.
    """
    if not 0 < share < 1:
        raise ConfigError(f"test: expected the share of samples to hold out, in (0, 1), got {share!r}.")
    order = NestedSubsets(data, seed, by_group=data.groups is not None)
    chosen = order.fitting(max(1, round(share * len(data))))
    rest = np.setdiff1d(np.arange(len(data)), chosen)
    if not len(chosen) or len(rest) < 2:
        raise DataError(f"{data.name}: {crowd(data)} are too few to hold out {share:.0%} of them and train.")
    return data.select(rest), data.select(chosen)


def crowd(data: MultimodalDataset) -> str:
    """How many samples there are, and in how many groups that are not cut."""
    if data.groups is None:
        return f"{len(data)} samples"
    names, counts = np.unique(np.asarray(data.groups).astype(str), return_counts=True)
    if len(names) == 1:
        return f"{len(data)} samples of one group, {str(names[0])!r}, which is not cut,"
    largest = f"the largest is {str(names[counts.argmax()])!r} with {counts.max()} samples, and no group is cut"
    return f"{len(data)} samples in {len(names)} groups ({largest})"
