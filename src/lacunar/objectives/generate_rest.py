"""Training with a generator for what is absent: the task loss and the generator's own (SK-LL, section 3.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError
from lacunar.generation.flow_prior import class_bins
from lacunar.lattice import Pairs
from lacunar.models.multimodal import Features, MultimodalModel, available_pairs
from lacunar.objectives.base import Objective, available_codes, batch_mean
from lacunar.objectives.features import feature_width
from lacunar.objectives.placing import beside

__all__ = ["GenerateRest", "GeneratingModel", "fill_features"]


def fill_features(generator: nn.Module, features: Features) -> Features:
    """Features with those of absent modalities generated, all marked as present.

    Args:
        generator: a fitted completer of features, or any module with ``complete(h, present) -> h``.
        features: what the encoders made.
    """
    h, present = features.h, features.present
    everything = torch.ones_like(present)
    if bool(present.all()):
        return replace(features, present=everything, generated=None)
    fill: Any = getattr(generator, "complete_features", None)
    made = fill(features).h if fill is not None else generator.complete(h, present)  # type: ignore[operator]
    seen = present.view(*present.shape, *[1] * (h.ndim - 2))
    return replace(features, h=torch.where(seen, h, made), present=everything, generated=None)


class GeneratingModel(nn.Module):
    """A model that predicts from any subset as if all were there: the rest is generated first (Table 8).

    Args:
        model: encoders, fusion and head.
        generator: see :func:`fill_features`.
    """

    def __init__(self, model: MultimodalModel, generator: nn.Module):
        super().__init__()
        self.model, self.generator = model, generator

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names in lattice order."""
        return self.model.names

    @property
    def lattice(self) -> Any:
        return self.model.lattice

    @property
    def task(self) -> Any:
        """What the output means."""
        return self.model.task

    def predict_pairs(self, batch: Batch, pairs: Pairs, chunk: int | None = None) -> Tensor:
        """Raw outputs ``(P, n_outputs)`` of (sample, subset) pairs: only the subset is seen."""
        features = self.model.encode(batch)
        seen = self.lattice.decode(pairs.codes)
        filled = fill_features(self.generator, features.take(pairs.rows, seen))
        return self.model.predict(filled, everything(filled), chunk)

    def forward(self, batch: Batch) -> Tensor:
        """Raw outputs ``(B, n_outputs)`` from everything that each sample has, the rest generated."""
        return self.predict_pairs(batch, available_pairs(self.lattice, batch))

    def configuration(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {"model": self.model, "generator": self.generator}


def everything(features: Features) -> Pairs:
    """Each sample of some features with the full set."""
    count, modalities = features.present.shape
    rows = torch.arange(count, device=features.h.device)
    return Pairs(rows, torch.full_like(rows, 2**modalities - 1))


class GenerateRest(Objective):
    """The task loss of complete features, absent ones generated, and ``alpha`` times the generator's loss.

    ``L = l_task + alpha * l_gen``, with ``l_gen`` the negative log-likelihood of the features that are observed, given
    the class (Eq. 5); the encoders have no part in it, or they would make features constant to make them likely. On
    complete samples a generator's decoder would never be used, so cells are hidden at random in training.

    For every task and for incomplete training data. One stage.

    Args:
        generator: a module with ``complete(h, present)`` and, to be trained itself, ``nll(h, present, classes)``; or
            a completer that was fitted inside the model; a :class:`lacunar.generation.flow_transfer.FlowTransfer` for
            the model's features when left out.
        alpha: weight of the generator's loss.
        reconstruct: weight of the squared error of observed features as generated from the others; the paper has
            none. Only features that were observed are ever compared with.
        hide: probability that a present modality of a complete sample is hidden; one always stays.
        frozen: leave the generator's flows as they are, as the second stage does, and with them the encoders whose
            features they know; what decodes goes on learning.
        bins: quantile bins that stand for classes when the target is a number.
        label_smoothing: see :class:`Objective`.

    Raises:
        ConfigError: an option out of range.
    """

    def __init__(
        self,
        generator: nn.Module | None = None,
        alpha: float = 0.1,
        reconstruct: float = 0.0,
        hide: float = 0.3,
        frozen: bool = False,
        bins: int = 5,
        label_smoothing: float | None = None,
    ):
        super().__init__(label_smoothing)
        for name, weight in (("alpha", alpha), ("reconstruct", reconstruct)):
            if weight < 0:
                raise ConfigError(f"GenerateRest: {name}: expected a weight of at least 0, got {weight}.")
        if not 0 <= hide < 1:
            raise ConfigError(f"GenerateRest: hide: expected a probability in [0, 1), got {hide}.")
        if bins < 1:
            raise ConfigError(f"GenerateRest: bins: expected a whole number from 1, got {bins}.")
        self.generator, self._given = generator, generator is not None
        self.alpha, self.reconstruct, self.hide = alpha, reconstruct, hide
        self.frozen, self.bins = frozen, bins

    def setup(self, model: MultimodalModel, data: MultimodalDataset) -> None:
        super().setup(model, data)
        classes, count = class_bins(data.target, len(data), self.bins)
        if not self._given:
            from lacunar.generation.flow_transfer import FlowTransfer

            self.generator = beside(model, FlowTransfer(feature_width(model, data), len(data.names), count))
        freeze: Any = getattr(self.generator, "freeze", None)
        if freeze is not None:
            freeze("flows" if self.frozen else "none")
        if self.frozen:  # otherwise what the user has frozen stays so
            model.encoders.requires_grad_(False)
        if not self.frozen and hasattr(self.generator, "nll"):
            by_row = torch.full((int(data.row.max()) + 1,), -1, dtype=torch.int64)
            by_row[data.row] = classes
            self.register_buffer("classes", by_row, persistent=False)

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        available_codes(model.lattice, batch, batch.present)  # refuses a sample that has nothing
        features = model.encode(batch)
        seen = self._seen(batch.present)
        generator: Any = self.generator
        filled = fill_features(generator, features.take(torch.arange(len(batch), device=batch.device), seen))
        terms = {"task": batch_mean(self.losses(model.predict(filled, everything(filled)), self._target(batch)))}
        if self.frozen:
            return terms
        if self.alpha > 0 and "classes" in self._buffers:
            of_rows: Any = self.classes
            known = of_rows[batch.index.to(of_rows.device)]
            terms["likelihood"] = self.alpha * generator.nll(features.h.detach(), batch.present, known)
        if self.reconstruct > 0 and hasattr(generator, "reconstruction"):
            terms["reconstruction"] = self.reconstruct * generator.reconstruction(features.h.detach(), batch.present)
        return terms

    def build(self, model: nn.Module) -> nn.Module:
        assert isinstance(model, MultimodalModel)
        assert self.generator is not None
        return GeneratingModel(model, self.generator)

    def _seen(self, present: Tensor) -> Tensor:
        """What is left after hiding; a sample that came incomplete loses nothing more."""
        chance = torch.rand(present.shape, device=present.device)
        kept = present & (chance >= self.hide)
        last = chance.masked_fill(~present, -1.0).argmax(1, keepdim=True)
        kept = torch.where(kept.any(1, keepdim=True), kept, torch.zeros_like(kept).scatter(1, last, True) & present)
        return torch.where(present.all(1, keepdim=True), kept, present)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, hide={self.hide}, frozen={self.frozen}"
