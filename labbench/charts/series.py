"""The arithmetic of curves: series, decimation, joins and ranges. Numbers in, numbers out.

A curve is two arrays of one length: x, non-decreasing, and y, in which NaN and infinities are gaps no line crosses.
Drawing costs screen columns, not points: `spans` reduces a curve to the exact vertical extent in each column.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from labbench.charts.rasterize import measure_spans, pack_curves
from labbench.charts.smoothing import smooth
from labbench.charts.smoothing_spec import Smoothing

Floats: TypeAlias = NDArray[np.float64]
Curve: TypeAlias = tuple[Floats, Floats]
"""(x, y), one length."""


# Decimation


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A metric of a run over some axis: points, or buckets of neighbouring points where it is long.

    Arrays of one length; `x` is non-decreasing, NaN in `y` is a gap. What has changed is a new `Series`.
    """

    x: Floats
    """Of the point, or where the bucket begins."""
    y: Floats
    """The value, or the mean of the bucket's finite ones."""
    buckets: Buckets | None = None
    """None where every point is there."""

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """What is known of buckets beside their means."""

    end: Floats
    """Where the bucket ends on the axis."""
    low: Floats
    high: Floats
    n: NDArray[np.int64]
    """Points in it."""
    first_step: NDArray[np.int64]
    last_step: NDArray[np.int64]


def smooth_series(series: Series, smoothing: Smoothing) -> Curve:
    """The smoothed line through a series, over the whole of it."""
    buckets = series.buckets
    if buckets is None:
        return series.x, smooth(series.y, smoothing)
    x = (series.x + buckets.end) / 2 if smoothing.is_centred or not smoothing else buckets.end
    return x, smooth(series.y, smoothing, buckets.n)


def envelope(series: Series) -> tuple[Floats, Floats, Floats, Floats]:
    """(x, low, middle, high) of the series as it is: a bucket reaches from its lowest to its highest value, exactly."""
    if series.buckets is None:
        return series.x, series.y, series.y, series.y
    ends = np.stack([series.x, series.buckets.end], axis=1).ravel()
    low, middle, high = (np.repeat(values, 2) for values in (series.buckets.low, series.y, series.buckets.high))
    return ends, low, middle, high


def column_spans(x: Floats, y: Floats, left: float, right: float, columns: int) -> Curve:
    """(low, high), each (columns,): how far the curve reaches in each column of [left, right]; NaN where it is not."""
    found = measure_spans(pack_curves([(x, y, y, y)]), left, right, columns)
    return found.low[0], found.high[0]


def gaps_as_nan(values: Floats) -> Floats:
    return np.where(np.isinf(values), np.nan, values)


def thin(x: Floats, y: Floats, points: int) -> Curve:
    """The curve in at most `points` of its own points (at least 4): the ends, and the extremes of equal parts between.

    For curves without gaps: see `split_at_gaps`.
    """
    if len(x) <= points:
        return x, y
    parts = max(1, (points - 2) // 2)
    size = -(-len(y) // parts)
    padded = np.concatenate([y, np.full(parts * size - len(y), y[-1])]).reshape(parts, size)
    offsets = np.arange(parts) * size
    kept = np.concatenate([[0, len(y) - 1], offsets + padded.argmin(axis=1), offsets + padded.argmax(axis=1)])
    kept = np.unique(np.minimum(kept, len(y) - 1))
    return x[kept], y[kept]


def split_at_gaps(x: Floats, y: Floats) -> list[Curve]:
    """The curve split at non-finite values: the pieces a line can be drawn through, in order."""
    finite = np.isfinite(y)
    if finite.all():
        return [(x, y)] if len(y) else []
    turns = np.flatnonzero(np.diff(finite, prepend=False, append=False))
    return [(x[start:end], y[start:end]) for start, end in zip(turns[::2], turns[1::2], strict=True)]


# Joins


def join_by_step(steps: NDArray[np.int64], axis_steps: NDArray[np.int64], axis_values: Floats) -> Floats:
    """What a metric used as the x axis was at each of `steps`: linear between its logged points.

    Outside them it goes on as over its first or last interval (one point: in proportion to the step), so that a run in
    the middle of an epoch is drawn up to its newest step. All NaN where the axis has no finite point.
    """
    finite = np.isfinite(axis_values)
    known, values = axis_steps[finite].astype(np.float64), axis_values[finite]
    if not len(known):
        return np.full(len(steps), np.nan)
    if len(known) == 1:
        known, values = np.array([0.0, known[0] or 1.0]), np.array([0.0, values[0]])
    joined = np.interp(steps, known, values)
    before, behind = steps < known[0], steps > known[-1]
    with np.errstate(over="ignore", invalid="ignore"):  # an axis that blew up goes on into infinity
        joined[before] = values[0] + (steps[before] - known[0]) * (values[1] - values[0]) / (known[1] - known[0])
        joined[behind] = values[-1] + (steps[behind] - known[-1]) * (values[-1] - values[-2]) / (known[-1] - known[-2])
    return joined


# Ranges


def value_range(arrays: Iterable[Floats], *, log: bool = False) -> tuple[float, float] | None:
    """(lowest, highest) finite value of all arrays, positive ones only if `log`; None where there is none."""
    lowest, highest = math.inf, -math.inf
    for values in arrays:
        if not len(values):
            continue
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high) and (low > 0 or not log)):
            usable = values[np.isfinite(values) & (values > 0)] if log else values[np.isfinite(values)]
            if not len(usable):
                continue
            low, high = float(usable.min()), float(usable.max())
        lowest, highest = min(lowest, low), max(highest, high)
    return (lowest, highest) if lowest <= highest else None
