"""The modules of a model as plain data, and back: class paths and constructor arguments, nothing pickled."""

from __future__ import annotations

import importlib
import inspect
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lacunar.errors import RunError
from lacunar.tasks import Task, task_from_config

__all__ = ["build", "describe", "first_opaque"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_PLACEMENT = ("device", "dtype")
_RECURRENT = (
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "batch_first",
    "dropout",
    "bidirectional",
)


class _CannotDescribeError(Exception):
    """Why a value cannot be written down."""


def describe(value: Any, folder: Path) -> Any:
    """A constructor argument, usually a module, as JSON data.

    A module that does not tell its arguments is marked *opaque*, with the reason. Arguments are found, in this
    order, in a method ``configuration()`` (see :class:`lacunar.models.Configurable`), in the children of containers,
    in attributes named like the constructor's parameters. A value of a lacunar class with methods ``save(folder)``
    and ``load(folder)`` is written to a folder of its own.

    Args:
        value: the module.
        folder: where values that need files are written.
    """
    if isinstance(value, nn.Module):
        return _describe_module(value, folder)
    if isinstance(value, (np.bool_, np.number)):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list):
        return [describe(item, folder) for item in value]
    if isinstance(value, tuple):
        return {"$tuple": [describe(item, folder) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"$dict": {key: describe(item, folder) for key, item in value.items()}}
    if isinstance(value, Task):
        return {"$task": value.to_config()}
    if isinstance(value, torch.dtype):
        return {"$dtype": str(value).removeprefix("torch.")}
    if isinstance(value, type) and issubclass(value, nn.Module):
        return {"$class": _path_of(value)}
    if _saves_itself(type(value)):
        name = f"part{sum(1 for _ in folder.glob('part*'))}"
        value.save(folder / name)
        return {"$saved": {"class": _path_of(type(value)), "folder": name}}
    raise _CannotDescribeError(f"an argument is a {type(value).__name__}")


def _describe_module(module: nn.Module, folder: Path) -> dict[str, Any]:
    kind = type(module)
    entry: dict[str, Any] = {"class": f"{kind.__module__}:{kind.__qualname__}"}
    try:
        _path_of(kind)
        if kind in _CONTAINERS:
            entry["children"] = [[name, describe(child, folder)] for name, child in module.named_children()]
        else:
            arguments = _arguments(module)
            entry["arguments"] = {name: describe(value, folder) for name, value in arguments.items()}
    except _CannotDescribeError as reason:
        entry = {"class": entry["class"], "opaque": str(reason)}
    return {"$module": entry}


def _arguments(module: nn.Module) -> dict[str, Any]:
    """Constructor arguments by name.

    Raises:
        _CannotDescribeError: when the module does not tell them all.
    """
    if callable(getattr(module, "configuration", None)):
        return module.configuration()  # type: ignore[operator]
    if isinstance(module, (nn.LSTM, nn.GRU)):
        own = {"proj_size": module.proj_size} if isinstance(module, nn.LSTM) else {}
        return {**{name: getattr(module, name) for name in _RECURRENT}, **own}
    if type(module).__init__ is nn.Module.__init__:
        return {}
    builtin = type(module).__module__.startswith("torch.nn.")
    arguments = {}
    for parameter in list(inspect.signature(type(module).__init__).parameters.values())[1:]:
        name = parameter.name
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            if builtin:  # nn.Identity accepts anything and uses nothing
                continue
            raise _CannotDescribeError(f"its constructor takes *{name}")
        if builtin and (name in _PLACEMENT or name.startswith("_")):
            continue
        if builtin and name == "bias" and isinstance(getattr(module, "bias", None), (Tensor, type(None))):
            arguments[name] = getattr(module, "bias", None) is not None
            continue
        if not hasattr(module, name):
            raise _CannotDescribeError(f"it has no attribute {name!r} like its constructor's argument")
        arguments[name] = getattr(module, name)
    return arguments


def _path_of(kind: type) -> str:
    if "<locals>" in kind.__qualname__:
        raise _CannotDescribeError("its class is defined inside a function")
    return f"{kind.__module__}:{kind.__qualname__}"


def _saves_itself(kind: type) -> bool:
    ours = kind.__module__.split(".")[0] == "lacunar"
    return ours and all(callable(getattr(kind, method, None)) for method in ("save", "load"))


def first_opaque(description: Any) -> tuple[str, str] | None:
    """Class path and reason of the first module that cannot be built from its description."""
    if isinstance(description, dict):
        entry = description.get("$module")
        if isinstance(entry, dict) and "opaque" in entry:
            return str(entry["class"]), str(entry["opaque"])
        description = list(description.values())
    if isinstance(description, list):
        return next((found for found in map(first_opaque, description) if found), None)
    return None


def build(description: Any, folder: Path) -> Any:
    """What :func:`describe` described.

    Raises:
        RunError: when a class cannot be imported, is no module, or refuses its arguments.
    """
    if isinstance(description, list):
        return [build(item, folder) for item in description]
    if not isinstance(description, dict):
        return description
    ((mark, content),) = description.items()
    if mark == "$tuple":
        return tuple(build(item, folder) for item in content)
    if mark == "$dict":
        return {key: build(item, folder) for key, item in content.items()}
    if mark == "$task":
        return task_from_config(content)
    if mark == "$dtype" and isinstance(getattr(torch, content, None), torch.dtype):
        return getattr(torch, content)
    if mark == "$class":
        return _module_class(content)
    if mark == "$saved":
        kind = _import(content["class"])
        if not (isinstance(kind, type) and _saves_itself(kind)) or Path(content["folder"]).name != content["folder"]:
            raise RunError(f"{content['class']!r} in {content['folder']!r} is nothing that lacunar saves.")
        return kind.load(folder / content["folder"])  # type: ignore[attr-defined]
    if mark == "$module":
        return _build_module(content, folder)
    raise RunError(f"Unknown entry {mark!r} in the description of the model.")


def _build_module(entry: dict[str, Any], folder: Path) -> nn.Module:
    path = entry["class"]
    if "opaque" in entry:
        raise RunError(
            f"The class {path!r} cannot be built again: {entry['opaque']}. Build the model and pass it as model=, or "
            "derive the class from lacunar.models.Configurable before saving."
        )
    kind = _module_class(path)
    if "children" in entry:
        children = OrderedDict((name, build(child, folder)) for name, child in entry["children"])
        return kind(list(children.values())) if kind is nn.ModuleList else kind(children)
    arguments = {name: build(value, folder) for name, value in entry["arguments"].items()}
    positional: list[Any] = []
    for parameter in inspect.signature(kind).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL and parameter.name in arguments:
            # What stands before *args can only be given by position as well.
            before = list(inspect.signature(kind).parameters)
            before = before[: before.index(parameter.name)]
            starred = arguments.pop(parameter.name)
            positional = [arguments.pop(name) for name in before if name in arguments] + list(starred)
    # A completer is built with the sizes of what it learned, which are no arguments of its constructor.
    make = getattr(kind, "from_configuration", kind)
    try:
        return make(*positional, **arguments)
    except TypeError as error:
        raise RunError(
            f"The class {path!r} does not take the arguments it was saved with ({error}). Was it changed since? "
            "Build the model and pass it as model=."
        ) from error


def _module_class(path: str) -> type[nn.Module]:
    kind = _import(path)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise RunError(f"{path!r} is not a torch.nn.Module class: refusing to call it.")
    return kind


def _import(path: str) -> Any:
    home, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(home)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise RunError(
            f"The class {path!r} cannot be imported ({error}). Build the model and pass it as model=."
        ) from error
    return found
