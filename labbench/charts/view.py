"""How charts are looked at: axes, smoothing, what is drawn for many runs, the part that is seen. No numpy here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from labbench.records import Goal

XAxis: TypeAlias = Literal["step", "epoch", "time", "clock"]
"""`time` is since the run's start, `clock` the time of day."""
X_AXES: tuple[XAxis, ...] = get_args(XAxis)
Display: TypeAlias = Literal["auto", "runs", "groups", "density"]
ResolvedDisplay: TypeAlias = Literal["runs", "groups", "density"]
DISPLAYS: tuple[Display, ...] = get_args(Display)
Range: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[float, float, float, float]
"""Left, right, low, high."""

MAX_SEPARATE_LINES = 30
"""More lines than this are a tangle: groups or density tell more."""
_MIN_WINDOW_SHARE = 1e-9
"""The narrowest window, as a share of the whole: floats end there."""


@dataclass(frozen=True, slots=True)
class ChartView:
    """How to look at the lines of one chart."""

    x_axis: XAxis = "step"
    log: bool = False
    log_x: bool = False
    smoothing: str = ""
    """As `parse_smoothing` reads it."""
    highlighted: str | None = None
    goal: Goal = "min"
    display: Display = "auto"
    spread: str = "95 %"
    """What the band of a group shows."""
    window: Range | None = None
    """The x values that are seen; None for all."""
    height: Range | None = None
    """The y values that are seen; None for what is in the window."""
    crosshair: float | None = None
    """An x value at which every line is read."""
    box: Box | None = None
    """One that is being drawn."""
    glyphs: bool = False
    """Lines carry their glyphs all along: where there are no colours."""

    @property
    def without_cursor(self) -> ChartView:
        """The view without what moves over the drawing."""
        return replace(self, crosshair=None, box=None)


def resolve_display(display: Display, lines: int, groups: int) -> ResolvedDisplay:
    """What is drawn of so many lines in so many groups."""
    if display != "auto":
        return display
    return "runs" if lines <= MAX_SEPARATE_LINES else "groups" if groups <= MAX_SEPARATE_LINES else "density"


def zoom_window(window: Range, whole: Range, factor: float, at: float | None = None) -> Range | None:
    """The window `factor` times as wide around `at` (its middle, if None), within the whole; None is the whole."""
    left, right = window
    at = (left + right) / 2 if at is None else min(max(at, left), right)
    width = max((right - left) * factor, (whole[1] - whole[0]) * _MIN_WINDOW_SHARE)
    if width >= whole[1] - whole[0]:
        return None
    share = (at - left) / (right - left)
    return _shift_into((at - share * width, at + (1 - share) * width), whole)


def pan_window(window: Range, whole: Range, share: float) -> Range:
    """The window moved by a share of its width, as far as there is something."""
    move = share * (window[1] - window[0])
    return _shift_into((window[0] + move, window[1] + move), whole)


def _shift_into(window: Range, whole: Range) -> Range:
    """The window moved back to where the whole is."""
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
    """A change of the window around a place, as it is seen: on a logarithmic axis, of the logarithms."""
    if not log:
        return change(window, whole, at)
    found = change(_log_range(window), _log_range(whole), None if at is None else math.log10(at))
    return None if found is None else (10.0 ** found[0], 10.0 ** found[1])


def _log_range(values: Range) -> Range:
    return math.log10(values[0]), math.log10(values[1])
