"""Single-modality models that the cells of a problem and seed share."""

from __future__ import annotations

from typing import Any

from lacunar.bench.store import Store
from lacunar.data.splits import Splits
from lacunar.models.references import References

__all__ = ["shared_references"]


def shared_references(data: Splits, store: Store, seed: int, **options: Any) -> References:
    """The references of the train part, made by the first cell that needs them; others wait for it and read them.

    Args:
        data: the splits of the cell.
        store: where they are kept.
        seed: of the cell.
        **options: of :func:`lacunar.references`.
    """
    from lacunar.training.references import references  # brings Lightning along

    with store.alone(f"references-{data.presence.hash[:16]}"):
        return references(data.train, seed=seed, cache=store.path / "references", **options)
