"""One training step of IEMOCAP's shape: MCE against plain training, dense and packed."""

from __future__ import annotations

from benchmarks.measure import Figure, Options, Timings, interleave, peak_bytes
from benchmarks.worlds import RATES, iemocap, iemocap_model, mce, steps, training_step

__all__ = ["run"]

SECTION = "Training step, IEMOCAP's shape"


def run(options: Options) -> list[Figure]:
    """MCE's step over the dense and the packed joint step, its peak memory, and where the time beyond them goes."""
    size = 12 if options.toy else 128
    data = iemocap(2 * size, toy=options.toy)
    compared = steps(iemocap_model, data, size)
    batch = data.__getitems__(range(min(size, len(data))))
    parts = {
        "without single": {"single": 0.0},
        "without completion": {"completion": 0.0},
        "without A and B": {"availability": False, "capability": False},
    }
    for name, off in parts.items():
        compared[name] = training_step(mce(**off), iemocap_model(data), data, batch)
    peaks = {name: peak_bytes(compared[name]) for name in ("dense", "joint", "mce")}
    taken = interleave(compared, options)
    floor = taken.ratio("floor", "joint")[0]
    pairs = len(mce().pairs(data.lattice, batch.present)[0].rows)
    size = len(batch)
    cells = [int(count) for count in batch.present.sum(0)]
    times = ", ".join(f"{name} {taken.milliseconds(name):.0f}" for name in ("dense", "joint", "floor", "mce"))
    floor_over_dense = taken.ratio("floor", "dense")[0]
    megabytes = {name: peak / 2**20 for name, peak in peaks.items()}
    return [
        taken.figure(
            SECTION, "MCE / dense, zero-filled joint", "mce", "dense", 0.8,
            f"Floor {floor_over_dense:.2f}: one packed pass of the encoders ({cells} rows of {size} at missing rates "
            f"{RATES}) and the {pairs} pairs of a sample and a subset through completion and head. In ms: {times}.",
        ),
        taken.figure(
            SECTION, "MCE / packed joint", "mce", "joint", 1.4,
            f"Floor {floor:.2f}: {pairs} pairs instead of {size}. Beyond it: {_beyond(taken, parts)}.",
        ),
        Figure(
            SECTION, "peak memory, MCE / packed joint", *[peaks["mce"] / peaks["joint"]] * 3, 1.15,
            "Peak of live tensor bytes that a step makes (activations, gradients; not weights, optimiser state, data): "
            f"{megabytes['joint']:.0f} MB joint, {megabytes['mce']:.0f} MB MCE, {megabytes['dense']:.0f} MB dense. "
            "What is left over 1 are the features of the additional pairs.",
        ),
    ]  # fmt: skip


def _beyond(taken: Timings, parts: dict[str, dict]) -> str:
    whole = taken.seconds["mce"]
    shares = []
    for name in parts:
        share = float(sorted((whole - taken.seconds[name]) / taken.seconds["joint"])[len(whole) // 2])
        shares.append(f"{name.removeprefix('without ')} {share:+.2f}")
    return "of the joint step, " + ", ".join(shares) + " (each by leaving it out)"
