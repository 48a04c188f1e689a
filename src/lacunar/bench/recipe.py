"""A recipe: which problems, methods and seeds; every combination is a cell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lacunar.bench.cells import Cell
from lacunar.errors import ConfigError, did_you_mean

__all__ = ["read_recipe"]

_PROBLEM = ("dataset", "options", "only", "rates", "methods", "seeds")


def read_recipe(path: str | Path) -> list[Cell]:
    """The cells of a recipe, problems first, then seeds, then methods, so that early results are comparable.

    Raises:
        ConfigError: when a problem has an unknown key or names an unknown method.
    """
    recipe = yaml.safe_load(Path(path).read_text())
    for key in recipe:
        if key not in ("problems", "methods", "seeds"):
            raise ConfigError(f"{path}: unknown key {key!r}.{did_you_mean(key, ('problems', 'methods', 'seeds'))}")
    return list(_cells(recipe, str(path)))


def _cells(recipe: dict[str, Any], path: str) -> Iterator[Cell]:
    methods = recipe["methods"]
    for name, problem in recipe["problems"].items():
        for key in problem:
            if key not in _PROBLEM:
                raise ConfigError(f"{path}, problem {name!r}: unknown key {key!r}.{did_you_mean(key, _PROBLEM)}")
        for seed in range(problem.get("seeds", recipe.get("seeds", 5))):
            for method in problem.get("methods", methods):
                if method not in methods:
                    raise ConfigError(
                        f"{path}, problem {name!r}: unknown method {method!r}.{did_you_mean(method, methods)}"
                    )
                yield Cell(
                    problem=name,
                    dataset=problem["dataset"],
                    method=method,
                    seed=seed,
                    options=problem.get("options", {}),
                    only=tuple(problem.get("only", ())),
                    rates=problem.get("rates", {}),
                    run=methods[method] or {},
                )
