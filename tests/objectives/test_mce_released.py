"""The three released behaviours of MCE, written again as loops over samples and subsets."""

import math
from itertools import combinations

import pytest
import torch
from tests.helpers import first_batch, fixed_references, gradients, small_model, vectors

from lacunar.errors import ConfigError
from lacunar.objectives.factors import released_shapley
from lacunar.objectives.mce import MCE

DIGITS, IEMOCAP, NUSCENES = "released-digits", "released-iemocap", "released-nuscenes"
SCORES = torch.Generator().manual_seed(4)


def ready(data, variant, **options):
    model = small_model(data)
    score = (torch.rand(len(data), len(data.names), generator=SCORES) < 0.9).float()
    objective = MCE(references=fixed_references(data, score), variant=variant, **options)
    objective.setup(model, data)
    return model, objective


def by_hand(model, objective, batch, variant):
    task, M, B = objective.task, len(model.names), len(batch)
    h, target = model.encode(batch).h, batch.target
    has = [tuple(m for m in range(M) if batch.present[n, m]) for n in range(B)]

    def cut(tokens, subset):
        return torch.stack([tokens[m] if m in subset else torch.zeros_like(tokens[m]) for m in range(M)])

    def through(tokens, subset):
        chosen = torch.tensor([[m in subset for m in range(M)]])
        refined = model.complete(cut(tokens, subset)[None], chosen)
        return refined[0], model.head(model.fusion(refined, chosen))

    def loss(output, n):
        return task.loss(output, target[n : n + 1])[0]

    def score(output, n):
        return float(task.score(output, target[n : n + 1])[0])

    refined, full = zip(*(through(h[n], has[n]) for n in range(B)))
    hits, subset_loss, completion = {}, 0.0, torch.zeros(M)
    for n in range(B):
        every = [s for size in range(1, len(has[n]) + 1) for s in combinations(has[n], size)]
        last = has[n][:-1]
        for subset in every:
            whole = subset == has[n]
            tokens, output = (refined[n], full[n]) if whole else through(
                h[n] if variant == NUSCENES else refined[n], subset
            )  # fmt: skip
            hits[subset] = hits.get(subset, 0.0) + score(output, n)
            if whole and variant != NUSCENES:
                continue
            subset_loss = subset_loss + loss(output, n) / len(every) / B
            if variant == DIGITS and subset != last:
                continue
            aim = h[n] if variant == NUSCENES else refined[n]
            for m in set(has[n]) - set(subset):
                completion = completion + torch.eye(M)[m] * (tokens[m] - aim[m]).abs().mean() / len(every) / B
    count = batch.present.sum(0).float()
    some = [m for m in range(M) if count[m]]
    players = len(some) if variant == IEMOCAP else 2**M - 1
    phi = torch.zeros(M)
    for m in some:
        alone = hits.get((m,), 0.0)
        phi[m] = alone / players
        among = some if variant == IEMOCAP else range(M)
        for size in range(2, len(among) + 1):
            weight = math.factorial(size - 1) * math.factorial(players - size) / math.factorial(players)
            for subset in combinations(among, size):
                if m in subset:
                    phi[m] += weight * (hits.get(subset, 0.0) - alone)
    heads = [[objective.heads[m](refined[n][m][None]) for n in range(B)] for m in range(M)]
    upper = torch.tensor([
        sum(
            score(heads[m][n], n) if variant == NUSCENES else float(objective.upper_scores[batch.index[n], m])
            for n in range(B) if m in has[n]
        )
        for m in range(M)
    ])  # fmt: skip
    state = (upper - phi).relu()
    if variant != NUSCENES:
        state = state / count.clamp(min=1)
    rare = objective.availability_weight / (B if variant == NUSCENES else 1)
    single = 0.0
    for m in range(M):
        if variant == IEMOCAP:
            classes = task.n_outputs
            mean = sum(loss(heads[m][n], n) if m in has[n] else torch.tensor(math.log(classes)) for n in range(B)) / B
            single = single + rare[m] * state[m] * mean / M
        else:
            mean = sum(loss(heads[m][n], n) for n in range(B)) / B
            share = count[m] / B / M if variant == DIGITS else 1 / B
            single = single + rare[m] * state[m] * mean * share
    weighted = (rare * state * completion).sum() / (M if variant == DIGITS else 1)
    task_loss = sum(loss(full[n], n) for n in range(B)) / B
    return {"task": task_loss, "single": single, "subset": subset_loss, "completion": weighted}, phi, state


@pytest.mark.parametrize("M", [2, 3, 4])
@pytest.mark.parametrize("variant", [DIGITS, IEMOCAP, NUSCENES])
def test_all_terms_equal_the_released_behaviour_written_as_loops(variant, M):
    data = vectors(M, n=14)
    model, objective = ready(data, variant, single=0.5, subset=2.0, completion=3.0)
    batch = first_batch(data)
    terms = objective(model, batch)
    expected, phi, state = by_hand(model, objective, batch, variant)
    count = batch.present.sum(0).clamp(min=1)
    torch.testing.assert_close(objective.diagnostics["phi"] * count, phi)
    torch.testing.assert_close(objective.diagnostics["B"], state)
    for name, weight in {"task": 1.0, "single": 0.5, "subset": 2.0, "completion": 3.0}.items():
        assert terms[name].item() > 0
        torch.testing.assert_close(terms[name], torch.as_tensor(weight * expected[name]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", [DIGITS, IEMOCAP, NUSCENES])
@pytest.mark.parametrize("kept", [["m0", "m2"], ["m1"]])
def test_modalities_that_nobody_in_the_batch_has(variant, kept):
    data = vectors(3, n=14, missing=0.0)
    model, objective = ready(data, variant)
    batch = first_batch(data).hide(kept)
    terms = objective(model, batch)
    expected, _, state = by_hand(model, objective, batch, variant)
    assert torch.isfinite(state).all()
    for name in terms:
        torch.testing.assert_close(terms[name], torch.as_tensor(expected[name]), rtol=1e-5, atol=1e-6)
    sum(terms.values()).backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())


def test_subsets_with_other_modalities_are_left_out():
    hits = torch.tensor([0.0, 4.0, 3.0, 6.0, 0.0, 0.0, 0.0, 0.0])
    found = released_shapley(hits, 2, torch.tensor([True, True, False]))
    assert found[:2].tolist() == pytest.approx([4 / 2 + (6 - 4) / 2, 3 / 2 + (6 - 3) / 2])


def test_nuscenes_without_the_loss_that_trains_its_upper_bound():
    data = vectors(2, n=14)
    with pytest.raises(ConfigError, match="single must be above 0"):
        ready(data, NUSCENES, single=0)
    model, objective = ready(data, NUSCENES, single=0, capability=False)
    assert set(objective(model, first_batch(data))) == {"task", "subset", "completion"}
