"""Diffusion: the published noise and loss, samplers that reach known distributions, what conditions what."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from tests.helpers import vectors

from lacunar.data import from_arrays
from lacunar.datasets.worlds_of_generation import generable, ungenerable
from lacunar.errors import ConfigError, MissingExtraError
from lacunar.generation.diffusion import DiffusionCompleter
from lacunar.generation.diffusion_network import Denoiser
from lacunar.generation.diffusion_schedule import SAMPLERS, TIMES, NoiseSchedule
from lacunar.generation.diffusion_sde import euler_maruyama, noise_scale, score_loss

QUICK = {"updates": 30, "steps": 4, "samples": 2, "hidden": 16}


def test_noise_scale_is_the_integral_of_the_process():
    for t in (1e-5, 0.1, 0.5, 1.0):
        grid = np.linspace(0, t, 20001)
        integral = math.sqrt(np.trapezoid(25.0 ** (2 * grid), grid))
        assert float(noise_scale(torch.tensor(t, dtype=torch.float64))) == pytest.approx(integral, rel=1e-5)
    assert float(noise_scale(torch.tensor(1.0))) == pytest.approx(9.85, abs=0.01)


def test_the_exact_score_has_the_smallest_loss():
    """For data N(m, s^2) the score is known, and no multiple or shift of it matches the noise better."""
    generator = torch.Generator().manual_seed(0)
    x, noise = 0.5 + 2 * torch.randn(20000, 3, generator=generator), torch.randn(20000, 3, generator=generator)
    scale = noise_scale(torch.full((20000, 1), 0.4))
    noised = x + scale * noise
    exact = -(noised - 0.5) / (4 + scale**2)
    best = score_loss(exact, noise, scale)
    assert float(best) == pytest.approx(float(4 / (4 + scale[0] ** 2)), rel=0.05)
    for other in (0.8 * exact, 1.2 * exact, exact + 0.1):
        assert score_loss(other, noise, scale) > best
    assert float(score_loss(exact, noise, scale, "sum")) == pytest.approx(3 * float(best), rel=1e-4)
    assert float(score_loss(-noise / scale, noise, scale)) == pytest.approx(0, abs=1e-10)


def test_euler_maruyama_reaches_the_data_from_the_exact_score():
    generator = torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(2000, generator=generator)

    def score(x, time):
        return -(x - 1.5) / (0.7**2 + noise_scale(time) ** 2)

    made = euler_maruyama(score, draw(), 500, noise=draw)
    assert stats.kstest(made.numpy(), "norm", (1.5, 0.7)).pvalue > 0.01
    assert stats.kstest(made.numpy(), "norm", (1.5, 1.0)).pvalue < 1e-6


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_reach_the_data_from_the_exact_posterior_mean(sampler):
    schedule = NoiseSchedule(sampler)
    generator = torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(2000, 1, generator=generator)

    def predict(x, time):
        signal = schedule.signal[int(time)]
        gain = signal.sqrt() * 0.7**2 / (signal * 0.7**2 + 1 - signal)
        return 1.5 + gain * (x - signal.sqrt() * 1.5)

    made = schedule.sample(predict, draw(), 200, draw)[:, 0]
    assert stats.kstest(made.numpy(), "norm", (1.5, 0.7)).pvalue > 0.01
    assert stats.kstest(made.numpy(), "norm", (1.5, 1.0)).pvalue < 1e-6


def test_schedule_goes_from_data_to_noise():
    schedule = NoiseSchedule()
    assert len(schedule.signal) == TIMES and schedule.signal[0] > 0.99 and schedule.signal[-1] < 1e-4
    clean, noise = torch.randn(4, 3), torch.randn(4, 3)
    time = torch.tensor([0, 300, 600, 999])
    signal = schedule.signal[time][:, None]
    expected = signal.sqrt() * clean + (1 - signal).sqrt() * noise
    assert torch.allclose(schedule.noised(clean, noise, time), expected, atol=1e-6)


def test_the_network_reads_sources_alone():
    torch.manual_seed(0)
    network = Denoiser([3, 5, 1], hidden=8).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    values = [torch.randn(6, 3), torch.randn(6, 5), torch.randn(6, 1)]
    sources = torch.tensor([[True, False, True], [False, False, True], [False, False, False]] * 2)
    level = torch.rand(6)

    def made(values, sources):
        return network(torch.ones(6, 5), level, network.context(values, sources, 1), 1)

    poisoned = [torch.where(sources[:, m, None], rows, torch.nan) for m, rows in enumerate(values)]
    expected = made(values, sources)
    assert torch.equal(made(poisoned, sources), expected)
    assert not torch.allclose(made([values[0] + 1, *values[1:]], sources)[0], expected[0])
    own = sources.clone()
    own[:, 1] = True  # its own value is never a source
    assert torch.equal(made(poisoned, own), expected)
    poisoned[0].requires_grad_()
    made(poisoned, sources).sum().backward()
    assert torch.isfinite(poisoned[0].grad).all()


def r2_of_x3(completer, world) -> float:
    data = world.data.split(train=0.7, val=0.1, test=0.2, seed=0)
    test = data.test
    made = completer.fit(data.train).complete(test.hide({"x3": [False] * len(test)}))
    rows = torch.arange(len(test))
    truth, filled = test.columns["x3"].take(rows)[0], made.columns["x3"].take(rows)[0]
    return 1 - float((truth - filled).square().sum() / (truth - truth.mean(0)).square().sum())


WORLD = {"updates": 150, "hidden": 32, "lr": 5e-3, "steps": 8, "samples": 8, "batch_size": 128}


def test_what_can_be_computed_is_generated():
    assert r2_of_x3(DiffusionCompleter(**WORLD), generable(500)) > 0.5


def test_what_is_independent_is_not():
    assert r2_of_x3(DiffusionCompleter(**WORLD), ungenerable(500)) < 0.05


def test_the_published_process_generates_too():
    assert r2_of_x3(DiffusionCompleter(**{**WORLD, "steps": 50}, variant="imder"), generable(500)) > 0.5


def test_one_draw_has_the_spread_that_the_mean_of_many_has_not():
    data = ungenerable(400).data
    hidden = data.hide({"x3": [False] * 400})
    completer = DiffusionCompleter(**{**WORLD, "updates": 60, "samples": 1}).fit(data)
    spread = []
    for samples in (1, 64):
        completer.samples = samples
        made = [completer.complete(hidden).columns["x3"].take(torch.tensor([0]))[0]]
        for seed in range(1, 9):
            completer.seed = seed
            made.append(completer.complete(hidden.select([0])).columns["x3"].take(torch.tensor([0]))[0])
        completer.seed = 0
        spread.append(float(torch.cat(made).std(0).mean()))
    assert 0.6 < spread[0] < 1.8 and spread[1] < spread[0] / 4


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sampler": "ddpm", "guidance": 1.5, "samples": 3},
        {"samples": 1},
        {"variant": "imder", "cond_noise": "shared", "reduction": "sum"},
        {"variant": "imder", "cond_noise": "independent"},
    ],
    ids=str,
)
def test_any_width_and_number_of_modalities_and_the_same_every_time(options):
    data = vectors(4, 60, missing=0.4)  # widths 3, 4, 5, 6
    completer = DiffusionCompleter(**{**QUICK, **options}).fit(data)
    batch = data.__getitems__(range(20))
    made = completer.complete_batch(batch)
    assert made.present.all() and torch.equal(made.generated, ~batch.present)
    assert all(torch.isfinite(rows).all() for rows in made.inputs.values())
    again = completer.complete_batch(batch)
    alone = completer.complete_batch(data.__getitems__([3]))
    for name in data.names:
        assert torch.equal(made.inputs[name], again.inputs[name])
        assert torch.allclose(alone.inputs[name][0], made.inputs[name][3], atol=1e-3, rtol=1e-3)


def test_another_seed_draws_something_else():
    data = vectors(2, 60, missing=0.3)
    completer = DiffusionCompleter(**{**QUICK, "samples": 1}).fit(data)
    first = completer.complete_batch(data.__getitems__(range(20)))
    completer.seed = 5
    second = completer.complete_batch(data.__getitems__(range(20)))
    assert any(not torch.equal(first.inputs[name], second.inputs[name]) for name in data.names)


def test_no_target_and_one_number():
    generator = np.random.default_rng(0)
    views = {"a": generator.normal(size=(40, 3)), "b": generator.normal(size=(40, 1))}
    views["b"][::2] = np.nan
    data = from_arrays(views)
    assert DiffusionCompleter(**QUICK).fit(data).complete(data).present.all()


def test_without_diffusers(monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "diffusers"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    data = vectors(2, 20, missing=0.0)
    with pytest.raises(MissingExtraError, match=r"'diffusers': pip install 'lacunar\[diffusion\]'"):
        DiffusionCompleter(**QUICK).fit(data)
    DiffusionCompleter(**{**QUICK, "updates": 0}, variant="imder").fit(data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "ddimm"}, "unknown sampler 'ddimm'. Did you mean 'ddim'"),
        ({"variant": "imdr"}, "unknown variant 'imdr'. Did you mean 'imder'"),
        ({"cond_noise": "some"}, "unknown cond_noise 'some'"),
        ({"samples": 0}, "samples: expected a number from 1, got 0"),
        ({"sigma": 1.0}, "sigma above 1"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ConfigError, match=message):
        DiffusionCompleter(**options)
