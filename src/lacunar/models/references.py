"""Frozen single-modality models: what each modality can do alone, and experts at prediction."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as pack
from torch import Tensor, nn

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import DataError, RunError
from lacunar.models.pooling import opinion, pool
from lacunar.tasks import Task, task_from_config

__all__ = ["EstimatorExpert", "Expert", "NetworkExpert", "References"]

FORMAT = 1
#: Share of the prior in every probability that an estimator gives.
CAUTION = 0.005


class Expert(ABC):
    """A frozen model of one modality."""

    @abstractmethod
    def output(self, rows: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Raw output ``(n, n_outputs, ...)`` for packed rows of the modality, as :class:`Task` understands it."""

    @abstractmethod
    def save(self, folder: Path) -> dict[str, Any]:
        """Write the expert into a folder and return what :func:`load_expert` needs to know."""


class EstimatorExpert(Expert):
    """Scikit-learn estimators on vectors, pooled by weights.

    Args:
        estimators: fitted on flattened rows, with the encoded target of the task.
        task: what they predict.
        weights: of each estimator's opinion; even when left out.
        prior: raw output when nothing is known, ``(n_outputs,)``.
    """

    def __init__(
        self, estimators: Sequence[Any], task: Task, weights: Sequence[float] | None = None, prior: Sequence[float] = ()
    ):
        self.estimators, self.task = list(estimators), task
        self.weights = torch.tensor(
            weights if weights is not None else [1 / max(len(self.estimators), 1)] * len(self.estimators)
        )
        self.prior = torch.tensor(prior if len(prior) else [0.0] * task.n_outputs)

    def output(self, rows: Tensor, lengths: Tensor | None = None) -> Tensor:
        flat = rows.detach().cpu().flatten(1).numpy().astype(np.float64)
        if not len(flat):
            return rows.new_zeros(0, self.task.n_outputs)
        return self.combine(estimator_opinions(self.estimators, flat, self.task, self.prior)).to(rows.device)

    def combine(self, opinions: Tensor) -> Tensor:
        """Raw output ``(n, n_outputs)`` from each estimator's opinion ``(n, E, n_outputs)``."""
        return pool(self.prior, opinions, self.weights)

    def save(self, folder: Path) -> dict[str, Any]:
        from skops.io import dump

        folder.mkdir(parents=True)
        for number, estimator in enumerate(self.estimators):
            dump(estimator, folder / f"{number}.skops", compression=zipfile.ZIP_DEFLATED, compresslevel=1)
        return {"kind": "estimator", "weights": self.weights.tolist(), "prior": self.prior.tolist()}


class NetworkExpert(Expert):
    """A network for one modality: encoder and head of a :class:`MultimodalModel` with that modality alone."""

    def __init__(self, model: nn.Module, name: str):
        self.model, self.name = model.eval().requires_grad_(False), name

    @torch.no_grad()
    def output(self, rows: Tensor, lengths: Tensor | None = None) -> Tensor:
        device = next(self.model.parameters()).device
        count = len(rows)
        batch = Batch(
            {self.name: rows},
            torch.ones(count, 1, dtype=torch.bool, device=rows.device),
            None,
            torch.arange(count, device=rows.device),
            {} if lengths is None else {self.name: lengths},
        )
        return self.model.eval()(batch.to(device)).to(rows.device)

    def save(self, folder: Path) -> dict[str, Any]:
        from lacunar.models.saving import save_model

        save_model(self.model, folder)
        return {"kind": "network", "modality": self.name}


def estimator_output(estimator: Any, flat: np.ndarray, task: Task) -> Tensor:
    """Probabilities ``(n, n_outputs)`` over all classes of the task, or a regressor's numbers."""
    if task.kind == "classification":
        found = estimator.predict_proba(flat)
        probabilities = np.zeros((len(flat), task.n_outputs))
        probabilities[:, np.asarray(estimator.classes_, dtype=int)] = found
        return torch.from_numpy(probabilities)
    if task.kind == "multilabel":
        found = estimator.predict_proba(flat)
        classes = estimator.classes_
        if task.n_outputs == 1 and not isinstance(found, list):  # a single label is two classes to an estimator
            found, classes = [found], [classes]
        if isinstance(found, list):  # one table per label, of one or two columns
            columns = zip(found, classes)
            found = np.stack(
                [table[:, 1] if len(seen) > 1 else np.full(len(flat), seen[0]) for table, seen in columns], 1
            )
        return torch.from_numpy(np.asarray(found, dtype=np.float64))
    return torch.from_numpy(np.asarray(estimator.predict(flat), dtype=np.float64).reshape(len(flat), -1))


def estimator_opinions(estimators: Sequence[Any], flat: np.ndarray, task: Task, prior: Tensor) -> Tensor:
    """What each estimator adds to the prior, float32, ``(n, E, n_outputs)``.

    Probabilities are mixed with a little of the prior: a class that a tree never saw is unlikely, not impossible.
    """
    opinions = []
    for estimator in estimators:
        output = estimator_output(estimator, flat, task)
        if task.kind in ("classification", "multilabel"):
            usual = task.probabilities(prior[None].double())
            output = task.from_probabilities((1 - CAUTION) * output + CAUTION * usual)
        opinions.append(opinion(task, output, prior.to(output.dtype)))
    return torch.stack(opinions, 1).to(torch.float32)


def load_expert(folder: Path, facts: Mapping[str, Any], task: Task) -> Expert:
    """The expert that :meth:`Expert.save` wrote, with nothing unpickled."""
    if facts["kind"] == "network":
        from lacunar.models.saving import load_model

        return NetworkExpert(load_model(folder), facts["modality"])
    estimators = [_load_estimator(folder / f"{number}.skops") for number in range(len(facts["weights"]))]
    return EstimatorExpert(estimators, task, facts["weights"], facts["prior"])


def _load_estimator(path: Path) -> Any:
    from skops.io import get_untrusted_types, load

    asked = get_untrusted_types(file=path)
    foreign = [name for name in asked if not name.startswith(("sklearn.", "numpy.", "scipy."))]
    if foreign:
        raise RunError(f"{path}: holds types that are not scikit-learn's and are not trusted: {', '.join(foreign)}.")
    return load(path, trusted=asked)


class References:
    """Frozen single-modality models, and what each of them scores on the data they were made from (U, Eq. 6).

    :func:`lacunar.references` makes one.

    Args:
        experts: one model per modality.
        task: what they predict.
        ids: samples that have been scored, ``(N,)``.
        outputs: for each modality the raw outputs of those samples, ``(N, n_outputs, ...)``, NaN where absent; out
            of fold unless ``out_of_fold`` is False.
        sample_scores: ``task.score`` of those outputs, ``(N, M)``, NaN where absent.
        out_of_fold: whether each sample was scored by models that had not seen it.
    """

    def __init__(
        self,
        experts: Mapping[str, Expert],
        task: Task,
        ids: np.ndarray,
        outputs: Mapping[str, Tensor],
        sample_scores: Tensor,
        out_of_fold: bool,
    ):
        self.experts, self.task, self.out_of_fold = dict(experts), task, out_of_fold
        self.ids, self.outputs, self.sample_scores = np.asarray(ids), dict(outputs), sample_scores
        self._position = {sample: row for row, sample in enumerate(self.ids.tolist())}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.experts)

    def scores(self, data: MultimodalDataset) -> Tensor:
        """Scores of the samples of a data set, NaN where a modality is absent, ``(N, M)``.

        Raises:
            DataError: for other modalities, or samples that were not scored.
        """
        if data.names != self.names:
            raise DataError(f"The references are for the modalities {self.names}, the data have {data.names}.")
        rows = self.rows(data)
        unknown = data.present & torch.isnan(self.sample_scores[rows])
        if unknown.any():
            row, m = unknown.nonzero()[0].tolist()
            raise DataError(
                f"The references have no score for modality {data.names[m]!r} of sample {data.ids[row]!r}: "
                "they were made with another presence table. Make them again from these data."
            )
        return torch.where(data.present, self.sample_scores[rows], torch.nan)

    def rows(self, data: MultimodalDataset) -> Tensor:
        """Where the samples of a data set stand among those that were scored."""
        try:
            return torch.tensor([self._position[sample] for sample in data.ids.tolist()], dtype=torch.int64)
        except KeyError as error:
            raise DataError(
                f"The references have no score for sample {error.args[0]!r}: make them from the same training data."
            ) from None

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Raw outputs of every expert for the rows of a batch that have its modality, ``(n_m, n_outputs, ...)``."""
        return {
            name: expert.output(batch.inputs[name], batch.lengths.get(name)) for name, expert in self.experts.items()
        }

    def save(self, folder: str | Path) -> None:
        """Write the references into a new folder; it appears whole or not at all.

        Raises:
            RunError: when the folder is there already.
        """
        folder = Path(folder)
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.unfinished")
        partial.mkdir(parents=True)
        try:
            facts = {name: expert.save(partial / f"expert{m}") for m, (name, expert) in enumerate(self.experts.items())}
            tensors = {f"output{m}": output.contiguous() for m, output in enumerate(self.outputs.values())}
            scores = pack({**tensors, "scores": self.sample_scores.contiguous()})
            (partial / "scores.safetensors").write_bytes(scores)  # save_file would keep others from reading it
            config = {
                "format": FORMAT, "task": self.task.to_config(), "out_of_fold": self.out_of_fold,
                "experts": facts, "ids": self.ids.tolist(),
            }  # fmt: skip
            (partial / "references.json").write_text(json.dumps(config))
            os.replace(partial, folder)
        except OSError as error:
            if folder.exists():
                raise RunError(f"{folder} is there already: references are written into a new folder.") from error
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @classmethod
    def load(cls, folder: str | Path) -> References:
        """The references of a folder that :meth:`save` wrote.

        Raises:
            RunError: when the folder holds none, or of a later format.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / "references.json").read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise RunError(f"{folder}: no references can be read here ({error}).") from error
        if config["format"] > FORMAT:
            raise RunError(f"{folder}: written by a later version of lacunar (format {config['format']} > {FORMAT}).")
        task = task_from_config(config["task"])
        try:
            tensors = load_file(folder / "scores.safetensors")
        except (OSError, SafetensorError) as error:
            raise RunError(f"{folder / 'scores.safetensors'} is damaged or missing ({error}).") from error
        names = list(config["experts"])
        return cls(
            {name: load_expert(folder / f"expert{m}", config["experts"][name], task) for m, name in enumerate(names)},
            task,
            np.asarray(config["ids"], dtype=object),
            {name: tensors[f"output{m}"] for m, name in enumerate(names)},
            tensors["scores"],
            config["out_of_fold"],
        )

    def __repr__(self) -> str:
        means = torch.nanmean(self.sample_scores, 0)
        how = "out of fold" if self.out_of_fold else "in sample"
        return f"References({', '.join(f'{n} {s:.3f}' for n, s in zip(self.names, means.tolist()))}; {how})"
