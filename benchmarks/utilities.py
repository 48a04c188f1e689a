"""What a utility table of every subset costs, in trainings of one model with everything."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Figure, Options, interleave
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits
from lacunar.datasets.synthetic import vectors
from lacunar.models import default_model
from lacunar.objectives.joint import Joint
from lacunar.planning.amortised import AmortisedCell, train_amortised
from lacunar.planning.batched import BatchedCell, train_batched
from lacunar.planning.retrain import Cell, fit_options, one_thread, train_cell
from lacunar.planning.stacks import Bundle, Samples
from lacunar.training.fit import fit
from lacunar.training.module import make_optimizer
from lacunar.training.options import default_batch_size
from lacunar.training.sampler import GlobalBatches

__all__ = ["run"]

SECTION = "Utility tables"


def run(options: Options) -> list[Figure]:
    """A table of seven subsets by each estimator, over one training with everything."""
    samples, epochs, together = (60, 1, 2) if options.toy else (600, 6, 5)
    data = vectors(3, samples, dims=6 if options.toy else 64, missing=0.0, seed=2)
    cuts = [data.split(train=0.6, val=0.15, test=0.25, seed=seed) for seed in range(together)]
    chosen = fit_options({"max_epochs": epochs}, "log_loss")
    cells = [[_cell(splits, code, seed, chosen) for code in data.lattice.subsets] for seed, splits in enumerate(cuts)]
    compared: dict[str, Callable[[], object]] = {
        "joint": lambda: _joint(cuts[0], epochs),
        "amortised": lambda: train_amortised(_amortised(cuts[0], chosen)),
        "alone": lambda: [train_cell(cell) for cell in cells[0]],
        "together": lambda: train_batched(BatchedCell({"a": cells[0]})),
        "repeats": lambda: train_batched(BatchedCell({str(seed): own for seed, own in enumerate(cells)})),
        "floor": lambda: _bare([cell for own in cells for cell in own], epochs),
    }
    taken = interleave(compared, options, max(2, options.rounds // 7), warm_up=1)
    for name in ("repeats", "floor"):
        taken.seconds[name] = taken.seconds[name] / together
    floor, models = taken.ratio("floor", "joint")[0], len(data.lattice.subsets)
    seconds = ", ".join(f"{name} {taken.milliseconds(name) / 1e3:.2f}" for name in compared)
    one = "one training with everything"
    return [
        taken.figure(
            SECTION, f"M = 3: amortised, every subset read off / {one}", "amortised", "joint", 1.0,
            f"{len(cuts[0].train)} training samples, {epochs} epochs of the ordinary training, the default model on "
            "vectors of 64 columns; one model on all subsets, read off and scored on held-out samples. The paper's "
            f"indicator costs 3.3 to 6.1 trainings (Table 10). In seconds: {seconds}.",
        ),
        taken.figure(
            SECTION, f"M = 3: retrain, one by one / {one}", "alone", "joint", None,
            f"{models} models, {_work(cells[0]):.1f} times the multiplications of the one with everything; the rest is "
            "spent around them.",
        ),
        taken.figure(
            SECTION, f"M = 3: retrain, {models} models side by side / {one}", "together", "joint", None,
            "One repeat: encoders of a modality, and the rest of all subsets of one size, as stacks.",
        ),
        taken.figure(
            SECTION, f"M = 3: retrain, {together} repeats side by side, each / {one}", "repeats", "joint", None,
            f"{together * models} models in the same steps. Floor {floor:.2f}, the work of the subset models alone: "
            "forward, backward and optimiser of these stacks and nothing else, neither averages of weights nor "
            "validation, choice of the epoch, making of the models or scoring.",
        ),
    ]  # fmt: skip


def _cell(splits: Splits, code: int, seed: int, options: dict) -> Cell:
    assert splits.val is not None
    assert splits.test is not None
    names = list(splits.train.lattice.subset(code))
    parts = [part.only(names) for part in (splits.train, splits.val, splits.test)]
    return Cell(
        str(code), code, "+".join(names), *parts, np.arange(len(parts[2])), None, "log_loss", default_model, options,
        1000 * seed,
    )  # fmt: skip


def _amortised(splits: Splits, options: dict) -> AmortisedCell:
    assert splits.val is not None
    assert splits.test is not None
    codes, held = splits.train.lattice.subsets, splits.test
    rows = {code: np.arange(len(held)) for code in codes}
    counts = dict.fromkeys(codes, len(splits.train))
    return AmortisedCell(
        "all", codes, splits.train, splits.val, held, rows, counts, None, "log_loss", default_model, options
    )


def _joint(splits: Splits, epochs: int) -> None:
    with one_thread():
        model = default_model(splits.train)
        fit(Splits(splits.train, splits.val), model, Joint(), max_epochs=epochs, experts=False, progress=False)


def _bare(cells: list[Cell], epochs: int) -> None:
    """The steps of the stacked models alone."""
    with one_thread():
        bundle = Bundle(cells, [default_model(cell.train) for cell in cells])
        train = Samples(cells, [cell.train for cell in cells])
        optimizer, _ = make_optimizer(bundle.groups(0.01), 1e-3, "constant", 1, fused=True)
        count = len(cells[0].train)
        for epoch in range(epochs):
            for rows in GlobalBatches(count, default_batch_size(count), 0, epoch):
                optimizer.zero_grad()
                bundle.losses(train, torch.tensor(rows).expand(len(cells), -1))[0].mean(dim=1).sum().backward()
                optimizer.step()


def _work(cells: list[Cell]) -> float:
    """Multiplications in the forward passes of all subset models over those of the model with everything."""
    counts = []
    for cell in cells:
        batch = _first(cell.train)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            default_model(cell.train).eval()(batch)
        counts.append(counter.get_total_flops())
    return sum(counts) / max(counts)


def _first(data: MultimodalDataset):
    return data.__getitems__(range(min(32, len(data))))
