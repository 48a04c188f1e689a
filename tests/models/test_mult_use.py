"""The multimodal transformer in use: trained, evaluated, saved, on odd data and on real data."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.helpers import first_batch, fixed_references
from torch import nn

import lacunar as lc
from lacunar.data.batch import Batch
from lacunar.datasets.unaligned import unaligned
from lacunar.errors import ConfigError, DataError
from lacunar.generation import Completed, MeanCompleter
from lacunar.lattice import Pairs
from lacunar.models.mult import MulT

SMALL = {"width": 8, "heads": 2, "layers": 1, "self_layers": 1}


def small(data, seed=0, **options):
    torch.manual_seed(seed)
    return MulT.for_data(data, **{**SMALL, **options}).eval()


def mixed(n=24, missing=0.3, seed=0):
    """A sequence, a text, a vector and an image, with gaps."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    modalities = {
        "sound": [rng.normal(size=(rng.integers(2, 9), 4)) + label for label in y],
        "text": [rng.integers(0, 9, size=rng.integers(1, 7)) for _ in y],
        "blood.test": rng.normal(size=(n, 5)),
        "image": rng.normal(size=(n, 2, 4, 6)),
    }
    present = rng.random((n, 4)) >= missing
    present[~present.any(1), 0] = True
    return lc.from_arrays(modalities, y, present=present, kinds={"text": "tokens", "image": "image"})


# ------------------------------------------------------------------------------------------- in use


def test_thirty_two_samples_can_be_learnt():
    data = unaligned(M=2, n=32, steps=(4, 7), target="sentiment")
    torch.manual_seed(0)
    quiet = dict.fromkeys(("dropout", "attention_dropout", "embedding_dropout", "head_dropout"), 0.0)
    model = MulT.for_data(data, width=16, heads=4, layers=1, self_layers=1, **quiet)
    batch = first_batch(data)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=90)
    for _ in range(90):
        optimizer.zero_grad()
        (model(batch).squeeze(1) - batch.target).abs().mean().backward()
        optimizer.step()
        schedule.step()
    assert (model.eval()(batch).squeeze(1) - batch.target).abs().mean() < 0.05


@pytest.fixture(scope="module")
def splits():
    return unaligned(M=3, n=60, steps=(4, 7, 5), missing=0.3).split(train=0.6, val=0.2, test=0.2, seed=0)


@pytest.mark.parametrize("method", ["Joint", "ModalityDropout", "MCE", "MCE with completion"])
def test_it_is_trained_evaluated_saved_and_loaded(method, splits, tmp_path):
    objective = {
        "Joint": lc.Joint,
        "ModalityDropout": lc.ModalityDropout,
        "MCE": lambda: lc.MCE(completion=0, references=fixed_references(splits.train)),
        "MCE with completion": lambda: lc.MCE(references=fixed_references(splits.train), memory=1.0),
    }[method]()
    model = small(splits.train, missing="generate" if method == "MCE with completion" else "drop")
    run = lc.fit(splits, model, objective, max_epochs=2, batch_size=18, experts=False, progress=False)
    table = lc.evaluate(run.model, splits.test)
    assert len(table.frame) == 7 + ("none" in table.frame.index)
    assert np.isfinite(table.frame["score"] if "score" in table.frame else table.frame["accuracy"]).all()
    lc.save(run.model, tmp_path / "model")
    again = lc.load(tmp_path / "model")
    batch = first_batch(splits.test)
    assert type(again) is MulT
    assert torch.equal(again(batch), run.model(batch))
    assert again.configuration().keys() == run.model.configuration().keys()


def test_every_kind_and_option_survives_saving(tmp_path):
    data = mixed(n=12)
    torch.manual_seed(0)
    own = nn.Sequential(nn.Flatten(), nn.Linear(5, 8), nn.ReLU())
    model = MulT.for_data(
        data, **SMALL, kernel={"sound": 5}, attention_dropout={"text": 0.2}, causal=True, missing="mean",
        patch={"image": (2, 3)}, legacy_readout=True, encoders={"blood.test": own}, input_dropout=0.1,
    ).eval()  # fmt: skip
    model.usual.normal_()
    lc.save(model, tmp_path / "model")
    again = lc.load(tmp_path / "model")
    assert torch.equal(again(first_batch(data)), model(first_batch(data)))
    assert model.encode(first_batch(data)).tokens["image"].shape[1] == 4
    assert repr(again) == repr(model)


def test_a_completer_inside_fills_one_token_for_each_absent_modality(splits):
    model = small(splits.train)
    completer = MeanCompleter().fit(splits.train, model)
    batch = first_batch(splits.test)
    pairs = model.lattice.pairs(batch.present)
    found = Completed(model, completer).predict_pairs(batch, pairs, chunk=10)
    features = model.encode(batch)
    for i, (row, code) in enumerate(zip(pairs.rows.tolist(), pairs.codes.tolist())):
        inside = model.lattice.decode(torch.tensor([code]))
        cut = features.take(torch.tensor([row]), inside)
        filled = replace(cut, h=completer.complete_features(cut).h)
        wanted = model.predict(filled, Pairs(torch.zeros(1, dtype=torch.int64), torch.tensor([7])))
        torch.testing.assert_close(found[i], wanted[0], rtol=1e-4, atol=1e-5)
        # What is observed is still read as the sequence that it is.
        assert torch.equal(filled.slot >= 0, inside & batch.present[row])


def test_mixed_precision():
    data = mixed(n=8)
    for missing in ("drop", "mean"):
        model = small(data, missing=missing).train()
        with torch.autocast("cpu", torch.bfloat16):
            output = model.predict_pairs(first_batch(data), data.lattice.pairs(data.present), chunk=20)
        output.float().square().sum().backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_encoders_in_space_give_a_token_for_each_place():
    data = mixed(n=8, missing=0.0).only(["image", "text"])
    model = small(data, encoders={"image": nn.Conv2d(2, 8, 3, padding=1)})
    features = model.encode(first_batch(data))
    assert features.tokens["image"].shape == (8, 24, 8)
    assert (features.lengths["image"] == 24).all()
    with pytest.raises(ConfigError, match="makes tokens of width 5, expected 8"):
        small(data, encoders={"image": nn.Conv2d(2, 5, 3)}).encode(first_batch(data))


def test_width_match_keeps_the_streams_as_wide():
    whole, part = unaligned(M=4, n=8), unaligned(M=2, n=8)
    full = MulT.for_data(whole, width=8, heads=2)
    assert (
        MulT.for_data(part, width=8, heads=2, width_match=4).fusion.within[0].width == full.fusion.within[0].width == 24
    )
    assert MulT.for_data(part, width=8, heads=2).fusion.within[0].width == 8


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"missing": "dorp"}, ConfigError, "unknown missing='dorp'.*'drop'"),
        ({"width": 10, "heads": 4}, ConfigError, "width that is a multiple of the heads, got width=10, heads=4"),
        ({"layers": 0}, ConfigError, "at least one layer"),
        ({"kernel": {"m9": 3}}, ConfigError, "kernel of unknown modality 'm9'"),
        ({"kernel": 0}, ConfigError, "expected a number of steps from 1, got 0"),
    ],
)
def test_options_that_do_not_fit(options, error, message):
    with pytest.raises(error, match=message):
        MulT.for_data(unaligned(M=2, n=6), **options)


def test_data_that_do_not_fit(splits):
    data = unaligned(M=2, n=6)
    with pytest.raises(DataError, match="got all splits: pass data.train"):
        MulT.for_data(splits)
    with pytest.raises(DataError, match="needs a target"):
        MulT.for_data(data.with_task(None, None))
    maps = lc.from_arrays(
        {"scan": np.zeros((4, 1, 3, 3))}, np.eye(3, dtype=int)[None].repeat(4, 0), task="segmentation"
    )
    with pytest.raises(ConfigError, match="makes no label maps"):
        MulT.for_data(maps)
    with pytest.raises(ConfigError, match="not a volume: give encoders"):
        MulT({"scan": {"kind": "volume", "shape": [1, 4, 4, 4]}}, 2)
    with pytest.raises(ConfigError, match="patches of \\(3, 3\\) do not divide images of \\(4, 6\\)"):
        MulT({"image": {"kind": "image", "shape": [1, 4, 6]}}, 2, patch={"image": (3, 3)})
    with pytest.raises(ConfigError, match="tokens need vocabulary"):
        MulT({"text": {"kind": "tokens", "shape": []}}, 2)
    with pytest.raises(ConfigError, match="legacy_readout needs steps"):
        MulT({"sound": {"kind": "sequence", "shape": [3]}}, 2, legacy_readout=True)
    model = small(data)
    with pytest.raises(DataError, match="Modality 'm0': the model was trained on sequence samples of shape \\(6,\\)"):
        model(first_batch(unaligned(M=2, n=6, dims=(5, 3))))
    with pytest.raises(DataError, match="built for the modalities"):
        model(first_batch(unaligned(M=3, n=6)))
    texts = lc.from_arrays({"text": ["abc", "b"]}, [0, 1])
    with pytest.raises(DataError, match="Expected tokens from 0 to 99"):
        small(texts)(Batch({"text": torch.tensor([[150]])}, torch.ones(1, 1, dtype=torch.bool), None,
                           torch.zeros(1, dtype=torch.int64), {"text": torch.tensor([1])}))  # fmt: skip


# ------------------------------------------------------------------------------------------- real data

real = [
    pytest.mark.data,
    pytest.mark.skipif(not os.environ.get("LACUNAR_DATA"), reason="LACUNAR_DATA names no folder of real data sets"),
]


def usable(data, **options):
    """Train a little; every subset predicts, alone or among others."""
    model = small(data, **options).train()
    batch, pairs = first_batch(data), data.lattice.pairs(data.present)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for epoch in range(12):
        torch.manual_seed(epoch)
        optimizer.zero_grad()
        output = model.predict(model.encode(batch), pairs)
        loss = data.task.loss(output, batch.target[pairs.rows]).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    model.eval()
    with torch.no_grad():
        outputs = model.predict(model.encode(batch), pairs)
        for i in range(0, len(pairs.rows), 5):
            alone = model(data[int(pairs.rows[i])].hide(data.lattice.subset(int(pairs.codes[i]))))[0]
            torch.testing.assert_close(alone, outputs[i], rtol=1e-4, atol=1e-5)
    return losses


@pytest.mark.parametrize("_", [pytest.param(0, marks=real)])
def test_spoken_digits_as_frames_beside_images(_):
    from lacunar.data.audio import mfcc
    from lacunar.data.readers import get_reader
    from lacunar.datasets.avmnist import avmnist

    folder = Path(os.environ["LACUNAR_DATA"]) / "avmnist/fsdd/recordings"
    read = get_reader("wav", rate=8000)
    images = first_batch(avmnist().train.select(range(0, 920, 23))).inputs["image"].numpy()
    names = [f"{digit}_{who}_{take}" for digit in range(10) for who in ("theo", "jackson") for take in (20, 21)]
    frames = [mfcc(read(folder / f"{name}.wav").numpy(), 8000, 20, n_fft=512, hop=256, n_mels=40) for name in names]
    sound = [np.asarray(frame) for frame in frames]
    assert len({len(frame) for frame in sound}) > 5
    sound[3] = None
    labels = [int(name[0]) for name in names]
    data = lc.from_arrays({"sound": sound, "image": images}, labels, kinds={"sound": "sequence"})
    losses = usable(data, patch={"image": (7, 7)}, kernel=3)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("_", [pytest.param(0, marks=real)])
def test_transcripts_beside_utterance_vectors(_):
    data = lc.datasets.load("mosi", text="transcript").train.select(range(24))
    assert data.kinds["text"] == "tokens"
    keep = np.ones((24, 3), dtype=bool)
    keep[::4, 0] = False
    losses = usable(data.hide(keep), kernel=5)
    assert losses[-1] < 0.95 * losses[0]
