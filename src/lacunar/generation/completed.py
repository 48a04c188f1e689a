"""A model that predicts as if every modality were there, because a completer fills in what is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from lacunar.data.batch import Batch
from lacunar.errors import ConfigError
from lacunar.evaluation.outputs import joint_model, predict_in_pieces, samples_of
from lacunar.generation.base import Completer
from lacunar.lattice import Lattice, Pairs
from lacunar.models.blend import Blend
from lacunar.models.configurable import Configurable
from lacunar.models.multimodal import available_pairs
from lacunar.tasks import Task

__all__ = ["Completed"]


class Completed(Configurable):
    """A model behind a completer: of every (sample, subset) pair only the subset is seen, the rest is generated.

    :func:`lacunar.evaluate` then gives the scores with filling, subset by subset; against the model's own they say
    what filling is worth, see :func:`lacunar.filling_benefit`. A completer that was fitted inside the model fills in
    features after the encoders; one fitted to values fills in inputs before them. Filled inside, a model with experts
    hears them on what was observed alone; filled before the encoders, they see the made-up inputs too.

    Args:
        model: with ``predict_pairs`` (whatever :func:`lacunar.fit` returns), or for a completer of values any
            callable from a batch to raw outputs that has modality ``names``.
        completer: fitted, to values or inside this model.
        subsets: fill only for these subsets (``"a+b"``, names or codes), and leave the others to the model as it is;
            None fills for all. Subsets to predict from, not to fill.

    Attributes:
        subsets: codes of the subsets that are filled, or None for all.
        benefit: what :func:`lacunar.abstain` decided by, otherwise None; not saved.
    """

    benefit: pd.DataFrame | None

    def __init__(
        self,
        model: nn.Module,
        completer: Completer,
        subsets: Iterable[str | Sequence[str] | int] | None = None,
    ):
        super().__init__()
        if not isinstance(completer, Completer) or not completer.fitted:
            raise ConfigError("Completed: expected a fitted completer, such as RidgeCompleter().fit(data.train).")
        self.model, self.completer = model, completer
        self.benefit = None
        if self.names != completer.names:
            raise ConfigError(
                f"Completed: the model has the modalities {self.names}, the completer was fitted to {completer.names}."
            )
        codes = None
        if subsets is not None:
            codes = sorted({self.lattice.index(s.split("+") if isinstance(s, str) else s) for s in subsets})
        self.subsets = codes

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names in lattice order."""
        return tuple(getattr(self.model, "names", self.completer.names))

    @property
    def lattice(self) -> Lattice:
        """The lattice of the modalities."""
        return Lattice(self.names)

    @property
    def task(self) -> Task | None:
        """What the outputs mean."""
        return getattr(self.model, "task", None)  # type: ignore[return-value]

    @property
    def notes(self) -> list[str]:
        """What a reader of the scores has to know: what was generated, and by what."""
        made_by = type(self.completer).__name__
        if self.subsets is None:
            return [f"{made_by} generated the modalities outside each subset: the model predicts as if all were there"]
        filled = ", ".join(map(self.lattice.label, self.subsets)) or "no subset"
        return [f"{made_by} generated the missing modalities for {filled}; elsewhere nothing was filled in"]

    def configuration(self) -> dict[str, Any]:
        """Constructor arguments by name."""
        return {"model": self.model, "completer": self.completer, "subsets": self.subsets}

    def predict_pairs(self, batch: Batch, pairs: Pairs, chunk: int | None = None) -> Tensor:
        """Raw outputs ``(P, n_outputs, ...)`` of (sample, subset) pairs of a batch, ``chunk`` at a time."""
        whole = 2 ** len(self.names) - 1
        wanted = pairs.codes != whole
        if self.subsets is not None:
            wanted &= torch.isin(pairs.codes, torch.tensor(self.subsets, dtype=torch.int64, device=pairs.codes.device))
        parts = []
        for choice, predict in ((wanted, self._filled), (~wanted, self._as_it_is)):
            where = choice.nonzero().squeeze(1)
            if len(where):
                parts.append((where, predict(batch, Pairs(pairs.rows[where], pairs.codes[where]), chunk)))
        order = torch.cat([where for where, _ in parts]).argsort()
        return torch.cat([output for _, output in parts])[order]

    def forward(self, batch: Batch) -> Tensor:
        """Raw outputs ``(B, n_outputs, ...)`` from everything that each sample has, the rest generated.

        Raises:
            DataError: when a sample has nothing.
        """
        return self.predict_pairs(batch, available_pairs(self.lattice, batch))

    def extra_repr(self) -> str:
        return "" if self.subsets is None else f"fills for {', '.join(map(self.lattice.label, self.subsets)) or 'none'}"

    # ------------------------------------------------------------------ inside

    def _as_it_is(self, batch: Batch, pairs: Pairs, chunk: int | None) -> Tensor:
        if hasattr(self.model, "predict_pairs"):
            return predict_in_pieces(self.model, batch, pairs, chunk)
        return self._by_code(batch, pairs, chunk, lambda part: self.model(part))

    def _filled(self, batch: Batch, pairs: Pairs, chunk: int | None) -> Tensor:
        if self.completer.inside_model:
            return self._filled_inside(batch, pairs, chunk)
        return self._by_code(batch, pairs, chunk, self._with_everything)

    def _with_everything(self, part: Batch) -> Tensor:
        full = self.completer.complete_batch(part)
        if not hasattr(self.model, "predict_pairs"):
            return self.model(full)
        return self.model.predict_pairs(full, _everything(full.present))  # type: ignore[operator]

    def _by_code(self, batch: Batch, pairs: Pairs, chunk: int | None, predict: Any) -> Tensor:
        """Outputs of batches that hold nothing but the subset, one subset at a time."""
        where, outputs = [], []
        for code in pairs.codes.unique().tolist():
            of_code = (pairs.codes == code).nonzero().squeeze(1)
            of_code = of_code[pairs.rows[of_code].argsort()]
            for part in of_code.split(chunk or max(len(of_code), 1)):
                outputs.append(predict(samples_of(batch, pairs.rows[part]).hide(self.lattice.subset(code))))
                where.append(part)
        return torch.cat(outputs)[torch.cat(where).argsort()]

    def _filled_inside(self, batch: Batch, pairs: Pairs, chunk: int | None) -> Tensor:
        staged: Any = self.model if hasattr(self.model, "encode") else joint_model(self.model)
        features = staged.encode(batch)
        own = getattr(features, "joint", features)
        joint: Any = staged.joint if isinstance(staged, Blend) else staged
        outputs = []
        for part in torch.arange(len(pairs.rows), device=own.h.device).split(chunk or max(len(pairs.rows), 1)):
            some = Pairs(pairs.rows[part], pairs.codes[part])
            made = self.completer.complete_features(own.take(some.rows, self.lattice.decode(some.codes)))
            output = joint.predict(made, _everything(made.present))
            if isinstance(staged, Blend):
                output = staged.combine(output, features, some)
            outputs.append(output)
        return torch.cat(outputs)


def _everything(present: Tensor) -> Pairs:
    """Each row of a batch with all modalities."""
    count, M = present.shape
    codes = torch.full((count,), 2**M - 1, dtype=torch.int64, device=present.device)
    return Pairs(torch.arange(count, device=present.device), codes)
