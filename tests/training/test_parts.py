"""The parts of training, one by one."""

from __future__ import annotations

import json
import os
from itertools import chain

import pytest
import torch
from torch import nn

from lacunar.errors import RunError
from lacunar.lattice import Lattice
from lacunar.models.completion import TokenTransformer
from lacunar.training.averaging import AveragedWeights
from lacunar.training.files import discard_leftovers, write_whole
from lacunar.training.folder import describe_data, describe_module, differences, fingerprint
from lacunar.training.log import RunLog, read_lines
from lacunar.training.module import parameter_groups
from lacunar.training.options import default_batch_size
from lacunar.training.progress import wanted
from lacunar.training.sampler import GlobalBatches, derive_seed
from lacunar.training.validation import Validator, validation_codes
from tests.helpers import small_model, vectors


@pytest.mark.parametrize(("count", "size"), [(1, 8), (8, 8), (9, 8), (63, 16), (100, 1), (5, 100)])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_every_sample_once_and_the_same_steps_everywhere(count, size, world):
    whole = list(GlobalBatches(count, size, seed=3, epoch=2))
    shares = [list(GlobalBatches(count, size, 3, 2, rank, world)) for rank in range(world)]
    assert sorted(chain(*whole)) == list(range(count))
    assert len(whole) == len(GlobalBatches(count, size)) == -(-count // size)
    assert max(map(len, whole)) <= size
    assert max(map(len, whole)) - min(map(len, whole)) <= 1
    assert all(len(batches) == len(whole) for batches in shares)
    for step, batch in enumerate(whole):
        assert [rows[step] for rows in shares] == [batch[rank::world] for rank in range(world)]


def test_order_is_a_function_of_seed_and_epoch():
    def order(**position):
        return list(GlobalBatches(50, 8, **position))

    first = order(seed=1, epoch=4)
    torch.manual_seed(123)
    assert first == order(seed=1, epoch=4)
    assert first != order(seed=1, epoch=5)
    assert first != order(seed=2, epoch=4)
    assert list(chain(*GlobalBatches(10, 4, shuffle=False))) == list(range(10))


def test_derived_seeds_do_not_coincide():
    found = {derive_seed(seed, "step", epoch, step) for seed in range(5) for epoch in range(10) for step in range(10)}
    found |= {derive_seed(seed, "order", epoch) for seed in range(5) for epoch in range(10)}
    assert len(found) == 550
    assert derive_seed(0, "step", 1, 2) == derive_seed(0, "step", 1, 2)


@pytest.mark.parametrize("M", [1, 2, 4])
def test_validation_equals_a_loop_over_subsets(M):
    data = vectors(M=M, n=40, strength=0.7)
    model = small_model(data)
    model.head = nn.Sequential(nn.Dropout(0.9), model.head)
    model.train()
    found = Validator(data, batch_size=7)(model)
    assert model.training
    assert model.head[0].training
    model.eval()
    scores, losses = {}, {}
    for code in range(1, 2**M):
        subset = data.lattice.subset(code)
        have = [i for i, row in enumerate(data.present.tolist()) if all(row[data.names.index(m)] for m in subset)]
        if not have:
            continue
        batch = data.__getitems__(have).hide(subset)
        with torch.no_grad():
            output = model(batch)
        scores[data.lattice.label(code)] = float(data.task.score(output, batch.target).double().mean())
        losses[code] = float(data.task.loss(output, batch.target, smoothing=0.0).double().mean())
    assert found.scores == pytest.approx(scores)
    assert found.score == pytest.approx(sum(scores.values()) / len(scores))
    assert found.loss == pytest.approx(sum(losses.values()) / len(losses), rel=1e-5)


def test_any_predictor_can_be_validated():
    data = vectors(M=2, n=20)
    model = small_model(data)

    class Other(nn.Module):
        def predict_pairs(self, batch, pairs, chunk=None):
            return model.predict_pairs(batch, pairs)

    assert Validator(data)(Other()) == Validator(data)(model.eval())


def test_many_modalities_are_validated_on_a_fixed_choice():
    lattice = Lattice([f"m{m}" for m in range(9)])
    codes = validation_codes(lattice, 0)
    assert torch.equal(codes, validation_codes(lattice, 0))
    assert len(codes) == 63 == len(codes.unique())
    assert {511, *(1 << m for m in range(9)), *(511 ^ (1 << m) for m in range(9))} <= set(codes.tolist())
    data = vectors(M=9, n=30)
    validator = Validator(data)
    pairs = validator.pairs(data.present)
    allowed = set(validator.codes.tolist())
    every = [(r, c) for r, c in zip(*(x.tolist() for x in data.lattice.pairs(data.present))) if c in allowed]
    assert sorted(zip(pairs.rows.tolist(), pairs.codes.tolist())) == sorted(every)


def test_the_log_names_what_it_holds_and_cuts_back_to_an_offset(tmp_path):
    def steps(log, first, last):
        for step in range(first, last):
            terms = {"task": torch.tensor(0.1 + step), "single": torch.tensor(0.2)}
            log.step(
                0, step, 4, 0.1, terms, {"B": torch.tensor([0.5, 0.25]), "odd": torch.ones(3), "one": torch.tensor(1.0)}
            )

    log = RunLog(("image", "text"), tmp_path)
    steps(log, 0, 100)
    line = log.epoch({"epoch": 0}, {"val/score": 0.5}, {"seconds": 1.0})
    offsets = log.sync()
    whole = (tmp_path / "log.jsonl").read_bytes()
    steps(log, 100, 170)
    log.close()
    assert (tmp_path / "log.jsonl").stat().st_size > offsets["log"] == len(whole)
    lines = read_lines(tmp_path / "log.jsonl")
    assert lines[3] == {
        "kind": "step", "epoch": 0, "step": 3, "lr": 0.1, "samples": 4, "loss": 3.3, "loss/task": 3.1,
        "loss/single": 0.2, "B/image": 0.5, "B/text": 0.25, "odd/0": 1.0, "odd/1": 1.0, "odd/2": 1.0, "one": 1.0,
    }  # fmt: skip
    assert line["loss/task"] == pytest.approx(0.1 + 99 / 2)
    assert lines[100] == line
    again = RunLog(("image", "text"), tmp_path, offsets=offsets)
    again.close()
    assert (tmp_path / "log.jsonl").read_bytes() == whole
    with pytest.raises(RunError, match="shorter"):
        RunLog(("image", "text"), tmp_path, offsets={"log": 10**6, "times": 0})


def test_a_line_cut_off_in_writing_is_left_out_and_a_damaged_one_refused(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"kind": "step"}\n{"kind": "st')
    assert read_lines(path) == [{"kind": "step"}]
    path.write_bytes(b'{"kind": "st\n{"kind": "step"}\n')
    with pytest.raises(RunError, match="line 1"):
        read_lines(path)


def test_files_are_whole_or_not_there(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_whole(path, fail)
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_bytes() == b"old"
    (tmp_path / ".file.123.unfinished").write_bytes(b"left by a kill")
    discard_leftovers(tmp_path)
    write_whole(path, lambda file: file.write(b"new"))
    assert (os.listdir(tmp_path), path.read_bytes()) == (["file"], b"new")


def test_differences_name_the_place():
    stored = {"lr": 0.1, "train": {"samples": 3, "observed": {"a": 2}}, "model": ["A()", "x: B(p=1)"], "seed": 0}
    asked = {
        "lr": 0.2,
        "train": {"samples": 3, "observed": {"a": 1}},
        "model": ["A()", "x: B(p=2)"],
        "seed": 0,
        "new": 1,
    }
    assert differences(stored, stored) == []
    assert differences(stored, json.loads(json.dumps(asked))) == [
        "lr: the folder has 0.1, this call has 0.2",
        "train.observed.a: the folder has 2, this call has 1",
        "model: the folder has x: B(p=1), this call has x: B(p=2)",
        "new: the folder has 'nothing', this call has 1",
    ]
    assert fingerprint(stored) != fingerprint(asked)


def test_descriptions_notice_every_change():
    data = vectors(M=2, n=20, seed=1)
    assert describe_data(data) == describe_data(vectors(M=2, n=20, seed=1))
    hashes = {describe_data(part)["hash"] for part in (data, vectors(M=2, n=20, seed=2), data.select(range(19)))}
    assert len(hashes) == 3
    layers = [nn.Dropout(0.1), nn.Dropout(0.2), nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(2, 3, bias=False)]
    assert len({str(describe_module(nn.Sequential(layer))) for layer in layers}) == len(layers)
    assert describe_module(nn.Linear(2, 3)) == describe_module(nn.Linear(2, 3).eval())


def test_norms_biases_and_positions_do_not_decay():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(3, 4), nn.LayerNorm((2, 4))
            self.position = nn.Parameter(torch.zeros(2, 4))
            self.tied, self.frozen = self.linear, nn.Linear(2, 2).requires_grad_(False)

    model = Model()
    groups = parameter_groups((model, model.linear), 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {group["weight_decay"]: [names[id(parameter)] for parameter in group["params"]] for group in groups}
    assert found == {0.1: ["linear.weight"], 0.0: ["position", "linear.bias", "norm.weight", "norm.bias"]}


def test_positions_of_a_completion_have_weight_decay():
    completion = TokenTransformer(4).bind(["a", "b"])
    decayed = parameter_groups([completion], 0.1)[0]
    assert decayed["weight_decay"] == 0.1
    assert any(parameter is completion.pos for parameter in decayed["params"]), "as its docstring says"


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_weights_are_averaged_in_single_precision_at_least(kind):
    weight = nn.Parameter(torch.zeros(3, dtype=kind))
    averaged = AveragedWeights([weight], 0.99)
    averaged.start()
    averaged.updates = 10**6  # the decay is what was asked for
    weight.data.fill_(1.0)
    for _ in range(300):
        averaged.update()
    with averaged.applied():
        assert weight.dtype == kind
        assert weight.tolist() == pytest.approx([1 - 0.99**300] * 3, rel=0.01)
    assert torch.equal(weight.detach(), torch.ones(3, dtype=kind))
    again = AveragedWeights([weight], 0.99)
    again.load_state_dict(averaged.state_dict())
    again.start()
    assert torch.equal(again.average[0], averaged.average[0])


def test_defaults_and_silence(monkeypatch):
    sizes = [default_batch_size(n) for n in (1, 100, 1000, 10**6)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (16, 128)
    monkeypatch.setenv("LACUNAR_PROGRESS", "none")
    assert not wanted(True)
    monkeypatch.delenv("LACUNAR_PROGRESS")
    assert wanted(True)
    assert not wanted(False)
