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

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError, RunError
from lacunar.models import MLP, Chain, ConcatFusion, InputNoise, MeanFusion, MLPHead, Standardize, TokenTransformer
from lacunar.models.multimodal import MultimodalModel, input_facts
from lacunar.models.rescale import Rescale
from lacunar.planning.retrain import BATCH, Cell, one_thread, scored_record

__all__ = ["BatchedCell", "obstacle", "train_batched", "train_together"]

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
#: Most modalities, and most samples, at which it pays by default (see docs/benchmarks.md).
MOST_MODALITIES, MOST_SAMPLES = 6, 20_000


@dataclass
class BatchedCell:
    """The cells of one repeat, to be trained together.

    Attributes:
        key: names the file of the repeat.
        cells: one for each subset.
    """

    key: str
    cells: list[Cell]


def obstacle(
    data: MultimodalDataset, make_model: Callable[[MultimodalDataset], Any], fit: Mapping[str, Any], equal_n: bool
) -> str | None:
    """Why the models of all subsets cannot be trained together, in words; None when they can."""
    odd = [f"{name!r} is a {kind}" for name, kind in data.kinds.items() if kind != "vector"]
    if odd:
        return f"only vectors are stacked, and {odd[0]}"
    if not equal_n and not bool(data.present.all()):
        return "with equal_n=False the subsets of an incomplete pilot train on different numbers of samples"
    for name, value in fit.items():
        if name not in UNDERSTOOD and (name not in HARMLESS or value != HARMLESS[name]):
            return f"fit has {name}={value!r}, which only lacunar.fit understands"
    with torch.random.fork_rng([]):
        made = make_model(data)
    if type(made) is not MultimodalModel:
        return f"make_model returns {type(made).__name__}, and only a lacunar.MultimodalModel is stacked"
    others = sorted({type(part).__name__ for part in made.modules()} - {kind.__name__ for kind in STACKABLE})
    others = [name for name in others if name not in ("MultimodalModel", "ModuleList")]
    if others:
        return f"the model holds {', '.join(others)}; only {', '.join(kind.__name__ for kind in STACKABLE)} are stacked"
    return None


def pays(data: MultimodalDataset) -> bool:
    """Whether training together is faster, by the number of modalities and samples."""
    return 1 < len(data.names) <= MOST_MODALITIES and len(data) <= MOST_SAMPLES


def train_batched(cell: BatchedCell) -> dict[str, Any]:
    """Train and score the models of a repeat.

    Returns:
        Plain data as :func:`lacunar.planning.retrain.train_cell` returns it, a record for each subset.
    """
    start = time.perf_counter()
    records = []
    with one_thread(), torch.random.fork_rng([]):
        models = []
        for own in cell.cells:
            torch.manual_seed(own.seed)
            models.append(own.make_model(own.train))
        # Models of other sizes of the train part make other batches; there are such only where a subset was
        # never seen in validation and gave up some of its train samples.
        for size in sorted({len(own.train) for own in cell.cells}):
            chosen = [k for k, own in enumerate(cell.cells) if len(own.train) == size]
            train_together([cell.cells[k] for k in chosen], [models[k] for k in chosen])
        for own, model in zip(cell.cells, models):
            with torch.no_grad():
                output = torch.cat([model.eval()(batch) for batch in own.held.batches(BATCH)])
            record: dict[str, Any] = {"code": own.code, "n_train": len(own.train), "n_eval": len(own.held)}
            records.append(record | scored_record(own.metric, output, own.held, own.rows, own.weight))
    return {"key": cell.key, "trained": len(models), "seconds": time.perf_counter() - start, "subsets": records}


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
    from lacunar.training.module import make_optimizer
    from lacunar.training.options import TrainingOptions
    from lacunar.training.sampler import GlobalBatches, derive_seed

    count = len(cells[0].train)
    options = _options(cells[0].fit, cells[0].seed, TrainingOptions).checked(count)
    assert options.max_epochs is not None and options.batch_size is not None
    bundle = _Bundle(cells, models)
    train, val = _Samples(cells, [cell.train for cell in cells]), _Samples(cells, [cell.val for cell in cells])
    steps = options.max_epochs * len(GlobalBatches(count, options.batch_size))
    optimizer, schedule = make_optimizer(
        bundle.groups(options.weight_decay), options.lr, options.schedule, steps, fused=True
    )
    averaged = AveragedWeights(bundle.parameters, options.average) if options.average is not None else None
    if averaged is not None:
        averaged.start()
    chosen = _Choice(len(cells), options.select, options.patience, bundle)
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


def _options(fit: Mapping[str, Any], seed: int, kind: Any) -> Any:
    """What fit would do when it is left to its defaults, with what was given."""
    import inspect

    from lacunar.training.fit import fit as function

    usual = {name: part.default for name, part in inspect.signature(function).parameters.items()}
    return kind(**{name: fit.get(name, usual[name]) for name in kind.names() if name != "seed"}, seed=seed)


class _Decoder(nn.Module):
    """Completion, fusion and head of a model whose samples have all of its modalities."""

    def __init__(self, model: MultimodalModel):
        super().__init__()
        self.completion, self.fusion, self.head = model.completion, model.fusion, model.head

    def forward(self, h: Tensor) -> Tensor:
        present = torch.ones(h.shape[:2], dtype=torch.bool, device=h.device)
        if self.completion is not None:
            h = self.completion(h, present)
        return self.head(self.fusion(h, present))


class _Stack:
    """Modules of one structure, every parameter and buffer with a leading axis of modules."""

    def __init__(self, modules: list[nn.Module], owners: list[int]):
        self.modules, self.owners = modules, torch.tensor(owners)
        for module in modules:
            module.train()
        self.parameters, self.buffers = stack_module_state(modules)  # type: ignore[arg-type]
        self.template = copy.deepcopy(modules[0]).to("meta")

    def __call__(self, x: Tensor) -> Tensor:
        """The output ``(k, n, ...)`` of each module for its own ``x (k, n, ...)``."""

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(self.template, (parameters, buffers), (x,))

        return vmap(one, randomness="different")(self.parameters, self.buffers, x)

    def give_back(self) -> None:
        """Put each module's own slice into it."""
        with torch.no_grad():
            for i, module in enumerate(self.modules):
                own = dict(module.named_parameters())
                for name, stacked in self.parameters.items():
                    own[name].copy_(stacked[i])


class _Bundle:
    """All models as stacks: one for the encoders of each modality, one for the decoders of each size of subset."""

    def __init__(self, cells: Sequence[Cell], models: Sequence[MultimodalModel]):
        self.cells, self.models = cells, models
        for cell, model in zip(cells, models):
            model.task, model.inputs = cell.train.task, input_facts(cell.train)
        names = list(dict.fromkeys(name for model in models for name in model.names))
        self.encoders = {}
        for name in names:
            owners = [k for k, model in enumerate(models) if name in model.names]
            self.encoders[name] = self._stack([models[k].encoder(name) for k in owners], owners, f"encoder of {name!r}")
        self.decoders = []
        for size in sorted({len(model.names) for model in models}):
            owners = [k for k, model in enumerate(models) if len(model.names) == size]
            made: list[nn.Module] = [_Decoder(models[k]) for k in owners]
            self.decoders.append(self._stack(made, owners, f"completion, fusion or head of {size} modalities"))
        self.stacks = [*self.encoders.values(), *self.decoders]
        self.parameters = [p for stack in self.stacks for p in stack.parameters.values() if p.requires_grad]
        place = {(name, k): i for i, (name, k) in enumerate(
            (name, k) for name, stack in self.encoders.items() for k in stack.owners.tolist()
        )}  # fmt: skip
        #: Where among the features of all encoders each model of a size finds its own.
        self.places = [
            torch.tensor([[place[name, k] for name in models[k].names] for k in stack.owners.tolist()])
            for stack in self.decoders
        ]
        self.order = torch.cat([stack.owners for stack in self.decoders]).argsort()

    @staticmethod
    def _stack(modules: list[nn.Module], owners: list[int], what: str) -> _Stack:
        try:
            return _Stack(modules, owners)
        except RuntimeError as error:
            raise ConfigError(f"batched=True: the {what} differs from model to model: {error}") from error

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Groups of the stacked parameters, those that :func:`lacunar.fit` makes of a single model's."""
        from lacunar.training.module import parameter_groups

        found: dict[float, list[Tensor]] = {}
        for stack in self.stacks:
            by_id = {id(parameter): name for name, parameter in stack.template.named_parameters()}
            for group in parameter_groups([stack.template], weight_decay):
                for parameter in group["params"]:
                    found.setdefault(group["weight_decay"], []).append(stack.parameters[by_id[id(parameter)]])
        return [{"params": params, "weight_decay": decay} for decay, params in found.items()]

    def train(self, mode: bool = True) -> None:
        for stack in self.stacks:
            stack.template.train(mode)

    def outputs(self, samples: _Samples, rows: Tensor) -> Tensor:
        """Raw outputs ``(K, n, n_outputs)`` of each model for its own rows ``(K, n)``."""
        # The fused kernel has no batched form on a processor; of two to six tokens the plain products are faster.
        with sdpa_kernel(SDPBackend.MATH):
            h = torch.cat([stack(samples.inputs(name, stack.owners, rows)) for name, stack in self.encoders.items()])
            found = [stack(h[place].transpose(1, 2)) for stack, place in zip(self.decoders, self.places)]
        return torch.cat(found)[self.order]

    def losses(self, samples: _Samples, rows: Tensor, scores: bool = False) -> tuple[Tensor, Tensor | None]:
        """Loss of each row of each model, ``(K, n)``, and its score where that is asked for."""
        output = self.outputs(samples, rows)
        target = samples.targets(rows)
        found, scored = [], []
        start = 0
        while start < len(self.cells):  # models of one repeat share the task
            task = self.cells[start].train.task
            assert task is not None
            end = start + 1
            while end < len(self.cells) and self.cells[end].train.task is task:
                end += 1
            made, truth = output[start:end].flatten(0, 1), target[start:end].flatten(0, 1)
            found.append(task.loss(made, truth, smoothing=0.0).view(end - start, -1))
            if scores:
                scored.append(task.score(made, truth).view(end - start, -1))
            start = end
        return torch.cat(found), torch.cat(scored) if scores else None

    @torch.no_grad()
    def clip(self, most: float) -> None:
        """Scale each model's gradient to a norm of at most ``most``."""
        squares = torch.zeros(len(self.cells))
        for stack in self.stacks:
            for parameter in stack.parameters.values():
                if parameter.grad is not None:
                    squares.index_add_(0, stack.owners, parameter.grad.flatten(1).square().sum(1))
        factor = (most / (squares.sqrt() + 1e-6)).clamp(max=1.0)
        for stack in self.stacks:
            own = factor[stack.owners]
            for parameter in stack.parameters.values():
                if parameter.grad is not None:
                    parameter.grad.mul_(own.view(-1, *[1] * (parameter.ndim - 1)))

    def give_back(self) -> None:
        for stack in self.stacks:
            stack.give_back()
        for model in self.models:
            model.eval()


class _Samples:
    """The values of each cell's samples, kept once where several cells have the same."""

    def __init__(self, cells: Sequence[Cell], parts: Sequence[MultimodalDataset]):
        self.count = torch.tensor([len(part) for part in parts])
        most = int(self.count.max())
        kept: dict[str, dict[str, int]] = {}
        stores: dict[str, list[Tensor]] = {}
        self.which: dict[str, Tensor] = {}
        targets = []
        for k, (cell, part) in enumerate(zip(cells, parts)):
            batch = part.__getitems__(range(len(part)))
            mark = "\0".join([str(cell.seed), *map(str, part.ids.tolist())])
            for name in part.names:
                known = kept.setdefault(name, {})
                if mark not in known:
                    known[mark] = len(known)
                    stores.setdefault(name, []).append(_padded(batch.inputs[name], most))
                self.which.setdefault(name, torch.zeros(len(cells), dtype=torch.int64))[k] = known[mark]
            assert batch.target is not None
            targets.append(_padded(batch.target, most))
        self.stores = {name: torch.stack(parts) for name, parts in stores.items()}
        self.target = torch.stack(targets)

    def inputs(self, name: str, owners: Tensor, rows: Tensor) -> Tensor:
        """Values ``(k, n, D)`` of a modality for the models that have it."""
        return self.stores[name][self.which[name][owners][:, None], rows[owners]]

    def targets(self, rows: Tensor) -> Tensor:
        """Encoded targets ``(K, n, ...)``."""
        return self.target[torch.arange(len(rows))[:, None], rows]


def _padded(values: Tensor, most: int) -> Tensor:
    """Rows repeated up to ``most``; what is repeated is never counted."""
    return values[torch.arange(most).clamp(max=len(values) - 1)]


@torch.no_grad()
def _validate(bundle: _Bundle, samples: _Samples) -> tuple[Tensor, Tensor]:
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


class _Choice:
    """The weights of each model's best epoch, by the rule of :class:`lacunar.training.selection.Selection`."""

    def __init__(self, count: int, select: str, patience: int | None, bundle: _Bundle):
        self.select, self.patience, self.bundle = select, patience, bundle
        self.epoch = torch.full((count,), -1)
        self.score = torch.full((count,), -torch.inf, dtype=torch.float64)
        self.loss = torch.full((count,), torch.inf, dtype=torch.float64)
        self.stopped = torch.zeros(count, dtype=torch.bool)
        self.weights = [p.detach().clone() for p in bundle.parameters]

    @torch.no_grad()
    def update(self, epoch: int, score: Tensor, loss: Tensor) -> None:
        better = (self.epoch < 0) | (self.score.isnan() & ~score.isnan()) | (score > self.score)
        better |= (score == self.score) & (loss < self.loss)
        better &= ~self.stopped
        self.score, self.loss = torch.where(better, score, self.score), torch.where(better, loss, self.loss)
        self.epoch[better] = epoch
        kept = better if self.select == "best" else ~self.stopped
        at = 0
        for stack in self.bundle.stacks:
            own = kept[stack.owners]
            for parameter in stack.parameters.values():
                if parameter.requires_grad:
                    self.weights[at][own] = parameter[own]
                    at += 1
        if self.patience is not None:
            self.stopped |= epoch - self.epoch >= self.patience

    @torch.no_grad()
    def load(self) -> None:
        for parameter, kept in zip(self.bundle.parameters, self.weights):
            parameter.copy_(kept)
