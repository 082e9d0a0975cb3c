"""Lines of a chart prepared for a view: smoothed, scaled, measured per dot column, and grouped.

Results are cached between drawings, so that moving the highlight or the crosshair does not measure the lines again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from labbench.charts.axes import Frame, scale_values
from labbench.charts.glyphs import OTHER_SLOT, SERIES_GLYPHS
from labbench.charts.rasterize import ColumnSpans, Extent, measure_all_spans, spread_buckets
from labbench.charts.series import Curve, Floats, Series, envelope, smooth_series, value_range
from labbench.charts.smoothing_spec import Smoothing, parse_smoothing
from labbench.charts.ticks import MAX_AXIS_VALUE
from labbench.charts.view import ChartView, Range, ResolvedDisplay, resolve_display
from labbench.records import Status

_MIN_LINES_FOR_OUTLIERS = 5
"""Minimum number of lines among which outliers are detected."""
_OUTLIER_RATIO = 20.0
"""A line is an outlier if it reaches further from the middle than this multiple of the median reach."""


_SpansKey: TypeAlias = tuple[bool, float, float, int]
"""Key of measured spans: True for raw bands, left and right end, number of dot columns."""


@dataclass(frozen=True, slots=True)
class Line:
    """A series with its label, colour slot and glyph."""

    key: str
    label: str
    series: Series
    slot: int
    """Index of the series colour in the theme."""
    glyph: str
    """Identifies the line without colour: at its end, in the legend and in the table."""
    status: Status = "finished"
    group: str = ""
    """Label of its group: the runs that differ only in their seed."""
    last: float | None = None
    """Last value as in the table, NaN included; None to take it from the series."""

    @property
    def last_value(self) -> float | None:
        """The last value of the metric, NaN included; None without points."""
        if self.last is not None:
            return self.last
        return float(self.series.y[-1]) if len(self.series) else None

    @property
    def has_diverged(self) -> bool:
        """True if the run diverged and the last value of this metric is not finite."""
        return self.status == "diverged" and not self._ends_finite

    @property
    def _ends_finite(self) -> bool:
        """False if the last value of this metric is not finite."""
        last = self.last_value
        return last is None or math.isfinite(last)

    def best_point(self, goal: str) -> tuple[float, float] | None:
        """Return the (x, y) of the best value; None without one, if the run diverged or the goal is `none`."""
        counts = self.status != "diverged" and self._ends_finite
        return best_point(self.series, goal) if counts else None


@dataclass(frozen=True, slots=True, eq=False)
class PreparedLine:
    """A line smoothed and scaled for drawing."""

    curve: Curve
    """Smoothed values, not scaled, for the legend and the crosshair."""
    line: Extent
    """Scaled values."""
    band: Extent | None
    """Scaled raw values around a smoothed line; None without smoothing."""
    x_range: Range | None
    """Scaled; None if nothing can be drawn."""
    y_range: Range | None
    """Scaled; None if nothing can be drawn."""

    def end(self) -> Range | None:
        """Return the scaled (x, y) of the last point that is drawn; None without one."""
        x, _, middle, _ = self.line
        last = last_finite_index(middle)
        return None if last is None else (float(x[(last + 1) * len(x) // len(middle) - 1]), float(middle[last]))


def _prepare_line(
    series: Series, smoothing: Smoothing, log: bool, log_x: bool, other: PreparedLine | None
) -> PreparedLine:
    """Return a line prepared for drawing; its x are arrays of the `other` line if they are equal, to save memory."""
    curve = smooth_series(series, smoothing)
    raw = envelope(series)
    if other is not None:
        curve = _share_x(curve[0], other.curve[0]), curve[1]
        raw = _share_x(raw[0], (other.band or other.line)[0]), *raw[1:]
    line = _scale_extent((curve[0], curve[1], curve[1], curve[1]) if smoothing else raw, log, log_x)
    band = _scale_extent(raw, log, log_x) if smoothing else None
    x_range = (float(line[0][0]), float(line[0][-1])) if len(line[0]) else None
    extremes = [line[1]] if line[1] is line[3] else [line[1], line[3]]
    return PreparedLine(curve, line, band, x_range, value_range(extremes))


def _share_x(x: Floats, other: Floats) -> Floats:
    return other if np.array_equal(x, other) else x


def _scale_extent(extent: Extent, log: bool, log_x: bool) -> Extent:
    x, low, middle, high = spread_buckets(extent) if log_x else extent
    if log_x:
        positive = x > 0
        x, low, middle, high = np.log10(x[positive]), low[positive], middle[positive], high[positive]
    elif len(x) and max(-x[0], x[-1]) > MAX_AXIS_VALUE:
        x = np.clip(x, -MAX_AXIS_VALUE, MAX_AXIS_VALUE)
    if low is high:
        middle = scale_values(middle, log)
        return x, middle, middle, middle
    return x, scale_values(low, log), scale_values(middle, log), scale_values(high, log)


@dataclass(frozen=True, slots=True, eq=False)
class LineGroup:
    """Runs that differ only in their seed."""

    label: str
    slot: int
    glyph: str
    rows: NDArray[np.int64]
    """Indices of its lines, shape (members,)."""


class PreparedLines:
    """All lines of a chart under one smoothing and scaling."""

    def __init__(
        self, lines: Sequence[Line], prepared: Sequence[PreparedLine], earlier: PreparedLines | None = None
    ) -> None:
        """Create from lines and their prepared counterparts; spans that `earlier` lines have are not measured again."""
        self.lines, self.prepared = lines, prepared
        self._inlier_rows: list[int] | None = None
        self._spans_by_key: dict[_SpansKey, ColumnSpans] = {}
        self._earlier_rows = {} if earlier is None else {id(line): row for row, line in enumerate(earlier.prepared)}
        self._earlier_spans = {} if earlier is None else earlier._spans_by_key

    def x_range(self) -> Range | None:
        """Return the scaled x range of all lines."""
        return _union([line.x_range for line in self.prepared])

    def y_range(self) -> Range | None:
        """Return the scaled y range without diverged runs and outliers, which would flatten the other lines."""
        return _union([self.prepared[row].y_range for row in self.inlier_rows()])

    def inlier_rows(self) -> list[int]:
        """Return the indices of the lines that neither diverged nor are outliers; all if no line is left."""
        if self._inlier_rows is None:
            rows = [row for row, line in enumerate(self.lines) if not line.has_diverged and self.prepared[row].y_range]
            self._inlier_rows = self._without_outliers(rows) or list(range(len(self.lines)))
        return self._inlier_rows

    def _without_outliers(self, rows: list[int]) -> list[int]:
        """Return the rows whose reach from the middle is at most `_OUTLIER_RATIO` times the median reach."""
        if len(rows) < _MIN_LINES_FOR_OUTLIERS:
            return rows
        # quarters, because differences and the median add two of them and the sums must be finite
        quarters = np.array([self.prepared[row].y_range or (0.0, 0.0) for row in rows]) / 4  # (rows, 2)
        middle = np.median(quarters)
        reach = np.maximum(quarters[:, 1] - middle, middle - quarters[:, 0])
        median = np.median(reach)
        is_far = reach / _OUTLIER_RATIO > median
        return [row for row, far in zip(rows, is_far, strict=True) if not far] if median > 0 else rows

    def count_off_scale(self, frame: Frame) -> tuple[int, int]:
        """Return the number of lines that leave the frame at its top and at its bottom, within its x range."""
        spans = self.spans(frame.left, frame.right, 2 * frame.width)
        with np.errstate(invalid="ignore"):
            return int((spans.high > frame.high).any(axis=1).sum()), int((spans.low < frame.low).any(axis=1).sum())

    def spans(self, left: float, right: float, columns: int, *, bands: bool = False) -> ColumnSpans:
        """Return the vertical extent of each line, or of its raw band, in each dot column."""
        key = (bands, left, right, columns)
        if key not in self._spans_by_key:
            for stale in [cached for cached in self._spans_by_key if cached[0] == bands]:  # each holds megabytes
                del self._spans_by_key[stale]
            self._spans_by_key[key] = self._measure(key, self._earlier_spans.pop(key, None))
        return self._spans_by_key[key]

    def _measure(self, key: _SpansKey, earlier: ColumnSpans | None) -> ColumnSpans:
        bands, left, right, columns = key
        extents = [(line.band or line.line) if bands else line.line for line in self.prepared]
        if earlier is None:
            return measure_all_spans(extents, left, right, columns)
        rows = np.array([self._earlier_rows.get(id(line), -1) for line in self.prepared])
        new = np.flatnonzero(rows < 0)
        spans = ColumnSpans(earlier.low[rows], earlier.high[rows], earlier.edges[rows])
        if len(new):
            measured = measure_all_spans([extents[row] for row in new], left, right, columns)
            spans.low[new], spans.high[new], spans.edges[new] = measured.low, measured.high, measured.edges
        return spans

    def groups(self) -> list[LineGroup]:
        """Return the groups of the lines with a colour, in the order of their first lines."""
        return [
            LineGroup(label, slot, SERIES_GLYPHS[slot], np.array(rows))
            for label, (slot, rows) in group_lines(self.lines).items()
            if slot != OTHER_SLOT
        ]

    def display(self, view: ChartView) -> ResolvedDisplay:
        """Return the display of the view, with `auto` resolved to runs or groups."""
        return resolve_display(view.display, len(self.lines))


def group_lines(lines: Sequence[Line]) -> dict[str, tuple[int, list[int]]]:
    """Return the slot and the indices of the lines of each group, by its label, in the order of the first lines.

    A group has the slot of its lines; the highlighted line may have one of its own.
    """
    rows_of_group: dict[str, list[int]] = {}
    for row, line in enumerate(lines):
        rows_of_group.setdefault(line.group or line.label, []).append(row)
    return {label: (max(lines[row].slot for row in rows), rows) for label, rows in rows_of_group.items()}


def _union(ranges: Sequence[Range | None]) -> Range | None:
    present = [extent for extent in ranges if extent is not None]
    return (min(low for low, _ in present), max(high for _, high in present)) if present else None


class LineCache:
    """Cache of prepared lines, by series, smoothing and scaling."""

    def __init__(self) -> None:
        self._prepared_by_key: dict[tuple[Series, str, bool, bool], PreparedLine] = {}
        self._last: tuple[tuple[object, ...], PreparedLines] | None = None

    def prepare(self, lines: Sequence[Line], view: ChartView) -> PreparedLines:
        """Return the lines prepared for a view. Raises ValueError if its smoothing cannot be parsed."""
        scaling = (view.smoothing, view.log, view.log_x)
        key = (tuple(lines), scaling)
        if self._last is None or self._last[0] != key:
            smoothing = parse_smoothing(view.smoothing)
            keys = [(line.series, *scaling) for line in lines]
            prepared: list[PreparedLine] = []
            for line_key in keys:
                known, other = self._prepared_by_key.get(line_key), prepared[-1] if prepared else None
                prepared.append(known or _prepare_line(line_key[0], smoothing, view.log, view.log_x, other))
            self._prepared_by_key = dict(zip(keys, prepared, strict=True))
            self._last = (key, PreparedLines(lines, prepared, self._last[1] if self._last else None))
        return self._last[1]


def nearest_index(curve: Curve, x: float) -> int | None:
    """Return the index of the finite point nearest to x; None outside the curve. Curve arrays have shape (N,)."""
    xs, ys = curve
    if not len(xs) or not xs[0] <= x <= xs[-1]:
        return None
    after = int(np.searchsorted(xs, x))
    around = [index for index in range(max(0, after - 1), min(len(xs), after + 2)) if np.isfinite(ys[index])]
    return min(around, key=lambda index: abs(float(xs[index]) - x), default=None)


def last_finite_index(values: Floats) -> int | None:
    """Return the index of the last finite value of an array of shape (N,), or None."""
    if len(values) and math.isfinite(values[-1]):
        return len(values) - 1
    for end in range(len(values), 0, -64):  # nearly always found in the first block
        finite = np.flatnonzero(np.isfinite(values[max(0, end - 64) : end]))
        if len(finite):
            return max(0, end - 64) + int(finite[-1])
    return None


def best_point(series: Series, goal: str) -> tuple[float, float] | None:
    """Return the (x, y) of the best finite value for the goal; None without a finite value or for the goal `none`."""
    if goal == "none":
        return None
    if series.exact is not None:
        return _best_of(series.exact.x, series.exact.y, goal)
    values = series.y if series.buckets is None else series.buckets.low if goal == "min" else series.buckets.high
    return _best_of(series.x, values, goal)


def _best_of(x: Floats, values: Floats, goal: str) -> tuple[float, float] | None:
    finite = np.flatnonzero(np.isfinite(values))
    if not len(finite):
        return None
    best = finite[(np.argmin if goal == "min" else np.argmax)(values[finite])]
    return float(x[best]), float(values[best])
