"""Multimodal learning when modalities are missing.

The public names are imported when they are first used, so that ``import lacunar`` and ``lacunar --help`` are quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "lacunar.lattice": ("Lattice", "Pairs"),
    "lacunar.sampling": ("sample_shapley",),
    "lacunar.tasks": ("Classification", "MultiLabel", "Regression", "Segmentation", "Task"),
    "lacunar.data.batch": ("Batch", "collate"),
    "lacunar.data.dataset": ("MultimodalDataset", "from_arrays"),
    "lacunar.data.frame": ("from_frame",),
    "lacunar.data.description": ("load_description", "load_splits"),
    "lacunar.data.presence": ("PresenceTable", "draw_presence"),
    "lacunar.data.splits": ("Splits",),
    "lacunar.models.multimodal": ("Features", "MultimodalModel"),
    "lacunar.models.defaults": ("default_model",),
    "lacunar.models.references": ("References",),
    "lacunar.objectives": ("MCE", "Joint", "ModalityDropout", "Objective"),
    "lacunar.training.references": ("references",),
    "lacunar.training.fit": ("Run", "fit", "load_run"),
    "lacunar.evaluation": ("SubsetTable", "evaluate"),
    "lacunar.models.saving": ("load", "save"),
    "lacunar.prediction": ("predict",),
}
_MODULES = ("data", "datasets", "errors", "evaluation", "models", "objectives", "report", "tasks", "training")
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME), *_MODULES]  # noqa: PLE0604

if TYPE_CHECKING:
    from lacunar.data.batch import Batch, collate
    from lacunar.data.dataset import MultimodalDataset, from_arrays
    from lacunar.lattice import Lattice, Pairs
    from lacunar.objectives import MCE, Joint, ModalityDropout, Objective
    from lacunar.training.fit import Run, fit, load_run


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
