"""What each encoder of a trained model still knows by itself (Fig. 9 of MCE), and how that grew (Fig. 8)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from lacunar.arguments import above, at_least, checked
from lacunar.data.splits import PARTS, Splits
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.evaluation.outputs import evaluation_mode, joint_model
from lacunar.evaluation.target import target_for
from lacunar.tasks import Regression, Task

__all__ = ["capability", "capability_trajectory", "encoder_features"]

HEADS = ("linear", "mlp")


class _Part(NamedTuple):
    features: Tensor
    target: Tensor


@checked
def capability(
    model: Any,
    splits: Any,
    *,
    complete: Any = None,
    heads: Sequence[str] = HEADS,
    seeds: int = 3,
    epochs: int = 20,
    min_steps: int = 500,
    batch_size: int = 128,
    lr: float | None = None,
    hidden: int = 128,
    part: str = "test",
) -> pd.DataFrame:
    """Probe every encoder: freeze it, train a new head on its features alone, and score that head.

    Features are computed once and standardised with their train statistics. A head is trained with Adam and kept at
    the epoch with the best validation score. The model is left as it was, completion takes no part.

    Args:
        model: a trained :class:`~lacunar.models.multimodal.MultimodalModel`, or a wrapper around one.
        splits: train, validation and test parts. Only rows that have the modality are used (``observed``).
        complete: splits of the same data before cells were hidden; adds probes that are trained and selected on
            every row there (``complete``). Both are scored on the same rows of ``splits``.
        heads: ``"linear"``, ``"mlp"`` (one hidden layer) or both.
        seeds: how many times each head is trained.
        epochs: passes over the train rows; more when they would be fewer than ``min_steps`` steps.
        min_steps: smallest number of steps.
        batch_size: rows per step.
        lr: learning rate; 0.01 for linear heads, which are convex, and 0.001 for the others when None.
        hidden: width of the hidden layer.
        part: what to score on, ``"test"`` or ``"val"``; the latter chose the heads, too, and scores them somewhat too
            high, the more so the fewer of its samples have a modality.

    Returns:
        One row per modality, training rows and head: ``score`` (mean over seeds), ``std`` over seeds, ``scores`` (one
        per seed), ``baseline`` (the best constant), ``n_train`` and ``n`` (rows scored).

    Raises:
        DataError: the part has no target or no row with a modality.
    """
    if isinstance(heads, str) or not isinstance(heads, Iterable):
        raise ConfigError(f"heads: expected some of {HEADS}, such as ('linear',), got {heads!r}.")
    for head in heads:
        if head not in HEADS:
            raise ConfigError(f"heads: expected 'linear' or 'mlp', got {head!r}.")
    at_least(1, seeds=seeds, epochs=epochs, batch_size=batch_size, hidden=hidden)
    above(0, lr=lr)
    if part not in PARTS:
        raise ConfigError(f"part: unknown part {part!r}.{did_you_mean(str(part), PARTS)}")
    for given in (splits, splits if complete is None else complete):
        if not isinstance(given, Splits):
            raise DataError(
                "Probes train on one part and score on another: expected splits, such as data.split(train=0.6, "
                f"val=0.2, test=0.2), got {type(given).__name__}."
            )
    model = joint_model(model)
    scored = getattr(splits, part, None)
    if scored is None:
        raise DataError(f"The splits have no {part} part to score the probes on.")
    task = getattr(model, "task", None) or splits.task
    if task is None:
        raise DataError("Probes need a target, got splits without one.")
    if task.prior is None:
        task = task.copy().fit(target_for(task, splits.train))
    sources = {"observed": splits} | ({} if complete is None else {"complete": complete})
    rows = []
    for name in model.names:
        exam = encoder_features(model, scored, name, task)
        for trained_on, source in sources.items():
            train = encoder_features(model, source.train, name, task)
            val = encoder_features(model, source.val, name, task)
            facts = {"modality": name, "rows": trained_on}
            baseline = task.expand(task.baseline(train.target), exam.target)
            for head in heads:
                scores = [
                    _probe(train, val, exam, task, head, seed, epochs, min_steps, batch_size, lr, hidden)
                    for seed in range(seeds)
                ]
                spread = float(np.std(scores, ddof=1)) if seeds > 1 else np.nan
                rows.append(
                    facts
                    | {"head": head, "score": float(np.mean(scores)), "std": spread, "scores": scores}
                    | {"baseline": float(task.score(baseline, exam.target).mean())}
                    | {"n_train": len(train.target), "n": len(exam.target)}
                )
    return pd.DataFrame(rows).set_index(["modality", "rows", "head"])


@checked
def capability_trajectory(
    snapshots: Mapping[Any, Any] | Iterable[tuple[Any, Any]],
    splits: Any,
    model: Any = None,
    *,
    heads: Sequence[str] = ("linear",),
    seeds: int = 1,
    part: str = "val",
    **options: Any,
) -> pd.DataFrame:
    """:func:`capability` of the encoders at several times during training.

    Args:
        snapshots: from epoch to model, or to its ``state_dict``; an iterable of pairs is read one at a time, so that
            snapshots may be loaded from disk as they are needed.
        splits: as for :func:`capability`.
        model: the model that the state dicts are of; it is copied, not changed.
        heads, seeds, part, options: as for :func:`capability`. Curves are drawn on the validation part unless asked
            otherwise, since looking at them is a kind of selection.

    Returns:
        The frames of all snapshots below each other, with ``epoch`` as the first level of the index.
    """
    pairs = snapshots.items() if isinstance(snapshots, Mapping) else snapshots
    shell = None if model is None else copy.deepcopy(model)
    frames = {}
    for epoch, snapshot in pairs:
        if isinstance(snapshot, nn.Module):
            current = snapshot
        elif shell is None:
            raise ConfigError("Snapshots that are state dicts need model=, the model they are of.")
        else:
            shell.load_state_dict(snapshot)
            current = shell
        frames[epoch] = capability(current, splits, heads=heads, seeds=seeds, part=part, **options)
    if not frames:
        raise DataError("Expected at least one snapshot, got none.")
    return pd.concat(frames, names=["epoch"])


def encoder_features(model: Any, data: Any, name: str, task: Task, batch_size: int | None = None) -> _Part:
    """Features of one modality, of the rows that have it: ``(n, C)``, or ``(n, C, *spatial)`` for label maps."""
    if data.target is None:
        raise DataError("Probes need a target, got data without one.")
    rows = data.present[:, data.names.index(name)].nonzero().squeeze(1)
    if not len(rows):
        raise DataError(f"Probes: no row has the modality {name!r}.")
    target = target_for(task, data)[rows]
    device = next(model.parameters()).device
    m, found = model.names.index(name), []
    with evaluation_mode(model):
        for batch in data.select(rows).batches(batch_size):
            features = model.encode(batch.hide([name]).to(device)).h[:, m].float().cpu()
            dense = task.kind == "segmentation"
            found.append(features if dense or features.ndim == 2 else features.flatten(2).mean(2))
    return _Part(torch.cat(found), target)


class _Head(nn.Module):
    """A linear head or one with a hidden layer, at every place of a feature map; scaled to the target's places."""

    def __init__(self, width: int, outputs: int, kind: str, hidden: int, centre: Tensor, spread: Tensor):
        super().__init__()
        layers = [nn.Linear(width, outputs)]
        if kind == "mlp":
            layers = [nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, outputs)]  # type: ignore[list-item]
        self.layers = nn.Sequential(*layers)
        self.centre, self.spread = centre, spread
        # Numbers in the user's units may be far from zero and widely spread.
        self.offset: Tensor | float = 0.0
        self.scale: Tensor | float = 1.0

    def forward(self, features: Tensor, places: Sequence[int]) -> Tensor:
        output = self.layers((features.movedim(1, -1) - self.centre) / self.spread)
        output = (self.offset + self.scale * output).movedim(-1, 1)
        if len(places) and tuple(output.shape[2:]) != tuple(places):
            mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(places)]
            output = functional.interpolate(output, size=tuple(places), mode=mode, align_corners=False)
        return output


def _probe(
    train: _Part, val: _Part, exam: _Part, task: Task, kind: str, seed: int, epochs: int, min_steps: int,
    batch_size: int, lr: float | None, hidden: int,
) -> float:  # fmt: skip
    """Score on ``exam`` of one head, trained on ``train`` and selected on ``val``."""
    spread, centre = torch.std_mean(train.features.movedim(1, -1).flatten(0, -2), dim=0, correction=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = _Head(train.features.shape[1], task.n_outputs, kind, hidden, centre, spread.clamp_min(1e-6))
    if isinstance(task, Regression) and task.std is not None:
        head.offset, head.scale = task.baseline(train.target), task.std
    optimizer = torch.optim.Adam(head.parameters(), lr=lr or (1e-2 if kind == "linear" else 1e-3))
    generator = torch.Generator().manual_seed(seed)
    count = len(train.target)
    epochs = max(epochs, -(-min_steps // -(-count // batch_size)))
    best, best_state = (-np.inf, -np.inf), copy.deepcopy(head.state_dict())
    for _ in range(epochs):
        for chosen in torch.randperm(count, generator=generator).split(batch_size):
            loss = _loss(head, train, task, chosen).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        reached = _exam(head, val, task, batch_size)
        if reached > best:
            best, best_state = reached, copy.deepcopy(head.state_dict())
    head.load_state_dict(best_state)
    return _exam(head, exam, task, batch_size)[0]


def _loss(head: _Head, part: _Part, task: Task, chosen: Tensor) -> Tensor:
    target = part.target[chosen]
    places = target.shape[1:] if task.kind == "segmentation" else ()
    return task.loss(head(part.features[chosen], places), target)


@torch.no_grad()
def _exam(head: _Head, part: _Part, task: Task, batch_size: int) -> tuple[float, float]:
    """Mean score, and minus the mean loss to tell equal scores apart."""
    scores, losses = [], []
    for chosen in torch.arange(len(part.target)).split(max(batch_size, 256) if task.kind != "segmentation" else 8):
        target = part.target[chosen]
        output = head(part.features[chosen], target.shape[1:] if task.kind == "segmentation" else ())
        scores.append(task.score(output, target))
        losses.append(task.loss(output, target))
    return float(torch.cat(scores).mean()), -float(torch.cat(losses).mean())
