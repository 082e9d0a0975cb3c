"""Screen 1: table of runs, with the curves of the marked runs beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container

from labbench import text
from labbench.files import database_command
from labbench.records import RunRecord
from labbench.training_command import training_command
from labbench.tui import queries, run_values
from labbench.tui.actions.mark_actions import MARK_BINDINGS, MarkActions
from labbench.tui.actions.query_actions import QUERY_BINDINGS, QueryActions
from labbench.tui.actions.table_actions import TABLE_BINDINGS, TableActions
from labbench.tui.charts.panel import ChartPanel
from labbench.tui.clipboard import TableRows
from labbench.tui.columns.run_column import ColumnLayout, RunColumn
from labbench.tui.columns.run_columns import ColumnContext, exported_rows, run_columns
from labbench.tui.columns.short_names import fit_names
from labbench.tui.drawn_runs import MAX_DRAWN_RUNS, DrawnRuns, choose_drawn_runs
from labbench.tui.queries import DatabaseProgress, Query, Snapshot
from labbench.tui.screens.run_table_screen import RunTableScreen
from labbench.tui.session import Session
from labbench.tui.widgets.filter_bar import FilterBar
from labbench.tui.widgets.key_bar import ConstantLine
from labbench.tui.widgets.picker import Picker
from labbench.tui.widgets.run_row import LEAD_CELLS
from labbench.tui.widgets.run_table import RunsTable

_SPINNER_SECONDS = 0.5
_INITIAL_ROWS = 100


class RunsScreen(RunTableScreen):
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
        Binding("percent_sign", "constants", show=False, key_display="%", tooltip="List the constant settings"),
        Binding("c", "app.go('compare')", "compare", tooltip="Compare the marked runs, or those on the charts"),
        Binding("v", "chart_alone", "chart", tooltip="Chart in full screen, or beside the table again"),
    ]

    def __init__(self, session: Session, *, chart_only: bool = False) -> None:
        super().__init__(session)
        self.snapshot: Snapshot | None = None
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
        self.table_actions = TableActions(
            self.session, self.table, find=self.find_run, read=self.read, place=self.place_border
        )
        self._panel = self.query_one(ChartPanel)
        self._panel.restore(self.session.chart)
        self.place_border(self.session.table_share)
        self.table.focus()
        self._spinner_timer = self.set_interval(_SPINNER_SECONDS, self.table.advance_spinner, pause=True)

    def on_unmount(self) -> None:
        self.session.chart = self._panel.state()

    # Reading and showing

    def prepare_read(self) -> Callable[[], Snapshot]:
        session = self.session
        current = [self.table.cursor, session.baseline]
        self._requested_marks = [*islice(session.marks, MAX_DRAWN_RUNS)]
        record_keys = {*self._requested_marks, *self.table.keys_to_load(), *(key for key in current if key is not None)}
        query = session.query
        return lambda: queries.read_snapshot(session.path, query, record_keys=record_keys, rows=_INITIAL_ROWS)

    def show(self, answer: Snapshot) -> None:
        self.snapshot = self._query_actions.snapshot = self._mark_actions.snapshot = answer
        self.session.shown_metric = answer.query.metric
        query, session, table = answer.query, self.session, self.table
        gone = set(self._requested_marks) - {record.key for record in answer.records}
        session.marks.unmark(gone)  # deleted runs
        self.query_one(ConstantLine).show(answer.config_keys.constant)
        self.show_matches(answer)
        if self.progress.is_live:
            self._spinner_timer.resume()
        else:
            self._spinner_timer.pause()
        table.sorted_by, table.stars, table.baseline = (query.sort, query.descending), answer.stars, session.baseline
        table.drawn = self._table_slots()
        table.empty = _empty_message(query, self.progress, session.path)
        self.show_table()

    @on(RunsTable.Resized)
    def show_table(self) -> None:
        """Show the snapshot in the table, in the chosen columns."""
        snapshot = self.snapshot
        if snapshot is None:
            return
        self.table.values_at.update(snapshot.values_at)
        context = _column_context(snapshot, self.session, self.sparkline_cache.sparklines, self.table.values_at)
        width, layout = self.table.scrollable_content_region.width - LEAD_CELLS, self.session.layout
        columns = layout.arrange(_fit_columns(snapshot, run_columns(context), layout, width))
        self._query_actions.columns = columns
        visible_columns = [column for column in columns if layout.is_shown(column)]
        self.table.show_runs(snapshot.rows, snapshot.records, visible_columns, snapshot.groups)
        self.draw_curves()

    def action_query(self, name: str, *arguments: Any) -> None:
        self._query_actions.perform(name, *arguments)

    @on(RunsTable.HeadingClicked)
    def _sort_by_heading(self, event: RunsTable.HeadingClicked) -> None:
        self._query_actions.sort_by(event.column.sort)

    @on(RunsTable.RunHighlighted)
    def draw_curves(self) -> None:
        """Draw the curves of the marked and the highlighted runs, and read missing sparklines.

        Without marks, the best run of each of the best configurations is drawn, or the groups of the table.
        """
        self.session.highlighted = self.table.cursor
        if self.snapshot is None:
            return
        drawn = self._drawn_runs()
        keys = dict.fromkeys([*islice(drawn.slots, MAX_DRAWN_RUNS), *self.table.runs_of_cursor()[:MAX_DRAWN_RUNS]])
        runs = list(filter(None, map(self.table.record, keys)))
        metric = self.snapshot.query.metric
        show = partial(self._panel.page.show, runs, metric=metric, metrics=self.snapshot.metrics)
        self._panel.page.series_cache.other_runs = self.snapshot.records
        show(marks=drawn.slots, highlighted=self.table.cursor, group_names=drawn.group_names)
        self._show_group_slots()
        if metric is not None and any(column.id == "metric:spark" for column in self.table.columns):
            missing = self.sparkline_cache.missing(self.table.records_on_screen(), metric)
            if missing:
                self.read_sparklines(missing, metric)

    def _drawn_runs(self) -> DrawnRuns:
        """Return the runs to draw: the marked ones, else the leaders, in the groups of the table."""
        groups, leaders = (self.snapshot.groups, self.snapshot.leaders) if self.snapshot is not None else ({}, ())
        return choose_drawn_runs(groups, leaders, self.session.marks)

    def _table_slots(self) -> Mapping[str, int]:
        """Return the colour slots of rows with other glyphs than their marks, by run key or group id."""
        drawn = self._drawn_runs()
        return {} if self.session.marks and not drawn.group_slots else {**drawn.slots, **drawn.group_slots}

    def _show_group_slots(self) -> None:
        """Give the rows of very many marked runs the colours of their groups on the charts."""
        page = self._panel.page
        if (
            self.session.marks
            and not self.table.groups
            and page.run_display() == "groups"
            and self.table.drawn != page.slots
        ):
            changed = [key for key, slot in page.slots.items() if self.table.drawn.get(key) != slot]
            self.table.drawn = page.slots
            self.table.redraw(changed)

    # Marks and the baseline

    def selected_keys(self) -> Sequence[str]:
        return self.session.marks.selected_keys(self.table.runs_of_cursor())

    def action_marks(self, name: str) -> None:
        self._mark_actions.perform(name)

    def _show_marks(self, keys: Sequence[str]) -> None:
        """Redraw runs whose marks have changed; read the records of marked runs that are missing."""
        before, self.table.drawn = self.table.drawn, self._table_slots()
        self.table.redraw([*keys, *before, *self.table.drawn, *self.table.groups])
        if all(self.table.record(key) for key in islice(self.session.marks, MAX_DRAWN_RUNS)):
            self.draw_curves()
        else:
            self.read()

    def action_pin(self) -> None:
        keys = self.table.runs_of_cursor()
        if len(keys) == 1:
            self.session.baseline = None if self.session.baseline == keys[0] else keys[0]
            self.read()

    # Opening

    @on(RunsTable.RunOpened)
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

    def action_constants(self) -> None:
        constant = self.query_one(ConstantLine).constant
        choices = [(key, f"{text.clean(key)}   {text.format_setting(value)}") for key, value in constant.items()]
        self.app.push_screen(Picker("constant: the same in all runs", choices))

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
            self.table.values_at.update(run_values.read_all_values_at(path, keys, values_at))
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
        command = training_command(run, self.session.path, recorded_command, keys)
        return [
            (column.cell(run), f"cell of {column.full_title}"),
            (command, "command that trains it again"),
            (run.key, "key"),
            (run.name, "name"),
        ]


def _column_context(
    snapshot: Snapshot, session: Session, sparklines: Mapping[str, str], values_at: run_values.ValuesAt
) -> ColumnContext:
    """Return the data that determine the columns of a snapshot."""
    records = {record.key: record for record in snapshot.records}
    keys = snapshot.config_keys
    return ColumnContext(
        differing=[key for key in keys.differing if key not in snapshot.query.group],
        other_keys=[key for key in keys.names if key not in keys.differing],
        metric=snapshot.query.metric,
        metrics=snapshot.metrics,
        group_keys=snapshot.query.group,
        has_tags=snapshot.has_tags,
        has_notes=any(record.note for record in snapshot.records),
        has_sources=any(record.source for record in snapshot.records),
        baseline=records.get(session.baseline or ""),
        sparklines=sparklines,
        values_at=values_at,
        steps=snapshot.query.values_at,
    )


def _fit_columns(
    snapshot: Snapshot, columns: Sequence[RunColumn], layout: ColumnLayout, width: int
) -> Sequence[RunColumn]:
    """Return the columns for a table of `width` cells; groups have names."""
    if snapshot.query.group:
        return columns
    keys = set(snapshot.keys)
    return fit_names(columns, [record for record in snapshot.records if record.key in keys], layout, width)


def _empty_message(query: Query, progress: DatabaseProgress, database: Path) -> str:
    """Return the message of a table without rows."""
    if progress.total or query.expression.strip():
        return "no run matches the filter\n\npress f to change it"
    if progress.archived:
        are = "is" if progress.archived == 1 else "are"
        runs = text.format_count(progress.archived, "run")
        return f"{runs} {are} archived\n\nthe filter archived=true (key f) shows what is archived"
    return "\n".join(
        [
            "no runs yet",
            "",
            f"{text.clean(database_command(database))} new",
            "writes a first grid and says how to train it",
            "",
            "labbench demo",
            "opens an example database",
        ]
    )
