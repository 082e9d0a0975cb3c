"""Screen of one run: facts, chart, output and pictures. Opened from any screen, closed with Esc."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content

from labbench import text
from labbench.errors import RunNotFound
from labbench.metrics import metric_rank
from labbench.tui.charts.panel import ChartPanel
from labbench.tui.clipboard import TableRows
from labbench.tui.screens.charting import ChartScreen
from labbench.tui.screens.run_facts import facts
from labbench.tui.screens.run_queries import RunDetail, read_run
from labbench.tui.session import Session
from labbench.tui.widgets.log_view import LogView
from labbench.tui.widgets.partial_drawing import StaticText, set_titles
from labbench.tui.widgets.portrait_view import PortraitView
from labbench.tui.widgets.prompt import Prompt


class RunScreen(ChartScreen["RunDetail | None"]):
    """Config, metrics, origin, output and pictures of one run."""

    screen_name = "run"
    view_label = "the facts as lines of CSV"
    primary_actions = ("back", "pictures", "search")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back", key_display="esc", tooltip="Back to the runs"),
        Binding("slash", "search", "search output", key_display="/", tooltip="Search the output"),
        Binding("n", "next_match(1)", "next", show=False, tooltip="Next search match"),
        Binding("P", "next_match(-1)", "previous", show=False, tooltip="Previous search match"),
        Binding("m", "metric(1)", "metric", tooltip="Next metric, including system metrics"),
        Binding(
            "p",
            "pictures",
            "pictures",
            tooltip="Pictures of the network: boundary, confusion matrix, weights, gradients",
        ),
        Binding("t", "tag", "tag", tooltip="Tag the run, or remove tags"),
        Binding("N", "note", "note", tooltip="Write a note on the run"),
        Binding("Y", "copy", "copy", tooltip="Copy key, name or command to the clipboard"),
        Binding("tab", "app.focus_next", "next pane", show=False, tooltip="Switch between facts, chart and output"),
    ]

    def __init__(self, session: Session, key: str) -> None:
        super().__init__(session)
        self._key = key
        self._detail: RunDetail | None = None
        self._metric = session.query.metric

    def compose_body(self) -> ComposeResult:
        with Container(id="run"):
            with VerticalScroll(id="facts"):
                yield StaticText(id="facts-text")
            with Vertical(id="run-right"):
                yield ChartPanel(self.session.path)
                yield LogView()
            yield PortraitView()

    def on_mount(self) -> None:
        self.query_one(ChartPanel).restore(self.session.chart)
        self.query_one("#facts").focus()

    def prepare_read(self) -> Callable[[], RunDetail | None]:
        path, key = self.session.path, self._key

        def read() -> RunDetail | None:
            try:
                return read_run(path, key)
            except RunNotFound:
                return None

        return read

    def show(self, answer: RunDetail | None) -> None:
        self._detail = answer
        if answer is None:
            self.query_one("#facts-text", StaticText).update(Content("this run was deleted\n\npress Esc to go back"))
            return
        title = Content(text.clean(answer.record.name) or answer.record.key)
        set_titles(self.query_one("#facts"), title=title)
        self._show_facts()
        self.call_after_refresh(self._show_facts)  # the width may not be final yet
        self.query_one(PortraitView).show(answer.portrait, answer.images)
        self.query_one(LogView).show(answer.output)
        self.set_class(not answer.output, "-silent")
        self._show_chart()

    def on_resize(self) -> None:
        self.call_after_refresh(self._show_facts)

    def _show_facts(self) -> None:
        if self._detail is not None:
            width = self.query_one("#facts").scrollable_content_region.width
            self.query_one("#facts-text", StaticText).update(facts(self._detail, width))

    def _metrics(self) -> list[str]:
        names = self._detail.record.summary if self._detail is not None else ()
        return sorted((name for name in names if name not in ("epoch", "samples")), key=metric_rank)

    def _show_chart(self) -> None:
        assert self._detail is not None
        metrics = self._metrics()
        if self._metric not in metrics:
            self._metric = metrics[0] if metrics else None
        self.query_one(ChartPanel).page.show(
            [self._detail.record],
            marks=self.session.marks,
            highlighted=self._key,
            metric=self._metric,
            metrics=self._detail.goals,
        )

    def selected_keys(self) -> Sequence[str]:
        return [self._key]

    def view(self) -> Callable[[], TableRows]:
        lines = facts(self._detail, 0).plain.splitlines() if self._detail is not None else []
        return lambda: [[line] for line in lines]

    def action_metric(self, direction: int) -> None:
        metrics = self._metrics()
        if metrics and self._metric in metrics:
            self._metric = metrics[(metrics.index(self._metric) + direction) % len(metrics)]
            self._show_chart()

    def set_metric(self, metric: str) -> None:
        self._metric = metric
        self._show_chart()

    def action_pictures(self) -> None:
        """Show the pictures in place of chart and output (and of the facts in a narrow terminal), or hide them."""
        show = not self.has_class("-pictures")
        self.set_class(show, "-pictures")
        self.query_one(PortraitView if show else "#facts").focus()

    def action_search(self) -> None:
        if self.has_class("-pictures"):
            self.action_pictures()
        output = self.query_one(LogView)

        def search(words: str | None) -> None:
            if words is not None:
                output.search(words)
                output.focus()

        self.app.push_screen(
            Prompt("search the output", value=output.words, hint="n next match, P previous match"), search
        )

    def action_next_match(self, direction: int) -> None:
        self.query_one(LogView).next_match(direction)

    def step_back(self) -> None:
        if self.has_class("-pictures"):
            self.action_pictures()
        elif not self.query_one(ChartPanel).back():
            self.app.pop_screen()
