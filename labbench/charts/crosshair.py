"""Movement of the crosshair along the points of the lines, at least one dot column at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labbench.charts.axes import Frame, scale_value
from labbench.charts.lines import Line
from labbench.metrics import Goal

_MAX_STEPPED_LINES = 200
"""Maximum number of lines whose points the crosshair stops at."""


def step_crosshair(lines: Sequence[Line], x: float | None, steps: int, frame: Frame) -> float | None:
    """Return the x value after `steps` steps to the right (to the left if negative); None without points.

    A step goes to the next point of any line, or by one dot column where points are denser. Without an x, the
    crosshair starts at the first or last point in view.
    """
    stepped = [line.series for line in lines[:_MAX_STEPPED_LINES] if len(line.series)]
    arrays = [series.x for series in stepped] + [series.exact.x for series in stepped if series.exact is not None]
    if x is None:
        edge = frame.x_at(1.0 if steps < 0 else 0.0)
        return _next_point(arrays, edge, forward=steps > 0)
    for _ in range(abs(steps)):
        scaled = scale_value(x, frame.log_x)
        if scaled is None:
            return None
        dot = (frame.right - frame.left) / (2 * frame.width) * (1 - 1e-9)
        following = _next_point(arrays, frame.unscale_x(scaled + (dot if steps > 0 else -dot)), forward=steps > 0)
        if following is None:  # the last points may be closer than one dot column
            ends = [float(values[-1] if steps > 0 else values[0]) for values in arrays]
            return max([x, *ends]) if steps > 0 else min([x, *ends])
        x = following
    return x


def _next_point(arrays: Sequence[np.ndarray], x: float, *, forward: bool) -> float | None:
    """Return the nearest x of any line's points; None if there is none.

    It is at or after x if `forward`, else at or before x. `arrays` are the x values of the lines, shape (N,) each.
    """
    candidates = []
    for values in arrays:
        index = int(values.searchsorted(x, side="left" if forward else "right")) - (not forward)
        if 0 <= index < len(values):
            candidates.append(float(values[index]))
    return (min if forward else max)(candidates, default=None)


def next_best_x(lines: Sequence[Line], x: float | None, direction: int, goal: Goal) -> float | None:
    """Return the next or previous x at which a line has its best value, wrapping around; None without values."""
    best_xs = sorted({point[0] for line in lines if (point := line.best_point(goal)) is not None})
    if not best_xs:
        return None
    if direction > 0:
        return next((best_x for best_x in best_xs if x is None or best_x > x), best_xs[0])
    return next((best_x for best_x in reversed(best_xs) if x is None or best_x < x), best_xs[-1])
