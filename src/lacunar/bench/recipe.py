"""A recipe: which problems, presence settings, methods and seeds; every combination is a cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lacunar import datasets
from lacunar.bench.cells import SETTINGS, Cell, read_description
from lacunar.bench.checks import keywords, mapping, missing_rates, names, of_known, whole_number
from lacunar.bench.method import check_objective
from lacunar.bench.peers import PEERS
from lacunar.bench.tuned import Tuned
from lacunar.data.description import SUFFIXES
from lacunar.data.plain_yaml import read_yaml
from lacunar.datasets._text import text_vectors
from lacunar.errors import ConfigError, did_you_mean
from lacunar.models.defaults import default_model

__all__ = ["Recipe", "open_recipe", "read_recipe"]

_TOP = ("problems", "methods", "seeds", "settings", "fit", "trials", "tuned", "about", "probes")
_PROBLEM = ("dataset", "options", "only", "rates", "methods", "seeds", "settings", "modalities", "part", "text", "fit")
_METHOD = ("peer", "objective", "arguments", "model", "fit", "references")
#: Arguments of ``lacunar.fit`` that a cell decides itself.
_OURS = ("data", "model", "objective", "seed", "out", "references", "progress", "resume", "finish", "callbacks")
_OURS_OF_REFERENCES = ("data", "seed", "cache", "progress")


@dataclass(frozen=True)
class Recipe:
    """A recipe that has been checked.

    Attributes:
        cells: every combination, problems first, then seeds, then methods, so that early results are comparable.
        methods: what each method is, by name, with the shared ``fit`` in it.
        trials: how many trials each method gets when it is tuned.
        uneven: what of its methods was tuned less than the others, in sentences; empty where nothing was.
    """

    cells: list[Cell]
    methods: Mapping[str, Mapping[str, Any]]
    trials: int
    uneven: tuple[str, ...] = ()


def read_recipe(path: str | Path) -> list[Cell]:
    """The cells of a recipe; see :func:`open_recipe`."""
    return open_recipe(path).cells


def open_recipe(path: str | Path, with_tuned: bool = True) -> Recipe:
    """A recipe from its file.

    ``problems`` names data sets, each with ``rates`` (one presence setting) or ``settings`` (several: names from the
    recipe's own ``settings`` or of the six permutations ``a`` to ``f``, or rates by name; a setting that the data set
    itself makes has ``options``). ``methods`` names peers and
    objectives with their ``arguments``. ``fit`` is shared by all methods, so that they have the same budget; a method's
    own ``fit`` is added to it. ``tuned`` names a file that ``lacunar bench tune`` has written: its arguments replace
    those of a method on a problem for a seed, unless ``with_tuned`` is False. With ``probes: true`` the encoders of
    every trained model are probed, too, at the end and during training, beside networks of one modality, and its fused
    features are measured.

    Raises:
        ConfigError: an unknown key, data set, option, method, argument or setting, with what was probably meant; tuned
            arguments that a method does not take, or that are there for some of its seeds only.
        DataError: the table of a description is not there.
    """
    path = Path(path)
    recipe = read_yaml(path, "Recipe")
    if not isinstance(recipe, dict):
        raise ConfigError(f"{path}: expected a recipe with problems and methods.")
    of_known(recipe, _TOP, str(path))
    for key in ("problems", "methods"):
        if not isinstance(recipe.get(key), dict) or not recipe[key]:
            raise ConfigError(f"{path}: expected {key}, a mapping from names to what they are.")
    shared = _fit(recipe.get("fit"), f"{path}, fit")
    methods = {str(name): _method(run, shared, f"{path}, method {name!r}") for name, run in recipe["methods"].items()}
    probes = recipe.get("probes", False)
    if not isinstance(probes, bool):
        raise ConfigError(f"{path}: probes: expected true or false, got {probes!r}.")
    if probes:
        methods = {name: run if "peer" in run else {**run, "probes": True} for name, run in methods.items()}
    tuned = Tuned.read(path, recipe.get("tuned") if with_tuned else None)
    cells = list(_cells(recipe, methods, tuned, path))
    trials = whole_number(recipe.get("trials", 10), f"{path}, trials")
    return Recipe(cells, methods, trials, tuned.uneven(cells))


def _cells(recipe: Mapping[str, Any], methods: Mapping[str, Any], tuned: Tuned, path: Path) -> Iterator[Cell]:
    own_settings = {str(name): rates for name, rates in mapping(recipe.get("settings"), f"{path}, settings").items()}
    seeds = whole_number(recipe.get("seeds", 5), f"{path}, seeds")
    for name, given in recipe["problems"].items():
        where = f"{path}, problem {name!r}"
        if str(name).startswith("."):
            raise ConfigError(f"{where}: a name that begins with a dot makes hidden folders; give it another.")
        problem = mapping(given, where, _PROBLEM)
        dataset, description = _dataset(problem, path, where)
        fit = _fit(problem.get("fit"), f"{where}, fit")
        options = mapping(problem.get("options"), f"{where}, options")
        text = keywords(problem.get("text"), text_vectors, f"{where}, text", but=("data", "rows"))
        only = names(problem["only"], f"{where}, only") if problem.get("only") else []
        settings = _settings(problem, own_settings, where)
        if description:
            has = list(description["says"]["modalities"])
            of_known(only, has, f"{where}, only", "modality")
            for setting, (rates, _) in settings.items():
                of_known(rates, has, f"{where}, {f'setting {setting!r}' if setting else 'rates'}", "modality")
        chosen = names(problem["methods"], f"{where}, methods") if "methods" in problem else list(methods)
        of_known(chosen, methods, where, "method")
        for setting, (rates, more) in settings.items():
            full = f"{name} ({setting})" if setting else str(name)
            for seed in range(whole_number(problem.get("seeds", seeds), f"{where}, seeds")):
                for method in chosen:
                    run = dict(methods[method])
                    if fit and "peer" not in run:
                        run["fit"] = {**run.get("fit", {}), **fit}
                    run = tuned.put(run, full, method, seed)
                    yield Cell(
                        problem=full,
                        dataset=dataset,
                        method=method,
                        seed=seed,
                        options={**options, **more},
                        only=tuple(only),
                        rates=rates,
                        run=run,
                        setting=setting,
                        part=problem.get("part", ""),
                        text=text,
                        description=description,
                    )


def _settings(
    problem: Mapping[str, Any], own: Mapping[str, Any], where: str
) -> dict[str, tuple[Mapping[str, float], Mapping[str, Any]]]:
    """Missing rates and options of the data set by setting; one without a name where the problem names none."""
    asked = problem.get("settings")
    modalities = names(problem["modalities"], f"{where}, modalities") if problem.get("modalities") else None
    if asked is None:
        return {"": (missing_rates(problem.get("rates") or {}, modalities, f"{where}, rates"), {})}
    if "rates" in problem:
        raise ConfigError(f"{where}: rates are one setting, settings several; give one of the two.")
    known: dict[str, Any] = {**SETTINGS, **own}
    if asked == "all":
        asked = list(own or SETTINGS)
    if isinstance(asked, Mapping):
        named = {str(name): rates for name, rates in asked.items()}
    else:
        chosen = names(asked, f"{where}, settings")
        of_known(chosen, known, where, "setting")
        named = {name: known[name] for name in chosen}
    found: dict[str, tuple[Mapping[str, float], Mapping[str, Any]]] = {}
    for name, given in named.items():
        place, options = f"{where}, setting {name!r}", mapping(None, where)
        if isinstance(given, Mapping) and given and set(given) <= {"rates", "options"}:
            given, options = given.get("rates", {}), mapping(given.get("options"), f"{place}, options")
        found[name] = missing_rates(given, modalities, place), options
    return found


def _method(given: Any, shared: Mapping[str, Any], where: str) -> dict[str, Any]:
    run = {key: value for key, value in mapping(given, where, _METHOD).items() if value is not None}
    if "peer" in run:
        of_known([run["peer"]], PEERS, where, "peer")
        if len(run) > 1:
            raise ConfigError(f"{where}: a peer takes nothing else, got {', '.join(sorted(set(run) - {'peer'}))}.")
        return run
    mapping(run.get("arguments"), f"{where}, arguments")
    keywords(run.get("model"), default_model, f"{where}, model", but=("data", "encoders"))
    if "references" in run:
        from lacunar.training.references import references

        keywords(run["references"], references, f"{where}, references", but=_OURS_OF_REFERENCES)
    own = _fit(run.get("fit"), f"{where}, fit")
    check_objective(run, where)
    return {**run, "fit": {**shared, **own}} if shared or "fit" in run else run


def _fit(given: Any, where: str) -> Mapping[str, Any]:
    if not given:
        return {}
    from lacunar.training.fit import fit, options_of

    found = keywords(given, fit, where, but=_OURS)
    try:
        options_of(found).checked(samples=1)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return found


def _dataset(problem: Mapping[str, Any], path: Path, where: str) -> tuple[str, Mapping[str, Any]]:
    """The name of a data set; or the whole path of a description, given from the recipe's folder, and what it says."""
    known = datasets.available()
    if "dataset" not in problem:
        raise ConfigError(
            f"{where}: expected dataset, the path of a YAML description or the name of one of {', '.join(known)}."
        )
    given = str(problem["dataset"])
    if Path(given).suffix.lower() not in SUFFIXES:
        if given not in known:
            raise ConfigError(f"{where}: unknown data set {given!r}.{did_you_mean(given, known)}")
        return given, {}
    description = (path.parent / given).resolve()
    if not description.is_file():
        raise ConfigError(f"{where}: dataset: {description} not found; a path is read from the folder of the recipe.")
    for key in ("options", "part"):
        if problem.get(key):
            raise ConfigError(f"{where}: {key} is for a data set by name; a description says it itself.")
    return str(description), read_description(description)
