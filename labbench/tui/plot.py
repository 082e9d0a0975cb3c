"""A chart as rows of (text, ink): axes with round ticks, lines over their dim raw bands, end marks, a legend.

Numbers and numpy only; the `Chart` widget turns inks into the theme's colours. What stays the same between two drawings
(smoothed values, spans per column) is kept, so that moving the highlight costs the drawing of dots alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from labbench import curves, text
from labbench import ticks as ticks_of
from labbench.curves import Floats
from labbench.smoothing import ema
from labbench.ticks import Ticks
from labbench.records import Goal
from labbench.tui.canvas import Canvas, Run
from labbench.tui.inks import AXIS, BAND, BEST, BRIGHT, LABEL, LINE, TEXT, line_ink

XAxis: TypeAlias = Literal["step", "epoch", "time"]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """The values of one run: x non-decreasing; NaN in y are gaps. What has changed is a new `Series`."""

    x: Floats
    y: Floats


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
    broken: bool = False
    """It ended with a non-finite value."""


@dataclass(frozen=True, slots=True)
class View:
    """How to look at the lines."""

    x_axis: XAxis = "step"
    log: bool = False
    smoothing: float = 0.0
    """Weight of the exponential moving average; 0 for none."""
    highlighted: str | None = None
    goal: Goal = "min"


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where values are on the canvas: the plot's cells, and the x and (scaled) y that its borders stand for."""

    column: int
    width: int
    height: int
    left: float
    right: float
    low: float
    high: float

    def dot_rows(self, scaled: Floats) -> Floats:
        """Dot rows of scaled values, from the top."""
        return (self.high - scaled) / (self.high - self.low) * (4 * self.height - 1)

    def cell(self, x: float, scaled: float) -> tuple[int, int]:
        """(column, row) of a point, clipped to the plot."""
        column = int((x - self.left) / (self.right - self.left) * self.width)
        row = round((self.high - scaled) / (self.high - self.low) * (4 * self.height - 1)) // 4
        return self.column + min(max(column, 0), self.width - 1), min(max(row, 0), self.height - 1)


class _Prepared:
    """A line as one view needs it; its spans are kept for as long as they belong in the same place."""

    def __init__(self, series: Series, smoothing: float, log: bool) -> None:
        self.x = series.x
        self.values = _scaled(ema(series.y, smoothing) if smoothing else series.y, log)
        self.raw = _scaled(series.y, log) if smoothing else None
        self._place: tuple[float, float, int] | None = None
        self._spans: list[curves.Curve] = []

    def spans(self, frame: _Frame) -> list[curves.Curve]:
        """(low, high) per dot column, scaled: of the values, then, where these are smoothed, of the raw ones."""
        place = (frame.left, frame.right, 2 * frame.width)
        if self._place != place:
            drawn = [self.values] if self.raw is None else [self.values, self.raw]
            self._place, self._spans = place, [curves.spans(self.x, values, *place) for values in drawn]
        return self._spans


def _scaled(values: Floats, log: bool) -> Floats:
    """Values as the y axis places them: on a logarithmic one, what is not positive is a gap."""
    return np.log10(values, out=np.full(len(values), np.nan), where=values > 0) if log else values


class Plot:
    """Draws lines into rows of text, and remembers what the next drawing can use again."""

    def __init__(self) -> None:
        self._prepared: dict[tuple[Series, float, bool], _Prepared] = {}

    def draw(self, lines: Sequence[Line], view: View, width: int, height: int) -> list[list[Run]]:
        """The chart in `height` rows of `width` cells; lines are drawn in their order, the highlighted one last."""
        canvas = Canvas(width, height)
        lines = sorted(lines, key=lambda line: line.key == view.highlighted)
        prepared = self._prepare(lines, view)
        found = _fit(prepared, view, width, height)
        if isinstance(found, str):
            canvas.put(max(0, (width - len(found)) // 2), height // 2, found, LABEL)
            return canvas.lines()
        frame, y_ticks = found
        _draw_lines(canvas, frame, prepared, view)
        _draw_axes(canvas, frame, y_ticks, view)
        for line, values in prepared.items():
            _draw_marks(canvas, frame, line, values.values, view)
        _draw_legend(canvas, frame, lines, view)
        return canvas.lines()

    def _prepare(self, lines: Sequence[Line], view: View) -> dict[Line, _Prepared]:
        keys = {line: (line.series, view.smoothing, view.log) for line in lines}
        self._prepared = {key: self._prepared.get(key) or _Prepared(*key) for key in keys.values()}
        return {line: self._prepared[key] for line, key in keys.items()}


def _fit(prepared: dict[Line, _Prepared], view: View, width: int, height: int) -> tuple[_Frame, Ticks] | str:
    """Where to draw, and the y axis's ticks, whose labels decide how much room is left; or why nothing can be drawn."""
    if width < 12 or height < 5:
        return "too small"
    # a run that blew up would flatten the others: it leaves at the top
    steady = [values for line, values in prepared.items() if not line.broken] or list(prepared.values())
    y_range = curves.value_range(values.values for values in steady)
    x_range = curves.value_range(line.series.x for line in prepared)
    if y_range is None or x_range is None:
        any_values = view.log and curves.value_range(line.series.y for line in prepared)
        return "nothing is positive: press y for a linear axis" if any_values else "no values yet"
    low, high = _padded(*y_range)
    rows = height - 2
    most = max(2, rows // 4)
    if view.log:
        ticks = ticks_of.log_ticks(10**low, 10**high, most)
        ticks = Ticks(tuple(math.log10(value) for value in ticks.values), ticks.labels)
    else:
        ticks = ticks_of.linear_ticks(low, high, most)
    column = max([4, *(len(label) for label in ticks.labels)]) + 2
    left, right = x_range
    if left == right:
        left, right = left - 1, right + 1
    elif 0 < left <= 0.1 * right:
        left = 0.0
    return _Frame(column, width - column, rows, left, right, low, high), ticks


def _padded(low: float, high: float) -> tuple[float, float]:
    """A range with a little air, and with an extent even where all values are equal."""
    air = 0.03 * (high - low) or 0.05 * abs(low) or 1.0
    return low - air, high + air


def _draw_lines(canvas: Canvas, frame: _Frame, prepared: dict[Line, _Prepared], view: View) -> None:
    """All raw bands first, dim, then the lines over them."""
    bands, tops = [], []
    for line, values in prepared.items():
        drawn, *raw = values.spans(frame)
        tops.append((drawn, line_ink(line.slot, _way(line, prepared, view))))
        bands += [(extent, line_ink(line.slot, BAND)) for extent in raw]
    layers = bands + tops
    canvas.draw(
        frame.dot_rows(np.stack([high for (_, high), _ in layers])),
        frame.dot_rows(np.stack([low for (low, _), _ in layers])),
        np.array([ink for _, ink in layers], dtype=np.int32),
        left=frame.column,
        rows=frame.height,
    )


def _way(line: Line, lines: Collection[Line], view: View) -> int:
    return BRIGHT if line.key == view.highlighted or len(lines) == 1 else LINE


def _draw_axes(canvas: Canvas, frame: _Frame, y_ticks: Ticks, view: View) -> None:
    line = frame.column - 1
    for row in range(frame.height):
        canvas.put(line, row, "│", AXIS)
    for value, label in zip(y_ticks.values, y_ticks.labels, strict=True):
        row = frame.cell(frame.left, value)[1]
        canvas.put(line, row, "┤", AXIS)
        canvas.put(line - 1 - len(label), row, label, LABEL)
    canvas.put(line, frame.height, "└" + "─" * frame.width, AXIS)
    most = max(2, frame.width // 10)
    if view.x_axis == "time":
        ticks = ticks_of.time_ticks(frame.left, frame.right, most)
    else:
        ticks = ticks_of.linear_ticks(frame.left, frame.right, most, whole=frame.right - frame.left >= 2)
    for value, label in zip(ticks.values, ticks.labels, strict=True):
        column = frame.cell(value, frame.low)[0]
        canvas.put(column, frame.height, "┬", AXIS)
        start = min(column - (len(label) - 1) // 2, canvas.width - len(label))
        canvas.put(start, frame.height + 1, label, LABEL)


def _draw_marks(canvas: Canvas, frame: _Frame, line: Line, scaled: Floats, view: View) -> None:
    """The line's glyph where it ends, ✗ where it broke, and ★ at the best value of the highlighted one."""
    finite = np.flatnonzero(np.isfinite(scaled))
    if not len(finite):
        return
    highlighted = line.key == view.highlighted
    if highlighted:
        best = finite[(np.argmin if view.goal == "min" else np.argmax)(line.series.y[finite])]
        canvas.put(*frame.cell(line.series.x[best], scaled[best]), "★", BEST)
    last = finite[-1]
    ink = line_ink(line.slot, BRIGHT if highlighted else LINE)
    canvas.put(*frame.cell(line.series.x[last], scaled[last]), "✗" if line.broken else line.glyph, ink)


def _draw_legend(canvas: Canvas, frame: _Frame, lines: Sequence[Line], view: View) -> None:
    """Label and last value of each line, best first, in the emptiest corner."""
    entries = sorted(((line, *_ending(line, view.goal)) for line in lines), key=lambda entry: entry[1])
    most = max(2, frame.height // 2 - 1)
    hidden = len(entries) - most if len(entries) > most else 0
    entries = entries[: most - 1] if hidden else entries
    values = text.align_points([shown for _, _, shown in entries])
    room = max(8, frame.width * 2 // 3 - len(values[0]) - 6)
    more = f"and {hidden + 1} more" if hidden else ""
    label_width = min(room, max(len(more), *(text.width(line.label) for line, _, _ in entries)))
    rows = len(entries) + bool(hidden)
    width = min(frame.width, label_width + len(values[0]) + 5)
    column, row = _emptiest_corner(canvas, frame, width, rows)
    for offset, ((line, _, _), value) in enumerate(zip(entries, values, strict=True)):
        way = _way(line, lines, view)
        ink = TEXT if way == BRIGHT else LABEL
        label = text.fit(line.label, label_width)
        canvas.put(column, row + offset, f" {line.glyph} ", line_ink(line.slot, way))
        canvas.put(column + 3, row + offset, label, ink, widths=text.cells(label))
        canvas.put(column + 3 + label_width, row + offset, f" {value} ", ink)
    if hidden:
        canvas.put(column, row + rows - 1, text.fit(f"   {more}", width), LABEL)


def _ending(line: Line, goal: Goal) -> tuple[float, str]:
    """(a key that sorts the best last value first and broken runs last, that value as text)."""
    if line.broken:
        return math.inf, "nan"
    finite = line.series.y[np.isfinite(line.series.y)]
    if not len(finite):
        return math.inf, ""
    last = float(finite[-1])
    return (last if goal == "min" else -last), text.number(last)


def _emptiest_corner(canvas: Canvas, frame: _Frame, width: int, height: int) -> tuple[int, int]:
    right, bottom = frame.column + frame.width - width, frame.height - height
    corners = [(right, 0), (right, bottom), (frame.column, 0), (frame.column, bottom)]
    return min(corners, key=lambda corner: canvas.drawn(corner[0], corner[1], width, height))
