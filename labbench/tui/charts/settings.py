"""How the charts of a screen are looked at, all of them together; plain values that can be kept and restored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from labbench.charts.smoothing_spec import is_smoothing
from labbench.charts.ticks import MAX_AXIS_VALUE, clamp
from labbench.charts.view import DISPLAYS, X_AXES, ChartView, Display, Range, ResolvedDisplay, XAxis
from labbench.records import Goal

SMOOTHING_PRESETS = ("", "ema 0.6", "ema 0.9", "ema 0.97")
"""What the key goes through; any other can be typed."""
SPREADS = ("95 %", "std", "range")
PAGE_LAYOUTS = ((1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4), (4, 4))
"""(rows, columns) of charts on a page."""
_FOLLOWED_SHARE = 0.25
"""Of the whole: what follow mode shows where nothing was zoomed."""


@dataclass(slots=True)
class ChartState:
    """Everything that the keys of the charts change."""

    x_axis: XAxis | None = None
    """None until there are metrics: then by epoch where there are epochs."""
    log: list[str] = field(default_factory=list)
    """Metrics with a logarithmic y axis."""
    log_x: bool = False
    smoothing: str = ""
    display: Display = "auto"
    spread: str = SPREADS[0]
    window: Range | None = None
    """The x values that all charts show; None for all there are."""
    heights: dict[str, Range] = field(default_factory=dict)
    """The y values that a metric's chart shows."""
    follow: bool = False
    layout: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        state = asdict(self)
        state["gather"] = state.pop("display")  # its key in saved views
        return state

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take over what `as_json` gave; what does not fit (another release wrote it) is left as it is."""

        def valid(name: str, choices: object) -> bool:
            return not isinstance(kept.get(name), float) and kept.get(name) in choices  # type: ignore[operator]

        log, heights, smoothing = kept.get("log"), kept.get("heights"), kept.get("smoothing")
        if valid("x_axis", X_AXES):
            self.x_axis = kept["x_axis"]
        if valid("gather", DISPLAYS):
            self.display = kept["gather"]
        if valid("spread", SPREADS):
            self.spread = kept["spread"]
        if valid("layout", range(len(PAGE_LAYOUTS))):
            self.layout = kept["layout"]
        self.log = [metric for metric in log if isinstance(metric, str)] if isinstance(log, list) else []
        self.log_x, self.follow = kept.get("log_x") is True, kept.get("follow") is True
        if isinstance(smoothing, str) and is_smoothing(smoothing):
            self.smoothing = smoothing
        self.window = _parse_range(kept.get("window"), positive=self.log_x)
        pairs = heights.items() if isinstance(heights, Mapping) else ()
        self.heights = {metric: found for metric, pair in pairs if (found := _parse_range(pair)) is not None}

    def view(self, metric: str, goal: Goal, *, highlighted: str | None, whole: Range | None) -> ChartView:
        """How one metric's chart is drawn; `whole` is all x values there are."""
        return ChartView(
            x_axis=self.x_axis or "step",
            log=metric in self.log,
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
        """The window; in follow mode, as wide but at the newest end."""
        if not self.follow or whole is None:
            return self.window
        left, right = self.window or (0.0, _FOLLOWED_SHARE * (whole[1] - whole[0]))
        width = min(right - left, whole[1] - whole[0])
        return (whole[1] - width, whole[1]) if width > 0 else None

    def describe(self, metric: str, display: ResolvedDisplay, lines: int, groups: int) -> str:
        """In words, for the title of a chart."""
        many = {"runs": "", "groups": f"{groups} groups, {self.spread}", "density": f"density of {lines} runs"}
        words = [
            "log y" if metric in self.log else "",
            "log x" if self.log_x else "",
            self.smoothing,
            f"by {self.x_axis or 'step'}",
            many[display],
            "following" if self.follow else "zoomed" if self.window or metric in self.heights else "",
        ]
        return " · ".join(filter(None, words))


def begins_at_zero(left: float, right: float, state: ChartState) -> bool:
    """The axis begins at 0 where the first value is close to it."""
    return not state.log_x and state.x_axis != "clock" and 0 < left <= 0.1 * right


def _parse_range(pair: Any, *, positive: bool = False) -> Range | None:
    """Two ascending numbers that an axis can show, or None."""
    try:
        low, high = (clamp(float(border), -MAX_AXIS_VALUE, MAX_AXIS_VALUE) for border in pair)
    except (TypeError, ValueError, OverflowError):
        return None
    return (low, high) if low < high and (low > 0 or not positive) else None
