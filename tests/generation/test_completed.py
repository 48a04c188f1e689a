"""A model behind a completer, whether that helps, and the model that abstains where it does not."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tests.generation.models import trained
from tests.helpers import first_batch, fixed_references, small_model, vectors

import lacunar as lc
from lacunar.datasets.worlds_of_generation import generable, ungenerable
from lacunar.errors import ConfigError
from lacunar.generation import (
    Completed,
    MeanCompleter,
    PatternBank,
    RidgeCompleter,
    ZeroCompleter,
    abstain,
    filling_benefit,
)
from lacunar.models.blend import Blend

FAST = {"bootstrap": 300}


@pytest.fixture(scope="module")
def can():
    """The world in which x3 follows from x1 and x2, and a model that was trained on complete data only."""
    splits = generable(n=4000, seed=0).data.split(train=0.3, val=0.35, test=0.35, seed=0)
    return splits, trained(splits.train)


@pytest.fixture(scope="module")
def cannot():
    """The world in which x3 is independent of the rest, and a model that was trained on every subset."""
    splits = ungenerable(n=4000, seed=0).data.split(train=0.3, val=0.35, test=0.35, seed=0)
    return splits, trained(splits.train, every_subset=True)


@pytest.mark.parametrize("inside", [False, True], ids=["values", "features"])
def test_where_the_rest_can_be_computed_filling_recovers_the_full_score(can, inside):
    splits, model = can
    ridge = RidgeCompleter().fit(splits, model if inside else None)
    benefit = filling_benefit(model, ridge, splits.test, **FAST)
    row = benefit.loc["x1+x2"]
    full = lc.evaluate(model, splits.test, **FAST).full
    assert row["verdict"] == "helps"
    assert row["low"] > 0.01
    # Features pass a tanh and are not quite linear in each other; values are.
    assert row["filled"] == pytest.approx(full, abs=0.03 if inside else 1e-6)
    assert row["n"] == len(splits.test)
    chosen = abstain(model, ridge, splits, **FAST)
    assert chosen.lattice.index(["x1", "x2"]) in chosen.subsets
    assert chosen.benefit.loc["x1+x2", "verdict"] == "helps"
    assert lc.evaluate(chosen, splits.test, **FAST).frame.loc["x1+x2", "score"] == pytest.approx(row["filled"])


@pytest.mark.parametrize("inside", [False, True], ids=["values", "features"])
def test_where_it_is_independent_filling_gains_nothing_and_the_model_abstains(cannot, inside):
    splits, model = cannot
    ridge = RidgeCompleter().fit(splits, model if inside else None)
    benefit = filling_benefit(model, ridge, splits.test, **FAST)
    assert (benefit["verdict"] != "helps").all()
    assert abs(benefit.loc["x1+x2", "filled"] - 0.5) < 0.08
    chosen = abstain(model, ridge, splits, **FAST)
    assert chosen.subsets == []
    assert "no subset" in chosen.notes[0]
    batch = first_batch(splits.test)
    pairs = model.lattice.pairs(batch.present)
    assert torch.equal(chosen.predict_pairs(batch, pairs), model.predict_pairs(batch, pairs))


def test_benefit_is_the_paired_difference_of_two_tables(can):
    splits, model = can
    mean = MeanCompleter().fit(splits)
    benefit = filling_benefit(model, mean, splits.test, **FAST)
    filled, unfilled = lc.evaluate(Completed(model, mean), splits.test, **FAST), lc.evaluate(model, splits.test, **FAST)
    expected = filled.difference(unfilled)
    assert list(benefit.index) == ["x1", "x2", "x3", "x1+x2", "x1+x3", "x2+x3", "mean"]
    for column in ("difference", "low", "high"):
        np.testing.assert_allclose(benefit[column], expected.loc[benefit.index, column])
    np.testing.assert_allclose(benefit["difference"], benefit["filled"] - benefit["unfilled"], atol=1e-6)
    assert benefit.loc["mean", "filled"] == pytest.approx(filled.mean)


def test_intervals_that_hold_at_once_are_wider(can):
    splits, model = can
    mean = MeanCompleter().fit(splits)
    each, all_six = (filling_benefit(model, mean, splits.test, simultaneous=s, **FAST) for s in (False, True))
    assert (all_six["high"] >= each["high"]).all()
    assert (all_six["low"] <= each["low"]).all()
    assert all_six.loc["x1+x2", "low"] < each.loc["x1+x2", "low"]
    assert (all_six["difference"] == each["difference"]).all()


def test_filling_that_hurts_is_called_so(can):
    splits, model = can
    far = MeanCompleter().fit(splits)
    far.center2 += 50.0  # a filling that makes the model sure of one class
    benefit = filling_benefit(model, far, splits.test, **FAST)
    assert benefit.loc["x1+x2", "verdict"] == "hurts"
    assert 3 not in abstain(model, far, splits.val, **FAST).subsets


def test_zeros_inside_a_model_are_no_filling():
    data = vectors(3, n=40)
    model = small_model(data, completion=False).eval()
    batch = first_batch(data)
    pairs = model.lattice.pairs(batch.present)
    completed = Completed(model, ZeroCompleter().fit(data, model))
    assert torch.equal(completed.predict_pairs(batch, pairs), model.predict_pairs(batch, pairs))


def test_only_the_chosen_subsets_are_filled(tmp_path):
    data = vectors(3, n=30, missing=0.0)
    model = small_model(data).eval()
    ridge = RidgeCompleter().fit(data)
    everywhere = Completed(model, ridge)
    some = Completed(model, ridge, subsets=["m1+m0", ("m2",), 6])
    assert some.subsets == [3, 4, 6]
    assert "m0+m1, m2, m1+m2" in some.notes[0]
    batch = first_batch(data)
    pairs = model.lattice.pairs(batch.present)
    order = torch.randperm(len(pairs.rows), generator=torch.Generator().manual_seed(0))
    pairs = lc.Pairs(pairs.rows[order], pairs.codes[order])
    found, plain, filled = (m.predict_pairs(batch, pairs) for m in (some, model, everywhere))
    chosen = torch.isin(pairs.codes, torch.tensor([3, 4, 6]))
    torch.testing.assert_close(found[chosen], filled[chosen])
    torch.testing.assert_close(found[~chosen], plain[~chosen])
    assert not torch.allclose(found[chosen], plain[chosen])
    again = lc.load(lc.save(some, tmp_path / "some"))
    assert again.subsets == [3, 4, 6]
    torch.testing.assert_close(again.predict_pairs(batch, pairs), found)


def test_a_callable_can_be_completed_on_values():
    data = vectors(3, n=30, missing=0.0)
    model = small_model(data).eval()

    class Plain(torch.nn.Module):
        names = data.names

        def forward(self, batch):
            return model(batch)

    ridge = RidgeCompleter().fit(data)
    batch = first_batch(data)
    pairs = model.lattice.pairs(batch.present)
    expected = Completed(model, ridge).predict_pairs(batch, pairs)
    torch.testing.assert_close(Completed(Plain(), ridge).predict_pairs(batch, pairs), expected)
    some = Completed(Plain(), ridge, subsets=["m0"])
    assert lc.evaluate(some, data, bootstrap=10, task=data.task).frame["score"].notna().all()


def experts(data):
    references = fixed_references(data)
    for name, expert in references.experts.items():
        rows = data.columns[name].take(torch.arange(len(data)))[0].numpy()
        expert.estimators.append(LogisticRegression().fit(rows, data.target.numpy()))
        expert.weights = torch.ones(1)
    return references


@pytest.mark.parametrize("inside", [False, True], ids=["values", "features"])
def test_experts_speak_about_what_was_observed(inside):
    """Inside a model the joint part sees the filling, the pool of experts stays that of the subset."""
    data = vectors(3, n=30, missing=0.0)
    joint = small_model(data).eval()
    blend = Blend(joint, experts(data), [0.0] * 3, 0.7, 0.3, dict.fromkeys(data.names, 0.5), 0.5).eval()
    bank = PatternBank().fit(data, blend if inside else None)
    batch = first_batch(data)
    pairs = joint.lattice.pairs(batch.present)
    output = Completed(blend, bank).predict_pairs(batch, pairs, chunk=11)
    if inside:
        filled = Completed(joint, bank).predict_pairs(batch, pairs)
        expected = blend.combine(filled, blend.encode(batch), pairs)
        torch.testing.assert_close(output, expected)
    assert output.shape == (len(pairs.rows), 3)
    assert lc.evaluate(Completed(blend, bank), data, bootstrap=10).frame["score"].notna().all()


def test_predictions_for_data_with_gaps():
    data = vectors(3, n=30)
    data.task.fit(data.target)
    completed = Completed(small_model(data).eval(), RidgeCompleter().fit(data))
    assert len(lc.predict(completed, data)) == len(data)


def test_what_does_not_fit_together_is_refused():
    data = vectors(3, n=30)
    model = small_model(data)
    with pytest.raises(ConfigError, match="expected a fitted completer"):
        Completed(model, RidgeCompleter())
    with pytest.raises(ConfigError, match="the completer was fitted to"):
        Completed(model, RidgeCompleter().fit(vectors(2, n=30)))
    with pytest.raises(lc.errors.DataError, match="unknown modality 'm7'"):
        Completed(model, RidgeCompleter().fit(data), subsets=["m7"])
