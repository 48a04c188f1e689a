"""PASSION: distillation from everything to each modality alone, and who lags."""

import numpy as np
import pytest
import torch
from tests.helpers import first_batch, small_model, vectors
from torch.nn import functional

from lacunar.data.arrays import from_arrays
from lacunar.errors import ConfigError
from lacunar.lattice import Pairs
from lacunar.models.fusions.concat import ConcatFusion
from lacunar.models.fusions.mean import MeanFusion
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.passion import PASSION, _summed, prototype_similarity
from lacunar.training.fit import fit


def ready(data, **options):
    torch.manual_seed(0)
    model, objective = small_model(data), PASSION(**options)
    objective.setup(model, data)
    return model, objective


def test_a_student_like_its_teacher_has_nothing_to_learn():
    _, objective = ready(vectors(2, n=12))
    logits = torch.randn(5, 3)
    assert (objective.divergence(logits, logits) == 0).all()
    assert (objective.divergence(logits, logits.roll(1, 1)) > 0).all()


def test_the_divergence_is_the_written_one():
    _, objective = ready(vectors(2, n=12))
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    q, p = torch.softmax(teacher / 4, 1), torch.softmax(student / 4, 1)
    torch.testing.assert_close(objective.divergence(student, teacher), 16 * (q * (q / p).log()).mean(1))


def test_similarity_is_to_class_means_of_the_same_modality():
    fused, target = torch.randn(8, 5), torch.tensor([0, 1, 0, 1, 0, 0, 1, 1])
    which = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    found, known = prototype_similarity(fused, target, which, 3)
    mean = fused[(which == 1) & (target == 1)].mean(0)
    torch.testing.assert_close(found[4, 1], torch.cosine_similarity(fused[4], mean, 0))
    assert (found[:, 2] == 0).all()
    assert known.tolist() == [[True, True, False]] * 8


def test_in_space_prototypes_are_means_over_the_positions_of_a_sample():
    fused = torch.randn(2, 5, 4, 4)
    target = torch.randint(0, 3, (2, 8, 8))
    target[1] = 0
    found, known = prototype_similarity(fused, target, torch.zeros(2, dtype=torch.int64), 3)
    small = target[:, ::2, ::2]
    mean = fused[0][:, small[0] == 2].mean(1)
    torch.testing.assert_close(found[0, 2, 1, 3], torch.cosine_similarity(fused[0, :, 1, 3], mean, 0))
    assert (found[1, 1:] == 0).all()
    assert known[1].tolist() == [True, False, False]


def test_samples_with_features_in_space_have_prototypes_of_their_means():
    fused, target, which = torch.randn(8, 5, 4, 4), torch.tensor([0, 1] * 4), torch.zeros(8, dtype=torch.int64)
    found, _ = prototype_similarity(fused, target, which, 2)
    torch.testing.assert_close(found, prototype_similarity(fused.mean((2, 3)), target, which, 2)[0])


def test_a_rare_modality_that_knows_what_all_know_does_not_lag():
    x = torch.randn(32, 3)
    rare = [x[i] if i % 5 == 0 else None for i in range(32)]
    data = from_arrays({"m0": x, "m1": rare}, torch.arange(32) % 3)
    encoder = torch.nn.Linear(3, 8)
    model = MultimodalModel({"m0": encoder, "m1": encoder}, None, MeanFusion(8), torch.nn.Linear(8, 3), task=data.task)
    objective = PASSION()
    objective.setup(model, data)
    terms = objective(model, first_batch(data))
    torch.testing.assert_close(objective.diagnostics["distance"], torch.zeros(2), rtol=0, atol=1e-6)
    assert terms["prototypes"] < 1e-10


def test_a_sample_counts_as_it_does_in_a_batch_of_its_own():
    losses, which, rows = torch.rand(5), torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1, 3, 1, 2])
    weight = torch.tensor([1.5, 4.0])
    alone = [(weight[which[rows == n]] * losses[rows == n]).sum() for n in range(4)]
    torch.testing.assert_close(_summed(losses, which, rows, weight, 4), torch.stack(alone).mean())


def test_no_gradient_reaches_the_teacher():
    data = vectors(2, n=24, missing=0.0)
    model, objective = ready(data)
    features = model.encode(first_batch(data))
    features.h.retain_grad()
    terms = objective(model, first_batch(data))
    model.zero_grad()
    terms["distill"].backward(retain_graph=True)
    head = model.head.weight.grad.clone()
    assert head.abs().sum() > 0
    # By hand, with the teacher's outputs as constants.
    model.zero_grad()
    batch = first_batch(data)
    features = model.encode(batch)
    from lacunar.lattice import Pairs

    loss = 0.0
    everyone = torch.arange(24)
    teacher = model.predict(features, Pairs(everyone, torch.full((24,), 3))).detach()
    for m in range(2):
        student = model.predict(features, Pairs(everyone, torch.full((24,), 1 << m)))
        loss = loss + 0.5 * objective.divergence(student, teacher).mean()
    loss.backward()
    torch.testing.assert_close(model.head.weight.grad, head)


def test_the_far_one_lags_and_equal_ones_do_not():
    data = vectors(3, n=12, missing=0.0)
    _, objective = ready(data)
    rows, which = torch.arange(12).repeat(3), torch.arange(3).repeat_interleave(12)
    distance = torch.tensor([0.1, 0.2, 0.6]).repeat_interleave(12)
    assert objective._lags(distance, rows, which, data.present).tolist() == [0, 0, 1]
    assert objective._lags(torch.full((36,), 0.3), rows, which, data.present).tolist() == [0, 0, 0]


def test_a_sample_with_one_modality_prefers_nothing_and_teaches_nothing():
    data = vectors(2, n=20, missing=0.0)
    model, objective = ready(data)
    terms = objective(model, first_batch(data).hide(["m0"]))
    assert terms["distill"] == 0
    assert terms["prototypes"] == 0
    assert objective.diagnostics["lags"].tolist() == [0, 0]


def test_epoch_weights_by_hand():
    data = vectors(4, n=20, missing=0.0)
    _, objective = ready(data, rate=4.0, period=10)
    distance, everybody = torch.tensor([0.1, 0.2, 0.3, 0.6]), torch.ones(4, dtype=torch.bool)
    ahead = (0.3 - distance) / 0.3
    for epoch, rate in ((0, 4 * 1.5), (10, 4 * 1.5**2)):
        objective.balance.fill_(1.0)
        objective._rebalance(distance, epoch, everybody)
        moved = torch.clamp(1 - rate * ahead, 0.1, 4.0)
        torch.testing.assert_close(objective.balance, 2 * moved / moved.norm())
    assert (1 - 6 * ahead).min() < 0.1 < 4.0 < (1 - 6 * ahead).max(), "the clamp was not needed"
    _, equal = ready(data)
    equal._rebalance(torch.full((4,), 0.2), 0, everybody)
    torch.testing.assert_close(equal.balance, torch.ones(4))
    # Who was never there is neither ahead nor behind.
    _, lacking = ready(data, rate=0.5)
    lacking._rebalance(torch.tensor([0.1, 0.2, 0.3, 0.0]), 0, torch.tensor([True, True, True, False]))
    moved = torch.tensor([1 - 0.75 * 0.5, 1.0, 1 + 0.75 * 0.5, 1.0])
    torch.testing.assert_close(lacking.balance, 2 * moved / moved.norm())


def test_epoch_distances_are_means_over_all_who_have_a_modality():
    """A sample of one modality is its own teacher: it counts, at distance 0."""
    data = vectors(2, n=20, missing=0.0)
    present = torch.ones(20, 2, dtype=torch.bool)
    present[:15, 1] = False  # m1 is always beside m0, m0 is mostly alone
    model, objective = ready(data, rate=0.5)
    batch = first_batch(data).hide(present)
    objective(model, batch)
    both, together = objective.distance_sums.clone(), present.all(1)
    torch.testing.assert_close(objective.distance_counts, torch.tensor([20.0, 5.0]))
    _, apart = ready(data)
    apart(model, first_batch(data.select(together)))
    torch.testing.assert_close(both, apart.distance_sums)
    mean = both / torch.tensor([20.0, 5.0])
    moved = 1 - 0.75 * (mean.mean() - mean) / mean.mean()
    objective.on_epoch_end(model, data, 0)
    torch.testing.assert_close(objective.balance, 2**0.5 * moved / moved.norm())
    assert (objective.distance_counts == 0).all()


def test_rates_are_those_of_the_training_data():
    data = vectors(3, n=60, missing=0.5)
    _, objective = ready(data)
    torch.testing.assert_close(objective.rate_weight, 60 / data.present.sum(0))


def test_it_trains_with_fit():
    data = vectors(3, n=80).split(train=0.7, val=0.3, test=0.0, seed=0)
    run = fit(data, small_model(data.train), PASSION(), max_epochs=3, progress=False)
    assert {"loss/distill", "loss/separate", "balance/m0"} <= set(run.history.columns)
    assert not torch.equal(run.objective.balance, torch.ones(3))


@pytest.mark.parametrize(
    ("options", "message"), [({"distill": -1.0}, "distill"), ({"temperature": 0.0}, "temperature")]
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        PASSION(**options)


def unequal(M):
    """Epoch weights that no two modalities share."""
    return torch.tensor([0.5, 1.4, 0.8])[:M]


def mixed():
    """Seven samples, of which two have a single modality; nobody who has m2 beside another is of class 2."""
    present = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1], [1, 0, 0], [0, 0, 1]]).bool()
    torch.manual_seed(3)
    arrays = {f"m{m}": torch.randn(7, 4) for m in range(3)}
    data = from_arrays(arrays, torch.tensor([0, 2, 0, 1, 1, 1, 2]), present=present.numpy())
    model, objective = ready(data, separate=0.7, distill=0.4, prototypes=0.3)
    objective.balance.copy_(unequal(3))
    return data, model, objective


def label_maps():
    """Six images of two modalities, of which two have only one of them; the map of the second is all background."""
    torch.manual_seed(0)
    target = torch.randint(0, 2, (6, 4, 4)).repeat_interleave(2, 1).repeat_interleave(2, 2)
    target[1] = 0
    views = {name: target[:, None] + 0.3 * torch.randn(6, 1, 8, 8) for name in ("a", "b")}
    present = [[True, True], [True, True], [True, False], [False, True], [True, True], [True, True]]
    data = from_arrays(views, target.numpy(), present=np.array(present), task="segmentation")
    encoders = {name: torch.nn.Sequential(torch.nn.Conv2d(1, 5, 4, 2, 1), torch.nn.Tanh()) for name in data.names}
    head = torch.nn.Sequential(torch.nn.Conv2d(10, 2, 1), torch.nn.Upsample(scale_factor=2))
    model = MultimodalModel(encoders, None, ConcatFusion(5), head, task=data.task)
    objective = PASSION(separate=0.7, distill=0.4, prototypes=0.3)
    objective.setup(model, data)
    objective.balance.copy_(unequal(2))
    return data, model, objective


def seen_from(model, features, n, code):
    """What the head reads and what it says, of one sample from one subset."""
    result = model.decode(features, Pairs(torch.tensor([n]), torch.tensor([code])))
    return result.fused[0], result.output[0]


@torch.no_grad()
def by_hand(model, objective, batch):
    """The lagging modalities and the weighted terms, one sample and one modality at a time, as in the paper."""
    features, present, target = model.encode(batch), batch.present, batch.target
    B, M = present.shape
    codes = (present * 2 ** torch.arange(M)).sum(1).tolist()
    cells = [(n, m) for n in range(B) for m in range(M) if present[n, m]]
    taught = [(n, m) for n, m in cells if present[n].sum() > 1]
    student = {(n, m): seen_from(model, features, n, 1 << m) for n, m in taught}
    teacher = {(n, m): seen_from(model, features, n, codes[n]) for n, m in taught}
    own = {
        (n, m): functional.cross_entropy(objective.head(features.h[n : n + 1, m]), target[n : n + 1]) for n, m in cells
    }
    apart, distance, squared = {}, {}, {}
    for n, m in taught:
        q, p = (torch.softmax(output / 4, 0) for output in (teacher[n, m][1], student[n, m][1]))
        apart[n, m] = 16 * (q * (q / p).log()).mean()
        gaps = torch.stack(
            [
                similarity(student, target, n, m, k) - similarity(teacher, target, n, m, k)
                for k in known(taught, target, n, m)
            ]
        )
        distance[n, m], squared[n, m] = gaps.abs().mean(), gaps.square().mean()
    behind = [0.0] * M
    for n, m in taught:
        others = torch.stack([distance[cell] for cell in taught if cell[0] == n])
        behind[m] += float(distance[n, m] / others.mean() - 1)
    lags = torch.tensor([float(value > 0) for value in behind])
    rarity, balance = B / present.sum(0), unequal(M)

    def summed(losses, weight):
        return sum(weight[m] * loss for (n, m), loss in losses.items()) / B

    return lags, {
        "separate": 0.7 * summed(own, lags * balance * rarity),
        "distill": 0.4 * summed(apart, balance * rarity),
        "prototypes": 0.3 * summed(squared, lags * rarity),
    }


def known(taught, target, n, m):
    """Classes with a prototype: of the rows that m is compared on, or of the positions of a label map."""
    found = target[n] if target.ndim > 1 else target[[row for row, which in taught if which == m]]
    return found.unique().tolist()


def similarity(said, target, n, m, k):
    """Cosine of a sample (or of each of its positions) to the mean of class k."""
    fused = said[n, m][0]
    if target.ndim > 1:
        positions = fused.flatten(1)
        prototype = positions[:, target[n, ::2, ::2].flatten() == k].mean(1)
        return torch.cosine_similarity(positions, prototype[:, None], 0)
    members = [value[0] for (row, which), value in said.items() if which == m and target[row] == k]
    return torch.cosine_similarity(fused, torch.stack(members).mean(0), 0)


@pytest.mark.parametrize("made", [mixed, label_maps])
@pytest.mark.parametrize("term", ["separate", "distill", "prototypes"])
def test_terms_are_weighted_by_lag_balance_and_rarity_as_written(made, term):
    data, model, objective = made()
    terms = objective(model, first_batch(data))
    lags, expected = by_hand(model, objective, first_batch(data))
    assert 0 < lags.sum() < len(lags), "all or none lag: the batch tells nothing of lags"
    assert objective.diagnostics["lags"].tolist() == lags.tolist()
    assert terms[term] > 1e-4
    torch.testing.assert_close(terms[term], expected[term], rtol=1e-4, atol=1e-7)


def test_label_maps_train_with_rows_of_one_modality():
    data, model, objective = label_maps()
    batch = first_batch(data)
    optimizer = torch.optim.Adam([*model.parameters(), *objective.parameters()], 0.05)
    course = []
    for _ in range(30):
        terms = objective(model, batch)
        assert set(terms) == {"task", "separate", "distill", "prototypes"}
        assert all(torch.isfinite(term) for term in terms.values())
        optimizer.zero_grad()
        sum(terms.values()).backward()
        for parameter in (*model.parameters(), *objective.parameters()):
            assert torch.isfinite(parameter.grad).all()
            assert course or parameter.grad.any()
        optimizer.step()
        course.append(float(terms["task"].detach()))
    assert course[-1] < 0.5 * course[0]


def test_in_a_batch_of_one_label_map_one_of_two_modalities_lags_and_a_lone_one_does_not():
    data, model, objective = label_maps()
    for n in range(len(data)):
        terms = objective(model, data[n])
        assert objective.diagnostics["lags"].sum() == float(data.present[n].all())
        if not data.present[n].all():
            assert terms["separate"] == terms["distill"] == terms["prototypes"] == 0


def test_how_far_the_modalities_of_a_sample_are_behind_sums_to_zero(monkeypatch):
    _, objective = ready(vectors(3, n=12))
    behind = []
    monkeypatch.setattr("lacunar.objectives.passion.total", lambda values: behind.append(values) or values)
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1], [0, 1, 0]]).bool()
    table = torch.tensor([[0.1, 0.2, 0.6], [0.1, 0.0, 0.3], [0.0, 0.4, 0.4], [0.0, 0.9, 0.0]])
    # Each distance over the mean of its sample (0.3, 0.2 and 0.4), less 1; a lone one is not compared.
    expected = torch.tensor([[-2 / 3, -1 / 3, 1.0], [-0.5, 0.0, 0.5], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    several = present & (present.sum(1) > 1)[:, None]
    for n in range(4):
        which = several[n].nonzero().squeeze(1)
        objective._lags(table[n, which], torch.zeros_like(which), which, present[n : n + 1])
        torch.testing.assert_close(behind[n], expected[n])
        assert float(behind[n].sum()) == pytest.approx(0.0, abs=1e-6)
    which, rows = several.T.nonzero(as_tuple=True)
    assert objective._lags(table[rows, which], rows, which, present).tolist() == [0, 0, 1]
    torch.testing.assert_close(behind[4], expected.sum(0))
