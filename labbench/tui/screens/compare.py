"""Screen 2: settings and metrics of the marked runs side by side, differences from the first, and their curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content

from labbench.metrics import Goal, charted_metrics, ranking_metrics
from labbench.records import RunRecord
from labbench.store.reader import Reader
from labbench.tui import queries
from labbench.tui.charts.panel import ChartPanel
from labbench.tui.clipboard import TableRows
from labbench.tui.screens.charting import ChartScreen
from labbench.tui.screens.compare_table import column_titles, comparison_rows
from labbench.tui.screens.run import RunScreen
from labbench.tui.seed_noise import SeedNoise, read_seed_noise
from labbench.tui.session import Session
from labbench.tui.widgets.partial_drawing import set_titles
from labbench.tui.widgets.text_grid import TextGrid

_MAX_COMPARED_RUNS = 100
"""Maximum number of runs side by side."""
_EMPTY = """
no marked runs to compare

mark two or more runs on screen 1 (␣), then come back
"""


@dataclass(frozen=True, slots=True)
class ComparedRuns:
    """Compared runs, the reference first."""

    runs: Sequence[RunRecord] = ()
    metrics: Mapping[str, Goal] = field(default_factory=dict)
    noise: SeedNoise = field(default_factory=SeedNoise)


class CompareScreen(ChartScreen[ComparedRuns]):
    """Config diff, metrics with differences, curves."""

    screen_name = "compare"
    primary_actions = ("everything", "pin", "unmark", "open", "metric(1)")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "everything", "all settings", tooltip="Show all settings, or only those that differ"),
        Binding("p", "pin", "baseline", tooltip="Set as the baseline that other runs are compared with"),
        Binding("space", "unmark", "unmark", key_display="␣", tooltip="Unmark: remove this run from the comparison"),
        Binding("enter", "open", "open", key_display="⏎", tooltip="Open the run: everything recorded about it"),
        Binding("m", "metric(1)", "metric", tooltip="Draw the next metric"),
        Binding("v", "chart_alone", "chart", tooltip="Chart in full screen, or below the table again"),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._compared = ComparedRuns()
        self._shows_all_settings = False
        self._metric: str | None = None

    def compose_body(self) -> ComposeResult:
        with Container(id="compare"):
            yield TextGrid(empty=_EMPTY.strip("\n"))
            yield ChartPanel(self.session.path)

    def on_mount(self) -> None:
        self._sheet, self._panel = self.query_one(TextGrid), self.query_one(ChartPanel)
        self._panel.restore(self.session.chart)
        self._sheet.focus()

    def prepare_read(self) -> Callable[[], ComparedRuns]:
        session = self.session
        marked = list(session.compared or islice(session.marks or session.leaders, _MAX_COMPARED_RUNS)) or (
            [session.highlighted] if session.highlighted else []
        )
        keys = list(dict.fromkeys([*([session.baseline] if session.baseline else []), *marked]))
        return lambda: _read_compared_runs(session.path, keys)

    def show(self, answer: ComparedRuns) -> None:
        self._compared = answer
        metrics = charted_metrics(answer.metrics)
        if self._metric not in metrics:
            preferred = self.session.query.metric or self.session.shown_metric
            self._metric = preferred if preferred in metrics else metrics[0] if metrics else None
        self._show_sheet()
        self._show_chart()

    def _show_sheet(self) -> None:
        runs = self._compared.runs
        marked = len(self.session.compared or self.session.marks)
        count = f"compare {len(runs)} run{'s' * (len(runs) != 1)}"
        if marked > len(runs):
            count = f"compare {len(runs)} of {marked} marked runs"
        elif not marked and len(runs) > 1:
            count = f"{count}, the best of their configurations (none is marked)"
        title = Content(f"{count}: all settings" if self._shows_all_settings else count)
        signs = Content(_describe_signs(self._compared) if len(runs) > 1 else "")
        set_titles(self._sheet, title=title, subtitle=signs)
        if runs:
            everything, compared = self._shows_all_settings or len(runs) == 1, self._compared
            rows = comparison_rows(runs, compared.metrics, compared.noise, everything=everything)
            self._sheet.show(column_titles(runs, self.session.marks or self.session.leaders), rows)
            self._sheet.styles.height = len(rows) + 3  # the chart takes the rest
        else:
            self._sheet.show([], [])
            self._sheet.styles.height = "1fr"

    @on(TextGrid.Moved)
    def _show_chart(self) -> None:
        highlighted = self._current()
        self._panel.page.show(
            self._compared.runs,
            marks=self.session.marks or self.session.leaders,
            highlighted=highlighted.key if highlighted else None,
            metric=self._metric,
            metrics=self._compared.metrics,
        )

    def _current(self) -> RunRecord | None:
        """Return the run of the cursor's column."""
        runs = self._compared.runs
        return runs[self._sheet.column] if self._sheet.column < len(runs) else None

    def selected_keys(self) -> Sequence[str]:
        run = self._current()
        return [run.key] if run is not None else []

    def view(self) -> Callable[[], TableRows]:
        rows = self._sheet.texts()
        return lambda: rows

    def action_everything(self) -> None:
        self._shows_all_settings = not self._shows_all_settings
        self._show_sheet()

    def action_pin(self) -> None:
        run = self._current()
        if run is not None:
            self.session.baseline = None if self.session.baseline == run.key else run.key
            self._sheet.column = 0
            self.read()

    def action_unmark(self) -> None:
        run = self._current()
        if run is not None and self.session.compared:
            self.session.compared = tuple(key for key in self.session.compared if key != run.key)
            self.read()
        elif run is not None:
            self.session.remember_marks("removal of a mark")
            self.session.marks.add(() if self.session.marks else [other.key for other in self._compared.runs])
            self.session.marks.unmark([run.key])
            if self.session.baseline == run.key:
                self.session.baseline = None
            self.read()

    @on(TextGrid.Opened)
    def action_open(self) -> None:
        run = self._current()
        if run is not None:
            self.app.push_screen(RunScreen(self.session, run.key))

    def action_metric(self, direction: int) -> None:
        metrics = charted_metrics(self._compared.metrics)
        if metrics and self._metric in metrics:
            self._metric = metrics[(metrics.index(self._metric) + direction) % len(metrics)]
            self._show_chart()

    def action_chart_alone(self) -> None:
        self.toggle_class("-chart-only")
        (self._panel if self.has_class("-chart-only") else self._sheet).focus()

    def set_metric(self, metric: str) -> None:
        self._metric = metric
        self._show_chart()

    def step_back(self) -> None:
        if self._panel.back():
            return
        if self.has_class("-chart-only"):
            self.action_chart_alone()
        else:
            self.app.switch_mode("grid" if self.session.compared else "runs")


def _read_compared_runs(path: Path, keys: Sequence[str]) -> ComparedRuns:
    runs, metrics = queries.read_runs(path, keys)
    if len(runs) < 2:
        return ComparedRuns(runs, metrics)
    with Reader(path) as reader:
        return ComparedRuns(runs, metrics, read_seed_noise(reader, runs, ranking_metrics(metrics)))


def _describe_signs(compared: ComparedRuns) -> str:
    """Return the meaning of the signs and colours of the comparison."""
    has_noise = bool(compared.noise.deviations)
    colours = "coloured: more than seeds explain" if has_noise else "not coloured: one seed each, noise unknown"
    return f"= as the first   ▲ better   ▼ worse   {colours}"
