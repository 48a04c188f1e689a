"""A recipe that runs in seconds, and running one."""

import yaml

from lacunar.bench.recipe import open_recipe
from lacunar.bench.runner import run_cells
from lacunar.errors import ConfigError
from lacunar.objectives import Joint

EPOCHS = 2
RECIPE = {
    "seeds": 1,
    "fit": {"max_epochs": EPOCHS, "experts": False},
    "methods": {
        "joint": {"objective": "Joint"},
        "MCE": {"objective": "MCE", "references": {"folds": 2}},
        "late": {"peer": "late fusion"},
    },
    "problems": {
        "world": {
            "dataset": "synthetic", "options": {"world": "additive", "n": 100}, "only": ["m0", "m1"],
            "settings": {"rare": {"m0": 0.2, "m1": 0.5}},
        }
    },
}  # fmt: skip


class Own(Joint):
    """A method that is not in the package."""

    def __init__(self, limit: int = 3):
        super().__init__()
        self.limit = limit

    def setup(self, model, data):
        super().setup(model, data)
        if len(data.names) > self.limit:
            raise ConfigError(f"More than {self.limit} modalities.")


def run_recipe(recipe, place):
    """Write a recipe into a folder and run it; the folder of its results."""
    (place / "r.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    steps = list(run_cells(open_recipe(place / "r.yaml").cells, place / "out"))
    assert not any(step.failed for step in steps), [step.said for step in steps]
    return place / "out"
