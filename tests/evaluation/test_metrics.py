"""Every metric of a subset against scikit-learn or torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from lacunar.evaluation.metrics import measure, summarize
from lacunar.tasks import Classification, MultiLabel, Regression, Segmentation


def figures(task, output, target, **options):
    kept = measure(task, output, target)
    assert all(len(values) == len(target) for values in kept.values())
    np.testing.assert_allclose(kept["score"], task.score(output, target))
    return summarize(task, kept, target.numpy(), **options)


@pytest.mark.parametrize("absent", [False, True])
def test_classification(absent):
    generator = torch.Generator().manual_seed(0)
    output = 2 * torch.randn(300, 4, generator=generator)
    # With `absent` one class never occurs in truth, and one in neither truth nor prediction.
    target = torch.randint(0, 2 if absent else 4, (300,), generator=generator)
    if absent:
        output[:, 3] = -50
    found = figures(Classification(4), output, target)
    probability, said, truth = output.double().softmax(1).numpy(), output.argmax(1).numpy(), target.numpy()
    with pytest.warns(UserWarning, match="y_pred contains") if absent else _nothing():
        balanced = reference.balanced_accuracy_score(truth, said)
    assert found["balanced_accuracy"] == pytest.approx(balanced)
    assert found["macro_f1"] == pytest.approx(reference.f1_score(truth, said, average="macro"))
    assert found["log_loss"] == pytest.approx(reference.log_loss(truth, probability, labels=range(4)), rel=1e-5)
    one_hot = np.eye(4)[truth]
    assert found["brier"] == pytest.approx(np.square(probability - one_hot).sum(1).mean())
    from torchmetrics.functional.classification import multiclass_calibration_error

    expected = multiclass_calibration_error(torch.from_numpy(probability), target, 4, n_bins=15)
    assert found["ece"] == pytest.approx(float(expected), abs=1e-6)
    assert figures(Classification(4), output, target, equal_mass=True)["ece"] != found["ece"]


class _nothing:  # noqa: N801
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False


def test_the_log_loss_of_a_sure_mistake_is_finite():
    found = figures(Classification(2), torch.tensor([[200.0, -200.0]]), torch.tensor([1]))
    assert found["log_loss"] == pytest.approx(400)


def test_multilabel():
    generator = torch.Generator().manual_seed(1)
    output, target = (
        torch.randn(200, 3, generator=generator),
        torch.randint(0, 2, (200, 3), generator=generator).float(),
    )
    found = figures(MultiLabel(3), output, target)
    probability, said, truth = output.sigmoid().numpy(), (output > 0).numpy(), target.numpy()
    assert found["macro_f1"] == pytest.approx(reference.f1_score(truth, said, average="macro"))
    assert found["exact_match"] == pytest.approx(reference.accuracy_score(truth, said))
    losses = [reference.log_loss(truth[:, i], probability[:, i]) for i in range(3)]
    briers = [reference.brier_score_loss(truth[:, i], probability[:, i]) for i in range(3)]
    assert found["log_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["brier"] == pytest.approx(np.mean(briers), rel=1e-5)


@pytest.mark.parametrize("outputs", [1, 3])
def test_regression(outputs):
    generator = torch.Generator().manual_seed(2)
    target = 100 + torch.randn(200, outputs, generator=generator)
    output = target + 0.3 * torch.randn(200, outputs, generator=generator)
    task = Regression(outputs).fit(target.squeeze(1))
    found = figures(task, output, target.squeeze(1))
    truth, said = target.double().numpy(), output.double().numpy()
    assert found["r2"] == pytest.approx(reference.r2_score(truth, said))
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(truth, said))
    assert found["rmse"] == pytest.approx(np.sqrt(reference.mean_squared_error(truth, said)))
    assert np.isnan(figures(task, output[:1], target.squeeze(1)[:1])["r2"])


def test_segmentation():
    from torchmetrics.functional.classification import binary_f1_score

    generator = torch.Generator().manual_seed(3)
    output, target = torch.randn(5, 3, 6, 6, generator=generator), torch.randint(0, 3, (5, 6, 6), generator=generator)
    found = figures(Segmentation(3, {"whole": [1, 2], "core": [2]}), output, target)
    said = output.argmax(1)
    for name, members in (("whole", [1, 2]), ("core", [2])):
        inside = [torch.isin(values, torch.tensor(members)).long() for values in (said, target)]
        cases = [float(binary_f1_score(a.flatten(), b.flatten())) for a, b in zip(*inside)]
        assert found[f"dice {name}"] == pytest.approx(np.mean(cases))


@pytest.mark.parametrize(
    ("task", "output", "target"),
    [
        (Classification(2), torch.zeros(3, 2), torch.tensor([0, 1, 0])),
        (MultiLabel(2), torch.zeros(3, 2), torch.zeros(3, 2)),
        (Regression(tolerance=1.0), torch.zeros(3, 1), torch.zeros(3)),
        (Segmentation(2), torch.zeros(3, 2, 4, 4), torch.zeros(3, 4, 4, dtype=torch.int64)),
    ],
)
def test_no_samples_give_no_numbers(task, output, target):
    kept = {name: values[:0] for name, values in measure(task, output, target).items()}
    found = summarize(task, kept, target[:0].numpy())
    assert found.keys() == figures(task, output, target).keys()
    assert all(np.isnan(value) for value in found.values())
