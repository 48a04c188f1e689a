"""What ``--data`` may be: a description in YAML, or the name of a data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lacunar.errors import ConfigError, DataError, RunError, did_you_mean

if TYPE_CHECKING:
    from lacunar.data.dataset import MultimodalDataset
    from lacunar.data.description import Description
    from lacunar.data.splits import Splits

__all__ = [
    "COMMAND",
    "DESCRIPTION",
    "description_of",
    "load_parts",
    "load_whole",
    "new_data",
    "parse_rates",
    "split_like",
    "stored_description",
]

#: Beside a run of the command line: what it was asked, and how its table is read.
COMMAND, DESCRIPTION = "command.json", "description.json"
TABLES = (".csv", ".tsv", ".txt", ".parquet", ".pq")


def description_of(data: str) -> Description | None:
    """The description in a YAML file; None when ``data`` names a data set."""
    from lacunar.data.description import SUFFIXES, Description

    if Path(data).suffix.lower() in SUFFIXES or Path(data).is_file():
        if Path(data).suffix.lower() in TABLES:
            raise ConfigError(
                f"--data {data} is a table; expected its description, a YAML file that says which columns are which."
            )
        return Description.from_file(data)
    return None


def load_parts(data: str, seed: int = 0) -> Splits:
    """Train, validation and test parts of a description or of a data set by name (``htad``, or ``htad:folder``)."""
    description = description_of(data)
    if description is not None:
        with told_with(data):
            return description.split(seed)
    found = _by_name(data)
    return found if hasattr(found, "parts") else found.split(seed=seed)


def split_like(folder: Path, data: str) -> Splits:
    """Parts of data, split with the seed of a run and read with its columns and levels.

    A sample that the run was trained on keeps its part where the data are those of the run.
    """
    from lacunar.training.files import read_json

    path = folder / COMMAND
    seed = read_json(path).get("split_seed", 0) if path.exists() else 0
    description, kept = description_of(data), stored_description(folder)
    if description is None or kept is None:
        return load_parts(data, seed)
    with told_with(data):
        return description.following(kept, [str(column) for column in description.read().columns]).split(seed)


def load_whole(data: str) -> MultimodalDataset | Splits:
    """All samples of a description, or a data set by name, with its own parts where it has some."""
    description = description_of(data)
    if description is not None:
        with told_with(data):
            return description.dataset()
    return _by_name(data)


def new_data(data: str, folder: Path, task: Any, predict: bool) -> MultimodalDataset:
    """New samples for a trained model: a description, or a table that the run's own description reads.

    Columns keep the order, and those of text the levels, that they had in training.
    """
    kept = stored_description(folder)
    if Path(data).suffix.lower() in TABLES:
        if kept is None:
            raise ConfigError(
                f"{folder} was not trained from a description, so that nothing says which columns of {data} are "
                "which. Give a YAML description as --data."
            )
        with told_with(data):
            return kept.dataset(data, task=task, predict=predict)
    description = description_of(data)
    if description is None:
        found = _by_name(data)
        return found.test if hasattr(found, "parts") else found
    with told_with(data):
        if kept is not None:
            description = description.following(kept, [str(column) for column in description.read().columns])
        return description.dataset(task=task, predict=predict)


def stored_description(folder: Path) -> Description | None:
    """The description that a run was trained from, with the levels of its text columns."""
    from lacunar.data.description import Description

    path = folder / DESCRIPTION
    if not path.exists():
        return None
    try:
        return Description.from_dict(json.loads(path.read_text(encoding="utf-8")), folder, str(path))
    except ValueError as error:
        raise RunError(f"{path} cannot be read ({error}).") from error


def parse_rates(given: Any) -> dict[str, float] | float | None:
    """Missing rates from ``'audio=.8,image=.2'``, one number, or a mapping."""
    if given is None or isinstance(given, (int, float)):
        return given
    if isinstance(given, Mapping):
        return {str(name): _rate(str(name), rate) for name, rate in given.items()}
    text = str(given).strip()
    if "=" not in text:
        return _rate("every modality", text)
    rates: dict[str, float] = {}
    for piece in text.split(","):
        name, equals, rate = piece.strip().rpartition("=")
        if not equals or not name.strip():
            raise ConfigError(
                f"--rates: expected NAME=RATE between commas, such as 'audio=.8,image=.2'; got {piece!r}."
            )
        rates[name.strip()] = _rate(name.strip(), rate)
    return rates


class told_with:  # noqa: N801  reads as a statement
    """Puts the name of the data in front of what they are refused for."""

    def __init__(self, data: str):
        self.data = data

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (ConfigError, DataError)) and self.data not in str(error):
            raise type(error)(f"{self.data}: {error}") from error


def _rate(name: str, text: Any) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--rates: {name}: expected the fraction that is absent, such as .8, got {text!r}.") from None


def _by_name(data: str) -> Any:
    from lacunar import datasets

    name, _, folder = data.partition(":")
    known = datasets.available()
    if name not in known:
        hint = did_you_mean(name, known)
        raise ConfigError(f"--data {data}: expected the path of a YAML description, or the name of a data set.{hint}")
    found = datasets.load(name, **({"folder": folder} if folder else {}))
    return getattr(found, "data", found)  # a synthetic world is more than its data
