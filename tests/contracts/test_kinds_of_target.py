"""Every method trains on every kind of target that it is defined for, and refuses the others in words."""

import inspect

import pytest
import torch
from tests.helpers import fixed_references, gradients, small_model
from torch import nn

from lacunar.data.arrays import from_arrays
from lacunar.errors import ConfigError
from lacunar.models.fusions.mean import MeanFusion
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives import available
from lacunar.tasks import Classification, MultiLabel, Regression, Segmentation

N = 24
DRAW = torch.Generator().manual_seed(0)
TARGETS = {
    "classes": (Classification(3), torch.arange(N) % 3),
    "several labels": (MultiLabel(["a", "b", "c"]), torch.rand(N, 3, generator=DRAW) > 0.5),
    "a number": (Regression(), torch.randn(N, generator=DRAW)),
    "two numbers": (Regression(2), torch.randn(N, 2, generator=DRAW)),
    "label maps": (Segmentation(3), torch.randint(3, (N, 8, 8), generator=DRAW)),
}


def data_for(kind, M):
    task, target = TARGETS[kind]
    shape = (1, 8, 8) if kind == "label maps" else (4,)
    present = torch.rand(N, M, generator=torch.Generator().manual_seed(1)) > 0.4
    present[:4] = True  # SMIL takes its prototypes from complete rows
    present[~present.any(1), 0] = True
    arrays = {f"m{m}": torch.randn(N, *shape, generator=DRAW) for m in range(M)}
    data = from_arrays(arrays, target, present=present.numpy(), task=task)
    task.fit(data.target)
    return data


def model_for(data):
    if data.task.kind != "segmentation":
        return small_model(data)
    torch.manual_seed(0)
    encoders = {name: nn.Conv2d(1, 6, 3, padding=1) for name in data.names}
    return MultimodalModel(encoders, None, MeanFusion(6), nn.Conv2d(6, 3, 1), task=data.task)


def make(method, data):
    options = {}
    parameters = inspect.signature(available()[method]).parameters
    if "references" in parameters:
        options["references"] = fixed_references(data)
    if "completion" in parameters and data.task.kind == "segmentation":
        options["completion"] = 0.0
    return available()[method](**options)


@pytest.mark.parametrize("M", [2, 3])
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("method", sorted(available()))
def test_every_stage_trains_or_the_method_refuses(method, kind, M):
    data = data_for(kind, M)
    model, objective = model_for(data), make(method, data)
    try:
        objective.setup(model, data)
    except ConfigError as error:
        # By the task, or by the shape of features.
        assert data.task.kind not in objective.task_kinds or kind == "label maps"
        assert method in str(error)  # noqa: PT017
        return
    assert data.task.kind in objective.task_kinds
    alone = data.present.sum(1) == 1
    assert alone.any()
    for stage in objective.stages():
        objective.stage = stage
        objective.on_stage_start(model, data, stage)
        objective.on_epoch_start(model, data, 0)
        for rows in (range(N), [5], alone.nonzero().squeeze(1).tolist()):
            terms = objective(model, data.__getitems__(list(rows)))
            assert all(torch.isfinite(term) for term in terms.values()), (stage.name, terms)
            model.zero_grad()
            sum(terms.values()).backward()
            objective.after_backward(model)
            assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())
        objective.on_epoch_end(model, data, 0)
    output = objective.build(model).eval()(data.__getitems__(range(N)))
    assert torch.isfinite(output).all()
    assert len(output) == N
