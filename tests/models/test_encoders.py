"""The contract of every encoder, found by itself, and what is particular to each."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest
import torch
from torch import nn

from lacunar.errors import ConfigError, DataError
from lacunar.models import encoders
from lacunar.models.chain import Chain, takes_lengths
from lacunar.models.encoders import LSTM, MLP, Conv3dEncoder, ConvNet, LeNet, SoundNet, TextCNN
from lacunar.models.encoders._sequence import in_buckets
from lacunar.models.preprocessing import InputNoise

# Arguments and the shape of one sample; a leading None marks steps.
CASES = {
    "MLP": [((6, 5), {}, (6,)), ((6, 5), {"dropout": 0.5, "hidden": 8}, (6,)), (((2, 3), 5), {}, (2, 3))],
    "LSTM": [
        ((4, 5), {}, (None, 4)),
        ((4, 5), {"pooling": "mean", "layers": 2, "dropout": 0.3}, (None, 4)),
        ((4, 5), {"pooling": "last"}, (None, 4)),
        ((4, 5), {"vocabulary": 11}, (None,)),
    ],
    "TextCNN": [
        ((4, 5), {"dropout": 0.5}, (None, 4)),
        ((4, 5), {"kernel_sizes": (1, 2), "channels": 3}, (None, 4)),
        ((4, 5), {"vocabulary": 11}, (None,)),
    ],
    "LeNet": [(((1, 16, 18), 5), {}, (1, 16, 18)), (((2, 28, 28), None), {}, (2, 28, 28))],
    "SoundNet": [
        (((1, 20, 20), 5), {}, (1, 20, 20)),
        (((1, 20, 20), None), {}, (1, 20, 20)),
        (((1, 5, 9), 5), {"norm": "batch"}, (1, 5, 9)),
    ],
    "ConvNet": [((1, 5), {"widths": (4, 8)}, (1, 8, 7)), ((3, 5), {"widths": (4,), "dropout": 0.2}, (3, 1, 1))],
    "Conv3dEncoder": [
        ((1, 6), {"widths": (4, 6), "stride": 1}, (1, 4, 6, 8)),
        ((2, 6), {"widths": (4, 6, 8), "stride": 2}, (2, 8, 8, 8)),
        ((1, 6), {"widths": (4, 6), "stride": 2}, (1, 4, 4, 4)),
        ((1, 6), {"widths": (4, 6), "stride": 1, "pool": True}, (1, 4, 4, 4)),
    ],
}


def discovered() -> dict[str, type[nn.Module]]:
    found = {}
    for module in pkgutil.iter_modules(encoders.__path__):
        if module.name.startswith("_"):
            continue
        loaded = importlib.import_module(f"{encoders.__name__}.{module.name}")
        for name, kind in vars(loaded).items():
            if inspect.isclass(kind) and issubclass(kind, nn.Module) and kind.__module__ == loaded.__name__:
                found[name] = kind
    return found


def test_every_encoder_is_public_and_under_contract():
    assert set(discovered()) == set(encoders.__all__) == set(CASES)


PARAMETERS = [pytest.param(name, *case, id=f"{name}-{i}") for name in CASES for i, case in enumerate(CASES[name])]
ARGUMENTS = ("name", "args", "options", "shape")
contract = pytest.mark.parametrize(ARGUMENTS, PARAMETERS)
of_sequences = pytest.mark.parametrize(ARGUMENTS, [p for p in PARAMETERS if p.values[3][0] is None])


def make(name, args, options):
    torch.manual_seed(0)
    return discovered()[name](*args, **options)


def rows(count, shape, options, steps=9):
    """Random rows and, for sequences, lengths from 1 step to all."""
    generator = torch.Generator().manual_seed(1)
    if shape[0] is not None:
        return torch.randn(count, *shape, generator=generator), None
    lengths = torch.randint(1, steps + 1, (count,), generator=generator)
    lengths[:1] = steps
    if "vocabulary" in options:
        return torch.randint(options["vocabulary"], (count, steps), generator=generator), lengths
    return torch.randn(count, steps, *shape[1:], generator=generator), lengths


def call(encoder, x, lengths):
    return encoder(x) if lengths is None else encoder(x, lengths)


@contract
def test_no_row_gives_no_features_and_zero_gradients(name, args, options, shape):
    encoder = make(name, args, options)
    buffers = {key: value.clone() for key, value in encoder.named_buffers()}
    x, lengths = rows(0, shape, options)
    features = call(encoder, x, lengths)
    some = call(encoder, *rows(2, shape, options))
    assert features.shape == (0, *some.shape[1:])
    encoder = make(name, args, options)
    call(encoder, x, lengths).sum().backward()
    for key, parameter in encoder.named_parameters():
        assert parameter.grad is not None, f"{key} takes no part in the graph"
        assert not parameter.grad.any(), key
    for key, value in encoder.named_buffers():
        assert torch.equal(value, buffers[key]), f"{key} changed without data"


@contract
def test_one_row_trains(name, args, options, shape):
    encoder = make(name, args, options).train()
    features = call(encoder, *rows(1, shape, options))
    features.square().sum().backward()
    assert features.dtype == torch.float32
    assert features.shape[:2] == (1, encoder.out_features)
    gradients = [parameter.grad for parameter in encoder.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


@contract
def test_no_row_depends_on_its_mates_in_evaluation(name, args, options, shape):
    encoder = make(name, args, options).eval()
    x, lengths = rows(70, shape, options)
    together = call(encoder, x, lengths)
    for i in (0, 3, 69):
        alone = call(encoder, x[i : i + 1], None if lengths is None else lengths[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-5, atol=1e-5)
    assert (together[0] - together[3]).abs().max() > 1e-4, "two different rows must differ"


@of_sequences
@pytest.mark.parametrize("filler", [7.0, float("nan")])
def test_padding_changes_nothing(name, args, options, shape, filler):
    encoder = make(name, args, options).eval()
    x, lengths = rows(40, shape, options)
    expected = call(encoder, x, lengths)
    expected.square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in encoder.parameters()]
    encoder.zero_grad()
    longer = torch.cat([x, torch.zeros_like(x)], dim=1)
    outside = torch.arange(longer.shape[1]) >= lengths.unsqueeze(1)
    longer[outside] = 3 if "vocabulary" in options else filler
    padded = call(encoder, longer, lengths)
    padded.square().sum().backward()
    torch.testing.assert_close(padded, expected, rtol=1e-5, atol=1e-6)
    for parameter, gradient in zip(encoder.parameters(), gradients):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)


@of_sequences
def test_without_lengths_all_steps_are_real(name, args, options, shape):
    encoder = make(name, args, options).eval()
    x, _ = rows(5, shape, options)
    torch.testing.assert_close(encoder(x), encoder(x, torch.full((5,), x.shape[1])))


@contract
def test_every_parameter_is_used_and_repr_reads_well(name, args, options, shape):
    encoder = make(name, args, options).eval()
    features = call(encoder, *rows(30, shape, options))
    (features * torch.randn_like(features)).sum().backward()
    assert all(parameter.grad.any() for parameter in encoder.parameters())
    assert type(encoder).__name__ in repr(encoder)


@contract
def test_signature_tells_whether_lengths_are_taken(name, args, options, shape):
    assert takes_lengths(make(name, args, options)) == (shape[0] is None)


def test_lstm_equals_a_loop_over_unpadded_rows():
    encoder = LSTM(4, 5)
    x, lengths = rows(70, (None, 4), {})
    found = encoder(x, lengths)
    for i in (0, 1, 35, 69):
        states, _ = encoder.lstm(x[i : i + 1, : lengths[i]])
        torch.testing.assert_close(found[i], states[0].amax(0), rtol=1e-5, atol=1e-6)
    last = LSTM(4, 5, pooling="last")
    _, (state, _) = last.lstm(x[3:4, : lengths[3]])
    torch.testing.assert_close(last(x, lengths)[3], state[0, 0], rtol=1e-5, atol=1e-6)


def test_textcnn_equals_windows_taken_by_hand():
    encoder = TextCNN(4, 5, kernel_sizes=(2, 3)).eval()
    x, lengths = rows(40, (None, 4), {})
    found = encoder(x, lengths)
    for i in (0, 2, 39):
        real = x[i, : lengths[i]]
        pooled = []
        for convolution in encoder.convolutions:
            size = convolution.kernel_size[0]
            filled = torch.cat([real, torch.zeros(max(0, size - len(real)), 4)])
            windows = torch.stack([filled[t : t + size] for t in range(len(filled) - size + 1)])
            values = torch.einsum("wkf,cfk->wc", windows, convolution.weight) + convolution.bias
            pooled.append(values.amax(0).relu())
        expected = encoder.project(torch.cat(pooled)).relu()
        torch.testing.assert_close(found[i], expected, rtol=1e-5, atol=1e-6)


def test_buckets_see_short_rows_without_the_padding_of_long_ones():
    seen = []

    def run(x, lengths):
        seen.append(x.shape[1])
        return lengths.unsqueeze(1).float()

    lengths = torch.arange(1, 65)[torch.randperm(64, generator=torch.Generator().manual_seed(0))]
    found = in_buckets(run, torch.zeros(64, 80, 2), lengths)
    assert found.squeeze(1).tolist() == lengths.tolist()
    assert seen == [64, 48, 32, 16]


def test_protocol_widths():
    assert LeNet((1, 28, 28), None).out_features == 160
    assert SoundNet((1, 20, 20), None).out_features == 320


def test_batchnorm_of_the_protocol_keeps_its_statistics_without_rows():
    encoder = SoundNet((1, 20, 20), 5, norm="batch").train()
    encoder(torch.randn(4, 1, 20, 20))
    before = {key: value.clone() for key, value in encoder.named_buffers()}
    encoder(torch.randn(0, 1, 20, 20))
    after = dict(encoder.named_buffers())
    assert all(torch.equal(after[key], before[key]) and after[key].isfinite().all() for key in before)


def test_strides_of_the_volume_encoder():
    x = torch.randn(1, 1, 8, 8, 8)
    for stride in (1, 2, 4):
        assert Conv3dEncoder(1, 3, widths=(4, 4, 4), stride=stride)(x).shape == (1, 3, *[8 // stride] * 3)


def test_chain_hands_lengths_to_the_steps_that_take_them():
    encoder = Chain(InputNoise(0.5), LSTM(4, 5)).eval()
    x, lengths = rows(6, (None, 4), {})
    torch.testing.assert_close(encoder(x, lengths), encoder.steps[1](x, lengths))
    assert encoder.out_features == Chain(LSTM(4, 5), nn.Dropout(0.5)).out_features == 5
    with pytest.raises(ConfigError, match="out_features"):
        Chain(InputNoise()).out_features  # noqa: B018
    assert Chain(InputNoise(0.5), MLP(6, 3))(torch.randn(2, 6)).shape == (2, 3)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: LSTM(4, 5)(torch.zeros(2, 3, dtype=torch.int64)), DataError, "vocabulary="),
        (lambda: LSTM(4, 5)(torch.zeros(2, 3, 6)), DataError, r"\(n, T, 4\), got \(2, 3, 6\)"),
        (lambda: TextCNN(4, 5, vocabulary=3)(torch.tensor([[0, 7, 1]])), DataError, "vocabulary=8 or more"),
        (lambda: LSTM(4, 5, pooling="sum"), ConfigError, "'sum'"),
        (lambda: MLP(4, 5)(torch.zeros(2, 3)), DataError, r"4 numbers, got shape \(3,\)"),
        (lambda: MLP(4, 5, activation="swoosh"), ConfigError, "swoosh"),
        (lambda: LeNet((1, 8, 8), 5), ConfigError, "16 x 16"),
        (lambda: SoundNet((1, 4, 8), 5), ConfigError, "5 x 5"),
        (lambda: SoundNet((1, 20, 20), 5, norm="layer"), ConfigError, "'layer'"),
        (lambda: Conv3dEncoder(widths=(4, 4), stride=3), ConfigError, "strides 1, 2, got 3"),
        (lambda: Conv3dEncoder(widths=(4, 4))(torch.zeros(1, 1, 4, 4, 5)), DataError, "divide by 2"),
        (lambda: Chain(), ConfigError, "at least one module"),
        (lambda: ConvNet(1, 5)(torch.zeros(2, 3, 4, 4)), RuntimeError, "channels"),
    ],
)
def test_wrong_use_is_explained(build, error, message):
    with pytest.raises(error, match=message):
        build()
