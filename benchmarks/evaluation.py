"""Scoring all subsets against scoring the full set once, and within a memory bound."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.measure import Figure, Options, interleave, peak_bytes
from benchmarks.worlds import RATES, iemocap, iemocap_model, light, light_model
from lacunar.data.dataset import MultimodalDataset
from lacunar.evaluation.outputs import evaluation_mode, subset_outputs
from lacunar.evaluation.subsets import evaluate
from lacunar.models.multimodal import MultimodalModel

__all__ = ["run"]

SECTION = "Evaluation"
BATCH = 128


def run(options: Options) -> list[Figure]:
    """All subsets over the full set once at M = 3; a memory bound over none at M = 10."""
    size = 12 if options.toy else 2 * BATCH
    complete, incomplete = iemocap(size, None, options.toy), iemocap(size, RATES, options.toy)
    model = iemocap_model(complete)
    figures = [
        _all_over_full("every sample complete", model, complete, options, 1.5),
        _all_over_full(f"missing rates {RATES}", model, incomplete, options, 1.5),
    ]
    tiny = light(3, size * 4, options.toy)
    figures.append(_all_over_full("light encoders", light_model(tiny), tiny, options, None))
    figures.append(_table_over_pass(model, complete, options))
    return [*figures, *_within_memory(options)]


def every_subset(model: MultimodalModel, data: MultimodalDataset, memory: float | None = None) -> Callable[[], None]:
    """Outputs of all subsets, one encoder pass a batch."""

    def run() -> None:
        for _ in subset_outputs(model, data, data.lattice.subsets, BATCH, memory):
            pass

    return run


def full_set(model: MultimodalModel, data: MultimodalDataset) -> Callable[[], None]:
    """Outputs from all that each sample has."""

    def run() -> None:
        with evaluation_mode(model):
            for batch in data.batches(BATCH):
                model(batch)

    return run


def _all_over_full(
    what: str, model: MultimodalModel, data: MultimodalDataset, options: Options, target: float | None
) -> Figure:
    taken = interleave({"all": every_subset(model, data), "full": full_set(model, data)}, options)
    pairs = int(sum(len(data.lattice.pairs(batch.present).rows) for batch in data.batches(BATCH))) / len(data)
    encoders, _, decoders = _shares(model, data, options)
    floor = (encoders + pairs * decoders) / (encoders + decoders)
    return taken.figure(
        SECTION, f"M = 3, all subsets / the full set once, {what}", "all", "full", target,
        f"Floor {floor:.2f}: the same encoder pass, {pairs:.1f} pairs a sample instead of 1 through completion and "
        f"head, which are {decoders / (encoders + decoders):.0%} of a full-set pass.",
    )  # fmt: skip


def _shares(model: MultimodalModel, data: MultimodalDataset, options: Options) -> tuple[float, float, float]:
    """Seconds of the encoders, and of decoding one and all pairs a sample by the time that a pair takes in bulk."""
    batch = data.__getitems__(range(min(BATCH, len(data))))
    with torch.no_grad():
        features = model.eval().encode(batch)
        pairs = data.lattice.pairs(batch.present)

        def encode() -> None:
            with torch.no_grad():
                model.encode(data.__getitems__(range(min(BATCH, len(data)))))

        def decode() -> None:
            with torch.no_grad():
                model.predict(features, pairs)

        taken = interleave({"encode": encode, "decode": decode}, options, max(2, options.rounds // 2))
    model.train()
    total = taken.milliseconds("decode")
    return taken.milliseconds("encode"), total, total * len(batch) / len(pairs.rows)


def _table_over_pass(model: MultimodalModel, data: MultimodalDataset, options: Options) -> Figure:
    compared = {"table": lambda: evaluate(model, data, BATCH, bootstrap=1000), "full": full_set(model, data)}
    taken = interleave(compared, options, max(2, options.rounds // 2))
    return taken.figure(
        SECTION, "M = 3, lacunar.evaluate / the full set once, every sample complete", "table", "full", None,
        f"Metrics, calibration and the scores of {len(data)} samples included, besides the outputs; "
        "a constant cost beside encoders of any size.",
    )  # fmt: skip


def _within_memory(options: Options) -> list[Figure]:
    """M = 10: chunks against one call, in time and in bytes."""
    bound = 1.0 if options.toy else 64.0
    data = light(10, 6 if options.toy else BATCH, options.toy)
    model = light_model(data)
    bounded, free = every_subset(model, data, bound), every_subset(model, data, 2.0**20)
    taken = interleave({"bounded": bounded, "free": free}, options, max(2, options.rounds // 2))
    peaks = {name: peak_bytes(run) / 2**20 for name, run in (("bounded", bounded), ("free", free))}
    pairs = len(data.lattice.pairs(data.present).rows)
    with torch.no_grad():
        features = peak_bytes(lambda: model.encode(data.__getitems__(range(len(data))))) / 2**20
    held = peaks["bounded"] - features
    return [
        taken.figure(
            SECTION, f"M = 10, chunks within {bound:g} MB / one call", "bounded", "free", 1.1,
            f"Floor 1.00 or less: the same {pairs} pairs; small chunks stay nearer to the cache.",
        ),
        Figure(
            SECTION, f"M = 10, peak over the bound of {bound:g} MB", *[held / bound] * 3, 1.0,
            f"Live tensor bytes while pairs are decoded: {held:.1f} MB, in one call {peaks['free']:.0f} MB "
            f"(encoders and features, {features:.1f} MB, come on top, as documented).",
        ),
    ]  # fmt: skip
