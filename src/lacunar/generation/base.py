"""What fills in absent modalities: the interface of all completers, and everything that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from lacunar.arguments import at_least
from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.part import one_part, train_part
from lacunar.errors import ConfigError, DataError
from lacunar.evaluation.outputs import evaluation_mode
from lacunar.generation.views import ROWS, encoded_views, moments, value_views
from lacunar.models.configurable import Configurable
from lacunar.models.multimodal import Features

if TYPE_CHECKING:
    import pandas as pd

    from lacunar.data.splits import Splits

__all__ = ["Completer"]

DENSE = ("vector", "image", "volume")


class Completer(Configurable, ABC):
    """Fills in absent modalities from those that are there, and flags what it made.

    A completer works on *views*: for each modality a table ``(N, d)`` of what was observed, flattened, standardised
    by the mean and deviation of the training data, and NaN where absent. It never sees the truth of an absent cell,
    never changes an observed one, and never looks at a label to fill anything in.

    A new one implements :meth:`_fit` and :meth:`_fill`, names itself in ``name``, and keeps what it learned with
    :meth:`_keep` (or in modules that it makes in :meth:`_build`); saving and loading then need nothing more.

    Args:
        seed: of everything random, in fitting and in filling.

    Attributes:
        name: what the completer is called, see :func:`lacunar.generation.get`.
        standardise: whether views are standardised; otherwise they hold the values as they are.
        names: modalities in lattice order; empty before :meth:`fit`.
        sizes: the width d of each view.
        classes: number of classes of the training data, None when they are not classified.
        inputs: kind and shape of each modality for raw values, None inside a model.
    """

    name: ClassVar[str]
    standardise: ClassVar[bool] = True

    def __init__(self, seed: int = 0):
        super().__init__()
        at_least(0, seed=seed)
        self.seed = seed
        self.names: tuple[str, ...] = ()
        self.sizes: list[int] = []
        self.classes: int | None = None
        self.inputs: dict[str, dict[str, Any]] | None = None
        self.feature_shape: tuple[int, ...] | None = None

    # ------------------------------------------------------------------ what a new completer implements

    @abstractmethod
    def _fit(self, views: list[Tensor], present: Tensor, target: Tensor | None) -> None:
        """Learn from the training data.

        The random state of torch is set from ``seed`` before and restored afterwards; gradients are on.

        Args:
            views: for each modality ``(N, d_m)``, NaN where absent.
            present: presence, boolean, shape ``(N, M)``.
            target: encoded targets ``(N, ...)``, class numbers when ``self.classes`` is set; or None.
        """

    @abstractmethod
    def _fill(self, views: list[Tensor], present: Tensor) -> list[Tensor]:
        """What could stand in each cell, ``(N, d_m)`` for each modality, finite everywhere.

        Entries of observed cells are ignored. A row depends on nothing but its own observed values and ``seed``:
        not on the other rows, not on their number. A row with nothing gets the unconditional filling.
        Differentiable where the method allows it.
        """

    def _build(self, sizes: list[int], classes: int | None) -> None:
        """Make the modules that depend on the data's sizes; called by :meth:`fit` and when a saved one is loaded."""

    def _keep(self, name: str, value: Tensor, learnable: bool = False) -> None:
        """Hold a tensor under a name as part of the state, which is saved and moves between devices."""
        if learnable:
            self.register_parameter(name, nn.Parameter(value.clone()))
        else:
            self.register_buffer(name, value)

    def generator(self) -> torch.Generator:
        """A new random generator, on the CPU, at the beginning of what ``seed`` stands for."""
        return torch.Generator().manual_seed(self.seed)

    # ------------------------------------------------------------------ fitting

    @property
    def fitted(self) -> bool:
        """Whether there is anything to fill with."""
        return bool(self.names)

    @property
    def inside_model(self) -> bool:
        """Whether this completes features inside a model, not values of the data."""
        return self.feature_shape is not None

    def fit(self, data: MultimodalDataset | Splits, model: nn.Module | None = None) -> Self:
        """Learn from training data; what was learned before is forgotten.

        Args:
            data: training samples, complete or not; of splits the train part. Cells that another completer
                generated are not used.
            model: complete the features that this model's encoders make, not the values themselves. Needed for
                sequences and tokens.

        Raises:
            DataError: no samples, a modality that nobody has, or sequences without a model.
        """
        data = train_part(data, f"{type(self).__name__}.fit").observed()
        if not len(data):
            raise DataError(f"{type(self).__name__}: expected samples to learn from, got none.")
        for name, count in zip(data.names, data.availability.tolist()):
            if not count:
                raise DataError(
                    f"{type(self).__name__}: no sample of the training data has modality {name!r}, so nothing can be "
                    f"learned about it. Leave it out with data.only(...)."
                )
        if model is None:
            self._refuse_sequences(data)
        values, shape = value_views(data) if model is None else encoded_views(data, model)
        task = data.task
        for key in [*self._buffers, *self._parameters]:
            delattr(self, key)
        self.names = data.names
        self.sizes = [part.shape[1] for part in values]
        classified = data.target is not None and task is not None and task.kind == "classification"
        self.classes = task.n_outputs if classified and task is not None else None
        self.inputs = None
        self.feature_shape = shape
        if model is None:
            self.inputs = {name: {"kind": data.kinds[name], "shape": list(data.shapes[name])} for name in data.names}
        present = data.present.to(values[0].device)
        for m, part in enumerate(values):
            center, scale = moments(part[present[:, m]])
            self._keep(f"center{m}", center)
            self._keep(f"scale{m}", scale)
        views = [self._to_view(m, part, present[:, m]) for m, part in enumerate(values)]
        target = None if data.target is None else data.target.to(present.device)
        devices = [present.device] if present.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.enable_grad():
            # torch.manual_seed would also seed devices whose state is not restored here.
            torch.default_generator.manual_seed(self.seed)
            if devices:
                torch.cuda.manual_seed(self.seed)
            self._build(self.sizes, self.classes)
            self.to(present.device)
            self._fit(views, present, target)
        return self.to(present.device)

    # ------------------------------------------------------------------ filling

    def complete(self, data: MultimodalDataset) -> MultimodalDataset:
        """The data with every absent cell filled in and flagged in ``generated``; observed cells stay what they are.

        Raises:
            DataError: other modalities or shapes than in training, or data that were filled before.
            ConfigError: before :meth:`fit`, or when it was fitted inside a model.
        """
        self._check_data(data)
        if bool(data.present.all()):
            return data
        made: dict[str, list[Tensor]] = {name: [] for name in data.names}
        device = self._center(0).device
        with evaluation_mode(self):
            for batch in data.batches(ROWS):
                for name, rows in self._rows(batch.to(device)).items():
                    made[name].append(rows.cpu())
        return data.fill({name: torch.cat(parts) for name, parts in made.items()})

    def complete_batch(self, batch: Batch) -> Batch:
        """The batch with every absent cell filled in and flagged, as :meth:`complete` does for data.

        Raises:
            DataError: other modalities or shapes than in training.
            ConfigError: before :meth:`fit`, or when it was fitted inside a model.
        """
        self._check_raw()
        if batch.names != self.names:
            raise DataError(f"The completer was fitted to the modalities {self.names}, the batch has {batch.names}.")
        return batch if bool(batch.present.all()) else batch.fill(self._rows(batch))

    def complete_features(self, features: Features) -> Features:
        """Features with those of absent modalities filled in.

        Args:
            features: ``h (B, M, C, *spatial)``; what stands in absent cells is not read.

        Returns:
            Features whose ``present`` still says what was observed, and ``generated`` what was made up.

        Raises:
            ConfigError: before :meth:`fit`, or when it was not fitted inside a model.
            DataError: features of another shape than in training.
        """
        self._check_fitted()
        if self.feature_shape is None:
            raise ConfigError(
                f"{type(self).__name__} was fitted to values, not inside a model. Use complete(data), or "
                "fit(data, model)."
            )
        h, present = features.h, features.present
        expected = (len(self.names), *self.feature_shape)
        if tuple(h.shape[1:]) != expected:
            raise DataError(f"The completer was fitted to features of shape {expected}, got {tuple(h.shape[1:])}.")
        values = [h[:, m].flatten(1).float() for m in range(len(self.names))]
        made = torch.stack(self._filled(values, present), 1).view_as(h).to(h.dtype)
        seen = present.view(*present.shape, *[1] * (h.ndim - 2))
        return replace(features, h=torch.where(seen, h, made), generated=~present)

    def score(
        self,
        data: MultimodalDataset,
        rate: float = 0.3,
        seed: int = 0,
        repeats: int = 5,
        **options: Any,
    ) -> pd.DataFrame:
        """How near the filling comes to observed cells that are hidden on purpose.

        One row per modality: ``n``, ``r2`` and ``rmse`` in standardised units with intervals, and those of filling
        with the mean. See :func:`lacunar.generation.scoring.score_completer`, which this calls, for the options
        (``hide``, ``model``, ``resamples``, ``confidence``), columns and errors.
        """
        from lacunar.generation.scoring import score_completer

        return score_completer(self, data, rate, seed, repeats, **options)

    # ------------------------------------------------------------------ inside

    def _rows(self, batch: Batch) -> dict[str, Tensor]:
        """What fills each modality of a batch: one row for every sample that lacks it."""
        assert self.inputs is not None
        present, values = batch.present, []
        for name, size in zip(self.names, self.sizes):
            rows = batch.inputs[name].flatten(1)
            if rows.shape[1] != size:
                raise DataError(
                    f"Modality {name!r}: the completer was fitted to samples of shape "
                    f"{tuple(self.inputs[name]['shape'])}, these have {tuple(batch.inputs[name].shape[1:])}."
                )
            dense = rows.new_full((len(batch), size), torch.nan, dtype=torch.float32)
            values.append(dense.index_copy(0, batch.rows(name), rows.float()))
        made = self._filled(values, present)
        return {
            name: made[m][~present[:, m]].view(-1, *self.inputs[name]["shape"]) for m, name in enumerate(self.names)
        }

    def _filled(self, values: Sequence[Tensor], present: Tensor) -> list[Tensor]:
        """What could stand in each cell, in the units of the values."""
        views = [self._to_view(m, part, present[:, m]) for m, part in enumerate(values)]
        made = self._fill(views, present)
        if not self.standardise:
            return made
        return [part * self._scale(m) + self._center(m) for m, part in enumerate(made)]

    def _to_view(self, m: int, values: Tensor, has: Tensor) -> Tensor:
        # What stands in an absent cell is replaced before any arithmetic, so that no gradient meets it either.
        known = torch.where(has[:, None], values, torch.nan)
        return (known - self._center(m)) / self._scale(m) if self.standardise else known

    def _center(self, m: int) -> Tensor:
        return getattr(self, f"center{m}")

    def _scale(self, m: int) -> Tensor:
        return getattr(self, f"scale{m}")

    def _check_fitted(self) -> None:
        if not self.fitted:
            raise ConfigError(f"{type(self).__name__} has not been fitted: call fit(data.train) first.")

    def _check_raw(self) -> None:
        self._check_fitted()
        if self.inside_model:
            raise ConfigError(
                f"{type(self).__name__} was fitted inside a model: it completes features, not values. Use "
                "Completed(model, completer), or fit it without a model."
            )

    def _check_data(self, data: MultimodalDataset) -> None:
        self._check_raw()
        data = one_part(data, type(self).__name__)
        if data.names != self.names:
            raise DataError(f"The completer was fitted to the modalities {self.names}, the data have {data.names}.")
        self._refuse_sequences(data)
        assert self.inputs is not None
        for name in self.names:
            expected, found = tuple(self.inputs[name]["shape"]), tuple(data.shapes[name])
            if expected != found:
                raise DataError(
                    f"Modality {name!r}: the completer was fitted to samples of shape {expected}, these have {found}."
                )

    def _refuse_sequences(self, data: MultimodalDataset) -> None:
        for name, kind in data.kinds.items():
            if kind not in DENSE:
                raise DataError(
                    f"Modality {name!r}: {type(self).__name__} completes values of one shape ({', '.join(DENSE)}), "
                    f"these are {kind}. Complete their features inside a model: fit(data, model)."
                )

    # ------------------------------------------------------------------ saving

    def configuration(self) -> dict[str, Any]:
        """Constructor arguments, and after :meth:`fit` the sizes of everything that was learned."""
        arguments = super().configuration()
        if not self.fitted:
            return arguments
        state = {
            kind: {
                name: [list(value.shape), str(value.dtype).removeprefix("torch.")]
                for name, value in held.items()
                if value is not None
            }
            for kind, held in (("buffers", self._buffers), ("parameters", self._parameters))
        }
        shape = None if self.feature_shape is None else list(self.feature_shape)
        facts = {
            "names": list(self.names), "sizes": self.sizes, "classes": self.classes, "inputs": self.inputs,
            "feature_shape": shape,
        }  # fmt: skip
        return {**arguments, "fitted": {**facts, "state": state}}

    @classmethod
    def from_configuration(cls, fitted: dict[str, Any] | None = None, **arguments: Any) -> Self:
        """What :meth:`configuration` describes, with room for its state; used by :func:`lacunar.load`."""
        completer = cls(**arguments)
        if fitted is None:
            return completer
        completer.names = tuple(fitted["names"])
        completer.sizes, completer.classes = list(fitted["sizes"]), fitted["classes"]
        completer.inputs = fitted["inputs"]
        completer.feature_shape = None if fitted["feature_shape"] is None else tuple(fitted["feature_shape"])
        completer._build(completer.sizes, completer.classes)
        for kind, held in fitted["state"].items():
            for name, (shape, dtype) in held.items():
                completer._keep(name, torch.zeros(shape, dtype=getattr(torch, dtype)), learnable=kind == "parameters")
        return completer

    def extra_repr(self) -> str:
        if not self.fitted:
            return "not fitted"
        where = "features" if self.inside_model else "values"
        return f"{where} of {', '.join(self.names)}"
