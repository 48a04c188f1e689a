"""Which modalities to collect next: utilities of subsets, indicators, selection, costs and plans."""

from __future__ import annotations

__all__: list[str] = []
