"""The contract of every fusion, found by itself, and what is particular to each."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest
import torch
from torch import nn

from lacunar.errors import ConfigError
from lacunar.models import fusions
from lacunar.models.fusions import AttentionFusion, ConcatFusion, MeanFusion

FEATURES = 6


def discovered() -> dict[str, type[nn.Module]]:
    found = {}
    for module in pkgutil.iter_modules(fusions.__path__):
        loaded = importlib.import_module(f"{fusions.__name__}.{module.name}")
        for name, kind in vars(loaded).items():
            if inspect.isclass(kind) and issubclass(kind, nn.Module) and kind.__module__ == loaded.__name__:
                found[name] = kind
    return found


def test_every_fusion_is_public():
    assert set(discovered()) == set(fusions.__all__)


contract = pytest.mark.parametrize("name", sorted(discovered()))
everywhere = pytest.mark.parametrize("spatial", [(), (3,), (2, 3), (2, 3, 2)], ids=str)


def make(name, modalities):
    torch.manual_seed(0)
    fusion = discovered()[name](FEATURES).eval()
    if hasattr(fusion, "bind"):
        assert fusion.bind([f"m{i}" for i in range(modalities)]) is fusion
    return fusion


def tokens(count, modalities, spatial=()):
    generator = torch.Generator().manual_seed(1)
    h = torch.randn(count, modalities, FEATURES, *spatial, generator=generator)
    present = torch.rand(count, modalities, generator=generator) < 0.6
    present[:, 0] |= ~present.any(1)
    return h.masked_fill(~present.view(count, modalities, *[1] * (h.ndim - 2)), 0.0), present


@contract
@everywhere
@pytest.mark.parametrize("modalities", [1, 2, 4])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_shapes_and_gradients(name, spatial, modalities, count):
    fusion = make(name, modalities)
    h, present = tokens(count, modalities, spatial)
    h.requires_grad_()
    fused = fusion(h, present)
    assert fused.shape == (count, fusion.out_features, *spatial)
    assert fused.dtype == torch.float32
    fused.square().sum().backward()
    assert h.grad is not None
    assert h.grad.isfinite().all()
    for key, parameter in fusion.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@contract
@everywhere
def test_no_row_depends_on_its_mates(name, spatial):
    fusion = make(name, 3)
    h, present = tokens(6, 3, spatial)
    together = fusion(h, present)
    for i in range(6):
        torch.testing.assert_close(together[i : i + 1], fusion(h[i : i + 1], present[i : i + 1]))


@contract
@everywhere
def test_every_position_is_fused_alike(name, spatial):
    if not spatial:
        spatial = (4,)
    fusion = make(name, 3)
    h, present = tokens(4, 3, spatial)
    at_position = (..., *[0] * len(spatial))
    torch.testing.assert_close(fusion(h, present)[at_position], fusion(h[at_position], present))


@contract
def test_a_row_with_nothing_is_finite(name):
    fusion = make(name, 3)
    h = torch.zeros(2, 3, FEATURES, requires_grad=True)
    fused = fusion(h, torch.tensor([[False] * 3, [True, False, False]]))
    fused.sum().backward()
    assert fused.isfinite().all()
    assert h.grad.isfinite().all()


@pytest.mark.parametrize("name", ["AttentionFusion", "MeanFusion"])
@pytest.mark.parametrize("spatial", [(), (2, 3)])
def test_what_is_absent_counts_for_nothing(name, spatial):
    fusion = make(name, 4)
    h, present = tokens(5, 4, spatial)
    junk = h.masked_fill(~present.view(5, 4, *[1] * (h.ndim - 2)), float("nan"))
    assert torch.equal(fusion(junk, present), fusion(h, present))


@pytest.mark.parametrize("name", ["AttentionFusion", "MeanFusion"])
def test_order_of_modalities_does_not_matter(name):
    fusion = make(name, 4)
    h, present = tokens(5, 4)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(fusion(h, present), fusion(h[:, order], present[:, order]))


def test_concatenation_keeps_lattice_order():
    h, present = tokens(2, 3)
    assert torch.equal(ConcatFusion(FEATURES)(h, present), torch.cat([h[:, 0], h[:, 1], h[:, 2]], dim=1))


def test_width_of_a_concatenation_needs_the_modalities():
    fusion = ConcatFusion(128)
    with pytest.raises(ConfigError, match="modalities="):
        fusion.out_features  # noqa: B018
    assert fusion.bind(["a", "b", "c"]).out_features == 384
    assert ConcatFusion(128, modalities=2).out_features == 256


def test_mean_of_what_is_present():
    h = torch.tensor([[[2.0], [4.0], [100.0]]])
    assert MeanFusion(1)(h, torch.tensor([[True, True, False]])).item() == 3.0


def test_heads_are_reduced_to_a_divisor():
    assert AttentionFusion(6, heads=4).heads == 3
    assert AttentionFusion(7, heads=4).heads == 1
