"""What every training method must keep: absent data change nothing, every subset predicts, state survives."""

import copy
import inspect

import pytest
import torch
from tests.helpers import first_batch, fixed_references, gradients, small_model, vectors

from lacunar.data.arrays import from_arrays
from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import DataError
from lacunar.objectives import Joint, available
from lacunar.objectives.base import Stage
from lacunar.tasks import Classification

VARIANTS = {f"MCE {name}": {"variant": f"released-{name}"} for name in ("digits", "iemocap", "nuscenes")}
VARIANTS["MMIN teacher"] = {"teacher": True}
#: Methods whose last stage is another kind of training.
LAST = {
    "SMIL meta-learning": "meta-learning",
    "ShaSpec subsets": "random subsets",
    "Resampling resampled": "resampled",
    "MMIN teacher": "imagination",
}
METHODS = list(dict.fromkeys([*sorted(available()), *VARIANTS, *LAST]))
#: Methods that refuse training data with gaps.
COMPLETE = {"MMIN teacher"}
#: Methods that know modalities by position, and why their loss depends on the order: not by what they learn.
POSITIONAL = {
    "MCE digits": "its last subset is one of positions",
    "MMIN": "random patterns and the cascade on concatenated features are drawn by position",
    "SMIL": "noise and the fusion of concatenated features are drawn by position",
    "SMIL meta-learning": "noise and the fusion of concatenated features are drawn by position",
    "ShaSpec subsets": "random subsets are drawn by position",
    "UniMF": "random patterns are drawn by position",
    "GenerateRest": "what is hidden, and the flow of each modality, are drawn by position",
    "RedCore": "noise and the imputers on concatenated features are drawn by position",
}
POSITIONAL["MMIN teacher"] = POSITIONAL["MMIN"]
every_method = pytest.mark.parametrize("method", METHODS)
every_method_for_gaps = pytest.mark.parametrize("method", [method for method in METHODS if method not in COMPLETE])
every_size = pytest.mark.parametrize("M", [2, 3, 4])


def data_for(method, M, **options):
    return vectors(M, **options | ({"missing": 0.0} if method in COMPLETE else {}))


def ready(method, data, precision=torch.float32, **options):
    kind = available()[method.split()[0]]
    options |= VARIANTS.get(method, {})
    if "references" in inspect.signature(kind).parameters:
        options["references"] = fixed_references(data)
    torch.manual_seed(0)
    model, objective = small_model(data).to(precision), kind(**options)
    objective.setup(model, data)
    if method in LAST:
        objective.stage = objective.stages()[-1]
        assert objective.stage.name == LAST[method]
        objective.on_stage_start(model, data, objective.stage)
    return model, objective


def step(model, objective, batch, seed=0):
    torch.manual_seed(seed)
    terms = objective(model, batch)
    model.zero_grad()
    objective.zero_grad()
    sum(terms.values()).backward()
    objective.after_backward(model)
    return terms, {**gradients(model), **{f"objective.{k}": v for k, v in gradients(objective).items()}}


def hidden_values(data, filler):
    """The same data made from arrays that hold ``filler`` in every absent cell."""
    arrays = {}
    for m, name in enumerate(data.names):
        values = torch.full((len(data), *data.shapes[name]), filler)
        has = data.present[:, m]
        values[has] = data.columns[name].take(has.nonzero().squeeze(1))[0]
        arrays[name] = values
    return from_arrays(arrays, data.target, present=data.present.numpy(), task=data.task)


@torch.no_grad()
def predicted(model, objective, batch):
    outputs = objective.build(model).eval()(batch)
    model.train(), objective.train()
    return outputs


@every_method_for_gaps
@every_size
def test_t1_absent_inputs_change_nothing_bitwise(method, M):
    data = data_for(method, M, n=32)
    model, objective = ready(method, data)
    start = copy.deepcopy(objective.state_dict())
    plain, plain_gradients = step(model, objective, first_batch(hidden_values(data, 0.0)))
    outputs = predicted(model, objective, first_batch(hidden_values(data, 0.0)))
    for filler in (float("nan"), 1e30):
        other = first_batch(hidden_values(data, filler))
        objective.load_state_dict(start)
        terms, other_gradients = step(model, objective, other)
        assert all(torch.equal(terms[name], plain[name]) for name in plain)
        assert all(torch.equal(other_gradients[name], plain_gradients[name]) for name in plain_gradients)
        assert torch.equal(predicted(model, objective, other), outputs)
        assert torch.isfinite(outputs).all()


@every_method
@every_size
@torch.no_grad()
def test_t2_every_subset_predicts_and_batch_mates_do_not_matter(method, M):
    data = vectors(M, n=32, missing=0.0)
    model, objective = ready(method, data)
    predictor = objective.build(model).eval()
    row = data[5]
    for code in predictor.lattice.subsets:
        alone = predictor(row.hide(predictor.lattice.subset(code)))
        assert alone.shape == (1, data.task.n_outputs)
        assert torch.isfinite(alone).all()
    mixed = vectors(M, n=32, missing=0.4)
    batch = first_batch(mixed)
    together = predictor(batch)
    assert len(together) == len(batch)
    for n in range(len(mixed)):
        torch.testing.assert_close(together[n], predictor(mixed[n])[0], rtol=1e-5, atol=1e-6)


@every_method_for_gaps
@every_size
def test_t3_a_modality_that_no_row_of_the_batch_has(method, M):
    data = data_for(method, M, n=48)
    model, objective = ready(method, data)
    rows = (~data.present[:, 0] & data.present[:, 1:].any(1)).nonzero().squeeze(1)
    assert len(rows) > 2
    terms, found = step(model, objective, data.__getitems__(rows.tolist()))
    assert all(torch.isfinite(term) for term in terms.values())
    encoder = [gradient for name, gradient in found.items() if name.startswith("encoders.0.")]
    assert all(gradient.abs().sum() == 0 for gradient in encoder)
    others = [gradient for name, gradient in found.items() if name.startswith("encoders.1.")]
    assert any(gradient.abs().sum() > 0 for gradient in others)


@every_method
@every_size
def test_t4_a_row_without_anything_is_refused(method, M):
    data = data_for(method, M, n=16)
    model, objective = ready(method, data)
    nothing = torch.ones(16, M, dtype=torch.bool)
    nothing[3] = False
    batch = first_batch(data).hide(nothing)
    with pytest.raises(DataError, match="Sample 3 has no"):
        objective(model, batch)
    with pytest.raises(DataError, match="Sample 3 has no"):
        model(batch)


@every_method
@every_size
def test_t5_renaming_and_reordering_changes_no_loss(method, M):
    data = data_for(method, M, n=32)
    order = [*range(1, M), 0]
    columns = {f"other{m}": data.columns[f"m{m}"] for m in order}
    moved = MultimodalDataset(columns, data.target, data.task, data.ids)
    if method in POSITIONAL:
        pytest.skip(POSITIONAL[method])
    options = {"rate": 0.0} if method == "ModalityDropout" else {}  # what is dropped is drawn by position
    model, objective = ready(method, data, **options)
    renamed, again = ready(method, moved, **options)
    permute(model, renamed, order)
    permute_state(objective, again, order)
    first, second = objective(model, first_batch(data)), again(renamed, first_batch(moved))
    for name in first:
        torch.testing.assert_close(second[name], first[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(renamed(first_batch(moved)), model(first_batch(data)), rtol=1e-5, atol=1e-6)


#: Names of module lists with a module for each modality, and of layers with an output for each.
LISTS, LAYERS = {"heads", "specific", "encoding"}, {"domain_head"}


def permute_state(objective, again, order):
    """The state of an objective for modalities in another order: lists and buffers with an entry for each modality."""
    state, M = objective.state_dict(), len(order)
    for key in list(state):
        words = key.split(".")
        place = next((i + 1 for i, word in enumerate(words) if word in LISTS), None)
        if place is not None:
            old = ".".join([*words[:place], str(order[int(words[place])]), *words[place + 1 :]])
            state[key] = objective.state_dict()[old]
        elif (len(words) == 1 or words[0] in LAYERS) and state[key].shape[:1] == (M,):
            state[key] = state[key][order]
        elif len(words) == 1 and state[key].shape[1:] == (M,):  # a row for each sample
            state[key] = state[key][:, order]
    again.load_state_dict(state)


def permute(model, renamed, order, features=8):
    """The weights of a small model for modalities in another order."""
    blocks = torch.cat([torch.arange(old * features, (old + 1) * features) for old in order])
    with torch.no_grad():
        for new, old in enumerate(order):
            renamed.encoders[new].load_state_dict(model.encoders[old].state_dict())
        renamed.completion.mix.weight.copy_(model.completion.mix.weight[blocks][:, blocks])
        renamed.completion.mix.bias.copy_(model.completion.mix.bias[blocks])
        renamed.head.weight.copy_(model.head.weight[:, blocks])
        renamed.head.bias.copy_(model.head.bias)


@every_method
@every_size
def test_t6_the_same_seed_gives_the_same_bits(method, M):
    data = data_for(method, M, n=32)
    results = []
    for _ in range(2):
        model, objective = ready(method, data)
        results.append(step(model, objective, first_batch(data)))
    assert all(torch.equal(results[0][0][name], results[1][0][name]) for name in results[0][0])
    assert all(torch.equal(results[0][1][name], results[1][1][name]) for name in results[0][1])


@every_method
@every_size
def test_t7_thirty_two_samples_can_be_learnt(method, M):
    data = data_for(method, M, n=32, missing=0.2, strength=1.5)
    model, objective = ready(method, data)
    optimizer = torch.optim.AdamW([*model.parameters(), *objective.parameters()], 1e-2, weight_decay=0.0)
    accuracy = 0.0
    for epoch in range(300):
        torch.manual_seed(epoch)
        if epoch % 20 == 0:
            objective.on_epoch_start(model, data, epoch)
            batch = first_batch(objective.training_set(data, epoch))
        optimizer.zero_grad()
        sum(objective(model, batch).values()).backward()
        objective.after_backward(model)
        optimizer.step()
        if epoch % 20 == 19:
            objective.on_epoch_end(model, data, epoch)
            predictor = objective.build(model).eval()
            accuracy = float(data.task.score(predictor(first_batch(data)), data.target).mean())
            model.train(), objective.train()
            if accuracy > 0.95:
                break
    assert accuracy > 0.95


@every_method
@every_size
def test_t8_terms_are_named_scalars_and_their_sum_is_the_loss(method, M):
    data = data_for(method, M, n=32)
    model, objective = ready(method, data)
    torch.manual_seed(0)
    start = copy.deepcopy(objective.state_dict())
    terms = objective(model, first_batch(data))
    assert "task" in terms
    assert all(term.shape == () for term in terms.values())
    weights = [name for name in inspect.signature(type(objective)).parameters if name in terms]
    if weights:
        _, halved = ready(method, data, **{name: 0.5 * getattr(objective, name) for name in weights})
        halved.load_state_dict(start)
        torch.manual_seed(0)
        again = halved(model, first_batch(data))
        for name in weights:
            torch.testing.assert_close(again[name], 0.5 * terms[name])


@every_method
@every_size
def test_t9_all_state_is_in_the_state_dict(method, M):
    data = data_for(method, M, n=32)
    model, objective = ready(method, data)
    step(model, objective, first_batch(data))
    saved = copy.deepcopy(objective.state_dict())
    _, restored = ready(method, data)
    restored.load_state_dict(saved)
    first, _ = step(model, objective, first_batch(data))
    second, _ = step(model, restored, first_batch(data))
    assert all(torch.equal(first[name], second[name]) for name in first)


#: Buffers that follow from the data or the configuration, and are made again from them.
DERIVED = {"classes", "allowed"}


@every_method
@every_size
def test_t9_no_buffer_is_left_out(method, M):
    """Whatever a buffer holds when it is saved, it holds when it is loaded."""
    data = data_for(method, M, n=32)
    _, objective = ready(method, data)
    for buffer in objective.buffers():
        buffer.copy_(~buffer if buffer.dtype == torch.bool else buffer + 1)
    _, restored = ready(method, data)
    restored.load_state_dict(objective.state_dict())
    kept = dict(restored.named_buffers())
    for name, buffer in objective.named_buffers():
        if name.split(".")[-1] not in DERIVED:
            torch.testing.assert_close(kept[name], buffer, rtol=0, atol=0, equal_nan=True, msg=f"{name} is lost")


@every_method
def test_a_second_setup_begins_anew(method):
    """Nothing that was learnt of other data remains, and their number of modalities is not that of these."""
    data = data_for(method, 3, n=32)
    _, used = ready(method, data_for(method, 2, n=20))
    _, fresh = ready(method, data)
    if getattr(used, "references", None) is not None:
        used.use_references(fixed_references(data))
    model = small_model(data)
    used.setup(model, data)
    if method in LAST:
        used.on_stage_start(model, data, used.stage)
    first, second = fresh.state_dict(), used.state_dict()
    assert set(first) == set(second)
    for name in first:
        torch.testing.assert_close(second[name], first[name], rtol=0, atol=0, equal_nan=True, msg=name)


PLAIN = {
    "ModalityDropout": {"rate": 0.0},
    "MCE": {"subset": 0.0, "single": 0.0, "completion": 0.0, "capability": False},
    "PMR": {"weight": 0.0, "entropy": 0.0},
    "PASSION": {"separate": 0.0, "distill": 0.0, "prototypes": 0.0},
    "OGM": {"strength": 1e-12, "noise": False},
    "Resampling": {},
}


@pytest.mark.parametrize("method", PLAIN)
@every_size
def test_zero_weights_recover_plain_joint_training(method, M):
    data = data_for(method, M, n=32)
    model, joint = ready("Joint", data)
    expected, plain = step(model, joint, first_batch(data))
    torch.manual_seed(0)
    objective = available()[method](**PLAIN[method])
    objective.setup(model, data)
    terms, found = step(model, objective, first_batch(data))
    torch.testing.assert_close(sum(terms.values()), expected["task"])
    for name, gradient in plain.items():
        torch.testing.assert_close(found[name], gradient)


@every_method
def test_layers_may_compute_in_half_precision(method):
    data = data_for(method, 3, n=32)
    model, objective = ready(method, data)
    with torch.autocast("cpu", torch.bfloat16):
        terms = objective(model, first_batch(data))
        loss = sum(terms.values())
    loss.backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())


@every_method
def test_smoothing_is_that_of_the_task_where_the_method_names_none(method):
    data = data_for(method, 2, n=12)
    smooth = MultimodalDataset(data.columns, data.target, Classification(3, label_smoothing=0.3), data.ids)
    output = torch.randn(12, 3)
    for own, expected in ((None, 0.3), (0.1, 0.1)):
        _, objective = ready(method, smooth, label_smoothing=own)
        torch.testing.assert_close(
            objective.losses(output, data.target), data.task.loss(output, data.target, smoothing=expected)
        )


@pytest.mark.parametrize(("method", "shows"), [("MCE", "phi"), ("OGM", "rho"), ("PMR", "rho"), ("PASSION", "distance")])
@every_size
def test_t10_diagnostics_rank_modalities_by_what_they_carry(M, method, shows):
    strengths = torch.linspace(0.2, 1.8, M)
    draw = torch.Generator().manual_seed(0)
    target = torch.arange(240) % 3
    means = torch.eye(3)
    arrays = {f"m{m}": strengths[m] * means[target] + 0.7 * torch.randn(240, 3, generator=draw) for m in range(M)}
    data = from_arrays(arrays, target)
    model, objective = ready(method, data)
    optimizer = torch.optim.AdamW([*model.parameters(), *objective.parameters()], 1e-2)
    batch = first_batch(data)
    for epoch in range(120):
        optimizer.zero_grad()
        sum(objective(model, batch).values()).backward()
        optimizer.step()
        if epoch % 20 == 19:
            objective.on_epoch_start(model, data, epoch)  # PMR's prototypes
    order = objective.diagnostics[shows].argsort(descending=shows == "distance")  # to what all know together
    assert order.tolist() == list(range(M))


@every_method
def test_modules_of_a_method_are_as_precise_as_the_model(method):
    data = data_for(method, 2)
    model, objective = ready(method, data, torch.float64)
    terms, _ = step(model, objective, first_batch(data))
    assert torch.isfinite(sum(terms.values()))
    assert all(parameter.dtype == torch.float64 for parameter in objective.parameters())


def test_arguments_that_stages_read_may_be_kept_late():
    class Warm(Joint):
        def __init__(self, warmup: float = 0.2):
            super().__init__()
            self.warmup = warmup

        def stages(self):
            return Stage("warm-up", self.warmup), Stage("train")

    assert Warm(0.5).stage == Stage("warm-up", 0.5)
