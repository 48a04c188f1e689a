"""The errors that lacunar raises on purpose, and the suggestion they make for a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["ConfigError", "DataError", "LacunarError", "MissingExtraError", "RunError", "did_you_mean"]


class LacunarError(Exception):
    """Base of every error that lacunar raises on purpose."""


class DataError(LacunarError, ValueError):
    """The data are not what was promised: the message names the modality, the row and the remedy."""


class ConfigError(LacunarError, ValueError):
    """An argument, an option or a configuration file is wrong."""


class RunError(LacunarError, RuntimeError):
    """A run folder, a checkpoint or a saved model cannot be used as asked."""


class MissingExtraError(LacunarError, ImportError):
    """An optional dependency is needed; the message names the extra that installs it."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs the package {package!r}: pip install 'lacunar[{extra}]'.", name=package)


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """The end of an error message about an unknown name.

    Returns:
        ``" Did you mean 'audio'?"`` when something known is close, and the list of what is known otherwise.
    """
    options = [str(option) for option in known]
    close = difflib.get_close_matches(str(name), options, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Known: {', '.join(map(repr, options))}." if options else ""
