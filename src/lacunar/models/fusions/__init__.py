"""Fusions: from the tokens of all modalities ``(P, M, C, *spatial)`` to what the head reads, one a file."""

from __future__ import annotations

from lacunar.models.fusions.attention import AttentionFusion
from lacunar.models.fusions.concat import ConcatFusion
from lacunar.models.fusions.mean import MeanFusion

__all__ = ["AttentionFusion", "ConcatFusion", "MeanFusion"]
