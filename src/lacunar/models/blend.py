"""The joint model together with its single-modality references, as experts at prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lacunar.data.batch import Batch
from lacunar.errors import ConfigError
from lacunar.lattice import Lattice, Pairs
from lacunar.models.configurable import Configurable
from lacunar.models.multimodal import Features, MultimodalModel, available_pairs
from lacunar.models.pooling import opinion, pool
from lacunar.models.references import References
from lacunar.tasks import Task

__all__ = ["Blend", "BlendFeatures"]


@dataclass
class BlendFeatures:
    """What the joint encoders and the experts made of a batch: ``opinions (B, M, K)``, zero where absent."""

    joint: Features
    opinions: Tensor


class Blend(Configurable):
    """A pool of the joint model and the experts that have something to say, for every subset.

    ``prior + joint (f(S) - prior) + experts sum_{m in S} share_m |S|^-decay (e_m - prior)``, in log-probabilities
    for classes, in logits for labels, in the target's units for numbers.

    Args:
        joint: the model trained on all modalities.
        references: the experts.
        prior: raw output when nothing is known, ``(K,)``.
        joint_weight: weight of the joint model.
        expert_weight: weight of the experts' pool.
        shares: weight of each expert inside that pool, by modality.
        decay: how much each of several experts counts less than one alone: 0 adds their evidence as if it were
            independent, 1 averages it.

    Raises:
        ConfigError: when the experts are for other modalities than the model; their order does not matter.
    """

    prior: Tensor
    share: Tensor

    def __init__(
        self,
        joint: MultimodalModel,
        references: References,
        prior: list[float],
        joint_weight: float,
        expert_weight: float,
        shares: Mapping[str, float],
        decay: float,
    ):
        super().__init__()
        refuse_other_experts(references, joint.names)
        self.joint, self.references = joint, references
        self.joint_weight, self.expert_weight = float(joint_weight), float(expert_weight)
        self.shares, self.decay = dict(shares), float(decay)
        self.register_buffer("prior", torch.tensor(prior, dtype=torch.float32))
        self.register_buffer("share", torch.tensor([self.shares[name] for name in joint.names]), persistent=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names in lattice order."""
        return self.joint.names

    @property
    def lattice(self) -> Lattice:
        return self.joint.lattice

    @property
    def task(self) -> Task:
        return self.references.task

    def encode(self, batch: Batch) -> BlendFeatures:
        """One pass of the encoders and of the experts."""
        features = self.joint.encode(batch)  # first, because it refuses data of other modalities or shapes
        return BlendFeatures(features, expert_opinions(self.references, batch, self.prior))

    def predict(self, features: BlendFeatures, pairs: Pairs, chunk: int | None = None) -> Tensor:
        """Raw outputs ``(P, K)`` of (sample, subset) pairs."""
        return self.combine(self.joint.predict(features.joint, pairs, chunk), features, pairs)

    def combine(self, joint: Tensor, features: BlendFeatures, pairs: Pairs) -> Tensor:
        """The pool of what the joint model says of each pair, ``(P, K)``, and what the experts in it say."""
        weights = expert_weights(self.lattice.decode(pairs.codes), self.share, self.decay)
        own = opinion(self.task, joint, self.prior)[:, None]
        opinions = torch.cat([own, features.opinions[pairs.rows]], 1)
        own_weight = weights.new_full((len(weights), 1), self.joint_weight)
        return pool(self.prior, opinions, torch.cat([own_weight, self.expert_weight * weights], 1))

    def predict_pairs(self, batch: Batch, pairs: Pairs, chunk: int | None = None) -> Tensor:
        """Raw outputs ``(P, K)`` of (sample, subset) pairs of a batch."""
        return self.predict(self.encode(batch), pairs, chunk)

    def forward(self, batch: Batch) -> Tensor:
        """Raw outputs ``(B, K)`` from everything that each sample has."""
        pairs = available_pairs(self.lattice, batch)
        return self.predict(self.encode(batch), pairs)

    def extra_repr(self) -> str:
        shares = ", ".join(f"{name} {share:.2f}" for name, share in self.shares.items())
        return f"joint {self.joint_weight:.2f}, experts {self.expert_weight:.2f} ({shares}), decay {self.decay:.2f}"


def expert_weights(chosen: Tensor, share: Tensor, decay: float) -> Tensor:
    """Weight of every expert for every subset, ``(P, M)``; 0 outside the subset."""
    size = chosen.sum(1, keepdim=True).clamp(min=1).to(share.dtype)
    return chosen * share * size**-decay


def refuse_other_experts(references: References, names: Sequence[str]) -> None:
    """Refuse references that are not for these modalities, in any order."""
    if set(references.names) != set(names):
        raise ConfigError(
            f"The model is for the modalities {tuple(names)}, the references are for {references.names}. Make the "
            "references from the data that the model is trained on."
        )


def expert_opinions(references: References, batch: Batch, prior: Tensor) -> Tensor:
    """What every expert adds to the prior for each sample, ``(B, M, K)``, zero where the modality is absent."""
    table = prior.new_zeros(len(batch), len(batch.names), len(prior))
    said = references.predict(batch)
    for m, name in enumerate(batch.names):  # the experts may stand in another order
        table[batch.rows(name), m] = opinion(references.task, said[name].to(prior), prior)
    return table
