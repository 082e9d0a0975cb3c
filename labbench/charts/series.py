"""Series and their arithmetic: decimation, joins and ranges.

A curve is two float64 arrays of shape (N,): x, non-decreasing, and y, in which NaN and infinities are gaps that no
line crosses. The cost of drawing depends on screen columns, not on points: `column_spans` reduces a curve to its
exact vertical extent in each column.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from labbench.charts.rasterize import Extent, measure_spans, pack_curves
from labbench.charts.smoothing import smooth
from labbench.charts.smoothing_spec import Smoothing

Floats: TypeAlias = NDArray[np.float64]
Curve: TypeAlias = tuple[Floats, Floats]
"""(x, y), each of shape (N,)."""


# Decimation


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A metric of a run over an x axis: points, or buckets of neighbouring points if the series is long.

    Arrays of shape (N,); `x` is non-decreasing, NaN in `y` is a gap. Immutable: a changed series is a new object.
    """

    x: Floats
    """x of each point, or of the start of each bucket."""
    y: Floats
    """Value of each point, or mean of the finite values of each bucket."""
    buckets: Buckets | None = None
    """None if the series holds every point."""
    exact: ExactPoints | None = None
    """Some points of a series of buckets: its first, last, lowest and highest ones."""
    is_by_step: bool = False
    """True if x is the step because the run has not logged the chart's x axis."""
    is_coarse: bool = False
    """True if the series is the overview of a longer one, which can be read with more buckets."""

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """Extents and counts of the buckets of a series, arrays of shape (N,)."""

    end: Floats
    """x of the end of each bucket."""
    low: Floats
    """Lowest value of each bucket."""
    high: Floats
    """Highest value of each bucket."""
    n: NDArray[np.int64]
    """Number of points in each bucket."""
    first_step: NDArray[np.int64]
    """Step of the first point in each bucket."""
    last_step: NDArray[np.int64]
    """Step of the last point in each bucket."""


@dataclass(frozen=True, slots=True, eq=False)
class ExactPoints:
    """Some points of a series, arrays of shape (P,), by ascending step."""

    steps: NDArray[np.int64]
    x: Floats
    y: Floats


def smooth_series(series: Series, smoothing: Smoothing) -> Curve:
    """Return the smoothed (x, y) curve of a whole series."""
    buckets = series.buckets
    if buckets is None:
        return series.x, smooth(series.y, smoothing)
    x = (series.x + buckets.end) / 2 if smoothing.is_centred or not smoothing else buckets.end
    return x, smooth(series.y, smoothing, buckets.n)


def envelope(series: Series) -> Extent:
    """Return the raw extent of a series; a bucket covers y from its lowest to its highest value."""
    buckets = series.buckets
    if buckets is None:
        return series.x, series.y, series.y, series.y
    ends = np.empty(2 * len(series))
    ends[::2], ends[1::2] = series.x, buckets.end
    return ends, buckets.low, series.y, buckets.high


def column_spans(x: Floats, y: Floats, left: float, right: float, columns: int) -> Curve:
    """Return the (low, high) of a curve in each column of [left, right], each of shape (columns,).

    x, y: (N,). NaN in columns without the curve.
    """
    spans = measure_spans(pack_curves([(x, y, y, y)]), left, right, columns)
    return spans.low[0], spans.high[0]


def gaps_as_nan(values: Floats) -> Floats:
    """Return the values with infinities replaced by NaN, shape (N,)."""
    return np.where(np.isinf(values), np.nan, values)


def thin(x: Floats, y: Floats, points: int) -> Curve:
    """Return at most `points` (at least 4) of a curve's points: the ends and the extremes of equal parts.

    x, y: (N,), without gaps (see `split_at_gaps`).
    """
    if len(x) <= points:
        return x, y
    parts = max(1, (points - 2) // 2)
    size = -(-len(y) // parts)
    padded = np.concatenate([y, np.full(parts * size - len(y), y[-1])]).reshape(parts, size)
    offsets = np.arange(parts) * size
    indices = np.concatenate([[0, len(y) - 1], offsets + padded.argmin(axis=1), offsets + padded.argmax(axis=1)])
    indices = np.unique(np.minimum(indices, len(y) - 1))
    return x[indices], y[indices]


def split_at_gaps(x: Floats, y: Floats) -> list[Curve]:
    """Split a curve, x and y of shape (N,), at non-finite values; return the finite pieces in order."""
    finite = np.isfinite(y)
    if finite.all():
        return [(x, y)] if len(y) else []
    boundaries = np.flatnonzero(np.diff(finite, prepend=False, append=False))
    return [(x[start:end], y[start:end]) for start, end in zip(boundaries[::2], boundaries[1::2], strict=True)]


# Joins


def join_by_step(steps: NDArray[np.int64], axis_steps: NDArray[np.int64], axis_values: Floats) -> Floats:
    """Return the value of the metric used as x axis at each step, interpolated linearly.

    steps: (N,), int64. axis_steps, axis_values: (M,), the logged points of the metric. Returns (N,), float64.

    Before the first logged point, a positive value rises from 0 at step 0 and any other value is constant. After the
    last one, values are extrapolated from the last interval (from a single point: from 0 at step 0), so that a run in
    the middle of an epoch is drawn up to its newest step. All NaN if the axis has no finite point.
    """
    finite = np.isfinite(axis_values)
    logged, values = axis_steps[finite].astype(np.float64), axis_values[finite]
    if not len(logged):
        return np.full(len(steps), np.nan)
    if len(logged) == 1:
        logged, values = np.array([0.0, logged[0] or 1.0]), np.array([0.0, values[0]])
    joined = np.interp(steps, logged, values)
    before, after = steps < logged[0], steps > logged[-1]
    with np.errstate(over="ignore", invalid="ignore"):  # a diverged axis is extrapolated to infinity
        if values[0] > 0 and logged[0] > 0:
            joined[before] = values[0] * (np.maximum(steps[before], 0) / logged[0])
        joined[after] = values[-1] + (steps[after] - logged[-1]) * (values[-1] - values[-2]) / (logged[-1] - logged[-2])
    return joined


# Ranges


def value_range(arrays: Iterable[Floats], *, log: bool = False) -> tuple[float, float] | None:
    """Return the (lowest, highest) finite value of all arrays, positive ones only if `log`; None without any."""
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
