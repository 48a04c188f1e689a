"""Flows: invertible, with the right volumes and likelihoods; what they transfer, and what they leave alone."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from tests.helpers import vectors
from torch import nn

from lacunar.data import from_arrays
from lacunar.data.batch import Batch
from lacunar.datasets.worlds_of_generation import generable, ungenerable
from lacunar.errors import ConfigError, DataError, MissingExtraError
from lacunar.generation.fitting import fit_network, hold_back, random_sources
from lacunar.generation.flow import FlowCompleter
from lacunar.generation.flow_decoder import Combine, make_decoder
from lacunar.generation.flow_prior import ClassPrior, class_bins
from lacunar.generation.flow_transfer import FlowTransfer
from lacunar.generation.flow_transforms import FLOWS, Flow
from lacunar.generation.whitening import Whitening, align

QUICK = {"updates": 40, "steps": 2, "hidden": 16}


def shaken(module: nn.Module, size: float = 0.05, seed: int = 0) -> nn.Module:
    """The module with weights away from where they start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return module


def table(n: int = 20, M: int = 3, C: int = 6, seed: int = 0, time: int | None = None):
    """Features, NaN where absent, and which are there; the first row has all, the second nothing."""
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(n, M, C, *([] if time is None else [time]), generator=generator)
    present = torch.rand(n, M, generator=generator) < 0.6
    present[0], present[1] = True, False
    h[~present] = torch.nan
    return h, present


# ---------------------------------------------------------------- flows


@pytest.mark.parametrize("shape", [(6,), (7,), (6, 5)], ids=["even", "odd", "time"])
@pytest.mark.parametrize("kind", FLOWS)
def test_flows_are_invertible(kind, shape):
    flow = shaken(Flow(shape[0], kind, steps=8, hidden=16))
    x = torch.randn(50, *shape, generator=torch.Generator().manual_seed(0))
    z, logdet = flow(x)
    assert z.shape == x.shape and logdet.shape == (50,)
    assert (z - x).abs().max() > 0.1
    assert (flow.inverse(z) - x).abs().max() < 1e-4


@pytest.mark.parametrize("kind", FLOWS)
def test_trained_flows_are_invertible(kind):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    transfer = FlowTransfer(6, 1, 1, flow=kind, steps=4, hidden=16)
    there = torch.ones(200, 1, dtype=torch.bool)

    def loss(rows):
        return transfer.nll(x[rows, None], there[rows])

    before = float(loss(torch.arange(200)).detach())
    rows = hold_back(200, 0.2, generator)
    after = fit_network(
        transfer, loss, lambda r: float(loss(r)), rows, steps=40, batch_size=64, lr=1e-2, generator=generator
    )
    assert after < before - 0.1
    z, _ = transfer.flows[0](x)
    assert (transfer.flows[0].inverse(z) - x).abs().max() < 1e-4


@pytest.mark.parametrize("shape", [(6,), (1,), (3, 2)], ids=["vector", "number", "time"])
@pytest.mark.parametrize("kind", FLOWS)
def test_log_determinant_is_that_of_the_jacobian(kind, shape):
    if kind == "released" and shape == (1,):
        with pytest.raises(ConfigError, match="at least 2, got 1"):
            Flow(1, kind)
        return
    flow = shaken(Flow(shape[0], kind, steps=3, hidden=8), 0.2).double()
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow(v.view(1, *shape))[0].flatten(), x.flatten())
    assert torch.allclose(flow(x)[1][0], torch.linalg.slogdet(jacobian).logabsdet, atol=1e-6)
    assert flow(x)[1].abs().item() > 1e-3


def test_the_released_flow_copies_the_first_half_and_the_others_do_not():
    x = torch.randn(30, 7, generator=torch.Generator().manual_seed(0))
    for kind in FLOWS:
        flow = shaken(Flow(7, kind, steps=5, hidden=16), 0.1)
        assert torch.equal(flow(x)[0][:, :3], x[:, :3]) == (kind == "released")


def test_a_released_step_shrinks_by_sigmoid_of_two_at_first():
    x = torch.randn(5, 4)
    z, logdet = Flow(4, "released", steps=3)(x)
    scale = torch.sigmoid(torch.tensor(2.0)) ** 3
    assert torch.allclose(z[:, 2:], scale * x[:, 2:], atol=1e-6)
    assert torch.allclose(logdet, 2 * scale.log().expand(5), atol=1e-5)


def test_scales_of_our_couplings_are_bounded():
    flow = shaken(Flow(6, "alternate", steps=1, hidden=8, limit=0.5), 30.0)
    _, logdet = flow(torch.randn(200, 6))
    assert 1.0 < float(logdet.abs().max()) <= 3 * 0.5


def test_no_rows_give_every_weight_a_zero_gradient():
    transfer = shaken(FlowTransfer(6, 2, 2, steps=2, hidden=8, through="all"))
    h, present = torch.full((4, 2, 6), torch.nan), torch.zeros(4, 2, dtype=torch.bool)
    z, logdet = transfer.latents(h, present)
    loss = transfer.nll(h, present, torch.zeros(4, dtype=torch.int64)) + z.sum() + logdet.sum()
    assert float(loss) == 0
    loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in transfer.flows.parameters())


def test_unknown_flow():
    with pytest.raises(ConfigError, match="Unknown flow 'coupling-lo'. Did you mean 'coupling-lu'?"):
        Flow(4, "coupling-lo")


# ---------------------------------------------------------------- prior


def test_prior_is_a_gaussian_for_each_class():
    prior = shaken(ClassPrior(3, 4), 0.5)
    z, classes = torch.randn(10, 3, 5), torch.arange(10) % 4
    parts = torch.distributions.Normal(prior.mean[classes][..., None], prior.log_sd[classes].exp()[..., None])
    expected = parts.log_prob(z).flatten(1).sum(1)
    assert torch.allclose(prior.log_prob(z, classes), expected, atol=1e-4)
    assert torch.allclose(prior.log_prob(z, nn.functional.one_hot(classes, 4)), expected, atol=1e-4)
    every = torch.stack([prior.log_prob(z, torch.full((10,), c)) for c in range(4)])
    classes[3] = -1
    expected = expected.clone()
    expected[3] = torch.logsumexp(every[:, 3], 0) - math.log(4)
    assert torch.allclose(prior.log_prob(z, classes), expected, atol=1e-4)
    assert torch.allclose(prior.log_prob(z), torch.logsumexp(every, 0) - math.log(4), atol=1e-4)
    with pytest.raises(DataError, match="below 4, got 7"):
        prior.log_prob(z, torch.full((10,), 7))


def test_the_right_class_is_likelier_and_empty_classes_do_no_harm():
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(300) % 2 * 2  # class 1 of 3 never occurs
    centres = 2 * torch.randn(3, 2, 4, generator=generator)
    h = centres[classes] + 0.5 * torch.randn(300, 2, 4, generator=generator)
    there = torch.ones(300, 2, dtype=torch.bool)
    transfer = FlowTransfer(4, 2, 3, steps=2, hidden=16)
    rows = hold_back(300, 0.2, generator)

    def loss(chosen):
        return transfer.nll(h[chosen], there[chosen], classes[chosen])

    fit_network(transfer, loss, lambda r: float(loss(r)), rows, steps=80, batch_size=64, lr=1e-2, generator=generator)
    kept = rows[1]
    right = transfer.nll(h[kept], there[kept], classes[kept])
    wrong = transfer.nll(h[kept], there[kept], 2 - classes[kept])
    assert float(right) + 0.15 < float(wrong)
    assert not transfer.prior.mean[1].any()


def test_classes_of_any_target():
    numbers = torch.tensor([3.0, 1.0, torch.nan, 2.0, 5.0, 4.0])
    classes, K = class_bins(numbers, 6, bins=2)
    assert K == 2 and classes.tolist() == [1, 0, -1, 0, 1, 1]
    assert class_bins(torch.full((4,), 2.0), 4)[1] == 1
    assert class_bins(None, 3) == (pytest.approx(torch.zeros(3)), 1)
    assert class_bins(torch.tensor([0, 2, 1]), 3)[1] == 3
    several, K = class_bins(torch.arange(20.0).view(10, 2), 10, bins=5)
    assert K == 5 and sorted(several.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert class_bins(torch.zeros(4, 8, 8, dtype=torch.int64), 4)[1] == 1


# ---------------------------------------------------------------- transfer


def test_likelihood_is_eq_5_over_what_is_there():
    transfer = shaken(FlowTransfer(6, 3, 2, steps=2, hidden=8))
    h, present = table()
    classes = torch.arange(20) % 2
    expected = 0.0
    for m in range(3):
        rows = present[:, m]
        z, logdet = transfer.flows[m](h[rows, m])
        expected -= float((transfer.prior.log_prob(z, classes[rows]) + logdet).mean()) / (6 * math.log(2))
    assert float(transfer.nll(h, present, classes)) == pytest.approx(expected, rel=1e-4)


def test_released_likelihood_stops_at_zero():
    transfer = FlowTransfer(6, 1, 1, clamp_zero=True, steps=1, hidden=8)
    with torch.no_grad():
        transfer.prior.log_sd.fill_(-9.0)
    zeros, there = torch.zeros(4, 1, 6), torch.ones(4, 1, dtype=torch.bool)
    assert float(transfer.nll(zeros, there)) == 0
    transfer.clamp_zero = False
    assert float(transfer.nll(zeros, there)) < -5


@pytest.mark.parametrize("kind", FLOWS)
def test_equal_flows_and_no_decoder_copy(kind):
    transfer = FlowTransfer(6, 2, 1, flow=kind, decoder="identity", steps=4, hidden=8)
    shaken(transfer.flows[0], 0.1)
    transfer.flows[1].load_state_dict(transfer.flows[0].state_dict())
    h = torch.randn(30, 2, 6)
    present = torch.tensor([True, False]).expand(30, 2)
    assert (transfer.complete(h, present)[:, 1] - h[:, 0]).abs().max() < 1e-4


def test_released_transfer_copies_half_of_the_source():
    transfer = FlowTransfer(6, 2, 1, flow="released", decoder="identity", steps=4, hidden=8)
    shaken(transfer.flows, 0.1)
    h = torch.randn(30, 2, 6)
    made = transfer.complete(h, torch.tensor([True, False]).expand(30, 2))[:, 1]
    assert torch.allclose(made[:, :3], h[:, 0, :3], atol=1e-6)
    assert (made[:, 3:] - h[:, 0, 3:]).abs().max() > 0.05


@pytest.mark.parametrize("combine", ["mean", "gate", "concat"])
@pytest.mark.parametrize("time", [None, 4], ids=["vector", "time"])
@pytest.mark.parametrize("decoder", ["residual", "attention"])
def test_what_is_absent_is_never_read(combine, time, decoder):
    transfer = shaken(FlowTransfer(6, 5, 2, combine=combine, decoder=decoder, blocks=1, steps=2, hidden=8))
    transfer.eval()
    h, present = table(M=5, time=time)
    full = transfer.complete(h, present)
    assert torch.isfinite(full).all() and full.shape == h.shape
    assert torch.equal(full[present], h[present])
    assert torch.equal(full, transfer.complete(h.nan_to_num(7.0), present))
    for row in (0, 1, 5):
        alone = transfer.complete(h[row : row + 1], present[row : row + 1])
        assert torch.allclose(alone[0], full[row], atol=1e-5)
    loss = transfer.nll(h, present) + transfer.reconstruction(h, present) + full.sum()
    loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in transfer.parameters())


def test_images_as_features():
    transfer = shaken(FlowTransfer(4, 2, 1, steps=2, hidden=8)).eval()
    h = torch.randn(3, 2, 4, 2, 5)
    present = torch.tensor([[True, False]] * 3)
    flat = transfer.complete(h.flatten(3), present)
    assert torch.equal(transfer.complete(h, present), flat.view_as(h))
    assert torch.isfinite(transfer.reconstruction(h, torch.ones(3, 2, dtype=torch.bool)))


def test_the_order_of_sources_means_nothing_to_the_mean():
    combine = Combine(4, 3, "mean")
    images, sources = torch.randn(6, 3, 2, 4), torch.tensor([[True, False, True]] * 6)
    expected = combine(images, sources)
    assert torch.allclose(expected, images[:, [0, 2]].mean(1), atol=1e-6)
    order = [2, 0, 1]
    assert torch.allclose(combine(images[:, order], sources[:, order]), expected, atol=1e-6)
    assert torch.allclose(Combine(4, 3, "gate")(images, sources), expected, atol=1e-6)


def test_gradients_reach_decoders_and_not_frozen_flows():
    transfer = shaken(FlowTransfer(6, 3, 1, steps=2, hidden=8, through="all"))
    h, present = table()
    h = h.requires_grad_()
    transfer.freeze("flows")
    transfer.complete(h, present).sum().backward()
    frozen = [*transfer.flows.parameters(), *transfer.prior.parameters()]
    assert all(parameter.grad is None for parameter in frozen)
    assert all(parameter.grad.abs().sum() > 0 for parameter in transfer.decoders[0].linear.parameters())
    transfer.freeze("none")
    transfer.complete(h, present).sum().backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in transfer.flows.parameters())
    transfer.freeze("all")
    assert not any(parameter.requires_grad for parameter in transfer.parameters())
    with pytest.raises(ConfigError, match="Unknown policy 'flow'. Did you mean 'flows'?"):
        transfer.freeze("flow")


def test_released_generation_detaches_its_sources():
    h, present = torch.randn(8, 2, 6, requires_grad=True), torch.tensor([[True, False]] * 8)
    for through, reached in (("decoder", False), ("all", True)):
        transfer = shaken(FlowTransfer(6, 2, 1, steps=2, hidden=8, through=through))
        gradient = torch.autograd.grad(transfer.complete(h, present)[:, 1].square().sum(), h, allow_unused=True)[0]
        assert bool(gradient.any()) == reached
        assert torch.autograd.grad(transfer.nll(h, present), h)[0][:, 0].any()


def test_released_variant_is_what_the_released_code_does():
    transfer = FlowTransfer(6, 3, 1, variant="released", steps=2, hidden=8)
    assert transfer.clamp_zero and transfer.through == "decoder"
    assert transfer.combines[0].how == "concat"
    assert not any("LU" in name for name in transfer.state_dict())


def test_options_and_shapes_of_the_transfer():
    with pytest.raises(ConfigError, match="Unknown variant 'release'. Did you mean 'released'?"):
        FlowTransfer(4, 2, variant="release")
    with pytest.raises(ConfigError, match="through: expected 'decoder' or 'all'"):
        FlowTransfer(4, 2, through="flows")
    with pytest.raises(ConfigError, match="each of 2 modalities, got 1"):
        FlowTransfer(4, 2, out=[3])
    with pytest.raises(ConfigError, match="Unknown way to combine sources 'means'"):
        Combine(4, 2, "means")
    with pytest.raises(ConfigError, match="attention decoder gives 4 channels, not 3"):
        make_decoder("attention", 4, 2, out=3)
    with pytest.raises(DataError, match=r"Expected features \(rows, 2, 4, ...\)"):
        FlowTransfer(4, 2).latents(torch.zeros(3, 2, 5), torch.ones(3, 2, dtype=torch.bool))
    with pytest.raises(ConfigError, match="use generate"):
        FlowTransfer(4, 2, out=[4, 3]).complete(torch.zeros(3, 2, 4), torch.ones(3, 2, dtype=torch.bool))


def test_random_sources_are_some_of_what_is_there():
    available = torch.tensor([[True, True, True], [False, True, False], [False, False, False]]).repeat(200, 1)
    chosen = random_sources(available, torch.Generator().manual_seed(0))
    assert not (chosen & ~available).any()
    assert torch.equal(chosen.any(1), available.any(1))
    sizes = chosen[::3].sum(1).bincount(minlength=4)
    assert sizes[1:].min() > 20 and sizes[3] > 90


# ---------------------------------------------------------------- the completer


def test_whitening_and_back():
    rows = torch.randn(100, 5) @ torch.randn(5, 8)
    whitening = Whitening(8, 7).fit(rows)
    codes = whitening.encode(rows)
    assert torch.allclose(codes[:, :5].T.cov(), torch.eye(5), atol=1e-3) and not codes[:, 5:].any()
    assert torch.allclose(whitening.decode(codes), rows, atol=1e-3)


def test_alignment_is_a_rotation_that_brings_rows_together():
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(300, 4, generator=generator)
    turns = [torch.linalg.qr(torch.randn(4, 4, generator=generator))[0] for _ in range(3)]
    codes = torch.stack([common @ turn + 0.1 * torch.randn(300, 4, generator=generator) for turn in turns], 1)
    present = torch.rand(300, 3, generator=generator) < 0.7
    codes[~present] = 0
    rotations = align(codes, present)
    assert all(torch.allclose(r @ r.T, torch.eye(4), atol=1e-5) for r in rotations)
    both = present[:, 0] & present[:, 2]
    turned = [codes[both, m] @ rotations[m] for m in (0, 2)]
    assert (turned[0] - turned[1]).square().mean() < 0.05
    assert (codes[both, 0] - codes[both, 2]).square().mean() > 0.5

    rows = torch.randn(100, 3) @ torch.randn(3, 6)
    whitening = Whitening(6, 5).fit(rows)
    whitening.rotate(torch.linalg.qr(torch.randn(5, 5))[0])
    turned = whitening.encode(rows)
    assert torch.allclose(turned.T.cov() + whitening.padding, torch.eye(5), atol=1e-3)
    assert torch.allclose(whitening.decode(turned), rows, atol=1e-3)


def test_without_training_the_flow_is_a_regression_on_aligned_components():
    assert r2_of_x3(FlowCompleter(updates=0), generable(400)) > 0.5
    assert r2_of_x3(FlowCompleter(updates=0, align=False), generable(400)) < 0.1


def r2_of_x3(completer, world) -> float:
    """Share of the variance of x3 that filling from x1 and x2 explains, on samples that were not fitted to."""
    data = world.data.split(train=0.7, val=0.1, test=0.2, seed=0)
    test = data.test
    hidden = test.hide({"x3": [False] * len(test)})
    made = completer.fit(data.train).complete(hidden)
    rows = torch.arange(len(test))
    truth, filled = test.columns["x3"].take(rows)[0], made.columns["x3"].take(rows)[0]
    return 1 - float((truth - filled).square().sum() / (truth - truth.mean(0)).square().sum())


@pytest.mark.parametrize(
    "options", [{}, {"combine": "concat", "align": False}, {"combine": "gate", "align": False}], ids=str
)
def test_what_can_be_computed_is_generated(options):
    assert r2_of_x3(FlowCompleter(**options, updates=60, steps=2, hidden=16, lr=1e-2), generable(400)) > 0.5


def test_released_variant_completes_too():
    assert r2_of_x3(FlowCompleter(variant="released", updates=60, steps=2, hidden=16, lr=1e-2), generable(400)) > 0.2


def test_what_is_independent_is_not():
    assert r2_of_x3(FlowCompleter(**QUICK), ungenerable(400)) < 0.05


def test_likelihood_alone_matches_distributions_and_not_samples():
    data = generable(300).data
    completer = FlowCompleter(recon="none", **QUICK).fit(data)
    made = completer.complete(data.hide({"x3": [False] * 300})).columns["x3"].take(torch.arange(300))[0]
    truth = data.columns["x3"].take(torch.arange(300))[0]
    assert 1 - float((truth - made).square().sum() / truth.square().sum()) < 0.5
    assert 0.4 < float(made.std() / truth.std()) < 1.5


def test_completing_needs_no_labels_and_fitting_uses_only_observed_cells():
    data = vectors(5, 80, missing=0.4)
    quick = {**QUICK, "updates": 5}
    completer = FlowCompleter(**quick).fit(data)
    batch = data.__getitems__(range(30))
    unlabelled = Batch(batch.inputs, batch.present, None, batch.index)
    made = completer.complete_batch(unlabelled)
    assert made.present.all() and torch.equal(made.generated, ~batch.present)
    assert all(torch.isfinite(rows).all() for rows in made.inputs.values())
    again = FlowCompleter(**quick).fit(data).complete_batch(batch)
    assert all(torch.equal(made.inputs[name], again.inputs[name]) for name in data.names)
    other = FlowCompleter(**quick, seed=1).fit(data).complete_batch(batch)
    assert any(not torch.equal(made.inputs[name], other.inputs[name]) for name in data.names)


@pytest.mark.parametrize("target", [torch.linspace(-1, 1, 40), None], ids=["numbers", "no target"])
def test_targets_that_are_not_classes(target):
    generator = torch.Generator().manual_seed(0)
    views = {"a": torch.randn(40, 3, generator=generator), "b": torch.randn(40, 1, generator=generator)}
    views["b"][::2] = torch.nan
    data = from_arrays({name: rows.numpy() for name, rows in views.items()}, None if target is None else target.numpy())
    full = FlowCompleter(**{**QUICK, "updates": 5}).fit(data).complete(data)
    assert full.present.all()
    b = full.columns["b"].take(torch.arange(40))[0]
    seen = views["b"][1::2]
    assert seen.min() - 1e-5 <= b.min() and b.max() <= seen.max() + 1e-5


def test_one_modality_and_no_update():
    data = vectors(1, 30, missing=0.0)
    assert FlowCompleter(updates=0).fit(data).complete(data) is data


def test_without_zuko(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(MissingExtraError, match=r"'zuko': pip install 'lacunar\[flows\]'"):
        FlowCompleter(**QUICK).fit(vectors(2, 20, missing=0.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flow": "coupling"}, "unknown flow 'coupling'"),
        ({"recon": "on_full"}, "unknown recon 'on_full'"),
        ({"combine": "sum"}, "unknown combine 'sum'"),
        ({"steps": 0}, "steps: expected a number from 1, got 0"),
        ({"prior_weight": -1}, "prior_weight from 0"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ConfigError, match=message):
        FlowCompleter(**options)
