"""Charts with a visible window, a crosshair and a zoom box, moved by actions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from textual.app import ComposeResult
from textual.containers import Container

from labbench.charts.ticks import MAX_AXIS_VALUE, clamp
from labbench.charts.view import Box, Range, change_on_axis, pan_window, zoom_window
from labbench.tui.charts.page import ChartPage
from labbench.tui.charts.settings import ChartState
from labbench.tui.charts.widget import Chart

if TYPE_CHECKING:  # numpy is not imported before the first paint
    from labbench.charts.axes import Frame


class ZoomPanel(Container):
    """Page of linked charts with actions for the window, the crosshair and the zoom box."""

    def __init__(self, path: Path, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.page = ChartPage(path, box_on=self._box_on)
        self.keyboard_crosshair: float | None = None
        """x of the crosshair set by keys, restored when the mouse leaves."""
        self.box_start: float | None = None
        """x at which a zoom box was started by key."""
        self.mouse_box: tuple[Chart, Box] | None = None
        """Chart and zoom box being drawn with the mouse."""

    def compose(self) -> ComposeResult:
        yield self.page

    @property
    def settings(self) -> ChartState:
        """Settings of the charts on the page."""
        return self.page.settings

    def back(self) -> bool:
        """Cancel the box, hide the crosshair or reset the zoom; return False if there is none of them."""
        if self.box_start is not None:
            self.box_start = None
        elif self.page.crosshair is not None:
            self.page.crosshair = self.keyboard_crosshair = None
        elif self.settings.window or self.settings.heights:
            self.settings.window, self.settings.heights = None, {}
        else:
            return False
        self.page.draw()
        return True

    def can_show(self, x: float) -> bool:
        """Return True if the x axis can show a value; a logarithmic axis cannot show x <= 0."""
        return x > 0 or not self.settings.log_x

    # Zoom and pan

    def action_zoom(self, factor: float) -> None:
        self.zoom(factor, self.page.crosshair)

    def zoom(self, factor: float, at: float | None) -> None:
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

    def action_border(self, side: Literal["left", "right"]) -> None:
        whole = self.page.full_x_range()
        if whole is None or self.page.crosshair is None:
            return
        left, right = self.settings.visible_range(whole) or whole
        left, right = (self.page.crosshair, right) if side == "left" else (left, self.page.crosshair)
        self.show_range(left, right)

    def show_range(self, left: float, right: float) -> None:
        if left < right:
            self.settings.window, self.settings.follow = (left, right), False
        self.page.draw()

    def action_box(self) -> None:
        if self.page.crosshair is None:
            self.action_cross(1)
        if self.box_start is None:
            self.box_start = self.page.crosshair
            self.page.draw()
        elif self.page.crosshair is not None:
            left, right = sorted((self.box_start, self.page.crosshair))
            self.box_start = None
            self.show_range(left, right)

    def _box_on(self, chart: Chart) -> Box | None:
        """Return the zoom box over a chart: one drawn with the mouse, or one drawn by keys over all charts."""
        if self.mouse_box is not None:
            return self.mouse_box[1] if self.mouse_box[0] is chart else None
        if self.box_start is None or self.page.crosshair is None or chart.frame is None:
            return None
        left, right = sorted((self.box_start, self.page.crosshair))
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
        if x is None or not self.can_show(x):
            return
        self.page.crosshair = self.keyboard_crosshair = x = clamp(x, -MAX_AXIS_VALUE, MAX_AXIS_VALUE)
        window = self.settings.visible_range(self.page.full_x_range())
        if window is not None and not window[0] <= x <= window[1]:
            move = x - (window[0] if x < window[0] else window[1])
            self.settings.follow = False
            self.settings.window = (window[0] + move, window[1] + move)
        self.page.draw()
