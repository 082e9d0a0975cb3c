"""Charts controlled by keys and mouse: zoom, pan, crosshair, smoothing, axes, pages.

Keys of a screen reach the charts through `perform`; more keys are active while the charts have the keyboard focus.
An action changes the settings of all charts and redraws them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.message import Message

from labbench.charts.smoothing_spec import parse_smoothing
from labbench.charts.ticks import MAX_AXIS_VALUE, clamp
from labbench.charts.view import (
    X_AXES,
    Box,
    Range,
    ResolvedDisplay,
    change_on_axis,
    pan_window,
    zoom_window,
)
from labbench.tui.charts.keys import PANEL_BINDINGS
from labbench.tui.charts.page import ChartPage
from labbench.tui.charts.settings import (
    FOUR_CHARTS,
    ONE_CHART,
    PAGE_LAYOUTS,
    SMOOTHING_PRESETS,
    SPREADS,
    ChartState,
    parse_window,
)
from labbench.tui.charts.widget import Chart
from labbench.tui.widgets.prompt import Prompt

if TYPE_CHECKING:  # numpy is not imported before the first paint
    from labbench.charts.axes import Frame

_WHEEL_ZOOM_FACTOR = 0.8
_WHEEL_PAN_SHARE = 0.1


class ChartPanel(Container, can_focus=True):
    """Page of linked charts with actions for keys and mouse."""

    DEFAULT_CSS = """
    ChartPanel:focus Chart { border: round $primary 60%; }
    ChartPanel:focus Chart.-chosen { border: round $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*PANEL_BINDINGS]

    class MetricChosen(Message):
        """One metric was chosen from several charts."""

        def __init__(self, metric: str) -> None:
            self.metric = metric
            super().__init__()

    class SettingsChanged(Message):
        """A setting was changed in a dialog."""

    class RunStepRequested(Message):
        """The next or previous run was requested."""

        def __init__(self, direction: int) -> None:
            self.direction = direction
            super().__init__()

    def __init__(self, path: Path, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.page = ChartPage(path, box_on=self._box_on)
        self._keyboard_crosshair: float | None = None
        """x of the crosshair set by keys, restored when the mouse leaves."""
        self._anchor: float | None = None
        """x at which a zoom box was started by key."""
        self._box: tuple[Chart, Box] | None = None
        """Chart and zoom box being drawn with the mouse."""
        self._multi_chart_layout = FOUR_CHARTS
        """Layout to restore after a single chart."""

    def compose(self) -> ComposeResult:
        yield self.page

    @property
    def settings(self) -> ChartState:
        """Settings of the charts on the page."""
        return self.page.settings

    def perform(self, name: str, *arguments: Any) -> None:
        """Perform a chart action by name, for a key of the screen."""
        getattr(self, f"action_{name}")(*arguments)

    def state(self) -> dict[str, Any]:
        """Return the settings to save, as plain JSON."""
        return self.settings.as_json()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore settings from `state`."""
        self.settings.restore(state)
        self.page.load_and_draw()

    def back(self) -> bool:
        """Cancel the box, hide the crosshair or reset the zoom; return False if there is none of them."""
        if self._anchor is not None:
            self._anchor = None
        elif self.page.crosshair is not None:
            self.page.crosshair = self._keyboard_crosshair = None
        elif self.settings.window or self.settings.heights:
            self.settings.window, self.settings.heights = None, {}
        else:
            return False
        self.page.draw()
        return True

    # Display settings

    def action_log(self) -> None:
        if self.page.chosen_metric is not None:
            metric = self.page.chosen_metric
            self.settings.log[metric] = not self.settings.log.get(metric, self.page.is_steep(metric))
            self.settings.heights.pop(metric, None)
            self.page.draw()

    def action_log_x(self) -> None:
        self.settings.log_x = not self.settings.log_x
        self.settings.window = None
        if self.page.crosshair is not None and not self._can_show(self.page.crosshair):
            self.page.crosshair = self._keyboard_crosshair = self._anchor = None
        self.page.draw()

    def _can_show(self, x: float) -> bool:
        """Return True if the x axis can show a value; a logarithmic axis cannot show x <= 0."""
        return x > 0 or not self.settings.log_x

    def action_smooth(self, direction: int) -> None:
        smoothing = self.settings.smoothing
        index = SMOOTHING_PRESETS.index(smoothing) if smoothing in SMOOTHING_PRESETS else 0
        self.settings.smoothing = SMOOTHING_PRESETS[(index + direction) % len(SMOOTHING_PRESETS)]
        self.page.draw()

    def action_smooth_by(self) -> None:
        hint = "ema 0.9: weight of the past   mean 21, gauss 5: points   none"
        prompt = Prompt("smoothing", value=self.settings.smoothing, hint=hint, check=parse_smoothing)
        self.app.push_screen(prompt, self._apply_smoothing)

    def _apply_smoothing(self, words: str | None) -> None:
        if words is not None:
            smoothing = parse_smoothing(words)
            self.settings.smoothing = str(smoothing) if smoothing else ""
            self.page.draw()

    def action_axis(self) -> None:
        axes = [axis for axis in X_AXES if axis != "epoch" or axis in self.page.goals]
        if self.settings.x_axis is not None:
            index = axes.index(self.settings.x_axis) if self.settings.x_axis in axes else -1  # no run logged epochs
            self.page.crosshair = self._keyboard_crosshair = self._anchor = None
            self.page.set_x_axis(axes[(index + 1) % len(axes)])

    def action_display(self) -> None:
        order: tuple[ResolvedDisplay, ...] = ("runs", "groups", "density")
        following = order[(order.index(self.page.run_display()) + 1) % len(order)]
        self.settings.display = following
        if self.page.run_display() == self.page.run_display("auto"):
            self.settings.display = "auto"
        self.page.load_and_draw()

    def action_spread(self) -> None:
        self.settings.spread = SPREADS[(SPREADS.index(self.settings.spread) + 1) % len(SPREADS)]
        self.page.draw()

    # Zoom and pan

    def action_zoom(self, factor: float) -> None:
        self._zoom(factor, self.page.crosshair)

    def _zoom(self, factor: float, at: float | None) -> None:
        whole = self.page.full_x_range()
        if whole is None:
            return
        window = self.settings.visible_range(whole) or whole
        at = window[1] if at is None and self.settings.follow else at

        def change(scaled_window: Range, scaled_whole: Range, center: float | None) -> Range | None:
            return zoom_window(scaled_window, scaled_whole, factor, center)

        self.settings.window = change_on_axis(change, window, whole, at, log=self.settings.log_x)
        self.page.draw()

    def action_pan(self, fraction: float) -> None:
        whole = self.page.full_x_range()
        if whole is None or self.settings.window is None:
            return
        self.settings.follow = False
        self.settings.window = change_on_axis(
            lambda scaled_window, scaled_whole, _: pan_window(scaled_window, scaled_whole, fraction),
            self.settings.window, whole, None, log=self.settings.log_x,
        )  # fmt: skip
        self.page.draw()

    def action_lift(self, fraction: float, chart: Chart | None = None) -> None:
        self._show_heights(chart or self.page.chosen_chart(), fraction, 1 + fraction)

    def action_stretch(self, factor: float) -> None:
        self._show_heights(self.page.chosen_chart(), 0.5 - factor / 2, 0.5 + factor / 2)

    def _show_heights(self, chart: Chart | None, low: float, high: float) -> None:
        """Set the y range of a chart to the values at two fractions of its current height."""
        if chart is not None and chart.frame is not None:
            frame = self._with_set_heights(chart.metric, chart.frame)
            self.settings.heights[chart.metric] = (frame.y_at(low), frame.y_at(high))
            self.page.draw()

    def _with_set_heights(self, metric: str, frame: Frame) -> Frame:
        """Return the frame of a chart with the y range set last, which may not be drawn yet."""
        from labbench.charts.axes import axis_range, scale_value  # imports numpy, which the lines have loaded by now

        if metric not in self.settings.heights:
            return frame
        low, high = (scale_value(y, frame.log_y) for y in self.settings.heights[metric])
        if low is None or high is None:
            return frame
        low, high = axis_range(low, high, frame.log_y, padding=0.0)
        return replace(frame, low=low, high=high)

    def action_fit(self) -> None:
        self.settings.window, self.settings.heights, self.settings.follow = None, {}, False
        self.page.draw()

    def action_follow(self) -> None:
        self.settings.follow = not self.settings.follow
        self.page.draw()

    def action_window(self) -> None:
        hint = "0..100, ..100 or 100.. on the x axis; 100 is the first 100; empty shows all"
        prompt = Prompt("window", hint=hint, check=parse_window)
        self.app.push_screen(prompt, self._show_window)

    def _show_window(self, words: str | None) -> None:
        whole = self.page.full_x_range()
        if words is None or whole is None:
            return
        left, right = parse_window(words)
        if left is None and right is None:
            self.action_fit()
        else:
            self._show_range(whole[0] if left is None else left, whole[1] if right is None else right)
        self.post_message(self.SettingsChanged())

    def show_matching(self, pattern: str) -> None:
        """Show a page of the metrics that match a regular expression."""
        self.settings.pattern = pattern
        names = self.page.metrics()
        fitting = [index for index, (rows, columns) in enumerate(PAGE_LAYOUTS) if rows * columns >= len(names)]
        self.settings.layout = min(fitting, default=FOUR_CHARTS) if pattern else None
        self.page.chosen_metric = names[0] if names else None
        self.page.load_and_draw()

    def action_border(self, side: Literal["left", "right"]) -> None:
        whole = self.page.full_x_range()
        if whole is None or self.page.crosshair is None:
            return
        left, right = self.settings.visible_range(whole) or whole
        left, right = (self.page.crosshair, right) if side == "left" else (left, self.page.crosshair)
        self._show_range(left, right)

    def _show_range(self, left: float, right: float) -> None:
        if left < right:
            self.settings.window, self.settings.follow = (left, right), False
        self.page.draw()

    def action_box(self) -> None:
        if self.page.crosshair is None:
            self.action_cross(1)
        if self._anchor is None:
            self._anchor = self.page.crosshair
            self.page.draw()
        elif self.page.crosshair is not None:
            left, right = sorted((self._anchor, self.page.crosshair))
            self._anchor = None
            self._show_range(left, right)

    def _box_on(self, chart: Chart) -> Box | None:
        """Return the zoom box over a chart: one drawn with the mouse, or one drawn by keys over all charts."""
        if self._box is not None:
            return self._box[1] if self._box[0] is chart else None
        if self._anchor is None or self.page.crosshair is None or chart.frame is None:
            return None
        left, right = sorted((self._anchor, self.page.crosshair))
        return left, right, chart.frame.y_at(0.0), chart.frame.y_at(1.0)

    # The crosshair

    def action_cross(self, steps: int) -> None:
        from labbench.charts.crosshair import step_crosshair

        chart = self.page.chosen_chart()
        if chart is not None and chart.frame is not None:
            lines = self.page.lines_of(self.page.chosen_metric)
            self._move_crosshair(step_crosshair(lines, self.page.crosshair, steps, chart.frame))

    def action_best(self, direction: int) -> None:
        from labbench.charts.crosshair import next_best_x

        if self.page.chosen_metric is not None:
            goal = self.page.goals[self.page.chosen_metric]
            self._move_crosshair(
                next_best_x(self.page.lines_of(self.page.chosen_metric), self.page.crosshair, direction, goal)
            )

    def _move_crosshair(self, x: float | None) -> None:
        """Move the crosshair to x and scroll it into view."""
        if x is None or not self._can_show(x):
            return
        self.page.crosshair = self._keyboard_crosshair = x = clamp(x, -MAX_AXIS_VALUE, MAX_AXIS_VALUE)
        window = self.settings.visible_range(self.page.full_x_range())
        if window is not None and not window[0] <= x <= window[1]:
            move = x - (window[0] if x < window[0] else window[1])
            self.settings.follow = False
            self.settings.window = (window[0] + move, window[1] + move)
        self.page.draw()

    # Pages

    def action_layout(self, direction: int) -> None:
        needed = len(self.page.metrics())
        sufficient = [index for index, (rows, columns) in enumerate(PAGE_LAYOUTS) if rows * columns >= needed]
        largest = min(sufficient, default=len(PAGE_LAYOUTS) - 1)
        self.settings.layout = min(max(self.page.layout_index() + direction, ONE_CHART), largest)
        self.page.load_and_draw()

    def action_single(self) -> None:
        if (layout := self.page.layout_index()) != ONE_CHART:
            self._multi_chart_layout, self.settings.layout = layout, ONE_CHART
            if self.page.chosen_metric is not None:
                self.post_message(self.MetricChosen(self.page.chosen_metric))
        else:
            self.settings.layout = self._multi_chart_layout
        self.page.load_and_draw()

    def action_choose(self, direction: int) -> None:
        names = self.page.metrics()
        if self.page.chosen_metric in names:
            self.page.chosen_metric = names[(names.index(self.page.chosen_metric) + direction) % len(names)]
            self.page.load_and_draw()

    def action_page(self, direction: int) -> None:
        names, (rows, columns) = self.page.metrics(), PAGE_LAYOUTS[self.page.layout_index()]
        if self.page.chosen_metric in names:
            self.page.chosen_metric = names[
                min(max(names.index(self.page.chosen_metric) + direction * rows * columns, 0), len(names) - 1)
            ]
            self.page.load_and_draw()

    def action_run(self, direction: int) -> None:
        self.post_message(self.RunStepRequested(direction))

    # The mouse

    def on_chart_pointed(self, event: Chart.Pointed) -> None:
        event.stop()
        self.page.crosshair = self._keyboard_crosshair if event.x is None else event.x
        self.page.draw()

    def on_chart_scrolled(self, event: Chart.Scrolled) -> None:
        event.stop()
        if event.sideways:
            self.action_pan(event.direction * _WHEEL_PAN_SHARE)
        else:
            self._zoom(_WHEEL_ZOOM_FACTOR if event.direction > 0 else 1 / _WHEEL_ZOOM_FACTOR, event.x)

    def on_chart_dragged(self, event: Chart.Dragged) -> None:
        event.stop()
        self.action_pan(-event.right)
        if event.up and event.chart.metric in self.settings.heights:
            self.action_lift(-event.up, event.chart)

    def on_chart_boxed(self, event: Chart.Boxed) -> None:
        event.stop()
        self._box = None if event.done else (event.chart, event.box)
        if not event.done:
            self.page.draw()
            return
        left, right, low, high = event.box
        frame = event.chart.frame
        if frame is not None and (low, high) != (frame.y_at(0.0), frame.y_at(1.0)):
            self.settings.heights[event.chart.metric] = (low, high)
        self._show_range(left, right)

    def on_chart_clicked(self, event: Chart.Clicked) -> None:
        event.stop()
        self.focus()
        self.page.chosen_metric = event.chart.metric or self.page.chosen_metric
        if event.times == 2:
            self.action_single()
        else:
            self._keyboard_crosshair = self.page.crosshair
            self.page.draw()
