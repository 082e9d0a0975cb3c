"""Legend of a chart: the label of each line and its value at the crosshair, or else its last value."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from labbench import text
from labbench.charts.axes import Frame
from labbench.charts.bands import Bands
from labbench.charts.braille import Canvas
from labbench.charts.lines import Line, LineGroup, PreparedLines, last_finite_index, nearest_index
from labbench.charts.palette import BRIGHT, LABEL, LINE, TEXT, line_ink
from labbench.charts.series import Curve
from labbench.charts.ticks import MAX_CLOCK_SECONDS, MIN_CLOCK_SECONDS, clamp
from labbench.charts.view import ChartView, XAxis

MIN_SIDE_LEGEND_WIDTH = 110
"""Minimum width of a chart, in cells, to place the legend beside the plot."""
_MAX_SIDE_WIDTH = 64


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """One line of the legend."""

    rank: float
    """Sort key: smaller is better, infinity without a value."""
    glyph: str
    slot: int
    label: str
    value: str
    x: str = ""
    """Formatted x of the value, shown if it differs between entries; "" without a crosshair."""
    bright: bool = False
    """True for the highlighted line, or the only one."""


def line_entries(lines: PreparedLines, view: ChartView, max_entries: int) -> list[LegendEntry]:
    """Return entries for the `max_entries` best lines, best value first; lines without a value rank last."""
    indices = [
        _readout_index(line, prepared.curve, view) for line, prepared in zip(lines.lines, lines.prepared, strict=True)
    ]
    values = [
        None if index is None else float(prepared.curve[1][index])
        for index, prepared in zip(indices, lines.prepared, strict=True)
    ]
    ranks = [math.inf if value is None else _rank_of_value(value, view) for value in values]
    best = sorted(range(len(ranks)), key=ranks.__getitem__)[:max_entries]
    alone = len(ranks) == 1
    return [_line_entry(lines.lines[row], lines.prepared[row].curve, indices[row], view, alone=alone) for row in best]


def _readout_index(line: Line, curve: Curve, view: ChartView) -> int | None:
    """Return the index of the point whose value the legend shows, or None.

    With a crosshair: the nearest finite point, None outside the curve. Without: the last finite point, None for a
    diverged run.
    """
    if view.crosshair is not None:
        return nearest_index(curve, view.crosshair)
    return None if line.has_diverged else last_finite_index(curve[1])


def _line_entry(line: Line, curve: Curve, index: int | None, view: ChartView, *, alone: bool) -> LegendEntry:
    bright = alone or line.key == view.highlighted
    if index is None:
        missing = "nan" if line.has_diverged and view.crosshair is None else "–"
        return LegendEntry(math.inf, line.glyph, line.slot, line.label, missing, bright=bright)
    value, x = float(curve[1][index]), float(curve[0][index])
    x_text = "" if view.crosshair is None else format_x(x, view.x_axis)
    return LegendEntry(
        _rank_of_value(value, view), line.glyph, line.slot, line.label, text.format_number(value), x_text, bright
    )


def group_entries(groups: Sequence[LineGroup], bands: Bands, index: int | None, view: ChartView) -> list[LegendEntry]:
    """Return an entry for each group, best mean first; `index` is the point of the bands at the crosshair."""
    entries = []
    for row, group in enumerate(groups):
        at = last_finite_index(bands.mean[row]) if index is None else index
        value = float(bands.mean[row, at]) if at is not None else math.nan
        label = f"{group.label} ×{len(group.rows)}"
        if at is None or not math.isfinite(value):
            entries.append(LegendEntry(math.inf, group.glyph, group.slot, label, "–"))
            continue
        half = float(bands.high[row, at]) / 2 - float(bands.low[row, at]) / 2
        spread = f" ±{_format_half_width(half)}" if half > 0 else ""
        entries.append(
            LegendEntry(_rank_of_value(value, view), group.glyph, group.slot, label, text.format_number(value) + spread)
        )
    return sorted(entries, key=lambda entry: entry.rank)


def _format_half_width(half: float) -> str:
    if half == math.inf:
        return "inf"
    return f"{half:.2g}" if 1e-4 <= half < 100 else text.format_engineering(half, 2)


def _rank_of_value(value: float, view: ChartView) -> float:
    return value if view.goal == "min" else -value


def format_x(x: float, axis: XAxis) -> str:
    """Return an x value as text: a number, a duration or a time of day."""
    if axis == "time":
        return text.format_duration(x)
    if axis == "clock":
        return time.strftime("%H:%M:%S", time.localtime(clamp(x, MIN_CLOCK_SECONDS, MAX_CLOCK_SECONDS)))
    return text.format_number(round(x, 3))


def legend_title(view: ChartView) -> str:
    """Return the title with the crosshair's position, such as `step 1200`; "" without a crosshair."""
    return "" if view.crosshair is None else f"{view.x_axis} {format_x(view.crosshair, view.x_axis)}"


def side_legend_width(lines: Sequence[Line], width: int, view: ChartView) -> int:
    """Return the width of the legend beside the plot, in cells; 0 if the legend is inside the plot."""
    if width < MIN_SIDE_LEGEND_WIDTH or (len(lines) < 2 and view.crosshair is None):
        return 0
    longest = max(text.cell_width(line.group or line.label) for line in lines) if len(lines) > 1 else 16
    return min(longest + 24, _MAX_SIDE_WIDTH, width // 3)


def draw_legend(
    canvas: Canvas, frame: Frame, entries: Sequence[LegendEntry], title: str, side: int, *, total: int | None = None
) -> None:
    """Draw the legend beside the plot, `side` cells wide; if `side` is 0, in the plot's emptiest corner.

    `total` is the number of lines if `entries` holds only the best of them.
    """
    rows = frame.height + 1 if side else max(min(frame.height - 2, 5), frame.height // 2 - 1)
    max_entries = max(1, rows - bool(title))
    total = total or len(entries)
    hidden = total - max_entries + 1 if total > max_entries else 0
    entries = entries[: max_entries - 1] if hidden else entries
    values = text.align_decimal_points([entry.value for entry in entries])
    x_texts = [entry.x for entry in entries]
    if len(set(x_texts)) == 1 or not side:
        x_texts = [""] * len(x_texts)
    x_width = max(map(len, x_texts), default=0)
    value_width = len(values[0]) if values else 0
    fixed_width = 5 + value_width + (x_width + 1 if x_width else 0)
    available = (side if side else max(14, frame.width * 2 // 3)) - fixed_width
    more = f"and {hidden} more" if hidden else ""
    widest = max([len(more), len(title) - fixed_width + 4, *(text.cell_width(entry.label) for entry in entries)])
    label_width = max(3, available if side else min(available, widest))
    width, height = label_width + fixed_width, len(entries) + bool(hidden) + bool(title)
    column, row = (canvas.width - width, 0) if side else _emptiest_corner(canvas, frame, width, height)
    if title:
        canvas.put(column, row, text.fit_to_width(f" {title}", width), TEXT)
        row += 1
    for entry, value, x_text in zip(entries, values, x_texts, strict=True):
        ink = TEXT if entry.bright else LABEL
        label = text.fit_to_width(entry.label, label_width)
        canvas.put(column, row, f" {entry.glyph} ", line_ink(entry.slot, BRIGHT if entry.bright else LINE))
        canvas.put(column + 3, row, label, ink, widths=text.cell_widths(label))
        canvas.put(column + 3 + label_width, row, f" {value} ", TEXT if title else ink)
        if x_width:
            canvas.put(column + width - x_width - 1, row, x_text.rjust(x_width), LABEL)
        row += 1
    if hidden:
        canvas.put(column, row, text.fit_to_width(f"   {more}", width), LABEL)


def _emptiest_corner(canvas: Canvas, frame: Frame, width: int, height: int) -> tuple[int, int]:
    right, bottom = max(frame.column, frame.column + frame.width - width), max(0, frame.height - height)
    corners = [(right, 0), (right, bottom), (frame.column, 0), (frame.column, bottom)]
    return min(corners, key=lambda corner: canvas.count_drawn(corner[0], corner[1], width, height))
