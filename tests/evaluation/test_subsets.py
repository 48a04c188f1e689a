"""The table of all subsets: what is scored on which samples, from any model, within any memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tests.helpers import small_model, vectors
from torch import nn

from lacunar.data.arrays import from_arrays
from lacunar.errors import ConfigError, DataError
from lacunar.evaluation import evaluate
from lacunar.evaluation.outputs import MemoryLimit, subset_codes
from lacunar.lattice import Lattice
from lacunar.memory import peak_bytes
from lacunar.models.multimodal import MultimodalModel
from lacunar.models.references import EstimatorExpert, References
from lacunar.tasks import Classification, Regression, Segmentation


def same(a, b, **tolerance):
    np.testing.assert_allclose(a.scores, b.scores, **tolerance)
    np.testing.assert_allclose(a.metrics, b.metrics, rtol=1e-4, atol=1e-6)


def test_every_subset_is_scored_on_the_rows_that_have_it():
    data = vectors(M=3, n=70, missing=0.5)
    model = small_model(data)
    table = evaluate(model, data, batch_size=16)
    assert table.labels == ["none", "m0", "m1", "m2", "m0+m1", "m0+m2", "m1+m2", "m0+m1+m2"]
    for code, label in zip(table.codes[1:], table.labels[1:]):
        members = data.lattice.subset(code)
        has = torch.stack([data.present[:, data.names.index(name)] for name in members]).all(0)
        with torch.no_grad():
            batch = data.__getitems__(has.nonzero()[:, 0].tolist()).hide(members)
            right = data.task.score(model(batch), batch.target)
        assert table.frame.loc[label, "n"] == int(has.sum())
        assert table.frame.loc[label, "score"] == pytest.approx(float(right.mean()))
        assert np.array_equal(np.isfinite(table.per_sample[label]), has.numpy())
        np.testing.assert_array_equal(table.per_sample[label][has.numpy()], right)


@pytest.mark.parametrize("memory", [1e-4, 0.002, 0.05, None])
@pytest.mark.parametrize("batch_size", [7, 256])
def test_chunks_and_batches_change_nothing(memory, batch_size):
    data = vectors(M=4, n=60)
    model = small_model(data)
    same(evaluate(model, data, batch_size, memory=memory), evaluate(model, data), rtol=0)


class PairsOnly:
    """A model of another kind, with nothing but predict_pairs."""

    def __init__(self, model):
        self.predict_pairs = lambda batch, pairs: model.predict_pairs(batch, pairs)


class Changed(MultimodalModel):
    """A model of this library that predicts pairs in a way of its own."""

    def predict_pairs(self, batch, pairs, chunk=None):
        return -super().predict_pairs(batch, pairs, chunk)


def test_callables_get_the_same_table():
    data = vectors(M=3, n=60)
    model = small_model(data)
    expected = evaluate(model, data)
    same(evaluate(lambda batch: model(batch), data, batch_size=13), expected)
    same(evaluate(lambda batch: model(batch).detach().numpy(), data), expected)
    same(evaluate(PairsOnly(model), data, memory=1e-4), expected)
    same(evaluate(lambda batch: model(batch).softmax(1), data, probabilities=True), expected)


def test_an_overridden_prediction_is_the_one_that_counts():
    data = vectors(M=2, n=40)
    model = small_model(data)
    changed = Changed(dict(model.named_encoders()), model.completion, model.fusion, model.head, task=data.task)
    with torch.no_grad():
        same(evaluate(changed, data), evaluate(lambda batch: -model(batch), data))


def test_what_a_callable_sees():
    data = vectors(M=3, n=20)
    seen = []

    def look(batch):
        seen.append((batch.present.any(0).tolist(), batch.present.all(0).tolist()))
        return torch.zeros(len(batch), 3)

    evaluate(look, data)
    patterns = [data.lattice.decode(torch.tensor(code)).tolist() for code in range(1, 8)]
    assert seen == [(pattern, pattern) for pattern in patterns]


def test_memory_bounds_what_lives_at_once():
    data = vectors(M=6, n=200, missing=0.0)
    model = small_model(data, features=32)
    peaks = {}
    for bound in (0.5, 4.0, 1000.0):
        limit = MemoryLimit(bound)
        with torch.no_grad():
            features, pairs = model.encode(data.__getitems__(range(200))), data.lattice.pairs(data.present)
            chunk = limit.chunk(pairs, lambda part, features=features: model.predict(features, part))
            part = type(pairs)(pairs.rows[:chunk], pairs.codes[:chunk])
            peaks[bound] = peak_bytes(lambda: model.predict(features, part)) / 2**20  # noqa: B023
    assert 0.25 < peaks[0.5] <= 0.55
    assert 2 < peaks[4.0] <= 4.4
    assert peaks[1000.0] > 10
    with pytest.raises(ConfigError, match="megabytes"):
        MemoryLimit(0)


def test_training_mode_and_weights_are_left_alone():
    data = vectors(M=2, n=30)
    model = small_model(data)
    model.train()
    model.head.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, data)
    assert model.training
    assert not model.head.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_dropout_is_off():
    data = vectors(M=2, n=30)
    model = small_model(data)
    noisy = MultimodalModel(
        dict(model.named_encoders()),
        model.completion,
        model.fusion,
        nn.Sequential(nn.Dropout(0.9), model.head),
        data.task,
    )
    same(evaluate(noisy, data), evaluate(model, data))


def test_the_baseline_is_the_prior_of_the_train_split():
    data = vectors(M=2, n=60)
    fitted = data.with_task(data.task.copy().fit(torch.tensor([0, 1, 2, 2, 2])), data.target)
    model = small_model(fitted)
    table = evaluate(model, fitted)
    assert table.baseline == pytest.approx(float((data.target == 2).float().mean()))
    assert table.frame.loc["none", "log_loss"] == pytest.approx(-np.log([0.2, 0.2, 0.6]).mean(), rel=1e-5)
    assert not any("baseline" in note for note in table.notes)
    assert any("baseline is fitted on these very samples" in note for note in evaluate(small_model(data), data).notes)


def test_a_model_with_its_classes_in_another_order():
    data = vectors(M=2, n=60)
    model = small_model(data)
    other = from_arrays(
        {name: column.values for name, column in vectors(M=2, n=60, missing=0.0).columns.items()},
        data.target.numpy(),
        task=Classification([2, 0, 1]),
    )
    ordered = other.with_task(data.task, torch.tensor([2, 0, 1])[other.target])
    assert not torch.equal(other.target, ordered.target)
    same(evaluate(model, other), evaluate(model, ordered))
    with pytest.raises(DataError, match="the data are a regression"):
        evaluate(model, other.with_task(Regression(), other.target.float()))


def test_rows_in_common():
    data = vectors(M=3, n=90, missing=0.4)
    model = small_model(data)
    table, common = evaluate(model, data), evaluate(model, data, common_rows=True)
    complete = data.present.all(1)
    assert set(common.counts) == {int(complete.sum())}
    assert list(common.ids) == list(data.ids[complete.numpy()])
    assert common.full == pytest.approx(table.full)
    assert any("different samples" in note for note in table.notes)
    assert not any("different samples" in note for note in common.notes)
    alone = vectors(M=3, n=60, missing=0.0).hide(torch.eye(3, dtype=torch.bool).repeat(20, 1))
    with pytest.raises(DataError, match="none of the 60 samples"):
        evaluate(model, alone, common_rows=True)


def test_subsets_that_nobody_has():
    data = vectors(M=3, n=60, missing=0.0).hide(torch.tensor([[1, 1, 0], [0, 0, 1]]).bool().repeat(30, 1))
    table = evaluate(small_model(data), data)
    assert table.frame.loc["m0+m2", "n"] == 0
    assert np.isnan(table.frame.loc["m0+m2", ["score", "low", "high", "log_loss"]].astype(float)).all()
    scored = table.frame.loc[["m0", "m1", "m0+m1", "m2"], "score"]
    assert table.mean == pytest.approx(scored.mean())
    assert table.worst.score == scored.min()
    assert np.isnan(table.full)
    assert table.drop_against_full["drop"].isna().all()
    assert table.shapley().isna().all(axis=None)
    assert any("no sample has m0+m2, m1+m2, m0+m1+m2" in note for note in table.notes)
    assert "no sample has" in str(table)


def numbers(n=60):
    draw = np.random.default_rng(0)
    values = draw.normal(size=(n, 2))
    return from_arrays({"a": values[:, :1], "b": values[:, 1:]}, 50 + values.sum(1) * 3)


def test_regression():
    data = numbers()
    data = data.with_task(data.task.copy().fit(data.target), data.target)

    def truth(batch):
        dense = batch.dense()
        return 50 + 3 * (dense["a"] + dense["b"])

    table = evaluate(truth, data)
    assert table.score_name == "within tolerance"
    assert table.full == 1
    assert table.frame.loc["a+b", "r2"] == pytest.approx(1, abs=1e-6)
    assert 0.2 < table.frame.loc["a", "r2"] < 0.9
    assert table.frame.loc["none", "rmse"] == pytest.approx(float(data.target.std(correction=0)), rel=1e-5)
    same(evaluate(lambda batch: truth(batch)[:, 0], data), table)


def test_several_labels():
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 2, (80, 2))
    data = from_arrays({"x": labels[:, :1] + 0.1 * draw.normal(size=(80, 1)), "y": labels[:, 1:] * 1.0}, labels)
    table = evaluate(lambda batch: torch.cat(list(batch.dense().values()), 1) * 20 - 10, data)
    assert table.kind == "multilabel"
    assert table.full == 1
    expected = (1 + (labels[:, 1] == 0).mean()) / 2
    assert table.frame.loc["x", "score"] == pytest.approx(expected)
    assert table.frame.loc["x+y", "exact_match"] == 1


@pytest.mark.parametrize("memory", [None, 1e-3])
def test_label_maps(memory):
    draw = np.random.default_rng(2)
    truth = draw.integers(0, 3, (12, 8, 8))
    present = draw.random((12, 2)) < 0.7
    present[~present.any(1), 0] = True
    images = {name: (truth + 0.2 * draw.normal(size=truth.shape)).astype(np.float32)[:, None] for name in "ab"}
    data = from_arrays(images, truth, present=present)
    task = Segmentation(3, {"all": [1, 2], "two": [2]})
    data = data.with_task(task.fit(data.target), data.target)
    torch.manual_seed(0)

    class Sum(nn.Module):
        def forward(self, tokens, chosen):
            return tokens.sum(1)

    model = MultimodalModel(
        {name: nn.Conv2d(1, 4, 1) for name in "ab"}, None, Sum(), nn.Conv2d(4, 3, 1), task=data.task
    )
    table = evaluate(model, data, batch_size=5, memory=memory)
    with torch.no_grad():
        batch = data.__getitems__(range(12))
        full = data.present.all(1)
        regions = task.region_scores(model(batch), data.target)[full]
    assert table.frame.loc["a+b", "n"] == int(full.sum())
    assert table.frame.loc["a+b", "dice all"] == pytest.approx(float(regions[:, 0].mean()))
    assert table.frame.loc["a+b", "score"] == pytest.approx(float(regions.mean()))
    assert table.baseline == task.score(task.expand(task.prior, data.target), data.target).mean()


def test_more_modalities_than_can_be_listed():
    names = [f"m{m}" for m in range(14)]
    codes, complete = subset_codes(Lattice(names), budget=100, seed=1)
    assert not complete
    assert len(set(codes)) == len(codes) == 100
    assert {1 << m for m in range(14)} | {2**14 - 1} <= set(codes)
    assert {code.bit_count() for code in codes} == set(range(1, 15))
    data = vectors(M=14, n=20, missing=0.1)
    table = evaluate(small_model(data, features=2), data, max_subsets=60)
    assert len(table) == 61
    with pytest.raises(DataError, match="exact values end at 12"):
        table.shapley()
    assert "60 of 2^14 - 1 subsets" in str(table)


def experts(data):
    fitted = {}
    for m, name in enumerate(data.names):
        rows = data.present[:, m]
        values = data.__getitems__(rows.nonzero()[:, 0].tolist()).inputs[name].numpy()
        fitted[name] = EstimatorExpert([LogisticRegression().fit(values, data.target[rows].numpy())], data.task)
    nothing = torch.full((0, len(data.names)), torch.nan)
    return References(fitted, data.task, np.array([]), {}, nothing, True)


def test_experts_above_the_model_are_named():
    data = vectors(M=2, n=80, missing=0.2)
    references = experts(data)
    untrained = evaluate(small_model(data), data, references=references)
    assert untrained.expert_scores.shape == (80, 2)
    assert np.array_equal(np.isfinite(untrained.expert_scores), data.present.numpy())
    rows = data.present[:, 1].nonzero()[:, 0]
    batch = data.__getitems__(rows.tolist())
    right = data.task.score(references.predict(batch)["m1"], batch.target)
    np.testing.assert_array_equal(untrained.expert_scores[rows, 1], right)
    below = untrained.below_experts
    assert below.loc["m1", "expert"] == "m1"
    gap = untrained.per_sample["m1"].to_numpy()[rows] - right.numpy()
    assert below.loc["m1", "difference"] == pytest.approx(gap.mean())
    assert below.loc["m1", "low"] < gap.mean() < below.loc["m1", "high"] < 0
    assert "below the best single-modality expert on 3 of 3 subsets (3 clearly)" in str(untrained)
    same_scores = dict(zip(data.names, untrained.expert_scores.T))
    given = evaluate(small_model(data), data, references=same_scores)
    np.testing.assert_array_equal(given.expert_scores, untrained.expert_scores)
    best = evaluate(small_model(data), data, references=np.zeros((80, 2)))
    assert best.below_experts.empty
    assert "on no subset is the model below" in str(best)
    common = evaluate(small_model(data), data, references=references, common_rows=True)
    shared = evaluate(small_model(data), data, references=same_scores, common_rows=True)
    np.testing.assert_array_equal(common.expert_scores, shared.expert_scores)
    with pytest.raises(DataError, match="Did you mean 'm1'"):
        evaluate(small_model(data), data, references={"m_1": np.zeros(80)})
    with pytest.raises(DataError, match="references: expected scores of shape"):
        evaluate(small_model(data), data, references=np.zeros((3, 2)))
    with pytest.raises(DataError, match="pass references="):
        _ = evaluate(small_model(data), data).below_experts


def test_bad_calls():
    data = vectors(M=2, n=30)
    model = small_model(data)
    with pytest.raises(DataError, match="with a target"):
        evaluate(model, data.with_task(data.task, None))
    with pytest.raises(DataError, match=r"pass data\.test"):
        evaluate(model, data.split(seed=0))
    with pytest.raises(ConfigError, match="callable"):
        evaluate("model", data)
    with pytest.raises(DataError, match=r"expected shape \(\d+, 3\), got \(\d+, 4\)"):
        evaluate(lambda batch: torch.zeros(len(batch), 4), data)
    with pytest.raises(DataError, match="one output for each"):
        evaluate(lambda batch: torch.zeros(2, 3), data)
    with pytest.raises(DataError, match="NaN for .* predictions; the first is sample '0' with m0"):
        evaluate(lambda batch: torch.full((len(batch), 3), torch.nan), data.hide(torch.ones(30, 2).bool()))
    with pytest.raises(ConfigError, match="resample"):
        evaluate(model, data, resample="subjects")
    with pytest.raises(ConfigError, match="groups"):
        evaluate(model, data, resample="groups")
    with pytest.raises(DataError, match="modalities"):
        evaluate(model, vectors(M=3, n=30))


def test_a_budget_for_more_subsets_than_there_are():
    codes, complete = subset_codes(Lattice([f"m{m}" for m in range(13)]), budget=8192)
    assert complete
    assert sorted(codes) == list(range(1, 2**13))
    assert [code.bit_count() for code in codes] == sorted(code.bit_count() for code in codes)


def test_the_pairs_of_one_sample_are_measured_too():
    data = vectors(M=4, n=9, missing=0.0).select([0])
    model = small_model(data, features=32)
    with torch.no_grad():
        features, pairs = model.encode(data.__getitems__([0])), data.lattice.pairs(data.present)
        assert len(pairs.rows) == 15
        assert MemoryLimit(0.001).chunk(pairs, lambda part: model.predict(features, part)) < 15
        assert MemoryLimit(1000).chunk(pairs, lambda part: model.predict(features, part)) >= 15


def test_samples_are_read_as_many_at_a_time_as_fit(monkeypatch):
    data = vectors(M=2, n=20)
    model = small_model(data)
    monkeypatch.setattr(type(data), "rows_at_once", 3)
    seen = []

    def look(batch):
        seen.append(len(batch))
        return model(batch)

    table = evaluate(look, data, references=experts(data))
    assert max(seen) <= 3
    monkeypatch.undo()
    same(evaluate(model, data), table)
