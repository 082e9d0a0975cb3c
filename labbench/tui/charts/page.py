"""Page of charts of one or several metrics over the same runs, with the reading of their series.

All charts share the x axis, its window and the crosshair. Cached series are drawn at once; missing ones are read in
a thread worker and drawn afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from textual import on, work
from textual.containers import Container
from textual.message import Message
from textual.worker import get_current_worker

from labbench.charts.ticks import MAX_AXIS_VALUE, clamp
from labbench.charts.view import Box, Range, XAxis, resolve_display
from labbench.errors import LabbenchError, as_labbench_error
from labbench.metrics import page_order
from labbench.records import Goal, RunRecord
from labbench.tui.charts import series_reader
from labbench.tui.charts.page_legend import PageLegend
from labbench.tui.charts.series_cache import SeriesCache
from labbench.tui.charts.settings import FOUR_CHARTS, ONE_CHART, PAGE_LAYOUTS, ChartState, begins_at_zero
from labbench.tui.charts.widget import Chart

if TYPE_CHECKING:  # numpy is not imported before the first paint
    from labbench.charts.lines import Line
    from labbench.charts.series import Series
    from labbench.tui.charts.series_cache import RunSeries

MissingSeries: TypeAlias = list[tuple[str, list[RunRecord]]]
"""(metric, runs whose series of the metric are missing)."""

_LARGE_SCREEN = (160, 40)
"""Minimum columns and rows of a screen for a page of four charts."""
_MIN_TWO_COLUMNS = 64
"""Width of the page in cells below which its charts share fewer columns."""
_STEEP_RATIO = 20.0


class ChartPage(Container):
    """A page of linked charts."""

    DEFAULT_CSS = """
    ChartPage { width: 100%; height: 100%; }
    ChartPage #charts { layout: grid; grid-size: 1 1; width: 100%; height: 1fr; }
    ChartPage Chart { height: 100%; width: 100%; }
    """

    class SeriesRead(Message):
        """The missing series of a metric were read, for these versions of the records."""

        def __init__(
            self, metric: str, axis: XAxis, runs: list[RunRecord], series: Mapping[str, Series | None]
        ) -> None:
            self.metric, self.axis, self.runs, self.series = metric, axis, runs, series
            super().__init__()

    class FinerRead(Message):
        """Series were reread with more points in the zoomed window."""

        def __init__(
            self, metric: str, axis: XAxis, requested: Mapping[str, RunSeries], finer: Mapping[str, Series]
        ) -> None:
            self.metric, self.axis, self.requested, self.finer = metric, axis, requested, finer
            super().__init__()

    class ReadingFailed(Message):
        """The database could not be read."""

        def __init__(self, error: LabbenchError) -> None:
            self.error = error
            super().__init__()

    def __init__(self, path: Path, *, box_on: Callable[[Chart], Box | None]) -> None:
        """Create a page for a database; `box_on` returns the zoom box being drawn over a chart."""
        super().__init__()
        self._box_on = box_on
        self.settings = ChartState()
        self.chosen_metric: str | None = None
        """Metric of the chart that keys act on."""
        self.crosshair: float | None = None
        self._path = path
        self._series_cache = SeriesCache()
        self._runs: Sequence[RunRecord] = ()
        self._marks: Mapping[str, int] = {}
        self._highlighted: str | None = None
        self.goals: Mapping[str, Goal] = {}
        self._default_metric: str | None = None
        self._lines: dict[str, list[Line]] = {}
        self._requested: MissingSeries = []

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
    ) -> None:
        """Show runs; `marks` are the colour slots of the marked ones, `metric` is the chosen metric."""
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
            return
        self._layout_charts()
        all_missing: MissingSeries = []
        for metric in self.shown_metrics():
            missing = self._series_cache.missing(self._runs, metric, self.settings.x_axis)
            if missing:
                all_missing.append((metric, missing))
            if len(missing) < len(self._runs) or not self._runs:
                self._build_lines(metric, self.settings.x_axis)
        if all_missing and all_missing != self._requested:
            self._requested = all_missing
            self._read_missing(all_missing, self.settings.x_axis)
        self.draw()

    def set_x_axis(self, axis: XAxis) -> None:
        """Draw all charts over another x axis, without zoom."""
        self.settings.x_axis, self.settings.window = axis, None
        self._lines.clear()
        self.load_and_draw()

    def _build_lines(self, metric: str, axis: XAxis) -> None:
        """Build the lines of a metric from its cached series."""
        self._lines[metric] = self._series_cache.lines(self._runs, self._marks, metric, axis)

    def draw(self) -> None:
        """Redraw the charts after a change of the settings."""
        whole, glyphs = self.full_x_range(), self.app.no_color
        is_alone = len(self.shown_metrics()) == 1
        all_lines = {line.key: line for metric in self.shown_metrics() for line in self._lines.get(metric, ())}
        self.query_one(PageLegend).show([] if is_alone else list(all_lines.values()), self._highlighted)
        for chart, metric in zip(self.charts(), self.shown_metrics(), strict=False):
            if metric not in self._lines:
                continue
            view = self.settings.view(
                metric, self.goals[metric], is_steep=self.is_steep(metric), highlighted=self._highlighted, whole=whole
            )
            view = replace(view, crosshair=self.crosshair, glyphs=glyphs, box=self._box_on(chart), names=is_alone)
            lines = self._lines[metric]
            groups = len({line.group or line.label for line in lines})
            description = self.settings.describe(
                metric, view, resolve_display(view.display, len(lines), groups), len(lines), groups
            )
            chart.show(lines, view, metric=metric, description=description)
            chart.set_class(metric == self.chosen_metric and not is_alone, "-chosen")
        self._request_finer()

    def shown_metrics(self) -> list[str]:
        """Return the metrics on the page, in order."""
        rows, columns = PAGE_LAYOUTS[self.layout_index()]
        names = self.metrics()
        if rows * columns == 1 or self.chosen_metric not in names:
            return [self.chosen_metric] if self.chosen_metric is not None else []
        first = names.index(self.chosen_metric) // (rows * columns) * rows * columns
        return names[first : first + rows * columns]

    def metrics(self) -> list[str]:
        """Return all metrics with charts, in the order of the page."""
        return page_order(self.goals)

    def layout_index(self) -> int:
        """Return the index in `PAGE_LAYOUTS` that was chosen, or that suits the screen."""
        if self.settings.layout is not None:
            return self.settings.layout
        width, height = self.app.size
        return FOUR_CHARTS if width >= _LARGE_SCREEN[0] and height >= _LARGE_SCREEN[1] else ONE_CHART

    def is_steep(self, metric: str) -> bool:
        """Return True if a metric to be minimized is positive and spans more than a factor of 20."""
        if self.goals[metric] == "max":
            return False
        summaries = [run.summary[metric] for run in self._runs if metric in run.summary]
        low = min((summary.min for summary in summaries if summary.min is not None), default=0.0)
        high = max((summary.max for summary in summaries if summary.max is not None), default=0.0)
        return low > 0 and high > _STEEP_RATIO * low

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

    # Reading, in thread workers

    # `description` is set because Textual's default formats all arguments: thousands of runs and curves

    @work(thread=True, exclusive=True, group="curves", description="read curves")
    def _read_missing(self, missing: MissingSeries, axis: XAxis) -> None:
        for metric, runs in missing:
            self._post_result(partial(self._read_metric, metric, axis, runs))

    def _read_metric(self, metric: str, axis: XAxis, runs: list[RunRecord]) -> Message:
        return self.SeriesRead(metric, axis, runs, series_reader.read_series(self._path, runs, metric, axis))

    def _request_finer(self) -> None:
        """Request more points if the window shows fewer than the screen could."""
        window, axis = self.settings.visible_range(self.full_x_range()), self.settings.x_axis
        if window is None or axis is None:
            return
        dots = 2 * self.size.width
        coarse = {
            metric: self._series_cache.find_coarse(self._runs, metric, axis, window, dots)
            for metric in self.shown_metrics()
        }
        if any(coarse.values()):
            self._read_finer(coarse, axis, window)

    @work(thread=True, exclusive=True, group="finer", description="read finer curves")
    def _read_finer(self, coarse: Mapping[str, Mapping[str, RunSeries]], axis: XAxis, window: Range) -> None:
        for metric, requested in coarse.items():
            self._post_result(partial(self._read_finer_metric, metric, axis, requested, window))

    def _read_finer_metric(
        self, metric: str, axis: XAxis, requested: Mapping[str, RunSeries], window: Range
    ) -> Message:
        return self.FinerRead(
            metric, axis, requested, series_reader.read_finer(self._path, requested, metric, axis, window)
        )

    def _post_result(self, read: Callable[[], Message]) -> None:
        """Post the result of `read`, or its error, unless this worker was replaced by a newer one."""
        if get_current_worker().is_cancelled:
            return
        try:
            message = read()
        except Exception as error:  # an error in one thread must not end the program
            message = self.ReadingFailed(as_labbench_error(error))
        if not get_current_worker().is_cancelled:
            self.post_message(message)

    @on(SeriesRead)
    def _store_series(self, event: SeriesRead) -> None:
        event.stop()
        visible = len(self._runs) * len(self.shown_metrics())
        self._series_cache.store(event.runs, event.series, event.metric, event.axis, visible=visible)
        self._requested = [(metric, runs) for metric, runs in self._requested if metric != event.metric]
        self._draw_if_shown(event.metric, event.axis)

    @on(FinerRead)
    def _store_finer_series(self, event: FinerRead) -> None:
        event.stop()
        self._series_cache.store_finer(event.requested, event.finer, event.metric, event.axis)
        self._draw_if_shown(event.metric, event.axis)

    def _draw_if_shown(self, metric: str, axis: XAxis) -> None:
        """Draw series that were read, if their chart is still shown."""
        if axis == self.settings.x_axis and metric in self.shown_metrics():
            self._build_lines(metric, axis)
            self.draw()
