"""Base of the runs screen: its table with the filter, the reading of rows that scroll into view, and its border."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from textual import on, work
from textual.message import Message

from labbench import text
from labbench.filters.completion import Vocabulary
from labbench.records import RunRecord
from labbench.tui import queries, run_values
from labbench.tui.actions.table_actions import TableActions
from labbench.tui.charts.panel import ChartPanel
from labbench.tui.charts.series_cache import SparklineCache
from labbench.tui.columns.run_columns import SPARK_CELLS
from labbench.tui.queries import Query, Snapshot
from labbench.tui.screens.charting import ChartScreen
from labbench.tui.session import Session
from labbench.tui.vocabulary import read_vocabulary
from labbench.tui.widgets.filter_bar import FilterBar
from labbench.tui.widgets.run_table import RunsTable
from labbench.tui.widgets.top_bar import describe_query


class RunTableScreen(ChartScreen[Snapshot]):
    """Screen with a filter and a table of the matching runs."""

    table: RunsTable
    table_actions: TableActions

    class VocabularyRead(Message):
        """The vocabulary of filters was read."""

        def __init__(self, words: Vocabulary) -> None:
            self.words = words
            super().__init__()

    class RecordsRead(Message):
        """Records of rows that scrolled into view were read."""

        def __init__(self, records: list[RunRecord], values_at: run_values.ValuesAt) -> None:
            self.records, self.values_at = records, values_at
            super().__init__()

    class SparklinesRead(Message):
        """Sparklines were read."""

        def __init__(self, runs: Sequence[RunRecord], sparks: Mapping[str, str], metric: str) -> None:
            self.runs, self.sparklines, self.metric = runs, sparks, metric
            super().__init__()

    class RunsFound(Message):
        """A search for runs with some words has ended."""

        def __init__(self, words: str, keys: list[str]) -> None:
            self.words, self.keys = words, keys
            super().__init__()

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.sparkline_cache = SparklineCache()

    def draw_curves(self) -> None:
        """Draw the curves of the runs in the table."""
        raise NotImplementedError

    def set_query(self, query: Query) -> None:
        """Set another query and read."""
        self.session.query = query
        self.read()

    @on(FilterBar.Changed)
    def _filter(self, event: FilterBar.Changed) -> None:
        if event.expression != self.session.query.expression:
            self.set_query(replace(self.session.query, expression=event.expression))

    def show_matches(self, answer: Snapshot) -> None:
        """Show beside the filter how many runs match the query, and notes on its names."""
        summary = describe_query(answer.query, len(answer.keys), self.progress.total)
        self.query_one(FilterBar).show_summary(summary)
        self.query_one(FilterBar).show_note(answer.name_note)

    @on(ChartScreen.Failed)
    def _show_unknown_name(self, event: ChartScreen.Failed) -> None:
        """Show the error beside the filter; the table keeps the runs of the last valid filter."""
        if isinstance(event.error, queries.UnknownNameError):
            event.prevent_default()
            self.end_waiting()
            self.query_one(FilterBar).show_unknown_name(str(event.error))

    @on(FilterBar.EditingStarted)
    @work(thread=True, exclusive=True, group="words")
    def _read_vocabulary(self) -> None:
        self.post_result(lambda: self.VocabularyRead(read_vocabulary(self.session.path)))

    @on(VocabularyRead)
    def _show_vocabulary(self, event: VocabularyRead) -> None:
        self.query_one(FilterBar).show_completions(event.words)

    @on(FilterBar.EditingFinished)
    def _leave_filter(self) -> None:
        self.table.focus()

    def action_table(self, name: str, *arguments: Any) -> None:
        self.table_actions.perform(name, *arguments)

    # Rows and curves that scroll into view

    @on(RunsTable.RowsNeeded)
    def _load_rows(self, event: RunsTable.RowsNeeded) -> None:
        self._read_records(list(event.keys))

    @work(thread=True, exclusive=True, group="records")
    def _read_records(self, keys: list[str]) -> None:
        path, pairs = self.session.path, self.session.query.values_at
        self.post_result(
            lambda: self.RecordsRead(queries.read_records(path, keys), run_values.read_all_values_at(path, keys, pairs))
        )

    @on(RecordsRead)
    def _show_records(self, event: RecordsRead) -> None:
        self.table.values_at.update(event.values_at)
        self.table.add_records(event.records)
        self.draw_curves()

    @work(thread=True, exclusive=True, group="sparks", description="read sparklines")
    def read_sparklines(self, runs: Sequence[RunRecord], metric: str) -> None:
        self.post_result(
            lambda: self.SparklinesRead(
                runs, queries.read_sparklines(self.session.path, runs, metric, SPARK_CELLS), metric
            )
        )

    @on(SparklinesRead)
    def _show_sparklines(self, event: SparklinesRead) -> None:
        if self.sparkline_cache.store(event.runs, event.sparklines, event.metric):
            self.table.redraw([run.key for run in event.runs])

    # The border and the search

    def place_border(self, share: float | None) -> None:
        """Set the table's share of the screen, 0 to 1; None: the default of the style sheet."""
        if share is not None:
            is_narrow = self.has_class("-narrow")
            for widget, part in ((self.table, share), (self.query_one(ChartPanel), 1 - share)):
                widget.styles.width = "100%" if is_narrow else f"{round(1000 * part)}fr"
                widget.styles.height = f"{round(1000 * part)}fr" if is_narrow else "100%"

    def on_resize(self) -> None:
        self.call_after_refresh(lambda: self.place_border(self.session.table_share))

    @on(RunsTable.BorderDragged)
    def _drag_border(self, event: RunsTable.BorderDragged) -> None:
        work_area = self.query_one("#work").region
        is_narrow = self.has_class("-narrow")
        at, size = (event.y - work_area.y, work_area.height) if is_narrow else (event.x - work_area.x, work_area.width)
        self.table_actions.set_share((at + 1) / max(1, size))

    def find_run(self, words: str) -> None:
        """Move the cursor to the next run with these words."""
        self._find(words)

    @work(thread=True, exclusive=True, group="selection")
    def _find(self, words: str) -> None:
        keys = [key for key in self.table.keys if key not in self.table.groups]
        self.post_result(lambda: self.RunsFound(words, run_values.find_runs(self.session.path, keys, words)))

    @on(RunsFound)
    def _go_to_found_run(self, event: RunsFound) -> None:
        if not event.keys:
            self.notify(f"no run in the table with “{text.clean(event.words)}”", markup=False)
        else:
            place = self.table.go_to_next(event.keys)
            self.notify(f"{place + 1} of {len(event.keys)} with “{text.clean(event.words)}”", markup=False, timeout=2)
