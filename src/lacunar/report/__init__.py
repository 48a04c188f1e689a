"""Figures, and one self-contained HTML page that says what a run is worth, or what to collect next."""

from __future__ import annotations

from typing import Any

__all__ = ["DataSummary", "plan_report", "report"]

_HOME = {"report": "write", "plan_report": "plan_page", "DataSummary": "summary"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
