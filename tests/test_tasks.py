"""Tasks: raw labels to tensors and back, losses and scores by hand and against torch, scikit-learn and torchmetrics."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from lacunar.errors import ConfigError, DataError
from lacunar.tasks import (
    Classification,
    MultiLabel,
    Regression,
    Segmentation,
    Task,
    infer_task,
    task_from_config,
)

LABELS = {
    "text": ["cat", "dog", "cat", "ant"],
    "integers": [3, 1, 3, 2],
    "booleans": [True, False, True, True],
    "whole floats": [1.0, 0.0, 1.0, 0.0],
    "numpy integers": np.array([5, 7, 5, 9], dtype=np.int8),
    "tensor": torch.tensor([0, 2, 1, 2]),
    "series": pd.Series(["b", "a", "b", "c"], index=[9, 8, 7, 6]),
    "categories": pd.Series(pd.Categorical(["low", "high", "low", "low"])),
    "column": np.array([[1], [2], [1], [2]]),
    "objects": np.array([1, 2, 1, 2], dtype=object),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_labels_of_any_type_come_back(labels):
    task = infer_task(labels)
    assert isinstance(task, Classification)
    encoded = task.encode(labels)
    assert encoded.dtype == torch.int64
    assert encoded.shape == (4,)
    assert list(task.classes) == sorted(task.classes)
    flat = np.asarray(labels).reshape(-1)
    assert task.decode(encoded).tolist() == flat.tolist()
    logits = torch.nn.functional.one_hot(encoded, task.n_outputs).float()
    assert task.decode(logits).tolist() == flat.tolist()
    again = task_from_config(json.loads(json.dumps(task.to_config())))
    assert again == task
    assert torch.equal(again.encode(labels), encoded)


@pytest.mark.parametrize(
    ("target", "kind", "outputs"),
    [
        (np.random.default_rng(0).normal(size=30), "regression", 1),
        (np.random.default_rng(0).normal(size=(30, 3)), "regression", 3),
        (np.arange(30.0), "regression", 1),
        (np.arange(30), "regression", 1),
        (np.arange(30) % 5, "classification", 5),
        ((np.arange(30) % 5).astype(float), "classification", 5),
        (np.eye(4)[np.arange(12) % 4], "multilabel", 4),
        (np.eye(4, dtype=bool), "multilabel", 4),
        ([{"x", "y"}, {"y"}, set()], "multilabel", 2),
        ([["x", "y"], ["y"], []], "multilabel", 2),
        ([["x", "y"], ["y", "z"]], "multilabel", 3),
        ([["x"], ["y"], ["x"]], "multilabel", 2),
        ([("x", "y"), ("y", "z")], "multilabel", 3),
        (np.arange(32).reshape(2, 4, 4) % 3, "segmentation", 3),
        (np.arange(128).reshape(2, 4, 4, 4) % 4, "segmentation", 4),
    ],
)
def test_the_task_follows_the_target(target, kind, outputs):
    task = infer_task(target)
    assert (task.kind, task.n_outputs) == (kind, outputs)
    assert len(task.encode(target)) == len(target)


def test_collections_of_equal_length_are_collections():
    target = [["a", "b"], ["b", "c"], ["a", "c"]]
    task = infer_task(target, "multilabel")
    assert task.labels == ("a", "b", "c")
    assert task.encode(target).tolist() == [[1, 1, 0], [0, 1, 1], [1, 0, 1]]


def test_a_named_task_overrides_what_the_target_looks_like():
    ages = [31, 40, 31, 52]
    assert infer_task(ages).kind == "classification"
    assert infer_task(ages, "regression").kind == "regression"
    given = Regression(tolerance=2.0)
    assert infer_task(ages, given) is given
    with pytest.raises(ConfigError, match="Did you mean 'regression'"):
        infer_task(ages, "regresion")
    with pytest.raises(DataError, match=r"shape \(2, 2\).*task='classification'"):
        infer_task(np.array([[1, 5], [2, 7]]))
    with pytest.raises(DataError, match="at least one sample"):
        infer_task([])


@pytest.mark.parametrize(
    ("task", "target", "message"),
    [
        (Classification(["a", "b"]), ["a", None, "b"], r"row 1: expected a class, got None \(1 rows"),
        (Classification([0, 1]), np.array([0.0, np.nan]), "row 1: expected a class, got nan"),
        (Classification(["cat", "dog"]), ["cat", "dgo"], "row 1: unknown class 'dgo'. Did you mean 'dog'"),
        (Classification([1, 2]), [[1, 2]], r"shape \(1, 2\)"),
        (Classification(["a", "b"]), [["a"], ["b"]], r"row 0: expected one class, got \['a'\].*task='multilabel'"),
        (MultiLabel(2), [[0, 1], [2, 0]], "row 1, label 0: expected 0 or 1, got 2"),
        (MultiLabel(["x", "y"]), [{"x"}, {"z"}], "row 1: unknown label 'z'"),
        (MultiLabel(3), [[0, 1]], "3 labels per sample"),
        (Regression(), [1.0, np.inf], "row 1: expected a finite number, got inf"),
        (Regression(), ["a", "b"], "expected a number for every sample"),
        (Regression(2), [1.0, 2.0], r"shape \(N, 2\)"),
        (Segmentation([0, 1]), np.full((1, 2, 2), 4), "row 0: expected the classes .* got 4 in 4 places"),
        (Segmentation(2), np.zeros((3, 4)), "label maps"),
    ],
)
def test_bad_targets_are_refused(task, target, message):
    with pytest.raises(DataError, match=message):
        task.encode(target)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Classification(["a", "a"]), "distinct"),
        (lambda: Classification(["a"]), "at least two"),
        (lambda: Classification(2, label_smoothing=1.0), "label_smoothing"),
        (lambda: Regression(tolerance=-1.0), "tolerance"),
        (lambda: Regression(3, tolerance=[1.0, 2.0]), "tolerance"),
        (lambda: Segmentation(3, score="dise"), "Did you mean 'dice'"),
        (lambda: Segmentation(3, regions={"X": [7]}), "'X' names"),
        (lambda: Classification(2).class_weights, "fit"),
        (lambda: task_from_config({"kind": "classfication"}), "Did you mean 'classification'"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises((ConfigError, DataError), match=message):
        make()


def test_cross_entropy_with_smoothing_and_balance():
    generator = torch.Generator().manual_seed(0)
    output, target = torch.randn(6, 3, generator=generator), torch.tensor([0, 1, 2, 0, 0, 1])
    task = Classification(3).fit(target)
    torch.testing.assert_close(task.loss(output, target), -output.log_softmax(1)[range(6), target])
    smooth = torch.full((6, 3), 0.1 / 3).scatter(1, target[:, None], 0.9 + 0.1 / 3)
    expected = -(smooth * output.log_softmax(1)).sum(1)
    torch.testing.assert_close(task.loss(output, target, smoothing=0.1), expected)
    torch.testing.assert_close(Classification(3, label_smoothing=0.1).loss(output, target), expected)
    assert task.class_counts.tolist() == [3, 2, 1]
    torch.testing.assert_close(task.class_weights, torch.tensor([6 / 9, 1.0, 2.0]))
    weighted = Classification(3, balanced=True).fit(target).loss(output, target)
    torch.testing.assert_close(weighted, task.loss(output, target) * task.class_weights[target])
    assert task.score(output, target).tolist() == (output.argmax(1) == target).float().tolist()
    with pytest.raises(DataError, match="got none of class 2"):
        task.fit(torch.tensor([0, 1, 1]))


def test_multilabel_loss_and_score_by_hand():
    output, target = torch.tensor([[2.0, -1.0], [0.5, 3.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    task = MultiLabel(["x", "y"])
    assert task.score(output, target).tolist() == [0.5, 0.5]
    expected = functional.binary_cross_entropy(output.sigmoid(), target, reduction="none").mean(1)
    torch.testing.assert_close(task.loss(output, target), expected)
    assert task.encode([{"x", "y"}, {"y"}]).tolist() == [[1, 1], [0, 1]]
    assert task.decode(output).tolist() == [[1, 0], [1, 1]]
    assert task.decode(target).tolist() == [[1, 1], [0, 1]]


def test_regression_in_units_of_the_train_spread():
    train = torch.tensor([0.0, 10.0, 20.0])
    task = Regression().fit(train)
    std = float(train.std(correction=0))
    output, target = torch.tensor([[5.0], [15.0]]), torch.tensor([4.0, 25.0])
    torch.testing.assert_close(task.loss(output, target), torch.tensor([1.0, 100.0]) / std**2)
    torch.testing.assert_close(task.loss(output[:, 0], target), task.loss(output, target))
    assert task.tolerance.tolist() == pytest.approx([std / 2])
    assert task.score(output, target).tolist() == [1.0, 0.0]
    assert Regression(tolerance=10.0).score(output, target).tolist() == [1.0, 1.0]
    several = Regression(2, tolerance=[1.0, 3.0])
    assert several.score(torch.zeros(1, 2), torch.tensor([[2.0, 2.0]])).tolist() == [0.5]
    with pytest.raises(ConfigError, match="needs a tolerance"):
        Regression().score(output, target)
    assert Regression().fit(torch.ones(4)).std.tolist() == [1.0]


def test_fitting_again_replaces_and_copies_are_independent():
    task = Regression().fit(torch.tensor([0.0, 2.0]))
    other = task.copy().fit(torch.tensor([0.0, 200.0]))
    assert task.std.tolist() == [1.0]
    assert other.std.tolist() == [100.0]
    assert task.fit(torch.tensor([0.0, 2.0])) == task
    assert task != other


def test_dice_and_iou_conventions():
    truth = torch.tensor([[[0, 1], [1, 2]], [[0, 0], [0, 0]], [[0, 0], [0, 0]], [[1, 1], [0, 0]]])
    said = torch.tensor([[[0, 1], [2, 2]], [[0, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 0], [0, 0]]])
    output = torch.nn.functional.one_hot(said, 3).movedim(-1, 1).float()
    dice = Segmentation(3).region_scores(output, truth)
    # Class 1: one of two and one voxel; class 2: one of two and one.
    expected = [[2 / 3, 2 / 3], [1, 1], [0, 1], [0, 1]]
    torch.testing.assert_close(dice, torch.tensor(expected))
    torch.testing.assert_close(Segmentation(3).score(output, truth), torch.tensor(expected).mean(1))
    iou = Segmentation(3, score="iou").region_scores(output, truth)
    torch.testing.assert_close(iou, torch.tensor([[0.5, 0.5], [1, 1], [0, 1], [0, 1]]))


def test_overlapping_regions_against_torchmetrics():
    from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

    generator = torch.Generator().manual_seed(1)
    truth = torch.randint(0, 4, (3, 4, 5, 6), generator=generator)
    output = torch.randn(3, 4, 4, 5, 6, generator=generator)
    regions = {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
    task = Segmentation([0, 1, 2, 4], regions)
    raw = torch.tensor([0, 1, 2, 4])[truth]
    assert torch.equal(task.encode(raw), truth)
    assert np.array_equal(task.decode(truth), raw.numpy())
    found, said = task.region_scores(output, truth), output.argmax(1)
    iou = Segmentation([0, 1, 2, 4], regions, score="iou").region_scores(output, truth)
    for r, codes in enumerate(([1, 2, 3], [1, 3], [3])):
        for i in range(3):
            inside = [torch.isin(x[i], torch.tensor(codes)).long().flatten() for x in (said, truth)]
            torch.testing.assert_close(found[i, r], binary_f1_score(*inside))
            torch.testing.assert_close(iou[i, r], binary_jaccard_index(*inside))


def test_segmentation_loss_and_its_dice_option():
    generator = torch.Generator().manual_seed(2)
    truth = torch.randint(0, 3, (2, 4, 4), generator=generator)
    output = torch.randn(2, 3, 4, 4, generator=generator, requires_grad=True)
    plain = Segmentation(3).loss(output, truth)
    torch.testing.assert_close(plain, functional.cross_entropy(output, truth, reduction="none").mean((1, 2)))
    perfect = 50 * torch.nn.functional.one_hot(truth, 3).movedim(-1, 1).float()
    task = Segmentation(3, dice_loss=1.0)
    assert task.loss(perfect, truth).max() < 1e-4
    extra = task.loss(output, truth) - plain
    assert ((extra > 0) & (extra < 1)).all()
    extra.sum().backward()
    assert torch.isfinite(output.grad).all()
    empty = torch.zeros(1, 4, 4, dtype=torch.int64)
    sure = torch.stack([torch.full((1, 4, 4), 50.0), *[torch.zeros(1, 4, 4)] * 2], dim=1)
    assert float(task.loss(sure, empty)) < 1e-4


TASKS: list[tuple[Task, torch.Tensor]] = [
    (Classification(["x", "y", "z"], label_smoothing=0.1, balanced=True), torch.tensor([0, 1, 2, 2, 2])),
    (MultiLabel(["p", "q"]), torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])),
    (Regression(2, tolerance=[0.5, 1.0]), torch.arange(10.0).reshape(5, 2)),
    # Not by chance: every 750th draw has classes as often in four of the maps as in all five.
    (Segmentation([0, 1, 4], {"any": [1, 4]}, "iou", 0.5), torch.arange(80).reshape(5, 4, 4) % 3),
]


@pytest.mark.parametrize(("task", "target"), TASKS, ids=lambda value: getattr(value, "kind", ""))
def test_what_every_task_keeps(task: Task, target: torch.Tensor):
    task = task.copy().fit(target)
    again = task_from_config(json.loads(json.dumps(task.to_config())))
    assert again == task
    assert task != task.copy().fit(target[:-1] if task.kind != "classification" else target[[0, 1, 2]])
    output = task.expand(task.baseline(target), target)
    assert output.shape == (len(target), task.n_outputs, *(target.shape[1:] if task.kind == "segmentation" else ()))
    for values in (task.loss(output, target), task.score(output, target)):
        assert values.shape == (len(target),)
        assert torch.isfinite(values).all()
    assert ((task.score(output, target) >= 0) & (task.score(output, target) <= 1)).all()
    torch.testing.assert_close(task.prior, task.baseline(target))
    torch.testing.assert_close(task.loss(output, target), again.loss(output, target))
    random = torch.randn_like(output)
    probability = task.probabilities(random)
    torch.testing.assert_close(task.probabilities(task.from_probabilities(probability)), probability)
    if task.kind != "regression":
        torch.testing.assert_close(task.log_probabilities(random), probability.log())
    for metric in task.metrics().values():
        metric.update(probability, target.long() if task.kind == "multilabel" else target)
        assert torch.isfinite(metric.compute())
    assert str(task)


def test_the_prior_is_the_best_constant():
    target = torch.tensor([0, 0, 0, 1])
    task = Classification(2)
    assert task.probabilities(task.baseline(target)[None]).tolist()[0] == pytest.approx([0.75, 0.25])
    best = task.loss(task.expand(task.baseline(target), target), target).mean()
    for shift in (-0.1, 0.1):
        other = task.expand(task.baseline(target) + torch.tensor([shift, 0.0]), target)
        assert task.loss(other, target).mean() > best
    assert Regression().baseline(torch.tensor([1.0, 2.0, 6.0])).tolist() == [3.0]
    assert MultiLabel(2).probabilities(MultiLabel(2).baseline(torch.tensor([[1.0, 0], [0, 0]])))[0] == pytest.approx(
        0.5
    )


@pytest.mark.parametrize(("task", "target"), TASKS, ids=lambda value: getattr(value, "kind", ""))
def test_no_samples_have_no_scores(task: Task, target: torch.Tensor):
    task = task.copy().fit(target)
    output = task.expand(task.baseline(target), target)[:0]
    assert task.loss(output, target[:0]).shape == task.score(output, target[:0]).shape == (0,)


def test_half_precision_outputs_are_scored_in_full():
    task = Classification(3)
    output, target = torch.randn(4, 3).bfloat16(), torch.tensor([0, 1, 2, 0])
    assert task.loss(output, target).dtype == torch.float32
    assert task.score(output, target).dtype == torch.float32


def test_targets_whose_differences_would_be_rounded_away_are_refused():
    target = 1e8 + np.random.default_rng(0).normal(size=50)
    with pytest.raises(
        DataError, match=r"target: values around 1e\+08 differ by .* Subtract a constant, such as 10000000"
    ):
        Regression().encode(target)
    with pytest.raises(DataError, match="target, output 1: "):
        Regression(2).encode(np.stack([target - 1e8, target], axis=1))
    constant = np.full(5, 1e8) + 1e-9 * np.arange(5)
    for fine in (target - 1e8, 1e8 + 1e4 * (target - 1e8), np.full(5, 0.1), constant, [1e8, 1e8 + 8]):
        Regression().encode(fine)
    # Few new samples may lie close together: what counts is the spread of training.
    task = Regression()
    task.fit(task.encode(1e8 * np.arange(1.0, 9.0)))
    task.encode([1e8 + 0.1, 1e8 + 0.3])
