"""Bars of a metric that was logged once in each run: one bar a configuration, the seeds as dots."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from labbench import text
from labbench.charts.braille import Canvas
from labbench.charts.lines import Line
from labbench.charts.palette import BAND, BEST, BRIGHT, LABEL, LINE, TEXT, line_ink
from labbench.charts.view import ChartView

_MAX_LABEL_SHARE = 0.4
_VALUE_CELLS = 11
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def is_logged_once(lines: Sequence[Line]) -> bool:
    """Return True if every line is a single point, so that a curve would show nothing."""
    return bool(lines) and all(len(line.series) == 1 for line in lines)


def draw_bars(lines: Sequence[Line], view: ChartView, width: int, height: int) -> Canvas:
    """Return a canvas with a bar for the mean of each group of lines, best first, and a dot for each of its seeds."""
    canvas = Canvas(width, height)
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line.group or line.label, []).append(line)
    means = {name: _mean(members) for name, members in groups.items()}
    order = sorted(groups, key=lambda name: _rank(means[name], view))
    longest = max(text.cell_width(name) for name in order) if view.names else 0
    label_width = min(longest, int(_MAX_LABEL_SHARE * width))
    left = label_width + 4
    bar_width = width - left - _VALUE_CELLS
    if bar_width < 4:
        canvas.put(0, height // 2, "too small", LABEL)
        return canvas
    values = [value for line in lines if math.isfinite(value := float(line.series.y[0]))]
    low, high = min([0.0, *values]), max([0.0, *values])
    hidden = max(0, len(order) - height + 1) if len(order) > height else 0
    for row, name in enumerate(order[: len(order) - hidden]):
        members = groups[name]
        is_bright = any(line.key == view.highlighted for line in members)
        first = next((line for line in members if line.key == view.highlighted), members[0])
        canvas.put(0, row, f" {first.glyph} ", line_ink(first.slot, BRIGHT if is_bright else LINE))
        label = text.fit_to_width(name, label_width)
        canvas.put(3, row, label, TEXT if is_bright else LABEL, widths=text.cell_widths(label))
        mean = means[name]
        canvas.put(left + bar_width + 1, row, text.format_number(mean), TEXT if is_bright else LABEL)
        if not math.isfinite(mean):
            continue
        ink = line_ink(first.slot, LINE if len(members) == 1 else BAND)
        canvas.put(left, row, _bar(_share(mean, low, high), bar_width), ink)
        if len(members) > 1:
            for line in members:
                value = float(line.series.y[0])
                if math.isfinite(value):
                    column = left + round(_share(value, low, high) * (bar_width - 1))
                    canvas.put(column, row, "•", line_ink(first.slot, BRIGHT))
        if row == 0 and len(order) > 1:
            canvas.put(left + bar_width, row, "★", BEST)
    if hidden:
        canvas.put(3, height - 1, f"and {hidden} more", LABEL)
    return canvas


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
