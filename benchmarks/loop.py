"""What a whole training costs beside its bare steps: the loop, validation, averages of weights, the kept run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.measure import Figure, Options, interleave
from benchmarks.worlds import iemocap, iemocap_model, light, light_model
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.splits import Splits
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.joint import Joint
from lacunar.planning.retrain import one_thread
from lacunar.training.fit import fit
from lacunar.training.module import make_optimizer, parameter_groups

__all__ = ["run"]

SECTION = "The training loop"
Make = Callable[[MultimodalDataset], MultimodalModel]


def run(options: Options) -> list[Figure]:
    """A training by ``lacunar.fit`` over the same steps in a loop of one's own, light encoders and IEMOCAP's shape."""
    with one_thread():
        return [*_light(options), _heavy(options)]


def _light(options: Options) -> list[Figure]:
    samples, size, epochs = (48, 12, 2) if options.toy else (480, 32, 8)
    data = light(3, samples, toy=options.toy).split(train=0.8, val=0.2, test=0.0, seed=0)
    own = partial(_fit, data, light_model, size, epochs)
    with tempfile.TemporaryDirectory() as folder:
        compared: dict[str, Callable[[], object]] = {
            "bare": partial(_bare, data, light_model, size, epochs),
            "fit": own,
            "kept": lambda: own(out=Path(tempfile.mkdtemp(dir=folder)) / "run"),
            "averages of weights": partial(own, average=None),
            "validation": partial(own, validate_every=epochs),
        }
        taken = interleave(compared, options, max(2, options.rounds // 3), warm_up=1)
    ms = {name: taken.milliseconds(name) for name in compared}
    shares = [f"{name} {(ms['fit'] - ms[name]) / ms['bare']:+.2f}" for name in ("averages of weights", "validation")]
    batches = -(-len(data.train) // size)
    return [
        taken.figure(
            SECTION, "light encoders: lacunar.fit / its bare steps", "fit", "bare", None,
            f"{epochs} epochs of {batches} steps of plain training, one thread. Bare is the floor: loading, forward, "
            f"backward, clipping, optimiser and schedule in a plain loop, {ms['bare'] / epochs / batches:.1f} ms each. "
            f"Beyond it, in bare trainings: {', '.join(shares)} (each by leaving it out); the rest is Lightning's "
            "loop, the seeds of every step and the log.",
        ),
        taken.figure(
            SECTION, "light encoders: lacunar.fit, kept in a folder / its bare steps", "kept", "bare", None,
            "Log, a checkpoint after every epoch and the finished run, all made durable: "
            f"{(ms['kept'] - ms['fit']) / epochs:.0f} ms an epoch more.",
        ),
    ]  # fmt: skip


def _heavy(options: Options) -> Figure:
    samples, size, epochs = (30, 12, 2) if options.toy else (320, 128, 2)
    data = iemocap(samples, toy=options.toy).split(train=0.8, val=0.2, test=0.0, seed=0)
    compared: dict[str, Callable[[], object]] = {
        "bare": partial(_bare, data, iemocap_model, size, epochs),
        "fit": partial(_fit, data, iemocap_model, size, epochs),
    }
    taken = interleave(compared, options, max(2, options.rounds // 7), warm_up=1)
    validated = 0 if data.val is None else len(data.val)
    return taken.figure(
        SECTION, "IEMOCAP's shape: lacunar.fit / its bare steps", "fit", "bare", None,
        f"{epochs} epochs of {len(data.train)} samples, {taken.milliseconds('bare') / epochs:.0f} ms each; after each, "
        f"every subset of {validated} samples is validated.",
    )  # fmt: skip


def _fit(data: Splits, make: Make, size: int, epochs: int, **options) -> None:
    model = make(data.train)
    fit(data, model, Joint(), max_epochs=epochs, batch_size=size, experts=False, progress=False, **options)


def _bare(data: Splits, make: Make, size: int, epochs: int) -> None:
    model, objective = make(data.train).train(), Joint()
    objective.setup(model, data.train)
    loader = data.train.loader(size, shuffle=True)
    groups = parameter_groups((model, objective), 0.01)
    optimizer, schedule = make_optimizer(groups, 1e-3, "one-cycle", epochs * len(loader), fused=True)
    assert schedule is not None
    for _ in range(epochs):
        for batch in loader:
            optimizer.zero_grad()
            torch.stack(list(objective(model, batch).values())).sum().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
