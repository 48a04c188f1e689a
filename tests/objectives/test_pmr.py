"""PMR: prototypes, their refresh, and who is helped."""

import pytest
import torch
from tests.helpers import first_batch, small_model, vectors

from lacunar.data.arrays import from_arrays
from lacunar.errors import ConfigError
from lacunar.objectives.pmr import PMR


def ready(data, **options):
    model, objective = small_model(data), PMR(**options)
    objective.setup(model, data)
    return model, objective


def test_prototypes_are_class_means_over_present_rows():
    data = vectors(3, n=60, missing=0.4)
    model, objective = ready(data)
    h = model.encode(first_batch(data)).h
    for m in range(3):
        for k in range(3):
            rows = data.present[:, m] & (data.target == k)
            torch.testing.assert_close(objective.prototypes[m, k], h[rows, m].mean(0))


def test_prototypes_are_of_the_model_as_it_predicts():
    data = vectors(2, n=30, missing=0.0)
    model = small_model(data)
    for encoder in model.encoders:
        encoder.append(torch.nn.Dropout(0.5))
    objective = PMR()
    objective.setup(model.train(), data)
    assert model.training
    h = model.eval().encode(first_batch(data)).h
    torch.testing.assert_close(objective.prototypes[1, 2], h[data.target == 2, 1].mean(0))


def test_distances_are_those_of_a_loop():
    data = vectors(2, n=12, missing=0.2)
    model, objective = ready(data)
    features = model.encode(first_batch(data))
    log_p = objective.log_probabilities(features)
    for n in range(12):
        for m in range(2):
            distance = torch.stack([(features.h[n, m] - objective.prototypes[m, k]).norm() for k in range(3)])
            torch.testing.assert_close(log_p[n, m], torch.log_softmax(-distance, 0))


@pytest.mark.parametrize(
    ("means", "paper", "released"),
    [((0.5, 0.5), (0.0, 0.0), (0.0, 0.0)), ((0.8, 0.4), (0.0, 1.0), (0.0, 1.0)), ((0.4, 0.5), (0.25, 0.0), (1.0, 0.0))],
)
def test_coefficients_of_two_modalities_are_the_published_ones(means, paper, released):
    data = vectors(2, n=12, missing=0.0)
    truth = torch.tensor(means).log().expand(12, 2)
    usable = torch.ones(12, 2, dtype=torch.bool)
    for variant, expected in (("paper", paper), ("released", released)):
        _, objective = ready(data, variant=variant)
        torch.testing.assert_close(objective._compare(truth, usable)[0], torch.tensor(expected))


def test_momentum_weighs_the_old_prototype_and_unmet_classes_keep_theirs():
    data = vectors(2, n=30, missing=0.0)
    model, objective = ready(data, momentum=0.25)
    old = objective.prototypes.clone()
    with torch.no_grad():
        for parameter in model.encoders.parameters():
            parameter.add_(0.1)
    only = data.select(data.target < 2)
    only.task = data.task
    objective.on_epoch_start(model, only, 1)
    torch.testing.assert_close(objective.prototypes[:, 2], old[:, 2], rtol=0, atol=0)
    fresh = model.encode(first_batch(only)).h[only.target == 0].mean(0)
    torch.testing.assert_close(objective.prototypes[:, 0], 0.75 * fresh + 0.25 * old[:, 0])


def test_a_class_that_a_modality_never_showed_says_nothing():
    target = [0, 1, 2] * 8
    a = torch.randn(24, 3)
    a[[n for n in range(24) if target[n] == 2]] = torch.nan
    data = from_arrays({"a": a, "b": torch.randn(24, 3)}, target)
    model, objective = ready(data)
    assert not objective.known[0, 2]
    terms = objective(model, first_batch(data))
    sum(terms.values()).backward()
    assert all(torch.isfinite(term) for term in terms.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_the_prototype_term_of_one_modality_moves_no_other_encoder():
    data = vectors(2, n=30, missing=0.2)
    model, objective = ready(data, entropy=0.0)
    terms = objective(model, first_batch(data))
    helped = int(objective.diagnostics["coefficient"].argmax())
    assert terms["prototypes"] > 0
    terms["prototypes"].backward()
    moved = [sum(p.grad.abs().sum() for p in e.parameters() if p.grad is not None) for e in model.encoders]
    assert moved[helped] > 0
    assert moved[1 - helped] == 0


def test_the_entropy_term_raises_the_entropy_of_the_leader():
    data = vectors(2, n=60, missing=0.0)
    model, objective = ready(data)
    batch = first_batch(data)

    def entropy(m):
        log_p = objective.log_probabilities(model.encode(batch))[:, m]
        return -(log_p.exp() * log_p).sum(1).mean()

    term = objective(model, batch)["entropy"]
    leader = int(objective.diagnostics["rho"].argmax())
    before = float(entropy(leader).detach())
    term.backward()
    with torch.no_grad():
        for parameter in model.encoders.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.1 * parameter.grad / (parameter.grad.norm() + 1e-12))
    assert float(entropy(leader).detach()) > before


def test_a_modality_that_no_row_has_does_not_lead():
    data = vectors(3, n=60, missing=0.0)
    _, objective = ready(data)
    truth = torch.tensor((0.9, 0.4, 0.6)).log().expand(60, 3)
    usable = torch.tensor((False, True, True)).expand(60, 3)
    coefficient, leader = objective._compare(truth, usable)
    assert leader == 2
    torch.testing.assert_close(coefficient, torch.tensor((0.0, 0.5, 0.0)))


def test_stages_end_the_entropy_and_then_the_prototypes():
    data = vectors(2, n=30)
    model, objective = ready(data)
    seen = []
    for stage in objective.stages():
        objective.stage = stage
        seen.append(set(objective(model, first_batch(data))))
    assert seen == [{"task", "prototypes", "entropy"}, {"task", "prototypes"}, {"task"}]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"variant": "papers"}, "Did you mean"), ({"momentum": 1.0}, "momentum in"), ({"weight": -1.0}, "weight")],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        PMR(**options)


def test_both_terms_have_a_weight_of_their_own():
    data = vectors(3, n=40)
    found = []
    for weight in (1.0, 0.0):
        torch.manual_seed(0)
        model, objective = small_model(data), PMR(weight=weight)
        objective.setup(model, data)
        found.append(objective(model, first_batch(data)))
    assert found[1]["prototypes"] == 0
    assert found[1]["entropy"] == found[0]["entropy"] != 0


def test_numbers_are_refused():
    data = from_arrays({"a": torch.randn(20, 3), "b": torch.randn(20, 2)}, torch.randn(20))
    with pytest.raises(ConfigError, match="not for regression"):
        PMR().setup(small_model(data), data)
