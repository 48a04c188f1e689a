"""Training in two stages: on what is owned, with the generator, then also on what was bought (SK-LL, section 3.3).

Arms are compared fairly: within a seed all start from the same weights, make the same number of optimiser steps with
batches of the same size, and are never selected on data that others do not have. Fewer samples are seen more often.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from lacunar import generation
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError, did_you_mean
from lacunar.generation.completed import Completed
from lacunar.models.defaults import default_model
from lacunar.objectives.base import Objective
from lacunar.objectives.generate_rest import GenerateRest
from lacunar.objectives.joint import Joint
from lacunar.objectives.modality_dropout import ModalityDropout
from lacunar.planning.arms import Arm
from lacunar.planning.linear import LinearModel
from lacunar.training.fit import fit

__all__ = ["BACKBONES", "Trained", "Training", "train_arm"]

BACKBONES = ("default", "mult", "linear")
DENSE = ("vector", "image", "volume")


@dataclass(frozen=True)
class Training:
    """How every arm of a comparison is trained.

    Attributes:
        backbone: ``"default"``, the network of :func:`lacunar.default_model`; ``"mult"``, the multimodal transformer;
            or ``"linear"``, which has no stages.
        model: arguments of the backbone.
        steps: optimiser steps of an arm, over its stages together.
        second: share of the steps that the second stage has.
        batch_size: samples in a step.
        lr: highest learning rate of the first stage.
        lr2: of the second; the same when left out.
        epochs: validations in a stage, where ``select`` is ``"best"``.
        select: ``"last"`` takes the averaged weights at the end, so that validation labels are not needed; ``"best"``
            the best by the validation mean over subsets.
        generator: arguments of the flow, see :class:`lacunar.generation.flow_transfer.FlowTransfer`.
        alpha, reconstruct, hide: see :class:`GenerateRest`.
        dropout: rate of modality dropout, in the arm that has it.
        completer: what ``"generator"`` means where there is no network: the name of a completer.
        space: complete ``"values"`` or ``"features"`` inside the network; by the kinds of modality when left out.
    """

    backbone: str = "default"
    model: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 300
    second: float = 0.5
    batch_size: int = 32
    lr: float = 3e-3
    lr2: float | None = None
    epochs: int = 1
    select: str = "last"
    generator: Mapping[str, Any] = field(default_factory=dict)
    alpha: float = 0.1
    reconstruct: float = 0.0
    hide: float = 0.3
    dropout: float = 0.3
    completer: str = "ridge"
    space: str | None = None

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise ConfigError(f"backbone: unknown {self.backbone!r}.{did_you_mean(self.backbone, BACKBONES)}")
        if self.space not in (None, "values", "features"):
            raise ConfigError(f"space: expected 'values' or 'features', got {self.space!r}.")
        if not 0 < self.second < 1:
            raise ConfigError(f"second: expected a share of the steps in (0, 1), got {self.second}.")
        for name in ("steps", "batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected a whole number of at least 1, got {getattr(self, name)}.")

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Training:
        """From a mapping, as recipes have it.

        Raises:
            ConfigError: an unknown key.
        """
        known = cls.__dataclass_fields__
        for key in given:
            if key not in known:
                raise ConfigError(f"training: unknown key {key!r}.{did_you_mean(key, known)}")
        return cls(**given)


@dataclass(frozen=True)
class Trained:
    """What came out.

    Attributes:
        model: predicts from any subset, the rest completed as the arm completes it.
        steps: optimiser steps made; 0 for the linear model.
        trainings: networks or linear models fitted.
        seconds: processor time of everything.
        unused: parameters that had no part in any prediction of this arm.
    """

    model: nn.Module
    steps: int
    trainings: int
    seconds: float
    unused: int = 0


def train_arm(
    arm: Arm,
    owned: MultimodalDataset,
    everything: MultimodalDataset,
    val: MultimodalDataset,
    training: Training | None = None,
    seed: int = 0,
    make_model: Callable[[MultimodalDataset], nn.Module] | None = None,
) -> Trained:
    """Train one arm.

    Args:
        arm: what is completed, and in how many stages.
        owned: the complete samples that there were, D.
        everything: D and what was bought; what was not bought is not in it.
        val: validation samples, which decide only if ``training.select`` says so.
        training: settings that all arms share.
        seed: of initial weights, batches and completers, shared by all arms.
        make_model: another backbone: from D, of which it may read the statistics, to a model.
    """
    training = training or Training()
    began = time.process_time()
    if training.backbone == "linear" and make_model is None:
        return _linear(arm, owned, everything, training, seed, began)
    torch.manual_seed(seed)
    model: Any = make_model(owned) if make_model is not None else _backbone(owned, training)
    kind = arm.completion
    space = training.space or ("values" if set(owned.kinds.values()) <= set(DENSE) else "features")
    predictor: nn.Module
    if arm.stages == 1:
        _stage(model, everything, val, Joint(), training, training.steps, seed, training.lr)
        return Trained(model, training.steps, 1, time.process_time() - began)
    second = max(1, round(training.second * training.steps))
    first, lr2 = max(1, training.steps - second), training.lr2 or training.lr
    plain: Callable[[], Objective] = (lambda: ModalityDropout(training.dropout)) if arm.dropout else Joint
    if kind == "generator":
        torch.manual_seed(seed + 1)
        objective = GenerateRest(_flow(owned, model, training), training.alpha, training.reconstruct, training.hide)
        _stage(model, owned, val, objective, training, first, seed, training.lr)
        frozen = GenerateRest(objective.generator, 0.0, 0.0, training.hide, frozen=True)
        predictor = _stage(model, everything, val, frozen, training, second, seed + 1, lr2)
        unused = 0 if bool((~everything.present).any()) or training.hide > 0 else _size(objective.generator)
        return Trained(predictor, training.steps, 2, time.process_time() - began, unused)
    _stage(model, owned, val, plain(), training, first, seed, training.lr)
    if kind == "none":
        predictor = _stage(model, everything, val, plain(), training, second, seed + 1, lr2)
    elif space == "values":
        completer = generation.get(kind)(seed=seed).fit(owned)
        filled = completer.complete(everything)
        predictor = Completed(_stage(model, filled, val, Joint(), training, second, seed + 1, lr2), completer)
    else:
        inside = generation.get(kind)(seed=seed).fit(owned, model)
        objective = GenerateRest(inside, 0.0, 0.0, 0.0, frozen=True)
        predictor = _stage(model, everything, val, objective, training, second, seed + 1, lr2)
    return Trained(predictor, training.steps, 2, time.process_time() - began)


def _linear(
    arm: Arm, owned: MultimodalDataset, everything: MultimodalDataset, training: Training, seed: int, began: float
) -> Trained:
    """The same arms without stages: complete, then fit."""
    options = dict(training.model)
    if arm.dropout:
        options["dropout"] = training.dropout
    kind = training.completer if arm.completion == "generator" else arm.completion
    if kind == "none":
        model: nn.Module = LinearModel(everything, seed=seed, **options)
    else:
        completer = generation.get(kind)(seed=seed).fit(owned)
        model = Completed(LinearModel(completer.complete(everything), seed=seed, **options), completer)
    return Trained(model, 0, 1, time.process_time() - began)


def _backbone(owned: MultimodalDataset, training: Training) -> nn.Module:
    if training.backbone == "mult":
        from lacunar.models.mult import MulT

        return MulT.for_data(owned, **training.model)
    return default_model(owned, **training.model)


def _flow(owned: MultimodalDataset, model: Any, training: Training) -> nn.Module | None:
    """The flow with its arguments; None leaves it to the objective."""
    if not training.generator:
        return None
    from lacunar.generation.flow_prior import class_bins
    from lacunar.generation.flow_transfer import FlowTransfer

    with torch.no_grad():
        shape = model.eval().encode(owned[0]).h.shape
    model.train()
    _, classes = class_bins(owned.target, len(owned))
    return FlowTransfer(shape[2], shape[1], classes, **training.generator)


def _stage(
    model: Any,
    data: MultimodalDataset,
    val: MultimodalDataset,
    objective: Objective,
    training: Training,
    steps: int,
    seed: int,
    lr: float,
) -> nn.Module:
    """One stage, with an optimiser of its own, of exactly ``steps`` steps."""
    epochs = min(training.epochs, steps) if training.select == "best" else 1
    repeated = repeat(data, -(-steps // epochs) * training.batch_size, seed)
    run = fit(
        Splits(repeated, val), model, objective,
        max_epochs=epochs, batch_size=training.batch_size, lr=lr, seed=seed, select=training.select,
        experts=False, progress=False,
    )  # fmt: skip
    return run.model


def repeat(data: MultimodalDataset, count: int, seed: int = 0) -> MultimodalDataset:
    """The samples again and again until there are ``count``, each as often as any other up to one.

    The copies have ids of their own, and keep the row of the sample.
    """
    order = np.random.default_rng([seed, 23]).permutation(len(data))
    rows = np.resize(order, count)
    copies = data.select(rows)
    copies.ids = np.array([f"{name}#{n}" for n, name in enumerate(copies.ids)], dtype=object)
    return copies


def _size(module: nn.Module | None) -> int:
    return 0 if module is None else sum(weight.numel() for weight in module.parameters())
