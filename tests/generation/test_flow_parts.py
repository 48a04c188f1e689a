"""The parts of a flow: invertible, with the right volumes and likelihoods; what is transferred, and what left alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lacunar.errors import ConfigError, DataError
from lacunar.generation.fitting import fit_network, hold_back, random_sources
from lacunar.generation.flow_decoder import Combine, make_decoder
from lacunar.generation.flow_prior import ClassPrior, class_bins
from lacunar.generation.flow_transfer import FlowTransfer
from lacunar.generation.flow_transforms import FLOWS, Flow
from lacunar.models.saving import load_model, save_model


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
    assert 1.0 < float(logdet.detach().abs().max()) <= 3 * 0.5


def test_no_rows_give_every_weight_a_zero_gradient():
    transfer = shaken(FlowTransfer(6, 2, 2, steps=2, hidden=8, through="all"))
    h, present = torch.full((4, 2, 6), torch.nan), torch.zeros(4, 2, dtype=torch.bool)
    z, logdet = transfer.latents(h, present)
    loss = transfer.nll(h, present, torch.zeros(4, dtype=torch.int64)) + z.sum() + logdet.sum()
    assert float(loss.detach()) == 0
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
    assert float(right.detach()) + 0.15 < float(wrong.detach())
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
        expected -= float((transfer.prior.log_prob(z, classes[rows]) + logdet).mean().detach()) / (6 * math.log(2))
    assert float(transfer.nll(h, present, classes).detach()) == pytest.approx(expected, rel=1e-4)


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


@pytest.mark.parametrize("options", [{}, {"variant": "released"}, {"decoder": "attention", "blocks": 1}], ids=str)
def test_a_transfer_is_saved_and_built_again(options, tmp_path):
    transfer = shaken(FlowTransfer(6, 3, 2, steps=2, hidden=8, **options)).eval()
    h, present = table()
    again = load_model(save_model(transfer, tmp_path / "transfer"))
    assert torch.equal(again.complete(h, present), transfer.complete(h, present))
