"""Completing values with flows."""

from __future__ import annotations

import sys

import pytest
import torch
from tests.helpers import vectors

from lacunar.data import from_arrays
from lacunar.data.batch import Batch
from lacunar.datasets.worlds_of_generation import generable, ungenerable
from lacunar.errors import ConfigError, MissingExtraError
from lacunar.generation.flow import FlowCompleter
from lacunar.generation.whitening import Whitening, align

QUICK = {"updates": 40, "steps": 2, "hidden": 16}


def test_whitening_and_back():
    rows = torch.randn(100, 5) @ torch.randn(5, 8)
    whitening = Whitening(8, 7).fit(rows)
    codes = whitening.encode(rows)
    assert torch.allclose(codes[:, :5].T.cov(), torch.eye(5), atol=1e-3) and not codes[:, 5:].any()
    assert torch.allclose(whitening.decode(codes), rows, atol=1e-3)


def test_alignment_is_a_rotation_that_brings_rows_together():
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(300, 4, generator=generator)
    turns = [torch.linalg.qr(torch.randn(4, 4, generator=generator))[0] for _ in range(3)]
    codes = torch.stack([common @ turn + 0.1 * torch.randn(300, 4, generator=generator) for turn in turns], 1)
    present = torch.rand(300, 3, generator=generator) < 0.7
    codes[~present] = 0
    rotations = align(codes, present)
    assert all(torch.allclose(r @ r.T, torch.eye(4), atol=1e-5) for r in rotations)
    both = present[:, 0] & present[:, 2]
    turned = [codes[both, m] @ rotations[m] for m in (0, 2)]
    assert (turned[0] - turned[1]).square().mean() < 0.05
    assert (codes[both, 0] - codes[both, 2]).square().mean() > 0.5

    rows = torch.randn(100, 3) @ torch.randn(3, 6)
    whitening = Whitening(6, 5).fit(rows)
    whitening.rotate(torch.linalg.qr(torch.randn(5, 5))[0])
    turned = whitening.encode(rows)
    assert torch.allclose(turned.T.cov() + whitening.padding, torch.eye(5), atol=1e-3)
    assert torch.allclose(whitening.decode(turned), rows, atol=1e-3)


def test_without_training_the_flow_is_a_regression_on_aligned_components():
    assert r2_of_x3(FlowCompleter(updates=0), generable(400)) > 0.5
    assert r2_of_x3(FlowCompleter(updates=0, align=False), generable(400)) < 0.1


def r2_of_x3(completer, world) -> float:
    """Share of the variance of x3 that filling from x1 and x2 explains, on samples that were not fitted to."""
    data = world.data.split(train=0.7, val=0.1, test=0.2, seed=0)
    test = data.test
    hidden = test.hide({"x3": [False] * len(test)})
    made = completer.fit(data.train).complete(hidden)
    rows = torch.arange(len(test))
    truth, filled = test.columns["x3"].take(rows)[0], made.columns["x3"].take(rows)[0]
    return 1 - float((truth - filled).square().sum() / (truth - truth.mean(0)).square().sum())


@pytest.mark.parametrize(
    "options", [{}, {"combine": "concat", "align": False}, {"combine": "gate", "align": False}], ids=str
)
def test_what_can_be_computed_is_generated(options):
    assert r2_of_x3(FlowCompleter(**options, updates=60, steps=2, hidden=16, lr=1e-2), generable(400)) > 0.5


def test_released_variant_completes_too():
    assert r2_of_x3(FlowCompleter(variant="released", updates=60, steps=2, hidden=16, lr=1e-2), generable(400)) > 0.2


def test_what_is_independent_is_not():
    assert r2_of_x3(FlowCompleter(**QUICK), ungenerable(400)) < 0.05


def test_likelihood_alone_matches_distributions_and_not_samples():
    data = generable(300).data
    completer = FlowCompleter(recon="none", **QUICK).fit(data)
    made = completer.complete(data.hide({"x3": [False] * 300})).columns["x3"].take(torch.arange(300))[0]
    truth = data.columns["x3"].take(torch.arange(300))[0]
    assert 1 - float((truth - made).square().sum() / truth.square().sum()) < 0.5
    assert 0.4 < float(made.std() / truth.std()) < 1.5


def test_completing_needs_no_labels_and_fitting_uses_only_observed_cells():
    data = vectors(5, 80, missing=0.4)
    quick = {**QUICK, "updates": 5}
    completer = FlowCompleter(**quick).fit(data)
    batch = data.__getitems__(range(30))
    unlabelled = Batch(batch.inputs, batch.present, None, batch.index)
    made = completer.complete_batch(unlabelled)
    assert made.present.all() and torch.equal(made.generated, ~batch.present)
    assert all(torch.isfinite(rows).all() for rows in made.inputs.values())
    again = FlowCompleter(**quick).fit(data).complete_batch(batch)
    assert all(torch.equal(made.inputs[name], again.inputs[name]) for name in data.names)
    other = FlowCompleter(**quick, seed=1).fit(data).complete_batch(batch)
    assert any(not torch.equal(made.inputs[name], other.inputs[name]) for name in data.names)


@pytest.mark.parametrize("target", [torch.linspace(-1, 1, 40), None], ids=["numbers", "no target"])
def test_targets_that_are_not_classes(target):
    generator = torch.Generator().manual_seed(0)
    views = {"a": torch.randn(40, 3, generator=generator), "b": torch.randn(40, 1, generator=generator)}
    views["b"][::2] = torch.nan
    data = from_arrays({name: rows.numpy() for name, rows in views.items()}, None if target is None else target.numpy())
    full = FlowCompleter(**{**QUICK, "updates": 5}).fit(data).complete(data)
    assert full.present.all()
    b = full.columns["b"].take(torch.arange(40))[0]
    seen = views["b"][1::2]
    assert seen.min() - 1e-5 <= b.min() and b.max() <= seen.max() + 1e-5


def test_one_modality_and_no_update():
    data = vectors(1, 30, missing=0.0)
    assert FlowCompleter(updates=0).fit(data).complete(data) is data


def test_without_zuko(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(MissingExtraError, match=r"'zuko': pip install 'lacunar\[flows\]'"):
        FlowCompleter(**QUICK).fit(vectors(2, 20, missing=0.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flow": "coupling"}, "unknown flow 'coupling'"),
        ({"recon": "on_full"}, "unknown recon 'on_full'"),
        ({"combine": "sum"}, "unknown combine 'sum'"),
        ({"steps": 0}, "steps: expected a number from 1, got 0"),
        ({"prior_weight": -1}, "prior_weight from 0"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ConfigError, match=message):
        FlowCompleter(**options)
