"""Every method's training step over the packed joint step, beside the passes that its definition requires."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.measure import CLOCKS, Figure, Options, Timings, interleave
from benchmarks.worlds import iemocap, iemocap_model, light, light_model, mce
from lacunar.data.batch import Batch
from lacunar.data.dataset import MultimodalDataset
from lacunar.lattice import Pairs
from lacunar.models.multimodal import Features, MultimodalModel
from lacunar.objectives import available
from lacunar.objectives.base import Objective, batch_mean
from lacunar.objectives.mmin import random_patterns
from lacunar.objectives.ogm import alone
from lacunar.objectives.smil import _rows, _Traced

__all__ = ["FLOORS", "Floor", "run"]

SECTION = "Training step, every method"
#: A method may cost this much more than the passes that its definition requires.
ALLOWED = 1.5
#: The stage that is timed where it is not the last one.
DEAREST = {"PMR": "entropy", "OGM": "modulated", "ShaSpec": "everything present"}
#: Not a method of this comparison: it serves the plan of what to collect, with a generator of its own.
ELSEWHERE = ("GenerateRest",)


def run(options: Options) -> list[Figure]:
    """Each method's step over the joint step on vectors and on IEMOCAP's shape, with its floor in the same rounds."""
    size = 12 if options.toy else 128
    vectors = light(3, 2 * size, options.toy)
    sequences = iemocap(2 * size, toy=options.toy)
    return [
        *_figures("vectors, M = 3", vectors, light_model, size, options, options.rounds),
        *_figures("IEMOCAP's shape", sequences, iemocap_model, size, options, max(2, options.rounds // 5)),
    ]


def _figures(
    where: str,
    data: MultimodalDataset,
    make: Callable[[MultimodalDataset], MultimodalModel],
    size: int,
    options: Options,
    rounds: int,
) -> list[Figure]:
    batch = data.__getitems__(range(size))
    names = [name for name in available() if name not in ("Joint", *ELSEWHERE)]

    def joint() -> Callable[[], None]:
        return method_step(available()["Joint"](), make(data), data, batch)

    # A round ends with a collection of garbage, after which whoever comes first is slower: that is nobody's time here.
    steps, notes = {"first": joint()}, {}
    for number, name in enumerate(names):
        if number == len(names) // 2:
            steps["joint"] = joint()
        objective = _objective(name)
        steps[name] = method_step(objective, make(data), data, batch)
        notes[name] = _epoch_seconds(objective, make(data), data, options)
        steps[f"floor of {name}"] = method_step(Floor(_objective(name), _floor(name)[0]), make(data), data, batch)
    steps["last"] = joint()
    taken = interleave(steps, options, rounds)
    return [_figure(where, name, taken, seconds, len(data) // size) for name, seconds in notes.items()]


def _figure(where: str, name: str, taken: Timings, epoch: float, steps: int) -> Figure:
    floor = taken.ratio(f"floor of {name}", "joint")[0]
    beyond = taken.ratio(name, f"floor of {name}")[0]
    note = f"Floor {floor:.2f}: {_floor(name)[1]}. {beyond:.2f} times that floor; "
    note += f"joint {taken.milliseconds('joint'):.1f} ms, {name} {taken.milliseconds(name):.1f} ms."
    if epoch:
        share = epoch / (steps * taken.milliseconds("joint") / 1e3)
        note += f" Its pass between epochs, where it comes, takes as long as {share:.1f} epochs of joint steps here."
    # Held against the floor as measured: a method that needs four passes may take six, one that needs one 1.5.
    stages = [stage.name for stage in _objective(name).stages()]
    if len(stages) > 1:
        note += f" Timed in the stage {DEAREST.get(name, stages[-1])!r} of {', '.join(stages)}."
    return taken.figure(SECTION, f"{where}: {name} / packed joint", name, "joint", round(ALLOWED * floor, 2), note)


def _floor(name: str) -> tuple[Passes, str]:
    return FLOORS.get(name, (_joint, "one pass; what more this method requires is not written down here"))


def _objective(name: str) -> Objective:
    return mce() if name == "MCE" else available()[name]()


def method_step(
    objective: Objective, model: MultimodalModel, data: MultimodalDataset, batch: Batch
) -> Callable[[], None]:
    """A step of the method's dearest stage: forward, backward, what it does to gradients, and the optimiser's step."""
    model.train()
    objective.train()
    objective.setup(model, data)
    _enter(objective, model, data)
    optimizer = torch.optim.AdamW([*model.parameters(), *objective.parameters()], 1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(list(objective(model, batch).values())).sum().backward()
        objective.after_backward(model)
        optimizer.step()

    return step


def _enter(objective: Objective, model: MultimodalModel, data: MultimodalDataset) -> None:
    """Begin the stage that is timed, and those before it."""
    stages = list(objective.stages())
    names = [stage.name for stage in stages]
    for stage in stages[: names.index(DEAREST.get(type(objective).__name__, names[-1])) + 1]:
        objective.stage = stage
        objective.on_stage_start(model, data, stage)


def _epoch_seconds(objective: Objective, model: MultimodalModel, data: MultimodalDataset, options: Options) -> float:
    """What the method does before an epoch; 0 where it does nothing."""
    if type(objective).on_epoch_start is Objective.on_epoch_start:
        return 0.0
    clock = CLOCKS[options.clock]
    epoch = getattr(objective, "every", None) or 1
    start = clock()
    objective.on_epoch_start(model, data, epoch)
    return clock() - start


Passes = Callable[[Objective, MultimodalModel, Batch, Tensor], list[Tensor]]


class Floor(Objective):
    """The networks that a method's definition runs, each as often as it says, and plain means of losses.

    Args:
        like: the method: its own networks are run, nothing else of it.
        passes: which.
    """

    def __init__(self, like: Objective, passes: Passes):
        super().__init__()
        self.like, self.passes = like, passes

    def setup(self, model: MultimodalModel, data: MultimodalDataset) -> None:
        super().setup(model, data)
        self.like.setup(model, data)
        _enter(self.like, model, data)

    def forward(self, model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
        losses = self.passes(self.like, model, batch, self._target(batch))
        return {str(number): loss for number, loss in enumerate(losses)}


def _whole(features: Features) -> Pairs:
    codes = (features.present.long() << torch.arange(features.present.shape[1])).sum(1)
    return Pairs(torch.arange(len(codes)), codes)


def _joint(like: Objective, model: MultimodalModel, batch: Batch, target: Tensor) -> list[Tensor]:
    features = model.encode(batch)
    return [batch_mean(like.losses(model.predict(features, _whole(features)), target))]


def _heads(like: Objective, heads: nn.Module | None, h: Tensor, present: Tensor, target: Tensor) -> list[Tensor]:
    assert isinstance(heads, nn.ModuleList)
    return [batch_mean(like.losses(head(h[present[:, m], m]), target[present[:, m]])) for m, head in enumerate(heads)]


def _mce(like, model: MultimodalModel, batch: Batch, target: Tensor) -> list[Tensor]:
    features = model.encode(batch)
    pairs, _ = like.pairs(model.lattice, features.present)
    own = _heads(like, like.heads, features.h, features.present, target)
    return [batch_mean(like.losses(model.predict(features, pairs), target[pairs.rows])), *own]


def _ogm(like, model: MultimodalModel, batch: Batch, target: Tensor) -> list[Tensor]:
    features = model.encode(batch)
    with torch.no_grad():
        model.predict(features, alone(features)[0])
    return [batch_mean(like.losses(model.predict(features, _whole(features)), target))]


def _blending(like, model: MultimodalModel, batch: Batch, target: Tensor) -> list[Tensor]:
    features = model.encode(batch)
    joint = batch_mean(like.losses(model.predict(features, _whole(features)), target))
    return [joint, *_heads(like, like.heads, features.h, features.present, target)]


def _shaspec(like, model: MultimodalModel, batch: Batch, target: Tensor) -> list[Tensor]:
    predictor = like.build(model)
    features = predictor.encode(batch)
    shared, specific = like.views.views(features.h, features.present)
    whole = torch.ones_like(features.present)
    fused = predictor.fusion(like.views.join(shared, specific, features.present), whole)
    guess = like.domain_head(specific[features.present])
    return [batch_mean(like.losses(predictor.head(fused), target)), guess.square().mean()]


def _passion(like, model: MultimodalModel, batch: Batch, target: Tensor) -> list[Tensor]:
    features = model.encode(batch)
    pairs, _ = alone(features)
    several = features.present.sum(1)[pairs.rows] > 1
    whole = _whole(features)
    rows, codes = torch.cat([whole.rows, pairs.rows[several]]), torch.cat([whole.codes, pairs.codes[several]])
    losses = like.losses(model.predict(features, Pairs(rows, codes)), target[rows])
    owner, own = features.present.nonzero(as_tuple=True)
    return [batch_mean(losses), batch_mean(like.losses(like.head(features.h[owner, own]), target[owner]))]


def _redcore(like, model: MultimodalModel, batch: Batch, target: Tensor) -> list[Tensor]:
    features = model.encode(batch)
    z, _, _ = like.imputer.represent(features.h, features.present)
    made = like.imputer.impute(z)
    everything = torch.ones_like(features.present)
    filled = torch.where(features.present[:, :, None], z, made)
    task = batch_mean(like.losses(model.head(model.fusion(filled, everything)), target))
    return [task, *_heads(like, like.heads, filled, everything, target)]


def _unimf(like, model: MultimodalModel, batch: Batch, target: Tensor) -> list[Tensor]:
    h, present = model.encode(batch).h, batch.present
    shown = random_patterns(present, everything=True)
    with torch.no_grad():
        filled = like.translator(h * shown[:, :, None], shown)
    fused = like.fusion(torch.where(shown[:, :, None], h, filled), torch.ones_like(present))
    rows, which = present.nonzero(as_tuple=True)
    source = shown[rows].scatter(1, which[:, None], False)
    some = source.any(1)
    rows, which, source = rows[some], which[some], source[some]
    aim = h.detach()[rows, which]
    made = like.translator.translate(h.detach()[rows], source, which, aim)
    return [batch_mean(like.losses(like.head(fused), target)), made.square().mean()]


def _smil(like, model: MultimodalModel, batch: Batch, target: Tensor) -> list[Tensor]:
    traced = _Traced(like.build(model))
    complete = batch.present.all(1)
    some, whole = _rows(batch, ~complete), _rows(batch, complete)
    if not len(some) or not len(whole):
        return [batch_mean(like.losses(traced(batch)[0], target))]
    still = like.fusion.imputing()
    slow = {name: p for name, p in traced.named_parameters() if p.requires_grad and p not in still}
    inner = batch_mean(like.losses(traced(some)[0], target[~complete]))
    gradients = torch.autograd.grad(inner, list(slow.values()), create_graph=True, retain_graph=True, allow_unused=True)
    fast = {name: p if g is None else p - 1e-3 * g for (name, p), g in zip(slow.items(), gradients)}
    hidden = whole.hide(some.present[torch.randint(len(some), (len(whole),))])
    output, u, a = functional_call(traced, fast, (hidden,))
    _, true_u, true_a = functional_call(traced, fast, (whole,))
    match = (u - true_u).square().mean() + (a - true_a).square().mean()
    return [inner, batch_mean(like.losses(output, target[complete])), match]


def _mmin(like, model: MultimodalModel, batch: Batch, target: Tensor) -> list[Tensor]:
    h = model.encode(batch.hide(random_patterns(batch.present, everything=True))).h.flatten(1)
    imagined, latents = like.network.imagine(h)
    back, _ = like.network.backward_cascade(imagined)
    return [batch_mean(like.losses(like.head(latents), target)), back.square().mean()]


#: What each method's definition runs in a step, as code and in words.
FLOORS: Mapping[str, tuple[Passes, str]] = {
    "Joint": (_joint, "one pass"),
    "ModalityDropout": (_joint, "one pass; it encodes less, as it drops first"),
    "PMR": (_joint, "one pass; prototypes are compared without a network"),
    "Resampling": (_joint, "one pass; valuation comes between epochs"),
    "OGM": (_ogm, "one pass, and each modality alone through completion, fusion and head without gradient"),
    "GradientBlending": (_blending, "one pass and a head for each modality"),
    "PASSION": (_passion, "one pass, each modality alone through completion, fusion and head, and a shared head"),
    "ShaSpec": (_shaspec, "encoders, one shared and one specific network for each modality, fusion and head"),
    "RedCore": (_redcore, "encoders, variational encoders, an imputer and a head for each modality, fusion and head"),
    "UniMF": (_unimf, "encoders, translation without and with gradient, its fusion and head"),
    "SMIL": (_smil, "an inner pass with a gradient that is differentiated again, two outer passes"),
    "MMIN": (_mmin, "encoders, the cascade forward and back, a head"),
    "MCE": (_mce, "encoders, every pair of a sample and a subset, a head for each modality"),
}
