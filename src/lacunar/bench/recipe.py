"""A recipe: which problems, presence settings, methods and seeds; every combination is a cell."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lacunar import datasets
from lacunar.bench.cells import SETTINGS, Cell
from lacunar.bench.execute import make_objective
from lacunar.bench.peers import PEERS
from lacunar.data.description import SUFFIXES
from lacunar.errors import ConfigError, did_you_mean

__all__ = ["Recipe", "open_recipe", "read_recipe"]

_TOP = ("problems", "methods", "seeds", "settings", "fit", "trials", "tuned", "about", "probes")
_PROBLEM = ("dataset", "options", "only", "rates", "methods", "seeds", "settings", "modalities", "part", "text", "fit")
_METHOD = ("peer", "objective", "arguments", "model", "fit", "references")
#: Arguments of ``lacunar.fit`` that a cell decides itself.
_OURS = ("data", "model", "objective", "seed", "out", "references", "progress", "resume", "finish", "callbacks")


@dataclass(frozen=True)
class Recipe:
    """A recipe that has been checked.

    Attributes:
        cells: every combination, problems first, then seeds, then methods, so that early results are comparable.
        methods: what each method is, by name, with the shared ``fit`` in it.
        trials: how many trials each method gets when it is tuned.
    """

    cells: list[Cell]
    methods: Mapping[str, Mapping[str, Any]]
    trials: int


def read_recipe(path: str | Path) -> list[Cell]:
    """The cells of a recipe; see :func:`open_recipe`."""
    return open_recipe(path).cells


def open_recipe(path: str | Path) -> Recipe:
    """A recipe from its file.

    ``problems`` names data sets, each with ``rates`` (one presence setting) or ``settings`` (several: names from the
    recipe's own ``settings`` or of the six permutations ``a`` to ``f``, or rates by name; a setting that the data set
    itself makes has ``options``). ``methods`` names peers and
    objectives with their ``arguments``. ``fit`` is shared by all methods, so that they have the same budget; a method's
    own ``fit`` is added to it. ``tuned`` names a file that ``lacunar bench tune`` has written: its arguments replace
    those of a method on a problem. With ``probes: true`` the encoders of every trained model are probed, too, at the
    end and during training, beside networks of one modality, and its fused features are measured.

    Raises:
        ConfigError: an unknown key, data set, option, method, argument or setting, with what was probably meant.
    """
    path = Path(path)
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: the recipe cannot be read ({error.strerror}).") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise ConfigError(f"{path}: expected a recipe with problems and methods.")
    _known(recipe, _TOP, str(path))
    for key in ("problems", "methods"):
        if not isinstance(recipe.get(key), dict) or not recipe[key]:
            raise ConfigError(f"{path}: expected {key}, a mapping from names to what they are.")
    shared = recipe.get("fit") or {}
    _check_fit(shared, f"{path}, fit")
    methods = {name: _method(name, run or {}, shared, path) for name, run in recipe["methods"].items()}
    probes = recipe.get("probes", False)
    if not isinstance(probes, bool):
        raise ConfigError(f"{path}: probes: expected true or false, got {probes!r}.")
    if probes:
        methods = {name: run if "peer" in run else {**run, "probes": True} for name, run in methods.items()}
    tuned = _tuned(path, recipe.get("tuned"))
    cells = list(_cells(recipe, methods, tuned, path))
    return Recipe(cells, methods, int(recipe.get("trials", 10)))


def _cells(
    recipe: Mapping[str, Any], methods: Mapping[str, Any], tuned: Mapping[str, Any], path: Path
) -> Iterator[Cell]:
    for name, problem in recipe["problems"].items():
        where = f"{path}, problem {name!r}"
        _known(problem, _PROBLEM, where)
        dataset = _dataset(problem, path, where)
        _check_fit(problem.get("fit"), f"{where}, fit")
        settings = _settings(problem, recipe.get("settings") or {}, where)
        chosen = problem.get("methods", methods)
        for method in chosen:
            _known({method: 0}, methods, where, "method")
        for setting, (rates, options) in settings.items():
            full = f"{name} ({setting})" if setting else str(name)
            for seed in range(problem.get("seeds", recipe.get("seeds", 5))):
                for method in chosen:
                    run = dict(methods[method])
                    if problem.get("fit") and "peer" not in run:
                        run["fit"] = {**run.get("fit", {}), **problem["fit"]}
                    better = (tuned.get(full) or {}).get(method)
                    if better:
                        run["arguments"] = {**run.get("arguments", {}), **better}
                    yield Cell(
                        problem=full,
                        dataset=dataset,
                        method=method,
                        seed=seed,
                        options={**problem.get("options", {}), **options},
                        only=tuple(problem.get("only", ())),
                        rates=rates,
                        run=run,
                        setting=setting,
                        part=problem.get("part", ""),
                        text=problem.get("text", {}),
                    )


def _settings(
    problem: Mapping[str, Any], shared: Mapping[str, Any], where: str
) -> dict[str, tuple[Mapping[str, float], Mapping[str, Any]]]:
    """Missing rates and options of the data set by setting; one without a name where the problem names none."""
    asked = problem.get("settings")
    if asked is None:
        return {"": (problem.get("rates", {}), {})}
    if "rates" in problem:
        raise ConfigError(f"{where}: rates are one setting, settings several; give one of the two.")
    known: dict[str, Any] = {**SETTINGS, **shared}
    if asked == "all":
        asked = list(shared or SETTINGS)
    if isinstance(asked, Mapping):
        named = {str(name): rates for name, rates in asked.items()}
    else:
        for name in asked:
            _known({str(name): 0}, known, where, "setting")
        named = {str(name): known[str(name)] for name in asked}
    found: dict[str, tuple[Mapping[str, float], Mapping[str, Any]]] = {}
    for name, given in named.items():
        options: Mapping[str, Any] = {}
        if isinstance(given, Mapping) and given and set(given) <= {"rates", "options"}:
            given, options = given.get("rates", {}), given.get("options", {})
        found[name] = _rates(given, problem.get("modalities"), f"{where}, setting {name!r}"), options
    return found


def _rates(rates: Any, modalities: Sequence[str] | None, where: str) -> dict[str, float]:
    if isinstance(rates, Mapping):
        return dict(rates)
    if not modalities:
        raise ConfigError(f"{where}: a list of rates needs modalities, the names that they are for, in order.")
    if len(rates) != len(modalities):
        raise ConfigError(f"{where}: expected {len(modalities)} rates for {', '.join(modalities)}, got {list(rates)}.")
    return dict(zip(modalities, map(float, rates)))


def _method(name: str, run: Mapping[str, Any], shared: Mapping[str, Any], path: Path) -> dict[str, Any]:
    where = f"{path}, method {name!r}"
    _known(run, _METHOD, where)
    if "peer" in run:
        _known({run["peer"]: 0}, PEERS, where, "peer")
        return dict(run)
    _check_fit(run.get("fit"), f"{where}, fit")
    try:
        make_objective(run)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from error
    whole = dict(run)
    if shared or "fit" in whole:
        whole["fit"] = {**shared, **(run.get("fit") or {})}
    return whole


def _check_fit(given: Mapping[str, Any] | None, where: str) -> None:
    if not given:
        return
    from lacunar.training.fit import fit

    _known(given, [option for option in inspect.signature(fit).parameters if option not in _OURS], where)


def _dataset(problem: Mapping[str, Any], path: Path, where: str) -> str:
    """The name of a data set, or the whole path of a description, which a recipe gives from its own folder."""
    known = datasets.available()
    if "dataset" not in problem:
        raise ConfigError(
            f"{where}: expected dataset, the path of a YAML description or the name of one of {', '.join(known)}."
        )
    given = str(problem["dataset"])
    if Path(given).suffix.lower() not in SUFFIXES:
        if given not in known:
            raise ConfigError(f"{where}: unknown data set {given!r}.{did_you_mean(given, known)}")
        return given
    description = (path.parent / given).resolve()
    if not description.is_file():
        raise ConfigError(f"{where}: dataset: {description} not found; a path is read from the folder of the recipe.")
    for key in ("options", "part"):
        if problem.get(key):
            raise ConfigError(f"{where}: {key} is for a data set by name; a description says it itself.")
    return str(description)


def _tuned(path: Path, given: str | None) -> Mapping[str, Any]:
    """Arguments by problem and method, from the file of a tuning, which is looked for beside the recipe, too."""
    if given is None:
        return {}
    file = next((place for place in (path.parent / given, Path(given)) if place.exists()), None)
    if file is None:
        raise ConfigError(f"{path}: tuned: {given} not found; 'lacunar bench tune' writes it.")
    return (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("problems") or {}


def _known(given: Mapping[Any, Any], known: Any, where: str, what: str = "key") -> None:
    for key in given:
        if key not in known:
            raise ConfigError(f"{where}: unknown {what} {key!r}.{did_you_mean(key, known)}")
