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

from labbench import text
from labbench.charts.glyphs import LEADER_COUNT, SLOT_COUNT
from labbench.metrics import Goal, charted_metrics, default_metric, ranking_metrics
from labbench.records import RunRecord
from labbench.store.reader import Reader
from labbench.tui import queries
from labbench.tui.charts.panel import ChartPanel
from labbench.tui.clipboard import TableRows
from labbench.tui.queries import Query
from labbench.tui.screens.charting import ChartScreen
from labbench.tui.screens.compare_table import column_titles, comparison_rows, exported_comparison
from labbench.tui.screens.run import RunScreen
from labbench.tui.seed_noise import SeedNoise, read_seed_noise
from labbench.tui.session import Session
from labbench.tui.widgets.partial_drawing import set_titles
from labbench.tui.widgets.text_grid import TextGrid

_MAX_COMPARED_RUNS = 100
"""Maximum number of runs side by side."""
_EMPTY = """
no runs to compare

mark two or more runs on screen 1 (␣), then come back
"""


@dataclass(frozen=True, slots=True)
class ComparedRuns:
    """Compared runs, the reference first."""

    runs: Sequence[RunRecord] = ()
    metrics: Mapping[str, Goal] = field(default_factory=dict)
    noise: SeedNoise = field(default_factory=SeedNoise)
    slots: Mapping[str, int] = field(default_factory=dict)
    """Colour slots of the runs, by key; a run without one is the baseline."""
    metric: str | None = None
    """Metric to draw by default."""


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
        chosen = {key: 1 + place % SLOT_COUNT for place, key in enumerate(session.compared)} or dict(session.marks)
        path, query, baseline, highlighted = session.path, session.query, session.baseline, session.highlighted

        def read() -> ComparedRuns:
            slots = chosen or _read_leaders(path, query) or ({highlighted: 1} if highlighted else {})
            return _read_compared_runs(path, slots, baseline)

        return read

    def show(self, answer: ComparedRuns) -> None:
        self._compared = answer
        metrics = charted_metrics(answer.metrics)
        if self._metric not in metrics:
            preferred = self.session.query.metric or self.session.shown_metric
            self._metric = preferred if preferred in metrics else answer.metric
        self._show_sheet()
        self._show_chart()

    def _show_sheet(self) -> None:
        runs = self._compared.runs
        count = self._describe_choice()
        title = Content(f"{count}: all settings" if self._shows_all_settings else count)
        signs = Content(_describe_signs(self._compared) if len(runs) > 1 else "")
        set_titles(self._sheet, title=title, subtitle=signs)
        if runs:
            everything, compared = self._shows_all_settings or len(runs) == 1, self._compared
            rows = comparison_rows(runs, compared.metrics, compared.noise, everything=everything)
            self._sheet.show(column_titles(runs, compared.slots), rows)
            self._sheet.styles.height = len(rows) + 3  # the chart takes the rest
        else:
            self._sheet.show([], [])
            self._sheet.styles.height = "1fr"

    def _describe_choice(self) -> str:
        """Return the number of compared runs, and why it is these."""
        session, n_runs = self.session, len(self._compared.runs)
        if session.compared:
            n_in_cell = sum(run.key in session.compared for run in self._compared.runs)
            total = f"{n_in_cell} of " if n_in_cell < len(session.compared) else ""
            return f"compare {total}{text.format_count(len(session.compared), 'run')} of {session.compared_title}"
        if len(session.marks) > n_runs:
            return f"compare {n_runs} of {len(session.marks)} marked runs"
        count = f"compare {text.format_count(n_runs, 'run')}"
        if session.marks or n_runs < 2:
            return count
        chosen = "the first of each group" if session.query.group else "the best of their configurations"
        return f"{count}, {chosen} (none is marked)"

    @on(TextGrid.Moved)
    def _show_chart(self) -> None:
        highlighted = self._current()
        self._panel.page.show(
            self._compared.runs,
            marks=self._compared.slots,
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
        runs, goals = self._compared.runs, self._compared.metrics
        return lambda: exported_comparison(runs, goals, everything=self._shows_all_settings or len(runs) == 1)

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


def _read_leaders(path: Path, query: Query) -> dict[str, int]:
    """Return the colour slots of the runs drawn without marks, by key; of groups, of the first run of each."""
    snapshot = queries.read_snapshot(path, query, record_keys=(), rows=0)
    keys = [group.keys[0] for group in snapshot.groups.values()][:LEADER_COUNT] or snapshot.leaders
    return {key: slot for slot, key in enumerate(keys, start=1)}


def _read_compared_runs(path: Path, slots: Mapping[str, int], baseline: str | None) -> ComparedRuns:
    """Read the runs with these colour slots, after the baseline."""
    if not path.exists():
        return ComparedRuns()
    keys = list(dict.fromkeys([*([baseline] if baseline else []), *islice(slots, _MAX_COMPARED_RUNS)]))
    with Reader(path) as reader:
        runs, metrics = reader.by_keys(keys), reader.metrics()
        metric = default_metric(metrics, reader.declared_goals())
        noise = read_seed_noise(reader, runs, ranking_metrics(metrics)) if len(runs) > 1 else SeedNoise()
    return ComparedRuns(runs, metrics, noise, slots, metric)


def _describe_signs(compared: ComparedRuns) -> str:
    """Return the meaning of the signs and colours of the comparison."""
    has_noise = bool(compared.noise.deviations)
    colours = "coloured: more than seeds explain" if has_noise else "not coloured: one seed each, noise unknown"
    return f"= as the first   ▲ better   ▼ worse   {colours}"
