"""Screen 1: table of runs, with the curves of the marked runs beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.message import Message

from labbench import text
from labbench.files import database_command
from labbench.filters.completion import Vocabulary
from labbench.records import RunRecord
from labbench.tui import clipboard, queries
from labbench.tui.charts.panel import ChartPanel
from labbench.tui.charts.series_cache import SparklineCache
from labbench.tui.clipboard import TableRows
from labbench.tui.queries import Query, Snapshot
from labbench.tui.screens.charting import ChartScreen
from labbench.tui.screens.mark_actions import MARK_BINDINGS, MarkActions
from labbench.tui.screens.query_actions import QUERY_BINDINGS, QueryActions
from labbench.tui.screens.table_actions import TABLE_BINDINGS, TableActions
from labbench.tui.session import Session
from labbench.tui.widgets.columns import SPARK_CELLS, ColumnContext, exported_rows, run_columns
from labbench.tui.widgets.filter_bar import FilterBar
from labbench.tui.widgets.key_bar import ConstantLine
from labbench.tui.widgets.run_table import RunsTable
from labbench.tui.widgets.top_bar import describe_query

_SPINNER_SECONDS = 0.25
_INITIAL_ROWS = 100
_MAX_DRAWN_RUNS = 1000
"""Maximum number of marked runs drawn on the chart; more can be marked for edits."""


class RunsScreen(ChartScreen[Snapshot]):
    """Table of runs and chart of the marked ones."""

    screen_name = "runs"
    primary_actions = (
        "marks('toggle')", "pin", "query('filter')", "query('sort')", "query('group')", "open", "app.go('compare')",
        "query('metric', 1)",
    )  # fmt: skip
    BINDINGS: ClassVar[list[BindingType]] = [
        *QUERY_BINDINGS,
        *MARK_BINDINGS,
        *TABLE_BINDINGS,
        Binding("p", "pin", "baseline", tooltip="Set as the baseline: show differences from this run"),
        Binding("enter", "open", "open", key_display="⏎", tooltip="Open the run: everything recorded about it"),
        Binding("c", "app.go('compare')", "compare", tooltip="Compare the marked runs"),
        Binding("v", "chart_alone", "chart", tooltip="Chart in full screen, or beside the table again"),
    ]

    class VocabularyRead(Message):
        """The vocabulary of filters was read."""

        def __init__(self, words: Vocabulary) -> None:
            self.words = words
            super().__init__()

    class RecordsRead(Message):
        """Records of rows that scrolled into view were read."""

        def __init__(self, records: list[RunRecord], values_at: queries.ValuesAt) -> None:
            self.records, self.values_at = records, values_at
            super().__init__()

    class SparklinesRead(Message):
        """Sparklines were read."""

        def __init__(self, runs: Sequence[RunRecord], sparks: Mapping[str, str], metric: str) -> None:
            self.runs, self.sparklines, self.metric = runs, sparks, metric
            super().__init__()

    class RunsFound(Message):
        """Runs with some words were searched."""

        def __init__(self, words: str, keys: list[str]) -> None:
            self.words, self.keys = words, keys
            super().__init__()

    def __init__(self, session: Session, *, chart_only: bool = False) -> None:
        super().__init__(session)
        self.snapshot: Snapshot | None = None
        self._sparkline_cache = SparklineCache()
        self._requested_marks: Sequence[str] = ()
        self.set_class(chart_only, "-chart-only")

    def compose_body(self) -> ComposeResult:
        yield FilterBar(self.session.query.expression)
        yield ConstantLine()
        with Container(id="work"):
            yield RunsTable()
            yield ChartPanel(self.session.path)

    def on_mount(self) -> None:
        self.table = self.query_one(RunsTable)
        self.table.marks = self.session.marks
        self.table.cursor = self.session.highlighted
        self._query_actions = QueryActions(
            self.session, self.table, set_query=self.set_query, show_table=self.show_table
        )
        self._mark_actions = MarkActions(self.session, self.table, show_marks=self._show_marks)
        self._table_actions = TableActions(
            self.session, self.table, find=self.find_run, read=self.read, place=self._place_border
        )
        self._panel = self.query_one(ChartPanel)
        self._panel.restore(self.session.chart)
        self._place_border(self.session.table_share)
        self.table.focus()
        self._spinner_timer = self.set_interval(_SPINNER_SECONDS, self.table.advance_spinner, pause=True)

    def on_unmount(self) -> None:
        self.session.chart = self._panel.state()

    # Reading and showing

    def prepare_read(self) -> Callable[[], Snapshot]:
        session = self.session
        current = [self.table.cursor, session.baseline]
        self._requested_marks = [*islice(session.marks, _MAX_DRAWN_RUNS)]
        record_keys = {*self._requested_marks, *self.table.keys_to_load(), *(key for key in current if key is not None)}
        query = session.query
        return lambda: queries.read_snapshot(session.path, query, record_keys=record_keys, rows=_INITIAL_ROWS)

    def show(self, answer: Snapshot) -> None:
        self.snapshot = self._query_actions.snapshot = self._mark_actions.snapshot = answer
        self.session.shown_metric = answer.query.metric
        query, session, table = answer.query, self.session, self.table
        present = {record.key for record in answer.records}
        session.marks.unmark([key for key in self._requested_marks if key not in present])  # deleted runs
        self.query_one(ConstantLine).show(answer.config_keys.constant)
        total = self.progress.total
        filter_bar = self.query_one(FilterBar)
        filter_bar.show_summary(describe_query(query, len(answer.keys), total))
        filter_bar.show_note(answer.name_note)
        if self.progress.is_live:
            self._spinner_timer.resume()
        else:
            self._spinner_timer.pause()
        table.sorted_by, table.stars, table.baseline = (query.sort, query.descending), answer.stars, session.baseline
        table.drawn = {} if session.marks else self._drawn_slots()
        table.empty = _empty_message(query, total, session.path)
        self.show_table()

    def set_query(self, query: Query) -> None:
        """Set another query and read."""
        self.session.query = query
        self.read()

    def show_table(self) -> None:
        """Show the snapshot in the table, in the chosen columns."""
        snapshot = self.snapshot
        if snapshot is None:
            return
        self.table.values_at.update(snapshot.values_at)
        records = {record.key: record for record in snapshot.records}
        keys = snapshot.config_keys
        context = ColumnContext(
            differing=[key for key in keys.differing if key not in snapshot.query.group],
            other_keys=[key for key in keys.names if key not in keys.differing],
            metric=snapshot.query.metric,
            metrics=snapshot.metrics,
            group_keys=snapshot.query.group,
            has_tags=snapshot.has_tags,
            has_notes=any(record.note for record in snapshot.records),
            baseline=records.get(self.session.baseline or ""),
            sparklines=self._sparkline_cache.sparklines,
            values_at=self.table.values_at,
            steps=snapshot.query.values_at,
        )
        self._query_actions.columns = columns = self.session.layout.arrange(run_columns(context))
        visible_columns = [column for column in columns if self.session.layout.is_shown(column)]
        self.table.show_runs(snapshot.rows, snapshot.records, visible_columns, snapshot.groups)
        self._show_chart()

    @on(FilterBar.Changed)
    def _filter(self, event: FilterBar.Changed) -> None:
        if event.expression != self.session.query.expression:
            self.set_query(replace(self.session.query, expression=event.expression))

    @on(ChartScreen.Failed)
    def _show_unknown_name(self, event: ChartScreen.Failed) -> None:
        """Show the error beside the filter; the table keeps the runs of the last valid filter."""
        if isinstance(event.error, queries.UnknownNameError):
            event.prevent_default()
            self.query_one(FilterBar).show_unknown_name(str(event.error))

    @on(FilterBar.EditingStarted)
    @work(thread=True, exclusive=True, group="words")
    def _read_vocabulary(self) -> None:
        self.post_result(lambda: self.VocabularyRead(queries.read_vocabulary(self.session.path)))

    @on(VocabularyRead)
    def _show_vocabulary(self, event: VocabularyRead) -> None:
        self.query_one(FilterBar).show_completions(event.words)

    @on(FilterBar.EditingFinished)
    def _leave_filter(self) -> None:
        self.table.focus()

    def action_table(self, name: str, *arguments: Any) -> None:
        self._table_actions.perform(name, *arguments)

    def _place_border(self, share: float | None) -> None:
        """Give the table a part of the screen, 0 to 1; None: as in the style sheet."""
        if share is not None:
            is_narrow = self.has_class("-narrow")
            for widget, part in ((self.table, share), (self._panel, 1 - share)):
                widget.styles.width = "100%" if is_narrow else f"{round(1000 * part)}fr"
                widget.styles.height = f"{round(1000 * part)}fr" if is_narrow else "100%"

    def on_resize(self) -> None:
        self.call_after_refresh(lambda: self._place_border(self.session.table_share))

    @on(RunsTable.BorderDragged)
    def _drag_border(self, event: RunsTable.BorderDragged) -> None:
        work_area = self.query_one("#work").region
        is_narrow = self.has_class("-narrow")
        at, size = (event.y - work_area.y, work_area.height) if is_narrow else (event.x - work_area.x, work_area.width)
        self._table_actions.set_share((at + 1) / max(1, size))

    def find_run(self, words: str) -> None:
        """Move the cursor to the next run with these words."""
        self._find(words)

    @work(thread=True, exclusive=True, group="selection")
    def _find(self, words: str) -> None:
        keys = [key for key in self.table.keys if key not in self.table.groups]
        self.post_result(lambda: self.RunsFound(words, queries.find_runs(self.session.path, keys, words)))

    @on(RunsFound)
    def _go_to_found_run(self, event: RunsFound) -> None:
        if not event.keys:
            self.notify(f"no run in the table with “{text.clean(event.words)}”", markup=False)
        else:
            place = self.table.go_to_next(event.keys)
            self.notify(f"{place + 1} of {len(event.keys)} with “{text.clean(event.words)}”", markup=False, timeout=2)

    def action_query(self, name: str, *arguments: Any) -> None:
        self._query_actions.perform(name, *arguments)

    @on(RunsTable.HeadingClicked)
    def _sort_by_heading(self, event: RunsTable.HeadingClicked) -> None:
        self._query_actions.sort_by(event.column.sort)

    @on(RunsTable.RowsNeeded)
    def _load_rows(self, event: RunsTable.RowsNeeded) -> None:
        self._read_records(list(event.keys))

    @work(thread=True, exclusive=True, group="records")
    def _read_records(self, keys: list[str]) -> None:
        path, pairs = self.session.path, self.session.query.values_at
        self.post_result(
            lambda: self.RecordsRead(queries.read_records(path, keys), queries.read_all_values_at(path, keys, pairs))
        )

    @on(RecordsRead)
    def _show_records(self, event: RecordsRead) -> None:
        self.table.values_at.update(event.values_at)
        self.table.add_records(event.records)
        self._show_chart()

    @on(RunsTable.RunHighlighted)
    def _show_chart(self) -> None:
        """Draw the curves of the marked and the highlighted runs, and read missing sparklines.

        Without marks, the best run of each of the best configurations is drawn.
        """
        self.session.highlighted = self.table.cursor
        if self.snapshot is None:
            return
        slots = self._drawn_slots()
        keys = dict.fromkeys([*islice(slots, _MAX_DRAWN_RUNS), *self.table.runs_of_cursor()])
        records = (self.table.record(key) for key in keys)
        runs = [run for run in records if run is not None]
        metric = self.snapshot.query.metric
        self._panel.page.show(
            runs,
            marks=slots,
            highlighted=self.table.cursor,
            metric=metric,
            metrics=self.snapshot.metrics,
        )
        self._show_group_slots()
        if metric is not None and any(column.id == "metric:spark" for column in self.table.columns):
            missing = self._sparkline_cache.missing(self.table.records_on_screen(), metric)
            if missing:
                self._read_sparklines(missing, metric)

    def _drawn_slots(self) -> Mapping[str, int]:
        """Return the colour slots of the runs to draw by key: the marked ones, else the leaders."""
        if self.session.marks or self.snapshot is None:
            return self.session.marks
        return {key: slot for slot, key in enumerate(self.snapshot.leaders, start=1)}

    def _show_group_slots(self) -> None:
        """Give the rows of very many marked runs the colours of their groups on the charts."""
        page = self._panel.page
        if self.session.marks and page.run_display() == "groups" and self.table.drawn != page.slots:
            changed = [key for key, slot in page.slots.items() if self.table.drawn.get(key) != slot]
            self.table.drawn = page.slots
            self.table.redraw(changed)

    @work(thread=True, exclusive=True, group="sparks", description="read sparklines")
    def _read_sparklines(self, runs: Sequence[RunRecord], metric: str) -> None:
        self.post_result(
            lambda: self.SparklinesRead(
                runs, queries.read_sparklines(self.session.path, runs, metric, SPARK_CELLS), metric
            )
        )

    @on(SparklinesRead)
    def _show_sparklines(self, event: SparklinesRead) -> None:
        if self._sparkline_cache.store(event.runs, event.sparklines, event.metric):
            self.table.redraw([run.key for run in event.runs])

    # Marks and the baseline

    def selected_keys(self) -> Sequence[str]:
        return self.session.marks.selected_keys(self.table.runs_of_cursor())

    def action_marks(self, name: str) -> None:
        self._mark_actions.perform(name)

    def _show_marks(self, keys: Sequence[str]) -> None:
        """Redraw runs whose marks have changed; read the records of marked runs that are missing."""
        self.table.drawn = {} if self.session.marks else self._drawn_slots()
        leaders = self.snapshot.leaders if self.snapshot is not None else ()
        self.table.redraw([*keys, *leaders])
        if all(self.table.record(key) for key in islice(self.session.marks, _MAX_DRAWN_RUNS)):
            self._show_chart()
        else:
            self.read()

    def action_pin(self) -> None:
        keys = self.table.runs_of_cursor()
        if len(keys) == 1:
            self.session.baseline = None if self.session.baseline == keys[0] else keys[0]
            self.read()

    # Opening

    def action_open(self) -> None:
        """Open the highlighted run, or open or close the highlighted group."""
        cursor, query = self.table.cursor, self.session.query
        if cursor is None:
            return
        if cursor in self.table.groups:
            self.set_query(replace(query, opened=query.opened ^ {cursor}))
        else:
            from labbench.tui.screens.run import RunScreen  # imported when the first run is opened

            self.app.push_screen(RunScreen(self.session, cursor))

    @on(RunsTable.RunOpened)
    def _open_clicked(self) -> None:
        self.action_open()

    def action_chart_alone(self) -> None:
        self.toggle_class("-chart-only")
        (self._panel if self.has_class("-chart-only") else self.table).focus()

    @on(ChartPanel.RunStepRequested)
    def _highlight(self, event: ChartPanel.RunStepRequested) -> None:
        self.table.action_move(event.direction)

    @on(ChartPanel.MetricChosen)
    def _set_chosen_metric(self, event: ChartPanel.MetricChosen) -> None:
        self.set_metric(event.metric)

    def set_metric(self, metric: str) -> None:
        if self.snapshot is not None and metric in self.snapshot.metrics:
            self.set_query(replace(self.session.query, metric=metric))

    def step_back(self) -> None:
        if not self._panel.back():
            self.remove_class("-chart-only")
            self.table.focus()

    def view(self) -> Callable[[], TableRows]:
        """Return a function that reads all rows in the visible columns."""
        path, rows, groups = self.session.path, self.table.keys, self.table.groups
        exported = [column for column in self.table.columns if column.id != "metric:spark"]
        values_at = self.session.query.values_at

        def read() -> TableRows:
            keys = [key for key in rows if key not in groups]
            self.table.values_at.update(queries.read_all_values_at(path, keys, values_at))
            return exported_rows(exported, rows, groups, queries.read_records(path, keys))

        return read

    def show_restored_session(self) -> None:
        """Show the session after it was restored from a saved view."""
        self.query_one(FilterBar).input.value = self.session.query.expression
        self._panel.restore(self.session.chart)
        self.table.cursor = self.session.highlighted
        self.read()

    def copy_choices(self, run: RunRecord, recorded_command: str) -> list[tuple[str, str]]:
        column = self.table.columns[self.table.column]
        keys = self.snapshot.config_keys.varying if self.snapshot is not None else ()
        command = clipboard.training_command(run, self.session.path, recorded_command, keys)
        return [
            (column.cell(run), f"cell of {column.title}"),
            (command, "command that trains it again"),
            (run.key, "key"),
            (run.name, "name"),
        ]


def _empty_message(query: Query, total: int, database: Path) -> str:
    """Return the message of a table without rows."""
    if total or query.expression.strip():
        return "no run matches the filter\n\npress f to change it"
    return "\n".join(
        [
            "no runs yet",
            "",
            f"{text.clean(database_command(database))} run experiments/quickstart.toml",
            "trains a first grid, whose runs appear here",
            "",
            "labbench demo",
            "opens an example database",
        ]
    )
