"""What a finished training run is, and how to read one back from its folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import nn

from lacunar.errors import RunError
from lacunar.training.files import read_json
from lacunar.training.log import read_lines
from lacunar.training.snapshots import Snapshots

if TYPE_CHECKING:
    from lacunar.models.references import References
    from lacunar.objectives.base import Objective

__all__ = ["Run", "load_run"]


@dataclass(eq=False)
class Run:
    """A finished training run.

    Attributes:
        model: the model that predicts, with the selected weights.
        objective: the objective it was trained by; None when the run was read from its folder.
        folder: where the run is stored; None when it is not.
        best_epoch: the epoch with the best validation score, from 0.
        best_score: validation mean over subsets in that epoch.
        best_loss: the same of the loss.
        epochs: how many epochs were trained.
        seconds: how long they took, those before an interruption included.
        config: what was asked, as stored in ``config.json``.
        references: the frozen single-modality models, if the objective needs them.
        snapshots: from epoch to the ``state_dict`` that the joint model had then, for those that were kept;
            :func:`lacunar.evaluation.capability_trajectory` takes them.
    """

    model: nn.Module
    objective: Objective | None
    folder: Path | None
    best_epoch: int
    best_score: float
    best_loss: float
    epochs: int
    seconds: float
    config: dict[str, Any]
    references: References | None = None
    lines: list[dict[str, Any]] = field(default_factory=list, repr=False)
    snapshots: Snapshots = field(default_factory=Snapshots)

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch: means of loss terms and diagnostics, ``val/score``, ``val/loss``, ``val/score/a+b``."""
        return self._table("epoch").set_index("epoch")

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row per step: ``epoch``, ``lr``, ``loss``, ``loss/<term>`` and diagnostics such as ``phi/<modality>``."""
        return self._table("step").set_index("step")

    def _table(self, kind: str) -> pd.DataFrame:
        lines = self.lines if self.folder is None else read_lines(self.folder / "log.jsonl")
        chosen = [line for line in lines if line["kind"] == kind]
        if not chosen:
            return pd.DataFrame({kind: []})
        return pd.DataFrame(chosen).drop(columns="kind")

    def __str__(self) -> str:
        where = f" in {self.folder}" if self.folder else ""
        return (
            f"{self.epochs} epochs in {self.seconds:.1f} s{where}; best epoch {self.best_epoch + 1}: "
            f"validation mean over subsets {self.best_score:.4f}"
        )


def load_run(folder: str | os.PathLike[str], model: nn.Module | None = None) -> Run:
    """A finished run from its folder.

    Args:
        folder: the ``out`` of :func:`lacunar.fit`.
        model: of the same classes as ``run.model``, when they cannot be found by their names.

    Raises:
        RunError: when the folder holds no run, or an unfinished one.
    """
    home = Path(folder)
    if not (home / "config.json").exists():
        raise RunError(f"{home} is not the folder of a run: it holds no config.json.")
    if not (home / "result.json").exists():
        raise RunError(f"The run in {home} is unfinished: run the command that began it again to go on.")
    from lacunar.models.saving import load_model

    result = read_json(home / "result.json")
    references = None
    if (home / "references").exists():
        from lacunar.models.references import References

        references = References.load(home / "references")
    return Run(
        model=load_model(home / "model", model=model),
        objective=None,
        folder=home,
        config=read_json(home / "config.json"),
        references=references,
        snapshots=Snapshots(home / "snapshots"),
        **{name: result[name] for name in ("best_epoch", "best_score", "best_loss", "epochs", "seconds")},
    )
