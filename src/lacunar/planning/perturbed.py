"""Outputs of one trained model on samples some of whose modalities are replaced by constants or by other samples'."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.part import one_part
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.evaluation.outputs import subset_outputs
from lacunar.evaluation.target import target_for
from lacunar.lattice import Lattice
from lacunar.planning.estimate_pilot import describe_pilot
from lacunar.planning.estimate_scoring import Scored, score_constant, score_output
from lacunar.planning.utility_table import UtilityTable
from lacunar.tasks import Task

__all__ = ["Mixed", "Replaced", "Setup", "choice"]


@dataclass
class Replaced:
    """Complete samples whose values outside a subset are constants."""

    data: MultimodalDataset
    keep: tuple[str, ...]
    constant: dict[str, Tensor]

    @property
    def lattice(self) -> Lattice:
        return self.data.lattice

    def batches(self, size: int) -> Iterator[Batch]:
        for batch in self.data.batches(size):
            inputs = dict(batch.inputs)
            for name, rows in batch.inputs.items():
                if name in self.keep:
                    continue
                inputs[name] = self.constant[name].to(rows).expand_as(rows).contiguous()
                if name in batch.lengths:  # padding stays what it is
                    real = torch.arange(rows.shape[1], device=rows.device) < batch.lengths[name][:, None]
                    inputs[name] = inputs[name].where(real.view(*real.shape, *[1] * (rows.ndim - 2)), rows)
            yield replace(batch, inputs=inputs)


@dataclass
class Mixed:
    """Complete samples whose values outside a subset are those of other samples."""

    data: MultimodalDataset
    others: MultimodalDataset
    keep: tuple[str, ...]

    @property
    def lattice(self) -> Lattice:
        return self.data.lattice

    def batches(self, size: int) -> Iterator[Batch]:
        for own, other in zip(self.data.batches(size), self.others.batches(size)):
            inputs = {name: (own if name in self.keep else other).inputs[name] for name in own.names}
            lengths = {name: (own if name in self.keep else other).lengths[name] for name in own.lengths}
            yield replace(own, inputs=inputs, lengths=lengths)


class Setup:
    """What all of these need: the complete samples, their target and the model's outputs for them."""

    def __init__(
        self, model: Any, data: MultimodalDataset, train: Any, task: Task | None, probabilities: bool,
        batch_size: int | None,
        memory: float | None, needs_target: bool = True, complete: bool = True,
    ):  # fmt: skip
        data = one_part(data, "data", "data.test or data.val")
        found = task or getattr(model, "task", None) or data.task
        if found is None or (needs_target and data.target is None):
            raise DataError("Expected data with a target to score against, got none.")
        whole = data.present.all(dim=1)
        if complete and not whole.any():
            raise DataError(
                f"None of the {len(data)} samples has all modalities, and what is not there cannot be taken away."
            )
        self.model, self.data, self.task, self.probabilities = model, data, found, probabilities
        self.batch_size, self.memory = batch_size, memory
        self.rows = data.select(whole) if complete and not whole.all() else data
        self.train = train.train if isinstance(train, Splits) else train
        self.notes = []
        if len(self.rows) < len(data):
            self.notes.append(f"on the {len(self.rows)} of {len(data)} samples that have every modality")
        self.known = None if data.target is None else target_for(self.task, self.rows)

    @property
    def target(self) -> Tensor:
        """Encoded targets of the samples."""
        if self.known is None:
            raise DataError("Expected data with a target, got none.")
        return self.known

    def outputs(self, view: Any, shown: int) -> Tensor:
        """Raw outputs of the samples of a view with everything that it shows, on the CPU.

        Args:
            view: with ``batches`` and ``lattice``.
            shown: the code of what is the samples' own, for messages.
        """
        full = len(self.data.lattice) - 1
        return self._read(view, {full: shown})[full]

    def feasible(self) -> Iterator[tuple[int, np.ndarray, Tensor]]:
        """Codes, positions and outputs of all samples with every subset of what they have; the rest is absent."""
        codes = self.data.lattice.subsets
        for rows, found, output in subset_outputs(self.model, self.data, codes, self.batch_size, self.memory):
            for code in found.unique().tolist():
                chosen = found == code
                yield code, rows[chosen].cpu().numpy(), self._checked(output[chosen].detach().cpu(), code)

    def replaced(self, fill: str, empty: bool = False) -> Iterator[tuple[int, Tensor]]:
        """For each code the outputs with everything else replaced; for the empty set too when asked."""
        choice("fill", fill, ("mean", "zeros", "absent"))
        lattice = self.data.lattice
        codes = [0, *lattice.subsets] if empty else lattice.subsets
        if fill == "absent":
            yield from self._read(self.rows, {code: code for code in lattice.subsets}).items()
            if empty:
                prior = self.task.prior if self.task.prior is not None else self.task.baseline(self.target)
                yield 0, self.task.expand(prior, torch.zeros(len(self.rows)))
            return
        constant = self._constants(fill)
        for code in codes:
            yield code, self.outputs(Replaced(self.rows, lattice.subset(code), constant), code)

    def score(self, metric: str, output: Tensor) -> Scored:
        """The score of outputs, and what each sample contributes."""
        return score_output(metric, self.task, output, self.target)

    def constant(self, metric: str, notes: list[str]) -> Scored:
        """The constant baseline, fitted on the train part, or what the task remembers of it."""
        if self.train is not None:
            return score_constant(metric, self.task, target_for(self.task, self.train), self.target, "train", None)
        if self.task.prior is not None:
            return self.score(metric, self.task.expand(self.task.prior, self.target))
        notes.append("the baseline is fitted on the scored samples themselves: give train=")
        return score_constant(metric, self.task, None, self.target, "evaluation", None)

    def table(
        self, estimator: str, metric: str, lattice: Lattice, scored: dict[int, Scored], facts: dict[str, Any],
        notes: list[str], began: float,
    ) -> UtilityTable:  # fmt: skip
        """What was scored as a table of one repeat."""
        described = describe_pilot(self.data)
        order = range(len(lattice))
        groups = self.rows.groups
        units = np.arange(len(self.rows)) if groups is None else np.unique(groups, return_inverse=True)[1]
        return UtilityTable(
            lattice.names,
            np.array([[scored[code].value for code in order]]),
            metric,
            estimator,
            n_train=np.full((1, len(lattice)), 0 if self.train is None else len(self.train)),
            n_eval=np.full((1, len(lattice)), len(self.rows)),
            items=[np.column_stack([scored[code].items for code in order])],
            units=[units],
            data_hash=described["hash"],
            config={"estimator": estimator, "metric": metric, **facts, "data": described},
            notes=notes,
            trainings=1,
            seconds=time.perf_counter() - began,
        )

    def _read(self, view: Any, codes: dict[int, int]) -> dict[int, Tensor]:
        """Outputs by the code that the model reads; each stands for what is really shown."""
        parts: dict[int, list[Tensor]] = {code: [] for code in codes}
        for _, found, output in subset_outputs(self.model, view, list(codes), self.batch_size, self.memory):
            for code in found.unique().tolist():
                parts[code].append(output[found == code].detach().cpu())
        made = {}
        for code, pieces in parts.items():
            made[code] = self._checked(torch.cat(pieces), codes[code])
        return made

    def _checked(self, output: Tensor, shown: int) -> Tensor:
        if self.task.kind == "regression" and output.ndim == 1:
            output = output[:, None]
        if output.ndim < 2 or output.shape[1] != self.task.n_outputs:
            raise DataError(
                f"The model's outputs for {self.task}: expected shape ({len(output)}, {self.task.n_outputs}, ...), "
                f"got {tuple(output.shape)}."
            )
        if torch.isnan(output).any():
            raise DataError(f"The model's output is NaN when {self.data.lattice.label(shown)} is shown.")
        return self.task.from_probabilities(output) if self.probabilities else output

    def _constants(self, fill: str) -> dict[str, Tensor]:
        """What takes the place of each modality, shaped like one row (or one step)."""
        source = self.rows if self.train is None else self.train
        for name, kind in self.rows.kinds.items():
            if kind == "tokens":
                raise DataError(
                    f"Modality {name!r} holds tokens, which have no {fill}. Use fill='absent' with a model that takes "
                    "any subset, or permuted_utilities."
                )
        if fill == "zeros":
            return {name: torch.zeros(()) for name in self.rows.names}
        total: dict[str, Any] = dict.fromkeys(source.names, 0.0)
        count = dict.fromkeys(source.names, 0)
        for batch in source.batches(self.batch_size):
            for name, rows in batch.inputs.items():
                if name in batch.lengths:
                    rows = rows[torch.arange(rows.shape[1]) < batch.lengths[name][:, None]]
                total[name] = total[name] + rows.double().sum(dim=0)
                count[name] += len(rows)
        for name, number in count.items():
            if not number:
                raise DataError(f"train: modality {name!r} is observed for no sample, so it has no mean.")
        return {name: (total[name] / count[name]).float() for name in source.names}


def choice(option: str, given: str, known: Sequence[str]) -> None:
    """ConfigError for a choice that there is not."""
    if given not in known:
        raise ConfigError(f"{option}: unknown {given!r}.{did_you_mean(given, known)}")
