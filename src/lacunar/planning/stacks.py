"""Models of the same parts as stacks with a leading axis of models, their samples, and each one's best weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError
from lacunar.models.multimodal import MultimodalModel, input_facts
from lacunar.planning.retrain import Cell

__all__ = ["Bundle", "Choice", "Samples", "Stack"]


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


def _shapes(module: nn.Module) -> tuple[Any, ...]:
    state = module.state_dict(keep_vars=True)
    return tuple((name, tuple(value.shape), value.requires_grad) for name, value in state.items())


class Stack:
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


class Bundle:
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
    def _stack(modules: list[nn.Module], owners: list[int], what: str) -> Stack:
        if len({(repr(module), _shapes(module)) for module in modules}) > 1:
            raise ConfigError(
                f"batched=True: the {what} differs from subset to subset or from repeat to repeat. Leave batched out."
            )
        return Stack(modules, owners)

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

    def outputs(self, samples: Samples, rows: Tensor) -> Tensor:
        """Raw outputs ``(K, n, n_outputs)`` of each model for its own rows ``(K, n)``."""
        # The fused kernel has no batched form on a processor; of two to six tokens the plain products are faster.
        with sdpa_kernel(SDPBackend.MATH):
            h = torch.cat([stack(samples.inputs(name, stack.owners, rows)) for name, stack in self.encoders.items()])
            found = [stack(h[place].transpose(1, 2)) for stack, place in zip(self.decoders, self.places)]
        return torch.cat(found)[self.order]

    def losses(self, samples: Samples, rows: Tensor, scores: bool = False) -> tuple[Tensor, Tensor | None]:
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


class Samples:
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


class Choice:
    """The weights of each model's best epoch, by the rule of :class:`lacunar.training.selection.Selection`."""

    def __init__(self, count: int, select: str, patience: int | None, bundle: Bundle):
        self.select, self.patience, self.bundle = select, patience, bundle
        self.epoch = torch.full((count,), -1)
        self.score = torch.full((count,), -torch.inf, dtype=torch.float64)
        self.loss = torch.full((count,), torch.inf, dtype=torch.float64)
        self.stopped = torch.zeros(count, dtype=torch.bool)
        self.weights = [p.detach().clone() for p in bundle.parameters]

    @torch.no_grad()
    def update(self, epoch: int, score: Tensor, loss: Tensor) -> None:
        new, best = (score, -loss), (self.score, -self.loss)
        if self.select == "loss":
            new, best = new[::-1], best[::-1]
        better = (self.epoch < 0) | (best[0].isnan() & ~new[0].isnan()) | (new[0] > best[0])
        better |= (new[0] == best[0]) & (new[1] > best[1])
        better &= ~self.stopped
        self.score, self.loss = torch.where(better, score, self.score), torch.where(better, loss, self.loss)
        self.epoch[better] = epoch
        kept = ~self.stopped if self.select == "last" else better
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
