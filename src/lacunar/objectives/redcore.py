"""RedCore: imputers of every modality, whose training balances modalities by how hard they are to reconstruct."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError
from lacunar.models.channels import ChannelMLP, ResidualCascade
from lacunar.models.configurable import Configurable
from lacunar.models.heads import unimodal_head
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.base import Objective, available_codes, batch_mean
from lacunar.objectives.features import feature_width, refuse_space
from lacunar.objectives.placing import beside
from lacunar.objectives.ranges import Between, Ranges
from lacunar.parallel import total

__all__ = ["RedCore", "VariationalImputer"]


class VariationalImputer(Configurable):
    """Stochastic representations of what is there, and imputed ones of what is not.

    ``z_m = mu_m + exp(logvar_m / 2) eps`` for a modality that is present; ``g_m(z_others)``, a residual cascade on
    the concatenation of all others, zeros where absent, for one that is not. It takes the place of a completion
    module. Without training, ``z_m = mu_m``.

    Args:
        features: width C of one modality.
        modalities: their number M.
        blocks: autoencoders in each cascade.
        sample_at_test: draw ``z`` at prediction as well, as the released code does.

    Shapes:
        ``(P, M, C)``, presence ``(P, M)`` -> ``(P, M, C)``.
    """

    def __init__(self, features: int, modalities: int, blocks: int = 5, sample_at_test: bool = False):
        super().__init__()
        self.modalities, self.sample_at_test = modalities, sample_at_test
        self.encoding = nn.ModuleList(
            [nn.Sequential(nn.Sigmoid(), nn.Linear(features, 2 * features)) for _ in range(modalities)]
        )
        width = features * (modalities - 1)
        hidden = [max(2, width // part) for part in (1, 2, 4)]  # 256, 128 and 64 of the published 256
        self.imputers = nn.ModuleList([ResidualCascade(width, hidden, blocks) for _ in range(modalities)])
        self.outputs = nn.ModuleList([ChannelMLP([width, features]) for _ in range(modalities)])

    def represent(self, h: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``z``, ``mu`` and ``logvar`` of what is present, ``(P, M, C)`` each, exact zeros elsewhere."""
        tables = [torch.zeros_like(h) for _ in range(3)]
        for m, encoding in enumerate(self.encoding):
            rows = present[:, m].nonzero().squeeze(1)
            mu, logvar = encoding(h[rows, m]).chunk(2, 1)
            noisy = self.training or self.sample_at_test
            z = mu + torch.exp(logvar / 2) * torch.randn_like(mu) if noisy else mu
            place = rows, rows.new_tensor(m)
            tables = [table.index_put(place, value.to(h.dtype)) for table, value in zip(tables, (z, mu, logvar))]
        return tables[0], tables[1], tables[2]

    def impute(self, z: Tensor) -> Tensor:
        """Every modality from the others, ``(P, M, C)``."""
        made = []
        for m in range(self.modalities):
            others = torch.cat([z[:, :m], z[:, m + 1 :]], 1).flatten(1)
            made.append(self.outputs[m](self.imputers[m](others)[0]))
        return torch.stack(made, 1)

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """Representations of what is present and imputed ones of the rest."""
        z, _, _ = self.represent(h, present)
        return torch.where(present[:, :, None], z, self.impute(z))


class RedCore(Objective):
    r"""RedCore: relative-advantage aware cross-modal representation learning for incomplete training data.

    ``L = task + single + kl * KL + reconstruction * sum_m beta_m ||g_m(z_others) - z_m||^2`` (summed over features,
    mean over the rows that have m). The heads, one per modality, are supervised on imputed rows as well. The weights
    beta solve an outer problem by steps: with running errors ``l_m``, every third batch
    ``beta <- max(beta - eta (mean l - l_m) / mean l, .1)``, scaled to norm 1, so modalities that are hard to
    reconstruct gain weight; eta grows by half every 500 batches.

    Weights, running errors, eta's clock: all in the ``state_dict`` (the release loses them on resuming). Running
    errors hold no graph.

    For classification, several labels and numbers, with incomplete training data of two modalities or more whose
    features are vectors. One stage.

    Args:
        kl: lambda of the paper; the term is twice the divergence, as released.
        reconstruction: weight of the imputation error. It sums over features, so it depends on their number: 128 in
            the release.
        single: weight of the single-modality heads.
        rate: eta before it grows; it is half again as much from the first batch on, and again every 500.
        smoothing: weight of the new value in the running errors.
        blocks: autoencoders in each imputer.
        sample_at_test: see :class:`VariationalImputer`.
        label_smoothing: see :class:`Objective`.

    Raises:
        ConfigError: an option out of range.

    Attributes:
        diagnostics: ``beta``, ``error`` (running) and ``advantage``, each ``(M,)``.

    References:
        Sun et al., *RedCore: Relative Advantage Aware Cross-modal Representation Learning for Missing Modalities with
        Imbalanced Missing Rates*, AAAI 2024, arXiv:2312.10386.
    """

    ranges: ClassVar[Ranges] = {"kl": Between(1e-4, 1e-2, log=True), "reconstruction": Between(0.01, 0.5, log=True)}

    task_kinds: ClassVar[frozenset[str]] = frozenset({"classification", "multilabel", "regression"})
    beta: Tensor
    error: Tensor
    batches: Tensor
    #: The last is where eta stops growing: far beyond what moves beta, and before numbers overflow.
    EVERY, FLOOR, GROWTH, PERIOD, MOST = 3, 0.1, 1.5, 500, 60

    def __init__(
        self,
        kl: float = 8e-4,
        reconstruction: float = 0.15,
        single: float = 1.0,
        rate: float = 0.1,
        smoothing: float = 0.7,
        blocks: int = 5,
        sample_at_test: bool = False,
        label_smoothing: float | None = None,
    ):
        super().__init__(label_smoothing)
        for name, value in (("kl", kl), ("reconstruction", reconstruction), ("single", single), ("rate", rate)):
            if not value >= 0:
                raise ConfigError(f"RedCore: {name}: expected a number >= 0, got {value}.")
        if not 0 < smoothing <= 1 or blocks < 1:
            raise ConfigError(f"RedCore: expected smoothing in (0, 1] and blocks >= 1, got {smoothing} and {blocks}.")
        self.kl, self.reconstruction, self.single = float(kl), float(reconstruction), float(single)
        self.rate, self.smoothing, self.blocks, self.sample_at_test = rate, smoothing, blocks, sample_at_test
        self.imputer: VariationalImputer | None = None
        self.heads: nn.ModuleList | None = None

    def setup(self, model: MultimodalModel, data: MultimodalDataset) -> None:
        super().setup(model, data)
        M = len(data.names)
        if M < 2:
            raise ConfigError(f"RedCore imputes one modality from others: expected at least 2, got {M}.")
        refuse_space(self, model, data)
        device = next(iter(model.parameters())).device
        width = feature_width(model, data)
        self.imputer = beside(model, VariationalImputer(width, M, self.blocks, self.sample_at_test))
        self.heads = beside(model, nn.ModuleList([unimodal_head(model.head, width) for _ in range(M)]))
        self.register_buffer("beta", torch.ones(M, device=device))
        self.register_buffer("error", torch.zeros(M, device=device))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64, device=device))

    def build(self, model: nn.Module) -> nn.Module:
        assert isinstance(model, MultimodalModel)
        return self.with_parts(model, completion=self.imputer)

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        assert self.imputer is not None
        assert self.heads is not None
        target = self._target(batch)
        available_codes(model.lattice, batch, batch.present)
        features = model.encode(batch)
        present = features.present
        z, mu, logvar = self.imputer.represent(features.h, present)
        made = self.imputer.impute(z)
        filled = torch.where(present[:, :, None], z, made)
        fused = model.fusion(filled, torch.ones_like(present))
        terms = {"task": batch_mean(self.losses(model.head(fused), target))}
        if self.single > 0:
            own = [batch_mean(self.losses(head(filled[:, m]), target)) for m, head in enumerate(self.heads)]
            terms["single"] = self.single * torch.stack(own).sum()
        if self.kl > 0:
            divergence = (1 + logvar - mu.square() - logvar.exp()).sum(2) * present
            terms["kl"] = -self.kl * batch_mean(divergence.sum(1))
        squared = (made - z).square().sum(2)
        errors = torch.stack([batch_mean(squared[present[:, m], m]) for m in range(len(self.heads))])
        terms["reconstruction"] = self.reconstruction * (self.beta.clone() * errors).sum()
        if self.training:
            self._balance(errors.detach(), present)
        return terms

    def _balance(self, errors: Tensor, present: Tensor) -> None:
        """The outer step: running errors, their relative advantage, the weights."""
        met = total(present.sum(0).to(errors.dtype)) > 0
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            errors = total(errors) / torch.distributed.get_world_size()
        old = torch.where(self.error > 0, self.error, errors)  # nothing is known before the first batch
        self.error.copy_(torch.where(met, (1 - self.smoothing) * old + self.smoothing * errors, self.error))
        known = self.error > 0
        mean = (self.error.sum() / known.sum().clamp(min=1)).clamp(min=1e-12)
        # A modality that nobody has had so far is neither ahead nor behind.
        advantage = torch.where(known, (mean - self.error) / mean, 0.0)
        eta = self.rate * self.GROWTH ** min(1 + int(self.batches) // self.PERIOD, self.MOST)
        if int(self.batches) % self.EVERY == 0:
            raised = (self.beta - eta * advantage).clamp(min=self.FLOOR)
            self.beta.copy_(raised / raised.norm())
        self.batches += 1
        self.diagnostics = {"beta": self.beta.clone(), "error": self.error.clone(), "advantage": advantage}

    def extra_repr(self) -> str:
        return f"kl={self.kl}, reconstruction={self.reconstruction}"
