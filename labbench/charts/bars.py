"""Bars of a metric that was logged once in each run: one bar per configuration, its seeds as dots."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from labbench import text
from labbench.charts.lines import Line
from labbench.charts.palette import BAND, BEST, BRIGHT, LABEL, LINE, TEXT, line_ink
from labbench.charts.plot.braille import Canvas
from labbench.charts.view import ChartView

_MAX_LABEL_SHARE = 0.4
_MIN_VALUE_CELLS = 11
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def is_logged_once(lines: Sequence[Line]) -> bool:
    """Return True if every line is a single point, so that a curve would show nothing."""
    return bool(lines) and all(len(line.series) == 1 for line in lines)


def draw_bars(lines: Sequence[Line], view: ChartView, width: int, height: int) -> Canvas:
    """Return a canvas with a bar for the mean of each group of lines, best first, and a dot for each of its seeds."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line.group or line.label, []).append(line)
    means = {name: _mean(members) for name, members in groups.items()}
    order = sorted(groups, key=lambda name: _rank(means[name], view))
    values = text.format_numbers([means[name] for name in order])
    widths = (max(text.cell_width(name) for name in order) if view.names else 0, max(map(len, values)))
    bars = _BarChart(lines, view, Canvas(width, height), widths)
    if bars.bar_width < 4:
        bars.canvas.put(0, height // 2, "too small", LABEL)
        return bars.canvas
    hidden = max(0, len(order) - height + 1) if len(order) > height else 0
    for row, name in enumerate(order[: len(order) - hidden]):
        bars.draw_row(row, name, groups[name], means[name], values[row])
        if row == 0 and len(order) > 1 and math.isfinite(means[name]):
            bars.canvas.put(bars.left + bars.bar_width, row, "★", BEST)
    if hidden:
        bars.canvas.put(3, height - 1, f"and {hidden} more", LABEL)
    return bars.canvas


class _BarChart:
    """Canvas with one row per group: glyph, name, bar and value."""

    def __init__(self, lines: Sequence[Line], view: ChartView, canvas: Canvas, widths: tuple[int, int]) -> None:
        """Create a chart; `widths` holds the widths of the longest label and the longest value in cells."""
        label_width, value_width = widths
        self.canvas, width = canvas, canvas.width
        self.highlighted = view.highlighted
        self.label_width = min(label_width, int(_MAX_LABEL_SHARE * width))
        self.left = self.label_width + 4
        self.bar_width = width - self.left - max(_MIN_VALUE_CELLS, value_width + 1)
        values = [value for line in lines if math.isfinite(value := float(line.series.y[0]))]
        self.low, self.high = min([0.0, *values]), max([0.0, *values])

    def draw_row(self, row: int, name: str, members: Sequence[Line], mean: float, value: str) -> None:
        """Draw a group with its mean, a number and its text."""
        highlighted = [line for line in members if line.key == self.highlighted]
        first, is_bright = (highlighted or members)[0], bool(highlighted)
        text_ink = TEXT if is_bright else LABEL
        self.canvas.put(0, row, f" {first.glyph} ", line_ink(first.slot, BRIGHT if is_bright else LINE))
        label = text.fit_to_width(name, self.label_width)
        self.canvas.put(3, row, label, text_ink, widths=text.cell_widths(label))
        self.canvas.put(self.left + self.bar_width + 1, row, value, text_ink)
        if math.isfinite(mean):
            ink = line_ink(first.slot, LINE if len(members) == 1 else BAND)
            self.canvas.put(self.left, row, _bar(_share(mean, self.low, self.high), self.bar_width), ink)
            self._draw_seeds(row, members if len(members) > 1 else (), line_ink(first.slot, BRIGHT))

    def _draw_seeds(self, row: int, members: Sequence[Line], ink: int) -> None:
        for line in members:
            value = float(line.series.y[0])
            if math.isfinite(value):
                column = self.left + round(_share(value, self.low, self.high) * (self.bar_width - 1))
                self.canvas.put(column, row, "•", ink)


def _mean(lines: Sequence[Line]) -> float:
    return float(np.mean([line.series.y[0] / len(lines) for line in lines]) * len(lines))


def _rank(mean: float, view: ChartView) -> float:
    if not math.isfinite(mean):
        return math.inf
    return mean if view.goal == "min" else -mean


def _share(value: float, low: float, high: float) -> float:
    span = high / 2 - low / 2  # halves, so that the difference is finite
    return 1.0 if span <= 0 else (value / 2 - low / 2) / span


def _bar(share: float, cells: int) -> str:
    eighths = round(share * cells * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
