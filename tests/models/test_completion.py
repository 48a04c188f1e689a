"""The completion module against an independent implementation of the same block."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from lacunar.errors import ConfigError
from lacunar.models.completion import TokenTransformer, divisor_of


def make(features=8, modalities=3, **options):
    torch.manual_seed(0)
    block = TokenTransformer(features, **options).bind([f"m{i}" for i in range(modalities)])
    torch.nn.init.normal_(block.pos, std=0.5)
    return block.eval()


def tokens(count, modalities, features, spatial=()):
    generator = torch.Generator().manual_seed(1)
    h = torch.randn(count, modalities, features, *spatial, generator=generator)
    present = torch.rand(count, modalities, generator=generator) < 0.6
    return h.masked_fill(~present.view(count, modalities, *[1] * (h.ndim - 2)), 0.0), present


def oracle(block, h):
    """The block with the attention kernel of torch, on ``(P, M, C)``."""
    x = h + block.pos
    normed = block.attention_norm(x)
    queries, keys, values = block.qkv(normed).unflatten(-1, (3, block.heads, -1)).permute(2, 0, 3, 1, 4)
    attended = functional.scaled_dot_product_attention(queries, keys, values)
    x = x + block.project(attended.transpose(1, 2).flatten(2))
    return x + block.ffn(x)


@pytest.mark.parametrize("modalities", [1, 2, 3, 6])
@pytest.mark.parametrize(("features", "heads"), [(8, 8), (12, 8), (5, 2), (32, 2)])
def test_values_and_gradients_match_the_attention_kernel(modalities, features, heads):
    block = make(features, modalities, heads=heads)
    h, present = tokens(7, modalities, features)
    other = copy.deepcopy(block)
    found, expected = block(h, present), oracle(other, h)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    found.square().sum().backward()
    expected.square().sum().backward()
    for (key, mine), theirs in zip(block.named_parameters(), other.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4, msg=key)


@pytest.mark.parametrize("spatial", [(4,), (2, 3), (2, 2, 3)], ids=str)
def test_every_position_is_completed_on_its_own(spatial):
    block = make()
    h, present = tokens(4, 3, 8, spatial)
    completed = block(h, present)
    assert completed.shape == h.shape
    flat = h.flatten(3).permute(0, 3, 1, 2).flatten(0, 1)
    expected = oracle(block, flat).unflatten(0, (4, -1)).permute(0, 2, 3, 1).unflatten(3, spatial)
    torch.testing.assert_close(completed, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("heads", [8, 2])
@pytest.mark.parametrize("spatial", [(), (2, 2, 2)])
def test_no_row_and_no_mates(spatial, heads):
    block = make(32, heads=heads)
    h, present = tokens(5, 3, 32, spatial)
    block(h[:0], present[:0]).sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in block.parameters())
    together = block(h, present)
    for i in range(5):
        torch.testing.assert_close(together[i : i + 1], block(h[i : i + 1], present[i : i + 1]), atol=1e-5, rtol=1e-5)


def test_absent_tokens_are_filled_from_those_that_are_there():
    block = make()
    present = torch.tensor([[True, False, False]])
    first, second = torch.zeros(1, 3, 8), torch.zeros(1, 3, 8)
    first[:, 0], second[:, 0] = torch.randn(2, 1, 8)
    filled = block(first, present)[:, 1:]
    assert (filled - block(second, present)[:, 1:]).abs().max() > 1e-3


def test_absent_tokens_are_attended_to():
    """Their positions are keys like any other (the released behaviour), so moving one changes what is there."""
    block = make()
    h, present = torch.randn(1, 3, 8), torch.tensor([[True, False, False]])
    h[:, 1:] = 0
    before = block(h, present)[:, 0]
    with torch.no_grad():
        block.pos[:, 2] += 1 + torch.arange(8) / 8
    assert (block(h, present)[:, 0] - before).abs().max() > 1e-4


def test_modalities_may_change_places_when_positions_are_zero():
    block = TokenTransformer(8, modalities=3).eval()
    assert not block.pos.any()
    h, present = tokens(4, 3, 8)
    order = [2, 0, 1]
    torch.testing.assert_close(block(h, present)[:, order], block(h[:, order], present[:, order]))


def test_every_parameter_learns():
    block = make().train()
    h, present = tokens(6, 3, 8)
    (block(h, present) * torch.randn(6, 3, 8)).sum().backward()
    assert all(parameter.grad.any() for parameter in block.parameters())


def test_layout_of_the_parameters():
    block = TokenTransformer(128).bind(["a", "b", "c"])
    sizes = {key: tuple(value.shape) for key, value in block.state_dict().items()}
    assert sizes["pos"] == (1, 3, 128)
    assert sizes["qkv.weight"] == (384, 128)
    assert "qkv.bias" not in sizes
    assert sizes["ffn.1.weight"] == (512, 128)
    assert block.heads == 8


def test_divisors():
    assert [divisor_of(128, 8), divisor_of(12, 8), divisor_of(7, 8), divisor_of(10, 8), divisor_of(13, 4)] == [
        8,
        6,
        7,
        5,
        1,
    ]


def test_unbound_or_bound_to_others_is_refused():
    with pytest.raises(ConfigError, match=r"bind\(names\) first"):
        TokenTransformer(8)(torch.zeros(2, 3, 8), torch.ones(2, 3, dtype=torch.bool))
    block = make()
    assert block.bind(["x", "y", "z"]) is block
    with pytest.raises(ConfigError, match="built for 3 modalities, asked to serve 2"):
        block.bind(["x", "y"])
    with pytest.raises(ConfigError, match=r"\(3, 8\), got \(3, 9\)"):
        block(torch.zeros(2, 3, 9), torch.ones(2, 3, dtype=torch.bool))
