"""Values so large that their squares are infinite: judged in a unit of their own size, and told in the metric's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from labbench.analysis.table import Observation

MAX_SQUARABLE = 1e150
"""Sums of squares of anything up to here are finite."""
METRIC_UNIT_FIELDS = {"mean", "low", "high", "median", "iqm", "spread", "gap", "held_out"}
OTHER_UNIT_FIELDS = {"importance", "shares", "rate_ranges", "widenings"}
"""Parts of an answer whose numbers are shares, or learning rates."""

Part = TypeVar("Part")


def rescale_observations(observations: Sequence[Observation]) -> tuple[Sequence[Observation], float]:
    """The observations in a unit in which they can be squared, and that unit: 1 but for enormous values."""
    sizes = [abs(run.value) for run in observations if run.value is not None and math.isfinite(run.value)]
    largest = max(sizes, default=0.0)
    if largest <= MAX_SQUARABLE:
        return observations, 1.0
    unit = 2.0 ** math.ceil(math.log2(largest) - math.log2(MAX_SQUARABLE))  # of two: no digit changes
    return [replace(run, value=None if run.value is None else run.value / unit) for run in observations], unit


def restore_unit(part: Part, unit: float) -> Part:
    """The same answer, interval or other part, with its numbers times `unit`."""
    if unit == 1.0:
        return part
    if isinstance(part, tuple):
        return type(part)(restore_unit(item, unit) for item in part)
    if not is_dataclass(part) or isinstance(part, type):
        return part
    parts = {field.name: getattr(part, field.name) for field in fields(part)}
    changed: dict[str, Any] = {
        name: value * unit if name in METRIC_UNIT_FIELDS and isinstance(value, float) else restore_unit(value, unit)
        for name, value in parts.items()
        if name not in OTHER_UNIT_FIELDS
    }
    return replace(part, **changed)
