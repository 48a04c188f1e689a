import pytest

import lacunar as lc
from lacunar.bench.recipe import read_recipe
from lacunar.data.plain_yaml import read_yaml
from lacunar.errors import ConfigError


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    path = tmp_path / "numbers.yaml"
    path.write_text("[1e-3, 1E5, -2.5e+2, .5e1, 3.e2, 1.0e-3, 12, e-3, 1e, v1e3]")
    assert read_yaml(path, "File") == [1e-3, 1e5, -250.0, 5.0, 300.0, 1e-3, 12, "e-3", "1e", "v1e3"]


def test_recipes_and_costs_may_say_them(tmp_path):
    recipe, costs = tmp_path / "recipe.yaml", tmp_path / "costs.yaml"
    recipe.write_text(
        "methods: {a: {objective: MCE, arguments: {single: 1e-3}, fit: {lr: 5e-4}}}\nproblems: {p: {dataset: digits}}\n"
    )
    run = read_recipe(recipe)[0].run
    assert run["arguments"] == {"single": 0.001}
    assert run["fit"] == {"lr": 0.0005}
    costs.write_text("image: 2e3\naudio: 5\n")
    assert lc.CostModel.read(costs).per_cell == {"image": 2000.0, "audio": 5.0}


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("{arguments: {single: '0,5'}}", "method 'a': MCE: single: expected a finite number, got '0,5'"),
        ("{fit: {lr: fast}}", "method 'a', fit: lr: expected a finite number, got 'fast'"),
        ("{fit: {max_epochs: 2.5}}", r"method 'a', fit: max_epochs: expected a whole number or None, got 2\.5"),
        ("{model: {features: wide}}", "method 'a', model: features: expected a whole number or None, got 'wide'"),
        ("{references: {folds: all}}", "method 'a', references: folds: expected a whole number, got 'all'"),
    ],
)
def test_text_for_a_number_is_refused_when_a_recipe_is_opened(tmp_path, method, expected):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"methods: {{a: {{objective: MCE, {method[1:-1]}}}}}\nproblems: {{p: {{dataset: digits}}}}\n")
    with pytest.raises(ConfigError, match=expected):
        read_recipe(path)


def test_a_method_that_a_recipe_names_twice_is_no_silent_loss(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("methods:\n  a: {objective: Joint}\n  a: {objective: MCE}\nproblems: {p: {dataset: digits}}\n")
    with pytest.raises(ConfigError, match="the key 'a' is there twice"):
        read_recipe(path)


def test_what_is_merged_twice_is_no_key_given_twice(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("x: {y: {mid: &mid {<<: &base {a: 1}, a: 2}}}\nouter: {<<: *mid, b: 3}\nlast: {<<: *mid}\n")
    assert read_yaml(path, "File")["outer"] == {"a": 2, "b": 3}
    path.write_text("x: &x {a: 1, a: 2}\ny: {<<: *x}\n")
    with pytest.raises(ConfigError, match="the key 'a' is there twice"):
        read_yaml(path, "File")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "Recipe not found: .*recipe.yaml"),
        (b"a: \xff", "not a YAML file in UTF-8 .* Save it as UTF-8"),
        (b"a: [1", "not a YAML file"),
        (b"a: *b", r"A text that begins with \* needs quotes"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, content, expected):
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        read_yaml(path, "Recipe")
