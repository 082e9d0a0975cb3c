"""Charts controlled by keys and mouse: smoothing, axes, pages; zoom and crosshair are in `zoom_panel.py`.

Keys of a screen reach the charts through `perform`; more keys are active while the charts have the keyboard focus.
An action changes the settings of all charts and redraws them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from textual.binding import BindingType
from textual.message import Message

from labbench.charts.smoothing_spec import parse_smoothing
from labbench.charts.view import (
    X_AXES,
    ResolvedDisplay,
    XAxis,
)
from labbench.tui.charts.keys import PANEL_BINDINGS
from labbench.tui.charts.settings import (
    FOUR_CHARTS,
    ONE_CHART,
    PAGE_LAYOUTS,
    SMOOTHING_PRESETS,
    SPREADS,
    parse_window,
    recorded_x_range,
)
from labbench.tui.charts.widget import Chart
from labbench.tui.charts.zoom_panel import ZoomPanel
from labbench.tui.widgets.prompt import Prompt

_WHEEL_ZOOM_FACTOR = 0.8
_WHEEL_PAN_SHARE = 0.1


class ChartPanel(ZoomPanel, can_focus=True):
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
        super().__init__(path, id=id)
        self._multi_chart_layout = FOUR_CHARTS
        """Layout to restore after a single chart."""

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
        if self.page.crosshair is not None and not self.can_show(self.page.crosshair):
            self.page.crosshair = self.keyboard_crosshair = self.box_start = None
        self.page.draw()

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
            self._set_axis(axes[(index + 1) % len(axes)])

    def _set_axis(self, axis: XAxis) -> None:
        self.page.crosshair = self.keyboard_crosshair = self.box_start = None
        self.page.set_x_axis(axis)

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

    def action_window(self) -> None:
        hint = "0..100, ..100 or 100..; 100 is the first 100; 100 steps, 9 epochs; empty: all"
        prompt = Prompt("window", hint=hint, check=parse_window)
        self.app.push_screen(prompt, self._show_window)

    def _show_window(self, words: str | None) -> None:
        if words is None:
            return
        left, right, axis = parse_window(words)
        if axis is not None and axis != self.settings.x_axis:
            self._set_axis(axis)
        whole = self.page.full_x_range() or recorded_x_range(self.page.runs, axis or "step")
        if left is None and right is None:
            self.action_fit()
        else:
            self.show_range(whole[0] if left is None else left, whole[1] if right is None else right)
        self.post_message(self.SettingsChanged())

    def show_matching(self, pattern: str) -> None:
        """Show a page of the metrics that match a regular expression."""
        self.settings.pattern = pattern
        names = self.page.metrics()
        fitting = [index for index, (rows, columns) in enumerate(PAGE_LAYOUTS) if rows * columns >= len(names)]
        self.settings.layout = min(fitting, default=FOUR_CHARTS) if pattern else None
        self.page.chosen_metric = names[0] if names else None
        self.page.load_and_draw()

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
        self.page.crosshair = self.keyboard_crosshair if event.x is None else event.x
        self.page.draw()

    def on_chart_scrolled(self, event: Chart.Scrolled) -> None:
        event.stop()
        if event.sideways:
            self.action_pan(event.direction * _WHEEL_PAN_SHARE)
        else:
            self.zoom(_WHEEL_ZOOM_FACTOR if event.direction > 0 else 1 / _WHEEL_ZOOM_FACTOR, event.x)

    def on_chart_dragged(self, event: Chart.Dragged) -> None:
        event.stop()
        self.action_pan(-event.right)
        if event.up and event.chart.metric in self.settings.heights:
            self.action_lift(-event.up, event.chart)

    def on_chart_boxed(self, event: Chart.Boxed) -> None:
        event.stop()
        self.mouse_box = None if event.done else (event.chart, event.box)
        if not event.done:
            self.page.draw()
            return
        left, right, low, high = event.box
        frame = event.chart.frame
        if frame is not None and (low, high) != (frame.y_at(0.0), frame.y_at(1.0)):
            self.settings.heights[event.chart.metric] = (low, high)
        self.show_range(left, right)

    def on_chart_clicked(self, event: Chart.Clicked) -> None:
        event.stop()
        self.focus()
        self.page.chosen_metric = event.chart.metric or self.page.chosen_metric
        if event.times == 2:
            self.action_single()
        else:
            self.keyboard_crosshair = self.page.crosshair
            self.page.draw()
