"""Does filling in help? The paired difference to not filling, and a model that fills only where it is shown to."""

from __future__ import annotations

import logging
import math
from typing import Any

import pandas as pd

from lacunar.arguments import checked
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.part import one_part
from lacunar.errors import ConfigError
from lacunar.evaluation.outputs import subset_codes
from lacunar.evaluation.subsets import evaluate
from lacunar.generation.base import Completer
from lacunar.generation.completed import Completed

__all__ = ["abstain", "filling_benefit"]

logger = logging.getLogger(__name__)


@checked
def filling_benefit(
    model: Any,
    completer: Completer,
    data: MultimodalDataset,
    *,
    confidence: float = 0.95,
    simultaneous: bool = False,
    **options: Any,
) -> pd.DataFrame:
    """What filling in changes in the score of every subset, against the same model without filling.

    Both predict for the same samples from the same subset; one sees zeros (or whatever the model makes of an absent
    modality), the other what the completer made of the subset. Intervals are of the paired difference.

    Args:
        model: a model that predicts from every subset.
        completer: fitted, to values or inside this model.
        data: samples that neither was fitted to, with a target.
        confidence: nominal coverage of the intervals.
        simultaneous: the intervals of all subsets hold at once with this confidence (Bonferroni), not each by itself.
        options: for :func:`lacunar.evaluate`: ``bootstrap``, ``seed``, ``batch_size``, ``resample``, ...

    Returns:
        One row per subset of fewer than all modalities, and ``'mean'`` over all non-empty subsets: ``n``, ``filled``
        and ``unfilled`` scores, their ``difference`` with ``low`` and ``high``, and ``verdict``: ``'helps'`` or
        ``'hurts'`` where the interval leaves zero out, otherwise ``'no difference shown'``.

    Raises:
        ConfigError: the model and the completer do not fit together.
        DataError: the data have no target, or other modalities.
    """
    data = one_part(data, "filling_benefit", "data.test or data.val")
    if simultaneous:
        subsets = max(len(subset_codes(data.lattice, options.get("max_subsets", 256))[0]) - 1, 1)
        confidence = 1 - (1 - confidence) / subsets
        # An interval needs resamples beyond its ends: here at least ten on either side.
        options["bootstrap"] = max(options.get("bootstrap", 1000), math.ceil(20 / (1 - confidence)))
    with_filling = evaluate(Completed(model, completer), data, confidence=confidence, **options)
    without = evaluate(model, data, confidence=confidence, **options)
    frame = with_filling.difference(without)
    frame.insert(0, "n", with_filling.frame["n"].reindex(frame.index))
    for position, (name, table) in enumerate((("filled", with_filling), ("unfilled", without)), start=1):
        scores = table.frame["score"].reindex(frame.index)
        scores["mean"] = table.mean
        frame.insert(position, name, scores)
    frame.loc["mean", "n"] = len(with_filling.ids)
    frame["n"] = frame["n"].astype(int)
    frame["verdict"] = "no difference shown"
    frame.loc[frame["low"] > 0, "verdict"] = "helps"
    frame.loc[frame["high"] < 0, "verdict"] = "hurts"
    everything = with_filling.lattice.label(2**with_filling.lattice.M - 1)
    return frame.drop(index=["none", everything])


@checked
def abstain(model: Any, completer: Completer, val: Any, confidence: float = 0.95, **options: Any) -> Completed:
    """The model with filling for those subsets alone for which validation shows that it helps.

    A subset is filled when the whole interval of :func:`filling_benefit` lies above zero, the intervals of all subsets
    holding at once: where filling is of no use anywhere, no subset is filled in 19 of 20 cases.

    Args:
        model: a model that predicts from every subset.
        completer: fitted, to values or inside this model.
        val: validation data, or splits, of which the validation part is used.
        confidence: nominal coverage of all intervals together.
        options: for :func:`lacunar.evaluate`.

    Returns:
        A :class:`Completed` whose ``subsets`` are those that are filled, possibly none; ``benefit`` holds the frame
        that decided.

    Raises:
        ConfigError: splits without a validation part.
    """
    data = getattr(val, "val", val)
    if data is None:
        raise ConfigError("abstain: expected validation data, the splits have no validation part.")
    frame = filling_benefit(model, completer, data, confidence=confidence, simultaneous=True, **options)
    helped = [str(label) for label in frame.index[frame["verdict"] == "helps"] if label != "mean"]
    chosen = Completed(model, completer, subsets=helped)
    chosen.benefit = frame
    logger.info("%s is used for %s", type(completer).__name__, ", ".join(helped) or "no subset: nothing shows it helps")
    return chosen
