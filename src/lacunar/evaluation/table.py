"""What a model scores on every subset of modalities."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lacunar.errors import ConfigError, DataError
from lacunar.evaluation.statistics import bootstrap_means, percentile_interval
from lacunar.lattice import MAX_TABLE, Lattice

__all__ = ["Score", "SubsetTable"]

FEW = 30
"""Below this many samples a subgroup is flagged."""


class Score(NamedTuple):
    """A subset and what it scores."""

    subset: str
    score: float

    def __str__(self) -> str:
        return f"{self.subset} {self.score:.3f}"


class SubsetTable:
    """Scores of every subset of modalities, per sample, with everything that follows from them.

    :func:`lacunar.evaluate` makes one. All intervals of a table rest on the same bootstrap resamples, so that
    differences between its subsets are paired; so are differences between tables with the same seed.

    Args:
        lattice: the modalities.
        codes: subset codes, the empty set first, then small subsets first, K of them.
        scores: score of each sample on each subset, float32, shape ``(N, K)``, NaN where the sample lacks a member.
        metrics: further metrics, one row per code.
        ids: sample ids, shape ``(N,)``.
        score_name: what the score is, such as ``"accuracy"``.
        kind: kind of task.
        confidence, resamples, seed: of the bootstrap.
        groups: samples that are resampled together, or None.
        expert_scores: scores of frozen single-modality models, shape ``(N, M)``, NaN where absent; or None.
        generated: which cells a completer made up, boolean, shape ``(N, M)``; None when none.
        notes: what a reader has to know to read the numbers rightly.
    """

    def __init__(
        self,
        lattice: Lattice,
        codes: Sequence[int],
        scores: np.ndarray,
        metrics: pd.DataFrame,
        ids: np.ndarray,
        *,
        score_name: str = "score",
        kind: str = "classification",
        confidence: float = 0.95,
        resamples: int = 1000,
        seed: int = 0,
        groups: np.ndarray | None = None,
        expert_scores: np.ndarray | None = None,
        generated: np.ndarray | None = None,
        notes: Sequence[str] = (),
    ):
        if not len(codes) or codes[0] != 0 or scores.shape != (len(ids), len(codes)) or len(metrics) != len(codes):
            raise DataError(f"Expected {len(codes)} columns of scores, the empty set first, got shape {scores.shape}.")
        self.lattice, self.codes = lattice, [int(code) for code in codes]
        self.scores = np.asarray(scores, dtype=np.float32)
        self.labels = [lattice.label(code) for code in self.codes]
        self.metrics = metrics.set_axis(self.labels, axis=0)
        self.ids, self.groups = np.asarray(ids), groups
        self.score_name, self.kind = score_name, kind
        self.confidence, self.resamples, self.seed = confidence, resamples, seed
        self.expert_scores = expert_scores
        self.generated = None if generated is None else np.asarray(generated, dtype=bool)
        self.notes = [*notes, *self._about_rows()]

    # ------------------------------------------------------------------ the table

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names in lattice order."""
        return self.lattice.names

    @property
    def counts(self) -> np.ndarray:
        """How many samples have all members of each subset, shape ``(K,)``."""
        return np.isfinite(self.scores).sum(axis=0)

    @cached_property
    def draws(self) -> np.ndarray:
        """Mean score of each subset in each bootstrap resample, shape ``(R, K)``."""
        return bootstrap_means(self.scores, self.resamples, self.seed, self.groups)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per subset, named ``'a+b'``: ``size``, ``n``, ``score`` with ``low`` and ``high``, further metrics.

        The first row, ``'none'``, is the best constant prediction. Where a completer filled in cells, ``generated``
        is the share of the n samples in which a member of the subset was generated.
        """
        low, high = percentile_interval(self.draws, self.confidence)
        facts = {
            "size": [code.bit_count() for code in self.codes],
            "n": self.counts,
            "score": _means(self.scores),
            "low": low,
            "high": high,
        }
        if self.generated is not None:
            with np.errstate(invalid="ignore"):
                facts["generated"] = self._rests_on_generated().sum(axis=0) / self.counts
        return pd.DataFrame(facts, index=pd.Index(self.labels, name="subset")).join(self.metrics)

    @property
    def per_sample(self) -> pd.DataFrame:
        """Score of each sample (rows, by id) on each subset (columns), NaN where it lacks a member."""
        return pd.DataFrame(self.scores, index=pd.Index(self.ids, name="id"), columns=self.labels)

    # ------------------------------------------------------------------ what it comes to

    @property
    def mean(self) -> float:
        """Mean over the non-empty subsets, each weighing the same; subsets that nobody has are left out."""
        return float(np.nanmean(_means(self.scores)[1:]))

    @property
    def mean_interval(self) -> tuple[float, float]:
        """Bootstrap interval of :attr:`mean`."""
        low, high = percentile_interval(_row_means(self.draws[:, 1:])[:, None], self.confidence)
        return float(low[0]), float(high[0])

    @property
    def worst(self) -> Score:
        """The non-empty subset with the lowest score. The lowest of many estimates is biased downwards."""
        means = _means(self.scores)[1:]
        position = int(np.nanargmin(means))
        return Score(self.labels[position + 1], float(means[position]))

    @property
    def full(self) -> float:
        """Score with all modalities, NaN when no sample has them all."""
        return float(_means(self.scores)[self._column(2**self.lattice.M - 1)])

    @property
    def baseline(self) -> float:
        """Score of the best constant prediction: the empty subset."""
        return float(_means(self.scores)[0])

    @cached_property
    def drop_against_full(self) -> pd.DataFrame:
        """How much each subset loses against all modalities, on the samples that have them all.

        Columns ``drop``, ``low`` and ``high``, paired; NaN when no sample has all modalities.
        """
        complete = self.scores[np.isfinite(self.scores[:, self._column(2**self.lattice.M - 1)])]
        gap = complete[:, [self._column(2**self.lattice.M - 1)]] - complete
        groups = None
        if self.groups is not None:
            groups = self.groups[np.isfinite(self.scores[:, self._column(2**self.lattice.M - 1)])]
        low, high = percentile_interval(bootstrap_means(gap, self.resamples, self.seed, groups), self.confidence)
        index = pd.Index(self.labels, name="subset")
        return pd.DataFrame({"drop": _means(gap), "low": low, "high": high}, index=index)

    @property
    def values(self) -> Tensor:
        """The value of every subset, float64, shape ``(2^M,)``: the baseline for the empty set.

        Raises:
            DataError: above 12 modalities, where only some subsets are scored.
        """
        return torch.from_numpy(self._by_code(_means(self.scores)))

    def shapley(self) -> pd.DataFrame:
        """What each modality contributes to the score with all of them (exact Shapley values of :attr:`values`).

        Columns ``shapley``, ``low`` and ``high``; they add up to ``full - baseline``.
        """
        exact = self.lattice.shapley(self._by_code(_means(self.scores)))
        low, high = percentile_interval(self.lattice.shapley(self._by_code(self.draws)), self.confidence)
        index = pd.Index(self.names, name="modality")
        return pd.DataFrame({"shapley": exact, "low": low, "high": high}, index=index)

    # ------------------------------------------------------------------ comparisons

    def by_subgroup(self, subgroups: pd.DataFrame) -> pd.DataFrame:
        """The table within each subgroup.

        Args:
            subgroups: one column per attribute, rows as in the data that were evaluated (``data.subgroups``).

        Returns:
            Indexed by attribute and value: ``n``, ``mean`` over the subsets with ``low`` and ``high``, ``worst
            subset``, ``worst``, ``full``, and ``few``, True where n is below 30 and the numbers are not to be relied
            on. Rows without a value for an attribute are a subgroup of their own, ``'unknown'``. Samples that have
            nothing count in n; a subgroup of none but such samples has no scores, NaN.
        """
        if subgroups is None or len(subgroups) != len(self.ids):
            got = "none" if subgroups is None else f"{len(subgroups)} rows"
            raise DataError(f"subgroups: expected one row for each of the {len(self.ids)} samples, got {got}.")
        rows = []
        for attribute in subgroups.columns:
            column = subgroups[attribute].astype(object)
            values = column.where(column.notna(), "unknown").astype(str).to_numpy()
            for value in sorted(set(values)):
                keep = values == value
                n = int(keep.sum())
                facts: dict[str, Any] = dict.fromkeys(("mean", "low", "high", "worst subset", "worst", "full"), np.nan)
                if np.isfinite(self.scores[keep, 1:]).any():
                    part = self._rows(keep)
                    low, high = part.mean_interval
                    facts = {
                        "mean": part.mean, "low": low, "high": high, "worst subset": part.worst.subset,
                        "worst": part.worst.score, "full": part.full,
                    }  # fmt: skip
                rows.append({"attribute": str(attribute), "value": value, "n": n, **facts, "few": n < FEW})
        return pd.DataFrame(rows).set_index(["attribute", "value"])

    def by_generated(self) -> pd.DataFrame:
        """Scores of the samples whose members of a subset were all observed, and of those with generated ones.

        Returns:
            Indexed by subset and ``'observed'`` or ``'generated'``: ``n``, ``score`` with ``low`` and ``high``, and
            ``few``, True where n is below 30. The two are different samples: their difference is no effect of
            generating. Without any generated cell the second is empty, with n = 0.
        """
        made = self._rests_on_generated()
        parts = np.stack([np.where(made, np.nan, self.scores), np.where(made, self.scores, np.nan)], axis=2)
        parts = parts.reshape(len(self.ids), -1)
        low, high = percentile_interval(bootstrap_means(parts, self.resamples, self.seed, self.groups), self.confidence)
        n = np.isfinite(parts).sum(axis=0)
        index = pd.MultiIndex.from_product([self.labels, ["observed", "generated"]], names=["subset", "cells"])
        facts = {"n": n, "score": _means(parts), "low": low, "high": high, "few": n < FEW}
        return pd.DataFrame(facts, index=index)

    def difference(self, other: SubsetTable) -> pd.DataFrame:
        """This table minus another on the same samples: ``difference``, ``low``, ``high`` for each subset and the mean.

        Raises:
            DataError: the tables are of other samples, modalities or subsets.
        """
        same = self.codes == other.codes and self.names == other.names and np.array_equal(self.ids, other.ids)
        if not same:
            raise DataError("Tables can be compared when they are of the same samples, modalities and subsets.")
        gap = self.scores - other.scores
        draws = bootstrap_means(gap, self.resamples, self.seed, self.groups)
        means = np.append(_means(gap), np.nanmean(_means(gap)[1:]))
        low, high = percentile_interval(np.column_stack([draws, _row_means(draws[:, 1:])]), self.confidence)
        index = pd.Index([*self.labels, "mean"], name="subset")
        return pd.DataFrame({"difference": means, "low": low, "high": high}, index=index)

    @cached_property
    def experts(self) -> pd.DataFrame:
        """Each subset against the best of its own single-modality experts, on the samples that have the subset.

        Columns ``expert`` (the best on these samples, which favours the experts), ``expert score``, ``score``,
        ``difference`` (score minus expert) with the paired ``low`` and ``high``.

        Raises:
            DataError: the table was made without references.
        """
        if self.expert_scores is None:
            raise DataError("No expert scores: pass references= to lacunar.evaluate.")
        rows, gaps = [], []
        for column, code in enumerate(self.codes[1:], start=1):
            own = self.scores[:, column]
            has = np.isfinite(own)
            members = [m for m in range(self.lattice.M) if code >> m & 1]
            known = [float(self.expert_scores[has, m].mean()) if has.any() else np.nan for m in members]
            best = members[int(np.nanargmax(known))] if np.isfinite(known).any() else members[0]
            gaps.append(np.where(has, own - self.expert_scores[:, best], np.nan))
            rows.append({"expert": self.names[best], "expert score": known[members.index(best)]})
        table = np.column_stack(gaps)
        low, high = percentile_interval(bootstrap_means(table, self.resamples, self.seed, self.groups), self.confidence)
        frame = pd.DataFrame(rows, index=pd.Index(self.labels[1:], name="subset"))
        return frame.assign(score=_means(self.scores)[1:], difference=_means(table), low=low, high=high)

    @property
    def below_experts(self) -> pd.DataFrame:
        """The subsets on which the model scores less than one of its own single-modality experts; see :attr:`experts`.

        ``clear`` is True where the whole interval lies below zero.
        """
        below = self.experts[self.experts["difference"] < 0].sort_values("difference")
        return below.assign(clear=below["high"] < 0)

    # ------------------------------------------------------------------ out and in

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the table, see :func:`lacunar.evaluation.figures.subset_figure`.

        Args:
            path: where to save it (png, svg, pdf); None only draws.

        Returns:
            The matplotlib figure.
        """
        from lacunar.evaluation.figures import save_figure, subset_figure

        figure = subset_figure(self)
        if path is not None:
            save_figure(figure, Path(path))
        return figure

    def save(self, path: str | Path) -> None:
        """Write the table as JSON; the file appears whole or not at all."""
        from lacunar.evaluation.files import save_table

        save_table(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> SubsetTable:
        """The table that :meth:`save` wrote.

        Raises:
            RunError: the file cannot be read as a table.
        """
        from lacunar.evaluation.files import load_table

        return load_table(Path(path))

    def __len__(self) -> int:
        return len(self.codes)

    def __repr__(self) -> str:
        return f"SubsetTable({self.score_name}: mean {self.mean:.3f}, worst {self.worst}, full {self.full:.3f})"

    def __str__(self) -> str:
        from lacunar.evaluation.text import table_text

        return table_text(self)

    # ------------------------------------------------------------------ inside

    def _rows(self, keep: np.ndarray) -> SubsetTable:
        """The table of some of the samples, without further metrics."""
        return SubsetTable(
            self.lattice, self.codes, self.scores[keep], self.metrics.iloc[:, :0], self.ids[keep],
            score_name=self.score_name, kind=self.kind, confidence=self.confidence, resamples=self.resamples,
            seed=self.seed, groups=None if self.groups is None else self.groups[keep],
            generated=None if self.generated is None else self.generated[keep],
        )  # fmt: skip

    def _rests_on_generated(self) -> np.ndarray:
        """Which scores rest on a generated cell, boolean, shape ``(N, K)``."""
        known = np.isfinite(self.scores)
        if self.generated is None:
            return np.zeros_like(known)
        members = self.lattice.decode(torch.tensor(self.codes)).numpy()
        return known & (self.generated.astype(np.float32) @ members.T.astype(np.float32) > 0)

    def _column(self, code: int) -> int:
        return self.codes.index(code)

    def _by_code(self, table: np.ndarray) -> np.ndarray:
        if self.lattice.M > MAX_TABLE:
            raise DataError(
                f"All values of {self.lattice.M} modalities are not scored; exact values end at {MAX_TABLE}."
            )
        ordered = np.empty_like(table, dtype=np.float64)
        ordered[..., self.codes] = table
        return ordered

    def _about_rows(self) -> list[str]:
        counts, notes = self.counts[1:], []
        if self.lattice.M > MAX_TABLE and len(counts) < 2**self.lattice.M - 1:
            notes.append(
                f"{len(counts)} of 2^{self.lattice.M} - 1 subsets, drawn at random beside singles and full set"
            )
        if not counts.any():
            raise ConfigError("Expected samples that have something, got none.")
        if not counts.all():
            nobody = [label for label, count in zip(self.labels[1:], counts) if not count]
            listed = ", ".join(nobody[:5]) + (", ..." if len(nobody) > 5 else "")
            notes.append(f"no sample has {listed}: the mean is over the other {int((counts > 0).sum())} subsets")
        if self.generated is not None and self.generated.any():
            rests = self._rests_on_generated()[:, 1:].sum() / counts.sum()
            notes.append(
                f"{int(self.generated.sum())} cells were generated by a completer, not observed: {100 * rests:.1f} % "
                "of the scores rest on one; by_generated() tells them apart"
            )
        if counts.min() < counts.max():
            notes.append(
                f"subsets are scored on different samples (n from {counts.min()} to {counts.max()}); "
                "common_rows=True scores all of them on the complete ones"
            )
        return notes


def _means(table: np.ndarray) -> np.ndarray:
    """Means of the known entries of each column, NaN where there is none."""
    known = np.isfinite(table)
    total = np.where(known, table, 0.0).sum(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return total / known.sum(axis=0)


def _row_means(table: np.ndarray) -> np.ndarray:
    return _means(table.T)
