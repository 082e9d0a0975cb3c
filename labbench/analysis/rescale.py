"""Values so large that their squares are infinite: judged in a unit of their own size, and told in the metric's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from labbench.analysis.table import Observation

LARGEST = 1e150
"""Sums of squares of anything up to here are finite."""
IN_METRIC_UNIT = {"mean", "low", "high", "median", "iqm", "spread", "gap", "held_out"}
IN_OTHER_UNITS = {"importance", "shares", "rate_ranges", "widenings"}
"""Parts of an answer whose numbers are shares, or learning rates."""

Told = TypeVar("Told")


def in_own_unit(observations: Sequence[Observation]) -> tuple[Sequence[Observation], float]:
    """The observations in a unit in which they can be squared, and that unit: 1 but for enormous values."""
    sizes = [abs(run.value) for run in observations if run.value is not None and math.isfinite(run.value)]
    largest = max(sizes, default=0.0)
    if largest <= LARGEST:
        return observations, 1.0
    unit = 2.0 ** math.ceil(math.log2(largest) - math.log2(LARGEST))  # of two: no digit changes
    return [replace(run, value=None if run.value is None else run.value / unit) for run in observations], unit


def in_metric_unit(told: Told, unit: float) -> Told:
    """The same answer, interval or other part, with its numbers times `unit`."""
    if unit == 1.0:
        return told
    if isinstance(told, tuple):
        return type(told)(in_metric_unit(part, unit) for part in told)
    if not is_dataclass(told) or isinstance(told, type):
        return told
    parts = {field.name: getattr(told, field.name) for field in fields(told)}
    changed: dict[str, Any] = {
        name: part * unit if name in IN_METRIC_UNIT and isinstance(part, float) else in_metric_unit(part, unit)
        for name, part in parts.items()
        if name not in IN_OTHER_UNITS
    }
    return replace(told, **changed)
