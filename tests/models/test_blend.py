import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tests.helpers import first_batch, small_model, vectors

import lacunar as lc
from lacunar.data.splits import Splits
from lacunar.errors import ConfigError
from lacunar.evaluation import evaluate
from lacunar.models.blend import Blend
from lacunar.models.saving import load_model, save_model
from lacunar.training.blend import fit_blend


def parts(M=3, n=150, **options):
    data = vectors(M, n=n, strength=1.0, **options)
    order = np.random.default_rng(0).permutation(len(data))
    return Splits(data.select(order[: n // 2]), data.select(order[n // 2 :]))


@pytest.fixture(scope="module")
def made():
    splits = parts()
    found = lc.references(splits.train, models={name: LogisticRegression() for name in splits.train.names})
    return splits, found, fit_blend(small_model(splits.train), found, splits.train, splits.val)


def test_an_untrained_joint_model_counts_little(made):
    _, _, blend = made
    assert blend.joint_weight < 0.5 < blend.expert_weight  # both start at one half


def test_absent_inputs_and_batch_mates_change_nothing(made):
    splits, _, blend = made
    batch = first_batch(splits.val)
    together = blend(batch)
    for n in (0, 7, 20):
        torch.testing.assert_close(together[n], blend(splits.val[n])[0], rtol=1e-5, atol=1e-5)


def test_all_subsets_in_one_pass_are_the_subsets_one_by_one(made):
    splits, _, blend = made
    full = splits.val.select(splits.val.present.all(1))
    batch = first_batch(full)
    pairs = blend.lattice.pairs(batch.present)
    at_once = blend.predict_pairs(batch, pairs)
    for code in blend.lattice.subsets:
        rows = pairs.codes == code
        alone = blend(batch.hide(blend.lattice.subset(code)))
        torch.testing.assert_close(at_once[rows], alone, rtol=1e-5, atol=1e-5)


def test_without_the_joint_model_one_expert_is_the_expert(made):
    splits, found, blend = made
    alone = Blend(blend.joint, found, blend.prior.tolist(), 0.0, 1.0, dict.fromkeys(blend.names, 1.0), 0.5)
    batch = first_batch(splits.val).hide(["m1"])
    rows = batch.present.any(1)
    kept = splits.val.select(rows)
    said = alone(first_batch(kept).hide(["m1"]))
    torch.testing.assert_close(said.softmax(1), found.predict(first_batch(kept))["m1"].softmax(1), rtol=1e-4, atol=1e-5)


def test_one_object_to_save_and_load(made, tmp_path):
    splits, _, blend = made
    save_model(blend, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    batch = first_batch(splits.val)
    assert torch.equal(loaded(batch), blend(batch))
    assert repr(loaded) == repr(blend)


def test_it_is_at_least_as_good_as_its_parts_on_validation(made):
    splits, _, blend = made
    loss = {"blend": log_loss(blend, splits.val), "joint": log_loss(blend.joint, splits.val)}
    assert loss["blend"] <= loss["joint"]


def log_loss(model, data):
    return evaluate(model, data, bootstrap=0).frame["log_loss"].iloc[1:].mean()


@pytest.mark.parametrize("M", [1, 2, 6, 7])
def test_any_number_of_modalities(M):
    splits = parts(M, n=80, missing=0.2)
    found = lc.references(splits.train, models={name: LogisticRegression() for name in splits.train.names})
    blend = fit_blend(small_model(splits.train), found, splits.train, splits.val)
    assert torch.isfinite(blend(first_batch(splits.val))).all()


def test_experts_are_placed_by_name(made):
    splits, _, blend = made
    turned = lc.references(splits.train.select(range(75)), models={n: LogisticRegression() for n in blend.names})
    turned.experts = dict(reversed(turned.experts.items()))
    assert turned.names == blend.names[::-1]
    again = fit_blend(blend.joint, turned, splits.train, splits.val)
    assert again.shares == blend.shares
    batch = first_batch(splits.val)
    assert torch.equal(again(batch), blend(batch))


def test_experts_for_other_modalities_are_refused(made):
    splits, _, blend = made
    fewer = splits.train.only(["m0", "m1"])
    other = lc.references(fewer, models={name: LogisticRegression() for name in fewer.names})
    with pytest.raises(ConfigError, match=r"'m1', 'm2'\), the references are for \('m0', 'm1'\)"):
        fit_blend(blend.joint, other, splits.train, splits.val)
    with pytest.raises(ConfigError, match="the references are for"):
        Blend(blend.joint, other, blend.prior.tolist(), 0.5, 0.5, blend.shares, 0.5)


def test_in_sample_references_are_refused():
    splits = parts(2, n=80)
    quick = {name: LogisticRegression() for name in splits.train.names}
    found = lc.references(splits.train, models=quick, out_of_fold=False)
    with pytest.raises(ConfigError, match="were scored in sample"):
        fit_blend(small_model(splits.train), found, splits.train, splits.val)
