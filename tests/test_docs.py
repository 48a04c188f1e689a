"""The documentation runs: every block of Python, every command, every link, and the promise of one new file."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import lacunar as lc
from lacunar import cli, datasets, objectives
from lacunar.models import encoders, fusions
from tests.contracts import test_objectives as contracts
from tests.helpers import vectors

ROOT = Path(__file__).parents[1]
DOCS = [page for page in sorted((ROOT / "docs").glob("*.md")) if ".template" not in page.name]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

PLACES = {
    "objectives": objectives,
    "datasets": datasets,
    "models/encoders": encoders,
    "models/fusions": fusions,
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The ``lacunar`` lines of a page, as words after the program's name."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("lacunar ")]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder with the examples in it, as in a fresh clone."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def light_references(monkeypatch):
    """One estimator a modality instead of five, where something else is tested."""

    def light(*facts):
        return [make_pipeline(StandardScaler(), LogisticRegression())]

    monkeypatch.setattr("lacunar.training.references.default_estimators", light)


# ---------------------------------------------------------------------------------------------------- blocks


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_every_python_block_runs(page, workplace):
    namespace = {"__name__": f"docs_{page.stem}"}
    for number, block in enumerate(blocks(page, "python"), 1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)


def test_readme_is_short():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < 100
    assert len(blocks(ROOT / "README.md", "python")[0].splitlines()) < 15
    assert (ROOT / "docs/figures/readme.png").stat().st_size < 200_000


# -------------------------------------------------------------------------------------------------- commands


@every_page
def test_every_command_parses(page, monkeypatch, capsys):
    from lacunar.cli.options import parse
    from lacunar.cli.train import parser

    monkeypatch.chdir(ROOT)
    for words in commands(page):
        assert words[0] in cli.COMMANDS, words
        if words[0] == "train" and "--help" not in words:
            parse(parser(), words[1:], objectives.Objective)
            continue
        command = words[:2] if words[0] in ("data", "bench") else words[:1]
        assert cli.main([*command, "--help"]) == 0
        understood = capsys.readouterr().out
        for word in words:
            if word.startswith("--"):
                assert re.search(rf"{word}\b", understood), f"{page.name}: {shlex.join(words)}: no option {word}"


def test_commands_of_getting_started_run(workplace, light_references, capsys):
    ran = []
    for words in commands(ROOT / "docs/getting-started.md"):
        if words[0] == "train":
            if "train" in ran:
                continue
            words = [*words[: words.index("--trainer.max_epochs")], "--trainer.max_epochs", "1", "--quiet", "true"]
        assert cli.main(words) == 0, (shlex.join(words), capsys.readouterr().err)
        ran.append(words[0])
    assert {"data", "train", "evaluate", "predict", "report", "doctor"} == set(ran)
    said = capsys.readouterr().out
    assert "20 predictions in predictions.csv; 1 flagged: nothing was observed" in said
    page = (ROOT / "docs/getting-started.md").read_text(encoding="utf-8")
    rows = page[page.index("The folder of a run holds") : page.index("A wrong option")]
    listed = [
        name for row in re.findall(r"^\| (`[^|]+)\|", rows, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)
    ]
    missing = [name for name in listed if not (workplace / "runs/patients" / name).exists()]
    assert listed
    assert not missing
    (workplace / "plain").touch()
    files = [path for path in (workplace / "runs").rglob("*") if path.is_file()]
    assert {path.stat().st_mode for path in files} == {(workplace / "plain").stat().st_mode}


@pytest.mark.parametrize("name", ["quickstart", "own_loop"])
def test_examples_run(name, workplace, light_references, capsys):
    example = runpy.run_path(str(ROOT / f"examples/{name}.py"))
    example["main"](**{"max_epochs" if name == "quickstart" else "epochs": 1})
    assert "7 subsets" in capsys.readouterr().out


@every_page
def test_make_targets_and_programs_exist(page):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"^make (\w+)", text, re.MULTILINE) + re.findall(r"`make (\w+)`", text):
        assert name in targets, f"{page.name}: make {name}"
    for program in re.findall(r"python ([\w/]+\.py)", text):
        assert (ROOT / program).is_file(), f"{page.name}: {program}"


# ----------------------------------------------------------------------------------------- links and names


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@every_page
def test_internal_links_resolve(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}"


def test_every_page_is_in_the_table_of_contents():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    assert not [page.name for page in DOCS if page.name not in index and page.stem != "index"]


def test_equation_map_names_what_exists():
    text = (ROOT / "docs/concepts.md").read_text(encoding="utf-8")
    rows = text[text.index("## Equation to function") :].split("\n## ")[0]
    names = re.findall(r"`([A-Za-z_][\w.]+)(?:\([^`]*\))?`", rows)
    assert len(names) > 15
    for name in names:
        if name == "completion":  # a term of a loss
            continue
        place = lc
        for part in name.removeprefix("lacunar.").split("."):
            if not hasattr(place, part):
                importlib.import_module(f"{place.__name__}.{part}")
            place = getattr(place, part)


def test_description_keys_readers_and_laws_are_all_explained():
    from lacunar.data.description import Description
    from lacunar.data.modality_spec import COLUMN_KEYS
    from lacunar.data.presence import LAWS
    from lacunar.data.readers import reader_names

    page = ROOT / "docs/your-own-data.md"
    explained = set(re.findall(r"`([\w-]+)`", page.read_text(encoding="utf-8")))
    keys = {item.name for item in dataclasses.fields(Description)} - {"root"}
    readers = set(reader_names()) - {"counts"}  # which the page itself registers
    assert keys | set(COLUMN_KEYS) | {"path", "reader"} | readers | set(LAWS) <= explained
    shown = yaml.safe_load(blocks(page, "yaml")[0])
    assert shown == yaml.safe_load((ROOT / "examples/patients/patients.yaml").read_text(encoding="utf-8"))


def test_errors_that_are_explained_are_raised_somewhere():
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    source = re.sub(r"\{[^{}]*\}", "...", re.sub(r'"\s*\n\s*f?"', "", source))
    page = (ROOT / "docs/your-own-data.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", page[page.index("## Errors you may meet") :], re.MULTILINE)
    assert len(messages) > 8
    for message in messages:
        for piece in re.split(r"\s*\.\.\.\s*", message):
            assert piece in source, f"no message says {piece!r}"


def test_no_file_knows_the_machine_it_was_written_on():
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    places = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|Users|mnt)/[\w.]")
    found = []
    for name in listed:
        path = ROOT / name
        if path.is_file() and path.suffix not in (".npz", ".png"):
            found += [f"{name}: {hit}" for hit in places.findall(path.read_text(encoding="utf-8", errors="ignore"))]
    assert not found


# ------------------------------------------------------------------------------------------- one new file


@pytest.fixture(scope="module")
def new_files(tmp_path_factory):
    """The files that docs/extending.md shows, each in a folder that its package looks into: {place: module}.

    Imported once: a class that was imported twice has two places, and its short name is ambiguous until the first of
    them is collected as garbage.
    """
    folders = tmp_path_factory.mktemp("new_files")
    page = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    shown = re.findall(r"`src/lacunar/([\w/]+)/(\w+)\.py`.*?^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert {place for place, _, _ in shown} == set(PLACES)
    modules, patch = {}, pytest.MonkeyPatch()
    for place, stem, content in shown:
        package = PLACES[place]
        folder = folders / place
        folder.mkdir(parents=True)
        (folder / f"{stem}.py").write_text(content, encoding="utf-8")
        patch.setattr(package, "__path__", [*package.__path__, str(folder)])
        modules[place] = importlib.import_module(f"{package.__name__}.{stem}")
    yield modules
    patch.undo()
    for module in modules.values():
        package, _, stem = module.__name__.rpartition(".")
        del sys.modules[module.__name__]
        delattr(sys.modules[package], stem)


CONTRACTS = [name for name in vars(contracts) if re.match(r"test_t\d+_", name) and name[6:8] != "10"]


def test_a_new_training_method_is_one_file(new_files):
    assert "WorstSubset" in objectives.available()
    assert len(CONTRACTS) >= 8
    for name in CONTRACTS:
        getattr(contracts, name)("WorstSubset", 3)


def test_a_new_training_method_is_known_to_fit_and_to_the_command_line(new_files):
    from lacunar.cli.options import parse
    from lacunar.cli.train import parser

    method = objectives.get("WorstSubset")
    data = vectors(3, n=60).split(train=0.6, val=0.2, test=0.2)
    run = lc.fit(data, objective=method(worst=1.0), max_epochs=1)
    assert {"loss/task", "loss/worst", "worst"} <= set(run.steps.columns)
    words = ["--data", "digits", "--out", "runs/x", "--objective", "WorstSubset", "--objective.worst", "1.0"]
    assert parse(parser(), words, objectives.Objective).objective.init_args.worst == 1.0


def test_a_new_data_set_is_one_file(new_files, capsys):
    data = datasets.load("two_moons", n=100)
    assert data.names == ("across", "up")
    assert 0 < data.missing_rates["up"] < 1
    assert "Two moons" in str(data.card)
    assert cli.main(["data", "describe", "two_moons"]) == 0
    assert "two moons" in capsys.readouterr().out


def test_a_new_encoder_and_a_new_fusion_are_saved_and_loaded(new_files, tmp_path):
    data = vectors(3, n=40)
    kinds = new_files["models/encoders"].Gated, new_files["models/fusions"].MaxFusion
    model = lc.MultimodalModel(
        {name: kinds[0](shape[0], 6) for name, shape in data.shapes.items()},
        None,
        kinds[1](6),
        torch.nn.Linear(6, data.task.n_outputs),
        task=data.task,
    ).eval()
    lc.save(model, tmp_path / "model")
    batch = next(data.batches(40))
    assert torch.equal(lc.load(tmp_path / "model")(batch), model(batch))
    empty = kinds[0](4, 6)(torch.zeros(0, 4))
    assert empty.shape == (0, 6)
    h = torch.full((2, 3, 6, 2), torch.nan)
    h[0, 1] = 1.0
    present = torch.tensor([[False, True, False], [False, False, False]])
    fused = kinds[1](6)(h, present)
    assert fused.shape == (2, 6, 2)
    assert torch.equal(fused, torch.stack([torch.ones(6, 2), torch.zeros(6, 2)]))


# ---------------------------------------------------------------------------------------------------- results

CELLS = [
    path
    for path in sorted((ROOT / "docs" / "results" / "cells").glob("*.jsonl"))
    if path.stem.startswith("benchmark") or path.stem in ("capability", "weights")
]


@pytest.mark.parametrize("kept", CELLS, ids=lambda kept: kept.stem)
def test_the_benchmark_shows_the_cells_that_are_kept(kept):
    cells = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    facts = [
        (cell["cell"]["problem"], cell["cell"]["method"], cell["cell"]["seed"]) for cell in cells if "mean" in cell
    ]
    shown = pd.read_csv(kept.parents[1] / f"{kept.stem}.csv")
    shown = shown[shown["variant_of"].isna()]
    assert sorted(facts) == sorted(zip(shown["problem"], shown["method"], shown["seed"]))
