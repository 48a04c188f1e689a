"""Score a model on every subset of modalities."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lacunar.arguments import at_least, checked
from lacunar.data.part import one_part
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.evaluation.metrics import measure, summarize
from lacunar.evaluation.outputs import evaluation_mode, subset_codes, subset_outputs
from lacunar.evaluation.table import SubsetTable
from lacunar.evaluation.target import target_for
from lacunar.models.configurable import Configurable
from lacunar.tasks import Task

__all__ = ["evaluate", "expert_scores"]

logger = logging.getLogger(__name__)


@checked
def evaluate(
    model: Any,
    data: Any,
    batch_size: int | None = None,
    *,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    memory: float | None = None,
    references: Any = None,
    common_rows: bool = False,
    resample: Literal["samples", "groups"] = "samples",
    probabilities: bool = False,
    task: Task | None = None,
    bins: int = 15,
    equal_mass: bool = False,
    max_subsets: int = 256,
) -> SubsetTable:
    """Score a model on every non-empty subset of modalities, each on the samples that have all of it.

    Args:
        model: a model of this library, anything with ``predict_pairs(batch, pairs)``, or any callable from a
            :class:`~lacunar.data.batch.Batch` to one raw output per sample; it is called with batches in which
            everything outside the subset is absent.
        data: the samples to score, with a target.
        batch_size: samples per batch; ``data.rows_at_once`` when None.
        bootstrap: resamples for the intervals.
        confidence: nominal coverage of the intervals.
        seed: of the resamples.
        memory: megabytes that may live at the same time while subsets are decoded (64 when None); encoder features
            of one batch come on top.
        references: frozen single-modality models, to see whether the model falls below one of them: what
            :func:`lacunar.references` gives, or their scores, ``(N, M)`` or by modality, NaN where absent.
        common_rows: score only the samples that have every modality, so that all subsets see the same ones.
        resample: ``"groups"`` resamples whole ``data.groups``, which is right when samples of one group depend on
            each other and there are many groups.
        probabilities: the model returns probabilities, not logits.
        task: what the outputs mean; the model's own task, or else that of the data, when None.
        bins, equal_mass: of the calibration error, see :func:`lacunar.evaluation.binned_calibration_error`.
        max_subsets: how many subsets to score when there are more than 12 modalities.

    Raises:
        DataError: the data have no target, no sample is left, or the model's outputs are NaN or of another shape.
    """
    data = one_part(data, "evaluate", "data.test or data.val")
    if data.target is None:
        raise DataError("Expected data with a target to score against, got none.")
    at_least(0, bootstrap=bootstrap, seed=seed)
    at_least(1, batch_size=batch_size, max_subsets=max_subsets, bins=bins)
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence: expected a share in (0, 1), such as 0.95, got {confidence!r}.")
    if task is not None and not isinstance(task, Task):
        raise ConfigError(f"task: expected a task such as lacunar.Classification(3), got {task!r}.")
    if resample not in ("samples", "groups"):
        raise ConfigError(f"resample: expected 'samples' or 'groups', got {resample!r}.")
    if resample == "groups" and data.groups is None:
        raise ConfigError("resample='groups' needs data with groups, got none.")
    task = task or getattr(model, "task", None) or data.task
    if common_rows:
        complete = data.present.all(dim=1)
        if not complete.any():
            raise DataError(f"common_rows: none of the {len(data)} samples has all modalities.")
        if references is not None and not hasattr(references, "predict"):
            references = _table_of(references, data.names, len(data))[complete.numpy()]
        data = data.select(complete)
    target = target_for(task, data)
    codes, _ = subset_codes(data.lattice, max_subsets, seed)
    known, notes = _measure_all(model, data, task, target, codes, batch_size, memory, probabilities)
    known[0], note = _measure_baseline(task, target)
    codes = [0, *codes]
    scores = np.full((len(data), len(codes)), np.nan, dtype=np.float32)
    metrics = []
    for column, code in enumerate(codes):
        rows, kept = known[code]
        scores[rows, column] = kept["score"]
        metrics.append(summarize(task, kept, target[torch.from_numpy(rows)].numpy(), bins, equal_mass))
    return SubsetTable(
        data.lattice, codes, scores, pd.DataFrame(metrics), data.ids,
        score_name=task.score_name, kind=task.kind, confidence=confidence, resamples=bootstrap, seed=seed,
        groups=data.groups if resample == "groups" else None,
        expert_scores=None if references is None else expert_scores(references, data, task, batch_size),
        generated=data.generated.numpy() if data.generated.any() else None,
        notes=[*note, *notes, *_notes_of(model)],
    )  # fmt: skip


def _notes_of(model: Any) -> list[str]:
    """What a model of this library wants the reader of its scores to know."""
    notes = getattr(model, "notes", ()) if isinstance(model, Configurable) else ()
    return [note for note in notes if isinstance(note, str)]


Kept = tuple[np.ndarray, dict[str, np.ndarray]]


def _measure_all(
    model: Any, data: Any, task: Task, target: Tensor, codes: list[int], batch_size: int | None,
    memory: float | None, probabilities: bool,
) -> tuple[dict[int, Kept], list[str]]:  # fmt: skip
    """For each code the rows that have it, and what is kept of their outputs."""
    positions, subsets, kept = [], [], []
    for rows, pair_codes, output in subset_outputs(model, data, codes, batch_size, memory):
        part = target[rows.cpu()].to(output.device)
        output = _checked(output, task, part, pair_codes, rows, data)
        if probabilities:
            output = task.from_probabilities(output)
        positions.append(rows.cpu().numpy())
        subsets.append(pair_codes.cpu().numpy())
        kept.append(measure(task, output, part))
    if not kept:
        raise DataError("Expected samples to score, got none.")
    row, subset = np.concatenate(positions), np.concatenate(subsets)
    columns = {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}
    order = np.argsort(subset, kind="stable")
    starts = np.searchsorted(subset[order], codes, side="left")
    ends = np.searchsorted(subset[order], codes, side="right")
    known = {}
    for code, start, end in zip(codes, starts, ends):
        which = order[start:end]
        known[code] = (row[which], {name: values[which] for name, values in columns.items()})
    nothing = int((~data.present.any(dim=1)).sum())
    notes = [f"{nothing} samples have nothing and count only for the baseline"] if nothing else []
    return known, notes


def _measure_baseline(task: Task, target: Tensor) -> tuple[Kept, list[str]]:
    prior, notes = task.prior, []
    if prior is None:
        prior = task.baseline(target)
        notes = ["the baseline is fitted on these very samples: the task was not fitted on a train split"]
    kept: list[dict[str, np.ndarray]] = []
    for start in range(0, len(target), 64):  # label maps are large
        part = target[start : start + 64]
        kept.append(measure(task, task.expand(prior, part), part))
    return (np.arange(len(target)), {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}), notes


def _checked(output: Tensor, task: Task, target: Tensor, codes: Tensor, rows: Tensor, data: Any) -> Tensor:
    expected = (len(target), task.n_outputs, *(target.shape[1:] if task.kind == "segmentation" else ()))
    if tuple(output.shape) != expected and not (task.kind == "regression" and output.numel() == target.numel()):
        raise DataError(f"The model's outputs for {task}: expected shape {expected}, got {tuple(output.shape)}.")
    broken = torch.isnan(output).reshape(len(output), -1).any(dim=1)
    if broken.any():
        first = int(broken.nonzero()[0])
        raise DataError(
            f"The model's output is NaN for {int(broken.sum())} of {len(output)} predictions; the first is sample "
            f"{data.ids[int(rows[first])]!r} with {data.lattice.label(int(codes[first]))}."
        )
    return output


def expert_scores(references: Any, data: Any, task: Task, batch_size: int | None = None) -> np.ndarray:
    """Scores of single-modality experts on a data set, NaN where their modality is absent, ``(N, M)``.

    Args:
        references: frozen models (``predict(batch)`` gives each modality's outputs for the rows that have it), or
            scores ``(N, M)``, or a mapping from modality to scores ``(N,)``.
        data: the samples.
        task: how their outputs are scored.
        batch_size: samples per batch; ``data.rows_at_once`` when None.
    """
    if not hasattr(references, "predict"):
        table = _table_of(references, data.names, len(data))
        return np.where(data.present.numpy(), table, np.nan).astype(np.float32)
    target = target_for(task, data)
    scores = np.full(tuple(data.present.shape), np.nan, dtype=np.float32)
    start = 0
    with evaluation_mode(references):
        for batch in data.batches(batch_size):
            outputs = references.predict(batch)
            for m, name in enumerate(data.names):
                rows = batch.rows(name)
                if name in outputs and len(rows):
                    where = rows + start
                    scores[where.numpy(), m] = task.score(outputs[name].cpu(), target[where]).numpy()
            start += len(batch)
    return scores


def _table_of(scores: Any, names: tuple[str, ...], count: int) -> np.ndarray:
    if isinstance(scores, str) or not hasattr(scores, "__len__"):
        raise DataError(f"references: expected references, or scores by sample and modality, got {scores!r}.")
    if isinstance(scores, Mapping):
        for name in scores:
            if name not in names:
                raise DataError(f"references: unknown modality {name!r}.{did_you_mean(name, names)}")
        missing = np.full(count, np.nan)
        scores = np.column_stack([np.asarray(scores.get(name, missing), dtype=np.float64) for name in names])
    table = np.asarray(scores, dtype=np.float64)
    if table.shape != (count, len(names)):
        raise DataError(f"references: expected scores of shape {(count, len(names))}, got {table.shape}.")
    return table
