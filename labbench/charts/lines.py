"""The lines of a chart as one view needs them: smoothed, scaled, measured per dot column, and gathered into groups.

What stays the same between two drawings is kept: moving the highlight or the crosshair measures nothing again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labbench.charts.axes import scale_values
from labbench.charts.glyphs import SERIES_GLYPHS, SLOT_COUNT
from labbench.charts.rasterize import ColumnSpans, Extent, measure_all_spans
from labbench.charts.series import Curve, Floats, Series, envelope, smooth_series, value_range
from labbench.charts.smoothing_spec import Smoothing, parse_smoothing
from labbench.charts.ticks import MAX_AXIS_VALUE
from labbench.charts.view import ChartView, Range, ResolvedDisplay, resolve_display
from labbench.records import Status

_MIN_LINES_FOR_OUTLIERS = 5
"""Fewer lines than this are all seen whole, however far they reach."""
_OUTLIER_RATIO = 20.0
"""Times the height of the middle one."""


@dataclass(frozen=True, slots=True)
class Line:
    """A series with its looks."""

    key: str
    label: str
    series: Series
    slot: int
    """Which of the theme's series colours."""
    glyph: str
    """Tells the line apart without its colour: at its end, in the legend, in the table."""
    status: Status = "finished"
    group: str = ""
    """What it has in common with the other runs of its group, those that differ by their seed."""

    @property
    def has_diverged(self) -> bool:
        """It ended with a non-finite value."""
        return self.status == "diverged"


@dataclass(frozen=True, slots=True, eq=False)
class PreparedLine:
    """A line as it is drawn."""

    curve: Curve
    """Smoothed, not scaled: what is read off."""
    line: Extent
    """Scaled."""
    band: Extent | None
    """The raw values around a smoothed line, scaled."""
    x_range: Range | None
    """Scaled, as the next; None where nothing can be drawn."""
    y_range: Range | None


def _prepare_line(series: Series, smoothing: Smoothing, log: bool, log_x: bool) -> PreparedLine:
    curve = smooth_series(series, smoothing)
    raw = envelope(series)
    line = _scale_extent((curve[0], curve[1], curve[1], curve[1]) if smoothing else raw, log, log_x)
    band = _scale_extent(raw, log, log_x) if smoothing else None
    x_range = (float(line[0][0]), float(line[0][-1])) if len(line[0]) else None
    extremes = [line[1]] if line[1] is line[3] else [line[1], line[3]]
    return PreparedLine(curve, line, band, x_range, value_range(extremes))


def _scale_extent(extent: Extent, log: bool, log_x: bool) -> Extent:
    x, low, middle, high = extent
    if log_x:
        kept = x > 0
        x, low, middle, high = np.log10(x[kept]), low[kept], middle[kept], high[kept]
    elif len(x) and max(-x[0], x[-1]) > MAX_AXIS_VALUE:
        x = np.clip(x, -MAX_AXIS_VALUE, MAX_AXIS_VALUE)
    if low is high:
        middle = scale_values(middle, log)
        return x, middle, middle, middle
    return x, scale_values(low, log), scale_values(middle, log), scale_values(high, log)


@dataclass(frozen=True, slots=True, eq=False)
class LineGroup:
    """Runs that differ by their seed alone."""

    label: str
    slot: int
    glyph: str
    rows: NDArray[np.int64]
    """Which of the lines belong to it."""


class PreparedLines:
    """All lines of a chart under one way of smoothing and scaling."""

    def __init__(self, lines: Sequence[Line], drawn: Sequence[PreparedLine]) -> None:
        self.lines, self.drawn = lines, drawn
        self._inlier_rows: list[int] | None = None
        self._measured: dict[tuple[bool, float, float, int], ColumnSpans] = {}

    def x_range(self) -> Range | None:
        """Of all lines, scaled."""
        return _union([drawn.x_range for drawn in self.drawn])

    def y_range(self) -> Range | None:
        """Of all lines, scaled, leaving out those that blew up: they would flatten the others."""
        return _union([self.drawn[row].y_range for row in self.inlier_rows()])

    def inlier_rows(self) -> list[int]:
        """The lines that did not blow up; all, where all did."""
        if self._inlier_rows is None:
            rows = [row for row, line in enumerate(self.lines) if not line.has_diverged and self.drawn[row].y_range]
            self._inlier_rows = self._without_outliers(rows) or list(range(len(self.lines)))
        return self._inlier_rows

    def _without_outliers(self, rows: list[int]) -> list[int]:
        """Those that do not reach many times as far as half of them: a few such would flatten the others."""
        ranges = (self.drawn[row].y_range or (0.0, 0.0) for row in rows)
        quarters = np.array([(high - low) / 4 for low, high in ranges])  # a median adds two: their sum is finite
        if len(rows) < _MIN_LINES_FOR_OUTLIERS:
            return rows
        median = np.median(quarters)
        far = quarters / _OUTLIER_RATIO > median
        return [row for row, is_far in zip(rows, far, strict=True) if not is_far] if median > 0 else rows

    def count_outliers(self) -> int:
        """How many lines reach beyond what the y axis shows by itself, though they did not end so."""
        steady = set(self.inlier_rows())
        return sum(row not in steady and not line.has_diverged for row, line in enumerate(self.lines))

    def spans(self, left: float, right: float, columns: int, *, bands: bool = False) -> ColumnSpans:
        """How far the lines, or the raw bands around them, reach in each dot column."""
        key = (bands, left, right, columns)
        if key not in self._measured:
            for stale in [kept for kept in self._measured if kept[0] == bands]:  # megabytes where there are many lines
                del self._measured[stale]
            extents = [(drawn.band or drawn.line) if bands else drawn.line for drawn in self.drawn]
            self._measured[key] = measure_all_spans(extents, left, right, columns)
        return self._measured[key]

    def groups(self) -> list[LineGroup]:
        """The groups of the lines, in the order of their first ones."""
        rows: dict[str, list[int]] = {}
        for row, line in enumerate(self.lines):
            rows.setdefault(line.group or line.label, []).append(row)
        slots = [1 + index % SLOT_COUNT for index in range(len(rows))]
        return [
            LineGroup(label, slot, SERIES_GLYPHS[slot], np.array(members))
            for slot, (label, members) in zip(slots, rows.items(), strict=True)
        ]

    def display(self, view: ChartView) -> ResolvedDisplay:
        """What is drawn of so many lines."""
        return resolve_display(view.display, len(self.lines), len({line.group or line.label for line in self.lines}))


def _union(ranges: Sequence[Range | None]) -> Range | None:
    known = [found for found in ranges if found is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


class LineCache:
    """Makes `PreparedLines`, and keeps what the next ones can use again."""

    def __init__(self) -> None:
        self._drawn: dict[tuple[Series, str, bool, bool], PreparedLine] = {}
        self._last: tuple[tuple[object, ...], PreparedLines] | None = None

    def prepare(self, lines: Sequence[Line], view: ChartView) -> PreparedLines:
        """The lines as this view needs them."""
        scaling = (view.smoothing, view.log, view.log_x)
        key = (tuple(lines), scaling)
        if self._last is None or self._last[0] != key:
            smoothing = parse_smoothing(view.smoothing)
            keys = [(line.series, *scaling) for line in lines]
            drawn = [self._drawn.get(key) or _prepare_line(key[0], smoothing, view.log, view.log_x) for key in keys]
            self._drawn = dict(zip(keys, drawn, strict=True))
            self._last = (key, PreparedLines(lines, drawn))
        return self._last[1]


def nearest_index(curve: Curve, x: float) -> int | None:
    """The point of a curve that is nearest to x and has a value; None outside the curve."""
    xs, ys = curve
    if not len(xs) or not xs[0] <= x <= xs[-1]:
        return None
    behind = int(np.searchsorted(xs, x))
    around = [index for index in range(max(0, behind - 1), min(len(xs), behind + 2)) if np.isfinite(ys[index])]
    return min(around, key=lambda index: abs(float(xs[index]) - x), default=None)


def last_finite_index(values: Floats) -> int | None:
    """Where the last finite value is."""
    if len(values) and math.isfinite(values[-1]):
        return len(values) - 1
    for end in range(len(values), 0, -64):  # nearly always in the first look
        found = np.flatnonzero(np.isfinite(values[max(0, end - 64) : end]))
        if len(found):
            return max(0, end - 64) + int(found[-1])
    return None


def best_point(series: Series, goal: str) -> tuple[float, float] | None:
    """(x, y) of the best finite value."""
    values = series.y if series.buckets is None else series.buckets.low if goal == "min" else series.buckets.high
    finite = np.flatnonzero(np.isfinite(values))
    if not len(finite):
        return None
    best = finite[(np.argmin if goal == "min" else np.argmax)(values[finite])]
    return float(series.x[best]), float(values[best])
