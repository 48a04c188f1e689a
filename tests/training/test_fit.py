"""``fit`` in one process: seeds, selection, refusals, precision, nothing written that was not asked for."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import warnings

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

import lacunar.training.fit as fit_module
from lacunar.data.arrays import from_arrays
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError, DataError, RunError
from lacunar.evaluation import capability_trajectory
from lacunar.models.chain import Chain
from lacunar.models.multimodal import MultimodalModel
from lacunar.models.preprocessing import Standardize
from lacunar.objectives import (
    MCE,
    PMR,
    SMIL,
    GenerateRest,
    GradientBlending,
    Joint,
    ModalityDropout,
    Resampling,
    available,
)
from lacunar.tasks import Classification
from lacunar.training.fit import fit
from lacunar.training.log import read_lines
from lacunar.training.run import load_run
from lacunar.training.snapshots import snapshot_epochs
from lacunar.training.validation import Validation, Validator
from tests.helpers import Concat, first_batch, fixed_references, small_model, vectors
from tests.training.worlds import dropping_model, listing, mce, objective, same, splits, weights

QUICK = {"max_epochs": 3, "batch_size": 16, "experts": False}


@pytest.fixture(scope="module")
def data():
    return splits()


@pytest.mark.parametrize("before", [False, True])
def test_sums_have_one_order_in_a_run_and_the_users_choice_stays(before):
    class Asked(pl.Callback):
        def on_train_batch_end(self, *given):
            self.saw = torch.are_deterministic_algorithms_enabled()

    data, asked = splits(), Asked()
    torch.use_deterministic_algorithms(before)
    try:
        fit(data, small_model(data.train), Joint(), callbacks=[asked], **{**QUICK, "accelerator": "cpu"})
        assert asked.saw
        assert torch.are_deterministic_algorithms_enabled() == before
        assert torch.utils.deterministic.fill_uninitialized_memory
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("hook", ["on_epoch_start", "training_set", "on_stage_start"])
def test_what_ends_a_run_before_its_first_step_is_said(data, error, hook, tmp_path):
    def fails(self, *given):
        raise error("of my own")

    kind = type("Early", (Joint,), {hook: fails})
    with pytest.raises(error, match="of my own" if error is ValueError else "0 finished epochs are kept"):
        fit(data, small_model(data.train), kind(), out=tmp_path / "run", **QUICK)


def test_seeds_fix_everything_and_leave_the_global_generators_alone(data):
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    first = fit(data, dropping_model(data), ModalityDropout(), seed=1, **QUICK)
    torch.manual_seed(99)  # what the caller does with the generators makes no difference
    second = fit(data, dropping_model(data), ModalityDropout(), seed=1, **QUICK)
    third = fit(data, dropping_model(data), ModalityDropout(), seed=2, **QUICK)
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(third))
    pd.testing.assert_frame_equal(first.steps, second.steps)
    pd.testing.assert_frame_equal(first.history, second.history)
    torch.manual_seed(7)
    dropping_model(data)
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    fit(data, small_model(data.train), Joint(), max_epochs=1, batch_size=64)
    torch.manual_seed(7)
    fit(data, small_model(data.train, seed=3), Joint(), max_epochs=1, batch_size=64)
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])


def test_the_global_torch_generator_is_restored(data):
    model = small_model(data.train)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    fit(data, model, Joint(), max_epochs=1, batch_size=64)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_out_nothing_is_written(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fit(data, small_model(data.train), Joint(), **QUICK)
    assert listing(tmp_path) == []
    assert os.listdir(tmp_path) == []
    assert run.folder is None
    assert len(run.history) == 3
    assert len(run.steps) == 3 * -(-len(data.train) // 16)


def test_with_out_only_the_folder_is_written(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fit(data, small_model(data.train), mce(data), out="runs/one", **QUICK)
    assert set(os.listdir(tmp_path)) == {"runs"}
    found = [name for name in listing(tmp_path / "runs" / "one") if not name.startswith(("references", "model"))]
    assert found == [".lock", "config.json", "log.jsonl", "result.json", "selected.safetensors", "times.jsonl"]
    in_memory = fit(data, small_model(data.train), mce(data), **QUICK)
    pd.testing.assert_frame_equal(run.steps, in_memory.steps)
    pd.testing.assert_frame_equal(run.history, in_memory.history)
    for name in ("phi", "upper", "B", "A"):
        assert all(f"{name}/{modality}" in run.steps for modality in data.names)
        assert all(f"{name}/{modality}" in run.history for modality in data.names)
    terms = run.steps.filter(regex="^loss/").sum(axis=1)
    assert np.allclose(terms, run.steps["loss"], rtol=1e-5)
    assert run.steps.groupby("epoch")["samples"].sum().eq(len(data.train)).all()


def test_a_finished_run_is_returned_at_once(data, tmp_path, monkeypatch):
    first = fit(data, dropping_model(data), mce(data), out=tmp_path / "run", **QUICK)
    before = {name: (tmp_path / "run" / name).read_bytes() for name in listing(tmp_path / "run")}
    monkeypatch.setattr(fit_module.pl, "Trainer", None)
    again = fit(data, dropping_model(data, seed=5), mce(data), out=tmp_path / "run", **QUICK)
    assert same(weights(first), weights(again))
    assert (again.best_epoch, again.best_score, again.seconds) == (first.best_epoch, first.best_score, first.seconds)
    assert before == {name: (tmp_path / "run" / name).read_bytes() for name in listing(tmp_path / "run")}
    assert str(again) == str(first)


def test_a_rerun_with_other_arguments_is_refused_naming_each(data, tmp_path):
    fit(data, small_model(data.train), mce(data), out=tmp_path / "run", **QUICK)
    before = {name: (tmp_path / "run" / name).read_bytes() for name in listing(tmp_path / "run")}
    other = mce(data)
    other.subset = 2.0
    with pytest.raises(RunError) as caught:
        fit(
            data, small_model(data.train, features=6), other, out=tmp_path / "run", lr=0.5, **{**QUICK, "max_epochs": 4}
        )
    message = str(caught.value)
    for part in ("max_epochs: the folder has 3, this call has 4", "lr: ", "objective: ", "subset=2.0", "model: "):
        assert part in message
    hidden = data.hide({"m0": 0.3}, seed=1)
    with pytest.raises(RunError, match=r"train\.observed\.m0"):
        fit(hidden, small_model(data.train), mce(hidden), out=tmp_path / "run", **QUICK)
    assert before == {name: (tmp_path / "run" / name).read_bytes() for name in listing(tmp_path / "run")}
    replaced = fit(data, small_model(data.train), Joint(), out=tmp_path / "run", resume=False, **QUICK)
    assert len(read_lines(tmp_path / "run" / "log.jsonl")) == len(replaced.steps) + len(replaced.history)


def test_a_rerun_under_another_task_is_refused(data, tmp_path):
    fit(data, small_model(data.train), Joint(), out=tmp_path / "run", **QUICK)
    task = Classification(data.task.classes, balanced=True)
    other = Splits(data.train.with_task(task, data.train.target), data.val.with_task(task, data.val.target))
    with pytest.raises(RunError, match=r"train\.task\.balanced: the folder has False, this call has True"):
        fit(other, small_model(other.train), Joint(), out=tmp_path / "run", **QUICK)
    fit(splits(), small_model(data.train), Joint(), out=tmp_path / "run", **QUICK)  # the same task, made again


class Fail(pl.Callback):
    def __init__(self, epoch: int, batch: int = 0, error: type[BaseException] = ZeroDivisionError):
        self.at, self.error = (epoch, batch), error

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            raise self.error


def test_a_run_that_fails_in_its_first_epoch_keeps_its_first_weights(data, tmp_path):
    with pytest.raises(ZeroDivisionError):
        fit(data, dropping_model(data, seed=1), Joint(), out=tmp_path / "run", callbacks=[Fail(0, 1)], **QUICK)
    run = fit(data, dropping_model(data, seed=2), Joint(), out=tmp_path / "run", **QUICK)
    whole = fit(data, dropping_model(data, seed=1), Joint(), **QUICK)
    assert same(weights(run), weights(whole))


def test_keyboard_interrupt_keeps_finished_epochs_and_says_how_to_go_on(data, tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="2 finished epochs are kept in .*run: run the same command to go on"):
        fit(
            data,
            small_model(data.train),
            Joint(),
            out=tmp_path / "run",
            callbacks=[Fail(2, 1, KeyboardInterrupt)],
            **QUICK,
        )
    assert signal.getsignal(signal.SIGINT) is handler
    with pytest.raises(RunError, match="unfinished"):
        load_run(tmp_path / "run")
    run = fit(data, small_model(data.train), Joint(), out=tmp_path / "run", **QUICK)
    assert same(weights(run), weights(fit(data, small_model(data.train), Joint(), **QUICK)))
    with pytest.raises(KeyboardInterrupt, match="nothing is kept without out="):
        fit(data, small_model(data.train), Joint(), callbacks=[Fail(1, 0, KeyboardInterrupt)], **QUICK)


def interrupted(data, out, epochs: int = 2):
    with pytest.raises(ZeroDivisionError):
        fit(data, small_model(data.train), Joint(), out=out, callbacks=[Fail(epochs)], **QUICK)
    return out / "checkpoint.pt"


class Foreign:
    def __reduce__(self):
        return (os.system, ("touch must_not_exist",))


def test_checkpoints_that_cannot_be_used_say_so(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = interrupted(data, tmp_path / "run")
    good = path.read_bytes()

    def again():
        fit(data, small_model(data.train), Joint(), out=tmp_path / "run", **QUICK)

    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(RunError, match=r"checkpoint\.pt.*corrupt.*resume=False"):
        again()
    path.write_bytes(b"")
    with pytest.raises(RunError, match="corrupt"):
        again()
    torch.save({"lacunar": Foreign()}, path)
    with pytest.raises(RunError, match="more than tensors"):
        again()
    assert not (tmp_path / "must_not_exist").exists()
    torch.save({"state_dict": {}}, path)
    with pytest.raises(RunError, match="not a checkpoint of lacunar"):
        again()
    other = tmp_path / "other"
    with pytest.raises(ZeroDivisionError):
        fit(data, small_model(data.train, features=5), Joint(), out=other, callbacks=[Fail(1)], **QUICK)
    shutil.copy(other / "checkpoint.pt", path)
    with pytest.raises(RunError, match="checkpoint of another run"):
        again()
    path.write_bytes(good)
    os.truncate(tmp_path / "run" / "log.jsonl", 10)
    with pytest.raises(RunError, match="shorter than when its checkpoint"):
        again()


def test_folders_that_are_not_runs_are_left_alone(data, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="is a file"):
        fit(data, small_model(data.train), Joint(), out=tmp_path / "file", **QUICK)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "log.jsonl").write_text("mine")
    with pytest.raises(RunError, match="not the folder of a run"):
        fit(data, small_model(data.train), Joint(), out=tmp_path / "mine", **QUICK)
    assert (tmp_path / "mine" / "log.jsonl").read_text() == "mine"
    with pytest.raises(RunError, match=r"no config\.json"):
        load_run(tmp_path / "mine")


def test_a_folder_is_trained_into_by_one_process(data, tmp_path, monkeypatch):
    import fcntl

    from lacunar.training import folder

    monkeypatch.setattr(folder, "PATIENCE", 0.1)
    (tmp_path / "run").mkdir()
    with open(tmp_path / "run" / ".lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="in use"):
            fit(data, small_model(data.train), Joint(), out=tmp_path / "run", **QUICK)


def scripted(monkeypatch, found: list[tuple[float, float]]) -> None:
    """Validation that finds what the test says."""
    left = iter(found)

    def validate(self, model, *_):
        score, loss = next(left)
        return Validation(score, loss, {"m0": score})

    monkeypatch.setattr(Validator, "__call__", validate)


class Remember(pl.Callback):
    def __init__(self):
        self.weights = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.weights.append({k: v.clone() for k, v in pl_module.model.state_dict().items()})


@pytest.mark.parametrize("average", [None, 0.5])
def test_the_best_epoch_is_selected_and_ties_are_broken_by_the_loss(data, monkeypatch, average):
    nan = float("nan")
    scripted(monkeypatch, [(nan, 1), (0.2, 1), (0.7, 0.9), (0.7, 0.5), (0.7, 0.6), (nan, 0)])
    seen = Remember()
    run = fit(data, small_model(data.train), Joint(), max_epochs=6, batch_size=32, average=average, callbacks=[seen])
    assert (run.best_epoch, run.best_score, run.best_loss) == (3, 0.7, 0.5)
    assert same(weights(run), seen.weights[3]) == (average is None)
    assert run.history["best"].tolist() == [True, True, True, True, False, False]
    scripted(monkeypatch, [(0.9, 1), (0.2, 1)])
    last = fit(
        data,
        small_model(data.train),
        Joint(),
        max_epochs=2,
        batch_size=32,
        average=None,
        select="last",
        callbacks=[seen],
    )
    assert last.best_epoch == 0
    assert same(weights(last), seen.weights[-1])


def test_the_epoch_of_the_lowest_loss_can_be_selected(data, monkeypatch):
    nan = float("nan")
    scripted(monkeypatch, [(0.1, nan), (0.2, 0.5), (0.7, 0.9), (0.3, 0.5), (0.3, 0.6), (0.9, nan)])
    seen = Remember()
    run = fit(
        data, small_model(data.train), Joint(), max_epochs=6, batch_size=32, average=None, select="loss",
        callbacks=[seen],
    )  # fmt: skip
    assert (run.best_epoch, run.best_score, run.best_loss) == (3, 0.3, 0.5)
    assert same(weights(run), seen.weights[3])
    assert run.history["best"].tolist() == [True, True, False, True, False, False]


def test_training_stops_early_and_a_continued_run_does_not_go_on(data, monkeypatch, tmp_path):
    found = [(0.2, 1), (0.7, 0.9), (0.1, 0.5), (0.1, 0.6), (0.9, 0)]
    scripted(monkeypatch, found)
    run = fit(data, small_model(data.train), Joint(), max_epochs=9, batch_size=32, patience=2)
    assert (run.epochs, run.best_epoch) == (4, 1)
    scripted(monkeypatch, found)
    monkeypatch.setattr(fit_module, "_store", Fail(0).on_train_batch_end)
    with pytest.raises(TypeError):  # fails between training and storing
        fit(data, small_model(data.train), Joint(), max_epochs=9, batch_size=32, patience=2, out=tmp_path / "run")
    monkeypatch.undo()
    again = fit(data, small_model(data.train), Joint(), max_epochs=9, batch_size=32, patience=2, out=tmp_path / "run")
    assert (again.epochs, again.best_epoch, len(again.history)) == (4, 1, 4)
    assert same(weights(run), weights(again))


def test_validate_every_also_validates_the_last_epoch(data):
    run = fit(data, small_model(data.train), Joint(), max_epochs=5, batch_size=32, validate_every=2)
    assert run.history["val/score"].notna().tolist() == [False, True, False, True, True]


def test_averaged_weights_follow_their_definition(data):
    class Recorder(pl.Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.seen.append(pl_module.model.head.weight.detach().clone())

    recorder = Recorder()
    model = small_model(data.train)
    expected = model.head.weight.detach().clone()
    run = fit(
        data, model, Joint(), max_epochs=2, batch_size=16, average=0.4, select="last", callbacks=[recorder], lr=0.05
    )
    for n, weight in enumerate(recorder.seen):
        expected.lerp_(weight, 1 - min(0.4, (1 + n) / (10 + n)))
    torch.testing.assert_close(run.model.head.weight, expected)
    assert not torch.equal(run.model.head.weight, recorder.seen[-1])


def test_accumulation_takes_the_step_of_the_larger_batch():
    data = splits(n=92)  # 64 samples to train on
    options = {"max_epochs": 2, "average": None, "schedule": "constant", "select": "last", "gradient_clip": None}
    whole = fit(data, small_model(data.train), Joint(), batch_size=64, **options)
    parts = fit(data, small_model(data.train), Joint(), batch_size=16, accumulate=4, **options)
    assert parts.history["steps"].tolist() == [1, 2]
    assert parts.history["batches"].tolist() == [4, 8]
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, rtol=1e-4, atol=1e-6)


def test_schedules_and_weight_decay(data):
    rates = {}
    for schedule in ("one-cycle", "cosine", "constant"):
        run = fit(data, small_model(data.train), Joint(), schedule=schedule, lr=0.01, max_epochs=6, batch_size=16)
        rates[schedule] = run.steps["lr"].to_numpy()
    assert np.ptp(rates["constant"]) == 0
    assert np.all(np.diff(rates["cosine"]) < 0)
    top = rates["one-cycle"].argmax()
    assert rates["one-cycle"][top] == pytest.approx(0.01, rel=0.02)
    assert 0 < top < len(rates["one-cycle"]) / 2
    assert rates["one-cycle"][-1] < 1e-4


def test_regression_and_learning():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(160, 4))
    data = from_arrays({"x": x, "z": x[:, :2]}, x @ [1.0, -2.0, 0.5, 0.0]).split(train=0.6, val=0.2, test=0.2, seed=0)
    model = MultimodalModel(
        {"x": nn.Linear(4, 8), "z": nn.Linear(2, 8)}, None, Concat(), nn.Linear(16, data.task.n_outputs)
    )
    run = fit(data, model, ModalityDropout(0.3), max_epochs=25, batch_size=16, lr=0.03)
    assert run.history["val/score/x+z"].iloc[run.best_epoch] > 0.9
    assert run.history["val/loss"].iloc[-1] < run.history["val/loss"].iloc[0]


def test_one_modality_and_more_than_six():
    for M in (1, 8):
        data = splits(n=60, M=M)
        run = fit(data, small_model(data.train), Joint(), max_epochs=1, batch_size=32)
        assert len(run.history.filter(regex="^val/score/").columns) == (1 if M == 1 else 63)


@pytest.mark.parametrize(
    ("precision", "kept"),
    [("bf16-mixed", torch.float32), ("bf16-true", torch.bfloat16), ("64-true", torch.float64)],
)
def test_precision(data, tmp_path, precision, kept):
    run = fit(data, small_model(data.train), Joint(), precision=precision, out=tmp_path, **QUICK)
    assert run.steps["loss"].notna().all()
    assert run.history["val/score"].notna().all()
    assert next(run.model.parameters()).dtype == kept
    predicted = run.model(first_batch(data.val))
    assert torch.isfinite(predicted).all(), "and predicts from data in single precision"
    again = fit(data, small_model(data.train), Joint(), precision=precision, out=tmp_path, **QUICK)
    assert torch.equal(again.model(first_batch(data.val)), predicted)


@pytest.mark.parametrize("method", [PMR, SMIL, GradientBlending, Resampling, GenerateRest])
def test_what_methods_do_between_batches_follows_the_precision(data, method):
    run = fit(data, small_model(data.train), method(), precision="bf16-true", **{**QUICK, "max_epochs": 3})
    assert run.steps["loss"].notna().all()


def test_a_small_spread_on_a_large_mean_is_learnt_from_in_half_precision():
    draw = np.random.default_rng(0)
    target = np.arange(120) % 2
    rows = draw.normal(size=(120, 2)) + 3.0 * target[:, None]
    far = from_arrays({"x": 1000 + rows}, target).split(train=0.6, val=0.2, test=0.2, seed=0)
    model = MultimodalModel(
        {"x": Chain(Standardize.fit(far.train, "x"), nn.Linear(2, 8))}, None, Concat(), nn.Linear(8, 2)
    )
    run = fit(far, model, Joint(), precision="bf16-true", max_epochs=8, batch_size=16, lr=0.03)
    assert run.best_score > 0.9
    assert Validator(far.val)(run.model).score == run.best_score, "validation sees what prediction sees"


def test_mixed_precision_of_mce(data):
    run = fit(data, small_model(data.train), mce(data), precision="bf16-mixed", **QUICK)
    assert run.steps["loss"].notna().all()


def test_a_loss_that_is_not_finite_ends_training_and_is_named(data, tmp_path):
    class Breaks(Joint):
        def forward(self, model, batch):
            terms = super().forward(model, batch)
            return {**terms, "odd": terms["task"] * float("nan")}

    with pytest.raises(RunError, match=r"'odd' is not finite in epoch 0, step 0"):
        fit(data, small_model(data.train), Breaks(), out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run" / "result.json").exists()


class Hooks(Joint):
    """Remembers which hooks were called, and trains on half of the samples in odd epochs."""

    def __init__(self):
        super().__init__()
        self.calls: list[tuple] = []

    def training_set(self, data, epoch):
        self.calls.append(("set", epoch))
        return data.select(range(len(data) // 2)) if epoch % 2 else data

    def on_epoch_start(self, model, data, epoch):
        self.calls.append(("start", epoch))

    def on_epoch_end(self, model, data, epoch):
        self.calls.append(("end", epoch))

    def after_backward(self, model):
        assert model.head.weight.grad is not None
        self.calls.append(("backward",))


def test_hooks_of_the_objective_are_called_in_order(data, tmp_path):
    hooks = Hooks()
    run = fit(data, small_model(data.train), hooks, **QUICK)
    full, half = -(-len(data.train) // 16), -(-(len(data.train) // 2) // 16)
    expected = []
    for epoch, steps in enumerate((full, half, full)):
        expected += [("start", epoch), ("set", epoch), *[("backward",)] * steps, ("end", epoch)]
    assert hooks.calls == expected
    assert run.steps.groupby("epoch").size().tolist() == [full, half, full]
    with pytest.raises(ZeroDivisionError):
        fit(data, small_model(data.train), Hooks(), out=tmp_path / "run", callbacks=[Fail(1, 1)], **QUICK)
    again = Hooks()
    resumed = fit(data, small_model(data.train), again, out=tmp_path / "run", **QUICK)
    assert again.calls[:2] == [("start", 1), ("set", 1)]
    assert same(weights(run), weights(resumed))


@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize("name", sorted(available()))
def test_every_method_goes_on_where_it_was_interrupted(data, tmp_path, name, epoch):
    options = {**QUICK, "max_epochs": 4}
    whole = fit(data, dropping_model(data), objective(name, data), **options)
    with pytest.raises(ZeroDivisionError):
        fit(
            data,
            dropping_model(data),
            objective(name, data),
            out=tmp_path / "run",
            callbacks=[Fail(epoch, 1)],
            **options,
        )
    resumed = fit(data, dropping_model(data), objective(name, data), out=tmp_path / "run", **options)
    assert same(weights(whole), weights(resumed))
    states = (run.objective.state_dict() for run in (resumed, whole))
    torch.testing.assert_close(*states, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_the_schedule_ends_with_the_training_however_many_steps_an_epoch_has(data, share):
    class Fewer(Joint):
        def training_set(self, data, epoch):
            return data.select(torch.arange(int(share * len(data))) % len(data))

    usual, other = (fit(data, small_model(data.train), kind(), lr=0.01, **QUICK) for kind in (Joint, Fewer))
    assert len(other.steps) == pytest.approx(share * len(usual.steps), abs=3)
    assert other.steps["lr"].max() == pytest.approx(usual.steps["lr"].max(), rel=0.1)
    assert other.steps["lr"].iloc[-1] < 0.2 * other.steps["lr"].max()
    assert usual.steps["lr"].iloc[-1] < 0.2 * usual.steps["lr"].max()


def test_finish_makes_the_model_that_is_returned(data, tmp_path):
    def finish(model, parts, references):
        assert parts is data
        model.head.bias.data += 1
        return model

    plain = fit(data, small_model(data.train), Joint(), **QUICK)
    for _ in range(2):  # the second call returns the finished run
        run = fit(data, small_model(data.train), Joint(), out=tmp_path / "run", finish=finish, **QUICK)
        torch.testing.assert_close(run.model.head.bias, plain.model.head.bias + 1)


def test_workers_change_nothing(data):
    alone = fit(data, dropping_model(data), Joint(), max_epochs=1, batch_size=32)
    helped = fit(data, dropping_model(data), Joint(), max_epochs=1, batch_size=32, num_workers=1)
    assert same(weights(alone), weights(helped))
    pd.testing.assert_frame_equal(alone.steps, helped.steps)


def test_tensorboard_events_lie_in_the_folder(data, tmp_path):
    pytest.importorskip("tensorboard")
    fit(data, small_model(data.train), Joint(), out=tmp_path / "run", tensorboard=True, **QUICK)
    assert any("tfevents" in name for name in listing(tmp_path / "run" / "tensorboard"))
    with pytest.raises(ConfigError, match="out="):
        fit(data, small_model(data.train), Joint(), tensorboard=True, **QUICK)


def test_no_noise(data, capfd, caplog, monkeypatch):
    with warnings.catch_warnings(), caplog.at_level(logging.INFO):
        warnings.simplefilter("error")
        fit(data, small_model(data.train), Joint(), **QUICK)
        monkeypatch.setenv("LACUNAR_PROGRESS", "lines")
        fit(data, small_model(data.train), Joint(), progress=False, **QUICK)
        shown = capfd.readouterr()
        assert shown.out == shown.err == ""
        fit(data, small_model(data.train), Joint(), **QUICK)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "3 epochs" in shown.err
    assert shown.err.count("\n") <= 2
    assert not [record for record in caplog.records if "lightning" in record.name]


BAD = [
    ({"max_epochs": 0}, "max_epochs: expected a whole number of at least 1, got 0"),
    ({"batch_size": 2.5}, "batch_size: expected a whole number"),
    ({"lr": 0}, "lr: expected a number above 0, got 0"),
    ({"lr": float("nan")}, "lr: expected a finite number, got nan"),
    ({"weight_decay": -1}, "weight_decay: expected a number of at least 0"),
    ({"schedule": "onecycle"}, "schedule: unknown value 'onecycle'. Did you mean 'one-cycle'"),
    ({"select": "test"}, "select: unknown value 'test'"),
    ({"precision": "bf16-mix"}, "Did you mean 'bf16-mixed'"),
    ({"average": 1.0}, "average: expected a decay in"),
    ({"patience": 0}, "patience: expected a whole number of at least 1"),
    ({"seed": -1}, "seed: expected a whole number of at least 0"),
    ({"accumulate": 0}, "accumulate"),
    ({"snapshots": -1}, "snapshots: expected at least 0, got -1"),
    ({"gradient_clip": 0}, "gradient_clip: expected a number above 0"),
]


@pytest.mark.parametrize(
    ("options", "message"), BAD, ids=[next(iter(options)) + str(i) for i, (options, _) in enumerate(BAD)]
)
def test_arguments_out_of_range(data, tmp_path, options, message):
    with pytest.raises(ConfigError) as caught:
        fit(data, small_model(data.train), Joint(), out=tmp_path / "run", **options)
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_data_and_models_that_do_not_fit(data, tmp_path):
    whole = vectors(M=3)
    with pytest.raises(DataError, match=r"validation part.*data\.split\("):
        fit(whole, small_model(whole), Joint(), **QUICK)
    fewer = data.only(["m0", "m1"])
    with pytest.raises(ConfigError, match="built for the modalities"):
        fit(fewer, small_model(data.train), Joint(), out=tmp_path / "run", **QUICK)
    with pytest.raises(ConfigError, match="expected a lacunar.MultimodalModel, got Linear"):
        fit(data, nn.Linear(2, 2), Joint(), **QUICK)
    assert not (tmp_path / "run").exists()


def test_config_tells_what_was_asked(data, tmp_path):
    fit(data, small_model(data.train), Joint(), out=tmp_path / "run", **QUICK)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["versions"]["torch"] == torch.__version__.split("+")[0] or config["versions"]["torch"]
    assert config["asked"]["max_epochs"] == 3
    assert config["asked"]["objective"][0].startswith("Joint(")
    assert config["asked"]["train"]["samples"] == len(data.train)


def test_references_are_made_when_needed_kept_in_the_folder_and_read_again(data, tmp_path, monkeypatch):
    import lacunar.training.references as maker

    calls = []

    def make(train, seed=0, **_):
        calls.append(seed)
        return fixed_references(train, 0.8)

    monkeypatch.setattr(maker, "references", make)
    with pytest.raises(ZeroDivisionError):
        fit(data, small_model(data.train), MCE(), out=tmp_path / "run", seed=4, callbacks=[Fail(1)], **QUICK)
    run = fit(data, small_model(data.train), MCE(), out=tmp_path / "run", seed=4, **QUICK)
    assert calls == [4]
    assert run.references is not None
    given = fit(data, small_model(data.train), MCE(), references=fixed_references(data.train, 0.8), seed=4, **QUICK)
    assert calls == [4]
    assert same(weights(run), weights(given))
    with pytest.raises(ConfigError, match="experts=True"):
        fit(data, small_model(data.train), Joint(), **{**QUICK, "experts": True})


def test_what_mce_sees_of_each_modality_is_logged_per_step_and_per_epoch(data):
    method = mce(data)
    run = fit(data, small_model(data.train), method, **QUICK)
    for key in ("phi", "upper", "B", "A"):
        for m, name in enumerate(data.train.names):
            assert run.steps[f"{key}/{name}"].notna().all()
            assert run.steps[f"{key}/{name}"].iloc[-1] == pytest.approx(method.diagnostics[key][m].item(), rel=1e-5)
            assert run.history[f"{key}/{name}"].notna().all()
            low, high = run.steps.groupby("epoch")[f"{key}/{name}"].agg(["min", "max"]).to_numpy().T
            mean = run.history[f"{key}/{name}"].to_numpy()
            assert ((low - 1e-6 <= mean) & (mean <= high + 1e-6)).all()


def test_snapshots_are_the_weights_that_were_validated(data, tmp_path, caplog):
    options = {**QUICK, "max_epochs": 4, "average": 0.5, "select": "last"}
    plain = fit(data, dropping_model(data), mce(data), **options)
    assert len(plain.snapshots) == 0
    run = fit(data, dropping_model(data), mce(data), snapshots=3, **options)
    assert list(run.snapshots) == [1, 2, 3]
    assert same(weights(plain), weights(run))
    assert same(run.snapshots[3], weights(run))  # the last epoch's averaged weights are the selected ones
    assert not same(run.snapshots[1], run.snapshots[2])
    model = small_model(data.train)
    model.head = nn.Sequential(nn.Dropout(0.3), model.head)
    model.load_state_dict(run.snapshots[1])
    score = Validator(data.val)(model).score
    assert score == pytest.approx(run.history["val/score"][1])

    stored = fit(data, dropping_model(data), mce(data), snapshots=3, out=tmp_path / "run", **options)
    again = load_run(tmp_path / "run")
    assert list(stored.snapshots) == list(again.snapshots) == [1, 2, 3]
    assert all(same(run.snapshots[epoch], again.snapshots[epoch]) for epoch in again.snapshots)
    frame = capability_trajectory(again.snapshots, data, again.model, min_steps=20, epochs=1)
    assert frame.index.get_level_values("epoch").unique().tolist() == [1, 2, 3]
    with pytest.raises(KeyError):
        again.snapshots[0]
    with caplog.at_level(logging.WARNING, "lacunar"):
        more = fit(data, dropping_model(data), mce(data), snapshots=4, out=tmp_path / "run", **options)
    assert "No snapshots of epochs 1:" in caplog.text
    assert list(more.snapshots) == [1, 2, 3]
    fit(data, dropping_model(data), mce(data), out=tmp_path / "run", resume=False, **options)
    assert not list(load_run(tmp_path / "run").snapshots)


@pytest.mark.parametrize(("count", "epochs", "kept"), [(0, 5, []), (1, 5, [4]), (2, 5, [2, 4]), (9, 3, [0, 1, 2])])
def test_snapshots_are_evenly_spaced(count, epochs, kept):
    assert sorted(snapshot_epochs(count, epochs)) == kept


def test_a_run_is_read_back_from_its_folder(data, tmp_path):
    run = fit(data, small_model(data.train), Joint(), out=tmp_path / "run", **QUICK)
    again = load_run(tmp_path / "run", model=small_model(data.train, seed=9))
    assert same(weights(run), weights(again))
    assert str(run) == str(again)
    assert again.config == run.config
    pd.testing.assert_frame_equal(run.history, again.history)
