"""Curves of a plot on a canvas: lines over raw bands, groups with the bands of their seeds, or density; their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from labbench import text
from labbench.charts.axes import Frame
from labbench.charts.groups import SPREADS, Bands, group_bands
from labbench.charts.lines import Line, LineGroup, PreparedLines, last_finite_index
from labbench.charts.palette import BAND, BRIGHT, DENSITY, LINE, OTHER, line_ink
from labbench.charts.plot.braille import Canvas
from labbench.charts.rasterize import ColumnSpans
from labbench.charts.series import Floats
from labbench.charts.smoothing_spec import parse_smoothing
from labbench.charts.view import ChartView

_GLYPH_SPACING_DOTS = 18
"""Dot columns between two glyphs along a line."""
_MAX_ENDS = 10
"""Maximum number of lines whose names are drawn at their ends."""
_MAX_END_LABEL = 30
"""Maximum width of a name at the end of a line, in cells."""


@dataclass(frozen=True, slots=True)
class LineEnd:
    """Cell of the glyph at the end of a line."""

    column: int
    row: int
    label: str
    ink: int


def _line_spans(canvas: Canvas, frame: Frame, lines: PreparedLines, *, bands: bool = False) -> ColumnSpans:
    return lines.spans(frame.left, frame.right, canvas.dots[0] * frame.width, bands=bands)


def _draw_lines(canvas: Canvas, frame: Frame, lines: PreparedLines, view: ChartView) -> None:
    """Draw all raw bands first, dim, then the lines over them, the highlighted one last."""
    spans = _line_spans(canvas, frame, lines)
    order = sorted(range(len(lines.lines)), key=lambda row: lines.lines[row].key == view.highlighted)
    tops, bottoms = [spans.high[order]], [spans.low[order]]
    inks = [line_ink(lines.lines[row].slot, line_style(lines.lines[row], lines, view)) for row in order]
    if parse_smoothing(view.smoothing):
        raw = _line_spans(canvas, frame, lines, bands=True)
        tops.insert(0, raw.high[order])
        bottoms.insert(0, raw.low[order])
        inks = [line_ink(lines.lines[row].slot, BAND) for row in order] + inks
    _draw_layers(canvas, frame, np.concatenate(tops), np.concatenate(bottoms), inks)
    if view.glyphs:
        middle = (spans.low + spans.high) / 2
        glyphs = [(line.glyph, line_ink(line.slot, LINE)) for line in lines.lines]
        _draw_glyphs(canvas, frame, middle, glyphs)


def _draw_layers(canvas: Canvas, frame: Frame, high: Floats, low: Floats, inks: Sequence[int]) -> None:
    tops, bottoms = (frame.dot_rows(values, canvas.dots[1]) for values in (high, low))
    canvas.draw(tops, bottoms, np.array(inks, dtype=np.int32), left=frame.column, rows=frame.height)


def _draw_glyphs(canvas: Canvas, frame: Frame, middle: Floats, glyphs: Sequence[tuple[str, int]]) -> None:
    """Draw each line's glyph at intervals along it, with a different offset per line."""
    rows = frame.dot_rows(middle)
    for index, (glyph, ink) in enumerate(glyphs):
        for column in range((3 + 5 * index) % _GLYPH_SPACING_DOTS, rows.shape[1], _GLYPH_SPACING_DOTS):
            if 0 <= rows[index, column] < 4 * frame.height:
                canvas.put(frame.column + column // 2, int(rows[index, column]) // 4, glyph, ink)


def line_style(line: Line, lines: PreparedLines, view: ChartView) -> int:
    """Return the style of a line, for `line_ink`."""
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
    spans = _line_spans(canvas, frame, lines)
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
            x = frame.left + last / (canvas.dots[0] * frame.width) * (frame.right - frame.left)
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
    spans = _line_spans(canvas, frame, lines)
    _shade(canvas, frame, spans.low, spans.high, DENSITY)
    _draw_highlighted(canvas, frame, lines, view, spans)


def _shade(canvas: Canvas, frame: Frame, low: Floats, high: Floats, inks: Sequence[int]) -> None:
    """Draw each dot that spans cover in the ink of their number; `low` and `high` have shape (spans, dot columns)."""
    rows, columns = canvas.dots[1] * frame.height, canvas.dots[0] * frame.width
    with np.errstate(invalid="ignore"):
        top, bottom = (np.rint(frame.dot_rows(values, canvas.dots[1])) for values in (high, low))
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


def draw_curves(
    canvas: Canvas, frame: Frame, lines: PreparedLines, view: ChartView
) -> tuple[Sequence[LineGroup] | None, list[LineEnd]]:
    """Draw all lines in the display of the view; return the groups drawn, if any, and the ends of their means."""
    display = lines.display(view)
    if display == "groups":
        return _draw_groups(canvas, frame, lines, view)
    draw = _draw_density if display == "density" else _draw_lines
    draw(canvas, frame, lines, view)
    return None, []


def draw_end_labels(canvas: Canvas, frame: Frame, ends: Sequence[LineEnd]) -> None:
    """Write the name of each line beside the glyph at its end, if there is room in the plot.

    A name never covers a point or another name, and blank cells surround it.
    """
    if not 1 < len(ends) <= _MAX_ENDS:
        return
    for end in ends:
        width = text.cell_width(end.label)
        if width > min(_MAX_END_LABEL, 2 * frame.width // 3):
            continue
        for column, row in _positions(end, width):
            inside = frame.column < column and column + width < frame.column + frame.width and 0 <= row < frame.height
            if inside and not canvas.count_drawn(column - 1, row, width + 2, 1):
                canvas.put(column, row, end.label, end.ink, widths=text.cell_widths(end.label))
                break


def _positions(end: LineEnd, width: int) -> Iterator[tuple[int, int]]:
    """Yield the cells at which the name may begin: to the right of the glyph, above it, or below it."""
    yield end.column + 2, end.row
    for row in (end.row - 1, end.row + 1):
        yield end.column - width, row
