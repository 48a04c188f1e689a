"""Inverse-probability weights for missingness that depends on what is observed, and a diagnosis of it."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.stats import norm
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from lacunar.data.dataset import MultimodalDataset
from lacunar.planning.equal_n import having
from lacunar.tasks.base import to_plain

__all__ = ["diagnose", "propensities"]

#: No sample counts more than 1 / LEAST times as much as one that is always observed.
LEAST = 0.02
#: So many principal components of the always-observed columns explain presence.
COMPONENTS = 10
#: A modality whose presence is predicted less well than this is not worth a warning, however sure it is.
SMALL_AUC = 0.55


def covariates(data: MultimodalDataset) -> tuple[np.ndarray, list[str]]:
    """What may explain presence: the target, and the columns of the modalities that every sample has.

    Returns:
        ``(N, K)`` standardised columns, and a name for each.
    """
    assert data.target is not None
    assert data.task is not None
    target = data.target.numpy()
    columns: list[np.ndarray] = []
    names: list[str] = []
    if data.task.kind == "classification":
        labels = data.task.decode(data.target)
        for code in np.unique(target):
            columns.append((target == code).astype(np.float64)[:, None])
            names.append(f"the target is {to_plain(labels[target == code][0])!r}")
    elif data.task.kind != "segmentation":
        flat = target.reshape(len(target), -1).astype(np.float64)
        columns.append(flat)
        names += (
            ["the target is large"] if flat.shape[1] == 1 else [f"target {k} is large" for k in range(flat.shape[1])]
        )
    for m, name in enumerate(data.names):
        if data.kinds[name] != "vector" or not bool(data.present[:, m].all()):
            continue
        batch = data.only([name]).__getitems__(range(len(data)))
        values = batch.inputs[name].numpy().astype(np.float64)
        if values.shape[1] > COMPONENTS:
            with threadpool_limits(1):
                values = PCA(min(COMPONENTS, len(values)), random_state=0).fit_transform(values)
            names += [f"component {k} of {name!r} is large" for k in range(values.shape[1])]
        else:
            names += [f"column {k} of {name!r} is large" for k in range(values.shape[1])]
        columns.append(values)
    made = np.concatenate(columns, axis=1) if columns else np.zeros((len(target), 0))
    spread = made.std(axis=0)
    keep = spread > 0
    return (made[:, keep] - made[:, keep].mean(axis=0)) / spread[keep], [n for n, k in zip(names, keep) if k]


def _cross_fitted(x: np.ndarray, observed: np.ndarray, seed: int) -> np.ndarray:
    """Chance of being observed, each sample's from a model that has not seen it, ``(N,)``."""
    rarest = int(min(observed.sum(), (~observed).sum()))
    if rarest < 2 or not x.shape[1]:
        return np.full(len(x), observed.mean())
    found = np.full(len(x), observed.mean())
    folds = StratifiedKFold(min(5, rarest), shuffle=True, random_state=seed)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for train, asked in folds.split(x, observed):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=500))
            found[asked] = model.fit(x[train], observed[train]).predict_proba(x[asked])[:, 1]
    return found


def propensities(data: MultimodalDataset, codes: list[int], seed: int = 0) -> dict[int, np.ndarray]:
    """For each subset the chance that a sample has all of it, given its target and its always-observed columns.

    Cross-fitted logistic regressions, clipped below at 0.02.

    Args:
        data: the pilot.
        codes: the subsets.
        seed: of the folds.

    Returns:
        ``(N,)`` for each code; 1 for subsets that every sample has.
    """
    x, _ = covariates(data)
    known: dict[bytes, np.ndarray] = {}
    found = {}
    for code in codes:
        observed = np.zeros(len(data), dtype=bool)
        observed[having(data, code)] = True
        key = np.packbits(observed).tobytes()
        if key not in known:
            known[key] = np.ones(len(data)) if observed.all() else _cross_fitted(x, observed, seed)
        found[code] = np.clip(known[key], LEAST, 1.0)
    return found


def diagnose(data: MultimodalDataset, seed: int = 0, confidence: float = 0.99) -> list[str]:
    """A sentence for each modality whose presence the target or what is always observed predicts.

    Its cross-fitted chance of being observed must rank observed above absent cells better than luck would, by the
    normal approximation of the rank statistic.
    """
    x, names = covariates(data)
    sentences = []
    for m, name in enumerate(data.names):
        observed = data.present[:, m].numpy()
        have, lack = int(observed.sum()), int((~observed).sum())
        if min(have, lack) < 5 or not x.shape[1]:
            continue
        auc = float(roc_auc_score(observed, _cross_fitted(x, observed, seed)))
        luck = np.sqrt((have + lack + 1) / (12 * have * lack))
        if auc < SMALL_AUC or auc < 0.5 + norm.ppf(confidence) * luck:
            continue
        gap = x[observed].mean(axis=0) - x[~observed].mean(axis=0)
        k = int(np.lexsort([gap, np.abs(gap).round(9)])[-1])  # of two classes, the one in which it is observed
        often = "more" if gap[k] > 0 else "less"
        sentences.append(
            f"modality {name!r} is observed {often} often when {names[k]} (presence can be predicted, AUC {auc:.2f}): "
            "scores on the samples that have it are not those of all samples"
        )
    return sentences
