import pytest
import torch
from torch import nn

from lacunar.data.arrays import from_arrays
from lacunar.errors import ConfigError
from lacunar.evaluation import evaluate
from lacunar.evaluation.sliding import SlidingWindow
from lacunar.models import ConcatFusion, MultimodalModel


def volumes(n=2, side=(12, 10, 9)):
    draw = torch.Generator().manual_seed(0)
    arrays = {name: torch.randn(n, 1, *side, generator=draw) for name in ("flair", "t1")}
    return from_arrays(arrays, (arrays["flair"][:, 0] + arrays["t1"][:, 0] > 0).long(), task="segmentation")


def local_model(data, kernel=1):
    """Reads each voxel (and its neighbours, for a larger kernel)."""
    torch.manual_seed(0)
    encoders = {name: nn.Conv3d(1, 4, kernel, padding=kernel // 2) for name in data.names}
    return MultimodalModel(encoders, None, ConcatFusion(4), nn.Conv3d(8, 2, 1), task=data.task).eval()


def test_windows_of_a_local_model_tile_the_volume():
    data = volumes()
    model = local_model(data)
    sliding = SlidingWindow(model, (6, 6, 6))
    batch = data.__getitems__([0, 1])
    pairs = data.lattice.pairs(batch.present)
    whole = model.predict_pairs(batch, pairs).log_softmax(1)
    torch.testing.assert_close(sliding.predict_pairs(batch, pairs), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sliding(batch), model(batch).log_softmax(1), rtol=1e-4, atol=1e-5)


def test_overlapping_windows_are_averaged():
    data = volumes(1)
    model = local_model(data, kernel=3)
    batch = data[0]
    apart = SlidingWindow(model, (6, 6, 6), overlap=0.0)(batch)
    together = SlidingWindow(model, (6, 6, 6), overlap=0.5)(batch)
    assert not torch.allclose(apart, together)
    torch.testing.assert_close(together.exp().sum(1), torch.ones(1, 12, 10, 9))


def test_the_table_of_a_sliding_window_is_that_of_the_model():
    data = volumes()
    model = local_model(data)
    sliding = evaluate(SlidingWindow(model, (6, 6, 6)), data, bootstrap=10)
    plain = evaluate(model, data, bootstrap=10)
    assert sliding.frame["score"].tolist() == pytest.approx(plain.frame["score"].tolist(), abs=1e-4)


def test_an_overlap_of_one_never_moves():
    data = volumes(1)
    with pytest.raises(ConfigError, match="fraction in \\[0, 1\\), got 1"):
        SlidingWindow(local_model(data), (6, 6, 6), overlap=1)
