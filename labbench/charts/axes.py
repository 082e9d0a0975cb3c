"""Axes of a chart: the mapping from values to the plot's cells, and the drawing of axes with their ticks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from labbench.charts.palette import AXIS, LABEL
from labbench.charts.plot.braille import Canvas
from labbench.charts.series import Floats
from labbench.charts.ticks import (
    MAX_AXIS_VALUE,
    MIN_AXIS_EXTENT,
    Ticks,
    clamp,
    clock_ticks,
    linear_ticks,
    log_ticks,
    minor_log_ticks,
    time_ticks,
)
from labbench.charts.view import ChartView

MIN_WIDTH, MIN_HEIGHT = 12, 5
"""Size of the smallest chart, in cells."""
_MIN_EXPONENT, _MAX_EXPONENT = math.log10(MIN_AXIS_EXTENT), math.log10(MAX_AXIS_VALUE)
_MIN_RELATIVE_EXTENT = 1e-13
"""Smallest extent of an axis relative to its largest absolute value; near the limit of float64 precision."""

_ROUNDING_NOISE = 1e-6
"""Offset in dot rows, so that values halfway between two rows stay in one row despite rounding errors."""
_MIN_Y_TICKS = 3
_MINOR_Y_TICK, _MINOR_X_TICK = "┝", "┯"


@dataclass(frozen=True, slots=True)
class Frame:
    """Cells of the plot and the scaled values at its borders (logarithms to base 10 on a logarithmic axis)."""

    column: int
    """Column of the plot's leftmost cells."""
    width: int
    """Width of the plot in cells."""
    height: int
    """Height of the plot in cells."""
    left: float
    """Scaled x at the left border."""
    right: float
    """Scaled x at the right border."""
    low: float
    """Scaled y at the bottom."""
    high: float
    """Scaled y at the top."""
    log_x: bool = False
    log_y: bool = False

    def dot_rows(self, scaled: Floats, per_cell: int = 4) -> Floats:
        """Return the dot rows of scaled values, counted from the top, shape (N,); infinite on float overflow."""
        with np.errstate(over="ignore"):
            return (self.high - scaled) / (self.high - self.low) * (per_cell * self.height - 1) - _ROUNDING_NOISE

    def cell(self, x: float, scaled: float) -> tuple[int, int]:
        """Return the cell (column, row) of a point given in scaled values, clamped to the plot."""
        across = clamp((x - self.left) / (self.right - self.left), 0.0, 1.0)
        down = clamp((self.high - scaled) / (self.high - self.low), 0.0, 1.0)
        column = min(int(across * self.width), self.width - 1)
        return self.column + column, round(down * (4 * self.height - 1) - _ROUNDING_NOISE) // 4

    def contains_x(self, x: float) -> bool:
        """Return True if a scaled x is between the borders."""
        return self.left <= x <= self.right

    def column_of(self, x: float) -> int | None:
        """Return the cell column of an x value, or None outside the plot."""
        scaled = scale_value(x, self.log_x)
        return self.cell(scaled, self.low)[0] if scaled is not None and self.contains_x(scaled) else None

    def x_at(self, fraction: float) -> float:
        """Return the x value at a fraction of the plot's width, 0 to 1."""
        return self.unscale_x(self.left + fraction * (self.right - self.left))

    def y_at(self, fraction: float) -> float:
        """Return the y value at a fraction of the plot's height, 0 (bottom) to 1."""
        return _unscale(self.low + fraction * (self.high - self.low), self.log_y)

    def unscale_all(self, scaled: Floats) -> Floats:
        """Convert scaled y values to y values, shape (N,)."""
        return 10.0 ** np.minimum(scaled, _MAX_EXPONENT) if self.log_y else scaled

    def unscale_x(self, scaled: float) -> float:
        """Convert a scaled x to its x value."""
        return _unscale(scaled, self.log_x)


def _unscale(scaled: float, log: bool) -> float:
    """Undo the scaling of a value; the result is clamped to the range an axis can show."""
    return (
        10.0 ** clamp(scaled, _MIN_EXPONENT, _MAX_EXPONENT) if log else clamp(scaled, -MAX_AXIS_VALUE, MAX_AXIS_VALUE)
    )


def scale_values(values: Floats, log: bool) -> Floats:
    """Return values scaled for an axis, shape (N,), clamped to the range an axis can show.

    A logarithmic axis takes logarithms to base 10; values that are not positive become NaN (a gap).
    """
    if log:
        return np.log10(values, out=np.full(len(values), np.nan), where=values > 0)
    if not (np.abs(values) > MAX_AXIS_VALUE).any():
        return values
    return np.where(np.isfinite(values), np.clip(values, -MAX_AXIS_VALUE, MAX_AXIS_VALUE), values)


def scale_value(value: float, log: bool) -> float | None:
    """Return one value scaled for an axis; None if a logarithmic axis cannot show it (a gap)."""
    return value if not log else math.log10(value) if value > 0 else None


def make_frame(
    width: int, height: int, x_range: tuple[float, float], y_range: tuple[float, float], view: ChartView
) -> tuple[Frame, Ticks]:
    """Return the frame for scaled ranges and the ticks of its y axis, whose labels determine the plot's width."""
    low, high = axis_range(*y_range, view.log, padding=0.0 if view.height is not None else 0.03)
    rows = height - 2
    max_ticks = max(_MIN_Y_TICKS, rows // 4)
    if view.log:
        ticks = log_ticks(10**low, 10**high, max_ticks, min_ticks=_MIN_Y_TICKS)
        ticks = Ticks(tuple(math.log10(value) for value in ticks.values), ticks.labels)
    else:
        ticks = linear_ticks(low, high, max_ticks, min_ticks=_MIN_Y_TICKS)
    column = min(width // 2, max([4, *(len(label) for label in ticks.labels)]) + 2)
    left, right = axis_range(*x_range, view.log_x, padding=0.0)
    return Frame(column, width - column, rows, left, right, low, high, view.log_x, view.log), ticks


def axis_range(low: float, high: float, log: bool, *, padding: float) -> tuple[float, float]:
    """Return the scaled range an axis shows: clamped, padded, and never empty.

    `padding` is the margin on either side, as a fraction of the extent. A range of one value is widened.
    """
    nearest, farthest = (_MIN_EXPONENT, _MAX_EXPONENT) if log else (-MAX_AXIS_VALUE, MAX_AXIS_VALUE)
    low, high = clamp(low, nearest, farthest), clamp(high, nearest, farthest)
    size = max(abs(low), abs(high))
    extent = high - low
    margin = padding * extent
    if extent <= max(_MIN_RELATIVE_EXTENT * size, MIN_AXIS_EXTENT):
        margin = 0.05 * size if padding and size > MIN_AXIS_EXTENT else max(1.0, 2 * _MIN_RELATIVE_EXTENT * size)
    return clamp(low - margin, nearest, farthest), clamp(high + margin, nearest, farthest)


def draw_axes(canvas: Canvas, frame: Frame, y_ticks: Ticks, view: ChartView) -> None:
    """Draw both axes with their ticks."""
    line = frame.column - 1
    for row in range(frame.height):
        canvas.put(line, row, "│", AXIS)
    for value in _minor_ticks(frame.low, frame.high, frame.height) if frame.log_y else ():
        canvas.put(line, frame.cell(frame.left, value)[1], _MINOR_Y_TICK, AXIS)
    for value, label in zip(y_ticks.values, y_ticks.labels, strict=True):
        row = frame.cell(frame.left, value)[1]
        canvas.put(line, row, "┤", AXIS)
        canvas.put(line - 1 - len(label), row, label, LABEL)
    canvas.put(line, frame.height, "└" + "─" * frame.width, AXIS)
    for value in _minor_ticks(frame.left, frame.right, frame.width // 2) if frame.log_x else ():
        canvas.put(frame.cell(value, frame.low)[0], frame.height, _MINOR_X_TICK, AXIS)
    ticks = _x_ticks(frame, view)
    end = 0
    for value, label in zip(ticks.values, ticks.labels, strict=True):
        column = frame.cell(value, frame.low)[0]
        canvas.put(column, frame.height, "┬", AXIS)
        start = min(column - (len(label) - 1) // 2, frame.column + frame.width - len(label))
        if start >= end:
            canvas.put(start, frame.height + 1, label, LABEL)
            end = start + len(label) + 1


def _minor_ticks(low: float, high: float, max_ticks: int) -> list[float]:
    """Return the logarithms of the minor ticks between two logarithms."""
    return [math.log10(value) for value in minor_log_ticks(10**low, 10**high, max_ticks)]


def _x_ticks(frame: Frame, view: ChartView) -> Ticks:
    max_ticks = max(2, frame.width // 10)
    if frame.log_x:
        ticks = log_ticks(10**frame.left, 10**frame.right, max_ticks)
        return Ticks(tuple(math.log10(value) for value in ticks.values), ticks.labels)
    if view.x_axis == "time":
        return time_ticks(frame.left, frame.right, max_ticks)
    if view.x_axis == "clock":
        return clock_ticks(frame.left, frame.right, max_ticks)
    return linear_ticks(frame.left, frame.right, max_ticks, whole=frame.right - frame.left >= 2)
