"""Heads, and the same head for one modality."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lacunar.errors import ConfigError
from lacunar.models.heads import DenseHead, MLPHead, unimodal_head


@pytest.mark.parametrize("spatial", [(), (3,), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("count", [0, 1, 4])
def test_labels_from_fused_features(spatial, count):
    head = MLPHead(12, 3, hidden=(8, 7), norm=True)
    output = head(torch.randn(count, 12, *spatial))
    assert output.shape == (count, 3)
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_label_maps_at_full_resolution(stride, count):
    head = DenseHead(6, 4, stride=stride, hidden=8)
    output = head(torch.randn(count, 6, 2, 3, 2))
    assert output.shape == (count, 4, 2 * stride, 3 * stride, 2 * stride)
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_dense_head_knows_no_batch():
    head = DenseHead(6, 4, hidden=8).eval()
    x = torch.randn(3, 6, 2, 2, 2)
    torch.testing.assert_close(head(x)[1:2], head(x[1:2]), rtol=1e-5, atol=1e-5)


class OwnHead(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, 2)

    def forward(self, x):
        return self.layer(x)

    def resized(self, width):
        return OwnHead(width)


HEADS = [
    nn.Linear(12, 3),
    nn.Linear(12, 3, bias=False),
    MLPHead(12, 3, hidden=(8,), dropout=0.1, activation="gelu", norm=True),
    nn.Sequential(nn.LayerNorm(12), nn.Dropout(0.5), nn.Linear(12, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 3)),
    nn.Sequential(MLPHead(12, 3), nn.Linear(3, 3)),
    OwnHead(12),
]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_a_single_modality_gets_the_same_architecture(head):
    before = {key: value.clone() for key, value in head.state_dict().items()}
    alone = unimodal_head(head, 4)
    assert alone(torch.randn(5, 4)).shape == (5, head(torch.randn(5, 12)).shape[1])
    assert repr(alone) == repr(head).replace("in_features=12,", "in_features=4,").replace("((12,)", "((4,)")
    assert not {id(p) for p in alone.parameters()} & {id(p) for p in head.parameters()}
    assert all(torch.equal(value, before[key]) for key, value in head.state_dict().items())


def test_layers_after_the_first_are_drawn_afresh():
    head = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    assert not torch.equal(unimodal_head(head, 4)[2].weight, head[2].weight)


def test_dense_heads_too():
    head = DenseHead(12, 4, hidden=8)
    assert unimodal_head(head, 6)(torch.randn(1, 6, 2, 2, 2)).shape == (1, 4, 4, 4, 4)
    convolution = nn.Conv3d(12, 4, 3, padding=1, bias=False)
    alone = unimodal_head(convolution, 6)
    assert repr(alone) == repr(convolution).replace("(12,", "(6,")


@pytest.mark.parametrize(
    "head", [nn.Bilinear(3, 4, 5), nn.Sequential(nn.ReLU()), nn.Sequential(nn.BatchNorm1d(12), nn.Linear(12, 2))]
)
def test_a_head_that_does_not_tell_its_width_is_refused(head):
    with pytest.raises(ConfigError, match=r"resized\(in_features\)"):
        unimodal_head(head, 4)


def test_stride_must_be_a_power_of_two():
    with pytest.raises(ConfigError, match="power of two, got 3"):
        DenseHead(6, 4, stride=3)
