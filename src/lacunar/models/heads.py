"""Heads: from fused features to the output of a task; and the same head for a single modality."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lacunar.errors import ConfigError
from lacunar.models.configurable import Configurable
from lacunar.models.encoders.conv3d import residual_unit
from lacunar.models.encoders.mlp import activation_named

__all__ = ["DenseHead", "MLPHead", "unimodal_head"]


class MLPHead(Configurable):
    """Hidden layers with dropout, then one linear layer; spatial features are averaged first.

    Args:
        in_features: width F of the fused features.
        outputs: size of the output (classes, labels, numbers).
        hidden: widths of the hidden layers; empty for a linear head.
        dropout: rate after each hidden layer, and before the only layer of a linear head.
        activation: ``"relu"``, ``"gelu"``, ``"tanh"`` or ``"silu"``.
        norm: whether a LayerNorm follows each hidden linear layer.

    Shapes:
        ``(P, F)`` or ``(P, F, *spatial)`` -> ``(P, outputs)``.
    """

    def __init__(
        self,
        in_features: int,
        outputs: int,
        hidden: int | Sequence[int] = (128,),
        dropout: float = 0.5,
        activation: str = "relu",
        norm: bool = False,
    ):
        super().__init__()
        self.in_features, self.outputs = in_features, outputs
        widths = [in_features, *([hidden] if isinstance(hidden, int) else hidden)]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers.append(nn.Linear(before, after))
            if norm:
                layers.append(nn.LayerNorm(after))
            layers += [activation_named(activation), nn.Dropout(dropout)]
        if len(widths) == 1:
            layers.append(nn.Dropout(dropout))
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Output ``(P, outputs)`` of fused features ``x``."""
        return self.layers(x.flatten(2).mean(2) if x.ndim > 2 else x)


class DenseHead(Configurable):
    """A label map from features in space, enlarged step by step to the resolution of the volume or image.

    Args:
        in_features: channels F of the fused features.
        outputs: segmentation channels.
        stride: of the features, a power of two; equal to the encoder's, so that sides match the label map.
        hidden: channels between fusion and output.
        dropout: rate at which whole channels are left out before the last layer.
        dims: 3 for volumes, 2 for images.

    Shapes:
        ``(P, F, d, h, w)`` -> ``(P, outputs, d * stride, h * stride, w * stride)``; without the depth for images.

    Raises:
        MissingExtraError: when MONAI is not installed (``pip install 'lacunar[medical]'``).
    """

    def __init__(
        self, in_features: int, outputs: int, stride: int = 2, hidden: int = 32, dropout: float = 0.0, dims: int = 3
    ):
        super().__init__()
        if stride < 1 or stride & (stride - 1):
            raise ConfigError(f"DenseHead: stride is a power of two, got {stride}.")
        self.in_features, self.outputs, self.stride = in_features, outputs, stride
        layers: list[nn.Module] = [residual_unit(in_features, hidden, 1, dims)]
        width = hidden
        for _ in range(int(math.log2(stride))):
            narrower = max(8, width // 2)
            layers += [nn.Upsample(scale_factor=2, mode="nearest"), residual_unit(width, narrower, 1, dims)]
            width = narrower
        drop, last = (nn.Dropout3d, nn.Conv3d) if dims == 3 else (nn.Dropout2d, nn.Conv2d)
        self.layers = nn.Sequential(*layers, drop(dropout), last(width, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Output ``(P, outputs, D, H, W)`` of fused features ``x (P, F, d, h, w)``."""
        return self.layers(x)


def unimodal_head(head: nn.Module, in_features: int) -> nn.Module:
    """A new head of the same architecture that reads the features of one modality (Eq. 9).

    Works for every head that names its input width: lacunar's heads, ``nn.Linear``, convolutions, an ``nn.Sequential``
    of such layers, and any module of your own with a method ``resized(in_features) -> nn.Module``.

    Args:
        head: the model's head, which stays as it is.
        in_features: width C of one modality's features.

    Raises:
        ConfigError: when the head does not tell how to change its input width.
    """
    if hasattr(head, "resized"):
        return head.resized(in_features)  # type: ignore[operator]
    resized = _with_width(head, in_features)
    if resized is None:
        raise ConfigError(
            f"Cannot build a single-modality head like {type(head).__name__}: give the class a method "
            "resized(in_features) that returns a new head reading that many features."
        )
    return resized


def _with_width(module: nn.Module, width: int) -> nn.Module | None:
    """A fresh module with another input width; None when it does not name one."""
    if isinstance(module, nn.Sequential):
        return _sequential_with_width(module, width)
    if isinstance(module, Configurable):
        arguments = module.configuration()
        if "in_features" in arguments:
            return type(module)(**{**arguments, "in_features": width})
        return None
    if isinstance(module, nn.Linear):
        return nn.Linear(width, module.out_features, module.bias is not None)
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and module.groups == 1:
        names = set(inspect.signature(type(module).__init__).parameters) - {"self", "device", "dtype", "bias"}
        arguments = {name: getattr(module, name) for name in names}
        return type(module)(**{**arguments, "in_channels": width, "bias": module.bias is not None})
    return None


def _sequential_with_width(sequence: nn.Sequential, width: int) -> nn.Module | None:
    layers, changed = [], False
    for layer in sequence:
        if not changed:
            resized = _with_width(layer, width)
            if resized is not None:
                layers.append(resized)
                changed = True
                continue
            if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1:
                layers.append(nn.LayerNorm(width, layer.eps, layer.elementwise_affine, layer.bias is not None))
                continue
            if next(layer.parameters(), None) is not None or next(layer.buffers(), None) is not None:
                return None
        layers.append(_fresh(layer))
    return nn.Sequential(*layers) if changed else None


def _fresh(module: nn.Module) -> nn.Module:
    """A copy with newly drawn parameters where the module knows how to draw them."""
    fresh = copy.deepcopy(module)
    for part in fresh.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()
    return fresh
