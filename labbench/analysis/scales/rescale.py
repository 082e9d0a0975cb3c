"""Rescaling of values whose squares overflow or vanish, before and after the analysis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from labbench.analysis.table import Observation

MAX_SQUARABLE = 1e150
"""Largest value whose sums of squares are finite."""
MIN_SQUARABLE = 1e-140
"""Largest size of values whose squared differences may vanish."""
METRIC_UNIT_FIELDS = {"mean", "low", "high", "median", "iqm", "spread", "gap"}
"""Fields in the unit of the metric."""
SQUARED_UNIT_FIELDS = {"variance", "s0_squared"}
"""Fields in the squared unit of the metric."""
OTHER_UNIT_FIELDS = {"importance", "shares", "rate_ranges", "widenings", "ratio"}
"""Fields whose numbers are shares, ratios or learning rates, left unchanged."""

Part = TypeVar("Part")


def rescale_observations(observations: Sequence[Observation]) -> tuple[Sequence[Observation], float]:
    """Return observations in a unit in which squares are finite and do not vanish, and this unit.

    The unit is 1.0 if the largest value is between `MIN_SQUARABLE` and `MAX_SQUARABLE`.
    """
    sizes = [abs(run.value) for run in observations if run.value is not None and math.isfinite(run.value)]
    largest = max(sizes, default=0.0)
    if largest == 0.0 or MIN_SQUARABLE <= largest <= MAX_SQUARABLE:
        return observations, 1.0
    # a power of two, so that the division is exact
    unit = 2.0 ** math.ceil(math.log2(largest) - (math.log2(MAX_SQUARABLE) if largest > 1.0 else 0.0))
    return [replace(run, value=None if run.value is None else run.value / unit) for run in observations], unit


def restore_unit(part: Part, unit: float) -> Part:
    """Return an answer, interval or other part with its numbers multiplied by `unit`."""
    if unit == 1.0:
        return part
    if isinstance(part, tuple):
        return type(part)(restore_unit(item, unit) for item in part)
    if not is_dataclass(part) or isinstance(part, type):
        return part
    parts = {field.name: getattr(part, field.name) for field in fields(part)}
    changed = {
        name: _restore_field(name, value, unit) for name, value in parts.items() if name not in OTHER_UNIT_FIELDS
    }
    return replace(part, **changed)


def _restore_field(name: str, value: Any, unit: float) -> Any:
    if not isinstance(value, float):
        return restore_unit(value, unit)
    return value * unit if name in METRIC_UNIT_FIELDS else value * unit * unit if name in SQUARED_UNIT_FIELDS else value
