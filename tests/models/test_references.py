import json

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from tests.helpers import first_batch, vectors
from torch import nn

import lacunar as lc
from lacunar.data.arrays import from_arrays
from lacunar.errors import ConfigError, DataError, RunError
from lacunar.models.configurable import Configurable
from lacunar.models.references import References
from lacunar.tasks import Regression


@pytest.fixture(scope="module")
def data():
    return vectors(2, n=90, missing=0.3, strength=1.5)


@pytest.fixture(scope="module")
def found(data):
    return lc.references(data)


def test_scores_stand_where_the_modality_is_and_nowhere_else(data, found):
    scores = found.scores(data)
    assert torch.equal(torch.isnan(scores), ~data.present)
    assert scores[data.present].mean() > 0.6


def test_out_of_fold_is_honest_where_in_sample_is_not():
    draw = np.random.default_rng(0)
    target = np.arange(240) % 2
    weak = from_arrays({"weak": draw.normal(size=(240, 5)) + 0.3 * target[:, None]}, target)
    trees = {"weak": ExtraTreesClassifier(50, random_state=0)}
    unseen = lc.references(weak, models=trees)
    seen = lc.references(weak, models=trees, out_of_fold=False)
    assert seen.scores(weak).mean() == 1.0
    assert 0.5 < unseen.scores(weak).mean() < 0.75
    assert unseen.out_of_fold
    assert not seen.out_of_fold


def test_no_sample_is_scored_by_a_model_that_saw_it(data):
    class Memory(LogisticRegression):
        """Right on what it has seen, wrong on everything else."""

        def fit(self, X, y):
            self.classes_ = np.unique(y)
            self.seen_ = {row.tobytes(): label for row, label in zip(X, y)}
            return self

        def predict_proba(self, X):
            table = np.zeros((len(X), len(self.classes_)))
            for row, values in enumerate(X):
                table[row, self.seen_.get(values.tobytes(), 0)] = 1.0
            return table

    memory = lc.references(data, models={name: Memory() for name in data.names})
    scores = memory.scores(data)
    right = (data.target == 0).float()[:, None].expand_as(scores)
    assert torch.equal(scores[data.present], right[data.present])


def test_predictions_are_for_the_rows_that_have_the_modality(data, found):
    batch = first_batch(data, 20)
    said = found.predict(batch)
    assert {name: len(output) for name, output in said.items()} == {n: len(batch.rows(n)) for n in data.names}
    empty = found.predict(batch.hide(["m0"]))
    assert empty["m1"].shape == (0, 3)


def test_the_same_content_is_found_again_and_other_content_is_not(data, tmp_path):
    quick = {name: LogisticRegression() for name in data.names}
    first = lc.references(data, cache=tmp_path, models=quick)
    folders = list(tmp_path.iterdir())
    again = lc.references(data, cache=tmp_path, models=quick)
    assert list(tmp_path.iterdir()) == folders
    assert torch.equal(torch.nan_to_num(first.scores(data)), torch.nan_to_num(again.scores(data)))
    lc.references(data, cache=tmp_path, models=quick, seed=1)
    other = vectors(2, n=90, missing=0.3, strength=1.5, seed=1)
    lc.references(other, cache=tmp_path, models=quick)
    lc.references(data, cache=tmp_path, models=quick | {"m0": LogisticRegression(C=2.0)})
    assert len(list(tmp_path.iterdir())) == 4


def test_references_of_another_task_or_other_groups_are_not_taken_from_the_cache(tmp_path):
    draw = np.random.default_rng(0)
    values, target = draw.normal(size=(40, 2)), draw.normal(size=40)
    found = {}
    for groups in (None, np.arange(40) // 4):
        for tolerance in (0.1, 3.0):
            data = from_arrays({"a": values}, target, task=Regression(tolerance=tolerance), groups=groups)
            made = lc.references(data, models={"a": Ridge()}, cache=tmp_path)
            found[tolerance, groups is None] = made
            assert made.task.tolerance == tolerance
    assert len(list(tmp_path.iterdir())) == 4
    assert not torch.equal(found[3.0, True].outputs["a"], found[3.0, False].outputs["a"])


def test_the_cache_tells_steps_from_padding(tmp_path):
    target = np.arange(12) % 2
    for steps in (2, 3):  # padded with zeros to the same rows
        sequences = [np.concatenate([np.ones((2, 1)), np.zeros((1, 1))])[:steps] for _ in range(11)]
        data = from_arrays({"s": [*sequences, np.ones((3, 1))]}, target)
        lc.references(data, models={"s": MeanOfSteps()}, cache=tmp_path, max_epochs=1, out_of_fold=False)
    assert len(list(tmp_path.iterdir())) == 2


class MeanOfSteps(Configurable):
    def __init__(self, outputs=4):
        super().__init__()
        self.layer = nn.Linear(1, outputs)

    def forward(self, x):
        return self.layer(x.mean(1))


def test_saved_references_predict_the_same(data, found, tmp_path):
    found.save(tmp_path / "references")
    loaded = References.load(tmp_path / "references")
    batch = first_batch(data)
    for name, output in found.predict(batch).items():
        assert torch.equal(loaded.predict(batch)[name], output)
    assert torch.equal(torch.nan_to_num(loaded.scores(data)), torch.nan_to_num(found.scores(data)))
    assert [path.name for path in tmp_path.iterdir()] == ["references"]


def test_nothing_foreign_is_loaded(data, found, tmp_path):
    class Foreign(LogisticRegression):
        pass

    Foreign.__module__ = "elsewhere"
    found.save(tmp_path / "references")
    from skops.io import dump

    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    model.extra = Foreign()
    dump(model, tmp_path / "references" / "expert0" / "0.skops")
    with pytest.raises(RunError, match="not scikit-learn's and are not trusted: elsewhere"):
        References.load(tmp_path / "references")
    facts = json.loads((tmp_path / "references" / "references.json").read_text())
    (tmp_path / "references" / "references.json").write_text(json.dumps(facts | {"format": 99}))
    with pytest.raises(RunError, match="later version of lacunar"):
        References.load(tmp_path / "references")
    with pytest.raises(RunError, match="no references can be read here"):
        References.load(tmp_path)


def test_a_network_is_the_reference_of_an_image():
    draw = np.random.default_rng(0)
    target = np.arange(48) % 2
    images = draw.normal(size=(48, 34, 34)) + 2.0 * target[:, None, None]
    data = from_arrays({"image": images}, target)
    found = lc.references(data, max_epochs=8)
    assert found.scores(data).mean() > 0.8
    before = {k: v.clone() for k, v in found.experts["image"].model.state_dict().items()}
    assert not any(p.requires_grad for p in found.experts["image"].model.parameters())
    found.predict(first_batch(data))
    assert all(torch.equal(before[k], v) for k, v in found.experts["image"].model.state_dict().items())


def test_a_given_encoder_is_trained_afresh():
    draw = np.random.default_rng(0)
    target = np.arange(60) % 2
    data = from_arrays({"a": draw.normal(size=(60, 4)) + target[:, None]}, target)
    encoder = nn.Linear(4, 8)
    weight = encoder.weight.detach().clone()
    found = lc.references(data, models={"a": encoder}, max_epochs=5)
    assert torch.equal(encoder.weight, weight)
    assert found.experts["a"].model.encoder("a").out_features == 8


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_other_tasks(kind):
    draw = np.random.default_rng(0)
    values = draw.normal(size=(80, 4))
    target = values[:, 0] * 2 + 0.1 * draw.normal(size=80) if kind == "regression" else (values[:, :2] > 0).astype(int)
    data = from_arrays({"a": values, "b": draw.normal(size=(80, 3))}, target, task=kind)
    data.task.fit(data.target)
    found = lc.references(data)
    scores = found.scores(data).mean(0)
    assert scores[0] > scores[1] + 0.2


def test_few_samples_get_the_prior():
    values = np.full((40, 2), np.nan)
    values[:3] = 1.0
    data = from_arrays({"a": np.random.default_rng(0).normal(size=(40, 2)), "rare": values}, np.arange(40) % 2)
    found = lc.references(data)
    said = found.predict(first_batch(data))["rare"]
    assert torch.allclose(said[0], said[1])


@pytest.mark.parametrize("kind", ["classification", "regression", "multilabel"])
def test_a_single_sequence_is_answered_by_the_prior(kind, tmp_path):
    draw = np.random.default_rng(0)
    target = np.eye(2, dtype=int)[np.arange(20) % 2] if kind == "multilabel" else np.arange(20) % 2
    sequences = [None] * 4 + [draw.normal(size=(5, 3))] + [None] * 15
    task = Regression(tolerance=1.0) if kind == "regression" else kind
    data = from_arrays({"a": draw.normal(size=(20, 2)), "s": sequences}, target, task=task)
    found = lc.references(data, models={"a": "network"}, max_epochs=1)
    assert found.scores(data)[4, 1] == 1.0
    asked = torch.randn(2, 7, 3), torch.tensor([7, 4])
    said = found.experts["s"].output(*asked)
    assert torch.equal(said[0], said[1])
    found.save(tmp_path / "references")
    assert torch.equal(References.load(tmp_path / "references").experts["s"].output(*asked), said)


def test_a_single_label_map_is_scored_by_the_prior():
    draw = np.random.default_rng(0)
    views = {name: draw.normal(size=(4, 1, 8, 8)) for name in ("a", "b")}
    present = np.array([[True, True], [True, False], [True, False], [True, False]])
    data = from_arrays(views, draw.integers(0, 2, (4, 8, 8)), present=present, task="segmentation")
    found = lc.references(data, max_epochs=1)
    only = found.outputs["b"][0]
    assert torch.equal(only, only[:, :1, :1].expand_as(only))


def test_one_yes_or_no_label():
    draw = np.random.default_rng(0)
    values = draw.normal(size=(60, 3))
    target = (values[:, :1] > 0).astype(int)
    data = from_arrays({"a": values, "b": draw.normal(size=(60, 2))}, target, task="multilabel")
    found = lc.references(data, models={"a": LogisticRegression(), "b": OneVsRestClassifier(LogisticRegression())})
    assert found.outputs["a"].shape == (60, 1)
    assert found.scores(data)[:, 0].mean() > 0.8
    always = from_arrays({"a": values}, np.ones((60, 1), dtype=int), task="multilabel")
    assert lc.references(always, models={"a": LogisticRegression()}).scores(always).mean() == 1.0


def test_a_word_asks_for_the_default_network(data):
    found = lc.references(data, models={"m0": "network"}, out_of_fold=False, max_epochs=1)
    assert [type(expert).__name__ for expert in found.experts.values()] == ["NetworkExpert", "EstimatorExpert"]
    torch.manual_seed(1)
    again = lc.references(data, models={"m0": "network"}, out_of_fold=False, max_epochs=1)
    batch = first_batch(data)
    assert torch.equal(found.predict(batch)["m0"], again.predict(batch)["m0"]), (
        "by its seed, not by what was drawn before"
    )
    with pytest.raises(ConfigError, match="m1: expected an estimator, an encoder or 'network', got 'netwrok'"):
        lc.references(data, models={"m1": "netwrok"})


def test_what_references_refuse(data, found):
    with pytest.raises(ConfigError, match="unknown modality 'm9'"):
        lc.references(data, models={"m9": LogisticRegression()})
    with pytest.raises(DataError, match="need a target"):
        lc.references(from_arrays({"a": np.ones((4, 1))}))
    with pytest.raises(DataError, match="'m1' is present in no training sample"):
        lc.references(data.hide(np.array([[True, False]] * len(data))))
    other = vectors(2, n=200, missing=0.3)
    with pytest.raises(DataError, match="no score for sample '90'"):
        found.scores(other)
    full = vectors(2, n=90, missing=0.0)
    with pytest.raises(DataError, match="made with another presence table"):
        found.scores(full)
    with pytest.raises(DataError, match="are for the modalities"):
        found.scores(data.only(["m0"]))


def test_an_existing_folder_is_left_alone(found, tmp_path):
    found.save(tmp_path / "references")
    before = (tmp_path / "references" / "references.json").read_bytes()
    with pytest.raises(RunError, match="is there already"):
        found.save(tmp_path / "references")
    assert (tmp_path / "references" / "references.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["references"]
