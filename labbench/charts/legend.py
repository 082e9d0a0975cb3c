"""Legend of a chart: the label of each line and its value at the crosshair, or else its last value."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from labbench import text
from labbench.charts.glyphs import OTHER_SLOT
from labbench.charts.groups import SPREADS, group_bands
from labbench.charts.lines import Line, LineGroup, PreparedLines, group_lines, last_finite_index, nearest_index
from labbench.charts.palette import BRIGHT, LABEL, LINE, TEXT, line_ink
from labbench.charts.plot.braille import Canvas
from labbench.charts.series import Curve, Series
from labbench.charts.smoothing_spec import parse_smoothing
from labbench.charts.ticks import MAX_CLOCK_SECONDS, MIN_CLOCK_SECONDS, clamp
from labbench.charts.view import ChartView, XAxis, resolve_display

MIN_SIDE_LEGEND_WIDTH = 110
"""Minimum width of a chart, in cells, to place the legend beside the plot."""
_MAX_SIDE_WIDTH = 64
_MEAN = "mean of steps"
_MIN_HEIGHT_WITH_LEGEND = 7
"""Minimum height of a chart, in cells, with a legend above the plot."""
_GLYPH_CELLS, _VALUE_CELLS, _GROUP_VALUE_CELLS = 3, 11, 16
"""Widths of the glyph and of the value of a run or group above the plot, with a space around them."""
_MAX_TOP_LABEL = 30


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """One line of the legend."""

    rank: float
    """Sort key: smaller is better, infinity without a value."""
    glyph: str
    slot: int
    label: str
    value: str
    spread: str = ""
    """Half width of a group's band, such as `±0.07`; "" for a run, and for a group of one run."""
    x: str = ""
    """Formatted x of the value, shown if it differs between entries; "" without a crosshair."""
    bright: bool = False
    """True for the highlighted line, or the only one."""

    @property
    def numbers(self) -> str:
        """Value and spread."""
        return f"{self.value} {self.spread}".rstrip()

    def fit_numbers(self, width: int) -> str:
        """Return value and spread, or the value alone, or `…`: the first that fits in `width` cells."""
        return next((numbers for numbers in (self.numbers, self.value) if len(numbers) <= width), "…")


@dataclass(frozen=True, slots=True)
class _Readout:
    """Value of a line at the crosshair, or its last value."""

    value: float | None
    """NaN included; None where the line has no value."""
    x: float | None = None
    steps: tuple[int, int] | None = None
    """First and last step of the points that the value averages; None for a single point."""


def line_entries(lines: PreparedLines, view: ChartView, max_entries: int) -> list[LegendEntry]:
    """Return entries for the `max_entries` best lines, best value first; lines without a value rank last."""
    readouts = _readouts(lines, view, range(len(lines.lines)))
    ranks = [_rank_of_value(readout.value, view) for readout in readouts]
    best = sorted(range(len(ranks)), key=ranks.__getitem__)[:max_entries]
    values = text.format_numbers([readouts[row].value for row in best])
    alone = len(ranks) == 1
    return [
        LegendEntry(
            ranks[row],
            lines.lines[row].glyph,
            lines.lines[row].slot,
            lines.lines[row].label,
            value or "–",
            x=_format_position(readouts[row], view),
            bright=alone or lines.lines[row].key == view.highlighted,
        )
        for row, value in zip(best, values, strict=True)
    ]


def _readouts(lines: PreparedLines, view: ChartView, rows: Iterable[int]) -> list[_Readout]:
    """Return the value of each line at the crosshair, or else its last value, as in the table unless smoothed."""
    is_smoothed = bool(parse_smoothing(view.smoothing))
    return [
        _read_last(lines.lines[row], lines.prepared[row].curve, is_smoothed=is_smoothed)
        if view.crosshair is None
        else _read_at(lines.lines[row].series, lines.prepared[row].curve, view.crosshair, is_smoothed=is_smoothed)
        for row in rows
    ]


def _read_last(line: Line, curve: Curve, *, is_smoothed: bool) -> _Readout:
    last = last_finite_index(curve[1]) if is_smoothed and not line.has_diverged else None
    return _Readout(line.last_value if last is None else float(curve[1][last]))


def _read_at(series: Series, curve: Curve, x: float, *, is_smoothed: bool) -> _Readout:
    """Return the value of the finite point nearest to x; in buckets of a point exactly at x, or else their mean."""
    buckets, exact = series.buckets, series.exact
    if buckets is None:
        index = nearest_index(curve, x)
        return _Readout(None) if index is None else _Readout(float(curve[1][index]), float(curve[0][index]))
    if not len(series) or not series.x[0] <= x <= buckets.end[-1]:
        return _Readout(None)
    if exact is not None and not is_smoothed:
        at = np.flatnonzero((exact.x == x) & np.isfinite(exact.y))
        if len(at):
            return _Readout(float(exact.y[at[0]]), x)
    index = max(0, int(np.searchsorted(series.x, x, side="right")) - 1)
    if index + 1 < len(series) and series.x[index + 1] - x < x - buckets.end[index]:
        index += 1  # in the gap between two buckets, closer to the next one
    value = float(curve[1][index])
    if not math.isfinite(value):
        return _Readout(None)
    is_mean = buckets.n[index] > 1 and not is_smoothed
    steps = (int(buckets.first_step[index]), int(buckets.last_step[index])) if is_mean else None
    return _Readout(value, float(series.x[index]), steps)


def _format_position(readout: _Readout, view: ChartView) -> str:
    if view.crosshair is None or readout.x is None:
        return ""
    if readout.steps is not None:
        return f"{_MEAN} {readout.steps[0]:,}-{readout.steps[1]:,}"
    return format_x(readout.x, view.x_axis)


def group_entries(groups: Sequence[LineGroup], lines: PreparedLines, view: ChartView) -> list[LegendEntry]:
    """Return an entry for each group, best mean first: the mean and spread of what its lines would show."""
    readouts = _readouts(lines, view, [row for group in groups for row in group.rows.tolist()])
    values = np.array([math.nan if readout.value is None else readout.value for readout in readouts])
    owner = np.repeat(np.arange(len(groups)), [len(group.rows) for group in groups])
    spread = next(spread for spread in SPREADS if spread == view.spread)
    bands = group_bands(values[:, None], owner, len(groups), spread)
    means = [float(mean) if n else None for mean, n in zip(bands.mean[:, 0], bands.n[:, 0], strict=True)]
    entries = []
    for row, (group, value) in enumerate(zip(groups, text.format_numbers(means), strict=True)):
        half = float(bands.high[row, 0]) / 2 - float(bands.low[row, 0]) / 2
        half_width = f"±{_format_half_width(half)}" if value and half > 1e-12 * abs(means[row] or 0.0) else ""
        label, rank = f"{group.label} ×{len(group.rows)}", _rank_of_value(means[row], view)
        entries.append(LegendEntry(rank, group.glyph, group.slot, label, value or "–", half_width))
    return sorted(entries, key=lambda entry: entry.rank)


def _format_half_width(half: float) -> str:
    if half == math.inf:
        return "inf"
    return f"{half:.2g}" if 1e-4 <= half < 100 else text.format_engineering(half, 2)


def _rank_of_value(value: float | None, view: ChartView) -> float:
    if value is None or math.isnan(value):
        return math.inf
    return value if view.goal == "min" else -value


def format_x(x: float, axis: XAxis) -> str:
    """Return an x value as text: a number, a duration or a time of day."""
    if axis == "time":
        return text.format_duration(x)
    if axis == "clock":
        return time.strftime("%H:%M:%S", time.localtime(clamp(x, MIN_CLOCK_SECONDS, MAX_CLOCK_SECONDS)))
    if axis == "step" and 1000 <= abs(x) < 1e15:
        return f"{x:.0f}"
    return text.format_number(round(x, 3))


def legend_title(view: ChartView, entries: Sequence[LegendEntry] = ()) -> str:
    """Return the crosshair's position, such as `step 1200`, and the kind of the values: means or smoothed values."""
    parts = [] if view.crosshair is None else [f"{view.x_axis} {format_x(view.crosshair, view.x_axis)}"]
    means = [entry.x for entry in entries if entry.x.startswith(_MEAN)]
    if means:
        parts.append(means[0] if len(means) == len(entries) and len(set(means)) == 1 else "means of points")
    if smoothing := parse_smoothing(view.smoothing):
        parts.append(f"smoothed: {smoothing}")
    return " · ".join(parts)


def side_legend_width(lines: Sequence[Line], width: int, view: ChartView) -> int:
    """Return the width of the legend beside the plot, in cells; 0 if the legend is above the plot."""
    if not view.names or width < MIN_SIDE_LEGEND_WIDTH or (len(lines) < 2 and view.crosshair is None):
        return 0
    longest = max(6, _longest_label(lines)) if len(lines) > 1 else 16  # the title has 27 cells
    return min(longest + 24, _MAX_SIDE_WIDTH, width // 3)


def top_legend_rows(lines: Sequence[Line], view: ChartView, width: int, height: int) -> int:
    """Return the number of rows of the legend above the plot; it does not change with the crosshair."""
    if not lines or height < _MIN_HEIGHT_WITH_LEGEND:
        return 0
    n_entries, label_width, value_cells = len(lines), _longest_label(lines), _VALUE_CELLS
    if resolve_display(view.display, len(lines)) == "groups":
        slots = [slot for slot, _ in group_lines(lines).values()]
        n_entries = sum(slot != OTHER_SLOT for slot in slots) + (OTHER_SLOT in slots)
        label_width, value_cells = label_width + len(f" ×{len(lines)}"), _GROUP_VALUE_CELLS
    columns = max(1, width // _entry_width(label_width * view.names, value_cells, width))
    return min(-(-n_entries // columns), max(1, height // 4) if view.names else 1)


def _longest_label(lines: Sequence[Line]) -> int:
    labels = {line.group or line.label for line in lines if line.slot != OTHER_SLOT}
    return max(map(text.cell_width, labels), default=0)


def _entry_width(label_width: int, value_cells: int, width: int) -> int:
    """Return the width of an entry above the plot, with the gap to the next one."""
    return _GLYPH_CELLS + min(label_width, _MAX_TOP_LABEL, max(3, width - value_cells - 5)) + value_cells


def draw_top_legend(
    canvas: Canvas, entries: Sequence[LegendEntry], title: str, *, total: int | None = None, names: bool = True
) -> None:
    """Draw the legend on a canvas of its own, above the plot: entries side by side, best first.

    `total` is the number of lines if `entries` holds only the best of them; without `names` an entry is its glyph and
    its value.
    """
    if not canvas.height or not entries:
        return
    if title:
        canvas.put(1, 0, text.fit_to_width(title, min(text.cell_width(title), canvas.width)), TEXT)
    title_width = text.cell_width(title) + 3 if title else 0
    if names:
        _draw_named_entries(canvas, entries, title_width, total or len(entries))
    else:
        _draw_values(canvas, entries, title_width, total or len(entries))


def _draw_named_entries(canvas: Canvas, entries: Sequence[LegendEntry], title_width: int, total: int) -> None:
    """Draw glyphs, names and values in columns of equal width."""
    nominal = _GROUP_VALUE_CELLS if any(entry.spread for entry in entries) else _VALUE_CELLS
    value_cells = max([nominal, *(len(entry.numbers) + 2 for entry in entries)])
    value_cells = min(value_cells, max(_VALUE_CELLS, canvas.width - _GLYPH_CELLS - 3))
    entry_width = _entry_width(max(text.cell_width(entry.label) for entry in entries), value_cells, canvas.width)
    columns = max(1, canvas.width // entry_width)
    cells = [(column * entry_width, row) for row in range(canvas.height) for column in range(columns)]
    cells = cells[-(-title_width // entry_width) :]
    if total > min(len(cells), len(entries)) and cells:
        cells = cells[: len(entries) + 1]
        *cells, (column, row) = cells
        canvas.put(column + 1, row, f"and {total - len(cells)} more", LABEL)
    for entry, (column, row) in zip(entries, cells, strict=False):
        _draw_glyph(canvas, column, row, entry)
        label = text.fit_to_width(entry.label, entry_width - _GLYPH_CELLS - value_cells)
        ink = TEXT if entry.bright else LABEL
        canvas.put(column + _GLYPH_CELLS, row, label, ink, widths=text.cell_widths(label))
        numbers = entry.fit_numbers(min(value_cells - 2, canvas.width - column - entry_width + value_cells - 1))
        canvas.put(column + entry_width - value_cells + 1, row, numbers, TEXT if title_width else ink)


def _draw_values(canvas: Canvas, entries: Sequence[LegendEntry], column: int, total: int) -> None:
    """Draw glyphs and values in one row, as many as fit."""
    for index, entry in enumerate(entries):
        rest = f"+{total - index}"
        width = _GLYPH_CELLS + len(entry.numbers)
        if column + width + (1 + len(rest) if index < total - 1 else 0) > canvas.width:
            canvas.put(column, 0, rest, LABEL)
            return
        _draw_glyph(canvas, column, 0, entry)
        canvas.put(column + _GLYPH_CELLS, 0, entry.numbers, TEXT if entry.bright else LABEL)
        column += width + 1


def _draw_glyph(canvas: Canvas, column: int, row: int, entry: LegendEntry) -> None:
    canvas.put(column, row, f" {entry.glyph} ", line_ink(entry.slot, BRIGHT if entry.bright else LINE))


def draw_side_legend(
    canvas: Canvas, entries: Sequence[LegendEntry], title: str, side: int, *, total: int | None = None
) -> None:
    """Draw the legend beside the plot, `side` cells wide.

    `total` is the number of lines if `entries` holds only the best of them.
    """
    max_entries = max(1, canvas.height - bool(title))
    total = total or len(entries)
    entries = entries[: max_entries - 1] if total > min(max_entries, len(entries)) else entries
    hidden = total - len(entries)
    values = text.align_decimal_points([entry.numbers for entry in entries])
    x_texts = [entry.x for entry in entries]
    if len(set(x_texts)) == 1:
        x_texts = [""] * len(x_texts)
    value_width = len(values[0]) if values else 0
    longest = max((text.cell_width(entry.label) for entry in entries), default=0)
    if 6 + value_width + longest + max(map(len, x_texts), default=0) > side:  # the title says that there are means
        x_texts = [x_text.removeprefix(f"{_MEAN} ") for x_text in x_texts]
    x_width = max(map(len, x_texts), default=0)
    fixed_width = 5 + value_width + (x_width + 1 if x_width else 0)
    label_width = max(3, side - fixed_width)
    side = max(side, label_width + fixed_width)
    column, row = canvas.width - side, 0
    if title:
        canvas.put(column, row, text.fit_to_width(f" {title}", side), TEXT)
        row += 1
    for entry, value, x_text in zip(entries, values, x_texts, strict=True):
        ink = TEXT if entry.bright else LABEL
        label = text.fit_to_width(entry.label, label_width)
        _draw_glyph(canvas, column, row, entry)
        canvas.put(column + 3, row, label, ink, widths=text.cell_widths(label))
        canvas.put(column + 3 + label_width, row, f" {value} ", TEXT if title else ink)
        if x_width:
            canvas.put(column + side - x_width - 1, row, x_text.rjust(x_width), LABEL)
        row += 1
    if hidden:
        canvas.put(column, row, text.fit_to_width(f"   and {hidden} more", side), LABEL)
