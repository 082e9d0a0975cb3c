"""Screen 1: the runs in a table, the curves of the marked ones beside it.

A cause (a key, or a commit in the database, of which the first look is one) asks a thread worker for a snapshot; its
answer is put on the widgets. First load and live refresh are this one path.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Static
from textual.worker import Worker, get_current_worker

from labbench import text
from labbench.errors import LabbenchError
from labbench.records import RunRecord
from labbench.tui import source
from labbench.tui.bars import ConstantLine, FilterBar, KeyLine, TopLine, describe, reads
from labbench.tui.chart_keys import CHART_BINDINGS
from labbench.tui.chart_panel import ChartPanel
from labbench.tui.choice import Choice
from labbench.tui.columns import is_axis, metric_rank, run_columns
from labbench.tui.help import Help
from labbench.tui.overlay import Overlay
from labbench.tui.source import Query, Snapshot
from labbench.tui.table import RunsTable

if TYPE_CHECKING:  # numpy is not imported before the first paint
    pass

_TURN_EVERY_SECONDS = 0.25
_FIRST_ROWS = 100


class RunsScreen(Screen[None]):
    """Which run is best, and how it got there."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012  # Textual declares no ClassVar
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "mark", "mark", key_display="␣", tooltip="Mark or unmark: marked runs are drawn together"),
        Binding("u", "unmark", "unmark all", show=False, tooltip="Take all marks away"),
        Binding("f", "filter", "filter", tooltip="Filter the runs"),
        Binding("slash", "filter", "filter", show=False, tooltip="Filter the runs"),
        Binding("o", "sort", "sort", tooltip="Sort by a column"),
        Binding("O", "reverse", "reverse", show=False, tooltip="Reverse the order"),
        Binding("m", "metric(1)", "metric", tooltip="Next metric"),
        Binding("M", "metric(-1)", "metric before", show=False, tooltip="Metric before"),
        *CHART_BINDINGS,
        Binding("enter", "full", "chart", key_display="⏎", tooltip="Chart alone, or beside the table again"),
        Binding("v", "full", "chart", show=False, tooltip="Chart alone, or beside the table again"),
        Binding("escape", "back", "back", show=False, tooltip="One step back"),
        Binding("q", "app.quit", "quit", tooltip="Quit; what is training goes on"),
        Binding("question_mark", "help", "help", key_display="?", tooltip="Help"),
    ]

    class SnapshotRead(Message):
        """The database was read."""

        def __init__(self, snapshot: Snapshot) -> None:
            self.snapshot = snapshot
            super().__init__()

    class RecordsRead(Message):
        """Rows that came into view were read."""

        def __init__(self, records: list[RunRecord]) -> None:
            self.records = records
            super().__init__()

    class DatabaseChanged(Message):
        """Somebody has written to the database."""

    class ReadingFailed(Message):
        """The database could not be read."""

        def __init__(self, error: LabbenchError) -> None:
            self.error = error
            super().__init__()

    def __init__(self, path: Path, *, chart_only: bool = False) -> None:
        super().__init__()
        self._path = path
        self._query = Query()
        self._snapshot: Snapshot | None = None
        self._reading: Worker[None] | None = None
        self._outdated = False
        self._overlay = Overlay()
        self._stopped = threading.Event()
        self.set_class(chart_only, "-chart-only")

    def compose(self) -> ComposeResult:
        yield TopLine(self._path)
        yield FilterBar()
        yield ConstantLine()
        with Container(id="work"):
            yield RunsTable()
            yield ChartPanel(self._path)
        yield Static(id="error", markup=False)
        yield KeyLine()

    def on_mount(self) -> None:
        self._table = self.query_one(RunsTable)
        self._table.marks = self._overlay.marks
        self._chart = self.query_one(ChartPanel)
        self._table.focus()
        self._turning = self.set_interval(_TURN_EVERY_SECONDS, self._table.turn_running, pause=True)
        self._watch()

    def on_unmount(self) -> None:
        self._stopped.set()

    # Reading, in thread workers

    def _read(self) -> None:
        shown = self._overlay.shown(self._table.cursor)
        self._outdated = False
        self._reading = self._read_snapshot(self._query, {*shown, *self._table.wanted_keys()})

    @work(thread=True, exclusive=True, group="snapshot")
    def _read_snapshot(self, query: Query, wanted: set[str]) -> None:
        self._answer(
            lambda: self.SnapshotRead(source.read_snapshot(self._path, query, wanted=wanted, rows=_FIRST_ROWS))
        )

    @work(thread=True, exclusive=True, group="records")
    def _read_records(self, keys: list[str]) -> None:
        self._answer(lambda: self.RecordsRead(source.read_records(self._path, keys)))

    @work(thread=True, group="watch")
    def _watch(self) -> None:
        for error in source.changes(self._path, self._stopped):
            self.post_message(self.DatabaseChanged() if error is None else self.ReadingFailed(error))

    def _answer(self, read: Callable[[], Message]) -> None:
        """Send what was read, unless something newer is being read by now."""
        try:
            message = read()
        except LabbenchError as error:
            message = self.ReadingFailed(error)
        if not get_current_worker().is_cancelled:
            self.post_message(message)

    @on(DatabaseChanged)
    def _reread(self) -> None:
        """Read again; a reading that is under way is not given up, or a busy large database would never be shown."""
        if self._reading is not None and self._reading.is_running:
            self._outdated = True
        else:
            self._read()

    @on(ReadingFailed)
    def _say_error(self, event: ReadingFailed) -> None:
        self._say(text.clean(str(event.error).splitlines()[0]))

    def _say(self, problem: str) -> None:
        """Show a problem until it is read (Esc), or nothing."""
        line = self.query_one("#error", Static)
        line.update(Content(problem))
        line.set_class(bool(problem), "-said")

    # Showing

    @on(SnapshotRead)
    def _show_snapshot(self, event: SnapshotRead) -> None:
        snapshot = self._snapshot = event.snapshot
        query, progress = snapshot.query, snapshot.progress
        self.query_one(TopLine).progress = progress
        self.query_one(ConstantLine).show(snapshot.constant)
        self.query_one(FilterBar).say(describe(query, len(snapshot.keys), progress.total))
        if progress.is_live:
            self._turning.resume()
        else:
            self._turning.pause()
        table = self._table
        table.sorted_by, table.starred = (query.sort, query.descending), snapshot.best
        table.empty = _empty(query, progress.total)
        table.show_runs(
            snapshot.keys, snapshot.records, run_columns(snapshot.differing, query.metric, snapshot.metrics)
        )
        self._show_chart()
        if self._outdated:
            self._read()

    @on(RunsTable.RowsNeeded)
    def _load_rows(self, event: RunsTable.RowsNeeded) -> None:
        self._read_records(list(event.keys))

    @on(RecordsRead)
    def _show_records(self, event: RecordsRead) -> None:
        self._table.add_records(event.records)
        self._show_chart()

    @on(RunsTable.RunHighlighted)
    def _show_chart(self) -> None:
        """Draw the marked runs and the highlighted one."""
        if self._snapshot is None:
            return
        records = (self._table.record(key) for key in self._overlay.shown(self._table.cursor))
        self._chart.show(
            [run for run in records if run is not None],
            marks=self._overlay.marks,
            highlighted=self._table.cursor,
            metrics=self._snapshot.metrics,
            metric=self._snapshot.query.metric,
        )

    @on(ChartPanel.RunAsked)
    def _highlight(self, event: ChartPanel.RunAsked) -> None:
        self._table.action_move(event.way)

    @on(ChartPanel.ReadingFailed)
    def _say_chart_error(self, event: ChartPanel.ReadingFailed) -> None:
        self._say(text.clean(str(event.error).splitlines()[0]))

    def action_chart(self, name: str, *arguments: int) -> None:
        self._chart.do(name, *arguments)

    # Keys

    def action_mark(self) -> None:
        if self._table.cursor is not None:
            self._overlay.toggle(self._table.cursor)
            self._table.redraw([self._table.cursor])
            self._show_chart()

    def action_unmark(self) -> None:
        marked = list(self._overlay.marks)
        self._overlay.marks.clear()
        self._table.redraw(marked)
        self._show_chart()

    def action_filter(self) -> None:
        self.query_one(FilterBar).begin()

    @on(FilterBar.Changed)
    def _filter(self, event: FilterBar.Changed) -> None:
        if event.expression != self._query.expression:
            self._ask(replace(self._query, expression=event.expression))

    @on(FilterBar.Left)
    def _leave_filter(self) -> None:
        self._table.focus()

    def _ask(self, query: Query) -> None:
        self._query = query
        self._read()

    def action_metric(self, way: int) -> None:
        if self._snapshot is None:
            return
        metrics = sorted((name for name in self._snapshot.metrics if not is_axis(name)), key=metric_rank)
        if metrics:
            present = self._snapshot.query.metric
            index = metrics.index(present) + way if present in metrics else 0
            self._ask(replace(self._query, metric=metrics[index % len(metrics)]))

    def action_sort(self) -> None:
        if self._snapshot is None:
            return
        columns = [column.sort for column in self._table.columns if column.sort is not None]
        choices = [(sort, reads(sort)) for sort in [*columns, "created"]]
        self.app.push_screen(Choice("sort by", choices, chosen=self._snapshot.query.sort), self._sort_by)

    def _sort_by(self, sort: str | None) -> None:
        """Sort by a column; by the one that it is sorted by already, the other way round."""
        if sort is None or self._snapshot is None:
            return
        if sort == self._snapshot.query.sort:
            self.action_reverse()
            return
        column = next((column for column in self._table.columns if column.sort == sort), None)
        self._ask(replace(self._query, sort=sort, descending=column is not None and column.descending_first))

    @on(RunsTable.HeadingClicked)
    def _sort_by_heading(self, event: RunsTable.HeadingClicked) -> None:
        self._sort_by(event.column.sort)

    def action_reverse(self) -> None:
        if self._snapshot is not None:
            now = self._snapshot.query
            self._ask(replace(self._query, sort=now.sort, descending=not now.descending))

    @on(RunsTable.RunOpened)
    def action_full(self) -> None:
        self.toggle_class("-chart-only")

    def action_back(self) -> None:
        """Close what is open: an error, the chart alone."""
        if self.query_one("#error").has_class("-said"):
            self._say("")
        elif not self._chart.back():
            self.remove_class("-chart-only")

    def action_help(self) -> None:
        self.app.push_screen(Help(self))


def _empty(query: Query, total: int) -> str:
    """What the table says where no run is shown."""
    if total or query.expression.strip():
        return "no run matches the filter\n\nf to change it"
    return "\n".join(
        [
            "no runs yet",
            "",
            "labbench run experiments/quickstart.toml",
            "trains some, and they appear here",
            "",
            "labbench demo",
            "opens an example",
        ]
    )
