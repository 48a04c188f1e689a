"""``lacunar.fit``: from data to a trained model, in one call that can be repeated and continued."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from rich.console import Console
from torch import Tensor, nn

from lacunar.arguments import at_least, checked
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError, DataError
from lacunar.models.multimodal import MultimodalModel, input_facts
from lacunar.objectives.base import Objective
from lacunar.parallel import process_rank
from lacunar.training.files import read_json, write_json
from lacunar.training.folder import FORMAT, RunFolder, describe_data, describe_module, fingerprint, versions
from lacunar.training.options import TrainingOptions
from lacunar.training.progress import wanted
from lacunar.training.quiet import quiet
from lacunar.training.repeatable import repeatable
from lacunar.training.run import Run, load_run
from lacunar.training.sampler import derive_seed
from lacunar.training.trainer import Training, check_device

if TYPE_CHECKING:
    from lacunar.data.splits import Splits
    from lacunar.models.references import References

__all__ = ["Run", "fit", "load_run", "options_of"]

logger = logging.getLogger(__name__)

Finish = Callable[[nn.Module, "Splits", "References | None"], nn.Module]


@checked
def fit(
    data: Splits,
    model: MultimodalModel | None = None,
    objective: Objective | None = None,
    *,
    max_epochs: int | None = None,
    batch_size: int | None = None,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    schedule: str = "one-cycle",
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    references: References | None = None,
    accelerator: str = "auto",
    devices: int | str | list[int] = 1,
    strategy: str = "auto",
    precision: str = "32-true",
    accumulate: int = 1,
    gradient_clip: float | None = 1.0,
    patience: int | None = None,
    average: float | None = 0.99,
    validate_every: int = 1,
    select: str = "best",
    num_workers: int = 0,
    tensorboard: bool = False,
    snapshots: int = 0,
    progress: bool = True,
    resume: bool = True,
    experts: bool | None = None,
    finish: Finish | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> Run:
    """Train a model on whatever each sample has, and select it on the validation mean over subsets.

    With ``out`` every finished epoch is kept: run the same line again, after a crash or a kill, and training goes on
    from there; on a CPU the weights and the log are those of an uninterrupted run, bit for bit. A finished run is
    returned at once. The test part is never read.

    Args:
        data: train and validation parts, from ``data.split(...)``.
        model: what to train, in place; :func:`lacunar.default_model` of the train part when left out.
        objective: how to train it; ``lacunar.MCE(label_smoothing=0.05)`` when left out. Every run sets it up
            anew; modules that it was given are trained in place, as the model is.
        max_epochs: passes over the training samples; 40 when left out.
        batch_size: most samples in a batch, over all devices; 16 to 128 by the number of samples when left out.
        lr: highest learning rate, of AdamW.
        weight_decay: of weight matrices and of the positions of a completion; norms and biases have none.
        schedule: of the learning rate: ``"one-cycle"``, ``"cosine"`` or ``"constant"``.
        seed: of everything random here; the weights of a model that is passed in are what they are.
        out: folder of the run; None writes nothing anywhere.
        references: frozen single-modality models; made from the train part when the objective needs them.
        accelerator, devices, strategy, precision: where and how to compute, as Lightning's Trainer takes them.
        accumulate: batches whose gradients are added up before a step.
        gradient_clip: largest norm of the gradient; None does not clip.
        patience: epochs without a better validation after which to stop; None trains all of them.
        average: decay per step of the averaged weights that are validated and returned; None uses the weights as
            they are.
        validate_every: epochs from one validation to the next.
        select: ``"best"`` returns the weights of the validated epoch with the highest score, ``"loss"`` of the one
            with the lowest loss, for probabilities that are to be right and not only on the right side, ``"last"`` of
            the last one.
        num_workers: processes that load batches; 0 is best for data in memory.
        tensorboard: also write TensorBoard events into ``out``.
        snapshots: how many evenly spaced epochs' weights to keep in ``run.snapshots``, in ``out`` or else in memory:
            what :func:`lacunar.evaluation.capability_trajectory` reads. They change nothing else.
        progress: show progress on standard error; ``LACUNAR_PROGRESS=none`` silences it.
        resume: False replaces what ``out`` holds.
        experts: keep the references as experts at prediction: ``run.model`` is then a :class:`lacunar.models.Blend`
            of the joint model and the experts, weighted on validation. None does so whenever the objective works with
            references that were scored out of fold, and the task is not a label map.
        finish: from the selected model, the data and the references to the model that is returned.
        callbacks: further Lightning callbacks.

    Returns:
        The run: ``run.model`` predicts, ``run.history`` and ``run.steps`` say how it came about.

    Raises:
        DataError: without a validation part or a target.
        ConfigError: for an argument out of range, or a model for other modalities.
        RunError: when ``out`` holds another run, or a checkpoint that cannot be read; when a loss is not finite.
    """
    _check_data(data)
    given = locals()
    options = TrainingOptions(**{name: given[name] for name in TrainingOptions.names()}).checked(len(data.train))
    at_least(0, num_workers=num_workers, snapshots=snapshots)
    if references is not None and not hasattr(references, "scores"):
        raise ConfigError(f"references: expected what lacunar.references(data.train) gives, got {references!r}.")
    if tensorboard and out is None:
        raise ConfigError("tensorboard=True writes files: give the folder of the run as out=.")
    first = options.devices == 1 or process_rank() == 0
    folder = None if out is None else RunFolder(out)
    with quiet(), isolate_rng(), repeatable(options.accelerator), contextlib.ExitStack() as stack:
        torch.manual_seed(derive_seed(seed, "setup"))
        if model is None:
            from lacunar.models.defaults import default_model

            model = default_model(data.train)
        if objective is None:
            from lacunar.objectives.mce import MCE

            objective = MCE(label_smoothing=0.05)
        if not isinstance(objective, Objective):
            given_as = getattr(objective, "__name__", objective)
            raise ConfigError(f"objective: expected an objective such as lacunar.MCE(), got {given_as!r}.")
        _check_model(model, data)
        # A finished run computes nothing; and of several processes none may be made twice.
        if options.devices == 1 and (folder is None or not resume or not folder.finished):
            check_device(options)
        config = _configuration(data, model, objective, references, options, experts)
        mark = fingerprint(config["asked"])
        if folder is not None and first:
            stack.enter_context(folder.locked())
            folder.begin(config, resume)
        found = _provide_references(objective, data, references, folder, options.seed, first, wanted(progress))
        blend = _wants_experts(experts, objective, found, data)
        torch.manual_seed(derive_seed(seed, "setup", 1))
        objective.setup(model, data.train)
        training = Training(data, model, objective, options, folder, mark, num_workers, tensorboard, first, snapshots)
        if folder is not None and folder.finished:
            result = read_json(folder.result)
            training.load(folder.read_tensors(folder.selected))
        else:
            result = training.run(wanted(progress) and first, callbacks)
        lacking = sorted(epoch + 1 for epoch in training.wanted - set(training.snapshots) if epoch < result["epochs"])
        if lacking and first:
            logger.warning(
                "No snapshots of epochs %s: they were over before snapshots were asked for. resume=False trains again.",
                ", ".join(map(str, lacking)),
            )
        torch.manual_seed(derive_seed(seed, "setup", 2))
        predictor = objective.build(model)
        if blend:
            from lacunar.training.blend import fit_blend

            assert isinstance(predictor, MultimodalModel)
            assert found is not None
            predictor = fit_blend(predictor, found, data.train, data.val)
        if finish is not None:
            predictor = finish(predictor, data, found)
        run = Run(
            model=predictor.eval(),
            objective=objective,
            folder=None if folder is None else folder.path,
            config=config,
            references=found,
            lines=training.lines,
            snapshots=training.snapshots,
            **result,
        )
        if folder is not None and first and not folder.finished:
            assert training.keeper.selection.weights is not None
            _store(folder, run, training.keeper.selection.weights, result)
        return run


def _wants_experts(asked: bool | None, objective: Objective, found: References | None, data: Splits) -> bool:
    if asked and found is None:
        raise ConfigError(
            f"experts=True keeps the references as experts, and {type(objective).__name__} works without any: "
            "pass references=lacunar.references(data.train)."
        )
    if asked is None:
        usable = found is not None and found.out_of_fold and data.train.task.kind != "segmentation"  # type: ignore[union-attr]
        return usable and getattr(objective, "references", None) is not None
    return asked


def options_of(arguments: Mapping[str, Any], seed: int = 0) -> TrainingOptions:
    """How :func:`fit` trains with these arguments: its defaults hold for the rest. They are not checked yet."""
    usual = {name: part.default for name, part in inspect.signature(fit).parameters.items()}
    every = {**usual, **arguments, "seed": seed}
    return TrainingOptions(**{name: every[name] for name in TrainingOptions.names()})


def _check_data(data: Any) -> None:
    if isinstance(data, MultimodalDataset) or not hasattr(data, "train") or getattr(data, "val", None) is None:
        raise DataError(
            "fit needs a validation part to select on: pass data.split(train=0.7, val=0.15, test=0.15, seed=0), or "
            f"lacunar.Splits(train, val), got {type(data).__name__}."
        )
    if data.train.target is None or data.val.target is None:
        raise DataError("fit needs targets in the train and the validation part.")
    if len(data.train) == 0 or len(data.val) == 0:
        raise DataError(f"fit needs samples: {len(data.train)} to train on, {len(data.val)} to validate on.")


def _check_model(model: Any, data: Splits) -> None:
    if not isinstance(model, MultimodalModel):
        raise ConfigError(f"model: expected a lacunar.MultimodalModel, got {type(model).__name__}.")
    if model.names != data.train.names:
        raise ConfigError(
            f"The model was built for the modalities {model.names}, the data have {data.train.names}. "
            "Encoders are given in the order of the data."
        )
    if model.task is None:
        model.task = data.train.task
    if model.inputs is None:
        model.inputs = input_facts(data.train)


def _configuration(
    data: Splits,
    model: nn.Module,
    objective: Objective,
    references: References | None,
    options: TrainingOptions,
    experts: bool | None,
) -> dict[str, Any]:
    asked = {
        **options.arguments(),
        "experts": experts,
        "references": None if references is None else repr(references),
        "objective": describe_module(objective),
        "model": describe_module(model),
        "train": describe_data(data.train),
        "val": describe_data(data.val),
    }
    return {"format": FORMAT, "versions": versions(), "asked": asked}


def _provide_references(
    objective: Objective,
    data: Splits,
    given: References | None,
    folder: RunFolder | None,
    seed: int,
    first: bool,
    progress: bool,
) -> References | None:
    """Give the objective its references, from the arguments, the folder, or made here and kept in the folder."""
    if objective.needs_references:
        if given is None and folder is not None and folder.references.exists():
            from lacunar.models.references import References

            given = References.load(folder.references)
        if given is None:
            from lacunar.training.references import references

            say = Console(stderr=True, highlight=False).print if progress and first else False
            given = references(data.train, seed=seed, progress=say)
        objective.use_references(given)
    found = given if given is not None else getattr(objective, "references", None)
    if found is not None and folder is not None and first and not folder.references.exists():
        found.save(folder.references)
    return found


def _store(folder: RunFolder, run: Run, state: dict[str, Tensor], result: dict[str, Any]) -> None:
    """Write what came out; the run counts as finished once ``result.json`` is there."""
    from lacunar.models.saving import save_model

    folder.write_tensors(folder.selected, state)
    save_model(run.model, folder.model)
    write_json(folder.result, result)
    folder.checkpoint.unlink(missing_ok=True)
    folder.start.unlink(missing_ok=True)
