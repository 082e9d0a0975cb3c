"""Static charts of `labbench plot`; the only module that imports plotext.

plotext aborts the whole process on a NaN and is slow with long series: curves are split at non-finite values and
thinned first. Its logarithmic axis misplaces ticks: values are passed as logarithms, with ticks from `charts.ticks`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotext

from labbench.charts.series import Floats, split_at_gaps, thin, value_range
from labbench.charts.ticks import MIN_AXIS_EXTENT, Ticks, clamp, linear_ticks, log_ticks
from labbench.text import cell_width, clean, fit_to_width

MAX_POINTS = 300
"""Maximum number of points per curve; more points slow plotext down without a visible difference."""

_MAX_VALUE = 1e300
"""Larger values are clipped: plotext multiplies before it divides, which would overflow."""

MAX_LEGEND_ENTRIES = 10
"""Maximum number of curves in the legend; a longer legend would hide the curves."""

MAX_LEGEND_CELLS = 40
MIN_ROWS = 10
"""Smallest height of a chart above its legend."""
COLOURS = (33, 208, 35, 170, 178, 39, 203, 107, 99, 244)
LETTER_MARKERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class NamedSeries:
    """A named series: x ascending and y of any float, both of shape (N,)."""

    name: str
    x: Floats
    y: Floats


@dataclass(frozen=True, slots=True)
class PlotCanvas:
    """Size of a chart in cells, with or without colour."""

    columns: int
    rows: int
    colour: bool = True


def draw_curves(
    curves: Sequence[NamedSeries],
    canvas: PlotCanvas,
    *,
    title: str,
    x_label: str,
    log: bool = False,
    falling: bool = True,
) -> str:
    """Return a chart of the curves as text that fills the canvas.

    On a log axis, values that are not positive are gaps. The legend is in the upper right corner for `falling`
    curves, else in the lower right. Without colour, each curve is drawn with its own letter, and the legend is below
    the chart.
    """
    colour = canvas.colour
    legend = [] if colour or len(curves) < 2 else _legend_lines(curves, canvas.columns)
    columns, rows = canvas.columns, max(MIN_ROWS, canvas.rows - len(legend))
    pieces = [(index, x, y) for index, curve in enumerate(curves) for x, y in _drawable_pieces(curve, log=log)]
    x_range = value_range([x for _, x, _ in pieces])
    y_range = value_range([y for _, _, y in pieces])
    if x_range is None or y_range is None:
        return f"{clean(title)}: nothing to draw, no value is finite{' and positive' if log else ''}"
    x_range, y_range = _widen_range(x_range), _widen_range(y_range)
    plotext.terminal.limit(False, False)
    figure = plotext.figure
    figure.clear()
    figure.plot_size(columns, rows)
    figure.theme("simple")
    figure.title(clean(title))
    figure.label(clean(x_label), "x")
    _draw_pieces(pieces, curves, colour=colour)
    if len(curves) > 1 and colour:
        corner = (y_range[1], "top") if falling else (y_range[0], "bottom")
        figure.legend(x=x_range[1], y=corner[0], ha="right", va=corner[1], relative=True)
    _set_axis("x", x_range, linear_ticks(*x_range, max(2, columns // 14)))
    _set_axis("y", y_range, _log_scaled_ticks(y_range, rows // 4) if log else linear_ticks(*y_range, rows // 4))
    text: str = figure.build().string(colorless=not colour)
    return "\n".join([text.rstrip("\n"), *legend])


def _legend_lines(curves: Sequence[NamedSeries], columns: int) -> list[str]:
    """Return lines with the letter and the name of every curve."""
    names = [fit_to_width(clean(curve.name), MAX_LEGEND_CELLS).rstrip() for curve in curves]
    entries = [f"{LETTER_MARKERS[index % len(LETTER_MARKERS)]} {name}" for index, name in enumerate(names)]
    width = max(map(cell_width, entries)) + 3
    per_line = max(1, columns // width)
    rows = [entries[start : start + per_line] for start in range(0, len(entries), per_line)]
    return ["".join(fit_to_width(entry, width) for entry in row).rstrip() for row in rows]


def _drawable_pieces(curve: NamedSeries, *, log: bool) -> list[tuple[Floats, Floats]]:
    """Return the finite pieces of a curve, thinned to about `MAX_POINTS` points in all."""
    x, y = np.clip(curve.x, -_MAX_VALUE, _MAX_VALUE), curve.y
    if log:
        with np.errstate(divide="ignore", invalid="ignore"):
            y = np.log10(y)
    pieces = [(along, np.clip(piece, -_MAX_VALUE, _MAX_VALUE)) for along, piece in split_at_gaps(x, y)]
    points_per_piece = max(4, MAX_POINTS // max(1, len(pieces)))
    return [thin(x, y, points_per_piece) for x, y in pieces]


def _draw_pieces(pieces: Sequence[tuple[int, Floats, Floats]], curves: Sequence[NamedSeries], *, colour: bool) -> None:
    """Draw pieces of curves, each with the index of its curve, and enter the first curves in the legend."""
    named: set[int] = set()
    for index, x, y in pieces:
        signal = plotext.figure.signal(x.tolist(), y.tolist(), marker=_marker(index, colour=colour)).lines()
        if colour and index not in named and index < MAX_LEGEND_ENTRIES:
            signal.label(fit_to_width(clean(curves[index].name), MAX_LEGEND_CELLS).rstrip())
            named.add(index)
        plotext.figure.draw(signal)


def _widen_range(extent: tuple[float, float]) -> tuple[float, float]:
    """Return the range, widened if it is hardly more than a single value."""
    low, high = extent
    size = max(abs(low), abs(high))
    if high - low > max(MIN_AXIS_EXTENT, 1e-13 * size):
        return extent
    margin = 0.5 * size if size > MIN_AXIS_EXTENT else 0.5
    return low - margin, high + margin


def _log_scaled_ticks(extent: tuple[float, float], max_ticks: int) -> Ticks:
    """Return ticks at the logarithms of round values, labelled with the values."""
    low, high = (10.0 ** clamp(border, -300.0, 307.0) for border in extent)
    ticks = log_ticks(low, high, max(2, max_ticks))
    return Ticks(tuple(math.log10(value) for value in ticks.values), ticks.labels)


def _set_axis(axis: str, extent: tuple[float, float], ticks: Ticks) -> None:
    ruler = plotext.figure.ruler(axis)
    ruler.lim(*extent)
    ruler.ticks(list(ticks.values), list(ticks.labels))


def _marker(index: int, *, colour: bool) -> object:
    if colour:
        return plotext.marker("braille", COLOURS[index % len(COLOURS)])
    return LETTER_MARKERS[index % len(LETTER_MARKERS)]
