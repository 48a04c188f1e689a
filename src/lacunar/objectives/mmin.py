"""Missing modality imagination: a cascade of autoencoders imagines the features of what is missing."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError
from lacunar.models.channels import ChannelMLP, ResidualCascade
from lacunar.models.configurable import Configurable
from lacunar.models.heads import unimodal_head
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.base import Objective, Stage, available_codes, batch_mean
from lacunar.objectives.features import feature_width, refuse_space
from lacunar.objectives.patterns import random_patterns
from lacunar.objectives.placing import beside
from lacunar.objectives.ranges import Between, Ranges

__all__ = ["MMIN", "Imagination"]


class Imagination(Configurable):
    """A cascade from concatenated features to imagined ones, and one back; its latents are what the head reads.

    It takes the place of a fusion.

    Args:
        features: width C of one modality.
        modalities: their number M.
        blocks: autoencoders in each cascade.

    Shapes:
        ``(P, M, C)``, presence ``(P, M)`` -> latents ``(P, out_features)``.
    """

    def __init__(self, features: int, modalities: int, blocks: int = 5):
        super().__init__()
        width = features * modalities
        self.forward_cascade = ResidualCascade(width, blocks=blocks)
        self.translate = ChannelMLP([width, width, width])
        self.backward_cascade = ResidualCascade(width, blocks=blocks)
        self.out_features = self.forward_cascade.latent_features

    def imagine(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Imagined features ``(P, M C)`` of ``h (P, M C)``, and the latents."""
        made, latents = self.forward_cascade(h)
        return self.translate(made), latents

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """Latents of ``h (P, M, C)``, zeros where absent."""
        return self.imagine(h.flatten(1))[1]


class MMIN(Objective):
    r"""MMIN: the missing modality imagination network, as published or as a baseline for incomplete training data.

    ``L = task + imagination * MSE(h', t) + cycle * MSE(h'', sg(h))``: from the features ``h`` of what is shown a
    cascade imagines ``h'``, another goes back to ``h''``, and the head reads the latents of the first.

    *Published* (``teacher=True``): a first stage trains encoders on everything, and a frozen copy of them gives ``t``,
    the features of what the second stage hides; so every training sample must have every modality. Each sample
    hides a random pattern of the ``2^M - 2`` that show and hide something. *Incomplete* (``teacher=False``): the
    form that MCE compared with; no teacher, no imagination term, one stage, random patterns of what a sample has
    (showing everything included).

    Where the release feeds zeros to an encoder or to the teacher, the features here are exact zeros.

    For classification, several labels and numbers, with features that are vectors. Complete training data and two
    stages where it is published, incomplete and one where it is reduced.

    Args:
        teacher: the published form.
        imagination: weight of the imagination term.
        cycle: weight of the cycle term.
        blocks: autoencoders in each cascade.
        pretraining: share of the epochs of the first stage (20 of 80 in the release).
        label_smoothing: see :class:`Objective`.

    Raises:
        ConfigError: an option out of range.

    References:
        Zhao, Li and Jin, *Missing Modality Imagination Network for Emotion Recognition with Uncertain Missing
        Modalities*, ACL 2021, doi:10.18653/v1/2021.acl-long.203. The reduced form: Zhao et al., *MCE*, 2025.
    """

    ranges: ClassVar[Ranges] = {"imagination": Between(0.5, 8.0, log=True), "cycle": Between(0.5, 4.0, log=True)}

    task_kinds: ClassVar[frozenset[str]] = frozenset({"classification", "multilabel", "regression"})

    def __init__(
        self,
        teacher: bool = False,
        imagination: float = 4.0,
        cycle: float = 2.0,
        blocks: int = 5,
        pretraining: float = 0.25,
        label_smoothing: float | None = None,
    ):
        if not 0 < pretraining < 1:
            raise ConfigError(f"MMIN: pretraining: expected a share of the epochs in (0, 1), got {pretraining}.")
        self.with_teacher, self.pretraining = teacher, pretraining
        super().__init__(label_smoothing)
        if not imagination >= 0 or not cycle >= 0:
            raise ConfigError(f"MMIN: imagination and cycle: expected numbers >= 0, got {imagination} and {cycle}.")
        if blocks < 1:
            raise ConfigError(f"MMIN: blocks: expected at least 1, got {blocks}.")
        self.imagination, self.cycle, self.blocks = float(imagination), float(cycle), blocks
        self.network: Imagination | None = None
        self.head: nn.Module | None = None
        self.teacher: nn.ModuleList | None = None

    @property
    def requires_complete_training_data(self) -> bool:  # type: ignore[override]
        """The published form learns from what it hides."""
        return self.with_teacher

    def stages(self) -> Sequence[Stage]:
        if not self.with_teacher:
            return (Stage("imagination"),)
        return Stage("pretraining", self.pretraining, selects=False), Stage("imagination", 1 - self.pretraining)

    def setup(self, model: MultimodalModel, data: MultimodalDataset) -> None:
        super().setup(model, data)
        M = len(data.names)
        if M < 2:
            raise ConfigError(f"MMIN imagines one modality from others: expected at least 2, got {M}.")
        refuse_space(self, model, data)
        self.network = beside(model, Imagination(feature_width(model, data), M, self.blocks))
        self.head = beside(model, unimodal_head(model.head, self.network.out_features))
        if self.with_teacher:
            self.teacher = copy.deepcopy(model.encoders).requires_grad_(False)

    def on_stage_start(self, model: MultimodalModel, data: MultimodalDataset, stage: Stage) -> None:
        if self.teacher is not None and stage.name == "imagination":
            self.teacher.load_state_dict(model.encoders.state_dict())

    def build(self, model: nn.Module) -> nn.Module:
        assert isinstance(model, MultimodalModel)
        return self.with_parts(model, completion=None, fusion=self.network, head=self.head)

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        target = self._target(batch)
        available_codes(model.lattice, batch, batch.present)
        if self.stage.name == "pretraining":
            return {"task": batch_mean(self.losses(model(batch), target))}
        assert self.network is not None
        assert self.head is not None
        shown = random_patterns(batch.present, everything=not self.with_teacher)
        h = model.encode(batch.hide(shown)).h.flatten(1)
        imagined, latents = self.network.imagine(h)
        terms = {"task": batch_mean(self.losses(self.head(latents), target))}
        if self.cycle > 0:
            back, _ = self.network.backward_cascade(imagined)
            terms["cycle"] = self.cycle * batch_mean((back - h.detach()).square().mean(1))
        if self.teacher is not None and self.imagination > 0:
            with torch.no_grad():
                teacher = self.with_parts_of_teacher(model)
                aim = teacher.encode(batch.hide(~shown)).h.flatten(1)
            terms["imagination"] = self.imagination * batch_mean((imagined - aim).square().mean(1))
        return terms

    def with_parts_of_teacher(self, model: MultimodalModel) -> MultimodalModel:
        """The model with the frozen encoders, in evaluation mode; only its encoders are used."""
        kept: Any = self.__dict__.get("_teacher_model")
        if kept is None or kept[0] is not self.teacher:
            assert self.teacher is not None
            encoders = dict(zip(model.names, self.teacher))
            kept = self.teacher, MultimodalModel(encoders, None, nn.Identity(), nn.Identity(), model.task, model.inputs)
            object.__setattr__(self, "_teacher_model", kept)
        return kept[1].eval()

    def extra_repr(self) -> str:
        return f"teacher={self.with_teacher}, imagination={self.imagination}, cycle={self.cycle}"
