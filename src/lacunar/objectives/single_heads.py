"""The single-modality heads that some methods train beside the model's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lacunar.errors import ConfigError
from lacunar.models.heads import unimodal_head
from lacunar.models.multimodal import MultimodalModel
from lacunar.objectives.placing import beside

__all__ = ["listed_heads", "single_heads"]


def listed_heads(method: str, heads: Any) -> tuple[nn.ModuleList | None, tuple[str, ...]]:
    """Heads that are given by modality as a list, and the modalities that they are for; None where none are given.

    Raises:
        ConfigError: something else than modules by name.
    """
    named = isinstance(heads, (Mapping, nn.ModuleDict))
    if heads is None or (named and not heads):
        return None, ()
    if not named or not all(isinstance(head, nn.Module) for head in heads.values()):
        raise ConfigError(
            f"{method}: heads: expected a head for each modality by name, such as {{'audio': nn.Linear(64, 3), "
            f"'image': nn.Linear(64, 3)}}, got {heads!r}."
        )
    return nn.ModuleList(heads.values()), tuple(heads)


def single_heads(
    method: str, heads: nn.ModuleList | None, given_for: tuple[str, ...], model: MultimodalModel, width: int
) -> nn.ModuleList:
    """The given heads, or new ones in the manner of the model's own for every setup, placed beside it.

    Args:
        method: name of the objective.
        heads: the list that there is, or None.
        given_for: the modalities that given heads are for; empty for heads that were made here.
        model: what the heads stand beside.
        width: of the features that they read.

    Raises:
        ConfigError: heads for other modalities, or in another order.
    """
    if given_for and given_for != model.names:
        raise ConfigError(f"{method}: heads are for {given_for}, the data have {model.names}.")
    if heads is None or not given_for:
        heads = nn.ModuleList([unimodal_head(model.head, width) for _ in model.names])
    return beside(model, heads)
