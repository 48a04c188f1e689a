"""Gradient blending: every modality and the joint model have a loss, weighted by how they generalise."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lacunar.arguments import above
from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError
from lacunar.lattice import Pairs
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.base import Objective, available_codes, batch_mean
from lacunar.objectives.features import feature_width
from lacunar.objectives.ranges import OneOf, Ranges
from lacunar.objectives.single_heads import listed_heads, single_heads

__all__ = ["GradientBlending", "blending_weights"]

#: Smallest squared overfitting gap: two losses that move alike would weigh infinitely.
SMALLEST = 1e-4


class GradientBlending(Objective):
    r"""G-Blending: ``L = sum_k w_k L_k`` over single-modality heads and the joint head.

    Every ``every`` epochs (a super-epoch) a copy of the network is trained with each loss alone for ``epochs``
    epochs. With ``G_k`` the drop of its loss on rows that were held out and ``O_k`` the growth of the gap between
    held-out and train loss, ``w_k`` is ``max(G_k, 0) / O_k^2`` (``|O_k|`` at least .01), scaled to sum to the number of
    losses. Losses are
    means over the rows that have the modality, on both sides, and both are measured before and after.

    A share of the training rows, in whole groups where data have them, is held out for this, and the model never trains
    on it. ``every=None`` estimates
    the weights once, before the first epoch (offline blending). A modality that no held-out row has keeps weight 1.

    For every task and for incomplete training data. One stage.

    Args:
        every: epochs from one estimate to the next.
        epochs: how long a copy is trained.
        holdout: share of the training rows that is held out, above 0.
        lr: learning rate of the copies, AdamW.
        batch_size: of the copies.
        keep_size: draw some rows twice, so that an epoch has as many steps as for methods that hold nothing out.
        heads: a head for each modality; shaped like the model's head when left out.
        label_smoothing: see :class:`Objective`.

    Raises:
        ConfigError: an option out of range.

    Attributes:
        diagnostics: ``weight``, ``(M,)``, the weights of the single-modality losses, and ``joint_weight``.

    References:
        Wang, Tran and Feiszli, *What Makes Training Multi-modal Classification Networks Hard?*, CVPR 2020,
        arXiv:1905.12681.
    """

    ranges: ClassVar[Ranges] = {"every": OneOf((5, 10, 20)), "epochs": OneOf((1, 2, 4))}

    weight: Tensor
    held_out: Tensor

    def __init__(
        self,
        every: int | None = 10,
        epochs: int = 2,
        holdout: float = 0.15,
        lr: float = 1e-3,
        batch_size: int = 64,
        keep_size: bool = False,
        heads: Mapping[str, nn.Module] | None = None,
        label_smoothing: float | None = None,
    ):
        super().__init__(label_smoothing)
        if (every is not None and every < 1) or epochs < 1 or batch_size < 1:
            raise ConfigError(
                f"GradientBlending: every, epochs and batch_size are whole numbers from 1 up, got {every}, {epochs} "
                f"and {batch_size}."
            )
        above(0, lr=lr)
        if not 0 < holdout < 1:
            raise ConfigError(f"GradientBlending: holdout: expected a share in (0, 1), got {holdout}.")
        self.every, self.epochs, self.holdout, self.lr, self.batch_size = every, epochs, holdout, lr, batch_size
        self.keep_size = keep_size
        self.heads, self._heads_for = listed_heads("GradientBlending", heads)

    def setup(self, model: MultimodalModel, data: MultimodalDataset) -> None:
        """Create the heads and draw the rows that are held out, evenly over classes where there are any.

        Raises:
            ConfigError: another task, heads for other modalities, or nothing left on one side of ``holdout``.
            DataError: data without a target.
        """
        super().setup(model, data)
        device = next(iter(model.parameters())).device
        width = feature_width(model, data)
        self.heads = single_heads("GradientBlending", self.heads, self._heads_for, model, width)
        self.register_buffer("weight", torch.ones(len(data.names) + 1, device=device))
        self.register_buffer("held_out", _spread(data, self.holdout))
        if bool(self.held_out.all()) or not bool(self.held_out.any()):
            raise ConfigError(f"GradientBlending: holdout={self.holdout} of {len(data)} samples leaves a part empty.")

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        losses = self._losses(model, self.heads, batch)
        weight = self.weight
        self.diagnostics = {"weight": weight[:-1].clone(), "joint_weight": weight[-1].clone()}
        return {"task": weight[-1] * losses[-1], "single": (weight[:-1] * losses[:-1]).sum()}

    def _losses(self, model: MultimodalModel, heads: nn.Module | None, batch: Batch) -> Tensor:
        """Loss of each single-modality head and of the joint one, ``(M + 1,)``."""
        assert isinstance(heads, nn.ModuleList)
        target = self._target(batch)
        features = model.encode(batch)
        codes = available_codes(model.lattice, batch, features.present)
        rows = torch.arange(len(batch), device=batch.device)
        losses = []
        for m, head in enumerate(heads):
            own = features.present[:, m]
            losses.append(batch_mean(self.losses(head(features.h[own, m]), target[own])))
        losses.append(batch_mean(self.losses(model.predict(features, Pairs(rows, codes)), target)))
        return torch.stack(losses)

    def training_set(self, data: MultimodalDataset, epoch: int) -> MultimodalDataset:
        rows = (~self.held_out.cpu()).nonzero().squeeze(1)
        if self.keep_size:
            again = torch.randint(len(rows), (len(data) - len(rows),))
            rows = torch.cat([rows, rows[again]])
        return data.select(rows)

    def on_epoch_start(self, model: MultimodalModel, data: MultimodalDataset, epoch: int) -> None:
        if epoch == 0 or (self.every is not None and epoch % self.every == 0):
            train, held = data.select(~self.held_out.cpu()), data.select(self.held_out.cpu())
            before = self._measure(model, self.heads, train), self._measure(model, self.heads, held)
            after = [self._train_alone(model, k, train, held) for k in range(len(self.weight))]
            drop = before[1] - torch.stack([pair[1] for pair in after])
            growth = torch.stack([pair[1] - pair[0] for pair in after]) - (before[1] - before[0])
            measured = torch.cat([held.availability > 0, torch.tensor([True])]).to(self.weight.device)
            self.weight.fill_(1.0)
            self.weight[measured] = blending_weights(drop[measured], growth[measured])

    def _train_alone(
        self, model: MultimodalModel, k: int, train: MultimodalDataset, held: MultimodalDataset
    ) -> tuple[Tensor, Tensor]:
        """Train and held-out loss of head k after a copy was trained with it alone."""
        other, heads = copy.deepcopy(model), copy.deepcopy(self.heads)
        assert heads is not None
        device = self.weight.device
        optimizer = torch.optim.AdamW([*other.parameters(), *heads.parameters()], self.lr)
        other.train(), heads.train()
        batches = -(-len(train) // self.batch_size)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(train)).tensor_split(batches):  # none of a single row, which norms refuse
                optimizer.zero_grad()
                loss = self._losses(other, heads, train.__getitems__(rows.tolist()).to(device))[k]
                loss.backward()
                optimizer.step()
        return self._measure(other, heads, train)[k], self._measure(other, heads, held)[k]

    @torch.no_grad()
    def _measure(self, model: MultimodalModel, heads: nn.Module | None, data: MultimodalDataset) -> Tensor:
        """Mean losses over a data set in evaluation mode, each over the rows that have its modality."""
        assert heads is not None
        training = model.training
        model.eval(), heads.eval()
        sums = torch.zeros_like(self.weight)
        for batch in data.batches():
            counts = torch.cat([batch.present.sum(0), torch.tensor([len(batch)])]).to(sums)
            sums += counts * self._losses(model, heads, batch.to(sums.device))
        model.train(training), heads.train(training)
        counts = torch.cat([data.availability, torch.tensor([len(data)])]).to(sums)
        return sums / counts.clamp(min=1)

    def extra_repr(self) -> str:
        return f"every={self.every}, epochs={self.epochs}, holdout={self.holdout}"


def blending_weights(drop: Tensor, growth: Tensor) -> Tensor:
    """Weights ``max(G, 0) / O^2`` with ``|O|`` at least .01, scaled to sum to their number; even where no loss fell.

    Args:
        drop: G, how much each held-out loss went down, ``(K,)``.
        growth: O, how much the gap between held-out and train loss grew, ``(K,)``.
    """
    raw = drop.clamp(min=0) / growth.square().clamp(min=SMALLEST)
    whole = raw.sum()
    return raw * len(raw) / whole if whole > 0 else torch.ones_like(raw)


def _spread(data: MultimodalDataset, share: float) -> Tensor:
    """Booleans ``(N,)`` with a share set, evenly over classes, drawn from the global generator; whole groups."""
    groups = np.arange(len(data)) if data.groups is None else np.unique(data.groups, return_inverse=True)[1]
    first = torch.from_numpy(np.unique(groups, return_index=True)[1])
    order = torch.randperm(len(first))
    if data.task is not None and data.task.kind == "classification" and data.target is not None:
        order = order[data.target[first][order].argsort(stable=True)]
    # Every 1 / share-th of the sorted groups, so that each class gives its part.
    steps = torch.floor(torch.arange(len(first) + 1, dtype=torch.float64) * share + 0.5)
    chosen = torch.zeros(len(first), dtype=torch.bool)
    chosen[order[steps[1:] > steps[:-1]]] = True
    return chosen[torch.from_numpy(groups)]
