import numpy as np
import pytest
import torch
from tests.helpers import first_batch
from torch import nn

from lacunar.data.arrays import from_arrays
from lacunar.errors import ConfigError, DataError
from lacunar.models.chain import Chain, takes_lengths
from lacunar.models.defaults import default_model

DRAW = np.random.default_rng(0)
N = 12
KINDS = {
    "vector": DRAW.normal(size=(N, 5)),
    "image": DRAW.normal(size=(N, 3, 16, 16)),
    "sequence": [DRAW.normal(size=(int(k), 4)) for k in DRAW.integers(2, 9, N)],
    "tokens": ["one", "zwei", "trois", "quattro"] * 3,
    "volume": DRAW.normal(size=(N, 1, 8, 8, 8)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_modality_has_an_encoder(kind):
    data = from_arrays({"a": KINDS[kind], "b": KINDS["vector"]}, np.arange(N) % 3)
    assert data.kinds["a"] == kind
    model = default_model(data)
    output = model(first_batch(data))
    assert output.shape == (N, 3)
    output.sum().backward()
    assert torch.isfinite(output).all()


def test_regression_starts_in_the_units_of_the_target():
    data = from_arrays({"a": KINDS["vector"]}, 1000 + 5 * DRAW.normal(size=N))
    output = default_model(data).eval()(first_batch(data))
    assert output.shape == (N, 1)
    assert (output - 1000).abs().max() < 50


def test_label_maps_have_the_size_of_the_volume():
    data = from_arrays({"a": KINDS["volume"]}, DRAW.integers(0, 2, (N, 8, 8, 8)), task="segmentation")
    assert default_model(data)(first_batch(data)).shape == (N, 2, 8, 8, 8)


def test_own_encoders_set_the_width():
    data = from_arrays({"a": KINDS["vector"], "b": KINDS["vector"]}, np.arange(N) % 3)
    model = default_model(data, encoders={"a": nn.Linear(5, 24)})
    assert model.encode(first_batch(data)).h.shape == (N, 2, 24)
    with pytest.raises(ConfigError, match="equally many features, got"):
        default_model(data, encoders={"a": nn.Linear(5, 24), "b": nn.Linear(5, 8)})


class Plain(nn.Module):
    def forward(self, x):
        return x.mean(1).repeat(1, 2)


class KeywordOnly(Plain):
    def forward(self, x, *, lengths=None):
        return super().forward(x)


class AnyKeyword(Plain):
    def forward(self, x, **options):
        return super().forward(x)


@pytest.mark.parametrize("encoder", [Plain(), KeywordOnly(), AnyKeyword()], ids=lambda encoder: type(encoder).__name__)
def test_sequence_encoders_that_take_no_lengths_by_position_are_given_none(encoder):
    data = from_arrays({"a": KINDS["sequence"], "b": KINDS["vector"]}, np.arange(N) % 3)
    assert default_model(data, encoders={"a": encoder})(first_batch(data)).shape == (N, 3)


def test_lengths_go_to_what_accepts_a_second_argument():
    class Steps(nn.Module):
        def forward(self, x, lengths):
            return lengths[:, None].float().repeat(1, 8)

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Steps()

        def forward(self, *given):
            return self.inner(*given)

    data = from_arrays({"a": KINDS["sequence"]}, np.arange(N) % 3)
    batch = first_batch(data)
    for encoder in (Steps(), Wrapped(), Chain(Wrapped())):
        model = default_model(data, encoders={"a": encoder})
        assert torch.equal(model.encode(batch).h[:, 0, 0], batch.lengths["a"].float())
    assert takes_lengths(torch.compile(Steps(), backend="eager"))
    assert not takes_lengths(torch.compile(Plain(), backend="eager"))


def test_what_it_refuses():
    data = from_arrays({"audio": KINDS["vector"]}, np.arange(N) % 3)
    with pytest.raises(ConfigError, match="unknown modality 'audoi'. Did you mean 'audio'"):
        default_model(data, encoders={"audoi": nn.Linear(5, 8)})
    with pytest.raises(DataError, match="needs a target"):
        default_model(from_arrays({"audio": KINDS["vector"]}))


def test_label_maps_of_images_are_trained_and_scored_end_to_end():
    import lacunar as lc

    target = DRAW.integers(0, 2, (N, 8, 12))
    views = {name: target[:, None] + DRAW.normal(size=(N, 1, 8, 12)) for name in ("a", "b")}
    present = np.array([[True, True], [True, False], [False, True]] * 4)
    data = from_arrays(views, target, present=present, task="segmentation")
    assert default_model(data)(first_batch(data)).shape == (N, 2, 8, 12)
    splits = data.split(train=0.5, val=0.25, test=0.25, seed=0)
    run = lc.fit(splits, default_model(splits.train), lc.MCE(capability=False), max_epochs=1, progress=False)
    table = lc.evaluate(run.model, splits.val, bootstrap=10)
    assert table.frame["score"].between(0, 1).all()
    mixed = from_arrays({"a": views["a"], "b": KINDS["vector"]}, target, task="segmentation")
    with pytest.raises(
        ConfigError, match="label maps of images come from modalities of the same kind, and 'b' is a vector"
    ):
        default_model(mixed)


def test_no_prediction_depends_on_batch_mates_and_every_subset_of_a_row_is_finite():
    present = DRAW.random((N, len(KINDS))) < 0.7
    present[0], present[~present.any(1), 0] = True, True
    data = from_arrays(KINDS, np.arange(N) % 3, present=present)
    model = default_model(data).eval()
    with torch.no_grad():
        together = model(first_batch(data))
        assert len(together) == N
        for n in range(N):
            torch.testing.assert_close(model(data[n])[0], together[n], rtol=1e-4, atol=1e-5)
        for code in model.lattice.subsets:
            alone = model(data[0].hide(model.lattice.subset(code)))
            assert alone.shape == (1, 3)
            assert torch.isfinite(alone).all()
