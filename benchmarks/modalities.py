"""The price of training on every subset when encoders cost next to nothing: 2 to 10 modalities."""

from __future__ import annotations

from benchmarks.measure import Figure, Options, interleave, peak_bytes
from benchmarks.worlds import light, light_model, mce, steps
from lacunar.objectives.mce import BUDGET_BEYOND

__all__ = ["run"]

SECTION = "Training step, light encoders"
EVERY, BUDGETED = (2, 3, 4, 6), (8, 10)


def run(options: Options) -> list[Figure]:
    """MCE's step over the packed and the dense joint step, and the floor that decoding every pair sets."""
    figures = []
    size = 12 if options.toy else 128
    for M in (3, 8) if options.toy else EVERY + BUDGETED:
        data = light(M, 2 * size, options.toy)
        compared = steps(light_model, data, size)
        memory = peak_bytes(compared["mce"]) / peak_bytes(compared["joint"])
        taken = interleave(compared, options, max(2, options.rounds * 2 // 3))
        batch = data.__getitems__(range(size))
        objective = mce()
        pairs = len(objective.pairs(data.lattice, batch.present)[0].rows) / len(batch)
        drawn = f"at most {BUDGET_BEYOND} subsets of a sample" if M in BUDGETED else "every subset"
        floor, dense = taken.ratio("floor", "joint")[0], taken.ratio("mce", "dense")[0]
        beyond = taken.ratio("mce", "floor")[0]
        figures.append(
            taken.figure(
                SECTION, f"M = {M}: MCE / packed joint", "mce", "joint", None,
                f"Floor {floor:.2f} ({drawn}, {pairs:.1f} pairs a sample, decoded in one call); MCE is {beyond:.2f} "
                f"times that floor, {dense:.2f} times the dense joint step, peak memory {memory:.1f} times. Joint "
                f"{taken.milliseconds('joint'):.1f} ms, MCE {taken.milliseconds('mce'):.1f} ms.",
            )
        )  # fmt: skip
    return figures
