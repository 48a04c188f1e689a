import numpy as np
import pytest
import torch

from lacunar.models.pooling import fit_weights, opinion, pool
from lacunar.tasks import Classification, MultiLabel, Regression


def test_an_opinion_is_what_is_added_to_the_prior():
    task = Classification(3)
    prior = torch.tensor([0.5, 0.3, 0.2]).log()
    output = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    said = opinion(task, output, prior)
    torch.testing.assert_close(pool(prior, said[:, None], torch.ones(1)).softmax(1), output.softmax(1))
    nothing = pool(prior, torch.zeros(4, 2, 3), torch.ones(2))
    torch.testing.assert_close(nothing.softmax(1), prior.softmax(0).expand(4, 3))


def test_weights_may_differ_by_row():
    prior = torch.zeros(2)
    opinions = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]] * 2)
    weights = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    assert pool(prior, opinions, weights).tolist() == [[2.0, 0.0], [0.0, 3.0]]


def test_fitted_weights_of_numbers_are_ridge_regression():
    draw = np.random.default_rng(0)
    truth = torch.tensor(draw.normal(size=(200, 1)), dtype=torch.float32)
    noise = torch.tensor(draw.normal(size=(2, 200, 1)), dtype=torch.float32)
    opinions = torch.stack([truth + 0.5 * noise[0], truth + 2 * noise[1]], 1)
    task = Regression(1).fit(truth)
    prior = task.baseline(truth)
    start = torch.tensor([0.5, 0.5])
    weights, _ = fit_weights(task, prior, opinions, truth, start, ridge=4.0)
    X, y = opinions[:, :, 0].double().numpy(), (truth[:, 0] - prior).double().numpy()
    scale = task.loss(torch.ones(1, 1), torch.zeros(1, 1)).item()  # loss of an error of one
    closed = np.linalg.solve(2 * scale * X.T @ X + 4 * np.eye(2), 2 * scale * X.T @ y + 4 * 0.5)
    assert (closed > 0.02).all()  # no bound is touched
    assert weights.tolist() == pytest.approx(closed.tolist(), abs=2e-3)


def test_a_useless_opinion_gets_less_weight_and_none_is_negative():
    draw = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (300,), generator=draw)
    good = 2.0 * torch.nn.functional.one_hot(target, 3) + torch.randn(300, 3, generator=draw)
    wrong = -good
    weights, _ = fit_weights(
        Classification(3), torch.zeros(3), torch.stack([good, wrong], 1), target, torch.ones(2) / 2, 1.0
    )
    assert weights[0] > 0.5
    assert weights[1] == 0.0


def test_without_samples_the_start_is_kept():
    start = torch.tensor([0.3, 0.7])
    for task, target in ((Classification(2), torch.zeros(0).long()), (MultiLabel(2), torch.zeros(0, 2))):
        weights, _ = fit_weights(task, torch.zeros(2), torch.zeros(0, 2, 2), target, start, 5.0)
        assert torch.equal(weights, start)


def test_a_strong_ridge_keeps_the_start():
    target = torch.arange(60) % 3
    opinions = torch.nn.functional.one_hot(target, 3).float()[:, None]
    loose, _ = fit_weights(Classification(3), torch.zeros(3), opinions, target, torch.ones(1), 0.1)
    tight, _ = fit_weights(Classification(3), torch.zeros(3), opinions, target, torch.ones(1), 1e6)
    assert loose > 2
    assert tight.item() == pytest.approx(1.0, abs=1e-3)
