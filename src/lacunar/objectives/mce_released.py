"""What the three released codes of MCE compute where they differ from the paper, and from each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lacunar.data.batch import Batch
from lacunar.lattice import Pairs
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.base import available_codes, batch_mean
from lacunar.objectives.factors import released_shapley
from lacunar.parallel import total, world_size

if TYPE_CHECKING:
    from lacunar.objectives.mce import MCE

__all__ = ["RELEASES", "Release", "released_terms"]


@dataclass(frozen=True)
class Release:
    """One released behaviour.

    Attributes:
        double_pass: subsets are cut from features that completion has already mixed, and completed again.
        players: what stands for the number of players: ``"subsets"`` is 2^M - 1, ``"batch"`` the modalities that
            anybody in the batch has.
        own_upper: U is the score of the heads in training, not of frozen models.
        mean_gap: B is divided by the number of samples that have the modality.
        full_subset: the full set of a sample counts among its subsets.
        last_subset_only: the completion loss is assigned, not accumulated: of each sample's subsets the last one is
            left, all but its last modality.
        refined_targets: the completion loss aims at refined features.
        absent_rows: how rows without the modality enter the single-modality loss, whose heads read refined features
            everywhere. ``"completed"``: like all others, and the mean over the batch is scaled by the share of rows
            that have the modality; ``"zero"``: as zero logits of class 0, a constant; ``"whole"``: like all others,
            and the mean over the batch is divided by its size once more.
        single_mean, completion_mean: the loss is a mean over modalities, not a sum.
        score: ``"pixel"`` counts every pixel, background included, instead of the task's own score.
        availability_per_batch: A is divided by the batch size.
    """

    double_pass: bool
    players: str
    own_upper: bool = False
    mean_gap: bool = True
    full_subset: bool = False
    last_subset_only: bool = False
    refined_targets: bool = True
    absent_rows: str = "completed"
    single_mean: bool = True
    completion_mean: bool = False
    score: str = "task"
    availability_per_batch: bool = False


RELEASES = {
    "released-digits": Release(double_pass=True, players="subsets", last_subset_only=True, completion_mean=True),
    "released-iemocap": Release(double_pass=True, players="batch", absent_rows="zero"),
    "released-nuscenes": Release(
        double_pass=False, players="subsets", own_upper=True, mean_gap=False, full_subset=True,
        refined_targets=False, absent_rows="whole", single_mean=False, score="pixel", availability_per_batch=True,
    ),
}  # fmt: skip


def released_terms(objective: MCE, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
    """The loss terms of ``MCE(variant=...)`` for one of :data:`RELEASES`."""
    release = RELEASES[objective.variant]
    target = objective._target(batch)
    lattice = model.lattice
    features = model.encode(batch)
    present, size = features.present, total(batch.present.new_tensor(float(len(batch)), dtype=torch.float32))
    available = available_codes(lattice, batch, present)
    everything = Pairs(torch.arange(len(batch), device=batch.device), available)
    full = model.decode(features, everything)
    refined = full.completed * present.view(*present.shape, *[1] * (features.h.ndim - 2))
    terms = {"task": batch_mean(objective.losses(full.output, target))}

    pairs = lattice.pairs(present)
    whole = pairs.codes == available[pairs.rows]
    part = Pairs(pairs.rows[~whole], pairs.codes[~whole])
    result = model.decode(replace(features, h=refined) if release.double_pass else features, part)
    losses = objective.losses(result.output, target[part.rows])

    with torch.no_grad():
        scores = features.h.new_zeros(len(batch), len(lattice), dtype=torch.float32)
        scores[everything.rows, available] = _score(objective, release, full.output, target)
        scores[part.rows, part.codes] = _score(objective, release, result.output, target[part.rows])
        hits = total((scores * lattice.feasible(present)).sum(0))
        count = total(present.sum(0).to(scores))
        # A subset that nobody in the batch has makes the released code of "batch" fail; it is left out.
        among, k = (None, len(lattice) - 1) if release.players == "subsets" else (count > 0, int((count > 0).sum()))
        phi = torch.where(count > 0, released_shapley(hits, k, among), 0.0)

    single, own_hits = [], []
    for m, head in enumerate(objective.heads or ()):
        output, wanted = head(full.completed[:, m]), target
        own_hits.append((_score(objective, release, output.detach(), target) * present[:, m]).sum())
        if release.absent_rows == "zero":
            output, wanted = _zero(output, present[:, m]), _zero(target, present[:, m])
        single.append(objective.losses(output, wanted).sum() * world_size() / size)

    upper = total(torch.stack(own_hits) if release.own_upper and own_hits else objective_upper(objective, batch, count))
    gap = (upper - phi).relu()
    state = gap / count.clamp(min=1) if release.mean_gap else gap
    state = torch.where(count > 0, state, 0.0) if objective.capability else torch.ones_like(state)
    rarity = objective.availability_weight / (size if release.availability_per_batch else 1)
    factor = rarity * state
    objective.learning_state.copy_(state)
    per_sample = count.clamp(min=1)
    objective.diagnostics = {
        "phi": phi / per_sample, "upper": upper / per_sample, "B": state, "A": rarity, "count": count,
    }  # fmt: skip

    if objective.single > 0:
        scale = {"completed": count / size, "zero": torch.ones_like(count), "whole": 1 / size}[release.absent_rows]
        weighted = (factor * scale * torch.stack(single)).sum()
        terms["single"] = objective.single * (weighted / lattice.M if release.single_mean else weighted)
    share = world_size() / ((2.0 ** present.sum(1)[part.rows] - 1) * size)
    if objective.subset > 0:
        total_loss = (share * losses).sum()
        if release.full_subset:
            everyone = world_size() / ((2.0 ** present.sum(1) - 1) * size)
            total_loss = total_loss + (everyone * objective.losses(full.output, target)).sum()
        terms["subset"] = objective.subset * total_loss
    if objective.completion > 0:
        aim = refined if release.refined_targets else features.h
        error = (result.completed - aim[part.rows]).abs().flatten(2).mean(2)
        dropped = present[part.rows] & ~lattice.decode(part.codes)
        if release.last_subset_only:
            places = torch.arange(lattice.M, device=present.device)
            last = torch.where(present, places, -1).amax(1)[part.rows]
            dropped &= (part.codes == available[part.rows] ^ (1 << last))[:, None]
        weighted = (share[:, None] * error * dropped * factor).sum()
        terms["completion"] = objective.completion * (weighted / lattice.M if release.completion_mean else weighted)
    return terms


def objective_upper(objective: MCE, batch: Batch, count: Tensor) -> Tensor:
    """Sum of the frozen models' scores over this process's samples, ``(M,)``; 0 when nothing compares with them."""
    if not objective.capability or objective.references is None:
        return torch.zeros_like(count)
    return objective.upper_of(batch).sum(0)


def _zero(values: Tensor, kept: Tensor) -> Tensor:
    return torch.where(kept.view(-1, *[1] * (values.ndim - 1)), values, torch.zeros_like(values))


def _score(objective: MCE, release: Release, output: Tensor, target: Tensor) -> Tensor:
    task = objective.task
    assert task is not None
    if release.score == "pixel" and task.kind == "segmentation":
        return (output.argmax(1) == target).flatten(1).float().mean(1)
    return task.score(output, target)
