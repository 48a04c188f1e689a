"""ShaSpec: composition, substitution, alignment and domains."""

import pytest
import torch
from tests.helpers import first_batch, small_model, vectors

from lacunar.errors import ConfigError
from lacunar.objectives.patterns import random_subsets
from lacunar.objectives.shaspec import SharedSpecific, ShaSpec
from lacunar.training.fit import fit


def ready(data, **options):
    torch.manual_seed(0)
    model, objective = small_model(data), ShaSpec(**options)
    objective.setup(model, data)
    return model, objective


def test_random_subsets_are_hidden_once_everything_present_is_over(monkeypatch):
    data = vectors(3, n=24, missing=0.0)
    model, objective = ready(data, alignment=0.0, domain=0.0)
    shown = torch.rand(24, 3) > 0.5
    shown[~shown.any(1), 0] = True
    monkeypatch.setattr("lacunar.objectives.shaspec.random_subsets", lambda present: present & shown)
    batch = first_batch(data)
    predictor = objective.build(model)
    losses = {name: objective.losses(predictor(part), data.target).mean() for name, part in
              {"everything present": batch, "random subsets": batch.hide(shown)}.items()}  # fmt: skip
    assert losses["everything present"] != losses["random subsets"]
    for stage in objective.stages():
        objective.stage = stage
        torch.testing.assert_close(objective(model, batch)["task"], losses[stage.name])


def test_present_features_are_shared_plus_composed():
    module = SharedSpecific(4, 2)
    h = torch.randn(5, 2, 4)
    present = torch.ones(5, 2, dtype=torch.bool)
    shared = module.shared(h.flatten(0, 1)).view_as(h)
    for m in range(2):
        specific = module.specific[m](h[:, m])
        expected = shared[:, m] + module.compose(torch.cat([shared[:, m], specific], 1))
        torch.testing.assert_close(module(h, present)[:, m], expected)


@pytest.mark.parametrize("substitute", ["mean", "first"])
@pytest.mark.parametrize("spatial", [(), (3, 2)])
def test_absent_features_are_shared_ones_of_what_is_there(substitute, spatial):
    module = SharedSpecific(4, 3, substitute)
    h = torch.randn(2, 3, 4, *spatial)
    present = torch.tensor([[False, True, True], [False, False, True]])
    h[~present] = 0
    out = module(h, present)
    second, third = module.shared(h[:1, 1]), module.shared(h[:, 2])
    expected = (second[0] + third[0]) / 2 if substitute == "mean" else second[0]
    torch.testing.assert_close(out[0, 0], expected)
    torch.testing.assert_close(out[1, 0], third[1])
    torch.testing.assert_close(out[1, 1], third[1])
    h[~present] = 7.0
    assert torch.equal(module(h, present), out)


def test_alignment_is_zero_for_equal_views_and_leaves_out_what_is_absent():
    data = vectors(3, n=12, missing=0.0)
    _, objective = ready(data)
    shared = torch.randn(12, 1, 8).expand(12, 3, 8).clone()
    present = torch.ones(12, 3, dtype=torch.bool)
    assert objective._aligned(shared, present) == 0
    present[:, 2] = False
    shared[:, 2] = torch.nan
    assert objective._aligned(shared, present) == 0
    shared[:, 1] += 2
    torch.testing.assert_close(objective._aligned(shared, present), torch.tensor(2.0))


def test_the_released_alignment_compares_neighbours_only():
    data = vectors(4, n=6, missing=0.0)
    _, objective = ready(data, variant="released")
    shared = torch.zeros(6, 4, 8)
    shared[:, 2] = 4.0  # pairs with it: 1-2 and 2-3 of the ring 0-1, 1-2, 2-3, 3-0
    assert objective._aligned(shared, torch.ones(6, 4, dtype=torch.bool)) == 8.0
    _, paper = ready(data)
    assert paper._aligned(shared, torch.ones(6, 4, dtype=torch.bool)) == 12.0
    shared[:, 0] = 4.0
    assert objective._aligned(shared, torch.ones(6, 4, dtype=torch.bool)) == 16.0
    assert paper._aligned(shared, torch.ones(6, 4, dtype=torch.bool)) == 16.0


def test_a_pair_that_seldom_meets_is_aligned_as_much_as_others():
    _, objective = ready(vectors(3, n=12, missing=0.0))
    shared = torch.zeros(12, 3, 8)
    shared[:, 2] = 4.0
    present = torch.ones(12, 3, dtype=torch.bool)
    present[1:, 2] = False
    assert objective._aligned(shared, present) == 8.0


def test_domains_can_be_told_apart():
    data = vectors(3, n=60)
    model, objective = ready(data, warmup=0.0)
    optimizer = torch.optim.Adam([*model.parameters(), *objective.parameters()], 1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        terms = objective(model, first_batch(data))
        sum(terms.values()).backward()
        optimizer.step()
        losses.append(terms["domain"].item())
    assert losses[-1] < 0.3 * losses[0]


def test_random_subsets_are_uniform_in_size_and_never_empty():
    torch.manual_seed(0)
    present = torch.tensor([[True, True, True], [True, False, True]]).repeat_interleave(6000, 0)
    drawn = random_subsets(present)
    assert drawn.any(1).all()
    assert not (drawn & ~present).any()
    for rows, sizes in ((slice(0, 6000), 3), (slice(6000, None), 2)):
        shares = torch.bincount(drawn[rows].sum(1), minlength=4)[1 : sizes + 1] / 6000
        torch.testing.assert_close(shares, torch.full((sizes,), 1 / sizes), atol=0.03, rtol=0)


def test_it_trains_predicts_every_subset_and_can_be_saved(tmp_path):
    from lacunar.models.saving import load_model, save_model

    data = vectors(3, n=80).split(train=0.7, val=0.3, test=0.0, seed=0)
    run = fit(data, small_model(data.train), ShaSpec(), max_epochs=3, progress=False)
    batch = first_batch(data.val)
    assert not torch.equal(run.model(batch), run.objective.with_parts(run.model, completion=None)(batch))
    again = load_model(save_model(run.model.completion, tmp_path / "views"))
    h, present = torch.randn(2, 3, 8), torch.tensor([[True, False, True], [False, True, False]])
    torch.testing.assert_close(again(h, present), run.model.completion.eval()(h, present))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"variant": "release"}, "Did you mean 'released'"), ({"warmup": 1.0}, "warmup"), ({"domain": -1.0}, "domain")],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ShaSpec(**options)
