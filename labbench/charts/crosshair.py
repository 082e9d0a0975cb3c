"""Where the crosshair goes: along the points of the lines, as far apart as the screen can tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labbench.charts.axes import Frame, scale_value
from labbench.charts.lines import Line, best_point
from labbench.records import Goal

_MAX_STEPPED_LINES = 200
"""Lines whose points are stepped along."""


def step_crosshair(lines: Sequence[Line], x: float | None, steps: int, frame: Frame) -> float | None:
    """The x so many steps away: each goes to the next point of any line, or by a dot column where points are denser.

    Without an x, the first or last point in view.
    """
    arrays = [line.series.x for line in lines[:_MAX_STEPPED_LINES] if len(line.series)]
    if x is None:
        edge = frame.x_at(1.0 if steps < 0 else 0.0)
        return _next_point(arrays, edge, forward=steps > 0)
    for _ in range(abs(steps)):
        scaled = scale_value(x, frame.log_x)
        if scaled is None:
            return None
        dot = (frame.right - frame.left) / (2 * frame.width) * (1 - 1e-9)
        following = _next_point(arrays, frame.unscale_x(scaled + (dot if steps > 0 else -dot)), forward=steps > 0)
        if following is None:
            break
        x = following
    return x


def _next_point(arrays: Sequence[np.ndarray], x: float, *, forward: bool) -> float | None:
    """The first point of any line from x on, or the last one up to it."""
    found = []
    for values in arrays:
        place = int(values.searchsorted(x, side="left" if forward else "right")) - (not forward)
        if 0 <= place < len(values):
            found.append(float(values[place]))
    return (min if forward else max)(found, default=None)


def next_best_x(lines: Sequence[Line], x: float | None, direction: int, goal: Goal) -> float | None:
    """The next x, or the one before, at which a line has its best value; round at the ends."""
    places = sorted({place[0] for line in lines if (place := best_point(line.series, goal)) is not None})
    if not places:
        return None
    if direction > 0:
        return next((place for place in places if x is None or place > x), places[0])
    return next((place for place in reversed(places) if x is None or place < x), places[-1])
