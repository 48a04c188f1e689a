"""A sensible model from the shapes of the data and the task."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from lacunar.arguments import at_least, checked
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.part import one_part
from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.models.chain import Chain, takes_lengths
from lacunar.models.completion import TokenTransformer
from lacunar.models.encoders import LSTM, MLP, Conv3dEncoder, ConvNet, TextCNN
from lacunar.models.fusions import ConcatFusion
from lacunar.models.heads import DenseHead, MLPHead
from lacunar.models.multimodal import MultimodalModel
from lacunar.models.preprocessing import InputNoise, Standardize
from lacunar.models.rescale import Rescale
from lacunar.tasks import Regression

__all__ = ["default_model"]

#: Every byte of a text is a token.
BYTES = 256


@checked
def default_model(
    data: MultimodalDataset,
    features: int | None = None,
    dropout: float = 0.4,
    noise: float = 0.3,
    encoders: Mapping[str, nn.Module] | None = None,
) -> MultimodalModel:
    """Encoders by kind of modality, a completion transformer, concatenation and a two-layer head.

    Vectors get an MLP, sequences an LSTM, tokens a TextCNN, images a small convolutional network, volumes a
    3-D one; what is not tokens is standardised by the statistics of ``data`` first. For label maps images and volumes
    get a small U-Net.

    Args:
        data: the train split; statistics and shapes are read from it.
        features: width C of every modality's features; 64, or 16 channels for label maps, when left out.
        dropout: of encoders, completion and head.
        noise: standard deviation of the noise on standardised inputs in training.
        encoders: your own encoders for some of the modalities; each must return ``features`` features.

    Raises:
        DataError: when the data have no target, or a modality is never present.
        ConfigError: for unknown modalities in ``encoders``; for label maps of what has no places.
    """
    data = one_part(data, "default_model", "data.train")
    if data.task is None or data.target is None:
        raise DataError(f"default_model needs a target to know the task, and {data.name!r} has none.")
    at_least(1, features=features)
    at_least(0, noise=noise)
    if not 0 <= dropout < 1:
        raise ConfigError(f"default_model: dropout: expected a share in [0, 1), got {dropout!r}.")
    if not isinstance(encoders or {}, Mapping):
        raise ConfigError(f"default_model: encoders: expected a mapping from modalities to modules, got {encoders!r}.")
    for name in encoders or {}:
        if name not in data.names:
            raise ConfigError(f"default_model: unknown modality {name!r}.{did_you_mean(name, data.names)}")
    dense = data.task.kind == "segmentation"
    if dense:
        _check_maps(data, encoders or {})
    given = dict(encoders or {})
    if features is None:
        features = _width_of(given, data) or (16 if dense else 64)
    chosen = {
        name: _encoder(data, name, features, dropout, noise, dense) if given.get(name) is None else given[name]
        for name in data.names
    }
    M = len(data.names)
    if dense:
        head: nn.Module = DenseHead(M * features, data.task.n_outputs, dims=data.target.ndim - 1)
    else:
        head = MLPHead(M * features, data.task.n_outputs, (2 * features,), dropout, "gelu", norm=True)
    if isinstance(data.task, Regression):
        target = data.target.reshape(len(data), -1).double()
        spread = target.std(0, correction=0)
        head = nn.Sequential(head, Rescale(target.mean(0).tolist(), torch.where(spread > 0, spread, 1.0).tolist()))
    completion = TokenTransformer(features, heads=4, hidden=2 * features, dropout=0.1 if dense else dropout)
    return MultimodalModel(chosen, completion, ConcatFusion(features), head, task=data.task)


def _encoder(data: MultimodalDataset, name: str, features: int, dropout: float, noise: float, dense: bool) -> nn.Module:
    kind, shape = data.kinds[name], data.shapes[name]
    if kind == "tokens":
        largest = max(int(batch.inputs[name].max()) for batch in data.only([name]).batches(512))
        return TextCNN(32, features, dropout=dropout, vocabulary=max(BYTES, largest + 1))
    scale = Standardize.fit(data, name)
    if kind == "vector":
        return Chain(scale, InputNoise(noise), MLP(shape[0], features, 2 * features, dropout))
    if kind == "sequence":
        return Chain(scale, InputNoise(noise), LSTM(shape[0], features), nn.Dropout(dropout))
    if dense:
        return Chain(scale, Conv3dEncoder(shape[0], features, dims=len(shape) - 1))
    if kind == "image":
        return Chain(scale, ConvNet(shape[0], features, dropout=dropout))
    return Chain(scale, Conv3dEncoder(shape[0], features, pool=True))


def _check_maps(data: MultimodalDataset, encoders: Mapping[str, nn.Module]) -> None:
    assert data.target is not None
    kind = {2: "image", 3: "volume"}.get(data.target.ndim - 1)
    for name in data.names:
        if name not in encoders and data.kinds[name] != kind:
            raise ConfigError(
                f"default_model: label maps of {kind or 'this shape'}s come from modalities of the same kind, and "
                f"{name!r} is a {data.kinds[name]}. Give an encoder for it, encoders={{{name!r}: ...}}, that returns "
                "features in space, or leave it out with data.only(...)."
            )


def _width_of(encoders: Mapping[str, nn.Module], data: MultimodalDataset) -> int | None:
    """Width of the features that given encoders return, from one sample; None without encoders."""
    widths = {}
    for name, encoder in encoders.items():
        row = data.only([name])[0]
        training = encoder.training
        lengths = [row.lengths[name]] if name in row.lengths and takes_lengths(encoder) else []
        with torch.no_grad():
            made = encoder.eval()(row.inputs[name], *lengths)
        encoder.train(training)
        widths[name] = made.shape[1]
    if len(set(widths.values())) > 1:
        raise ConfigError(f"default_model: encoders must return equally many features, got {widths}.")
    return next(iter(widths.values()), None)
