"""What ONE trained model relies on: tables made by taking its inputs away, for SHAPE, perceptual scores and InterSHAP.

Two families of tables answer two questions, and a ranking must never mix them. :func:`lacunar.utilities` trains for
every subset and says what a subset is worth to someone who has only that. The tables here look at one model, perturb
its inputs and say what this model uses: a modality that is useful but that the model ignores scores nothing, and inputs
unlike any that the model was trained on distort all of it. For what to collect, the first family is the right one; a
model that was trained on all subsets comes close to it when it is read with ``fill="absent"``. The table's
``estimator`` says which family it is of, ``"masked"`` or ``"permuted"``, and rankings of it carry a note.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from lacunar.arguments import at_least, checked
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError, DataError
from lacunar.lattice import Lattice
from lacunar.planning.estimate_scoring import Scored, metric_for
from lacunar.planning.perturbed import Mixed, Setup, choice
from lacunar.planning.utility_table import UtilityTable
from lacunar.tasks import Task

__all__ = ["intershap", "intershap_score", "permuted_utilities", "replaced_utilities", "sample_contributions"]

Fill = Literal["mean", "zeros", "absent"]
ENOUGH = 5
"""From this many permutations on their mean is steady enough."""


@checked
def replaced_utilities(
    model: Any,
    data: MultimodalDataset,
    metric: str | None = None,
    *,
    fill: Fill = "mean",
    train: Any = None,
    task: Task | None = None,
    probabilities: bool = False,
    batch_size: int | None = 256,
    memory: float | None = None,
) -> UtilityTable:
    """The score of one trained model with everything outside each subset replaced: the game of SHAPE.

    Its Shapley values are SHAPE's marginal contributions, the indicator ``shape`` is its cooperation (Hu et al. 2022).
    Estimator ``"masked"``; see the module on what such a table is not.

    Args:
        model: a model of this library, anything with ``predict_pairs``, or any callable from a batch to outputs.
        data: the samples to score, with a target. Only those with every modality count, so that all subsets see the
            same ones.
        metric: see :func:`lacunar.utilities`; the task's default when None.
        fill: what takes the place of a modality: its ``"mean"`` over ``train`` (of sequences the mean step, as many as
            there were), ``"zeros"``, which is far from any input unless inputs are centred, or ``"absent"``: it is not
            there, for models that take any subset.
        train: what the model was trained on, for the mean and the constant baseline; ``data`` itself when None.
        task: what the outputs mean; the model's own, or else that of the data, when None.
        probabilities: the model returns probabilities, not logits.
        batch_size: samples per batch.
        memory: megabytes while outputs are decoded.

    Raises:
        DataError: no target, no sample with every modality, tokens to average, or outputs that are NaN or misshapen.
        ConfigError: an unknown ``fill`` or ``metric``.
    """
    began = time.perf_counter()
    setup = Setup(model, data, train, task, probabilities, batch_size, memory)
    metric, lattice = metric_for(setup.task, metric), data.lattice
    scored = {code: setup.score(metric, output) for code, output in setup.replaced(fill)}
    notes = [*setup.notes]
    if fill == "mean" and train is None:
        notes.append("the means are those of the scored samples themselves: give train=")
    if fill == "zeros":
        notes.append("absent modalities are replaced by zeros, which no sample may look like")
    facts = {"fill": fill}
    scored[0] = setup.constant(metric, notes)
    return setup.table("masked", metric, lattice, scored, facts, notes, began)


@checked
def permuted_utilities(
    model: Any,
    data: MultimodalDataset,
    metric: str | None = None,
    *,
    permutations: int = ENOUGH,
    seed: int = 0,
    train: Any = None,
    task: Task | None = None,
    probabilities: bool = False,
    batch_size: int | None = 256,
    memory: float | None = None,
) -> UtilityTable:
    """The score of one trained model with everything outside each subset taken from another sample.

    The modalities outside the subset come from ONE other sample together, drawn by permutations without a fixed
    point, the same for every subset; scores are means over the permutations. Inputs stay such as occur, in
    combinations that may not. The indicator ``perceptual`` of this table is the perceptual score (Gat et al. 2021),
    of a modality or of a set. Estimator ``"permuted"``; see the module on what such a table is not.

    Args:
        model, data, metric, train, task, probabilities, batch_size, memory: as in :func:`replaced_utilities`.
        permutations: how many are averaged.
        seed: fixes them.

    Raises:
        DataError: as :func:`replaced_utilities`, and fewer than two samples with every modality.
        ConfigError: no permutation.
    """
    began = time.perf_counter()
    at_least(1, permutations=permutations)
    setup = Setup(model, data, train, task, probabilities, batch_size, memory)
    metric, lattice, n = metric_for(setup.task, metric), data.lattice, len(setup.rows)
    if n < 2:
        raise DataError("permuted_utilities: expected two samples with every modality to swap, got one.")
    full, rng = len(lattice) - 1, np.random.default_rng(seed)
    scored = {full: setup.score(metric, setup.outputs(setup.rows, full))}
    made: dict[int, list[Scored]] = {code: [] for code in lattice.subsets[:-1]}
    for _ in range(permutations):
        # A random cycle through all samples: nobody keeps their own, everybody else is equally likely.
        order = rng.permutation(n)
        partner = np.empty(n, dtype=np.int64)
        partner[order] = np.roll(order, -1)
        others = setup.rows.select(partner)
        for code, scores in made.items():
            view = Mixed(setup.rows, others, lattice.subset(code))
            scores.append(setup.score(metric, setup.outputs(view, code)))
    for code, scores in made.items():
        value = float(np.mean([part.value for part in scores]))
        scored[code] = Scored(value, np.mean([part.items for part in scores], axis=0))
    notes = [*setup.notes]
    if permutations < ENOUGH:
        notes.append(f"means of {permutations} permutations only; {ENOUGH} or more are steadier")
    scored[0] = setup.constant(metric, notes)
    facts = {"permutations": permutations, "seed": seed}
    return setup.table("permuted", metric, lattice, scored, facts, notes, began)


def sample_contributions(
    model: Any,
    data: MultimodalDataset,
    *,
    task: Task | None = None,
    probabilities: bool = False,
    batch_size: int | None = 256,
    memory: float | None = None,
) -> pd.DataFrame:
    """What each modality of each sample does for the model's answer there (Wei et al. 2024).

    Every sample is a game on what it has: ``v(S) = |S|`` where the model is right with only S (times the task's score,
    where that is not just right or wrong) and 0 otherwise; a modality gets its Shapley value, so that a row sums to
    v of everything that the sample has. A low one says that the modality does less than its share there.

    Args:
        model, data, task, probabilities, batch_size, memory: as in :func:`replaced_utilities`; what is left out is
            absent, for models that take any subset.

    Returns:
        A row per sample, by id, a column per modality; NaN where a sample lacks it.
    """
    setup = Setup(model, data, None, task, probabilities, batch_size, memory, complete=False)
    lattice, right = data.lattice, np.zeros((len(data), len(data.lattice)))
    for code, rows, output in setup.feasible():
        right[rows, code] = setup.task.score(output, setup.target[rows]).numpy()
    sizes = lattice.size(np.arange(len(lattice)))
    present = data.present.numpy()
    phi = lattice.shapley(right * sizes, present)
    return pd.DataFrame(np.where(present, phi, np.nan), index=pd.Index(data.ids, name="id"), columns=list(data.names))


def intershap(
    model: Any,
    data: MultimodalDataset,
    *,
    aggregate: Literal["abs_mean", "mean_abs"] = "abs_mean",
    space: Literal["logits", "probabilities"] = "logits",
    of: Literal["predicted", "target"] = "predicted",
    fill: Fill = "mean",
    train: Any = None,
    task: Task | None = None,
    probabilities: bool = False,
    batch_size: int | None = 256,
    memory: float | None = None,
) -> float:
    """The share of a model's output that interactions between modalities make, in [0, 1] (InterSHAP).

    The game of a sample is the model's output for one class with everything outside S replaced; see
    :func:`intershap_score`. About 1 for XOR, 0 for a model that adds up its modalities.

    Args:
        model, data, fill, train, task, probabilities, batch_size, memory: as in :func:`replaced_utilities`.
        aggregate: see :func:`intershap_score`.
        space: ``"logits"`` (of classes, less their mean, as a constant added to all of them means nothing), or
            ``"probabilities"``, which saturate and so interact where logits add up.
        of: whose output: the class ``"predicted"`` from everything, or the ``"target"``. Numbers and labels use all
            outputs.

    Raises:
        ConfigError: an unknown option, or label maps.
    """
    choice("aggregate", aggregate, ("abs_mean", "mean_abs"))
    choice("space", space, ("logits", "probabilities"))
    choice("of", of, ("predicted", "target"))
    setup = Setup(model, data, train, task, probabilities, batch_size, memory, needs_target=of == "target")
    task, lattice = setup.task, data.lattice
    if task.kind == "segmentation":
        raise ConfigError("intershap: label maps have a game for every voxel; expected a task with one per sample.")
    found = dict(setup.replaced(fill, empty=True))
    outputs = torch.stack([found[code] for code in range(len(lattice))], dim=1).double()
    flat = outputs.flatten(0, 1)
    if space == "probabilities":
        values = task.probabilities(flat).double().view_as(outputs)
    elif task.kind == "classification":
        logs = task.log_probabilities(flat).double().view_as(outputs)
        values = logs - logs.mean(dim=-1, keepdim=True)
    else:
        values = outputs
    if task.kind == "classification":
        chosen = task.predict(outputs[:, -1]) if of == "predicted" else setup.target
        values = values.gather(2, chosen[:, None, None].expand(-1, len(lattice), 1))
    return intershap_score(values.movedim(1, 2).numpy(), lattice, aggregate)


def intershap_score(
    games: np.ndarray, lattice: Lattice, aggregate: Literal["abs_mean", "mean_abs"] = "abs_mean"
) -> float:
    """The share of interactions in what games say, in [0, 1].

    With the Shapley interactions ``I_ij`` of a game, ``phi_ij = I_ij / 2`` for i != j and
    ``phi_ii = SV_i - sum_{j != i} phi_ij``, the score is ``sum_{i != j} |phi_ij| / sum_{i, j} |phi_ij|``. It sees
    pairs: what three modalities do together is spread over them.

    Args:
        games: ``(N, ..., 2^M)`` values of N samples (and several outputs).
        lattice: the modalities.
        aggregate: ``"abs_mean"``: phi are means over samples, so that opposite interactions cancel (the global
            score); ``"mean_abs"``: means of the absolute values, so that they do not. The two differ strongly.

    Returns:
        NaN when the games are constant; 0 for one modality.
    """
    choice("aggregate", aggregate, ("abs_mean", "mean_abs"))
    codes, found = lattice.interactions(np.asarray(games, dtype=np.float64), min(2, lattice.M), "SII")
    main = []
    for m in range(lattice.M):
        inside = [k for k, code in enumerate(codes) if int(code).bit_count() == 2 and int(code) >> m & 1]
        alone = next(k for k, code in enumerate(codes) if int(code) == 1 << m)
        main.append(found[..., alone] - found[..., inside].sum(axis=-1) / 2)
    pairs = [found[..., k] for k, code in enumerate(codes) if int(code).bit_count() == 2]

    def size(parts: Sequence[np.ndarray]) -> float:
        if aggregate == "abs_mean":
            return float(sum(np.abs(part.mean(axis=0)).sum() for part in parts))
        return float(sum(np.abs(part).mean(axis=0).sum() for part in parts))

    crossed, total = size(pairs), size(main) + size(pairs)  # a pair counts twice, at half its interaction
    return crossed / total if total > 0 else float("nan")
