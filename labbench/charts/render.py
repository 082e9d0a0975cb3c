"""Rendering of a chart as rows of (text, ink): lines, groups or density, with marks, axes, legend and crosshair.

Independent of Textual; the `Chart` widget maps inks to the theme's colours. The drawing is cached without crosshair
and legend, so that moving the crosshair costs a copy of the canvas and a new legend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labbench.charts.axes import MIN_HEIGHT, MIN_WIDTH, Frame, axis_range, draw_axes, make_frame, scale_value
from labbench.charts.bars import draw_bars, is_logged_once
from labbench.charts.braille import Canvas, InkRun
from labbench.charts.glyphs import OTHER_SLOT, STATUS_GLYPHS
from labbench.charts.groups import SPREADS, Bands, group_bands
from labbench.charts.legend import (
    LegendEntry,
    LineEnd,
    draw_end_labels,
    draw_side_legend,
    draw_top_legend,
    group_entries,
    legend_title,
    line_entries,
    side_legend_width,
    top_legend_rows,
)
from labbench.charts.lines import Line, LineCache, LineGroup, PreparedLines, best_point, group_lines, last_finite_index
from labbench.charts.palette import (
    BAND,
    BEST,
    BOX_GROUND,
    BRIGHT,
    CROSSHAIR_GROUND,
    DENSITY,
    LABEL,
    LINE,
    OTHER,
    line_ink,
)
from labbench.charts.rasterize import ColumnSpans
from labbench.charts.series import Floats
from labbench.charts.smoothing_spec import parse_smoothing
from labbench.charts.view import ChartView, Range

_STATUSES_WITH_END_GLYPH = frozenset({"diverged", "failed", "stopped", "pruned", "lost"})
"""Statuses whose glyph replaces the series glyph at the end of a line."""
_GLYPH_SPACING_DOTS = 18
"""Dot columns between two glyphs along a line."""


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Cached drawing without crosshair and legend."""

    canvas: Canvas
    frame: Frame
    lines: PreparedLines
    groups: Sequence[LineGroup] | None
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
        display = lines.display(view)
        groups: Sequence[LineGroup] | None = None
        ends: list[LineEnd] = []
        if display == "density":
            _draw_density(canvas, frame, lines, view)
        elif display == "groups":
            groups, ends = _draw_groups(canvas, frame, lines, view)
        else:
            _draw_lines(canvas, frame, lines, view)
        draw_axes(canvas, frame, y_ticks, view)
        if view.height is None:
            above, below = lines.count_off_scale(frame)
            for row, arrow, count in ((0, "↑", above), (frame.height - 1, "↓", below)):
                if count:
                    canvas.put(frame.column + 1, row, f"{arrow} {count} off scale", LABEL)
        ends += _draw_marks(canvas, frame, lines, view, ends=display == "runs")
        draw_end_labels(canvas, frame, ends)
        return _Drawing(canvas, frame, lines, groups, side)


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


def _line_spans(lines: PreparedLines, frame: Frame, *, bands: bool = False) -> ColumnSpans:
    return lines.spans(frame.left, frame.right, 2 * frame.width, bands=bands)


def _draw_lines(canvas: Canvas, frame: Frame, lines: PreparedLines, view: ChartView) -> None:
    """Draw all raw bands first, dim, then the lines over them, the highlighted one last."""
    spans = _line_spans(lines, frame)
    order = sorted(range(len(lines.lines)), key=lambda row: lines.lines[row].key == view.highlighted)
    tops, bottoms = [spans.high[order]], [spans.low[order]]
    inks = [line_ink(lines.lines[row].slot, _line_style(lines.lines[row], lines, view)) for row in order]
    if parse_smoothing(view.smoothing):
        raw = _line_spans(lines, frame, bands=True)
        tops.insert(0, raw.high[order])
        bottoms.insert(0, raw.low[order])
        inks = [line_ink(lines.lines[row].slot, BAND) for row in order] + inks
    _draw_layers(canvas, frame, np.concatenate(tops), np.concatenate(bottoms), inks)
    if view.glyphs:
        middle = (spans.low + spans.high) / 2
        glyphs = [(line.glyph, line_ink(line.slot, LINE)) for line in lines.lines]
        _draw_glyphs(canvas, frame, middle, glyphs)


def _draw_layers(canvas: Canvas, frame: Frame, high: Floats, low: Floats, inks: Sequence[int]) -> None:
    tops, bottoms = frame.dot_rows(high), frame.dot_rows(low)
    canvas.draw(tops, bottoms, np.array(inks, dtype=np.int32), left=frame.column, rows=frame.height)


def _draw_glyphs(canvas: Canvas, frame: Frame, middle: Floats, glyphs: Sequence[tuple[str, int]]) -> None:
    """Draw each line's glyph at intervals along it, with a different offset per line."""
    rows = frame.dot_rows(middle)
    for index, (glyph, ink) in enumerate(glyphs):
        for column in range((3 + 5 * index) % _GLYPH_SPACING_DOTS, rows.shape[1], _GLYPH_SPACING_DOTS):
            if 0 <= rows[index, column] < 4 * frame.height:
                canvas.put(frame.column + column // 2, int(rows[index, column]) // 4, glyph, ink)


def _line_style(line: Line, lines: PreparedLines, view: ChartView) -> int:
    if line.key == view.highlighted or len(lines.lines) == 1:
        return BRIGHT
    return BAND if line.status == "pruned" else LINE


def _draw_groups(
    canvas: Canvas, frame: Frame, lines: PreparedLines, view: ChartView
) -> tuple[Sequence[LineGroup], list[LineEnd]]:
    """Draw the lines without a colour, then each group's band, then the means over the bands, then the highlighted run.

    Returns the groups with a colour, and the ends of their means.
    """
    groups = lines.groups()
    spans = _line_spans(lines, frame)
    rows = np.concatenate([np.empty(0, np.int64), *(group.rows for group in groups)])
    others = np.ones(len(lines.lines), np.bool_)
    others[rows] = False
    _shade(canvas, frame, spans.low[others], spans.high[others], (OTHER,))
    owner = np.repeat(np.arange(len(groups)), [len(group.rows) for group in groups])
    spread = next(spread for spread in SPREADS if spread == view.spread)
    bands = group_bands(frame.unscale_all(spans.edges[rows]), owner, len(groups), spread)
    low, mean, high = _scale_bands(bands, frame)
    for lower, upper, style in ((low, high, BAND), (mean, mean, LINE)):
        inks = [line_ink(group.slot, style) for group in groups]
        lowest, highest = np.fmin(lower[:, :-1], lower[:, 1:]), np.fmax(upper[:, :-1], upper[:, 1:])
        _draw_layers(canvas, frame, highest, lowest, inks)
    if view.glyphs:
        _draw_glyphs(canvas, frame, mean[:, :-1], [(group.glyph, line_ink(group.slot, LINE)) for group in groups])
    _draw_highlighted(canvas, frame, lines, view, spans)
    ends = []
    for index, group in enumerate(groups):
        last = last_finite_index(mean[index])
        if last is not None:
            x = frame.left + last / (2 * frame.width) * (frame.right - frame.left)
            end = LineEnd(*frame.cell(x, float(mean[index, last])), group.label, line_ink(group.slot, LINE))
            canvas.put(end.column, end.row, group.glyph, end.ink)
            ends.append(end)
    return groups, ends


def _scale_bands(bands: Bands, frame: Frame) -> tuple[Floats, Floats, Floats]:
    """Return low, mean and high scaled for the y axis; a low <= 0 is below a logarithmic axis."""
    if not frame.log_y:
        return bands.low, bands.mean, bands.high
    with np.errstate(divide="ignore", invalid="ignore"):
        low, mean, high = (np.log10(values) for values in (bands.low, bands.mean, bands.high))
    low[bands.low <= 0] = frame.low - (frame.high - frame.low)
    return low, mean, high


def _draw_density(canvas: Canvas, frame: Frame, lines: PreparedLines, view: ChartView) -> None:
    """Draw each dot in the ink of the number of lines that cover it (log scale), then the highlighted run."""
    spans = _line_spans(lines, frame)
    _shade(canvas, frame, spans.low, spans.high, DENSITY)
    _draw_highlighted(canvas, frame, lines, view, spans)


def _shade(canvas: Canvas, frame: Frame, low: Floats, high: Floats, inks: Sequence[int]) -> None:
    """Draw each dot that spans cover in the ink of their number; `low` and `high` have shape (spans, dot columns)."""
    rows, columns = 4 * frame.height, 2 * frame.width
    with np.errstate(invalid="ignore"):
        top, bottom = np.rint(frame.dot_rows(high)), np.rint(frame.dot_rows(low))
        line, column = np.nonzero((bottom >= 0) & (top < rows))
    first = np.clip(top[line, column], 0, rows - 1).astype(np.int64)
    after = np.clip(bottom[line, column], 0, rows - 1).astype(np.int64) + 1
    size = (rows + 1) * columns
    changes = np.bincount(first * columns + column, minlength=size) - np.bincount(
        after * columns + column, minlength=size
    )
    counts = np.cumsum(changes.reshape(rows + 1, columns), axis=0)[:-1]
    canvas.shade(counts, inks, left=frame.column)


def _draw_highlighted(canvas: Canvas, frame: Frame, lines: PreparedLines, view: ChartView, spans: ColumnSpans) -> None:
    for row, line in enumerate(lines.lines):
        if line.key == view.highlighted:
            _draw_layers(canvas, frame, spans.high[[row]], spans.low[[row]], [line_ink(line.slot, BRIGHT)])


def _draw_marks(canvas: Canvas, frame: Frame, lines: PreparedLines, view: ChartView, *, ends: bool) -> list[LineEnd]:
    """Draw the series or status glyph at the end of each line, and ★ at the highlighted line's best value.

    Returns the ends of the lines.
    """
    line_ends = []
    for line, prepared in zip(lines.lines, lines.prepared, strict=True):
        highlighted = line.key == view.highlighted
        if not highlighted and (not ends or line.slot == OTHER_SLOT):
            continue
        x, _, scaled, _ = prepared.line
        ink = line_ink(line.slot, _line_style(line, lines, view))
        best = best_point(line.series, view.goal) if highlighted else None
        if best is not None:
            best_x, best_y = scale_value(best[0], view.log_x), scale_value(best[1], view.log)
            if best_x is not None and best_y is not None and frame.contains_x(best_x):
                canvas.put(*frame.cell(best_x, best_y), "★", BEST)
        last = last_finite_index(scaled)
        if last is not None and frame.contains_x(float(x[last])):
            glyph = STATUS_GLYPHS[line.status].glyph if line.status in _STATUSES_WITH_END_GLYPH else line.glyph
            end = LineEnd(*frame.cell(float(x[last]), float(scaled[last])), line.label, ink)
            canvas.put(end.column, end.row, glyph, ink)
            line_ends.append(end)
    return line_ends if ends else []


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
