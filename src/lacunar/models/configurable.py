"""Modules that remember the arguments they were built with, so that a saved model can be built again."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch import nn

from lacunar.arguments import checked

__all__ = ["Configurable"]


class Configurable(nn.Module):
    """A module whose constructor arguments are recorded by name.

    Deriving from this class is all a module has to do to be saved with
    :func:`lacunar.models.save_model` and built again without its source model. Arguments may be numbers, strings,
    lists, dictionaries, tasks and other modules.
    """

    _arguments: dict[str, Any]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in cls.__dict__:
            cls.__init__ = _recording(checked(cls.__init__))  # type: ignore[method-assign]

    def configuration(self) -> dict[str, Any]:
        """Constructor arguments by name; modules among them are the current ones."""
        current = {}
        for name, value in self._arguments.items():
            now = getattr(self, name, value) if isinstance(value, nn.Module) else value
            current[name] = now if isinstance(now, nn.Module) else value
        return current


def _recording(initialise: Any) -> Any:
    signature = inspect.signature(initialise)

    @functools.wraps(initialise)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        # Only the outermost constructor is recorded: it is the one that is called again.
        if "_arguments" not in self.__dict__:
            bound = signature.bind(self, *args, **kwargs)
            recorded = dict(list(bound.arguments.items())[1:])
            for parameter in signature.parameters.values():
                if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    recorded.update(recorded.pop(parameter.name, {}))
            object.__setattr__(self, "_arguments", recorded)
        initialise(self, *args, **kwargs)

    return wrapper
