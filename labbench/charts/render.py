"""Rendering of a chart as rows of (text, ink): lines, groups or density, with marks, axes, legend and crosshair.

Independent of Textual; the `Chart` widget maps inks to the theme's colours. The drawing is cached without crosshair
and legend, so that moving the crosshair costs a copy of the canvas and a new legend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labbench.charts.axes import MIN_HEIGHT, MIN_WIDTH, Frame, axis_range, draw_axes, make_frame, scale_value
from labbench.charts.bars import draw_bars, is_logged_once
from labbench.charts.glyphs import OTHER_SLOT, STATUS_GLYPHS
from labbench.charts.legend import (
    LegendEntry,
    draw_side_legend,
    draw_top_legend,
    group_entries,
    legend_title,
    line_entries,
    side_legend_width,
    top_legend_rows,
)
from labbench.charts.lines import Line, LineCache, LineGroup, PreparedLine, PreparedLines, group_lines
from labbench.charts.palette import (
    BEST,
    BOX_GROUND,
    CROSSHAIR_GROUND,
    LABEL,
    line_ink,
)
from labbench.charts.plot.braille import Canvas, InkRun
from labbench.charts.plot.curves import LineEnd, draw_curves, draw_end_labels, line_style
from labbench.charts.plot.pixel_canvas import Plot
from labbench.charts.smoothing_spec import parse_smoothing
from labbench.charts.view import ChartView, Range

_STATUSES_WITH_END_GLYPH = frozenset({"diverged", "failed", "stopped", "pruned", "lost"})
"""Statuses whose glyph replaces the series glyph at the end of a line."""
_MAX_NOTE_ROWS = 3
"""Rows at the top or bottom of a plot in which a free place for a note is looked for."""


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Cached drawing without crosshair and legend."""

    canvas: Canvas
    frame: Frame
    lines: PreparedLines
    groups: Sequence[LineGroup] | None
    view: ChartView
    side: int
    """Width of the legend beside the plot, in cells; 0 if it is above."""


class ChartRenderer:
    """Renderer of one chart, with a cache between drawings."""

    def __init__(self) -> None:
        self._line_cache = LineCache()
        self._drawing: tuple[object, _Drawing | str] | None = None
        self.top = 0
        """Rows of the legend above the plot in the last drawing."""

    @property
    def frame(self) -> Frame | None:
        """The frame of the last drawing; None if there was nothing to draw."""
        return self._drawing[1].frame if self._drawing and isinstance(self._drawing[1], _Drawing) else None

    @property
    def plot(self) -> Plot | None:
        """The plot of the last drawing; None if there was nothing to draw, or no curves."""
        drawing = self._drawing[1] if self._drawing else None
        return Plot(drawing.frame, drawing.lines, drawing.view) if isinstance(drawing, _Drawing) else None

    def draw(self, lines: Sequence[Line], view: ChartView, width: int, height: int) -> list[list[InkRun]]:
        """Return the chart as `height` rows of `width` cells; lines are drawn in order, the highlighted one last."""
        if is_logged_once(lines):
            self._drawing, self.top = None, 0
            return draw_bars(lines, view, width, height).lines()
        side = side_legend_width(lines, width, view)
        top = 0 if side else top_legend_rows(lines, view, width, height)
        key = (tuple(lines), view.without_cursor, width, height, side)
        if self._drawing is None or self._drawing[0] != key:
            self._drawing = (key, self._draw(lines, view, width, height - top, side))
        drawing = self._drawing[1]
        self.top = 0
        if isinstance(drawing, str):
            canvas = Canvas(width, height)
            canvas.put(max(0, (width - len(drawing)) // 2), height // 2, drawing, LABEL)
            return canvas.lines()
        canvas = drawing.canvas.copy()
        total = len(lines) if drawing.groups is None else len(group_lines(lines))
        _draw_crosshair(canvas, drawing.frame, view)
        entries = _legend_entries(drawing, view)
        if side:
            draw_side_legend(canvas, entries, legend_title(view, entries), side, total=total)
        self.top = top
        above = Canvas(width, top)
        draw_top_legend(above, entries, legend_title(view, entries), total=total, names=view.names)
        return [*above.lines(), *canvas.lines()]

    def _draw(
        self, lines_in_order: Sequence[Line], view: ChartView, width: int, height: int, side: int
    ) -> _Drawing | str:
        if width < MIN_WIDTH or height < MIN_HEIGHT:
            return "too small"
        lines = self._line_cache.prepare(lines_in_order, view)
        # the plot's width depends on the y labels, so on the y range measured here: start from the last drawing's width
        last = self.frame
        ranges = _axis_ranges(lines, view, 2 * (last.width if last is not None else width - side))
        if ranges is None:
            return _empty_message(lines_in_order, view)
        canvas = Canvas(width, height)
        frame, y_ticks = make_frame(width - side, height, *ranges, view)
        groups, ends = draw_curves(canvas, frame, lines, view)
        draw_axes(canvas, frame, y_ticks, view)
        ends += _draw_marks(canvas, frame, lines, view, ends=lines.display(view) == "runs")
        if view.height is None:
            _draw_off_scale_counts(canvas, frame, lines)
        draw_end_labels(canvas, frame, ends)
        return _Drawing(canvas, frame, lines, groups, view, side)


def _axis_ranges(lines: PreparedLines, view: ChartView, columns: int) -> tuple[Range, Range] | None:
    """Return the scaled (x range, y range) of the plot; None if nothing can be drawn."""
    whole = lines.x_range()
    y_range = lines.y_range()
    if whole is None or y_range is None:
        return None
    left, right = whole
    if view.window is not None:
        borders = [scale_value(x, view.log_x) for x in view.window]
        left, right = (side if border is None else border for border, side in zip(borders, whole, strict=True))
        left, right = axis_range(left, right, view.log_x, padding=0.0)
        spans = lines.spans(left, right, columns)
        inliers = lines.inlier_rows()
        low, high = spans.low[inliers], spans.high[inliers]
        if np.isfinite(low).any():
            y_range = float(np.nanmin(low)), float(np.nanmax(high))
    elif not view.log_x and view.x_axis != "clock" and 0 < left <= 0.1 * right:
        left = 0.0
    if view.height is not None:
        scaled = [scale_value(y, view.log) for y in view.height]
        if scaled[0] is not None and scaled[1] is not None:
            y_range = scaled[0], scaled[1]
    return (left, right), y_range


def _empty_message(lines: Sequence[Line], view: ChartView) -> str:
    finite = [line.series for line in lines if np.isfinite(line.series.y).any()]
    if view.log_x and finite and not any(series.x[-1] > 0 for series in finite):
        return "no x is positive: press X for a linear axis"
    return "nothing is positive: press y for a linear axis" if view.log and finite else "no values yet"


def _draw_marks(canvas: Canvas, frame: Frame, lines: PreparedLines, view: ChartView, *, ends: bool) -> list[LineEnd]:
    """Draw the series or status glyph at the end of each line, and ★ at the highlighted line's best value.

    Returns the ends of the lines.
    """
    line_ends = []
    for line, prepared in zip(lines.lines, lines.prepared, strict=True):
        highlighted = line.key == view.highlighted
        if not highlighted and (not ends or line.slot == OTHER_SLOT):
            continue
        ink = line_ink(line.slot, line_style(line, lines, view))
        best = line.best_point(view.goal) if highlighted else None
        if best is not None:
            best_x, best_y = scale_value(best[0], view.log_x), scale_value(best[1], view.log)
            if best_x is not None and best_y is not None and frame.contains_x(best_x):
                canvas.put(*frame.cell(best_x, best_y), "★", BEST)
        last = _find_end(line, prepared, view)
        if last is not None and frame.contains_x(last[0]):
            glyph = STATUS_GLYPHS[line.status].glyph if line.status in _STATUSES_WITH_END_GLYPH else line.glyph
            end = LineEnd(*frame.cell(*last), line.label, ink)
            canvas.put(end.column, end.row, glyph, ink)
            line_ends.append(end)
    return line_ends if ends else []


def _draw_off_scale_counts(canvas: Canvas, frame: Frame, lines: PreparedLines) -> None:
    """Write the numbers of lines that leave the plot at its top and bottom, there where no point is covered."""
    rows = range(frame.height)
    for arrow, count, nearest in zip("↑↓", lines.count_off_scale(frame), (rows, rows[::-1]), strict=True):
        if not count:
            continue
        note = f"{arrow} {count} off scale"
        columns = range(frame.column + 1, max(frame.column + 2, frame.column + frame.width - len(note)))
        cells = [(column, row) for row in nearest[:_MAX_NOTE_ROWS] for column in columns]
        free = ((column, row) for column, row in cells if not canvas.count_drawn(column - 1, row, len(note) + 2, 1))
        canvas.put(*next(free, cells[0]), note, LABEL)


def _find_end(line: Line, prepared: PreparedLine, view: ChartView) -> Range | None:
    """Return the scaled (x, y) of the end of a line: its last value, also where buckets of points are drawn."""
    end = prepared.end()
    if end is None or line.series.buckets is None or line.last_value is None or parse_smoothing(view.smoothing):
        return end
    y = scale_value(line.last_value, view.log)
    return end if y is None or not math.isfinite(y) else (end[0], y)


def _legend_entries(drawing: _Drawing, view: ChartView) -> list[LegendEntry]:
    if drawing.groups is None:
        return line_entries(drawing.lines, view, drawing.canvas.height)
    return group_entries(drawing.groups, drawing.lines, view)


def _draw_crosshair(canvas: Canvas, frame: Frame, view: ChartView) -> None:
    if view.crosshair is not None:
        column = frame.column_of(view.crosshair)
        if column is not None:
            canvas.add_ground(column, 0, 1, frame.height, CROSSHAIR_GROUND)
    if view.box is not None:
        left, right, low, high = view.box
        ends = [
            frame.cell(scale_value(x, view.log_x) or frame.left, scale_value(y, view.log) or frame.low)
            for x, y in ((left, high), (right, low))
        ]
        canvas.add_ground(*ends[0], ends[1][0] - ends[0][0] + 1, ends[1][1] - ends[0][1] + 1, BOX_GROUND)
