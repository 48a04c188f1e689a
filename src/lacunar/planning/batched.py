"""The models of many subsets trained side by side: what :mod:`lacunar.planning.retrain` trains one after the other.

Small networks spend much of their time on the way into and out of small operations, and on the loop around them. Here
the encoders of one modality in all subsets that hold it become one stack with a leading axis of models, and so do the
completion, fusion and head of all subsets of one size; ``torch.func`` then runs a stack as one batched call. Nothing is
padded: a subset of two modalities is a model with two tokens, an encoder exists only where its modality belongs to the
subset, and the work is the sum of the work of the models.

Each model starts from the same weights, sees the same batches in the same order, has its own gradient clipped by its
own norm, its own averaged weights and its own choice of the epoch on validation. Without dropout and noise the result
is that of :func:`lacunar.fit` up to rounding; with them it differs in what is drawn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError, RunError
from lacunar.models import MLP, Chain, ConcatFusion, InputNoise, MeanFusion, MLPHead, Standardize, TokenTransformer
from lacunar.models.defaults import default_model
from lacunar.models.multimodal import MultimodalModel
from lacunar.models.rescale import Rescale
from lacunar.planning.estimate_config import plain_option
from lacunar.planning.retrain import BATCH, Cell, one_thread, scored_record
from lacunar.planning.stacks import Bundle, Choice, Samples

__all__ = ["BatchedCell", "groups_of", "obstacle", "train_batched", "wanted"]

#: Modules that compute each row on its own and hold nothing but parameters and fixed statistics.
STACKABLE: tuple[type[nn.Module], ...] = (
    Chain, Standardize, InputNoise, MLP, TokenTransformer, ConcatFusion, MeanFusion, MLPHead, Rescale,
    nn.Sequential, nn.Linear, nn.LayerNorm, nn.Dropout, nn.Identity, nn.GELU, nn.ReLU, nn.Tanh, nn.SiLU,
)  # fmt: skip
#: Arguments of fit that are understood here; the others must be left out, or as they are by default.
UNDERSTOOD = frozenset({
    "max_epochs", "batch_size", "lr", "weight_decay", "schedule", "gradient_clip", "average", "patience",
    "validate_every", "select", "num_workers",
})  # fmt: skip
HARMLESS: dict[str, Any] = {"experts": False, "objective": None, "devices": 1, "accumulate": 1, "precision": "32-true"}
HARMLESS |= {"strategy": "auto", "accelerator": "auto", "callbacks": ()}
#: Most modalities and columns at which it is done unasked, which bounds the memory, and models in a group of repeats.
MOST_MODALITIES, MOST_COLUMNS, MODELS = 6, 4000, 64

T = TypeVar("T")


@dataclass
class BatchedCell:
    """The cells of some repeats, to be trained together.

    Attributes:
        repeats: for each repeat, by the name of its file, a cell for each subset.
    """

    repeats: dict[str, list[Cell]]

    @property
    def key(self) -> str:
        """Names the repeats."""
        return ", ".join(self.repeats)


def wanted(
    asked: bool | None,
    estimator: str,
    train: MultimodalDataset,
    make_model: Callable[[MultimodalDataset], Any],
    fit: Mapping[str, Any],
    equal_n: bool,
) -> bool:
    """Whether the models of all subsets are trained together.

    Args:
        asked: what was asked for; None leaves it to the size of the problem and takes the default model only.
        estimator, make_model, fit, equal_n: of :func:`lacunar.utilities`.
        train: the train part of a repeat.

    Raises:
        ConfigError: it was asked for and cannot be done; says why.
    """
    if asked is False or (asked is None and estimator != "retrain"):
        return False
    if estimator != "retrain":
        raise ConfigError(f"batched=True trains the models of all subsets; estimator={estimator!r} has one model.")
    if asked is None and (make_model is not default_model or _large(train)):
        return False
    reason = obstacle(train, make_model, fit, equal_n)
    if reason is not None and asked:
        raise ConfigError(f"batched=True: {reason}. Leave batched out to train the models one after the other.")
    return reason is None


def _large(data: MultimodalDataset) -> bool:
    return len(data.names) > MOST_MODALITIES or sum(map(math.prod, data.shapes.values())) > MOST_COLUMNS


def obstacle(
    data: MultimodalDataset, make_model: Callable[[MultimodalDataset], Any], fit: Mapping[str, Any], equal_n: bool
) -> str | None:
    """Why the models of all subsets cannot be trained together, in words; None when they can."""
    odd = [f"{name!r} is a {kind}" for name, kind in data.kinds.items() if kind != "vector"]
    if odd:
        return f"only vectors are stacked, and modality {odd[0]}"
    if not equal_n and not bool(data.present.all()):
        return "with equal_n=False the subsets of an incomplete pilot train on different numbers of samples"
    for name, value in fit.items():
        if name not in UNDERSTOOD and (name not in HARMLESS or value != HARMLESS[name]):
            return f"fit has {name}={plain_option(value)!r}, which only lacunar.fit understands"
    with torch.random.fork_rng([]):
        made = make_model(data)
    if type(made) is not MultimodalModel:
        return f"make_model returns {type(made).__name__}, and only a lacunar.MultimodalModel is stacked"
    known = (*STACKABLE, MultimodalModel, nn.ModuleList)
    others = sorted({type(part).__name__ for part in made.modules() if type(part) not in known})
    if others:
        return f"the model holds {', '.join(others)}; only {', '.join(kind.__name__ for kind in STACKABLE)} are stacked"
    return None


def groups_of(repeats: list[list[T]]) -> list[list[list[T]]]:
    """Repeats that are trained together: as many as have :data:`MODELS` models, at least one."""
    groups: list[list[list[T]]] = []
    for jobs in repeats:
        if groups and sum(map(len, groups[-1])) + len(jobs) <= MODELS:
            groups[-1].append(jobs)
        else:
            groups.append([jobs])
    return groups


def train_batched(cell: BatchedCell) -> list[dict[str, Any]]:
    """Train and score the models of some repeats.

    Returns:
        For each repeat plain data as :func:`lacunar.planning.retrain.train_cell` returns it, with a record for each
        subset.
    """
    start = time.perf_counter()
    cells = [own for part in cell.repeats.values() for own in part]
    found = []
    with one_thread(), torch.random.fork_rng([]):
        models = []
        for own in cells:
            torch.manual_seed(own.seed)
            models.append(own.make_model(own.train))
        # Other numbers of train samples make other batches; they differ only between repeats, and where a subset was
        # never seen in validation and gave up some of its train samples.
        for size in sorted({len(own.train) for own in cells}):
            chosen = [k for k, own in enumerate(cells) if len(own.train) == size]
            train_together([cells[k] for k in chosen], [models[k] for k in chosen])
        scored = iter([_scored(own, model) for own, model in zip(cells, models)])
    seconds = (time.perf_counter() - start) / len(cells)
    for key, part in cell.repeats.items():
        records = [next(scored) for _ in part]
        found.append({"key": key, "trained": len(part), "seconds": seconds * len(part), "subsets": records})
    return found


def _scored(cell: Cell, model: MultimodalModel) -> dict[str, Any]:
    with torch.no_grad():
        output = torch.cat([model.eval()(batch) for batch in cell.held.batches(BATCH)])
    record: dict[str, Any] = {"code": cell.code, "n_train": len(cell.train), "n_eval": len(cell.held)}
    return record | scored_record(cell.metric, output, cell.held, cell.rows, cell.weight)


def train_together(cells: Sequence[Cell], models: Sequence[MultimodalModel]) -> list[int]:
    """Train each cell's model on its own samples, in place, all in the same steps.

    Args:
        cells: with equally many training samples, all of which have all of the cell's modalities; what ``fit`` says
            is read from the first.
        models: one for each cell, of the parts in :data:`STACKABLE`.

    Returns:
        The epoch that validation chose for each.

    Raises:
        RunError: a loss is not finite.
        ConfigError: a model that cannot be stacked, or an argument out of range.
    """
    from lacunar.training.averaging import AveragedWeights
    from lacunar.training.fit import options_of
    from lacunar.training.module import make_optimizer
    from lacunar.training.sampler import GlobalBatches, derive_seed

    count = len(cells[0].train)
    options = options_of(cells[0].fit, cells[0].seed).checked(count)
    assert options.max_epochs is not None and options.batch_size is not None
    bundle = Bundle(cells, models)
    train, val = Samples(cells, [cell.train for cell in cells]), Samples(cells, [cell.val for cell in cells])
    steps = options.max_epochs * len(GlobalBatches(count, options.batch_size))
    optimizer, schedule = make_optimizer(
        bundle.groups(options.weight_decay), options.lr, options.schedule, steps, fused=True
    )
    averaged = AveragedWeights(bundle.parameters, options.average) if options.average is not None else None
    if averaged is not None:
        averaged.start()
    chosen = Choice(len(cells), options.select, options.patience, bundle)
    seeds = sorted({cell.seed for cell in cells})
    place = torch.tensor([seeds.index(cell.seed) for cell in cells])
    torch.manual_seed(derive_seed(cells[0].seed, "step"))
    taken = 0
    for epoch in range(options.max_epochs):
        bundle.train()
        orders = [list(GlobalBatches(count, options.batch_size, seed, epoch)) for seed in seeds]
        finite = torch.ones(len(cells), dtype=torch.bool)
        for drawn in zip(*orders):
            optimizer.zero_grad()
            loss, _ = bundle.losses(train, torch.tensor(drawn)[place])
            own = loss.mean(dim=1)
            own.sum().backward()
            finite &= own.detach().isfinite()
            if options.gradient_clip is not None:
                bundle.clip(options.gradient_clip)
            optimizer.step()
            taken += 1
            if schedule is not None and taken < steps:
                schedule.step()
            if averaged is not None:
                averaged.update()
        if not finite.all():
            bad = cells[int((~finite).nonzero()[0])]
            raise RunError(
                f"The loss of {bad.label} is not finite in epoch {epoch}. Lower lr or gradient_clip, or check the data "
                "for extreme values."
            )
        last = epoch + 1 == options.max_epochs
        if last or (epoch + 1) % options.validate_every == 0:
            if averaged is None:
                chosen.update(epoch, *_validate(bundle, val))
            else:
                with averaged.applied():
                    chosen.update(epoch, *_validate(bundle, val))
        if chosen.stopped.all():
            break
    chosen.load()
    bundle.give_back()
    return chosen.epoch.tolist()


@torch.no_grad()
def _validate(bundle: Bundle, samples: Samples) -> tuple[Tensor, Tensor]:
    """Mean score and loss of each model on its validation samples, float64, ``(K,)`` each."""
    bundle.train(False)
    sums = torch.zeros(2, len(samples.count), dtype=torch.float64)
    everything = torch.arange(int(samples.count.max()))
    for rows in everything.split(BATCH):
        loss, score = bundle.losses(samples, rows.expand(len(samples.count), -1), scores=True)
        assert score is not None
        counted = rows < samples.count[:, None]
        sums += torch.stack([(score.double() * counted).sum(1), (loss.double() * counted).sum(1)])
    score, loss = sums / samples.count
    return score, loss
