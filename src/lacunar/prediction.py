"""Predictions as a table: one row for every sample, also for those of which nothing is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lacunar.arguments import checked
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.part import one_part
from lacunar.errors import ConfigError, DataError, RunError, did_you_mean
from lacunar.evaluation.outputs import evaluation_mode
from lacunar.tasks import Task

__all__ = ["NOTHING", "align", "predict", "raw_outputs"]

#: The flag of a sample that has no modality.
NOTHING = "nothing observed: prior of the training data"


@checked
def predict(model: Any, data: MultimodalDataset, batch_size: int | None = None) -> pd.DataFrame:
    """What a trained model says of each sample, from whatever the sample has.

    Args:
        model: a trained model with its task, for example ``run.model``.
        data: the samples, in any order; no target is needed. Build it with ``keep_empty=True`` to keep samples that
            have nothing: they get the prior of the training data and a flag.
        batch_size: samples per batch; ``data.rows_at_once`` when None.

    Returns:
        One row per sample, in order: ``id``; ``prediction`` (the label, several labels joined by ``", "``, or a
        number, ``prediction_0`` and so on for several numbers); ``probability_CLASS`` for each class or label;
        ``modalities``, what the prediction rests on; and ``flag``, empty where there is nothing to say.

    Raises:
        DataError: the data lack a modality of the model.
        ConfigError: the model predicts label maps, which are no table.
    """
    task = _task(model)
    if task.kind == "segmentation":
        raise ConfigError("Label maps do not fit into a table: use lacunar.prediction.raw_outputs(model, data).")
    data = align(data, model.names)
    output = raw_outputs(model, data, batch_size)
    table: dict[str, Any] = {"id": data.ids}
    names = getattr(task, "classes", None) or getattr(task, "labels", None) or task.n_outputs
    labels = [str(label) for label in (range(names) if isinstance(names, int) else names)]
    if task.kind == "multilabel":
        chosen = task.predict(output) > 0
        table["prediction"] = [", ".join(np.array(labels, dtype=object)[row]) for row in chosen.numpy()]
    else:
        decoded = np.asarray(task.decode(task.predict(output)))
        if decoded.ndim == 1 or decoded.shape[1] == 1:
            table["prediction"] = decoded.reshape(len(data))
        else:
            table |= {f"prediction_{number}": column for number, column in enumerate(decoded.T)}
    if task.kind in ("classification", "multilabel"):
        columns = task.probabilities(output).double().numpy().T
        table |= {f"probability_{label}": column for label, column in zip(labels, columns)}
    codes = data.lattice.encode(data.present)
    table["modalities"] = [data.lattice.label(int(code)) for code in codes]
    made = [data.lattice.label(int(code)) for code in data.lattice.encode(data.generated)]
    table["flag"] = [f"generated: {label}" if label != "none" else "" for label in made]
    table["flag"] = np.where(codes.numpy() == 0, NOTHING, table["flag"])
    return pd.DataFrame(table)


def raw_outputs(model: Any, data: MultimodalDataset, batch_size: int | None = None) -> Tensor:
    """Raw outputs of the model's head on the CPU, ``(N, n_outputs, ...)``, the prior for samples that have nothing."""
    task = _task(model)
    data = align(data, model.names)
    something = data.present.any(dim=1)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    found = []
    with evaluation_mode(model):
        for batch in data.select(something).batches(batch_size):
            found.append(model(batch.to(device)).float().cpu())
    if bool(something.all()) and found:
        return torch.cat(found)
    if task.prior is None:
        raise RunError("The model's task knows no prior: it was never fitted on training data.")
    prior = task.prior.float()
    shape = found[0].shape[1:] if found else prior.shape
    output = prior.expand(len(data), *shape).clone()
    if found:
        output[something] = torch.cat(found)
    return output


def align(data: MultimodalDataset, names: tuple[str, ...]) -> MultimodalDataset:
    """The data with the modalities of a model, in its order; further ones are left out.

    Raises:
        DataError: a modality is not there.
    """
    data = one_part(data, "predict", "data.test")
    if data.names == names:
        return data
    for name in names:
        if name not in data.columns:
            raise DataError(
                f"The model was trained with the modality {name!r}, which the data do not describe."
                f"{did_you_mean(name, data.names)} Describe it with empty cells where it was not collected."
            )
    return MultimodalDataset(
        {name: data.columns[name] for name in names}, data.target, data.task, data.ids, data.groups, data.subgroups,
        data.row, data.name, data.dropped, data.card,
    )  # fmt: skip


def _task(model: Any) -> Task:
    task = getattr(model, "task", None)
    if task is None:
        raise RunError("The model does not know what it predicts: train it with lacunar.fit, or set model.task.")
    return task
