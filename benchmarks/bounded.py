"""Training on every subset of six modalities within a memory bound."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.measure import Figure, Options, interleave, peak_bytes
from benchmarks.worlds import light, light_model, mce, training_step
from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.base import Objective
from lacunar.objectives.mce import MCE

__all__ = ["run"]

SECTION = "Training within memory"


def run(options: Options) -> list[Figure]:
    """``MCE(memory=...)`` over MCE at M = 6, in time and in bytes."""
    size = 12 if options.toy else 128
    data = light(6, 2 * size, options.toy)
    batch = data.__getitems__(range(size))
    bounds = (0.1, 0.2) if options.toy else (8.0, 16.0)
    compared = {f"{bound:g} MB": training_step(mce(memory=bound), light_model(data), data, batch) for bound in bounds}
    compared["free"] = training_step(mce(), light_model(data), data, batch)
    peaks = {name: peak_bytes(run) / 2**20 for name, run in compared.items()}
    taken = interleave(compared, options)
    outside = _outside(data, batch)
    pairs = len(mce().pairs(data.lattice, batch.present)[0].rows)
    figures = []
    for bound in bounds:
        name = f"{bound:g} MB"
        figures += [
            taken.figure(
                SECTION, f"M = 6, MCE within {name} / MCE without a bound", name, "free", 1.6,
                "Floor 1.33 less the last chunk, which is not computed again: completion, fusion and head run forward "
                f"twice and backward once, and backward costs two forwards. {pairs} pairs. Small chunks stay nearer "
                "to the cache, which wins on one thread, and keep several threads less busy, which loses on two.",
            ),
            Figure(
                SECTION, f"M = 6, peak over the bound of {name} and what does not depend on it",
                *[peaks[name] / (bound + outside)] * 3, 1.0,
                f"Live tensor bytes of a step: {peaks[name]:.1f} MB, without a bound {peaks['free']:.0f} MB. The "
                "bound is for completion, fusion and head; encoders, single-modality heads and gradients of all "
                f"weights come on top: {outside:.1f} MB.",
            ),
        ]  # fmt: skip
    return figures


class _Outside(Objective):
    """A step without completion, fusion and head: encoders and single-modality heads alone."""

    def __init__(self, like: MCE):
        super().__init__()
        self.like = like

    def setup(self, model: MultimodalModel, data: MultimodalDataset) -> None:
        super().setup(model, data)
        self.like.setup(model, data)

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        features = model.encode(batch)
        factor = torch.ones(features.present.shape[1])
        single = self.like.single_loss(model, features, self._target(batch), factor)
        return {"single": single, "features": features.h.sum()}


def _outside(data: MultimodalDataset, batch: Batch) -> float:
    """Megabytes of what the bound does not cover."""
    model = light_model(data)
    assert model.completion is not None
    step = training_step(_Outside(mce()), model, data, batch)
    decoders = sum(p.numel() * p.element_size() for part in (model.completion, model.head) for p in part.parameters())
    return (peak_bytes(step) + decoders) / 2**20
