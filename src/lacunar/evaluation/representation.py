"""How well the fused features separate the classes (Table 7 of MCE, with scale-free companions)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lacunar.arguments import checked
from lacunar.data.part import one_part
from lacunar.errors import DataError
from lacunar.evaluation.outputs import (
    DEFAULT_MEGABYTES,
    MemoryLimit,
    evaluation_mode,
    feasible_pairs,
    joint_model,
    subset_codes,
)
from lacunar.evaluation.target import target_for

__all__ = ["fused_features", "representation_metrics", "representation_quality"]

SILHOUETTE_SAMPLES = 2000


@checked
def representation_metrics(features: Any, labels: Any, seed: int = 0) -> dict[str, float]:
    """Compactness and separation of classes in a feature space.

    With class means ``mu_c``:

    * ``intra``: mean over classes of the mean distance of a class's samples to ``mu_c``; ``inter``: mean distance
      between two class means; ``ratio`` = intra / inter.
    * ``cosine``: mean over classes of the mean cosine of a class's samples with ``mu_c`` (cosine consistency);
      ``cosine_pairs``: the same between two different samples of a class.
    * ``intra_unit``, ``inter_unit``, ``ratio_unit``: the first three after each sample is scaled to length one.
      Absolute distances shrink with the features, these do not.
    * ``silhouette`` (of at most 2000 samples), ``fisher`` = trace of the between-class over trace of the within-class
      scatter, and ``norm``, the mean length of a feature vector, which tells shrinkage from separation.

    The paper gives no formulas; these reproduce the ratios that its table prints.

    Args:
        features: shape ``(N, F)``.
        labels: shape ``(N,)``.
        seed: of the samples that the silhouette is computed on.

    Returns:
        The figures by name; NaN where fewer than two classes, or no pair within a class, make them meaningless.

    Raises:
        DataError: shapes that do not fit, or features that are not finite.
    """
    z = np.asarray(features.detach().cpu() if isinstance(features, Tensor) else features, dtype=np.float64)
    y = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if z.ndim != 2 or y.shape != z.shape[:1] or not len(z):
        raise DataError(f"Expected features (N, F) and labels (N,), got {z.shape} and {y.shape}.")
    if not np.isfinite(z).all():
        raise DataError(f"Expected finite features, got {int((~np.isfinite(z)).any(axis=1).sum())} rows that are not.")
    length = np.linalg.norm(z, axis=1)
    unit = z / np.maximum(length, 1e-12)[:, None]
    _, which = np.unique(y, return_inverse=True)
    intra, inter = _distances(z, which)
    intra_unit, inter_unit = _distances(unit, which)
    cosine, cosine_pairs = _cosines(z, unit, which)
    return {
        "intra": intra,
        "inter": inter,
        "ratio": intra / inter if inter else np.nan,
        "cosine": cosine,
        "cosine_pairs": cosine_pairs,
        "intra_unit": intra_unit,
        "inter_unit": inter_unit,
        "ratio_unit": intra_unit / inter_unit if inter_unit else np.nan,
        "silhouette": _silhouette(z, which, seed),
        "fisher": _fisher(z, which),
        "norm": float(length.mean()),
    }


@checked
def representation_quality(
    model: Any,
    data: Any,
    subsets: Sequence[Any] | None = None,
    batch_size: int | None = None,
    memory: float | None = None,
) -> pd.DataFrame:
    """:func:`representation_metrics` of the fused features of a model.

    Args:
        model: a :class:`~lacunar.models.multimodal.MultimodalModel`, or a wrapper around one.
        data: samples with classes.
        subsets: the test conditions, as names or codes; every non-empty subset (a sample of them above 12
            modalities) when None.
        batch_size: samples per batch; ``data.rows_at_once`` when None.
        memory: bound in megabytes on what lives at once while subsets are decoded.

    Returns:
        Row ``"all"`` pools the conditions, as the paper's table does by default here; then one row per subset, each on
        the samples that have all of it, with ``n``.

    Raises:
        DataError: the target is not one class per sample.
    """
    data = one_part(data, "representation_quality", "data.test or data.val")
    model = joint_model(model)
    task = model.task or data.task
    if data.target is None or task is None or task.kind != "classification":
        raise DataError(f"Representation quality needs one class per sample, got {task or 'no target'}.")
    lattice = data.lattice
    codes = subset_codes(lattice)[0] if subsets is None else [lattice.index(subset) for subset in subsets]
    rows, found, fused = fused_features(model, data, codes, batch_size, memory)
    labels = target_for(task, data)[rows]
    frame = {"all": {"n": len(rows), **representation_metrics(fused, labels)}}
    for code in codes:
        chosen = found == code
        if chosen.any():
            metrics = representation_metrics(fused[chosen], labels[chosen])
            frame[lattice.label(code)] = {"n": int(chosen.sum()), **metrics}
    return pd.DataFrame.from_dict(frame, orient="index").rename_axis("subset")


def fused_features(
    model: Any, data: Any, codes: Sequence[int], batch_size: int | None = None, memory: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The head's input for all pairs of samples and subsets, spatial axes averaged.

    Returns:
        Positions in the data ``(P,)``, codes ``(P,)`` and features ``(P, F)``.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    device = next(model.parameters()).device
    limit, start = MemoryLimit(DEFAULT_MEGABYTES if memory is None else memory), 0
    with evaluation_mode(model):
        for batch in data.batches(batch_size):
            batch = batch.to(device)
            features = model.encode(batch)
            pairs = feasible_pairs(data.lattice, batch.present, codes)
            chunk = limit.chunk(pairs, partial(model.decode, features))
            (fused,) = model.read(features, pairs, lambda result: (_pooled(result.fused),), chunk)
            parts.append((pairs.rows.cpu() + start, pairs.codes.cpu(), fused.float().cpu()))
            start += len(batch)
    if not parts or not sum(len(part[0]) for part in parts):
        raise DataError(f"No sample has any of the {len(codes)} subsets of {data.names}.")
    rows, found, fused = (torch.cat(column) for column in zip(*parts))
    return rows, found, fused


def _pooled(fused: Tensor) -> Tensor:
    return fused.flatten(2).mean(2) if fused.ndim > 2 else fused


def _means_of(z: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts = np.bincount(which)
    sums = np.zeros((len(counts), z.shape[1]))
    np.add.at(sums, which, z)
    return sums / counts[:, None], counts


def _distances(z: np.ndarray, which: np.ndarray) -> tuple[float, float]:
    means, counts = _means_of(z, which)
    own = np.linalg.norm(z - means[which], axis=1)
    intra = float((np.bincount(which, weights=own) / counts).mean())
    if len(means) < 2:
        return intra, np.nan
    first, second = np.triu_indices(len(means), 1)
    return intra, float(np.linalg.norm(means[first] - means[second], axis=1).mean())


def _cosines(z: np.ndarray, unit: np.ndarray, which: np.ndarray) -> tuple[float, float]:
    means, counts = _means_of(z, which)
    direction = means / np.maximum(np.linalg.norm(means, axis=1), 1e-12)[:, None]
    to_mean = np.bincount(which, weights=(unit * direction[which]).sum(axis=1)) / counts
    # The mean over ordered pairs of two samples: |sum of units|^2 counts each sample with itself, too.
    total = np.square(_means_of(unit, which)[0] * counts[:, None]).sum(axis=1)
    own = np.bincount(which, weights=np.square(unit).sum(axis=1))
    several = counts > 1
    pairs = (total - own)[several] / (counts * (counts - 1))[several]
    return float(to_mean.mean()), float(pairs.mean()) if several.any() else np.nan


def _fisher(z: np.ndarray, which: np.ndarray) -> float:
    means, counts = _means_of(z, which)
    within = np.square(z - means[which]).sum()
    between = (counts * np.square(means - z.mean(axis=0)).sum(axis=1)).sum()
    return float(between / within) if within else np.nan


def _silhouette(z: np.ndarray, which: np.ndarray, seed: int) -> float:
    from sklearn.metrics import silhouette_score

    if len(z) > SILHOUETTE_SAMPLES:
        chosen = np.random.default_rng(seed).choice(len(z), SILHOUETTE_SAMPLES, replace=False)
        z, which = z[chosen], which[chosen]
    classes = len(np.unique(which))
    return float(silhouette_score(z, which)) if 2 <= classes < len(z) else np.nan
