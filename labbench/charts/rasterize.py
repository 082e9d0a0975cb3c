"""Vertical extents of many curves in the dot columns of a chart, in one pass over all points.

Curves are concatenated, and each point is assigned to a column of its curve. The exact extent of a curve in a column
is the minimum and maximum over its points and over the line's values at the column's edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Extent: TypeAlias = tuple[Floats, Floats, Floats, Floats]
"""(x, low, middle, high): a line through `middle` with a `low`-`high` band.

Values have shape (N,), and so has x, which does not decrease. For buckets x has shape (2 N,): the start and the end of
each.
"""

_CURVES_PER_BATCH = 32
"""Curves measured at once, so that their arrays fit into the CPU cache."""


@dataclass(frozen=True, slots=True)
class PackedCurves:
    """Concatenated curves, arrays of shape (points of all curves,)."""

    x: Floats
    low: Floats
    middle: Floats
    high: Floats
    starts: NDArray[np.int64]
    """Index of the first point of each curve, then the total number of points, shape (curves + 1,)."""

    def __len__(self) -> int:
        return len(self.starts) - 1


def spread_buckets(extent: Extent) -> Extent:
    """Return an extent with one value per x; the values of buckets appear twice, at the start and at the end."""
    x, low, middle, high = extent
    if len(x) == len(middle):
        return extent
    if low is middle is high:
        middle = np.repeat(middle, 2)
        return x, middle, middle, middle
    return x, np.repeat(low, 2), np.repeat(middle, 2), np.repeat(high, 2)


def pack_curves(curves: Sequence[Extent]) -> PackedCurves:
    """Concatenate curves; infinities become NaN (gaps)."""
    curves = list(map(spread_buckets, curves))
    starts = np.cumsum([0, *(len(x) for x, _, _, _ in curves)])
    if not curves:
        nothing = np.empty(0)
        return PackedCurves(nothing, nothing, nothing, nothing, starts)
    x, low, middle, high = (np.concatenate(parts) for parts in zip(*curves, strict=True))
    plain = all(low is middle is high for _, low, middle, high in curves)
    middle = _gaps_as_nan(middle)
    return PackedCurves(
        x, middle if plain else _gaps_as_nan(low), middle, middle if plain else _gaps_as_nan(high), starts
    )


def _gaps_as_nan(values: Floats) -> Floats:
    return np.where(np.isinf(values), np.nan, values)


@dataclass(frozen=True, slots=True)
class ColumnSpans:
    """Vertical extent of each curve in each column; NaN where the curve is absent."""

    low: Floats
    """Lowest values, shape (curves, columns)."""
    high: Floats
    """Highest values, shape (curves, columns)."""
    edges: Floats
    """Values at the column edges, shape (curves, columns + 1)."""


def measure_all_spans(curves: Sequence[Extent], left: float, right: float, columns: int) -> ColumnSpans:
    """Measure all curves in batches, which fit into the CPU cache and avoid a copy of all points."""
    parts = [
        measure_spans(pack_curves(curves[start : start + _CURVES_PER_BATCH]), left, right, columns)
        for start in range(0, max(1, len(curves)), _CURVES_PER_BATCH)
    ]
    if len(parts) == 1:
        return parts[0]
    low, high, edges = (
        np.concatenate(parts_of_array)
        for parts_of_array in zip(*((part.low, part.high, part.edges) for part in parts), strict=True)
    )
    return ColumnSpans(low, high, edges)


def measure_spans(curves: PackedCurves, left: float, right: float, columns: int) -> ColumnSpans:
    """Return the extent of every curve in `columns` equal columns of [left, right].

    The extent is exact for the line through the points: its interpolated values at column edges count too.
    """
    counts, first = _count_points(curves, left, right, columns)
    edges = _values_at_edges(curves, np.linspace(left, right, columns + 1), first)
    low, high = np.fmin(edges[:, :-1], edges[:, 1:]), np.fmax(edges[:, :-1], edges[:, 1:])
    occupied = np.nonzero(counts)
    if len(occupied[0]):
        # reduce from the first point of a column to the first point after it; [::2] drops the parts in between
        parts = np.stack([first[:, :-1][occupied], first[:, 1:][occupied]], axis=1).ravel()
        lowest = np.fmin.reduceat(np.append(curves.low, np.nan), parts)[::2]
        highest = np.fmax.reduceat(np.append(curves.high, np.nan), parts)[::2]
        low[occupied], high[occupied] = np.fmin(low[occupied], lowest), np.fmax(high[occupied], highest)
    return ColumnSpans(low, high, edges)


def _count_points(
    curves: PackedCurves, left: float, right: float, columns: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return points per column, (curves, columns), and the first point at or after each edge, (curves, columns + 1)."""
    width = columns + 2  # one more on either side, for points outside
    with np.errstate(over="ignore"):  # an overflow to infinity counts as outside
        column = (curves.x - left) * (columns / (right - left)) + 1
    np.clip(column, 0, columns + 1, out=column)
    column[curves.x == right] = columns  # a point on the right edge belongs to the last column
    column = column.astype(np.int64)
    column += np.repeat(np.arange(len(curves)) * width, np.diff(curves.starts))
    counts = np.bincount(column, minlength=len(curves) * width).reshape(len(curves), width)
    first = curves.starts[:-1, None] + np.cumsum(counts[:, :-1], axis=1)
    return counts[:, 1:-1], first


def _values_at_edges(curves: PackedCurves, edges: Floats, first: NDArray[np.int64]) -> Floats:
    """Return each curve's value at each edge, (curves, columns + 1); NaN outside its points and in gaps."""
    values = np.full(first.shape, np.nan)
    inside = np.nonzero((first > curves.starts[:-1, None]) & (first < curves.starts[1:, None]))
    after = first[inside]
    before = after - 1
    x, y = curves.x, curves.middle
    fraction = (edges[inside[1]] - x[before]) / (x[after] - x[before])
    values[inside] = y[before] + (y[after] - y[before]) * fraction
    return values
