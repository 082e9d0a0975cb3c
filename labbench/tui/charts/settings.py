"""Settings shared by all charts of a screen, as plain values that can be saved and restored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from labbench.charts.smoothing_spec import is_smoothing
from labbench.charts.ticks import MAX_AXIS_VALUE, clamp
from labbench.charts.view import DISPLAYS, X_AXES, ChartView, Display, Range, XAxis
from labbench.metrics import Goal
from labbench.records import RunRecord

SMOOTHING_PRESETS = ("", "ema 0.6", "ema 0.9", "ema 0.97")
"""Smoothings that the key cycles through; others can be typed."""
SPREADS = ("95 %", "std", "range")
PAGE_LAYOUTS = ((1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4), (4, 4))
"""(rows, columns) of charts on a page, from fewest to most."""
ONE_CHART, FOUR_CHARTS = PAGE_LAYOUTS.index((1, 1)), PAGE_LAYOUTS.index((2, 2))
_FOLLOWED_SHARE = 0.25
"""Fraction of the x range that follow mode shows without a zoom."""


@dataclass(slots=True)
class ChartState:
    """Settings changed by the keys of the charts."""

    x_axis: XAxis | None = None
    """None until there are metrics; then epoch if all finished runs have logged it, else step."""
    log: dict[str, bool] = field(default_factory=dict)
    """Metrics whose y axis was set to logarithmic (True) or linear (False); the others follow their values."""
    log_x: bool = False
    smoothing: str = ""
    display: Display = "auto"
    spread: str = SPREADS[0]
    window: Range | None = None
    """Visible x range of all charts; None for all."""
    heights: dict[str, Range] = field(default_factory=dict)
    """Visible y range by metric; absent to fit the lines."""
    follow: bool = False
    layout: int | None = None
    """Index in `PAGE_LAYOUTS`; None until one is chosen: four charts on a large screen, else one."""

    pattern: str = ""
    """Regular expression of the metrics on the page; "" for all."""

    def as_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON."""
        state = asdict(self)
        state["gather"] = state.pop("display")  # its key in saved views
        state["log"] = [metric for metric, is_log in self.log.items() if is_log]
        state["linear"] = [metric for metric, is_log in self.log.items() if not is_log]
        return state

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Restore settings from `as_json`; invalid fields (of another release, for example) are ignored."""

        def valid(name: str, choices: object) -> bool:
            return not isinstance(saved.get(name), float) and saved.get(name) in choices  # type: ignore[operator]

        pattern = saved.get("pattern")
        self.pattern = pattern if isinstance(pattern, str) and is_pattern(pattern) else ""
        heights, smoothing = saved.get("heights"), saved.get("smoothing")
        if valid("x_axis", X_AXES):
            self.x_axis = saved["x_axis"]
        if valid("gather", DISPLAYS):
            self.display = saved["gather"]
        if valid("spread", SPREADS):
            self.spread = saved["spread"]
        if valid("layout", range(len(PAGE_LAYOUTS))):
            self.layout = saved["layout"]
        logarithmic, linear = _strings(saved.get("log")), _strings(saved.get("linear"))
        self.log = dict.fromkeys(linear, False) | dict.fromkeys(logarithmic, True)
        self.log_x, self.follow = saved.get("log_x") is True, saved.get("follow") is True
        if isinstance(smoothing, str) and is_smoothing(smoothing):
            self.smoothing = smoothing
        self.window = _parse_range(saved.get("window"), positive=self.log_x)
        pairs = heights.items() if isinstance(heights, Mapping) else ()
        self.heights = {metric: parsed for metric, pair in pairs if (parsed := _parse_range(pair)) is not None}

    def view(
        self, metric: str, goal: Goal, *, is_steep: bool, highlighted: str | None, whole: Range | None
    ) -> ChartView:
        """Return the view settings of one metric's chart.

        Args:
            metric: Name of the metric.
            goal: Goal of the metric.
            is_steep: True if its values suit a logarithmic axis, the default then.
            highlighted: Key of the highlighted run.
            whole: Range of all x values.
        """
        return ChartView(
            x_axis=self.x_axis or "step",
            log=self.log.get(metric, is_steep),
            log_x=self.log_x,
            smoothing=self.smoothing,
            highlighted=highlighted,
            goal=goal,
            display=self.display,
            spread=self.spread,
            window=self.visible_range(whole),
            height=self.heights.get(metric),
        )

    def visible_range(self, whole: Range | None) -> Range | None:
        """Return the window, moved to the newest end in follow mode; None for all."""
        if not self.follow or whole is None:
            return self.window
        left, right = self.window or (0.0, _FOLLOWED_SHARE * (whole[1] - whole[0]))
        width = min(right - left, whole[1] - whole[0])
        return (whole[1] - width, whole[1]) if width > 0 else None

    def describe(self, metric: str, view: ChartView, displayed: str) -> str:
        """Return the settings as text for the title of a chart; `displayed` describes the display of many runs."""
        words = [
            "log y" if view.log else "",
            "log x" if self.log_x else "",
            self.smoothing,
            f"by {self.x_axis or 'step'}",
            displayed,
            "following" if self.follow else "zoomed" if self.window or metric in self.heights else "",
        ]
        return " · ".join(filter(None, words))


def is_pattern(words: str) -> bool:
    """Return True if a text is a regular expression."""
    try:
        re.compile(words)
    except re.error:
        return False
    return True


_AXES_BY_WORD: Mapping[str, XAxis] = {"step": "step", "steps": "step", "epoch": "epoch", "epochs": "epoch"}


def parse_window(words: str) -> tuple[float | None, float | None, XAxis | None]:
    """Return the ends of a window such as `0..100`, `..100`, `100..` or `100`, which is the first 100; None: open.

    `100 steps` and `5..10 epochs` also name the x axis; None: the present one.

    Raises ValueError, with a message for the user, for anything else.
    """
    numbers, axis = words.strip(), None
    for word, named_axis in _AXES_BY_WORD.items():
        if numbers.endswith(f" {word}"):
            numbers, axis = numbers.removesuffix(word), named_axis
    left, dots, right = numbers.strip().partition("..")
    if not dots:
        left, right = "", left
    try:
        ends = float(left) if left.strip() else None, float(right) if right.strip() else None
    except ValueError:
        raise ValueError("write two numbers such as 0..100, ..100 or 100.., or 100 steps") from None
    if ends[0] is not None and ends[1] is not None and not ends[0] < ends[1]:
        raise ValueError("the second number must be larger than the first")
    return *ends, axis


def recorded_x_range(runs: Sequence[RunRecord], axis: XAxis) -> Range:
    """Return the range of steps or epochs of the runs, for curves that have not been read yet."""
    epochs = [run.summary["epoch"].last for run in runs if "epoch" in run.summary]
    steps = [float(summary.last_step) for run in runs for summary in run.summary.values()]
    return 0.0, max(epochs if axis == "epoch" else steps, default=1.0)


def begins_at_zero(left: float, right: float, state: ChartState) -> bool:
    """Return True if the x axis starts at 0: a linear axis whose first value is close to 0."""
    return not state.log_x and state.x_axis != "clock" and 0 < left <= 0.1 * right


def _strings(saved: Any) -> list[str]:
    return [word for word in saved if isinstance(word, str)] if isinstance(saved, list) else []


def _parse_range(pair: Any, *, positive: bool = False) -> Range | None:
    """Return two ascending numbers clamped to the range of an axis, or None for anything else."""
    try:
        low, high = (clamp(float(border), -MAX_AXIS_VALUE, MAX_AXIS_VALUE) for border in pair)
    except (TypeError, ValueError, OverflowError):
        return None
    return (low, high) if low < high and (low > 0 or not positive) else None
