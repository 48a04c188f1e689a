"""What the three released codes of MCE compute where they differ from the paper, and from each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lacunar.data.batch import Batch
from lacunar.lattice import Pairs
from lacunar.models.multimodal import Features, MultimodalModel
from lacunar.objectives.base import batch_mean
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
        last_subset_only: the completion loss is assigned, not accumulated: the last subset alone is left.
        refined_heads: heads read refined features.
        refined_targets: the completion loss aims at refined features.
        absent_rows_as_zero: rows without the modality enter the single-modality loss as zero logits of class 0,
            a constant, and the loss is a mean over modalities.
        score: ``"pixel"`` counts every pixel, background included, instead of the task's own score.
        availability_per_batch: A is divided by the batch size.
    """

    double_pass: bool
    players: str
    own_upper: bool = False
    mean_gap: bool = True
    full_subset: bool = False
    last_subset_only: bool = False
    refined_heads: bool = True
    refined_targets: bool = True
    absent_rows_as_zero: bool = False
    score: str = "task"
    availability_per_batch: bool = False


RELEASES = {
    "released-digits": Release(double_pass=True, players="subsets", last_subset_only=True),
    "released-iemocap": Release(double_pass=True, players="batch", absent_rows_as_zero=True),
    "released-nuscenes": Release(
        double_pass=False, players="subsets", own_upper=True, mean_gap=False, full_subset=True,
        refined_targets=False, score="pixel", availability_per_batch=True,
    ),
}  # fmt: skip


def released_terms(objective: MCE, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
    """The loss terms of ``MCE(variant=...)`` for one of :data:`RELEASES`."""
    release = RELEASES[objective.variant]
    target = objective._target(batch)
    lattice = model.lattice
    features = model.encode(batch)
    present, size = features.present, total(batch.present.new_tensor(float(len(batch)), dtype=torch.float32))
    available = lattice.encode(present)
    everything = Pairs(torch.arange(len(batch), device=batch.device), available)
    full = model.decode(features, everything)
    refined = full.completed * present.view(*present.shape, *[1] * (features.h.ndim - 2))
    terms = {"task": batch_mean(objective.losses(full.output, target))}

    pairs = lattice.pairs(present)
    whole = pairs.codes == available[pairs.rows]
    part = Pairs(pairs.rows[~whole], pairs.codes[~whole])
    result = model.decode(Features(refined, present) if release.double_pass else features, part)
    losses = objective.losses(result.output, target[part.rows])

    with torch.no_grad():
        scores = features.h.new_zeros(len(batch), len(lattice))
        scores[everything.rows, available] = _score(objective, release, full.output, target)
        scores[part.rows, part.codes] = _score(objective, release, result.output, target[part.rows])
        hits = total((scores * lattice.feasible(present)).sum(0))
        count = total(present.sum(0).to(scores))
        k = len(lattice) - 1 if release.players == "subsets" else int((count > 0).sum())
        phi = torch.where(count > 0, released_shapley(hits, k), 0.0)

    single_input = refined if release.refined_heads else features.h
    single, own_hits = [], []
    for m, head in enumerate(objective.heads or ()):
        output = head(single_input[:, m])
        rows = objective.losses(output, target)
        if release.absent_rows_as_zero:
            blank = torch.where(present[:, m].view(-1, *[1] * (output.ndim - 1)), output, 0.0)
            rows = objective.losses(blank, torch.where(present[:, m], target, 0))
            single.append(rows.sum() * world_size() / size)
        else:
            count_m = count[m].clamp(min=1) if objective.variant == "released-nuscenes" else size
            single.append((rows * present[:, m]).sum() * world_size() / count_m)
        own_hits.append((_score(objective, release, output.detach(), target) * present[:, m]).sum())

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
        weighted = (factor * torch.stack(single)).sum()
        terms["single"] = objective.single * (weighted / lattice.M if release.absent_rows_as_zero else weighted)
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
        counted = part.codes == len(lattice) - 2 if release.last_subset_only else torch.ones_like(part.codes).bool()
        each = (error * dropped * factor).sum(1) / dropped.sum(1).clamp(min=1)
        terms["completion"] = objective.completion * (share * each * counted).sum()
    return terms


def objective_upper(objective: MCE, batch: Batch, count: Tensor) -> Tensor:
    """Sum of the frozen models' scores over this process's samples, ``(M,)``; 0 when nothing compares with them."""
    if not objective.capability or objective.references is None:
        return torch.zeros_like(count)
    return objective.upper_of(batch).sum(0)


def _score(objective: MCE, release: Release, output: Tensor, target: Tensor) -> Tensor:
    task = objective.task
    assert task is not None
    if release.score == "pixel" and task.kind == "segmentation":
        return (output.argmax(1) == target).flatten(1).to(output.dtype).mean(1)
    return task.score(output, target)
