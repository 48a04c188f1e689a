"""Recipes: every combination once, six settings, equal footing, and mistakes that are named."""

import shutil
from pathlib import Path

import pytest
import yaml

from lacunar.bench.cells import SETTINGS, load_problem, select
from lacunar.bench.execute import run_cell
from lacunar.bench.recipe import open_recipe, read_recipe
from lacunar.errors import ConfigError, DataError

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
PATIENTS = ROOT / "examples" / "patients" / "patients.yaml"
GOOD = {
    "seeds": 2,
    "fit": {"max_epochs": 3, "experts": False},
    "methods": {
        "joint": {"objective": "Joint"},
        "core": {"objective": "RedCore", "arguments": {"kl": 0.001}, "fit": {"lr": 0.002}},
        "late": {"peer": "late fusion"},
    },
    "problems": {
        "world": {
            "dataset": "synthetic", "options": {"world": "additive", "n": 120}, "modalities": ["m0", "m1", "m2"],
            "settings": "all",
        }
    },
}  # fmt: skip


def put(path, **changes):
    path.write_text(yaml.safe_dump(GOOD | changes, sort_keys=False))
    return path


def test_every_combination_once(tmp_path):
    cells = read_recipe(put(tmp_path / "r.yaml"))
    assert len(cells) == 6 * 2 * 3
    assert len({cell.key for cell in cells}) == len(cells)
    assert {cell.problem for cell in cells} == {f"world ({name})" for name in "abcdef"}
    assert {cell.data_name for cell in cells} == {"world"}
    assert {tuple(cell.rates.values()) for cell in cells} == set(SETTINGS.values())


def test_settings_are_hidden_and_shared_by_methods(tmp_path):
    cells = [cell for cell in read_recipe(put(tmp_path / "r.yaml")) if cell.setting in "ae" and cell.seed == 0]
    assert len({load_problem(cell).presence.hash for cell in cells}) == 2
    assert len({tuple(load_problem(cell).ids["test"]) for cell in cells}) == 1
    data = load_problem(next(cell for cell in cells if cell.setting == "e"))
    # Samples that would lose everything are left out, so rates are a little lower than asked for.
    rates = 1 - data.train.present.double().mean(0)
    assert rates[0] > rates[2] > rates[1]
    assert bool(data.test.present.all())


def test_a_method_of_another_package(tmp_path):
    own = {"own": {"objective": "tests.bench.small.Own", "arguments": {"limit": 2}}}
    (cell,) = [cell for cell in read_recipe(put(tmp_path / "r.yaml", methods=own, seeds=1)) if cell.setting == "a"]
    assert run_cell(cell, tmp_path / "out")["refused"] == "More than 2 modalities."
    for name, message in {"Other": "cannot be imported", "RECIPE": "no subclass"}.items():
        with pytest.raises(ConfigError, match=message):
            read_recipe(put(tmp_path / "r.yaml", methods={"own": {"objective": f"tests.bench.small.{name}"}}))


def test_equal_footing(tmp_path):
    cells = {cell.method: cell for cell in read_recipe(put(tmp_path / "r.yaml"))}
    assert cells["joint"].run["fit"] == {"max_epochs": 3, "experts": False}
    assert cells["core"].run["fit"] == {"max_epochs": 3, "experts": False, "lr": 0.002}
    assert "fit" not in cells["late"].run


def test_tuned_arguments_replace_those_of_the_recipe(tmp_path):
    tuned = {
        "problems": {"world (b)": {"core": {0: {"kl": 0.5}, 1: {"kl": 0.2}}}, "world (c)": {"core": {0: {}, 1: {}}}}
    }
    (tmp_path / "tuned.yaml").write_text(yaml.safe_dump(tuned))
    cells = read_recipe(put(tmp_path / "r.yaml", tuned="tuned.yaml"))
    found = {(cell.setting, cell.seed): cell.run["arguments"]["kl"] for cell in cells if cell.method == "core"}
    own = {(name, seed): 0.001 for name in "abcdef" for seed in (0, 1)}
    assert found == own | {("b", 0): 0.5, ("b", 1): 0.2}


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"core": {0: {"rat": 1}, 1: {}}}, r"tuned.yaml, world \(b\), core, seed 0: RedCore has no argument 'rat'"),
        ({"core": {0: {}, 1: {"kl": -1.0}}}, r"tuned.yaml, world \(b\), core, seed 1: RedCore: kl: expected"),
        ({"core": {0: {}, 1: 0.5}}, "core, seed 1: expected a mapping from names to values, got 0.5"),
        (
            {"core": {0: {}}},
            r"'core' on 'world \(b\)' has arguments for some seeds, none for seed 1; run lacunar bench",
        ),
        ({"late": {0: {"kl": 1}, 1: {}}}, "late, seed 0: a peer takes no arguments, got {'kl': 1}"),
    ],
)
def test_tuned_arguments_are_checked(tmp_path, methods, message):
    (tmp_path / "tuned.yaml").write_text(yaml.safe_dump({"problems": {"world (b)": methods}}))
    with pytest.raises(ConfigError, match=message):
        read_recipe(put(tmp_path / "r.yaml", tuned="tuned.yaml"))


def test_what_is_empty_is_not_given(tmp_path):
    empty = dict.fromkeys(("arguments", "model", "references", "fit"))
    given = {"core": {"objective": "RedCore"}, "late": {"peer": "late fusion"}}
    cells = read_recipe(put(tmp_path / "r.yaml", methods=given))
    with_empty = {name: {**run, **empty} for name, run in given.items()}
    assert read_recipe(put(tmp_path / "r.yaml", methods=with_empty)) == cells
    (tmp_path / "tuned.yaml").write_text(yaml.safe_dump({"problems": {"world (b)": {"core": {0: {"kl": 1}, 1: {}}}}}))
    tuned = read_recipe(put(tmp_path / "r.yaml", methods=with_empty, tuned="tuned.yaml"))
    assert [cell.run["arguments"] for cell in tuned if "arguments" in cell.run] == [{"kl": 1}]


def test_settings_by_name_by_mapping_and_by_the_data_set(tmp_path):
    world = GOOD["problems"]["world"]
    settings = {"x": [0.1, 0.2, 0.3], "y": {"m1": 0.5}, "z": {"options": {"n": 90}}}
    cells = read_recipe(put(tmp_path / "r.yaml", seeds=1, problems={"world": {**world, "settings": settings}}))
    found = {cell.setting: cell for cell in cells}
    assert found["x"].rates == {"m0": 0.1, "m1": 0.2, "m2": 0.3}
    assert found["y"].rates == {"m1": 0.5}
    assert found["z"].rates == {}
    assert found["z"].options == {"world": "additive", "n": 90}
    own = {"light": [0.1, 0.1, 0.1]}
    some = {"world": {**world, "settings": ["light", "f"]}}
    cells = read_recipe(put(tmp_path / "r.yaml", settings=own, problems=some))
    assert {cell.setting: cell.rates["m0"] for cell in cells} == {"light": 0.1, "f": 0.8}


def test_names_that_yaml_takes_for_numbers_are_names(tmp_path):
    world = {key: value for key, value in GOOD["problems"]["world"].items() if key != "settings"}
    given = {"methods": {0.3: {"objective": "Joint"}, 7: {"peer": "late fusion"}}, "settings": {1: [0.1, 0.2, 0.3]}}
    problems = {2024: {**world, "settings": [1], "methods": [7, 0.3]}}
    cells = read_recipe(put(tmp_path / "r.yaml", **given, problems=problems))
    assert {(cell.problem, cell.method, cell.setting) for cell in cells} == {
        ("2024 (1)", "7", "1"),
        ("2024 (1)", "0.3", "1"),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fit": {"max_epoch": 3}}, "fit: unknown key 'max_epoch'. Did you mean 'max_epochs'"),
        ({"fit": {"seed": 3}}, "fit: unknown key 'seed'"),
        ({"fit": {"max_epochs": -3}}, "fit: max_epochs: expected a whole number of at least 1, got -3"),
        (
            {"methods": {"m": {"objective": "Redcore"}}},
            "method 'm': Unknown objective 'Redcore'. Did you mean 'RedCore'",
        ),
        ({"methods": {"m": {"objectiv": "Joint"}}}, "method 'm': unknown key 'objectiv'. Did you mean 'objective'"),
        (
            {"methods": {"m": {"objective": "RedCore", "arguments": {"smothing": 1}}}},
            "RedCore has no argument 'smothing'. Did you mean 'smoothing'",
        ),
        ({"methods": {"m": {"objective": "RedCore", "arguments": {"kl": -1.0}}}}, "method 'm': RedCore: kl: expected"),
        ({"methods": {"m": {"peer": "bosting"}}}, "unknown peer 'bosting'. Did you mean 'boosting'"),
        ({"problems": {"p": {"dataset": "digts"}}}, "problem 'p': unknown data set 'digts'. Did you mean 'digits'"),
        ({"problems": {"p": {"rates": {}}}}, "problem 'p': expected dataset"),
        (
            {"problems": {"p": {"dataset": "mine.yaml"}}},
            "mine.yaml not found; a path is read from the folder",
        ),
        (
            {"problems": {"p": {"dataset": str(PATIENTS), "options": {"n": 3}}}},
            "problem 'p': options is for a data set by name",
        ),
        ({"problems": {"p": {"dataset": "digits", "settings": ["g"]}}}, "problem 'p': unknown setting 'g'"),
        (
            {"problems": {"p": {"dataset": "digits", "settings": "all"}}},
            "setting 'a': a list of rates needs modalities",
        ),
        (
            {"problems": {"p": {"dataset": "digits", "settings": ["a"], "modalities": ["seen", "heard"]}}},
            "expected 2 rates for seen, heard, got",
        ),
        ({"problems": {"p": {"dataset": "digits", "settings": ["a"], "rates": {"seen": 0.1}}}}, "give one of the two"),
        ({"problems": {}}, "expected problems, a mapping"),
        ({"problems": {"p": None}}, "problem 'p': expected dataset"),
        ({"problems": {".p": {"dataset": "digits"}}}, "problem '.p': a name that begins with a dot"),
        ({"problems": {"p": "digits"}}, "problem 'p': expected a mapping from names to values, got 'digits'"),
        (
            {"problems": {"p": {"dataset": "digits", "rates": {"seen": 1.5}}}},
            "'seen' that is absent, in .*got 1.5",
        ),
        ({"problems": {"p": {"dataset": "digits", "rates": 0.5}}}, "rates: expected missing rates by modality"),
        ({"problems": {"p": {"dataset": "digits", "rates": [0.1, 0.2]}}}, "rates: a list of rates needs modalities"),
        ({"problems": {"p": {"dataset": "digits", "settings": {"x": "seen"}}}}, "setting 'x': expected missing rates"),
        ({"problems": {"p": {"dataset": "digits", "methods": "late"}}}, "methods: expected a list of names"),
        ({"problems": {"p": {"dataset": "digits", "only": "seen"}}}, "only: expected a list of names"),
        ({"problems": {"p": {"dataset": "digits", "options": "split"}}}, "options: expected a mapping"),
        ({"problems": {"p": {"dataset": "digits", "seeds": "two"}}}, "problem 'p', seeds: expected a whole number"),
        (
            {"problems": {"p": {"dataset": "mosi", "text": {"sise": 9}}}},
            "text: unknown key 'sise'",
        ),
        ({"seeds": 0}, "seeds: expected a whole number of at least 1, got 0"),
        ({"trials": "ten"}, "trials: expected a whole number of at least 1, got 'ten'"),
        ({"settings": ["a"]}, "settings: expected a mapping"),
        ({"methods": {"m": "Joint"}}, "method 'm': expected a mapping"),
        ({"methods": {"m": {"peer": "boosting", "fit": {"lr": 1}}}}, "a peer takes nothing else, got fit"),
        ({"methods": {"m": {"objective": "Joint", "arguments": ["kl"]}}}, "arguments: expected a mapping"),
        ({"methods": {"m": {"objective": "Joint", "model": {"featurs": 9}}}}, "model: unknown key 'featurs'"),
        ({"methods": {"m": {"objective": "MCE", "references": {"fold": 2}}}}, "references: unknown key 'fold'"),
        ({"tuned": "nowhere.yaml"}, "nowhere.yaml not found"),
        ({"tuned": ["a.yaml"]}, r"tuned: expected the path of a file, got \['a.yaml'\]"),
    ],
)
def test_mistakes_are_named(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        read_recipe(put(tmp_path / "r.yaml", **changes))


def test_one_setting_may_be_a_list(tmp_path):
    world = {"dataset": "synthetic", "modalities": ["m0", "m1", "m2"], "rates": [0, 0.5, 0.25]}
    cells = read_recipe(put(tmp_path / "r.yaml", problems={"world": world}))
    assert cells[0].rates == {"m0": 0.0, "m1": 0.5, "m2": 0.25}


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ({"dataset": "synthetic", "part": "tset"}, "p: part: data set 'synthetic' has no official part 'tset'"),
        ({"dataset": "synthetic", "options": {"dimm": 3}}, "unknown option 'dimm'. Did you mean 'dim'"),
    ],
)
def test_what_only_the_data_set_knows_is_named_by_the_cell(tmp_path, problem, message):
    cells = read_recipe(put(tmp_path / "r.yaml", problems={"p": problem}))
    with pytest.raises(ConfigError, match=message):
        load_problem(cells[0])


def test_cells_are_chosen_by_a_text_as_it_stands_or_a_regular_expression(tmp_path):
    cells = read_recipe(put(tmp_path / "r.yaml"))
    assert len(select(cells, "world (b) | joint")) == 2
    assert len(select(cells, r"^world \((a|b)\) \| (joint|late) \| 0$")) == 4
    assert len(select(cells, "")) == len(cells)
    assert select(cells, "world b") == []
    with pytest.raises(ConfigError, match=r"only: '\[x' is not a regular expression"):
        select(cells, "[x")


def test_a_recipe_that_is_none(tmp_path):
    with pytest.raises(ConfigError, match="Recipe not found: .*nowhere.yaml"):
        read_recipe(tmp_path / "nowhere.yaml")
    (tmp_path / "r.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not a YAML file"):
        read_recipe(tmp_path / "r.yaml")


def test_the_benchmark_has_every_method_and_treats_them_alike():
    opened = open_recipe(RECIPES / "benchmark.yaml")
    used = {run.get("objective") for run in opened.methods.values()}
    assert used - {None, "default"} == {
        "Joint", "ModalityDropout", "MCE", "PMR", "OGM", "GradientBlending", "Resampling", "ShaSpec", "RedCore",
        "PASSION", "UniMF", "SMIL", "MMIN",
    }  # fmt: skip
    budgets = {name: run["fit"] for name, run in opened.methods.items() if "fit" in run}
    assert {(budget["max_epochs"], "lr" in budget, "batch_size" in budget) for budget in budgets.values()} == {
        (40, False, False)
    }
    assert {name for name, budget in budgets.items() if budget["experts"]} == {"default"}
    assert opened.methods["Resampling"]["arguments"] == {"keep_size": True}
    by_data = {}
    for cell in opened.cells:
        by_data.setdefault(cell.data_name, set()).add(cell.setting)
    assert {name for name, settings in by_data.items() if settings == set("abcdef")} == {
        "fou+zer+mor", "rosmap", "mosi", "digits",
    }  # fmt: skip
    assert all(len(by_data[name]) == 2 for name in ("htad", "tcga_brca", "avmnist, theo left out"))
    assert {cell.seed for cell in opened.cells} == set(range(5))


@pytest.mark.parametrize("name", ["benchmark", "benchmark_six", "benchmark_mce", "benchmark_long", "weights"])
def test_committed_recipes_have_no_cell_twice(name):
    cells = read_recipe(RECIPES / f"{name}.yaml")
    assert len({cell.key for cell in cells}) == len(cells)
    assert len({(cell.problem, cell.method, cell.seed) for cell in cells}) == len(cells)


def test_the_weights_recipe_moves_one_and_two_weights():
    methods = open_recipe(RECIPES / "weights.yaml").methods
    moved = [sum(weight != 1 for weight in run["arguments"].values()) for run in methods.values()]
    assert {count: moved.count(count) for count in set(moved)} == {0: 1, 1: 18, 2: 27}


def test_a_description_is_a_problem_wherever_it_lies(tmp_path):
    def cells(folder, **changes):
        folder.mkdir()
        for file in PATIENTS.parent.glob("patients.*"):
            shutil.copy(file, folder)
        problem = {"dataset": "patients.yaml", "only": ["blood", "survey"], "rates": {"blood": 0.5}}
        fit = {"max_epochs": 1, "experts": False}
        return read_recipe(put(folder / "r.yaml", problems={"mine": problem | changes}, fit=fit, seeds=1))

    here = cells(tmp_path / "here")
    assert [cell.key for cell in here] == [cell.key for cell in cells(tmp_path / "there")]
    data = load_problem(here[0])
    assert len(data.val) < len(data.train)
    assert float(data.train.present[:, 0].float().mean()) < 0.6 < float(data.test.present[:, 0].float().mean())
    for cell in (here[0], here[2]):  # a network and a peer
        result = run_cell(cell, tmp_path / "out")
        assert set(result["subsets"]) == {"none", "blood", "survey", "blood+survey"}
    text = (tmp_path / "there" / "patients.yaml").read_text()
    (tmp_path / "there" / "patients.yaml").write_text(text.replace("val: 0.2, test: 0.2", "val: 0.4"))
    with pytest.raises(DataError, match="mine: the data have no test part"):
        load_problem(read_recipe(tmp_path / "there" / "r.yaml")[0])


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ({"only": ["blood", "survy"]}, "only: unknown modality 'survy'. Did you mean 'survey'"),
        ({"rates": {"bood": 0.5}}, "rates: unknown modality 'bood'. Did you mean 'blood'"),
        ({"settings": {"hard": {"nope": 0.5}}}, "setting 'hard': unknown modality 'nope'"),
    ],
)
def test_modalities_of_a_description_are_known(tmp_path, problem, message):
    for file in PATIENTS.parent.glob("patients.*"):
        shutil.copy(file, tmp_path)
    with pytest.raises(ConfigError, match=message):
        read_recipe(put(tmp_path / "r.yaml", problems={"mine": {"dataset": "patients.yaml"} | problem}))


def test_cells_change_with_what_a_description_says_and_with_its_table(tmp_path):
    for file in PATIENTS.parent.glob("patients.*"):
        shutil.copy(file, tmp_path)
    recipe = put(tmp_path / "r.yaml", problems={"mine": {"dataset": "patients.yaml"}}, seeds=1)

    def edited(name, old, new):
        text = (tmp_path / name).read_text()
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new, 1))
        return read_recipe(recipe)[0]

    first = read_recipe(recipe)[0]
    assert first.description["says"]["target"] == "diagnosis"
    assert edited("patients.yaml", "# What", "# Told: what").key == first.key
    described = edited("patients.yaml", "target: diagnosis", "target: sex")
    assert described.key != first.key
    with pytest.raises(ConfigError, match="mine: .*patients.yaml or its table has changed .*; run again"):
        load_problem(first)
    turned = edited("patients.yaml", "  blood: blood_*\n  survey: survey_*", "  survey: survey_*\n  blood: blood_*")
    row = (tmp_path / "patients.csv").read_text().splitlines()[1]
    table = edited("patients.csv", row + "\n", "")
    assert len({cell.key for cell in (first, described, turned, table)}) == 4
    (tmp_path / "patients.csv").unlink()
    with pytest.raises(DataError, match="patients.yaml: table .*patients.csv not found"):
        read_recipe(recipe)
