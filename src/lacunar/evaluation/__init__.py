"""Pure scoring: all-subset tables, paired statistics, calibration, representation quality, capability probes."""

from __future__ import annotations

from lacunar.evaluation.calibration import binned_calibration_error, calibration_bins, expected_calibration_error
from lacunar.evaluation.figures import subset_figure
from lacunar.evaluation.probes import capability, capability_trajectory
from lacunar.evaluation.reliability_table import reliability
from lacunar.evaluation.representation import representation_metrics, representation_quality
from lacunar.evaluation.sentiment import sentiment_metrics
from lacunar.evaluation.sliding import SlidingWindow
from lacunar.evaluation.statistics import Difference, paired_difference, seed_interval
from lacunar.evaluation.subsets import evaluate
from lacunar.evaluation.table import Score, SubsetTable
from lacunar.evaluation.temperature import TemperatureScaling

__all__ = [
    "SlidingWindow",
    "Difference",
    "Score",
    "SubsetTable",
    "TemperatureScaling",
    "binned_calibration_error",
    "calibration_bins",
    "capability",
    "capability_trajectory",
    "evaluate",
    "expected_calibration_error",
    "paired_difference",
    "reliability",
    "representation_metrics",
    "representation_quality",
    "seed_interval",
    "sentiment_metrics",
    "subset_figure",
]
