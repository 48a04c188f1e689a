from __future__ import annotations

import numpy as np
import pytest
import torch

from lacunar.data.arrays import from_arrays
from lacunar.errors import ConfigError, DataError
from lacunar.evaluation import evaluate
from lacunar.lattice import Lattice
from lacunar.planning.ranking import rank
from lacunar.planning.reliance import (
    intershap,
    intershap_score,
    permuted_utilities,
    replaced_utilities,
    sample_contributions,
)
from tests.helpers import small_model, vectors

N = 400


def world(rule, n=N, seed=0, shift=0.0):
    """Three normal numbers of a sample, and the class that a rule of them gives."""
    numbers = np.random.default_rng(seed).normal(size=(3, n, 1))
    target = (rule(*numbers[:, :, 0]) > 0).astype(int)
    return from_arrays(dict(zip("abc", numbers + shift)), target)


def model_of(rule, shift=0.0):
    """A callable that knows the rule, as logits of two classes."""

    def model(batch):
        a, b, c = (values[:, 0] - shift for values in batch.dense().values())
        logit = rule(a, b, c)
        return torch.stack([-logit, logit], 1)

    return model


def product(a, b, c):
    return a * b


def weighted(a, b, c):
    return 2 * a + b + 0 * c


# ---------------------------------------------------------------- replaced by constants


def test_xor_by_replacing():
    data = world(product)
    table = replaced_utilities(model_of(product), data, "accuracy", fill="zeros")
    assert table.estimator == "masked" and table.metric == "accuracy" and table.values.shape == (1, 8)
    guess = float((data.target == 0).double().mean())  # a tie of logits is the first class
    values = dict(zip((table.lattice.label(code) for code in range(8)), table.mean))
    assert values["a+b"] == values["a+b+c"] == 1
    for label in ("a", "b", "c", "a+c", "b+c"):
        assert values[label] == pytest.approx(guess)
    assert values["none"] == pytest.approx(float(data.target.double().mean().clamp(min=0.5)), abs=0.06)
    shape = rank(table, "shape", size=2)
    assert shape.top == "a+b" and any("ONE trained model" in note for note in shape.notes)
    phi = rank(table, "shapley").frame["score"]
    assert phi["a"] == pytest.approx(phi["b"]) and abs(phi["c"]) < 0.05


def test_the_mean_is_that_of_the_training_samples():
    train, data = world(weighted, shift=5.0), world(weighted, n=50, seed=1, shift=5.0)
    seen = []

    def model(batch):
        seen.append({name: values.clone() for name, values in batch.inputs.items()})
        return model_of(weighted, 5.0)(batch)

    table = replaced_utilities(model, data, "accuracy", train=train, batch_size=20)
    mean = {name: float(rows.mean()) for name, rows in train.__getitems__(range(N)).inputs.items()}
    own = {name: rows for name, rows in data.__getitems__(range(20)).inputs.items()}
    for batch, code in zip(seen[::3], table.lattice.subsets):
        for m, name in enumerate("abc"):
            expected = own[name] if code >> m & 1 else torch.full((20, 1), mean[name])
            assert torch.allclose(batch[name], expected)
    assert not table.notes
    # Zeros are far from samples around 5, so a modality that is taken away like that looks worse than it is.
    zeros = replaced_utilities(model_of(weighted, 5.0), data, "accuracy", fill="zeros", train=train)
    assert zeros.value("a") < table.value("a") - 0.2
    assert any("zeros" in note for note in zeros.notes)


def test_absent_is_what_evaluate_reads():
    data = vectors(n=80, missing=0.3)
    data.task.fit(data.target)
    model = small_model(data)
    table = replaced_utilities(model, data, "accuracy", fill="absent")
    expected = evaluate(model, data, common_rows=True, bootstrap=10)
    assert table.mean == pytest.approx(expected.values.numpy(), abs=1e-6)
    complete = int(data.present.all(1).sum())
    assert table.n_eval.max() == complete and any(f"on the {complete} of 80 samples" in note for note in table.notes)


def test_a_model_of_the_library_is_read_by_its_pairs():
    data = vectors(n=60, missing=0.0)
    model = small_model(data).requires_grad_(False)
    table = replaced_utilities(model, data, "log_loss", fill="zeros", train=data)
    batch = data.__getitems__(range(60))
    for code in range(1, 8):
        inputs = {n: x if code >> m & 1 else torch.zeros_like(x) for m, (n, x) in enumerate(batch.inputs.items())}
        batch_there = type(batch)(inputs, batch.present, batch.target, batch.index)
        loss = data.task.loss(model(batch_there), batch.target, smoothing=0.0)
        assert table.mean[code] == pytest.approx(-float(loss.mean()), abs=1e-5)
    shares = torch.bincount(data.target).double() / 60
    assert table.mean[0] == pytest.approx(float((shares * shares.log()).sum()), abs=1e-5)


def test_intervals_come_from_the_samples_or_their_groups():
    data = world(weighted)
    table = replaced_utilities(model_of(weighted), data, "accuracy")
    frame = rank(table).frame
    assert (frame["low"] <= frame["score"]).all() and frame["p_top"].sum() == pytest.approx(1)
    numbers = np.random.default_rng(0).normal(size=(3, 60, 1))
    grouped = from_arrays(dict(zip("abc", numbers)), (numbers[0, :, 0] > 0).astype(int), groups=np.arange(60) // 20)
    table = replaced_utilities(model_of(weighted), grouped, "accuracy")
    assert len(np.unique(table.units[0])) == 3


# ---------------------------------------------------------------- permuted


def test_perceptual_scores():
    data = world(weighted, n=1000)
    table = permuted_utilities(model_of(weighted), data, "accuracy", permutations=8)
    assert table.estimator == "permuted" and table.config["permutations"] == 8
    scores = rank(table, "perceptual").frame["score"]
    # sign(2a + b) against sign(2a + b'): the angle between the two directions over pi.
    assert scores["b"] == pytest.approx(np.arccos(4 / 5) / np.pi, abs=0.02)
    assert scores["a"] == pytest.approx(np.arccos(1 / 5) / np.pi, abs=0.02)
    assert scores["c"] == 0
    together = rank(table, "perceptual", size=2).frame["score"]
    assert together["a+b"] == pytest.approx(0.5, abs=0.03) and together["b+c"] == pytest.approx(scores["b"])


def test_nobody_keeps_their_own_and_the_rest_moves_together():
    number = np.arange(30.0)[:, None]
    data = from_arrays({"a": number, "b": number, "c": number}, np.arange(30) % 2)

    def model_for(first, second):
        def model(batch):
            shown = batch.dense()
            same = (shown[first] == shown[second])[:, 0]
            answer = torch.where(same, batch.target, 1 - batch.target)
            return torch.nn.functional.one_hot(answer, 2).float()

        return model

    # Right where two modalities are of the same sample, wrong elsewhere.
    table = permuted_utilities(model_for("b", "c"), data, "accuracy", batch_size=7)
    values = {table.lattice.label(code): table.mean[code] for code in range(1, 8)}
    assert values == {"a": 1, "b": 0, "c": 0, "a+b": 0, "a+c": 0, "b+c": 1, "a+b+c": 1}


def test_permutations_are_seeded_and_averaged():
    data, model = world(weighted, n=100), model_of(weighted)
    first, again = (permuted_utilities(model, data, "accuracy", seed=3) for _ in range(2))
    assert (first.values == again.values).all()
    assert (first.values != permuted_utilities(model, data, "accuracy", seed=4).values).any()
    assert any("of 2 permutations only" in n for n in permuted_utilities(model, data, permutations=2).notes)
    spread = [
        np.std([permuted_utilities(model, data, "accuracy", permutations=k, seed=s).value("a") for s in range(12)])
        for k in (1, 16)
    ]
    assert spread[1] < spread[0] / 2


def test_sequences_move_with_their_lengths():
    draw = np.random.default_rng(0)
    target = np.arange(40) % 2
    steps = [np.full((int(draw.integers(2, 9)), 2), 1.0 if y else -1.0, dtype=np.float32) for y in target]
    data = from_arrays({"s": steps, "v": draw.normal(size=(40, 2))}, target)

    def model(batch):
        total = batch.dense()["s"][..., 0].sum(1)
        assert (total.abs() - batch.lengths["s"]).abs().max() < 1e-4  # every step of every sample is real
        return torch.stack([-total, total], 1)

    table = permuted_utilities(model, data, "accuracy", batch_size=11)
    assert table.value("s") == 1 and table.value("v") == pytest.approx(0.5, abs=0.15)

    seen = []

    def watched(batch):
        seen.append(batch)
        return model(batch) if not seen[:-1] else torch.zeros(len(batch), 2)

    replaced_utilities(watched, data, "accuracy", train=data, batch_size=40)
    mean = np.concatenate(steps).mean(0)
    batch = seen[1]  # the subset {v}
    for row, length in zip(batch.inputs["s"], batch.lengths["s"]):
        assert torch.allclose(row[:length], torch.tensor(mean).expand(int(length), 2), atol=1e-6)
        assert (row[length:] == 0).all()


# ---------------------------------------------------------------- InterSHAP


def test_intershap_of_xor_and_of_a_sum():
    data = world(product)
    assert intershap(model_of(product), data, fill="zeros") == pytest.approx(1)
    assert intershap(model_of(product), data, fill="zeros", aggregate="mean_abs") == pytest.approx(1)
    assert intershap(model_of(weighted), data) == pytest.approx(0, abs=1e-6)
    # Probabilities saturate, so that a sum of logits interacts there.
    assert intershap(lambda batch: 3 * model_of(weighted)(batch), data, space="probabilities") > 0.05


def test_intershap_of_opposite_interactions():
    """For a fixed output, half of the samples interact one way and half the other."""
    numbers = np.random.default_rng(0).choice([-1.0, 1.0], size=(2, N, 1))
    data = from_arrays({"a": numbers[0], "b": numbers[1]}, numbers[0, :, 0] * 3 + 0.1, task="regression")

    def model(batch):
        a, b = (values[:, 0] for values in batch.dense().values())
        return a * b + a + 3

    assert intershap(model, data, fill="zeros", aggregate="mean_abs") == pytest.approx(0.5, abs=0.01)
    assert intershap(model, data, fill="zeros") != pytest.approx(0.5, abs=0.01)


def test_intershap_by_hand():
    lattice = Lattice(["a", "b"])
    game = np.array([[0.0, 1.0, 2.0, 5.0]])  # SV (2, 3), interaction 2: phi_ab = 1, phi_aa = 1, phi_bb = 2
    assert intershap_score(game, lattice) == pytest.approx(2 / 5)
    mirrored = np.concatenate([game, -game])
    assert np.isnan(intershap_score(mirrored, lattice))
    assert intershap_score(mirrored, lattice, "mean_abs") == pytest.approx(2 / 5)
    assert intershap_score(np.array([[0.0, 1.0]]), Lattice(["a"])) == 0


def test_intershap_of_three_by_the_formula():
    lattice, rng = Lattice(["a", "b", "c"]), np.random.default_rng(0)
    games = rng.normal(size=(20, 8))
    mean = games.mean(0)
    codes, found = lattice.interactions(mean, 2)
    index = dict(zip(codes.tolist(), found))
    phi = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            if i != j:
                phi[i, j] = index[1 << i | 1 << j] / 2
    for i in range(3):
        phi[i, i] = index[1 << i] - phi[i].sum()
    off = np.abs(phi).sum() - np.abs(np.diag(phi)).sum()
    assert intershap_score(games, lattice) == pytest.approx(off / np.abs(phi).sum())


def test_intershap_needs_no_target_for_what_is_predicted():
    data = world(product)
    bare = data.with_task(data.task, None)
    value = intershap(model_of(product), bare, fill="zeros")
    assert value == pytest.approx(intershap(model_of(product), data, fill="zeros", of="target"))
    with pytest.raises(DataError, match="Expected data with a target"):
        intershap(model_of(product), bare, of="target")


# ---------------------------------------------------------------- samples


def test_contributions_to_each_sample():
    """All eight cases of right and wrong with a, b and both: (v(a) + v(ab) - v(b)) / 2 of Wei et al."""
    cases = [(a, b, ab) for a in (0, 1) for b in (0, 1) for ab in (0, 1)]
    answers = np.array(cases, dtype=np.float32)
    data = from_arrays({"a": answers, "b": answers}, np.arange(8) % 2)

    def model(batch):
        code = int(data.lattice.encode(batch.present)[0])
        table = next(values for values in batch.inputs.values() if len(values))
        right = table[:, code - 1] > 0
        answer = torch.where(right, batch.target, 1 - batch.target)
        return torch.nn.functional.one_hot(answer, 2).float()

    found = sample_contributions(model, data)
    for (a, b, ab), row in zip(cases, found.to_numpy()):
        assert row == pytest.approx([(a + 2 * ab - b) / 2, (b + 2 * ab - a) / 2])
        assert row.sum() == pytest.approx(2 * ab)
    assert set(found.to_numpy().ravel()) == {-0.5, 0.0, 0.5, 1.0, 1.5}
    some = sample_contributions(model, data.hide({"a": np.arange(8) % 2 == 0}))
    assert some["a"].isna().tolist() == [False, True] * 4
    assert some.loc["1", "b"] == pytest.approx(cases[1][1])  # what is alone gets what it does alone


# ---------------------------------------------------------------- wrong input


def test_wrong_input():
    data, model = world(weighted, n=20), model_of(weighted)
    with pytest.raises(ConfigError, match="fill: unknown 'meen'. Did you mean 'mean'"):
        replaced_utilities(model, data, fill="meen")
    with pytest.raises(ConfigError, match="metric: unknown 'acuracy'. Did you mean 'accuracy'"):
        replaced_utilities(model, data, "acuracy")
    with pytest.raises(ConfigError, match="permutations: expected at least 1, got 0"):
        permuted_utilities(model, data, permutations=0)
    with pytest.raises(ConfigError, match="aggregate: unknown 'mean'"):
        intershap(model, data, aggregate="mean")
    with pytest.raises(DataError, match="pass data.test or data.val"):
        replaced_utilities(model, data.split(0.6, 0.2, 0.2))
    with pytest.raises(DataError, match="Expected data with a target"):
        replaced_utilities(model, data.with_task(data.task, None))
    with pytest.raises(DataError, match="two samples with every modality to swap, got one"):
        permuted_utilities(model, data.select([0]))
    with pytest.raises(DataError, match=r"expected shape \(20, 2, ...\), got \(20, 3\)"):
        replaced_utilities(lambda batch: torch.zeros(len(batch), 3), data)
    with pytest.raises(DataError, match="output is NaN when a is shown"):
        replaced_utilities(lambda batch: torch.full((len(batch), 2), torch.nan), data)


def test_samples_without_everything():
    present = np.ones((20, 3), dtype=bool)
    present[:, 2] = False
    present[0, :] = [False, False, True]
    half = world(weighted, n=20).hide(present)
    with pytest.raises(DataError, match="None of the 20 samples has all modalities"):
        replaced_utilities(model_of(weighted), half)


def test_tokens_have_no_mean():
    data = from_arrays({"text": [[1, 2], [3], [2, 2]], "v": np.zeros((3, 1))}, [0, 1, 0], kinds={"text": "tokens"})
    for fill in ("mean", "zeros"):
        with pytest.raises(DataError, match=f"'text' holds tokens, which have no {fill}. Use fill='absent'"):
            replaced_utilities(lambda batch: torch.zeros(len(batch), 2), data, fill=fill)
