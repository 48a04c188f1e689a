"""Dependencies point down only: read from the source, lazy imports and imports for type checkers included."""

from __future__ import annotations

import ast
import functools
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import lacunar

ROOT = Path(lacunar.__file__).parent

#: The parts of the library, each with the parts that it may import; the package itself only names things.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "arguments": {"errors"},
    "lattice": {"errors"},
    "sampling": {"errors", "lattice"},
    "memory": {"errors"},
    "parallel": {"errors"},
    "rounding": set(),
    "tasks": {"errors", "lattice", "rounding"},
    "data": {"errors", "lattice", "rounding", "tasks"},
    "datasets": {"errors", "lattice", "tasks", "data"},
    "models": {"errors", "lattice", "memory", "tasks", "data"},
    "objectives": {"errors", "lattice", "sampling", "memory", "parallel", "tasks", "data", "models"},
    "evaluation": {"errors", "lattice", "sampling", "memory", "tasks", "data", "models"},
    "generation": {"errors", "lattice", "parallel", "tasks", "data", "models", "evaluation"},
    "prediction": {"errors", "lattice", "tasks", "data", "evaluation"},
}
ALLOWED["objectives"] |= {"generation", "evaluation"}
for part in ("sampling", "data", "models", "objectives", "evaluation", "generation", "prediction"):
    ALLOWED[part].add("arguments")
ABOVE = {
    "training": {*ALLOWED, "training"} - {"datasets"},
    "planning": {*ALLOWED, "training"} - {"datasets"},
    "report": {*ALLOWED, "training", "planning"} - {"datasets"},
    "bench": {*ALLOWED, "training", "planning", "report"},
    "sklearn": {*ALLOWED, "training"} - {"datasets"},
    "cli": {*ALLOWED, "training", "planning", "report", "bench"},
    "__main__": {"cli"},
}
EVERYTHING = {**ALLOWED, **ABOVE}

#: Packages that only some parts may know.
OWNERS = {
    "pytorch_lightning": {"training"},
    "lightning": set(),
    "jsonargparse": {"bench", "cli"},
    "jinja2": {"report"},
    "rich": {"training", "planning", "cli"},
    "matplotlib": {"evaluation", "report"},
}


@functools.cache
def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def test_every_part_has_its_place():
    assert {part_of(path) for path in FILES} == set(EVERYTHING)


@pytest.mark.parametrize("part", sorted(EVERYTHING))
def test_arrows_point_down(part):
    for path in FILES:
        if part_of(path) == part:
            for module in imports(path):
                if module.startswith("lacunar."):
                    other = module.split(".")[1]
                    assert other == part or other in EVERYTHING[part], f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("package", sorted(OWNERS))
def test_packages_are_known_where_they_belong(package):
    for path in FILES:
        if package in {module.split(".")[0] for module in imports(path)}:
            assert part_of(path) in OWNERS[package], f"{path.relative_to(ROOT)} imports {package}"


def test_every_public_name_is_there_and_has_a_description():
    assert len(set(lacunar.__all__)) == len(lacunar.__all__)
    for name in lacunar.__all__:
        assert name == "__version__" or (getattr(lacunar, name).__doc__ or "").strip(), name
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        _ = lacunar.fitt


def test_public_names_are_those_that_type_checkers_see():
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    typed = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    lazy = set(lacunar.__all__) - {"__version__"} - {path.name for path in ROOT.iterdir() if path.is_dir()} - {"errors"}
    assert lazy == typed - {None}


def test_importing_the_package_is_light():
    code = "import sys, lacunar; print(sorted({'torch', 'numpy', 'pandas'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


MODULES = [path.relative_to(ROOT.parent).with_suffix("") for path in FILES if path.name != "__main__.py"]


@pytest.mark.parametrize("module", [".".join(path.parts).removesuffix(".__init__") for path in MODULES])
def test_what_a_module_offers_is_there_and_described(module):
    loaded = importlib.import_module(module)
    assert (loaded.__doc__ or "").strip()
    offered = getattr(loaded, "__all__", [])
    assert len(offered) == len(set(offered))
    for name in offered:
        found = getattr(loaded, name)
        assert not callable(found) or (found.__doc__ or "").strip(), f"{module}.{name}: no description"
