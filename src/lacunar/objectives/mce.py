"""Modality Capability Enhancement: the objective of Zhao, Zhang and Zou (Pattern Recognition, 2025)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lacunar.arguments import above
from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.lattice import MAX_TABLE, Lattice, Pairs
from lacunar.models.multimodal import Features, MultimodalModel, SubsetOutput
from lacunar.objectives.base import Objective, available_codes, batch_mean
from lacunar.objectives.factors import GAPS, availability_factor, capability_gap, learning_state, sampled_shapley
from lacunar.objectives.ranges import Between, Ranges
from lacunar.objectives.single_heads import listed_heads, single_heads
from lacunar.parallel import gather_rows, total, world_size

if TYPE_CHECKING:
    from lacunar.models.references import References

__all__ = ["MCE", "TABLE_2"]

#: Where no budget is given every subset of a sample is trained on up to this many modalities; beyond, so many of them.
EVERY_SUBSET_UP_TO, BUDGET_BEYOND = 6, 16

#: The rows of Table 2: which of A, B, L_single, L_sub and L_aux are on. The table prints (j) like (m); the text
#: says that (j) is B without A.
TABLE_2 = {
    "a": "", "b": "single", "c": "subset", "d": "completion", "e": "single subset", "f": "single completion",
    "g": "subset completion", "h": "single subset completion", "i": "A single subset completion",
    "j": "B single subset completion", "k": "A B single", "l": "A B completion", "m": "A B single subset completion",
}  # fmt: skip


class MCE(Objective):
    r"""Training on every subset, with incentives for rare and under-performing modalities (Eqs. 3 to 14).

    .. math:: L = L_{task} + \lambda_{single} L_{single} + \lambda_{sub} L_{sub} + \lambda_{aux} L_{aux}

    All terms and the exact Shapley values read one encoder pass.

    For every task and for incomplete training data. One stage, after the references are trained.

    Args:
        single: weight of the single-modality loss (Eq. 9); 0 leaves it out.
        subset: weight of the subset loss (Eq. 11); 0 leaves it out.
        completion: weight of the completion loss (Eq. 13); 0 leaves it out. Needs a model with completion.
        availability: weigh single and completion losses by A (Eq. 3).
        capability: weigh them by B (Eq. 8). Needs references.
        normalise_availability: divide A by its mean.
        gap: what B measures, see :func:`lacunar.objectives.factors.capability_gap`.
        upper: ``"sample"`` takes the references' score of each sample (Eq. 6), ``"dataset"`` their mean over the
            training data, as the paper's BraTS batches show.
        empty: value of the empty subset: ``"zero"``, or ``"prior"`` for the score of a constant prediction.
        head_input: what the single-modality heads read: ``"raw"`` features (Eq. 9) or ``"refined"`` ones.
        subset_weighting: ``"macro"`` averages over subsets, then over their samples (Eq. 11); ``"sample"`` over the
            subsets of each sample, then over samples, as the released code.
        include_full: whether the full set of a sample counts among its subsets (Eq. 10: yes).
        distance: of the completion loss, averaged over feature dimensions: ``"l1"``, ``"l2"`` or ``"smooth_l1"``.
        detach_targets: keep the completion loss from moving the features it should reach; without, it can be
            lowered by shrinking them.
        score_mode: ``"reuse"`` scores the predictions of the training pass; ``"eval"`` computes them again with
            dropout off.
        momentum: share of the last B of a modality that is kept; useful at batch size 1. It starts from the first B,
            and a batch in which nobody has the modality changes nothing.
        budget: subsets per sample and batch, drawn anew each time, the full set always among them; Shapley values
            and losses are then unbiased estimates (losses ratios of such, beyond 12 modalities), at the cost of as many
            predictions. Every subset up to 6
            modalities and 16 beyond when None.
        memory: bound in megabytes for what completion, fusion and head keep for the backward pass; what does not
            fit is computed again.
        references: frozen single-modality models; :func:`lacunar.fit` trains them when they are needed and left out.
        heads: a single-modality head for each modality; shaped like the model's head when left out.
        variant: ``"paper"``, or the behaviour of a released code: ``"released-digits"``, ``"released-iemocap"``,
            ``"released-nuscenes"``. They override the options above but for the weights, ``availability``,
            ``capability`` and ``upper``.
        label_smoothing: see :class:`Objective`.

    Raises:
        ConfigError: an option out of range.

    Attributes:
        diagnostics: after each batch ``phi``, ``upper``, ``B`` and ``A``, each ``(M,)``; phi and upper are means
            over the samples that have the modality.

    References:
        Zhao, Zhang, Zou, *MCE: Towards a General Framework for Handling Missing Modalities under Imbalanced Missing
        Rates*, Pattern Recognition, 2025, doi:10.1016/j.patcog.2025.112591.
    """

    ranges: ClassVar[Ranges] = {
        "single": Between(0.1, 3.0, log=True),
        "subset": Between(0.1, 3.0, log=True),
        "completion": Between(0.1, 3.0, log=True),
    }

    availability_weight: Tensor
    upper_scores: Tensor
    learning_state: Tensor

    def __init__(
        self,
        single: float = 1.0,
        subset: float = 1.0,
        completion: float = 1.0,
        *,
        availability: bool = True,
        capability: bool = True,
        normalise_availability: bool = True,
        gap: Literal["shapley", "standalone", "scaled", "loo"] = "shapley",
        upper: Literal["sample", "dataset"] = "sample",
        empty: Literal["zero", "prior"] = "zero",
        head_input: Literal["raw", "refined"] = "raw",
        subset_weighting: Literal["macro", "sample"] = "macro",
        include_full: bool = True,
        distance: Literal["l1", "l2", "smooth_l1"] = "l1",
        detach_targets: bool = True,
        score_mode: Literal["reuse", "eval"] = "reuse",
        momentum: float = 0.0,
        budget: int | None = None,
        memory: float | None = None,
        references: References | None = None,
        heads: Mapping[str, nn.Module] | None = None,
        variant: str = "paper",
        label_smoothing: float | None = None,
    ):
        super().__init__(label_smoothing)
        for name, weight in (("single", single), ("subset", subset), ("completion", completion)):
            if not weight >= 0:
                raise ConfigError(f"MCE: {name} is the weight of a loss; expected a number >= 0, got {weight}.")
        choices = {
            "gap": (gap, GAPS), "upper": (upper, ("sample", "dataset")), "empty": (empty, ("zero", "prior")),
            "head_input": (head_input, ("raw", "refined")), "score_mode": (score_mode, ("reuse", "eval")),
            "subset_weighting": (subset_weighting, ("macro", "sample")),
            "distance": (distance, tuple(_DISTANCES)),
            "variant": (variant, ("paper", "released-digits", "released-iemocap", "released-nuscenes")),
        }  # fmt: skip
        for name, (value, known) in choices.items():
            if value not in known:
                raise ConfigError(f"MCE: unknown {name} {value!r}.{did_you_mean(value, known)}")
        if references is not None and not hasattr(references, "scores"):
            raise ConfigError(
                f"MCE: references: expected what lacunar.references(data.train) gives, got {references!r}."
            )
        if not 0 <= momentum < 1:
            raise ConfigError(f"MCE: momentum: expected a number in [0, 1), got {momentum}.")
        above(0, memory=memory)
        if budget is not None and budget < 2:
            raise ConfigError(f"MCE: budget: expected at least 2 subsets per sample, got {budget}.")
        self.single, self.subset, self.completion = float(single), float(subset), float(completion)
        self.availability, self.capability = availability, capability
        self.normalise_availability, self.gap, self.upper, self.empty = normalise_availability, gap, upper, empty
        self.head_input, self.subset_weighting, self.include_full = head_input, subset_weighting, include_full
        self.distance, self.detach_targets, self.score_mode = distance, detach_targets, score_mode
        self.momentum, self.budget, self.memory, self.variant = momentum, budget, memory, variant
        self.references = references
        self.heads, self._heads_for = listed_heads("MCE", heads)
        self._chunk: int | None = None

    @classmethod
    def table_2(cls, row: str, **options: Any) -> MCE:
        """The objective of a row of the paper's ablation, ``"a"`` (plain training) to ``"m"`` (all of MCE)."""
        if row not in TABLE_2:
            raise ConfigError(f"Table 2 has the rows a to m, not {row!r}.")
        on = TABLE_2[row].split()
        weights: dict[str, Any] = {
            term: options.pop(term, 1.0) if term in on else 0.0 for term in ("single", "subset", "completion")
        }
        return cls(**weights, availability="A" in on, capability="B" in on, **options)

    @property
    def needs_references(self) -> bool:
        weighted = self.single > 0 or self.completion > 0
        return self.capability and weighted and self.variant != "released-nuscenes" and self.references is None

    def use_references(self, references: References) -> None:
        self.references = references

    def setup(self, model: MultimodalModel, data: MultimodalDataset) -> None:
        """Learn A and the references' scores from the training data, and create the single-modality heads.

        Raises:
            ConfigError: when a term is on that the model or the missing references cannot serve.
        """
        super().setup(model, data)
        assert self.task is not None
        assert data.target is not None
        if self.completion > 0 and model.completion is None:
            raise ConfigError("MCE: the completion loss needs a model with completion=; pass completion=0 without.")
        if self.needs_references:
            raise ConfigError(
                "MCE: the factor B compares with frozen single-modality models, and there are none. "
                "Pass references=lacunar.references(data.train), or capability=False."
            )
        drawn = self._draws(model.lattice)
        if drawn and (self.gap in ("standalone", "loo") or self.variant != "paper"):
            what = f"gap={self.gap!r}" if self.variant == "paper" else f"variant={self.variant!r}"
            raise ConfigError(
                f"MCE: {what} needs every subset of a sample, not {drawn} that are drawn. Every one is trained on up "
                f"to {EVERY_SUBSET_UP_TO} modalities, or up to {MAX_TABLE} with budget={2 ** len(data.names) - 1}; "
                f"these are {len(data.names)}."
            )
        if self.variant == "released-nuscenes" and self.capability and self.completion > 0 and self.single == 0:
            raise ConfigError(
                "MCE: variant='released-nuscenes' takes U from the heads that the single-modality loss trains: "
                "single must be above 0, or pass capability=False."
            )
        device = next(iter(model.parameters())).device
        self.register_buffer("availability_weight", self._availability(data).to(device))
        unknown = float("nan") if self.momentum else 0.0
        self.register_buffer("learning_state", torch.full((len(data.names),), unknown, device=device))
        upper = torch.full((int(data.row.max()) + 1, len(data.names)), float("nan"))
        if self.references is not None:
            scores = self.references.scores(data)
            if self.upper == "dataset":
                means = scores.nanmean(0)
                scores = torch.where(data.present, means, scores)
            upper[data.row] = scores.to(upper.dtype)
        self.register_buffer("upper_scores", upper.to(device))
        width = self._probe(model, data[0].to(device))
        if self._heads_for or self.single > 0:
            self.heads = single_heads("MCE", self.heads, self._heads_for, model, width)
        self._prior = self.task.baseline(data.target).to(device) if self.empty == "prior" else None

    def _probe(self, model: MultimodalModel, row: Batch) -> int:
        """Width of the features; and how many pairs fit into memory, from a fixed sample, so that a run can resume."""
        training = model.training
        features = model.eval().encode(row)
        if self.memory is not None:
            self._chunk = model.pairs_within(features, self.memory, self._extract(features, self._target(row)))
        model.train(training)
        return features.h.shape[2]

    def _availability(self, data: MultimodalDataset) -> Tensor:
        if not self.availability:
            return torch.ones(len(data.names))
        return availability_factor(data.present, self.normalise_availability and self.variant == "paper")

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        """The terms ``task``, ``single``, ``subset`` and ``completion`` that are on, weighted."""
        if self.variant != "paper":
            from lacunar.objectives.mce_released import released_terms

            return released_terms(self, model, batch)
        target = self._target(batch)
        features = model.encode(batch)
        available = available_codes(model.lattice, batch, features.present)
        pairs, importance = self.pairs(model.lattice, features.present)
        losses, scores, residual = self._read(model, features, pairs, target)
        whole = pairs.codes == available[pairs.rows]
        terms = {"task": batch_mean(losses.where(whole, 0.0), whole.to(losses.dtype))}
        factor = self.weights(model, features, pairs, importance, scores, batch)
        if self.single > 0:
            terms["single"] = self.single * self.single_loss(model, features, target, factor)
        if self.subset > 0 or self.completion > 0:
            share = self.shares(model.lattice, pairs, importance, features.present) * world_size()
        if self.subset > 0:
            terms["subset"] = self.subset * (share * losses).sum()
        if self.completion > 0:
            dropped = model.lattice.decode(available[pairs.rows] & ~pairs.codes)
            error = (residual * dropped * factor).sum(1) / dropped.sum(1).clamp(min=1)
            terms["completion"] = self.completion * (share * error).sum()
        return terms

    def pairs(self, lattice: Lattice, present: Tensor) -> tuple[Pairs, Tensor]:
        """The (sample, subset) pairs to train on and the inverse of each one's chance to be among them."""
        if self.subset == 0 and self.completion == 0 and not self._counts_capability:
            codes = lattice.encode(present)
            pairs = Pairs(torch.arange(len(codes), device=codes.device), codes)
        elif drawn := self._draws(lattice):
            return lattice.sample_pairs(present, drawn)
        else:
            pairs = lattice.pairs(present)
        return pairs, torch.ones(len(pairs.rows), device=present.device)

    def _draws(self, lattice: Lattice) -> int:
        """How many subsets of a sample are drawn; 0 where every subset is trained on."""
        if self.budget is None:
            return 0 if lattice.M <= EVERY_SUBSET_UP_TO else BUDGET_BEYOND
        return 0 if lattice.M <= MAX_TABLE and self.budget >= 2**lattice.M - 1 else self.budget

    @property
    def _counts_capability(self) -> bool:
        return self.capability and (self.single > 0 or self.completion > 0)

    def _read(
        self, model: MultimodalModel, features: Features, pairs: Pairs, target: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Losses and scores ``(P,)`` and completion errors ``(P, M)`` of all pairs.

        Nothing larger leaves a chunk: outputs may be label maps.
        """
        losses, scores, residual = model.read(features, pairs, self._extract(features, target), self._chunk)
        return losses, scores, residual

    def _extract(self, features: Features, target: Tensor) -> Callable[[SubsetOutput], tuple[Tensor, Tensor, Tensor]]:
        """What :meth:`_read` keeps of each chunk of pairs."""
        aim = features.h.detach() if self.detach_targets else features.h

        def extract(result: SubsetOutput) -> tuple[Tensor, Tensor, Tensor]:
            wanted = target[result.pairs.rows]
            losses = self.losses(result.output, wanted)
            if self.completion > 0:
                error = _DISTANCES[self.distance](result.completed, aim[result.pairs.rows], reduction="none")
                error = error.flatten(2).mean(2)
            else:
                error = losses.new_zeros(len(losses), 1)
            with torch.no_grad():
                count = self._counts_capability and self.score_mode == "reuse"
                scores = self.task.score(result.output, wanted) if count else torch.zeros_like(losses)  # type: ignore[union-attr]
            return losses, scores, error

        return extract

    def weights(
        self, model: MultimodalModel, features: Features, pairs: Pairs, importance: Tensor, scores: Tensor, batch: Batch
    ) -> Tensor:
        """A times B for each modality, shape ``(M,)``; sets the diagnostics."""
        present, weight = features.present, self.availability_weight
        self.diagnostics = {"A": weight}
        if not self._counts_capability:
            return weight
        with torch.no_grad():
            upper = self.upper_of(batch)
            target = self._target(batch)
            if self.score_mode == "eval":
                output = self._outputs_without_dropout(model, batch, pairs)
                scores = self.task.score(output, target[pairs.rows])  # type: ignore[union-attr]
            empty = scores.new_zeros(len(batch))
            if self._prior is not None:
                empty = self.task.score(self.task.expand(self._prior, target), target)  # type: ignore[union-attr]
            if not self._draws(model.lattice):
                values = scores.new_zeros(len(batch), len(model.lattice)).index_put((pairs.rows, pairs.codes), scores)
                values[:, 0] = empty
                phi = model.lattice.shapley(values, present)
                if self.gap == "shapley":
                    gap = torch.where(present, upper - phi, 0.0)
                else:
                    gap = capability_gap(model.lattice, values, upper, present, self.gap)
            else:
                phi = sampled_shapley(model.lattice, pairs, importance, scores, present, empty)
                scale = present.sum(1, keepdim=True) if self.gap == "scaled" else 1
                gap = torch.where(present, upper - scale * phi, 0.0)
            sums = total(torch.stack([gap.sum(0), present.sum(0).to(gap), phi.sum(0), upper.sum(0)]))
            state = learning_state(sums[0], sums[1])
            if self.momentum:
                before = torch.where(self.learning_state.isnan(), state, self.learning_state)
                smooth = self.momentum * before + (1 - self.momentum) * state
                state = torch.where(sums[1] > 0, smooth, self.learning_state)
            self.learning_state.copy_(state)
            state = state.nan_to_num()
            count = sums[1].clamp(min=1)
            self.diagnostics |= {"phi": sums[2] / count, "upper": sums[3] / count, "B": state, "count": sums[1]}
            return weight * state

    def _outputs_without_dropout(self, model: MultimodalModel, batch: Batch, pairs: Pairs) -> Tensor:
        training = model.training
        model.eval()
        try:
            return model.predict(model.encode(batch), pairs, self._chunk)
        finally:
            model.train(training)

    def upper_of(self, batch: Batch) -> Tensor:
        """Scores of the frozen single-modality models, ``(B, M)``, 0 where a modality is absent (Eq. 6)."""
        known = self.upper_scores[batch.index.clamp(max=len(self.upper_scores) - 1)]
        if torch.isnan(known[batch.present]).any() or bool((batch.index >= len(self.upper_scores)).any()):
            raise DataError(
                "MCE: this batch holds samples that the references have no score for; they were made from other data."
            )
        return torch.where(batch.present, known, 0.0)

    def shares(self, lattice: Lattice, pairs: Pairs, importance: Tensor, present: Tensor) -> Tensor:
        """What each pair counts in Eqs. 11 and 13, shape ``(P,)``; the shares of the global batch sum to 1.

        A pair of subset S counts ``1 / (|S_batch| |N_S|)``. Beyond the size of a table the subsets of a batch are not
        counted; there the shares of the pairs that were drawn are scaled to sum to 1.
        """
        codes, left_out = gather_rows(lattice.encode(present)), int(not self.include_full)

        def feasible(subsets: Tensor) -> Tensor:
            """How many rows of the global batch each subset is one of."""
            inside = subsets & ~codes[:, None] == 0
            return (inside & (subsets != codes[:, None]) if left_out else inside).sum(0)

        if self.subset_weighting == "sample":
            subsets = 2.0 ** present.sum(1)[pairs.rows] - 1 - left_out
            share = importance / (subsets * (lattice.size(codes) > left_out).sum()).clamp(min=1)
        elif lattice.M <= MAX_TABLE:
            rows = feasible(lattice.codes.to(codes.device))
            share = importance / (rows[pairs.codes] * (rows[1:] > 0).sum()).clamp(min=1)
        else:
            share = importance / feasible(pairs.codes).clamp(min=1)
        if left_out:
            share = torch.where(pairs.codes == lattice.encode(present)[pairs.rows], 0.0, share)
        scaled = self.subset_weighting == "macro" and lattice.M > MAX_TABLE
        return share / total(share.sum()).clamp(min=1e-12) if scaled else share

    def single_loss(self, model: MultimodalModel, features: Features, target: Tensor, factor: Tensor) -> Tensor:
        """Loss of the single-modality heads, summed over modalities (Eq. 9, a mean over the rows that have each)."""
        assert self.heads is not None
        h = features.h
        if self.head_input == "refined":
            h = model.complete(h, features.present)
        # One gather for all modalities: each one's gradient would be as large as the features of the whole batch.
        column, rows = features.present.t().nonzero(as_tuple=True)
        packed = h.flatten(0, 1).index_select(0, rows * h.shape[1] + column)
        counts = features.present.sum(0)
        heads = zip(self.heads, packed.split(counts.tolist()))
        losses = self.losses(torch.cat([head(part) for head, part in heads]), target[rows])
        everywhere = total(counts.to(losses.dtype)).clamp(min=1)
        return (losses * (factor / everywhere)[column]).sum() * world_size()

    def extra_repr(self) -> str:
        text = f"single={self.single}, subset={self.subset}, completion={self.completion}"
        for name, default in (("availability", True), ("capability", True), ("gap", "shapley"), ("variant", "paper")):
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)!r}"
        return text


_DISTANCES = {
    "l1": nn.functional.l1_loss,
    "l2": nn.functional.mse_loss,
    "smooth_l1": nn.functional.smooth_l1_loss,
}
