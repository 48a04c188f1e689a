"""Predictions as a table: every row, the prior where nothing is known, the model's own order of modalities."""

import numpy as np
import pytest
import torch
from torch import nn

from lacunar.data.arrays import from_arrays
from lacunar.errors import ConfigError, DataError, RunError
from lacunar.lattice import Lattice
from lacunar.prediction import NOTHING, align, predict, raw_outputs
from lacunar.tasks import Classification, MultiLabel, Regression, Segmentation


class Sum(nn.Module):
    """Adds up the first two entries of everything that a sample has: known outputs without training."""

    def __init__(self, task, names=("a", "b")):
        super().__init__()
        self.task, self.names, self.lattice = task, tuple(names), Lattice(names)
        self.dropout = nn.Dropout(0.5)
        self.batches = []

    def forward(self, batch):
        assert batch.names == self.names
        assert not self.training
        self.batches.append(len(batch))
        output = torch.zeros(len(batch), self.task.n_outputs)
        for name in self.names:
            output.index_add_(0, batch.rows(name), self.dropout(batch.inputs[name])[:, : self.task.n_outputs])
        return output


def rows(names=("a", "b")):
    values = {"a": [[1.0, 0.0], [0.0, 3.0], None, None], "b": [[0.5, 0.0], None, [0.0, 0.25], None]}
    present = np.array([[value is not None for value in values[name]] for name in names]).T
    filled = {name: np.array([value or [0, 0] for value in values[name]], dtype=float) for name in names}
    return from_arrays(filled, present=present, ids=["p", "q", "r", "s"], keep_empty=True)


def test_classes():
    task = Classification(["no", "yes"]).fit(torch.tensor([0, 0, 0, 1]))
    found = predict(Sum(task), rows(), batch_size=2)
    assert list(found) == ["id", "prediction", "probability_no", "probability_yes", "modalities", "flag"]
    assert found["id"].tolist() == ["p", "q", "r", "s"]
    assert found["prediction"].tolist() == ["no", "yes", "yes", "no"]
    assert found["modalities"].tolist() == ["a+b", "a", "b", "none"]
    assert found["flag"].tolist() == ["", "", "", NOTHING]
    expected = [1 / (1 + np.exp(1.5)), 1 / (1 + np.exp(-3)), 1 / (1 + np.exp(-0.25)), 0.25]
    assert np.allclose(found["probability_yes"], expected, atol=1e-6)


def test_labels():
    task = MultiLabel(["x", "y"]).fit(torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]))
    found = predict(Sum(task), rows())
    assert found["prediction"].tolist() == ["x", "y", "y", "x"]
    assert found["probability_y"][3] == pytest.approx(0.25)


def test_numbers():
    one = predict(Sum(Regression(1).fit(torch.tensor([1.0, 2.0, 6.0]))), rows())
    assert one["prediction"].tolist() == pytest.approx([1.5, 0.0, 0.0, 3.0])
    two = predict(Sum(Regression(2).fit(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))), rows())
    assert two[["prediction_0", "prediction_1"]].to_numpy().tolist() == [[1.5, 0], [0, 3], [0, 0.25], [2, 3]]


def test_only_rows_with_something_reach_the_model():
    model = Sum(Regression(1).fit(torch.tensor([1.0, 2.0])))
    raw_outputs(model, rows(), batch_size=2)
    assert model.batches == [2, 1]


def test_nothing_but_empty_rows():
    task = Regression(1).fit(torch.tensor([1.0, 2.0]))
    found = predict(Sum(task), rows().select([3]))
    assert found["prediction"].tolist() == [1.5]


def test_modalities_are_brought_into_the_models_order():
    task = Classification(["no", "yes"]).fit(torch.tensor([0, 1]))
    assert align(rows(("b", "a")), ("a", "b")).names == ("a", "b")
    swapped, straight = predict(Sum(task), rows(("b", "a"))), predict(Sum(task), rows())
    assert swapped.equals(straight)


def test_training_mode_comes_back():
    model = Sum(Regression(1).fit(torch.tensor([1.0, 2.0])))
    model.train()
    predict(model, rows())
    assert model.training


def test_a_modality_that_is_not_described():
    with pytest.raises(DataError, match="trained with the modality 'b', which the data do not describe"):
        predict(Sum(Regression(1)), rows().only(["a"]))


def test_label_maps_are_no_table():
    with pytest.raises(ConfigError, match="raw_outputs"):
        predict(Sum(Segmentation([0, 1])), rows())


def test_a_model_without_a_task_or_a_prior():
    with pytest.raises(RunError, match="does not know what it predicts"):
        predict(Sum(None), rows())
    with pytest.raises(RunError, match="never fitted"):
        predict(Sum(Regression(1)), rows())


def test_rows_are_read_as_many_at_a_time_as_fit(monkeypatch):
    model, data = Sum(Regression(1).fit(torch.tensor([1.0, 2.0]))), rows()
    monkeypatch.setattr(type(data), "rows_at_once", 1)
    predict(model, data)
    assert model.batches == [1, 1, 1]
