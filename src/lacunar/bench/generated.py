"""Generated features beside real ones: a picture, and how well the two can be told apart (Fig. 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from lacunar.errors import ConfigError
from lacunar.models.multimodal import Features
from lacunar.objectives.generate_rest import GeneratingModel, fill_features
from lacunar.planning.protocol import ProtocolResult

__all__ = ["compare_generated"]

SAMPLES = 100


def compare_generated(result: ProtocolResult, arm: str, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Real features of test samples beside those generated from all other modalities.

    Args:
        result: of a protocol with a network.
        arm: one that generates.
        seed: of the choice of 100 samples and of the picture.

    Returns:
        ``numbers``: for each modality how often a linear classifier, cross-validated, tells generated from real
        features (0.5: not at all), the variance of the generated relative to the real, and the r2 of the generated
        against the real of the same sample. ``points``: t-SNE of 100 samples, real and generated, all modalities.

    Raises:
        ConfigError: an arm that generates nothing.
    """
    model = result.trained[arm].model
    if not isinstance(model, GeneratingModel):
        raise ConfigError(f"Arm {arm!r} generates no features: choose one with a generator and a network.")
    model.eval()
    with torch.no_grad():
        h = model.model.encode(result.test.__getitems__(range(len(result.test)))).h.flatten(2)
        everything, every_row = torch.ones(h.shape[:2], dtype=torch.bool), torch.arange(len(h))
        numbers, real, made = [], [], []
        for m, name in enumerate(model.names):
            seen = torch.ones(h.shape[:2], dtype=torch.bool)
            seen[:, m] = False
            generated = fill_features(model.generator, Features(h, everything).take(every_row, seen)).h[:, m]
            numbers.append({"modality": name, **_apart(h[:, m].numpy(), generated.numpy(), seed)})
            real.append(h[:, m].numpy())
            made.append(generated.numpy())
    rows = np.random.default_rng([seed, 31]).permutation(len(h))[:SAMPLES]
    stacked = np.concatenate([part[rows] for part in (*real, *made)])
    with threadpool_limits(1):
        placed = TSNE(2, init="pca", random_state=seed, perplexity=30, max_iter=500).fit_transform(stacked)
    kinds = [(name, kind) for kind in ("real", "generated") for name in model.names for _ in rows]
    points = [
        {"modality": name, "kind": kind, "x": round(float(x), 3), "y": round(float(y), 3)}
        for (name, kind), (x, y) in zip(kinds, placed)
    ]
    return {"numbers": numbers, "points": points}


def _apart(real: np.ndarray, made: np.ndarray, seed: int) -> dict[str, float]:
    scaled = StandardScaler().fit(real)
    a, b = scaled.transform(real), scaled.transform(made)
    labels = np.repeat([0, 1], [len(a), len(b)])
    model = LogisticRegression(C=0.1, max_iter=300)
    order = np.random.default_rng([seed, 37]).permutation(len(labels))
    with threadpool_limits(1):
        told = cross_val_score(model, np.concatenate([a, b])[order], labels[order], cv=5).mean()
    return {
        "told_apart": float(told),
        "variance": float(b.var(0).mean()),
        "r2": float(1 - ((a - b) ** 2).mean() / a.var(0).mean()),
    }
