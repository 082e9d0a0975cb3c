"""Many curves measured at once against the dot columns of a chart: the cost is one pass over all points.

Curves are laid end to end. Each point falls into a column of its curve; an exact vertical extent per column is the
reduction of its points, and of the line's value at the column's borders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Extent: TypeAlias = tuple[Floats, Floats, Floats, Floats]
"""(x, low, middle, high), one length, x non-decreasing: a line through `middle` that reaches from `low` to `high`."""


_CURVES_PER_BATCH = 32
"""Curves measured at once."""


@dataclass(frozen=True, slots=True)
class PackedCurves:
    """Curves laid end to end: (points,) each, and where each curve starts, the end of the last one behind."""

    x: Floats
    low: Floats
    middle: Floats
    high: Floats
    starts: NDArray[np.int64]
    """(curves + 1,)."""

    def __len__(self) -> int:
        return len(self.starts) - 1


def pack_curves(curves: Sequence[Extent]) -> PackedCurves:
    """Lay curves end to end; what is not finite becomes a gap."""
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
    """How far each curve reaches in each of the columns, NaN where it is not."""

    low: Floats
    """(curves, columns), as `high`."""
    high: Floats
    edges: Floats
    """(curves, columns + 1): the curves' values at the columns' borders."""


def measure_all_spans(curves: Sequence[Extent], left: float, right: float, columns: int) -> ColumnSpans:
    """The extents of all curves, some at a time: these fit into the CPU's cache, and no copy of all is made."""
    parts = [
        measure_spans(pack_curves(curves[start : start + _CURVES_PER_BATCH]), left, right, columns)
        for start in range(0, max(1, len(curves)), _CURVES_PER_BATCH)
    ]
    if len(parts) == 1:
        return parts[0]
    low, high, edges = (
        np.concatenate(some) for some in zip(*((part.low, part.high, part.edges) for part in parts), strict=True)
    )
    return ColumnSpans(low, high, edges)


def measure_spans(curves: PackedCurves, left: float, right: float, columns: int) -> ColumnSpans:
    """The extent of every curve in equal columns of [left, right].

    Exact for the line through the points: between two points, its value at the columns' borders counts too.
    """
    counts, first = _count_points(curves, left, right, columns)
    edges = _values_at_edges(curves, np.linspace(left, right, columns + 1), first)
    low, high = np.fmin(edges[:, :-1], edges[:, 1:]), np.fmax(edges[:, :-1], edges[:, 1:])
    held = np.nonzero(counts)
    if len(held[0]):
        # from the first point of each column to the first behind it; what lies between two columns is dropped
        parts = np.stack([first[:, :-1][held], first[:, 1:][held]], axis=1).ravel()
        lowest = np.fmin.reduceat(np.append(curves.low, np.nan), parts)[::2]
        highest = np.fmax.reduceat(np.append(curves.high, np.nan), parts)[::2]
        low[held], high[held] = np.fmin(low[held], lowest), np.fmax(high[held], highest)
    return ColumnSpans(low, high, edges)


def _count_points(
    curves: PackedCurves, left: float, right: float, columns: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(curves, columns) points in each column, (curves, columns + 1) the first point at or behind each border."""
    width = columns + 2  # one more on either side, for what is outside
    with np.errstate(over="ignore"):  # infinitely far outside is outside
        place = (curves.x - left) * (columns / (right - left)) + 1
    np.clip(place, 0, columns + 1, out=place)
    place[curves.x == right] = columns  # a point on the right border belongs to the last column
    place = place.astype(np.int64)
    place += np.repeat(np.arange(len(curves)) * width, np.diff(curves.starts))
    counts = np.bincount(place, minlength=len(curves) * width).reshape(len(curves), width)
    first = curves.starts[:-1, None] + np.cumsum(counts[:, :-1], axis=1)
    return counts[:, 1:-1], first


def _values_at_edges(curves: PackedCurves, edges: Floats, first: NDArray[np.int64]) -> Floats:
    """The curves' values at each border, NaN before the first point, behind the last, and in gaps."""
    found = np.full(first.shape, np.nan)
    inside = np.nonzero((first > curves.starts[:-1, None]) & (first < curves.starts[1:, None]))
    behind = first[inside]
    before = behind - 1
    x, y = curves.x, curves.middle
    share = (edges[inside[1]] - x[before]) / (x[behind] - x[before])
    found[inside] = y[before] + (y[behind] - y[before]) * share
    return found
