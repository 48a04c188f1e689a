"""The file in which a tuning keeps the arguments that it has found, and from which a recipe takes them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lacunar.bench.cells import Cell
from lacunar.bench.checks import mapping
from lacunar.bench.method import check_objective, ranges_of
from lacunar.data.plain_yaml import read_yaml
from lacunar.errors import ConfigError
from lacunar.training.files import write_whole

__all__ = ["TUNED", "Tuned", "keep"]

TUNED = "tuned.yaml"
_ABOUT = """\
# Written by 'lacunar bench tune'; a recipe takes it as tuned: PATH. Arguments are by seed; those of the
# recipe stay where a method refused the data: {}. Trials say how many there were.
"""

Found = Mapping[tuple[str, str], Mapping[int, Any]]


class Tuned:
    """What a tuning has found, by problem and method, then by seed.

    Args:
        recipe: file of the recipe.
        file: that of the tuning.
        found: arguments.
        trials: how many trials led to them; the file of an earlier version does not say.
    """

    def __init__(self, recipe: Path, file: Path, found: Found, trials: Found):
        self.recipe, self.file, self.found, self.trials = recipe, file, found, trials
        self._checked: set[str] = set()

    @classmethod
    def read(cls, recipe: Path, given: Any) -> Tuned:
        """From a file, which is looked for beside the recipe, too; nothing where none is given.

        Raises:
            ConfigError: the file is not there, or is none that a tuning writes.
        """
        if given is None:
            return cls(recipe, recipe, {}, {})
        if not isinstance(given, str):
            raise ConfigError(f"{recipe}: tuned: expected the path of a file, got {given!r}.")
        file = next((place for place in (recipe.parent / given, Path(given)) if place.is_file()), None)
        if file is None:
            raise ConfigError(f"{recipe}: tuned: {given} not found; 'lacunar bench tune' writes it.")
        content = mapping(read_yaml(file, "Tuned arguments"), str(file))
        return cls(recipe, file, _by_seed(content, "problems", file), _by_seed(content, "trials", file))

    def put(self, run: dict[str, Any], problem: str, method: str, seed: int) -> dict[str, Any]:
        """A method with the arguments of a problem and seed in place of its own.

        Raises:
            ConfigError: arguments that the method does not take, or that are there for other seeds only.
        """
        seeds = self.found.get((problem, method))
        if not seeds:
            return run
        if seed not in seeds:
            options = f"--method {shlex.quote(method)} --problem {shlex.quote(problem)}"
            raise ConfigError(
                f"{self.file}: {method!r} on {problem!r} has arguments for some seeds, none for seed {seed}; run "
                f"{self._command} {options}"
            )
        where = f"{self.file}, {problem}, {method}, seed {seed}"
        better = mapping(seeds[seed], where)
        if not better:
            return run
        if "peer" in run:
            raise ConfigError(f"{where}: a peer takes no arguments, got {dict(better)}.")
        merged = {**run, "arguments": {**run.get("arguments", {}), **better}}
        what = repr(merged)
        if what not in self._checked:
            check_objective(merged, where)
            self._checked.add(what)
        return merged

    def uneven(self, cells: Iterable[Cell]) -> tuple[str, ...]:
        """What was tuned less than the rest, in sentences: comparing it says less about methods."""
        if not self.found:
            return ()
        lacking: dict[str, list[str]] = {}
        numbers: dict[str, set[int]] = {}
        for cell in cells:
            which = cell.problem, cell.method
            if not ranges_of(cell.run):
                continue
            if which not in self.found:
                lacking.setdefault(cell.method, []).append(cell.problem)
            elif count := self.trials.get(which, {}).get(cell.seed):  # none where the method refused the data
                numbers.setdefault(cell.method, set()).add(count)
        said = [
            f"{method} is not tuned on {', '.join(dict.fromkeys(problems))}, as others are; go on with {self._command}"
            for method, problems in lacking.items()
        ]
        if len(set().union(*numbers.values())) > 1:
            counts = "; ".join(f"{method} {', '.join(map(str, sorted(count)))}" for method, count in numbers.items())
            said.append(f"Methods were tuned with different numbers of trials: {counts}.")
        return tuple(said)

    @property
    def _command(self) -> str:
        return f"lacunar bench tune {shlex.quote(str(self.recipe))} --out {shlex.quote(str(self.file.parent))}"


def _by_seed(content: Mapping[str, Any], part: str, file: Path) -> Found:
    found: dict[tuple[str, str], Mapping[int, Any]] = {}
    for problem, methods in mapping(content.get(part), f"{file}, {part}").items():
        for method, seeds in mapping(methods, f"{file}, {problem}").items():
            where = f"{file}, {problem}, {method}"
            given: Mapping[Any, Any] = mapping(seeds, where)
            if not all(isinstance(seed, int) for seed in given):
                raise ConfigError(
                    f"{where}: expected arguments by seed, such as {{0: {{rate: 0.3}}}}, got {dict(seeds)}: "
                    "an earlier version wrote this. Run 'lacunar bench tune' into its folder again."
                )
            found[problem, method] = given
    return found


def keep(file: Path, problem: str, method: str, seed: int, best: Mapping[str, Any], trials: int) -> None:
    """Add to the file, or replace in it, what was found for a problem, a method and a seed."""
    content = (read_yaml(file, "Tuned arguments") if file.exists() else None) or {}
    for part, value in (("problems", dict(best)), ("trials", trials)):
        methods = content.setdefault(part, {}).setdefault(problem, {})
        # Earlier versions wrote arguments without seeds.
        others = {known: what for known, what in methods.get(method, {}).items() if isinstance(known, int)}
        methods[method] = {**others, seed: value}
    text = _ABOUT + yaml.safe_dump(content)
    write_whole(file, lambda out: out.write(text.encode()))
