"""Chunks of pairs stay within the bytes that they are given."""

import pytest
import torch
from tests.helpers import first_batch, fixed_references, vectors

from lacunar.memory import peak_bytes
from lacunar.models import MLP, ConcatFusion, MLPHead, MultimodalModel, TokenTransformer
from lacunar.models.multimodal import Features
from lacunar.objectives.mce import MCE


def model_of(data, width=16):
    torch.manual_seed(0)
    M = len(data.names)
    return MultimodalModel(
        {name: MLP(*shape, width, hidden=width) for name, shape in data.shapes.items()},
        TokenTransformer(width), ConcatFusion(width, M), MLPHead(M * width, data.task.n_outputs), data.task,
    )  # fmt: skip


def extracted(result):
    return result.output, result.completed.abs().flatten(1).mean(1)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("megabytes", [0.2, 0.5, 2.0])
def test_a_chunk_fills_its_bound_and_no_more(megabytes, gradients):
    data = vectors(5, n=64, missing=0.1)
    model = model_of(data)
    features = model.encode(first_batch(data))
    features = Features(features.h.detach().requires_grad_(gradients), features.present)
    pairs = data.lattice.pairs(features.present)
    with torch.set_grad_enabled(gradients):
        chunk = model.pairs_within(features, megabytes, extracted)
        assert chunk > 1
        part = type(pairs)(pairs.rows[-chunk:], pairs.codes[-chunk:])
        # The gradients of the weights come on top of the bound.
        leaves = [features.h]

        def run():
            results = model.read(features, part, extracted)
            if gradients:
                torch.autograd.grad(sum(result.sum() for result in results), leaves)

        used = peak_bytes(run) / 2**20
    assert used <= megabytes
    if chunk <= len(pairs.rows):
        assert used >= 0.7 * megabytes


def test_measuring_uses_up_no_random_number():
    data = vectors(3, n=16)
    model = model_of(data).train()
    features = model.encode(first_batch(data))
    before = torch.get_rng_state()
    model.pairs_within(features, 1.0)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_can_be_measured_in_inference_mode():
    data = vectors(3, n=16)
    model = model_of(data).eval()
    with torch.inference_mode():
        assert model.pairs_within(model.encode(first_batch(data)), 1.0) > 1


def test_all_chunks_but_the_last_are_computed_again():
    data = vectors(3, n=40, missing=0.0)
    model = model_of(data).train()
    sizes = []
    model.completion.register_forward_hook(lambda module, given, output: sizes.append(len(output)))
    features = model.encode(first_batch(data))
    pairs = data.lattice.pairs(features.present)
    assert len(pairs.rows) == 280
    (output,) = model.read(features, pairs, lambda result: (result.output,), chunk=100)
    assert sizes == [93, 93, 94]  # even parts
    output.sum().backward()
    assert sizes == [93, 93, 94, 93, 93]


def test_training_within_a_bound_holds_it():
    data = vectors(5, n=64, missing=0.1)
    batch = first_batch(data)
    peaks = {}
    for memory in (None, 2.0):
        torch.manual_seed(0)
        model, objective = model_of(data, width=64), MCE(references=fixed_references(data), memory=memory)
        objective.setup(model, data)

        def step(model=model, objective=objective):
            model.zero_grad()
            objective.zero_grad()
            sum(objective(model, batch).values()).backward()

        step()
        peaks[memory] = peak_bytes(step) / 2**20
    weights = sum(p.numel() * p.element_size() for p in [*model.parameters(), *objective.parameters()]) / 2**20
    encoders = peak_bytes(lambda: model.encode(batch).h.sum().backward()) / 2**20
    # What is kept of every pair: its loss, its score, its errors, its place in the lattice.
    pairs = len(data.lattice.pairs(batch.present).rows) * len(data.names) * 4 * 12 / 2**20
    assert peaks[2.0] <= 2.0 + weights + encoders + pairs < peaks[None] / 2


def test_no_more_pairs_are_tried_than_is_said():
    data = vectors(3, n=16)
    model = model_of(data).eval()
    tried = []
    model.fusion.register_forward_hook(lambda module, given, output: tried.append(len(output)))
    chunk = model.pairs_within(model.encode(first_batch(data)), 256.0, most=20)
    assert tried == [1, 20]
    assert chunk >= 20
