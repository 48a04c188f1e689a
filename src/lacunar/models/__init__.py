"""Models: encoders, completion, fusion and head, and how to save them."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "AttentionFusion": "fusions",
    "Chain": "chain",
    "ConcatFusion": "fusions",
    "Configurable": "configurable",
    "Conv3dEncoder": "encoders",
    "ConvNet": "encoders",
    "DenseHead": "heads",
    "Features": "multimodal",
    "InputNoise": "preprocessing",
    "LSTM": "encoders",
    "LeNet": "encoders",
    "MLP": "encoders",
    "MLPHead": "heads",
    "MeanFusion": "fusions",
    "MulT": "mult",
    "MultimodalModel": "multimodal",
    "SoundNet": "encoders",
    "Standardize": "preprocessing",
    "SubsetOutput": "multimodal",
    "TextCNN": "encoders",
    "TokenTransformer": "completion",
    "default_model": "defaults",
    "load_model": "saving",
    "read_config": "saving",
    "save_model": "saving",
    "unimodal_head": "heads",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    # Names are looked up when they are asked for: importing lacunar must not import torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
