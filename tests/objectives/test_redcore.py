"""RedCore: representations, imputers, and the balance of their training."""

import math

import pytest
import torch
from tests.helpers import first_batch, small_model, vectors

from lacunar.errors import ConfigError
from lacunar.objectives.redcore import RedCore, VariationalImputer
from lacunar.training.fit import fit


def ready(data, **options):
    torch.manual_seed(0)
    model, objective = small_model(data), RedCore(**options)
    objective.setup(model, data)
    return model, objective


def test_present_rows_keep_their_representation_bit_for_bit():
    module = VariationalImputer(6, 3).eval()
    h = torch.randn(8, 3, 6)
    present = torch.rand(8, 3) > 0.4
    present[:, 0] |= ~present.any(1)
    h = h * present[:, :, None]
    z, mu, _ = module.represent(h, present)
    out = module(h, present)
    assert torch.equal(out[present], mu[present])
    assert torch.equal(z, mu)
    torch.testing.assert_close(out[~present], module.impute(z)[~present])


def test_predictions_are_steady_unless_asked_otherwise():
    h, present = torch.randn(4, 2, 6), torch.ones(4, 2, dtype=torch.bool)
    steady, noisy = VariationalImputer(6, 2).eval(), VariationalImputer(6, 2, sample_at_test=True).eval()
    assert torch.equal(steady(h, present), steady(h, present))
    assert not torch.equal(noisy(h, present), noisy(h, present))


def test_an_imputer_reads_the_others_only():
    module = VariationalImputer(6, 3).eval()
    z = torch.randn(4, 3, 6)
    other = z.clone()
    other[:, 1] = 9.0
    assert torch.equal(module.impute(z)[:, 1], module.impute(other)[:, 1])
    assert not torch.equal(module.impute(z)[:, 0], module.impute(other)[:, 0])


def test_the_divergence_is_zero_for_a_standard_normal():
    data = vectors(2, n=20)
    model, objective = ready(data)
    with torch.no_grad():
        for encoding in objective.imputer.encoding:
            encoding[1].weight.zero_()
            encoding[1].bias.zero_()
    assert abs(objective(model, first_batch(data))["kl"].item()) < 1e-7


def balance(objective, errors, M=3):
    objective._balance(torch.tensor(errors), torch.ones(4, M, dtype=torch.bool))


def test_larger_errors_gain_weight_and_weights_have_norm_one():
    data = vectors(3, n=20)
    _, objective = ready(data, smoothing=1.0)
    balance(objective, [1.0, 2.0, 6.0])
    advantage = objective.diagnostics["advantage"]
    torch.testing.assert_close(advantage, torch.tensor([2 / 3, 1 / 3, -1.0]))
    assert advantage.sum() == pytest.approx(0.0, abs=1e-6)
    raised = torch.ones(3) - 0.15 * advantage  # the first rate used is half again the named one
    torch.testing.assert_close(objective.beta, raised / raised.norm())
    assert objective.beta.argsort().tolist() == [0, 1, 2]


def test_equal_errors_keep_the_direction_and_weights_have_a_floor():
    data = vectors(3, n=20)
    _, objective = ready(data, smoothing=1.0)
    balance(objective, [2.0, 2.0, 2.0])
    torch.testing.assert_close(objective.beta, torch.full((3,), 3**-0.5))
    objective.rate = 100.0
    objective.batches.zero_()
    balance(objective, [0.1, 2.0, 6.0])
    raised = (3**-0.5 - 150 * objective.diagnostics["advantage"]).clamp(min=0.1)
    assert raised.min() == pytest.approx(0.1)
    torch.testing.assert_close(objective.beta, raised / raised.norm())


def test_a_modality_that_nobody_has_had_is_neither_ahead_nor_behind():
    _, objective = ready(vectors(3, n=20), smoothing=1.0)
    objective._balance(torch.tensor([4.0, 4.0, 0.0]), torch.tensor([[True, True, False]] * 4))
    assert objective.diagnostics["advantage"].tolist() == [0, 0, 0]


def test_the_rate_grows_without_overflow():
    _, objective = ready(vectors(3, n=20), smoothing=1.0)
    objective.batches.fill_(3_000_000)
    balance(objective, [1.0, 2.0, 6.0])
    assert torch.isfinite(objective.beta).all()
    assert objective.beta.norm() == pytest.approx(1.0)


def test_imputers_are_as_wide_as_published():
    layers = VariationalImputer(128, 3).imputers[0].down[0].layers
    assert [layer.out_features for layer in layers if hasattr(layer, "out_features")] == [256, 128, 64]


def test_weights_move_at_every_third_batch_and_a_modality_that_is_not_there_keeps_its_error():
    data = vectors(2, n=20)
    _, objective = ready(data)
    moved = []
    for _ in range(4):
        before = objective.beta.clone()
        balance(objective, [1.0, 3.0], M=2)
        moved.append(not torch.equal(before, objective.beta))
    assert moved == [True, False, False, True]
    kept = objective.error[1].clone()
    present = torch.tensor([[True, False]] * 4)
    objective._balance(torch.tensor([2.0, 0.0]), present)
    assert objective.error[1] == kept


def test_running_errors_hold_no_graph_and_evaluation_moves_nothing():
    data = vectors(2, n=20)
    model, objective = ready(data)
    objective(model, first_batch(data))
    assert objective.error.grad_fn is None
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    objective.eval()
    objective(model.eval(), first_batch(data))
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


def test_heads_teach_imputers_through_imputed_rows():
    data = vectors(2, n=40, missing=0.0)
    model, objective = ready(data, reconstruction=0.0, kl=0.0)
    batch = first_batch(data).hide(["m0"])
    objective(model, batch)["single"].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.imputer.imputers[1].parameters())


def test_it_trains_with_fit():
    data = vectors(3, n=80).split(train=0.7, val=0.3, test=0.0, seed=0)
    run = fit(data, small_model(data.train), RedCore(), max_epochs=3, progress=False)
    assert {"loss/reconstruction", "beta/m0"} <= set(run.history.columns)
    assert run.model(first_batch(data.val)).shape == (len(data.val), 3)


@pytest.mark.parametrize(("options", "message"), [({"kl": -1.0}, "kl"), ({"smoothing": 0.0}, "smoothing")])
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        RedCore(**options)


def mixed():
    """Four samples of three modalities that 4, 3 and 1 of them have, in evaluation, where z is mu."""
    present = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 0]]).bool()
    data = vectors(3, n=4, classes=2, missing=0.0)
    model, objective = ready(data, kl=0.01, reconstruction=0.3)
    return model, objective.eval(), first_batch(data).hide(present)


def test_the_divergence_of_known_normals_by_hand():
    model, objective, batch = mixed()
    means, variances = (0.5, -1.0, 2.0), (1.0, 2.0, 0.25)
    with torch.no_grad():
        for encoding, mean, variance in zip(objective.imputer.encoding, means, variances):
            encoding[1].weight.zero_()
            encoding[1].bias[:8] = mean
            encoding[1].bias[8:] = math.log(variance)
    # Twice the divergence of each of 8 features: mean^2 + variance - 1 - log variance.
    each = [0.25, 1.0 + 2.0 - 1.0 - math.log(2), 4.0 + 0.25 - 1.0 + math.log(4)]
    expected = 0.01 * 8 * (4 * each[0] + 3 * each[1] + 1 * each[2]) / 4
    assert objective(model, batch)["kl"].item() == pytest.approx(expected, rel=1e-5)


def test_reconstruction_sums_over_features_and_weighs_modalities_by_beta():
    model, objective, batch = mixed()
    objective.beta.copy_(torch.tensor([0.2, 0.5, 0.8]))
    with torch.no_grad():
        h = model.encode(batch).h
        z, _, _ = objective.imputer.represent(h, batch.present)
        made = objective.imputer.impute(z)
    expected = 0.0
    for m, beta in enumerate((0.2, 0.5, 0.8)):
        rows = [n for n in range(4) if batch.present[n, m]]
        apart = [sum(float(made[n, m, c] - z[n, m, c]) ** 2 for c in range(8)) for n in rows]
        expected += 0.3 * beta * sum(apart) / len(rows)
    assert objective(model, batch)["reconstruction"].item() == pytest.approx(expected, rel=1e-4)


def test_what_is_reconstructed_moves_towards_its_imputation():
    model, objective, batch = mixed()
    alone = batch.hide(["m0"])  # nothing else is there, so its own representation is a target only
    objective(model, alone)["reconstruction"].backward()
    assert objective.imputer.encoding[0][1].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("batches", "eta"), [(0, 0.15), (499, 0.15), (500, 0.225), (999, 0.225), (1000, 0.3375)])
def test_the_rate_grows_by_half_at_the_start_and_every_500_batches(batches, eta):
    _, objective = ready(vectors(3, n=20), smoothing=1.0)
    objective.EVERY = 1  # neither 499 nor 500 is a third batch
    objective.batches.fill_(batches)
    balance(objective, [1.0, 2.0, 6.0])
    raised = torch.tensor([1 - eta * 2 / 3, 1 - eta / 3, 1 + eta])
    torch.testing.assert_close(objective.beta, raised / raised.norm())
    assert int(objective.batches) == batches + 1
