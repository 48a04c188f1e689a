"""The multimodal transformer: every modality as a sequence, and each looks into each of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.part import one_part
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.lattice import Pairs
from lacunar.models._mult_encoders import OwnTokens, TokenEncoder, TokenModule
from lacunar.models._mult_fusion import CrossFusion
from lacunar.models._mult_tokens import TokenFeatures, TokenView, slots
from lacunar.models.completion import TokenTransformer
from lacunar.models.configurable import Configurable
from lacunar.models.encoders._sequence import mean_over_steps
from lacunar.models.multimodal import Features, MultimodalModel, SubsetOutput, input_facts
from lacunar.models.preprocessing import Standardize
from lacunar.models.rescale import Rescale
from lacunar.tasks import Regression, Task

__all__ = ["MulT", "ResidualHead"]

MISSING = ("drop", "zero", "mean", "generate")
#: Share of the running mean of the tokens that a training batch renews.
RENEWED = 0.05
Missing = Literal["drop", "zero", "mean", "generate"]


class ResidualHead(Configurable):
    """``y = W_o (W_2 drop(relu(W_1 v)) + v)``.

    Args:
        in_features: width F of v.
        outputs: size of y.
        dropout: rate between the two inner layers.

    Shapes:
        ``(P, F)`` -> ``(P, outputs)``.
    """

    def __init__(self, in_features: int, outputs: int, dropout: float = 0.1):
        super().__init__()
        self.first, self.second = nn.Linear(in_features, in_features), nn.Linear(in_features, in_features)
        self.dropout, self.last = nn.Dropout(dropout), nn.Linear(in_features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Output ``(P, outputs)`` of fused features ``x (P, F)``."""
        return self.last(self.second(self.dropout(functional.relu(self.first(x)))) + x)


class MulT(Configurable, MultimodalModel):
    r"""Transformers between every two modalities, whose sequences need not be aligned, for any number of modalities.

    Each modality becomes a sequence of tokens ``h_m`` of one width. A stack of attention blocks for each target t and
    source s lets the tokens of t look into those of s, ``c_ts = X_ts(h_t, h_s)``; what a target found in the others
    is put side by side, goes through a stack of its own, and its last real step is read out,
    ``v_t = R_t(concat_s c_ts)[T_t]``; a residual head reads all ``v_t``. Keys and values are the same low-level
    tokens in every block, padded steps are never looked at, and outputs depend on no other sample of the batch.

    Every subset of what a sample has is read from one pass: the ``c_ts`` are made once for each sample, and a subset
    picks those that lie inside it. How a subset is read (``missing``):

    * ``"drop"``: only pairs inside the subset. What a target finds in an absent source is replaced by the mean of what
      it finds in the others; a modality that is alone skips the first stage, as its own tokens take their place.
      Absent targets are zeros in the head, and the others are enlarged by M / their number.
    * ``"zero"``: an absent modality is one token of zeros, as target and as source.
    * ``"mean"``: it is the running mean of the modality's pooled tokens in training.
    * ``"generate"``: it is one token that a :class:`TokenTransformer` makes from the pooled features of the others:
      ``completion`` of the model, which the completion loss of :class:`lacunar.MCE` trains.

    Whatever the choice, features that a completer filled in (:mod:`lacunar.generation`) are read as one token.

    Args:
        inputs: for each modality its ``kind`` and ``shape``, see :func:`lacunar.models.multimodal.input_facts`.
        outputs: size of the output.
        width: d of the tokens, a multiple of ``heads``.
        heads: attention heads.
        layers: blocks of each stack between two modalities.
        self_layers: blocks of each stack after it; at least 3 and at least ``layers`` when left out.
        kernel: steps that the projection of sequences and tokens sees; one number, or one by modality.
        dropout: rate on what each part of a block adds and inside its wide layers.
        attention_dropout: rate on attention weights; one number, or one by source.
        embedding_dropout: rate on tokens with their positions.
        input_dropout: rate on the raw steps; one number, or one by modality.
        head_dropout: rate in the head.
        causal: a step of a target sees the steps of a source up to its own plus the difference of their lengths; the
            published code does so unless told otherwise.
        missing: see above.
        legacy_readout: padding counts as steps, as in the released code: it is looked at, and the read-out is the
            last of ``steps``.
        steps: with ``legacy_readout``, for each modality of sequences or tokens how many steps to cut or fill it to.
        vocabulary: number of symbols of each modality of tokens.
        patch: height and width of the patches of images; rows of pixels otherwise.
        standardize: scale inputs by statistics that :meth:`for_data` takes from the train part.
        encoders: your own encoders for some of the modalities: from the rows, and lengths if they take them, to tokens
            ``(n, T, width)`` with lengths, to features ``(n, width)``, or to features in space.
        head: from ``(P, M * max(M - 1, 1) * width)`` to outputs; a :class:`ResidualHead` when left out.
        task: what the output means; set by :func:`lacunar.fit` when left out.

    Raises:
        ConfigError: sizes that do not fit, or options for unknown modalities.

    References:
        Tsai et al., *Multimodal Transformer for Unaligned Multimodal Language Sequences*, ACL 2019, arXiv:1906.00295.
    """

    usual: Tensor

    def __init__(
        self,
        inputs: Mapping[str, Mapping[str, Any]],
        outputs: int,
        *,
        width: int = 32,
        heads: int = 4,
        layers: int = 2,
        self_layers: int | None = None,
        kernel: int | Mapping[str, int] = 3,
        dropout: float = 0.1,
        attention_dropout: float | Mapping[str, float] = 0.1,
        embedding_dropout: float = 0.1,
        input_dropout: float | Mapping[str, float] = 0.0,
        head_dropout: float = 0.1,
        causal: bool = False,
        missing: Missing = "drop",
        legacy_readout: bool = False,
        steps: Mapping[str, int] | None = None,
        vocabulary: Mapping[str, int] | None = None,
        patch: Mapping[str, Sequence[int]] | None = None,
        standardize: bool = True,
        encoders: Mapping[str, nn.Module] | None = None,
        head: nn.Module | None = None,
        task: Task | None = None,
    ):
        names, M = tuple(inputs), len(inputs)
        if missing not in MISSING:
            raise ConfigError(f"MulT: unknown missing={missing!r}.{did_you_mean(str(missing), MISSING)}")
        if min(width, heads, layers, 1 if self_layers is None else self_layers) < 1 or width % heads:
            raise ConfigError(
                "MulT: expected at least one layer, and a width that is a multiple of the heads, got "
                f"width={width}, heads={heads}, layers={layers}, self_layers={self_layers}."
            )
        per = {"kernel": kernel, "attention_dropout": attention_dropout, "input_dropout": input_dropout}
        by_name = {"steps": steps, "vocabulary": vocabulary, "patch": patch, "encoders": encoders}
        for option, given in {**per, **by_name}.items():
            for name in given if isinstance(given, Mapping) else ():
                if name not in names:
                    raise ConfigError(f"MulT: {option} of unknown modality {name!r}.{did_you_mean(name, names)}")
        made: dict[str, nn.Module] = {}
        for name, facts in inputs.items():
            if encoders is not None and name in encoders:
                made[name] = OwnTokens(encoders[name], width)
                continue
            ragged = facts["kind"] in ("sequence", "tokens")
            if legacy_readout and ragged and name not in (steps or {}):
                raise ConfigError(f"MulT: legacy_readout needs steps={{{name!r}: number}}; MulT.for_data finds it.")
            made[name] = TokenEncoder(
                facts["kind"], tuple(facts["shape"]), width, _of(kernel, name, 1), _of(input_dropout, name, 0.0),
                causal, (vocabulary or {}).get(name), (patch or {}).get(name),
                (steps or {}).get(name) if legacy_readout else None, standardize,
            )  # fmt: skip
        fusion = CrossFusion(
            M, width, heads, layers, max(layers, 3) if self_layers is None else self_layers,
            [_of(attention_dropout, name, 0.0) for name in names], dropout, embedding_dropout, causal,
        )  # fmt: skip
        super().__init__(
            made,
            TokenTransformer(width, heads, dropout=dropout) if missing == "generate" else None,
            fusion,
            ResidualHead(fusion.out_features, outputs, head_dropout) if head is None else head,
            task,
            inputs,
        )
        self.width, self.missing = width, missing
        self.given_encoders, self.given_head = tuple(encoders or ()), head is not None
        if missing == "mean":
            self.register_buffer("usual", torch.zeros(M, width))

    @classmethod
    def for_data(cls, data: MultimodalDataset, *, width_match: int | None = None, **options: Any) -> MulT:
        """A model for the shapes, the scale and the task of the train part.

        Args:
            data: the train part; statistics of inputs and target are read from it.
            width_match: make the streams as wide as in a model of this many modalities, so that models of fewer are
                not also smaller; they are ``(M - 1) * width`` wide otherwise.
            **options: of :class:`MulT`.

        Raises:
            DataError: without a target, or with a modality that no row has.
            ConfigError: for label maps.
        """
        data = one_part(data, "MulT.for_data", "data.train")
        if data.task is None or data.target is None:
            raise DataError(f"MulT.for_data needs a target to know the task, and {data.name!r} has none.")
        if data.task.kind == "segmentation":
            raise ConfigError("MulT pools over places, so it makes no label maps: use lacunar.default_model.")
        if width_match is not None:
            width, heads = options.get("width", 32), options.get("heads", 4)
            wanted = width * max(width_match - 1, 1) / max(len(data.names) - 1, 1)
            options["width"] = max(1, round(wanted / heads)) * heads
        own = [name for name in data.names if name not in (options.get("encoders") or {})]
        facts, known = input_facts(data), dict(options.pop("vocabulary", None) or {})
        steps = dict(options.pop("steps", None) or {})
        for name in own:
            if facts[name]["kind"] not in ("sequence", "tokens"):
                continue
            for batch in data.only([name]).batches(512):
                if facts[name]["kind"] == "tokens" and name not in (options.get("vocabulary") or {}):
                    known[name] = max(known.get(name, 0), int(batch.inputs[name].max()) + 1)
                if options.get("legacy_readout"):
                    steps[name] = max(steps.get(name, 1), int(batch.lengths[name].max()))
        task = data.task
        if isinstance(task, Regression) and "head" not in options:
            target = data.target.reshape(len(data), -1).double()
            spread_of = target.std(0, correction=0)
            scale = torch.where(spread_of > 0, spread_of, 1.0).tolist()
            M, width = len(data.names), options.get("width", 32)
            plain = ResidualHead(M * max(M - 1, 1) * width, task.n_outputs, options.get("head_dropout", 0.1))
            options["head"] = nn.Sequential(plain, Rescale(target.mean(0).tolist(), scale))
        options = {"task": task, "vocabulary": known or None, "steps": steps or None, **options}
        model = cls(facts, task.n_outputs, **options)
        for name in own:
            encoder = model.encoder(name)
            assert isinstance(encoder, TokenEncoder)
            if encoder.scale is not None:
                encoder.scale.load_state_dict(Standardize.fit(data, name).state_dict())
        return model

    def configuration(self) -> dict[str, Any]:
        """Constructor arguments, the parts that were given as they are now."""
        current = {**super().configuration(), "inputs": self.inputs, "task": self.task}
        if self.given_encoders:
            current["encoders"] = {name: self.encoder(name).encoder for name in self.given_encoders}
        if self.given_head:
            current["head"] = self.head
        return current

    def with_parts(self, **parts: nn.Module | None) -> MultimodalModel:
        """A :class:`MultimodalModel` of the encoders, whose pooled tokens the given parts read."""
        return MultimodalModel(**{**MultimodalModel.configuration(self), **parts})  # type: ignore[arg-type]

    # ------------------------------------------------------------------ one pass over what is there

    def encode(self, batch: Batch) -> TokenFeatures:
        """Tokens of what is there, and what each modality finds in each of the others, once for every subset.

        Raises:
            DataError: when the batch has other modalities, kinds or shapes than the model was made for.
        """
        self._check_inputs(batch)
        size, M, present = len(batch), len(self.names), batch.present
        tokens: dict[str, Tensor] = {}
        lengths: dict[str, Tensor] = {}
        for name, encoder in self.named_encoders():
            assert isinstance(encoder, TokenModule)
            tokens[name], lengths[name] = encoder.tokens(self._rows(batch, name), batch.lengths.get(name))
        pooled = torch.cat([mean_over_steps(tokens[name], lengths[name]) for name in self.names])
        self._remember(pooled, [len(lengths[name]) for name in self.names])
        cells = torch.cat([batch.rows(name) * M + m for m, name in enumerate(self.names)])
        h = pooled.new_zeros(size * M, self.width).index_copy(0, cells, pooled).view(size, M, self.width)
        crossed, crossed_slot = self._fusion.cross(tokens, lengths, present)
        return TokenFeatures(h, present, None, tokens, lengths, slots(present), crossed, crossed_slot)

    def _remember(self, pooled: Tensor, counts: list[int]) -> None:
        if self.missing != "mean" or not self.training:
            return
        with torch.no_grad():
            for usual, rows in zip(self.usual, pooled.detach().split(counts)):
                if len(rows):
                    usual.lerp_(rows.mean(0).to(usual), RENEWED)

    @property
    def _fusion(self) -> CrossFusion:
        assert isinstance(self.fusion, CrossFusion)
        return self.fusion

    # ------------------------------------------------------------------ any subset of it

    def decode(self, features: Features, pairs: Pairs) -> SubsetOutput:
        """Output of (sample, subset) pairs; modalities that a completer filled in count as one token."""
        own = TokenFeatures.of(features, self.names)
        chosen = self.lattice.decode(pairs.codes)
        known, slot = own.h[pairs.rows], own.slot[pairs.rows]
        completed = self.complete(known.masked_fill(~chosen[:, :, None], 0.0), chosen)
        # What is chosen but has no tokens was filled in from outside.
        single = torch.where(chosen[:, :, None], known, self.usual if self.missing == "mean" else completed)
        on = chosen if self.missing == "drop" else torch.ones_like(chosen)
        fused = self._fusion.fuse(TokenView(own, pairs.rows, on, slot, chosen & (slot >= 0), single))
        return SubsetOutput(pairs, self.head(fused), completed, fused)


def _of(option: Any, name: str, otherwise: Any) -> Any:
    return option.get(name, otherwise) if isinstance(option, Mapping) else option
