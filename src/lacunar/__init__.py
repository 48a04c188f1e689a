"""Multimodal learning when modalities are missing.

The public names are imported when they are first used, so that ``import lacunar`` and ``lacunar --help`` are quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "lacunar.lattice": ("Lattice", "Pairs"),
    "lacunar.sampling": ("ShapleyEstimate", "sample_shapley"),
    "lacunar.tasks": ("Classification", "MultiLabel", "Regression", "Segmentation", "Task"),
    "lacunar.data.batch": ("Batch", "collate"),
    "lacunar.data.arrays": ("from_arrays",),
    "lacunar.data.dataset": ("MultimodalDataset",),
    "lacunar.data.frame": ("from_frame",),
    "lacunar.data.description": ("Description", "load_description", "load_splits"),
    "lacunar.data.readers": ("register_reader",),
    "lacunar.data.presence": ("PresenceTable", "draw_presence", "observed_presence"),
    "lacunar.data.splits": ("Splits",),
    "lacunar.data.splitting": ("make_folds", "make_splits"),
    "lacunar.models.multimodal": ("Features", "MultimodalModel"),
    "lacunar.models.mult": ("MulT",),
    "lacunar.models.defaults": ("default_model",),
    "lacunar.models.references": ("References",),
    "lacunar.objectives": ("MCE", "Joint", "ModalityDropout", "Objective"),
    "lacunar.generation": (
        "Completed", "Completer", "DiffusionCompleter", "FlowCompleter", "KNNCompleter", "MeanCompleter",
        "PatternBank", "RidgeCompleter", "ZeroCompleter", "abstain", "filling_benefit",
    ),
    "lacunar.planning.utility_table": ("UtilityTable",),
    "lacunar.planning.utilities": ("utilities",),
    "lacunar.planning.reliance": ("permuted_utilities", "replaced_utilities"),
    "lacunar.planning.ranking": ("Ranking", "rank"),
    "lacunar.planning.selection": ("Selection", "select"),
    "lacunar.planning.costs": ("CostModel",),
    "lacunar.planning.pool": ("Pool",),
    "lacunar.planning.curves": ("learning_curves",),
    "lacunar.planning.rehearsal": ("rehearse",),
    "lacunar.planning.plan": ("plan",),
    "lacunar.planning.result": ("Plan",),
    "lacunar.planning.backtest": ("Backtest", "backtest"),
    "lacunar.training.references": ("references",),
    "lacunar.training.fit": ("fit",),
    "lacunar.training.run": ("Run", "load_run"),
    "lacunar.prediction": ("predict",),
    "lacunar.evaluation": ("SubsetTable", "evaluate"),
    "lacunar.models.saving": ("load", "save"),
}  # fmt: skip
_MODULES = (
    "data", "datasets", "errors", "evaluation", "generation", "models", "objectives", "planning", "report", "tasks",
    "training",
)  # fmt: skip
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME), *_MODULES]

if TYPE_CHECKING:
    from lacunar.data.arrays import from_arrays as from_arrays
    from lacunar.data.batch import Batch as Batch
    from lacunar.data.batch import collate as collate
    from lacunar.data.dataset import MultimodalDataset as MultimodalDataset
    from lacunar.data.description import Description as Description
    from lacunar.data.description import load_description as load_description
    from lacunar.data.description import load_splits as load_splits
    from lacunar.data.frame import from_frame as from_frame
    from lacunar.data.presence import PresenceTable as PresenceTable
    from lacunar.data.presence import draw_presence as draw_presence
    from lacunar.data.presence import observed_presence as observed_presence
    from lacunar.data.readers import register_reader as register_reader
    from lacunar.data.splits import Splits as Splits
    from lacunar.data.splitting import make_folds as make_folds
    from lacunar.data.splitting import make_splits as make_splits
    from lacunar.evaluation import SubsetTable as SubsetTable
    from lacunar.evaluation import evaluate as evaluate
    from lacunar.generation import Completed as Completed
    from lacunar.generation import Completer as Completer
    from lacunar.generation import DiffusionCompleter as DiffusionCompleter
    from lacunar.generation import FlowCompleter as FlowCompleter
    from lacunar.generation import KNNCompleter as KNNCompleter
    from lacunar.generation import MeanCompleter as MeanCompleter
    from lacunar.generation import PatternBank as PatternBank
    from lacunar.generation import RidgeCompleter as RidgeCompleter
    from lacunar.generation import ZeroCompleter as ZeroCompleter
    from lacunar.generation import abstain as abstain
    from lacunar.generation import filling_benefit as filling_benefit
    from lacunar.lattice import Lattice as Lattice
    from lacunar.lattice import Pairs as Pairs
    from lacunar.models.defaults import default_model as default_model
    from lacunar.models.mult import MulT as MulT
    from lacunar.models.multimodal import Features as Features
    from lacunar.models.multimodal import MultimodalModel as MultimodalModel
    from lacunar.models.references import References as References
    from lacunar.models.saving import load as load
    from lacunar.models.saving import save as save
    from lacunar.objectives import MCE as MCE
    from lacunar.objectives import Joint as Joint
    from lacunar.objectives import ModalityDropout as ModalityDropout
    from lacunar.objectives import Objective as Objective
    from lacunar.planning.backtest import Backtest as Backtest
    from lacunar.planning.backtest import backtest as backtest
    from lacunar.planning.costs import CostModel as CostModel
    from lacunar.planning.curves import learning_curves as learning_curves
    from lacunar.planning.plan import plan as plan
    from lacunar.planning.pool import Pool as Pool
    from lacunar.planning.ranking import Ranking as Ranking
    from lacunar.planning.ranking import rank as rank
    from lacunar.planning.rehearsal import rehearse as rehearse
    from lacunar.planning.reliance import permuted_utilities as permuted_utilities
    from lacunar.planning.reliance import replaced_utilities as replaced_utilities
    from lacunar.planning.result import Plan as Plan
    from lacunar.planning.selection import Selection as Selection
    from lacunar.planning.selection import select as select
    from lacunar.planning.utilities import utilities as utilities
    from lacunar.planning.utility_table import UtilityTable as UtilityTable
    from lacunar.prediction import predict as predict
    from lacunar.sampling import ShapleyEstimate as ShapleyEstimate
    from lacunar.sampling import sample_shapley as sample_shapley
    from lacunar.tasks import Classification as Classification
    from lacunar.tasks import MultiLabel as MultiLabel
    from lacunar.tasks import Regression as Regression
    from lacunar.tasks import Segmentation as Segmentation
    from lacunar.tasks import Task as Task
    from lacunar.training.fit import fit as fit
    from lacunar.training.references import references as references
    from lacunar.training.run import Run as Run
    from lacunar.training.run import load_run as load_run


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
