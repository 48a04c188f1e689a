"""The minimal tests of MCE: what each equation says, on batches small enough to check by hand."""

import pytest
import torch
from tests.helpers import first_batch, fixed_references, gradients, small_model, vectors

from lacunar.errors import ConfigError, DataError
from lacunar.lattice import Pairs
from lacunar.models.multimodal import Features
from lacunar.objectives.mce import MCE, TABLE_2


def ready(data, **options):
    model = small_model(data)
    objective = MCE(references=fixed_references(data), **options)
    objective.setup(model, data)
    return model, objective


def by_hand(model, objective, batch):
    """Eqs. 3 to 14 with loops over samples and subsets."""
    lattice, task = model.lattice, objective.task
    h = model.encode(batch).h
    A = len(objective_data_present(objective)) / objective_data_present(objective).sum(0)
    A = A / A.mean()
    outputs, residuals, scores = {}, {}, {}
    for n in range(len(batch)):
        available = int(lattice.encode(batch.present[n]))
        for code in range(1, len(lattice)):
            if code & available != code:
                continue
            result = model.decode(
                Features(h[n : n + 1], batch.present[n : n + 1]), Pairs(torch.tensor([0]), torch.tensor([code]))
            )
            outputs[n, code] = task.loss(result.output, batch.target[n : n + 1])[0]
            residuals[n, code] = (result.completed[0] - h[n].detach()).abs().mean(-1)
            scores[n, code] = task.score(result.output, batch.target[n : n + 1])[0]
    M = lattice.M
    gap, count = torch.zeros(M), torch.zeros(M)
    for n in range(len(batch)):
        values = torch.zeros(len(lattice))
        for code in range(len(lattice)):
            values[code] = scores.get((n, code), float("nan")) if code else 0.0
        phi = lattice.shapley(values[None], batch.present[n : n + 1])[0]
        for m in range(M):
            if batch.present[n, m]:
                gap[m] += objective.upper_scores[batch.index[n], m] - phi[m]
                count[m] += 1
    B = (gap / count.clamp(min=1)).relu()
    full = [outputs[n, int(lattice.encode(batch.present[n]))] for n in range(len(batch))]
    task_loss = sum(full) / len(full)
    subsets = sorted({code for _, code in outputs})
    sub = aux = 0.0
    for code in subsets:
        rows = [n for n, other in outputs if other == code]
        sub = sub + sum(outputs[n, code] for n in rows) / len(rows) / len(subsets)
        inner = 0.0
        for n in rows:
            dropped = [m for m in range(M) if batch.present[n, m] and not code >> m & 1]
            if dropped:
                inner = inner + sum(A[m] * B[m] * residuals[n, code][m] for m in dropped) / len(dropped)
        aux = aux + inner / len(rows) / len(subsets)
    single = 0.0
    for m, head in enumerate(objective.heads):
        rows = [n for n in range(len(batch)) if batch.present[n, m]]
        if rows:
            losses = task.loss(head(h[rows, m]), batch.target[rows])
            single = single + A[m] * B[m] * losses.mean()
    return {"task": task_loss, "single": single, "subset": sub, "completion": aux}, B


def objective_data_present(objective):
    return ~torch.isnan(objective.upper_scores)


@pytest.mark.parametrize("M", [1, 2, 3, 4])
def test_all_terms_equal_the_equations_written_as_loops(M):
    data = vectors(M, n=12)
    model, objective = ready(data, single=0.5, subset=2.0, completion=3.0)
    batch = first_batch(data)
    terms = objective(model, batch)
    expected, B = by_hand(model, objective, batch)
    torch.testing.assert_close(objective.diagnostics["B"], B)
    for name, weight in {"task": 1.0, "single": 0.5, "subset": 2.0, "completion": 3.0}.items():
        torch.testing.assert_close(terms[name], torch.as_tensor(weight * expected[name]), rtol=1e-5, atol=1e-6)


def test_state_is_within_its_range_and_absent_is_zero():
    data = vectors(3, n=40)
    model, objective = ready(data)
    batch = first_batch(data)
    objective(model, batch)
    assert ((objective.diagnostics["B"] >= 0) & (objective.diagnostics["B"] <= 1 + 2 / 3)).all()
    terms = objective(model, batch.hide(["m0", "m1"]).__class__(**rows_with(batch.hide(["m0", "m1"]))))
    assert objective.diagnostics["B"][2].item() == 0.0
    assert all(torch.isfinite(term) for term in terms.values())


def rows_with(batch):
    """The fields of a batch without its empty rows."""
    keep = batch.present.any(1)
    return {
        "inputs": batch.inputs, "present": batch.present[keep], "target": batch.target[keep],
        "index": batch.index[keep], "lengths": {},
    }  # fmt: skip


def test_doubling_the_batch_changes_no_factor_and_no_loss():
    data = vectors(3, n=16)
    model, objective = ready(data)
    once = objective(model, first_batch(data))
    B = objective.diagnostics["B"].clone()
    twice = objective(model, data.__getitems__([*range(16), *range(16)]))
    torch.testing.assert_close(objective.diagnostics["B"], B)
    for name in once:
        torch.testing.assert_close(twice[name], once[name])


@pytest.mark.parametrize("M", [2, 3, 4])
def test_subsets_of_a_sample_and_their_union(M):
    data = vectors(M, n=32)
    model, objective = ready(data)
    pairs, _ = objective.pairs(model.lattice, data.present)
    per_sample = torch.bincount(pairs.rows, minlength=32)
    assert per_sample.tolist() == (2 ** data.present.sum(1) - 1).tolist()
    share = objective.shares(model.lattice, pairs, torch.ones(len(pairs.rows)), data.present)
    assert share.sum().item() == pytest.approx(1.0)
    for code in pairs.codes.unique():  # Eq. 11: every subset that occurs counts the same
        assert share[pairs.codes == code].sum().item() == pytest.approx(1 / len(pairs.codes.unique()))


@pytest.mark.parametrize("weighting", ["macro", "sample"])
def test_without_full_sets_the_shares_of_the_others_sum_to_one(weighting):
    data = vectors(3, n=32)
    model, objective = ready(data, include_full=False, subset_weighting=weighting)
    pairs, _ = objective.pairs(model.lattice, data.present)
    share = objective.shares(model.lattice, pairs, torch.ones(len(pairs.rows)), data.present)
    assert share.sum().item() == pytest.approx(1.0)
    assert (share[pairs.codes == model.lattice.encode(data.present)[pairs.rows]] == 0).all()


@pytest.mark.parametrize("detached", [True, False])
def test_completion_moves_its_target_only_when_not_detached(detached):
    data = vectors(2, n=16, missing=0.0)
    model, objective = ready(data, single=0, subset=0, detach_targets=detached)
    batch = first_batch(data)
    features = model.encode(batch)
    only_first = Pairs(torch.arange(16), torch.full((16,), 1))
    *_, residual = objective._read(model, features, only_first, batch.target)
    (grad,) = torch.autograd.grad(residual[:, 1].sum(), features.h)
    assert (grad[:, 1].abs().sum() == 0) == detached  # features of m1 are the target, and are hidden from completion


def test_renaming_and_reordering_permutes_the_factors():
    data = vectors(3, n=24)
    model, objective = ready(data)
    terms = objective(model, first_batch(data))
    order = [2, 0, 1]
    from lacunar.data.dataset import MultimodalDataset

    columns = {f"renamed{m}": data.columns[f"m{m}"] for m in order}
    other = MultimodalDataset(columns, data.target, data.task, data.ids)
    permuted, moved = ready(other)
    features = 8
    for new, old in enumerate(order):
        permuted.encoders[new].load_state_dict(model.encoders[old].state_dict())
        moved.heads[new].load_state_dict(objective.heads[old].state_dict())
    blocks = torch.cat([torch.arange(old * features, (old + 1) * features) for old in order])
    with torch.no_grad():
        permuted.completion.mix.weight.copy_(model.completion.mix.weight[blocks][:, blocks])
        permuted.completion.mix.bias.copy_(model.completion.mix.bias[blocks])
        permuted.head.weight.copy_(model.head.weight[:, blocks])
        permuted.head.bias.copy_(model.head.bias)
    again = moved(permuted, first_batch(other))
    for name in ("A", "B", "phi", "upper"):
        torch.testing.assert_close(moved.diagnostics[name], objective.diagnostics[name][order])
    for name in terms:
        torch.testing.assert_close(again[name], terms[name])


def test_task_loss_is_the_full_entry_of_the_table():
    data = vectors(3, n=24)
    model, objective = ready(data)
    batch = first_batch(data)
    plain = objective.task.loss(model(batch), batch.target).mean()
    torch.testing.assert_close(objective(model, batch)["task"], plain)


def test_zero_weights_leave_the_gradients_of_plain_training():
    data = vectors(3, n=24)
    model, objective = ready(data, single=0, subset=0, completion=0)
    batch = first_batch(data)
    terms = objective(model, batch)
    assert list(terms) == ["task"]
    terms["task"].backward()
    ours = gradients(model)
    model.zero_grad()
    objective.task.loss(model(batch), batch.target).mean().backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(ours[name], gradient)


def test_a_single_pass_reads_no_other_modality_and_the_double_pass_does():
    data = vectors(2, n=16, missing=0.0)
    model, _ = ready(data, variant="released-digits")
    features = model.encode(first_batch(data))
    alone = Pairs(torch.arange(16), torch.full((16,), 1))
    changed = Features(features.h.clone(), features.present)
    changed.h[:, 1] += 1.0
    torch.testing.assert_close(model.decode(features, alone).output, model.decode(changed, alone).output)

    def double(given):
        whole = Pairs(torch.arange(16), torch.full((16,), 3))
        return model.decode(Features(model.decode(given, whole).completed, given.present), alone).output

    assert not torch.allclose(double(features), double(changed))


@pytest.mark.parametrize("row", sorted(TABLE_2))
def test_rows_of_table_2_switch_what_they_say(row):
    data = vectors(3, n=24)
    model = small_model(data)
    objective = MCE.table_2(row, references=fixed_references(data))
    objective.setup(model, data)
    terms = objective(model, first_batch(data))
    on = TABLE_2[row].split()
    assert set(terms) == {"task"} | ({"single", "subset", "completion"} & set(on))
    rare = objective.availability_weight
    assert (rare.std() > 0) == ("A" in on)
    assert ("B" in objective.diagnostics) == ("B" in on)


def test_rows_j_and_m_of_table_2_differ_by_a():
    assert set(TABLE_2["m"].split()) - set(TABLE_2["j"].split()) == {"A"}


@pytest.mark.parametrize("variant", ["released-digits", "released-iemocap", "released-nuscenes"])
def test_released_variants_train_and_differ_from_the_paper(variant):
    data = vectors(3, n=24)
    model, paper = ready(data)
    _, released = ready(data, variant=variant)
    released.heads.load_state_dict(paper.heads.state_dict())
    batch = first_batch(data)
    ours, theirs = paper(model, batch), released(model, batch)
    assert set(theirs) == {"task", "single", "subset", "completion"}
    torch.testing.assert_close(theirs["task"], ours["task"])
    assert not torch.allclose(paper.diagnostics["phi"], released.diagnostics["phi"])
    assert not torch.allclose(theirs["subset"], ours["subset"])
    sum(theirs.values()).backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())


def test_released_nuscenes_needs_no_references():
    data = vectors(3, n=24)
    objective = MCE(variant="released-nuscenes")
    assert not objective.needs_references
    model = small_model(data)
    objective.setup(model, data)
    assert torch.isfinite(sum(objective(model, first_batch(data)).values()))


def test_momentum_keeps_a_share_of_the_last_state():
    data = vectors(3, n=24)
    model, fresh = ready(data)
    fresh(model, first_batch(data))
    now = fresh.diagnostics["B"].clone()
    _, slow = ready(data, momentum=0.75)
    slow(model, first_batch(data))
    torch.testing.assert_close(slow.diagnostics["B"], now)  # there was no state before
    slow.learning_state.mul_(2)
    slow(model, first_batch(data))
    torch.testing.assert_close(slow.diagnostics["B"], (0.75 * 2 + 0.25) * now)


def test_a_batch_without_a_modality_leaves_its_state():
    data = vectors(2, n=24, missing=0.0)
    model, objective = ready(data, momentum=0.9)
    objective(model, first_batch(data).hide(["m0"]))
    assert objective.diagnostics["B"][1] == 0, "never met"
    objective(model, first_batch(data))
    met = objective.learning_state.clone()
    objective(model, first_batch(data).hide(["m0"]))
    assert objective.learning_state[1] == met[1] > 0


def test_dataset_upper_is_the_same_for_every_sample():
    data = vectors(2, n=24)
    scores = (torch.rand(24, 2, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    objective = MCE(references=fixed_references(data, scores), upper="dataset")
    objective.setup(small_model(data), data)
    for m in range(2):
        has = data.present[:, m]
        assert objective.upper_scores[has, m].unique().tolist() == pytest.approx([scores[has, m].mean().item()])


def test_prior_of_the_empty_subset_lowers_phi():
    data = vectors(2, n=30)
    model, zero = ready(data)
    _, prior = ready(data, empty="prior")
    zero(model, first_batch(data))
    prior(model, first_batch(data))
    assert (prior.diagnostics["phi"] < zero.diagnostics["phi"]).all()


def test_eval_scores_ignore_dropout():
    data = vectors(2, n=60)
    model, objective = ready(data, score_mode="eval")
    model.head = torch.nn.Sequential(torch.nn.Dropout(0.9), model.head)
    batch = first_batch(data)
    seen = {tuple(phi_of(objective, model, batch)) for _ in range(4)}
    assert len(seen) == 1
    assert model.training
    _, reuse = ready(data)
    assert len({tuple(phi_of(reuse, model, batch)) for _ in range(4)}) > 1


def phi_of(objective, model, batch):
    objective(model, batch)
    return objective.diagnostics["phi"].tolist()


def test_memory_bound_changes_nothing_but_memory():
    data = vectors(4, n=40)
    model, whole = ready(data)
    _, chunked = ready(data, memory=0.01)
    chunked.heads.load_state_dict(whole.heads.state_dict())
    batch = first_batch(data)
    results = []
    for objective in (whole, chunked):
        model.zero_grad()
        sum(objective(model, batch).values()).backward()
        results.append(gradients(model))
    assert chunked._chunk < 100
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("modalities", "budget"), [(7, 12), (7, None), (4, 5)])
def test_drawn_subsets_estimate_the_full_loss_without_bias(modalities, budget):
    data = vectors(modalities, n=6, missing=0.3)
    model, objective = ready(data, budget=budget, single=0)
    batch = first_batch(data)
    every = model.lattice.pairs(batch.present)
    share = objective.shares(model.lattice, every, torch.ones(len(every.rows)), batch.present)
    with torch.no_grad():
        losses = objective.losses(model.predict_pairs(batch, every), batch.target[every.rows])
        exact = (share * losses).sum()
        torch.manual_seed(0)
        draws = torch.stack([objective(model, batch)["subset"] for _ in range(600)])
    assert (draws.mean() - exact).abs() <= 4.5 * draws.std() / len(draws) ** 0.5
    assert draws.std() > 0


def test_a_budget_that_every_subset_fits_into_draws_none():
    data = vectors(3, n=20)
    model, whole = ready(data)
    _, wide = ready(data, budget=7)
    wide.heads.load_state_dict(whole.heads.state_dict())
    batch = first_batch(data)
    terms = [objective(model.eval(), batch) for objective in (whole, wide)]
    assert {name: term.item() for name, term in terms[0].items()} == {n: t.item() for n, t in terms[1].items()}


@pytest.mark.parametrize("empty", ["zero", "prior"])
def test_contributions_from_drawn_subsets_are_unbiased(empty):
    data = vectors(3, n=20)
    model, exact = ready(data, empty=empty)
    _, drawn = ready(data, empty=empty, budget=3)
    batch = first_batch(data)
    model.eval()
    with torch.no_grad():
        exact(model, batch)
        torch.manual_seed(0)
        phi = []
        for _ in range(800):
            drawn(model, batch)
            phi.append(drawn.diagnostics["phi"])
    phi = torch.stack(phi)
    assert (phi.std(0) > 0).all()
    assert ((phi.mean(0) - exact.diagnostics["phi"]).abs() <= 4.5 * phi.std(0) / len(phi) ** 0.5 + 1e-6).all()


def test_what_mce_refuses():
    data = vectors(3, n=24)
    with pytest.raises(ConfigError, match="there are none. Pass references=lacunar.references"):
        MCE().setup(small_model(data), data)
    with pytest.raises(ConfigError, match="needs a model with completion="):
        MCE(references=fixed_references(data)).setup(small_model(data, completion=False), data)
    with pytest.raises(ConfigError, match="unknown gap 'shaply'. Did you mean 'shapley'"):
        MCE(gap="shaply")
    with pytest.raises(ConfigError, match="expected a number >= 0, got -1"):
        MCE(single=-1)
    with pytest.raises(ConfigError, match="rows a to m, not 'n'"):
        MCE.table_2("n")
    seven = vectors(7, n=24)
    with pytest.raises(ConfigError, match="gap='loo' needs every subset"):
        MCE(gap="loo", references=fixed_references(seven)).setup(small_model(seven), seven)
    with pytest.raises(ConfigError, match=r"gap='loo' needs every subset of a sample, not 4 that are drawn.*budget=7"):
        MCE(gap="loo", budget=4, references=fixed_references(data)).setup(small_model(data), data)
    MCE(gap="loo", budget=127, references=fixed_references(seven)).setup(small_model(seven), seven)
    with pytest.raises(ConfigError, match="budget: expected at least 2"):
        MCE(budget=1)
    model, objective = ready(data)
    other = vectors(3, n=99)
    with pytest.raises(DataError, match="the references have no score for"):
        objective(model, other.__getitems__([98]))


def test_a_head_of_another_width_is_named():
    data = vectors(2, n=24)
    model = small_model(data)
    model.head = torch.nn.Linear(16, 10)
    objective = MCE(references=fixed_references(data))
    objective.setup(model, data)
    with pytest.raises(ConfigError, match=r"The head gives 10 outputs for each sample, the target needs 3"):
        objective(model, first_batch(data))


def test_frozen_models_are_the_same_after_training():
    import lacunar as lc

    data = vectors(2, n=40)
    frozen = lc.references(data, models={"m0": torch.nn.Linear(3, 8)}, max_epochs=2)
    network = frozen.experts["m0"].model
    assert not any(parameter.requires_grad for parameter in network.parameters())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    scores, rows = frozen.scores(data).clone(), first_batch(data)
    answers = {name: frozen.experts[name].output(rows.inputs[name], None).clone() for name in data.names}
    model, objective = small_model(data), MCE(references=frozen)
    objective.setup(model, data)
    own = {id(parameter) for parameter in [*model.parameters(), *objective.parameters()]}
    assert not own & {id(parameter) for parameter in network.parameters()}
    optimizer = torch.optim.AdamW([*model.parameters(), *objective.parameters()], 0.1)
    for _ in range(3):
        sum(objective.train()(model.train(), rows).values()).backward()
        optimizer.step()
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(frozen.scores(data).nan_to_num(), scores.nan_to_num())
    for name in data.names:
        assert torch.equal(frozen.experts[name].output(rows.inputs[name], None), answers[name])
