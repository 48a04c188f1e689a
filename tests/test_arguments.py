"""Numbers and switches of the public functions, constructors and methods: what is none is refused by name."""

import inspect
import math

import numpy as np
import pytest

import lacunar as lc
from lacunar import evaluation, generation, objectives
from lacunar.arguments import _plain, above, at_least, checked
from lacunar.errors import ConfigError


@checked
def example(rate: float, count: int = 1, on: bool = False, share: float | None = None, name: str = "", *rest: int):
    return rate, count, on, share, name, rest


def test_what_suits_its_annotation_goes_through():
    assert example(1, np.int64(2), np.True_, None, 5, "x") == (1, 2, True, None, 5, ("x",))
    assert example(np.float32(0.5), share=0.25) == (0.5, 1, False, 0.25, "", ())
    assert inspect.signature(example).parameters["share"].annotation in ("float | None", float | None)
    with pytest.raises(TypeError, match=r"example\(\) missing 1 required positional argument: 'rate'"):
        example()


def test_numbers_of_numpy_become_those_of_python():
    rate, count, on, *_ = example(np.float64(0.5), np.int64(3), np.False_)
    assert (rate, count, on) == (0.5, 3, False)
    assert [type(one) for one in (rate, count, on)] == [float, int, bool]
    assert lc.MeanCompleter(seed=np.int64(3)).generator().initial_seed() == 3


def test_a_default_always_suits():
    @checked
    def odd(weight: float = None, margin: float = math.inf):  # noqa: RUF013
        return weight, margin

    assert odd() == odd(None, math.inf) == (None, math.inf)
    with pytest.raises(ConfigError, match="margin: expected a finite number, got -inf"):
        odd(margin=-math.inf)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"rate": "1e-3"}, "example: rate: expected a finite number, got '1e-3'"),
        ({"rate": None}, "rate: expected a finite number, got None"),
        ({"rate": True}, "rate: expected a finite number, got True"),
        ({"rate": float("nan")}, "rate: expected a finite number, got nan"),
        ({"rate": float("inf")}, "rate: expected a finite number, got inf"),
        ({"rate": 1, "count": 1.0}, r"count: expected a whole number, got 1\.0"),
        ({"rate": 1, "count": True}, "count: expected a whole number, got True"),
        ({"rate": 1, "on": "no"}, "on: expected True or False, got 'no'"),
        ({"rate": 1, "on": 0}, "on: expected True or False, got 0"),
        ({"rate": 1, "share": [1]}, r"share: expected a finite number or None, got \[1\]"),
    ],
)
def test_what_does_not_is_told_by_name(given, expected):
    with pytest.raises(ConfigError, match=expected):
        example(**given)


def test_annotations_may_be_types_or_text():
    def plain(annotation):
        return _plain(inspect.Parameter("x", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation))

    said = [plain(one).said for one in (int, "int", float | None, "bool | None", "int | float")]
    assert said == ["a whole number", "a whole number", "a finite number or None", "True, False or None",
                    "a whole number or a finite number"]  # fmt: skip
    assert not any(plain(one) for one in (inspect.Parameter.empty, str, "None", "int | str", list[int], "Task"))


def test_numbers_too_low_are_told_by_name():
    at_least(1, epochs=1, folds=None)
    with pytest.raises(ConfigError, match=r"folds: expected at least 1, got 0\."):
        at_least(1, epochs=1, folds=0)
    above(0, lr=0.1, memory=None)
    with pytest.raises(ConfigError, match=r"lr: expected a number above 0, got 0\."):
        above(0, lr=0)
    for make in (lc.FlowCompleter, lc.DiffusionCompleter, objectives.GradientBlending):
        with pytest.raises(ConfigError, match="lr: expected a number above 0, got -1"):
            make(lr=-1)
    with pytest.raises(ConfigError, match="memory: expected a number above 0, got 0"):
        lc.MCE(memory=0)


def public():
    """Every public function, completer and training method that has numbers or switches."""
    parts = [getattr(module, name) for module in (lc, evaluation) for name in module.__all__]
    functions = [part for part in parts if inspect.isfunction(part)]
    classes = [*generation.available().values(), *objectives.available().values()]
    return {part.__name__: part for part in [*functions, *classes]}


def plain_arguments():
    found = []
    for name, function in public().items():
        for argument, one in inspect.signature(function).parameters.items():
            if _plain(one):
                found.append(pytest.param(function, argument, _plain(one).said, id=f"{name}-{argument}"))
    return found


@pytest.mark.parametrize(("function", "argument", "expected"), plain_arguments())
def test_every_public_number_and_switch_is_checked(function, argument, expected):
    needed = {
        name: 1 if _plain(one) else None
        for name, one in inspect.signature(function).parameters.items()
        if one.default is inspect.Parameter.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    }
    with pytest.raises(ConfigError, match=f"{function.__name__}: {argument}: expected {expected}, got 'text'"):
        function(**{**needed, argument: "text"})
