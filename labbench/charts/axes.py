"""Where values are on a chart: the plot's cells, the axes and their ticks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from labbench.charts.braille import Canvas
from labbench.charts.palette import AXIS, LABEL
from labbench.charts.series import Floats
from labbench.charts.ticks import (
    MAX_AXIS_VALUE,
    MIN_AXIS_EXTENT,
    Ticks,
    clamp,
    clock_ticks,
    linear_ticks,
    log_ticks,
    time_ticks,
)
from labbench.charts.view import ChartView

MIN_WIDTH, MIN_HEIGHT = 12, 5
"""Cells of the smallest chart."""
_MIN_EXPONENT, _MAX_EXPONENT = math.log10(MIN_AXIS_EXTENT), math.log10(MAX_AXIS_VALUE)
_MIN_RELATIVE_EXTENT = 1e-13
"""The least extent of a range, as a share of what is in it: floats end soon behind."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The plot's cells, and the scaled values that its borders stand for (logarithms on a logarithmic axis)."""

    column: int
    width: int
    height: int
    left: float
    right: float
    low: float
    high: float
    log_x: bool = False
    log_y: bool = False

    def dot_rows(self, scaled: Floats) -> Floats:
        """Dot rows of scaled values, from the top; infinite for what is too far away for a number."""
        with np.errstate(over="ignore"):
            return (self.high - scaled) / (self.high - self.low) * (4 * self.height - 1)

    def cell(self, x: float, scaled: float) -> tuple[int, int]:
        """(column, row) of a point in scaled values, clipped to the plot."""
        across = clamp((x - self.left) / (self.right - self.left), 0.0, 1.0)
        down = clamp((self.high - scaled) / (self.high - self.low), 0.0, 1.0)
        column = min(int(across * self.width), self.width - 1)
        return self.column + column, round(down * (4 * self.height - 1)) // 4

    def contains_x(self, x: float) -> bool:
        """A scaled x is between the borders."""
        return self.left <= x <= self.right

    def column_of(self, x: float) -> int | None:
        """The cell column of an x value, None outside the plot."""
        scaled = scale_value(x, self.log_x)
        return self.cell(scaled, self.low)[0] if scaled is not None and self.contains_x(scaled) else None

    def x_at(self, share: float) -> float:
        """The x value at a share of the width."""
        return self.unscale_x(self.left + share * (self.right - self.left))

    def y_at(self, share: float) -> float:
        """The y value at a share of the height, from the bottom."""
        return _unscale(self.low + share * (self.high - self.low), self.log_y)

    def unscale_all(self, scaled: Floats) -> Floats:
        """The y values of scaled ones."""
        return 10.0 ** np.minimum(scaled, _MAX_EXPONENT) if self.log_y else scaled

    def unscale_x(self, scaled: float) -> float:
        """The x value at a place on the axis."""
        return _unscale(scaled, self.log_x)


def _unscale(scaled: float, log: bool) -> float:
    """The value at a place on an axis, or the nearest that an axis can show."""
    return (
        10.0 ** clamp(scaled, _MIN_EXPONENT, _MAX_EXPONENT) if log else clamp(scaled, -MAX_AXIS_VALUE, MAX_AXIS_VALUE)
    )


def scale_values(values: Floats, log: bool) -> Floats:
    """Values as an axis places them, at its end if they are beyond; on a logarithmic one, not positive is a gap."""
    if log:
        return np.log10(values, out=np.full(len(values), np.nan), where=values > 0)
    if not (np.abs(values) > MAX_AXIS_VALUE).any():
        return values
    return np.where(np.isfinite(values), np.clip(values, -MAX_AXIS_VALUE, MAX_AXIS_VALUE), values)


def scale_value(value: float, log: bool) -> float | None:
    """The same for one value, None for a gap."""
    return value if not log else math.log10(value) if value > 0 else None


def make_frame(
    width: int, height: int, x_range: tuple[float, float], y_range: tuple[float, float], view: ChartView
) -> tuple[Frame, Ticks]:
    """The frame for scaled ranges, and the ticks of its y axis, whose labels decide how much room is left."""
    low, high = axis_range(*y_range, view.log, air=0.0 if view.height is not None else 0.03)
    rows = height - 2
    most = max(2, rows // 4)
    if view.log:
        ticks = log_ticks(10**low, 10**high, most)
        ticks = Ticks(tuple(math.log10(value) for value in ticks.values), ticks.labels)
    else:
        ticks = linear_ticks(low, high, most)
    column = min(width // 2, max([4, *(len(label) for label in ticks.labels)]) + 2)
    left, right = axis_range(*x_range, view.log_x, air=0.0)
    return Frame(column, width - column, rows, left, right, low, high, view.log_x, view.log), ticks


def axis_range(low: float, high: float, log: bool, *, air: float) -> tuple[float, float]:
    """What an axis can show of a scaled range, with a share of air, and with an extent even where all is equal."""
    nearest, farthest = (_MIN_EXPONENT, _MAX_EXPONENT) if log else (-MAX_AXIS_VALUE, MAX_AXIS_VALUE)
    low, high = clamp(low, nearest, farthest), clamp(high, nearest, farthest)
    size = max(abs(low), abs(high))
    extent = high - low
    around = air * extent
    if extent <= max(_MIN_RELATIVE_EXTENT * size, MIN_AXIS_EXTENT):
        around = 0.05 * size if air and size > MIN_AXIS_EXTENT else max(1.0, 2 * _MIN_RELATIVE_EXTENT * size)
    return clamp(low - around, nearest, farthest), clamp(high + around, nearest, farthest)


def draw_axes(canvas: Canvas, frame: Frame, y_ticks: Ticks, view: ChartView) -> None:
    """Both axes with their ticks."""
    line = frame.column - 1
    for row in range(frame.height):
        canvas.put(line, row, "│", AXIS)
    for value, label in zip(y_ticks.values, y_ticks.labels, strict=True):
        row = frame.cell(frame.left, value)[1]
        canvas.put(line, row, "┤", AXIS)
        canvas.put(line - 1 - len(label), row, label, LABEL)
    canvas.put(line, frame.height, "└" + "─" * frame.width, AXIS)
    ticks = _x_ticks(frame, view)
    end = 0
    for value, label in zip(ticks.values, ticks.labels, strict=True):
        column = frame.cell(value, frame.low)[0]
        canvas.put(column, frame.height, "┬", AXIS)
        start = min(column - (len(label) - 1) // 2, frame.column + frame.width - len(label))
        if start >= end:
            canvas.put(start, frame.height + 1, label, LABEL)
            end = start + len(label) + 1


def _x_ticks(frame: Frame, view: ChartView) -> Ticks:
    most = max(2, frame.width // 10)
    if frame.log_x:
        ticks = log_ticks(10**frame.left, 10**frame.right, most)
        return Ticks(tuple(math.log10(value) for value in ticks.values), ticks.labels)
    if view.x_axis == "time":
        return time_ticks(frame.left, frame.right, most)
    if view.x_axis == "clock":
        return clock_ticks(frame.left, frame.right, most)
    return linear_ticks(frame.left, frame.right, most, whole=frame.right - frame.left >= 2)
