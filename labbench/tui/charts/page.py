"""Page of charts of one or several metrics over the same runs.

All charts share the x axis, its window and the crosshair. Cached series are drawn at once; missing ones are read in
a thread worker and drawn afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import on
from textual.containers import Container

from labbench import text
from labbench.charts.glyphs import OTHER_SLOT
from labbench.charts.ticks import MAX_AXIS_VALUE, clamp
from labbench.charts.view import Box, Display, Range, ResolvedDisplay, XAxis, resolve_display
from labbench.metrics import Goal, page_order, suits_log_axis
from labbench.records import RunRecord
from labbench.tui.charts.labels import leader_slots
from labbench.tui.charts.page_legend import PageLegend
from labbench.tui.charts.series_cache import without_other_axis
from labbench.tui.charts.series_container import SeriesContainer
from labbench.tui.charts.settings import FOUR_CHARTS, ONE_CHART, PAGE_LAYOUTS, ChartState, begins_at_zero
from labbench.tui.charts.widget import Chart

if TYPE_CHECKING:  # numpy is not imported before the first paint
    from labbench.charts.lines import Line

_LARGE_SCREEN = (160, 40)
"""Minimum columns and rows of a screen for a page of four charts."""
_MIN_TWO_COLUMNS = 64
"""Minimum width of a page in cells for all columns of its layout."""
_SPREAD_WORDS = {"95 %": "± 95 % of the mean", "std": "± standard deviation", "range": "from lowest to highest"}
"""Meaning of the band of a group."""
_MAX_LEADERS_IN_FULL = 100
"""Maximum number of runs of the best configurations that are read in full among very many runs."""


class ChartPage(SeriesContainer):
    """A page of linked charts."""

    DEFAULT_CSS = """
    ChartPage { width: 100%; height: 100%; }
    ChartPage #charts { layout: grid; grid-size: 1 1; width: 100%; height: 1fr; }
    ChartPage Chart { height: 100%; width: 100%; }
    """

    def __init__(self, path: Path, *, box_on: Callable[[Chart], Box | None]) -> None:
        """Create a page for a database; `box_on` returns the zoom box being drawn over a chart."""
        super().__init__(path)
        self._box_on = box_on
        self.settings = ChartState()
        self.chosen_metric: str | None = None
        """Metric of the chart that keys act on."""
        self.crosshair: float | None = None
        self.slots: Mapping[str, int] = {}
        """Colour slots of the runs by key, as drawn."""
        self._runs: Sequence[RunRecord] = ()
        self._marks: Mapping[str, int] = {}
        self._group_names: Mapping[str, str] = {}
        self._leaders: tuple[object, dict[str, int]] = (None, {})
        self._highlighted: str | None = None
        self.goals: Mapping[str, Goal] = {}
        self._default_metric: str | None = None
        self._lines: dict[str, list[Line]] = {}
        self._n_left_out: dict[str, int] = {}
        """Number of runs, by metric, that have not logged the x axis of their group."""

    def compose(self) -> Any:
        yield PageLegend()
        with Container(id="charts"):
            yield Chart()

    def on_mount(self) -> None:
        self._layout_charts()

    # Contents

    def show(
        self,
        runs: Sequence[RunRecord],
        *,
        marks: Mapping[str, int],
        highlighted: str | None,
        metrics: Mapping[str, Goal],
        metric: str | None,
        group_names: Mapping[str, str] | None = None,
    ) -> None:
        """Show runs; `marks` are the colour slots of the marked ones, `metric` is the chosen metric.

        With `group_names`, by run key, the runs are drawn in these groups, whose runs have equal slots.
        """
        self._group_names = group_names or {}
        self._runs, self._marks, self._highlighted, self.goals = runs, marks, highlighted, metrics
        if self.settings.x_axis is None and metrics:
            without_epochs = [run for run in runs if run.summary and "epoch" not in run.summary and run.finished]
            self.settings.x_axis = "epoch" if "epoch" in metrics and not without_epochs else "step"
        if metric != self._default_metric or self.chosen_metric not in metrics:
            self._default_metric = self.chosen_metric = metric
        self.load_and_draw()

    def load_and_draw(self) -> None:
        """Draw the cached series of every chart on the page and request the missing ones."""
        if self.chosen_metric is None or self.settings.x_axis is None:
            self._clear()
            return
        self._layout_charts()
        self.slots = self._find_slots()
        self.series_cache.n_visible = len(self._runs) * len(self.shown_metrics())
        requests, in_full = [], self._in_full()
        for metric in self.shown_metrics():
            request = self.series_cache.missing(self._runs, metric, self.settings.x_axis, in_full)
            n_missing = len(request.runs) + len(request.coarse_runs)
            if n_missing:
                requests.append(request)
            if n_missing < len(self._runs) or not self._runs:
                self._build_lines(metric, self.settings.x_axis)
        self.read_missing(requests, self.settings.x_axis)
        self.draw()

    def _clear(self) -> None:
        """Draw no curves: the runs, if there are any, have no metrics."""
        self._lines.clear()
        self.query_one(PageLegend).show([], None, is_grouped=False)
        for chart in self.charts():
            chart.clear()

    def run_display(self, display: Display | None = None) -> ResolvedDisplay:
        """Return the display of the runs with `auto` resolved; default: the chosen display."""
        display = display or self.settings.display
        return "groups" if display == "auto" and self._group_names else resolve_display(display, len(self._runs))

    def _find_slots(self) -> Mapping[str, int]:
        """Return the slots of the marks, or of the best groups; the highlighted run has slot 0 if it has no other."""
        metric = self._default_metric or self.chosen_metric
        if self._group_names or self.run_display() != "groups" or metric is None or metric not in self.goals:
            return self._marks
        key = [(run.key, run.attempt, run.summary.get(metric)) for run in self._runs], self.goals[metric]
        if self._leaders[0] != key:
            self._leaders = (key, leader_slots(self._runs, metric, self.goals[metric]))
        slots = self._leaders[1]
        if self._highlighted is None or slots.get(self._highlighted, 0) != OTHER_SLOT:
            return slots
        return {**slots, self._highlighted: 0}

    def _in_full(self) -> set[str]:
        """Return the keys of the runs that are read in full even among very many runs: those with a colour."""
        colored = [key for key, slot in self.slots.items() if slot != OTHER_SLOT]
        return {key for key in (self._highlighted, *colored[:_MAX_LEADERS_IN_FULL]) if key is not None}

    def set_x_axis(self, axis: XAxis) -> None:
        """Draw all charts over another x axis, without zoom."""
        self.settings.x_axis, self.settings.window = axis, None
        self._lines.clear()
        self.load_and_draw()

    def _build_lines(self, metric: str, axis: XAxis) -> None:
        """Build the lines of a metric from its cached series."""
        lines = self.series_cache.lines(self._runs, self.slots, metric, axis, self._group_names)
        self._lines[metric] = without_other_axis(lines) if self.run_display() == "groups" else lines
        self._n_left_out[metric] = len(lines) - len(self._lines[metric])

    def draw(self) -> None:
        """Redraw the charts after a change of the settings."""
        whole, glyphs = self.full_x_range(), self.app.no_color
        is_alone = len(self.shown_metrics()) == 1
        all_lines = {line.key: line for metric in self.shown_metrics() for line in self._lines.get(metric, ())}
        legend = [] if is_alone else list(all_lines.values())
        self.query_one(PageLegend).show(legend, self._highlighted, is_grouped=self.run_display() == "groups")
        for chart, metric in zip(self.charts(), self.shown_metrics(), strict=False):
            if metric not in self._lines:
                continue
            view = self.settings.view(
                metric, self.goals[metric], is_steep=self.is_steep(metric), highlighted=self._highlighted, whole=whole
            )
            view = replace(view, crosshair=self.crosshair, glyphs=glyphs, box=self._box_on(chart), names=is_alone)
            view = replace(view, display=self.run_display())
            lines = self._lines[metric]
            description = self.settings.describe(metric, view, self._describe_display(lines, metric))
            chart.show(lines, view, metric=metric, description=description)
            chart.set_class(metric == self.chosen_metric and not is_alone, "-chosen")
        window, axis = self.settings.visible_range(whole), self.settings.x_axis
        if window is not None and axis is not None:
            self.request_finer(self.shown_metrics(), self._runs, axis, window, dots=2 * self.size.width)

    def _describe_display(self, lines: Sequence[Line], metric: str) -> str:
        """Return the display of many runs as text."""
        if self.run_display() == "density":
            return f"density of {len(lines)} runs"
        if self.run_display() == "runs":
            return ""
        groups = {line.group or line.label for line in lines}
        leaders = {line.group or line.label for line in lines if line.slot > 0}
        best = f"best {len(leaders)} of " if len(leaders) < len(groups) else ""
        count = self._n_left_out.get(metric, 0)
        left_out = f"{text.format_count(count, 'run')} without {self.settings.x_axis} · " if count else ""
        return f"{left_out}{_SPREAD_WORDS[self.settings.spread]} · {best}{text.format_count(len(groups), 'group')}"

    def shown_metrics(self) -> list[str]:
        """Return the metrics on the page, in order."""
        rows, columns = PAGE_LAYOUTS[self.layout_index()]
        names = self.metrics()
        if rows * columns == 1 or self.chosen_metric not in names:
            return [self.chosen_metric] if self.chosen_metric is not None else []
        first = names.index(self.chosen_metric) // (rows * columns) * rows * columns
        return names[first : first + rows * columns]

    def metrics(self) -> list[str]:
        """Return the metrics with charts, in the order of the page: all, or those that match the pattern."""
        names = self.all_metrics()
        pattern = self.settings.pattern
        return [name for name in names if re.search(pattern, name, re.IGNORECASE)] or names if pattern else names

    def all_metrics(self) -> list[str]:
        """Return all metrics, in the order of the page."""
        return page_order(self.goals)

    @property
    def runs(self) -> Sequence[RunRecord]:
        """Runs that are drawn."""
        return self._runs

    def layout_index(self) -> int:
        """Return the index in `PAGE_LAYOUTS` that was chosen, or that suits the screen."""
        if self.settings.layout is not None:
            return self.settings.layout
        width, height = self.app.size
        return FOUR_CHARTS if width >= _LARGE_SCREEN[0] and height >= _LARGE_SCREEN[1] else ONE_CHART

    def is_steep(self, metric: str) -> bool:
        """Return True if a metric suits a logarithmic axis (`suits_log_axis`)."""
        summaries = [run.summary[metric] for run in self._runs if metric in run.summary]
        low = min((summary.min for summary in summaries if summary.min is not None), default=0.0)
        high = max((summary.max for summary in summaries if summary.max is not None), default=0.0)
        return suits_log_axis(low, high, self.goals[metric])

    def lines_of(self, metric: str | None) -> Sequence[Line]:
        """Return the lines of a metric's chart."""
        return self._lines.get(metric or "", ())

    def chosen_chart(self) -> Chart | None:
        """Return the chart of the chosen metric, or None."""
        return next((chart for chart in self.charts() if chart.metric == self.chosen_metric), None)

    def charts(self) -> list[Chart]:
        return [chart for chart in self.query(Chart) if chart.display]

    def full_x_range(self) -> Range | None:
        """Return the range of all x values on the page, or None without an extent."""
        lines = [line.series for metric in self.shown_metrics() for line in self._lines.get(metric, ())]
        ends = [float((series.x if series.buckets is None else series.buckets.end)[-1]) for series in lines]
        starts = [float(series.x[0]) for series in lines]
        if self.settings.log_x:
            starts = [float(after[0]) for series in lines if len(after := series.x[series.x > 0])]
        if not starts or max(ends) <= min(starts):
            return None
        left, right = (
            clamp(min(starts), -MAX_AXIS_VALUE, MAX_AXIS_VALUE),
            clamp(max(ends), -MAX_AXIS_VALUE, MAX_AXIS_VALUE),
        )
        return (0.0 if begins_at_zero(left, right, self.settings) else left, right)

    def _layout_charts(self) -> None:
        """Lay out as many charts as the page has metrics, in rows and columns."""
        rows, columns = PAGE_LAYOUTS[self.layout_index()]
        if self.size.width < _MIN_TWO_COLUMNS and columns > 1:
            rows, columns = (rows * columns + columns // 2 - 1) // max(1, columns // 2), max(1, columns // 2)
        needed = max(1, len(self.shown_metrics()))
        columns = min(columns, needed)
        rows = min(rows, -(-needed // columns))
        grid, charts = self.query_one("#charts"), list(self.query(Chart))
        if len(charts) < needed:
            grid.mount(*(Chart() for _ in range(needed - len(charts))))
            self.call_after_refresh(self.draw)
        for index, chart in enumerate(charts):
            chart.display = index < needed
        grid.styles.grid_size_columns, grid.styles.grid_size_rows = columns, rows

    @on(SeriesContainer.SeriesStored)
    def _draw_if_shown(self, event: SeriesContainer.SeriesStored) -> None:
        """Draw series that were read, if their chart is still shown."""
        event.stop()
        if event.axis == self.settings.x_axis and event.metric in self.shown_metrics():
            self._build_lines(event.metric, event.axis)
            self.draw()
