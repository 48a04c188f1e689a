"""What a utility table was asked for, as plain data that other calls are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from lacunar.data.dataset import MultimodalDataset
from lacunar.errors import ConfigError
from lacunar.lattice import Lattice
from lacunar.training.folder import describe_module

__all__ = ["asked_codes", "describe_model", "plain_option"]


def asked_codes(lattice: Lattice, subsets: Iterable[Iterable[str] | str | int] | None) -> list[int]:
    """Codes of the subsets that were asked for, small ones first; all of them for None."""
    if subsets is None:
        return lattice.subsets
    codes = {code for code in given_codes(lattice, subsets) if code}
    if not codes:
        raise ConfigError("subsets: expected at least one non-empty subset.")
    return sorted(codes, key=lambda code: (code.bit_count(), code))


def given_codes(lattice: Lattice, subsets: Any) -> list[int]:
    """Codes of subsets that were given as names, labels or codes, in their order.

    Raises:
        ConfigError: no list of subsets.
        DataError: an unknown modality or code.
    """
    if isinstance(subsets, str):
        subsets = [subsets]
    if not isinstance(subsets, Iterable):
        raise ConfigError(f"subsets: expected a list of subsets, such as [{lattice.label(1)!r}], got {subsets!r}.")
    return [lattice.index(subset.split("+") if isinstance(subset, str) else subset) for subset in subsets]


def describe_model(make_model: Callable[[MultimodalDataset], Any], train: MultimodalDataset) -> list[str]:
    """What make_model makes of all modalities, so that cells of another model are not taken for this one's."""
    if not callable(make_model):
        raise ConfigError(
            f"make_model: expected a function from data to a model, got {type(make_model).__name__}. For one estimator "
            "write lambda data: LogisticRegression()."
        )
    with torch.random.fork_rng([]):
        made = make_model(train)
    if isinstance(made, nn.Module):
        return describe_module(made)
    return [" ".join(repr(part).split()) for part in (made if isinstance(made, (list, tuple)) else [made])]


def plain_option(value: Any) -> Any:
    """An argument of fit as JSON can hold it."""
    if isinstance(value, nn.Module):
        return describe_module(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)
