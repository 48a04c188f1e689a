"""How much the joint model and each expert count, learnt from train out of fold and from validation."""

from __future__ import annotations

import torch
from torch import Tensor

from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError
from lacunar.lattice import Pairs
from lacunar.models.blend import Blend, expert_opinions, expert_weights, refuse_other_experts
from lacunar.models.multimodal import MultimodalModel
from lacunar.models.pooling import fit_weights, opinion
from lacunar.models.references import References

__all__ = ["fit_blend"]

#: Between independent evidence (0) and the same evidence seen several times (1).
DECAYS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHARE_RIDGE = 20.0
BLEND_RIDGE = 50.0
EVERY_SUBSET_UP_TO = 5
#: Subsets of each sample that the weights are learnt from when there are too many to take all.
SUBSETS = 32


def fit_blend(
    joint: MultimodalModel,
    references: References,
    train: MultimodalDataset,
    val: MultimodalDataset,
    batch_size: int = 512,
) -> Blend:
    """A :class:`Blend` of a trained model and the references it was trained with.

    The experts' shares are learnt from their out-of-fold outputs on train and their outputs on validation, one set of
    shares for all subsets; the weights of the joint model and of the experts' pool from validation alone, for the
    joint model has seen train. All are shrunk towards even shares, and half joint, half experts.

    Raises:
        ConfigError: for label maps, for references to other modalities, and when the references were scored in
            sample: their outputs on train would look better than they are.
    """
    task = references.task
    if task.kind == "segmentation":
        raise ConfigError(
            "Experts are blended for classes, labels and numbers, not for label maps; pass experts=False."
        )
    if not references.out_of_fold:
        raise ConfigError(
            "Experts are blended by their out-of-fold outputs, and these references were scored in sample."
        )
    refuse_other_experts(references, train.names)
    assert train.target is not None and val.target is not None
    prior = task.baseline(train.target).to(torch.float32)
    device = next(iter(joint.parameters())).device
    rows = references.rows(train)
    seen = torch.zeros(len(train), len(train.names), len(prior))
    for m, name in enumerate(train.names):
        has = train.present[:, m]
        seen[has, m] = opinion(task, references.outputs[name][rows[has]].to(prior), prior)
    batches = list(val.batches(batch_size))
    unseen = torch.cat([expert_opinions(references, batch, prior) for batch in batches])

    parts = [(seen, train), (unseen, val)]
    drawn = [_pairs(data) for _, data in parts]
    pairs = [own for own, _ in drawn]
    opinions = torch.cat([known[own.rows] for (known, _), own in zip(parts, pairs)])
    target = torch.cat([data.target[own.rows] for (_, data), own in zip(parts, pairs)])  # type: ignore[index]
    chosen = torch.cat([data.lattice.decode(own.codes) for (_, data), own in zip(parts, pairs)])
    importance = torch.cat([weight for _, weight in drawn])
    even = torch.ones(len(train.names))
    fits = []
    for decay in DECAYS:
        share, loss = fit_weights(
            task,
            prior,
            opinions * expert_weights(chosen, even, decay)[:, :, None],
            target,
            even,
            SHARE_RIDGE,
            importance,
        )
        fits.append((loss, decay, share))
    _, decay, share = min(fits, key=lambda fit: fit[0])

    own = pairs[1]
    experts = (unseen[own.rows] * expert_weights(val.lattice.decode(own.codes), share, decay)[:, :, None]).sum(1)
    outputs = _joint_outputs(joint, val, own, batch_size, device)
    both = torch.stack([opinion(task, outputs, prior), experts], 1)
    start = torch.tensor([0.5, 0.5])
    weights, _ = fit_weights(task, prior, both, val.target[own.rows], start, BLEND_RIDGE, drawn[1][1])
    shares = dict(zip(train.names, share.tolist()))
    return (
        Blend(joint, references, prior.tolist(), float(weights[0]), float(weights[1]), shares, decay).to(device).eval()
    )


def _pairs(data: MultimodalDataset) -> tuple[Pairs, Tensor]:
    """Subsets of every sample, and what each counts: a sample's subsets count as one sample."""
    if data.lattice.M <= EVERY_SUBSET_UP_TO:
        pairs = data.lattice.pairs(data.present)
        weight = torch.ones(len(pairs.rows))
    else:
        pairs, weight = data.lattice.sample_pairs(data.present, SUBSETS, torch.Generator().manual_seed(0))
    return pairs, weight / torch.zeros(len(data)).index_add(0, pairs.rows, weight)[pairs.rows]


@torch.no_grad()
def _joint_outputs(
    joint: MultimodalModel, data: MultimodalDataset, pairs: Pairs, batch_size: int, device: torch.device
) -> Tensor:
    joint.eval()
    found: list[Tensor] = []
    order: list[Tensor] = []
    for start in range(0, len(data), batch_size):
        inside = ((pairs.rows >= start) & (pairs.rows < start + batch_size)).nonzero().squeeze(1)
        batch = data.__getitems__(range(start, min(start + batch_size, len(data)))).to(device)
        own = Pairs((pairs.rows[inside] - start).to(device), pairs.codes[inside].to(device))
        found.append(joint.predict(joint.encode(batch), own, chunk=8192).cpu())
        order.append(inside)
    return torch.cat(found)[torch.cat(order).argsort()]
