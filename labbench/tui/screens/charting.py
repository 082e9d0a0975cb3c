"""Base of the screens with charts: keys of the charts, choice of the metric, export of the curves."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

from textual import on
from textual.binding import Binding, BindingType

from labbench.tui import run_values
from labbench.tui.charts.keys import CHART_BINDINGS
from labbench.tui.charts.page import ChartPage
from labbench.tui.charts.panel import ChartPanel
from labbench.tui.clipboard import TableRows
from labbench.tui.screens.editing import EditScreen
from labbench.tui.screens.export_view import ExportFormat, csv_format, picture_of
from labbench.tui.widgets.picker import MetricPicker, PickedMetrics

Result = TypeVar("Result")


class ChartScreen(EditScreen[Result]):
    """Screen with a page of charts."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *CHART_BINDINGS,
        Binding("M", "choose_metric", "find metric", show=False, tooltip="Choose a metric, or charts, by typing"),
    ]

    @property
    def panel(self) -> ChartPanel:
        """The charts of the screen."""
        return self.query_one(ChartPanel)

    def set_metric(self, metric: str) -> None:
        """Show another metric."""
        raise NotImplementedError

    def action_chart(self, name: str, *arguments: int) -> None:
        self.panel.perform(name, *arguments)
        self.session.chart = self.panel.state()

    @on(ChartPage.ReadingFailed)
    def _show_chart_failure(self, event: ChartPage.ReadingFailed) -> None:
        self.post_message(self.Failed(event.error))

    @on(ChartPanel.SettingsChanged)
    def _keep_settings(self) -> None:
        self.session.chart = self.panel.state()

    def action_choose_metric(self) -> None:
        page = self.panel.page
        picker = MetricPicker(page.all_metrics(), chosen=page.chosen_metric, pattern=page.settings.pattern)
        self.app.push_screen(picker, self._show_picked)

    def _show_picked(self, picked: PickedMetrics | None) -> None:
        if picked is None:
            return
        page = self.panel.page
        if picked.metric is not None:
            page.settings.pattern = ""
            self.set_metric(picked.metric)
        else:
            self.panel.show_matching(picked.pattern)
        self.session.chart = self.panel.state()

    def export_formats(self) -> list[ExportFormat]:
        return [
            csv_format("the curves shown, as CSV with exact values", "curves", self.read_rows, self._curves),
            ExportFormat("the charts as an SVG picture", "charts", "svg", lambda use: use(picture_of(self.panel))),
            *super().export_formats(),
        ]

    def _curves(self) -> Callable[[], TableRows]:
        """Return a function that reads the points of the runs and metrics that are drawn."""
        page = self.panel.page
        path, runs, metrics = self.session.path, [run.key for run in page.runs], page.shown_metrics()
        return lambda: run_values.read_curves(path, runs, metrics)
