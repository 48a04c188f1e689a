"""What every completer must keep: absent values never matter, observed ones never change, rows stand alone."""

import copy
import inspect

import numpy as np
import pytest
import torch
from tests.contracts.test_objectives import hidden_values
from tests.helpers import first_batch, small_model, vectors

import lacunar as lc
from lacunar.data.arrays import from_arrays
from lacunar.errors import ConfigError, DataError
from lacunar.generation import Completed, available, get
from lacunar.models.multimodal import Features

COMPLETERS = sorted(available())
every_completer = pytest.mark.parametrize("name", COMPLETERS)

#: Short training, for those that train: what they learn is not the matter here.
QUICK = {"updates": 4, "epochs": 1, "steps": 2, "hidden": 16, "width": 8, "samples": 2}


def new(name, **options):
    kind = get(name)
    known = inspect.signature(kind).parameters
    return kind(**{**{key: value for key, value in QUICK.items() if key in known}, **options})


def gaps(M=3, n=40, seed=0):
    """Vectors with cells absent in every pattern, and a last row that has nothing."""
    data = vectors(M, n=n, seed=seed, missing=0.4)
    arrays = {name: np.full((n + 1, *data.shapes[name]), np.nan, dtype=np.float32) for name in data.names}
    for m, name in enumerate(data.names):
        has = data.present[:, m].nonzero().squeeze(1)
        arrays[name][has.numpy()] = data.columns[name].take(has)[0].numpy()
    target = np.append(data.target.numpy(), 0)
    return from_arrays(arrays, target, task=data.task, kinds=dict.fromkeys(arrays, "vector"), keep_empty=True)


def values(data):
    return {
        name: data.columns[name].take(data.present[:, m].nonzero().squeeze(1))[0] for m, name in enumerate(data.names)
    }


def same(first, second, **tolerance):
    assert torch.equal(first.present, second.present)
    assert torch.equal(first.generated, second.generated)
    for name, rows in values(first).items():
        torch.testing.assert_close(rows, values(second)[name], **(tolerance or {"rtol": 0, "atol": 0}))


@every_completer
@pytest.mark.parametrize("M", [1, 2, 3, 4, 5])
def test_any_pattern_of_any_number_of_modalities_is_filled_and_flagged(name, M):
    data = gaps(M)
    full = new(name).fit(data).complete(data)
    assert bool(full.present.all())
    assert torch.equal(full.generated, ~data.present)
    for m, (modality, rows) in enumerate(values(full).items()):
        assert rows.shape == (len(data), *data.shapes[modality])
        assert torch.isfinite(rows).all()
        assert torch.equal(rows[data.present[:, m]], values(data)[modality])  # bit for bit
    same(full.observed(), data)
    assert torch.equal(full.target, data.target)


@every_completer
def test_complete_data_come_back_as_they_are(name):
    data = vectors(3, n=30, missing=0.0)
    completer = new(name).fit(data)
    assert completer.complete(data) is data
    assert not completer.complete_batch(first_batch(data)).generated.any()
    incomplete = gaps()
    once = completer.complete(incomplete)
    same(completer.complete(once), once)


@every_completer
def test_what_stands_in_absent_cells_never_matters(name):
    data = vectors(3, n=40, missing=0.4)
    fills = [new(name).fit(hidden_values(data, f)).complete(hidden_values(data, f)) for f in (0.0, torch.nan, 1e30)]
    same(fills[0], fills[1])
    same(fills[0], fills[2])
    model = small_model(data)
    completer = new(name).fit(data, model)
    outcomes = []
    for filler in (0.0, torch.nan, 1e30, torch.inf):
        features = model.encode(first_batch(data))
        h = features.h.detach().masked_fill(~features.present[..., None], filler).requires_grad_()
        filled = completer.complete_features(Features(h, features.present)).h
        assert torch.isfinite(filled).all()
        (gradient,) = torch.autograd.grad(filled.square().sum(), h)
        assert torch.isfinite(gradient).all()
        assert not gradient[~features.present].any()
        outcomes.append((filled, gradient))
    for filled, gradient in outcomes[1:]:
        assert torch.equal(filled, outcomes[0][0])
        assert torch.equal(gradient, outcomes[0][1])


@every_completer
def test_labels_are_not_needed_to_fill(name):
    data = gaps()
    completer = new(name).fit(data)
    same(completer.complete(data.with_task(data.task, None)), completer.complete(data))
    relabelled = completer.complete(data.with_task(data.task, (data.target + 1) % 3))
    same(relabelled, completer.complete(data))


@every_completer
def test_the_seed_decides_and_the_global_random_state_is_left_alone(name):
    data = gaps()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = new(name, seed=1).fit(data)
    filled = first.complete(data)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    same(new(name, seed=1).fit(data).complete(data), filled)
    same(first.complete(data), filled)
    same(first.fit(gaps(seed=5)).fit(data).complete(data), filled)  # nothing stays of what was learned before


@every_completer
def test_no_row_depends_on_its_batch_mates(name):
    data = gaps(3, n=30)
    completer = new(name).fit(data)
    together = values(completer.complete(data))
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    shuffled = values(completer.complete(data.select(order)))
    for row in range(len(data)):
        alone = completer.complete_batch(data[row])
        assert torch.equal(alone.generated, ~data.present[row : row + 1])
        for modality, rows in together.items():
            torch.testing.assert_close(alone.inputs[modality][0], rows[row], rtol=1e-4, atol=1e-5)
    for modality, rows in together.items():
        torch.testing.assert_close(shuffled[modality], rows[order], rtol=1e-4, atol=1e-5)


@every_completer
def test_a_batch_without_one_modality_or_without_rows(name):
    data = gaps()
    completer = new(name).fit(data)
    batch = first_batch(data).hide(["m0", "m2"])
    filled = completer.complete_batch(batch)
    assert bool(filled.present.all())
    assert filled.inputs["m1"].shape == (len(data), 4)
    assert torch.isfinite(filled.inputs["m1"]).all()
    assert bool(filled.generated[:, 1].all())
    assert len(completer.complete_batch(data.__getitems__([]))) == 0
    model = small_model(data)
    inside = new(name).fit(data, model)
    h = inside.complete_features(model.encode(batch)).h
    assert h.shape == (len(data), 3, 8)
    assert torch.isfinite(h).all()
    assert inside.complete_features(model.encode(data.__getitems__([]))).h.shape == (0, 3, 8)


@every_completer
def test_inside_a_model_observed_features_stay_and_the_rest_is_flagged(name):
    data = gaps()
    model = small_model(data)
    completer = new(name).fit(data, model)
    features = model.encode(first_batch(data))
    filled = completer.complete_features(features)
    assert torch.equal(filled.present, data.present)
    assert torch.equal(filled.generated, ~data.present)
    assert torch.equal(filled.h[data.present], features.h[data.present])
    with pytest.raises(ConfigError, match="completes features, not values"):
        completer.complete(data)
    with pytest.raises(DataError, match=r"features of shape \(3, 8\), got \(3, 5\)"):
        completer.complete_features(Features(features.h[..., :5], data.present))


@every_completer
@pytest.mark.parametrize("inside", [False, True], ids=["values", "features"])
def test_what_is_saved_fills_the_same(name, inside, tmp_path, caplog):
    data = gaps()
    model = small_model(data).eval() if inside else None
    completer = new(name, seed=2).fit(data, model)
    lc.save(completer, tmp_path / "completer")
    again = lc.load(tmp_path / "completer")
    assert not caplog.records  # no warning that model= is needed
    assert type(again) is type(completer)
    assert repr(again) == repr(completer)
    twin = copy.deepcopy(completer)
    twin.load_state_dict(completer.state_dict())
    for other in (again, twin):
        if model is not None:
            features = model.encode(first_batch(data))
            assert torch.equal(other.complete_features(features).h, completer.complete_features(features).h)
        else:
            same(other.complete(data), completer.complete(data))
    empty = lc.load(lc.save(new(name), tmp_path / "new"))
    with pytest.raises(ConfigError, match="has not been fitted"):
        empty.complete(data)


@every_completer
def test_splits_are_fitted_on_their_train_part(name):
    splits = vectors(3, n=80).split(train=0.5, val=0.25, test=0.25, seed=0)
    from_splits, from_train = new(name).fit(splits), new(name).fit(splits.train)
    same(from_splits.complete(splits.test), from_train.complete(splits.test))


@every_completer
def test_cells_that_were_generated_teach_nothing(name):
    data = gaps()
    filled = get("mean")().fit(data).complete(data)
    same(new(name).fit(filled).complete(data), new(name).fit(data).complete(data))


@every_completer
def test_images_come_back_as_images(name):
    draw = np.random.default_rng(0)
    image, sound = draw.normal(size=(24, 1, 4, 4)), draw.normal(size=(24, 5))
    image[:6], sound[6:9] = np.nan, np.nan
    data = from_arrays({"image": image, "sound": sound}, np.arange(24) % 2, kinds={"image": "image"})
    full = new(name).fit(data).complete(data)
    assert full.columns["image"].take(torch.arange(24))[0].shape == (24, 1, 4, 4)
    assert full.kinds == data.kinds


@every_completer
@pytest.mark.parametrize("inside", [False, True], ids=["values", "features"])
def test_a_completed_model_predicts_from_every_subset_and_sees_nothing_else(name, inside, tmp_path):
    data = vectors(3, n=30, missing=0.0)
    model = small_model(data).eval()
    completed = Completed(model, new(name).fit(data, model if inside else None)).eval()
    lattice, batch = completed.lattice, first_batch(data)
    pairs = lattice.pairs(batch.present)
    output = completed.predict_pairs(batch, pairs)
    assert output.shape == (len(pairs.rows), 3)
    torch.testing.assert_close(completed.predict_pairs(batch, pairs, chunk=7), output)
    for code in lattice.subsets:
        part = batch.hide(lattice.subset(code))
        torch.testing.assert_close(completed(part), output[pairs.codes == code])
    everything = pairs.codes == 7
    torch.testing.assert_close(output[everything], model(batch))
    table = lc.evaluate(completed, data, bootstrap=20)
    assert table.frame["score"].notna().all()
    again = lc.load(lc.save(completed, tmp_path / "completed"))
    torch.testing.assert_close(again.predict_pairs(batch, pairs), output)


@every_completer
def test_score_is_measured_on_hidden_cells_and_repeats_itself(name):
    data = vectors(3, n=60, missing=0.2)
    completer = new(name).fit(data)
    frame = completer.score(data, resamples=50, repeats=2, seed=1)
    assert list(frame.index) == ["m0", "m1", "m2"]
    assert (frame["n"] > 0).all()
    assert np.isfinite(frame.to_numpy(dtype=float)).all()
    assert (frame["r2"] <= 1).all()
    assert frame.equals(completer.score(data, resamples=50, repeats=2, seed=1))
    model = small_model(data)
    inside = new(name).fit(data, model)
    assert np.isfinite(inside.score(data, model=model, resamples=50, repeats=1)["rmse"]).all()
    with pytest.raises(ConfigError, match="give it as model="):
        inside.score(data)


def refused():
    sequences = from_arrays({"a": [np.zeros((k + 1, 2)) for k in range(4)], "b": np.eye(4)}, [0, 1, 0, 1])
    data = vectors(2, n=12)
    splits = vectors(2, n=30).split(train=0.5, val=0.2, test=0.3, seed=0)
    nobody = from_arrays({"a": np.full((4, 2), np.nan), "b": np.eye(4)}, [0, 1, 0, 1])
    return [
        (lambda c: c.fit(sequences), DataError, "'a'.*these are sequence.*fit\\(data, model\\)"),
        (lambda c: c.fit(nobody), DataError, "no sample of the training data has modality 'a'"),
        (lambda c: c.complete(data), ConfigError, "has not been fitted: call fit"),
        (lambda c: c.fit(data).complete(vectors(3, n=12)), DataError, "fitted to the modalities"),
        (lambda c: c.fit(data).complete_features(Features(torch.zeros(1, 2, 3), torch.ones(1, 2).bool())), ConfigError,
         "fitted to values, not inside a model"),
        (lambda c: c.fit(data).complete(splits), DataError, "one part of the data, got all splits"),
        (lambda c: c.fit(data).score(splits), DataError, "one part of the data, got all splits"),
        (lambda c: c.fit(data).score(data, rate=1.0), ConfigError, "rate: expected a share"),
        (lambda c: c.fit(data).score(data, repeats=0), ConfigError, "repeats"),
        (lambda c: c.fit(data).score(data, hide="m9"), DataError, "unknown modality 'm9'"),
        (lambda c: c.fit(data).score(data.only("m0")), DataError, "fitted to the modalities"),
    ]  # fmt: skip


@every_completer
@pytest.mark.parametrize("case", range(len(refused())))
def test_bad_input_is_refused_in_words(name, case):
    do, error, words = refused()[case]
    with pytest.raises(error, match=words):
        do(new(name))


@every_completer
def test_a_seed_is_a_whole_number(name):
    with pytest.raises(ConfigError, match="seed: expected at least 0, got -1"):
        new(name, seed=-1)
    for seed in ("x", 1.5, True):
        with pytest.raises(ConfigError, match=f"seed: expected a whole number, got {seed!r}"):
            new(name, seed=seed)
