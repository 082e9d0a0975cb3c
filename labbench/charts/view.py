"""View settings of a chart: axes, smoothing, display of many runs, zoom. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from labbench.metrics import Goal

XAxis: TypeAlias = Literal["step", "epoch", "time", "clock"]
"""`time` is the duration since the run's start, `clock` the time of day."""
X_AXES: tuple[XAxis, ...] = get_args(XAxis)
Display: TypeAlias = Literal["auto", "runs", "groups", "density"]
ResolvedDisplay: TypeAlias = Literal["runs", "groups", "density"]
DISPLAYS: tuple[Display, ...] = get_args(Display)
Range: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[float, float, float, float]
"""(left, right, low, high)."""

MAX_SEPARATE_LINES = 30
"""With more lines, `auto` draws groups: the best configurations in colour, the other lines in grey."""
_MIN_WINDOW_SHARE = 1e-9
"""Narrowest window as a fraction of the whole, limited by float precision."""


@dataclass(frozen=True, slots=True)
class ChartView:
    """View settings of one chart."""

    x_axis: XAxis = "step"
    log: bool = False
    log_x: bool = False
    smoothing: str = ""
    """Text that `parse_smoothing` accepts; "" for none."""
    highlighted: str | None = None
    goal: Goal = "min"
    display: Display = "auto"
    spread: str = "95 %"
    """Band of a group: `95 %`, `std` or `range`."""
    window: Range | None = None
    """Visible x range; None for all."""
    height: Range | None = None
    """Visible y range; None to fit the lines in the window."""
    crosshair: float | None = None
    """x value at which the legend shows the value of each line; None for the last values."""
    box: Box | None = None
    """Zoom box being drawn."""
    glyphs: bool = False
    """Draw glyphs along the lines, for terminals without colour."""
    names: bool = True
    """The legend has the names of the lines; False if a legend of several charts has them."""

    @property
    def without_cursor(self) -> ChartView:
        """The view without crosshair and zoom box, which are drawn over the cached drawing."""
        return replace(self, crosshair=None, box=None)


def resolve_display(display: Display, lines: int) -> ResolvedDisplay:
    """Resolve `auto` for a number of lines; other values are returned unchanged."""
    if display != "auto":
        return display
    return "runs" if lines <= MAX_SEPARATE_LINES else "groups"


def zoom_window(window: Range, whole: Range, factor: float, at: float | None = None) -> Range | None:
    """Return the window scaled by `factor` around `at` (default: its middle), clamped; None for the whole."""
    left, right = window
    at = (left + right) / 2 if at is None else min(max(at, left), right)
    width = max((right - left) * factor, (whole[1] - whole[0]) * _MIN_WINDOW_SHARE)
    if width >= whole[1] - whole[0]:
        return None
    fraction = (at - left) / (right - left)
    return _shift_into((at - fraction * width, at + (1 - fraction) * width), whole)


def pan_window(window: Range, whole: Range, fraction: float) -> Range:
    """Return the window moved by a fraction of its width, clamped to the whole."""
    move = fraction * (window[1] - window[0])
    return _shift_into((window[0] + move, window[1] + move), whole)


def _shift_into(window: Range, whole: Range) -> Range:
    """Return the window moved so that it lies inside `whole`."""
    move = max(0.0, whole[0] - window[0]) - max(0.0, window[1] - whole[1])
    return window[0] + move, window[1] + move


def change_on_axis(
    change: Callable[[Range, Range, float | None], Range | None],
    window: Range,
    whole: Range,
    at: float | None,
    *,
    log: bool,
) -> Range | None:
    """Apply a change of the window around `at` in screen space: to the logarithms on a logarithmic axis."""
    if not log:
        return change(window, whole, at)
    changed = change(_log_range(window), _log_range(whole), None if at is None else math.log10(at))
    return None if changed is None else (10.0 ** changed[0], 10.0 ** changed[1])


def _log_range(values: Range) -> Range:
    return math.log10(values[0]), math.log10(values[1])
