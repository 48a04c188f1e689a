"""The quick models that ``lacunar plan`` offers beside the library's own network."""

from __future__ import annotations

import importlib
from typing import Any

from lacunar.errors import ConfigError, did_you_mean

__all__ = ["MODELS", "boosted_trees", "chosen_model", "linear_model"]

#: What ``--model`` may be, beside package.module.function.
MODELS = ("auto", "linear", "boosting", "default")
#: Kinds of modalities that are columns once they are laid side by side, and tasks with one label or number a sample.
COLUMNS, TASKS = ("vector", "image", "volume"), ("classification", "regression")


def linear_model(data: Any) -> Any:
    """Logistic regression, or ridge regression with its penalty cross-validated, on standardised columns."""
    from sklearn.linear_model import LogisticRegression, RidgeCV

    if data.task.kind == "regression":
        return RidgeCV(alphas=[0.1, 1.0, 10.0, 100.0, 1000.0])
    return LogisticRegression(C=0.05, max_iter=500)


def boosted_trees(data: Any) -> Any:
    """Gradient-boosted trees, with leaves that small pilots can fill."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if data.task.kind == "regression" else HistGradientBoostingClassifier
    return kind(max_iter=60, max_leaf_nodes=8, min_samples_leaf=5, l2_regularization=1.0, early_stopping=False)


def chosen_model(name: str, data: Any) -> Any:
    """What makes the models of a plan; None for the library's own network.

    Args:
        name: one of :data:`MODELS`, or ``package.module.function``.
        data: what is planned for.

    Raises:
        ConfigError: an unknown name, or a model that the data do not suit.
    """
    if name not in MODELS:
        return _imported(name)
    whole = data.train if hasattr(data, "parts") else data
    odd = [modality for modality, kind in whole.kinds.items() if kind not in COLUMNS]
    task = "" if whole.task is None else whole.task.kind
    suits = not odd and task in TASKS
    if name == "default" or (name == "auto" and not suits):
        return None
    if not suits:
        what = f"{odd[0]!r} is no vector or image" if odd else f"the task is {task or 'not known: there is no target'}"
        raise ConfigError(f"--model {name} learns from columns, one class or number each; {what}. Use --model default.")
    return boosted_trees if name == "boosting" else linear_model


def _imported(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    if not module:
        raise ConfigError(f"--model: unknown model {name!r}.{did_you_mean(name, MODELS)}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"--model {name}: cannot be imported ({error}).") from error
