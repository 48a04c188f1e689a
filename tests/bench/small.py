"""A recipe that runs in seconds, and running one."""

import yaml

from lacunar.bench.recipe import open_recipe
from lacunar.bench.runner import run_cells

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


def run_recipe(recipe, place):
    """Write a recipe into a folder and run it; the folder of its results."""
    (place / "r.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    steps = list(run_cells(open_recipe(place / "r.yaml").cells, place / "out"))
    assert not any(step.failed for step in steps), [step.said for step in steps]
    return place / "out"
