"""Base of the runs screen: keys that change the filter, metric, order, groups and columns of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.message import Message

from labbench.filters.completion import Vocabulary
from labbench.metrics import charted_metrics
from labbench.tui import queries
from labbench.tui.queries import Query, Snapshot
from labbench.tui.screens.editing import EditScreen
from labbench.tui.widgets.columns import ColumnLayout, RunColumn
from labbench.tui.widgets.columns_dialog import MAX_COLUMN_WIDTH, MIN_COLUMN_WIDTH, ColumnsDialog
from labbench.tui.widgets.filter_bar import FilterBar
from labbench.tui.widgets.picker import Picker
from labbench.tui.widgets.run_table import RunsTable
from labbench.tui.widgets.top_bar import describe_sort

_BY_SETUP = "set-ups"
_NO_GROUPS = "none"


class QueryScreen(EditScreen[Snapshot]):
    """Table of runs whose query is changed by keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "filter", "filter", tooltip="Filter (search) the runs"),
        Binding("slash", "filter", "filter", show=False, tooltip="Filter (search) the runs"),
        Binding("o", "sort", "sort", tooltip="Sort (order) by a column"),
        Binding("O", "reverse", "reverse", show=False, tooltip="Reverse the order"),
        Binding("full_stop", "sort_here", "sort here", show=False, key_display=".", tooltip="Sort by this column"),
        Binding("b", "group", "group by", tooltip="Group by config keys: mean and spread over seeds"),
        Binding("m", "metric(1)", "metric", tooltip="Next metric"),
        Binding("M", "metric(-1)", "previous metric", show=False, tooltip="Previous metric"),
        Binding("C", "columns", "columns", tooltip="Choose, hide, reorder and resize columns"),
        Binding("shift+right", "move_column(1)", show=False, tooltip="Move this column right"),
        Binding("shift+left", "move_column(-1)", show=False, tooltip="Move this column left"),
        Binding("left_parenthesis", "widen(-2)", show=False, key_display="(", tooltip="Narrow this column"),
        Binding("right_parenthesis", "widen(2)", show=False, key_display=")", tooltip="Widen this column"),
        Binding("vertical_line", "hide", show=False, key_display="|", tooltip="Hide this column"),
    ]

    class VocabularyRead(Message):
        """The vocabulary of filters was read."""

        def __init__(self, words: Vocabulary) -> None:
            self.words = words
            super().__init__()

    snapshot: Snapshot | None = None
    """Result of the last read."""
    columns: Sequence[RunColumn] = ()
    """All columns, including hidden ones."""
    table: RunsTable

    def show_table(self) -> None:
        """Show the snapshot in the table, in the chosen columns."""
        raise NotImplementedError

    def set_query(self, query: Query) -> None:
        """Set another query and read."""
        self.session.query = query
        self.read()

    def action_filter(self) -> None:
        self.query_one(FilterBar).begin()

    @on(FilterBar.Changed)
    def _filter(self, event: FilterBar.Changed) -> None:
        if event.expression != self.session.query.expression:
            self.set_query(replace(self.session.query, expression=event.expression))

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

    def action_metric(self, direction: int) -> None:
        if self.snapshot is None:
            return
        metrics = charted_metrics(self.snapshot.metrics)
        if metrics:
            present = self.snapshot.query.metric
            index = metrics.index(present) + direction if present in metrics else 0
            self.set_query(replace(self.session.query, metric=metrics[index % len(metrics)]))

    # The order

    def action_sort(self) -> None:
        if self.snapshot is None:
            return
        sorts = dict.fromkeys(column.sort for column in self.columns if column.sort is not None)
        metric = self.snapshot.query.metric
        smoothed = [f"smooth({metric})"] if metric is not None else []
        choices = [(sort, describe_sort(sort)) for sort in [*sorts, *smoothed, "created"]]
        self.app.push_screen(Picker("sort by", choices, chosen=self.snapshot.query.sort), self._sort_by)

    def _sort_by(self, sort: str | None) -> None:
        """Sort by a column; reverse the order if the table is already sorted by it."""
        if sort is None or self.snapshot is None:
            return
        if sort == self.snapshot.query.sort:
            self.action_reverse()
            return
        column = next((column for column in self.columns if column.sort == sort), None)
        metric = self.snapshot.query.metric
        is_best_high = metric is not None and self.snapshot.metrics[metric] == "max" and sort == f"smooth({metric})"
        descending = is_best_high if column is None else column.descending_first
        self.set_query(replace(self.session.query, sort=sort, descending=descending))

    @on(RunsTable.HeadingClicked)
    def _sort_by_heading(self, event: RunsTable.HeadingClicked) -> None:
        self._sort_by(event.column.sort)

    def action_sort_here(self) -> None:
        if self.table.columns:
            self._sort_by(self.table.columns[self.table.column].sort)

    def action_reverse(self) -> None:
        if self.snapshot is not None:
            now = self.snapshot.query
            self.set_query(replace(self.session.query, sort=now.sort, descending=not now.descending))

    # Groups

    def action_group(self) -> None:
        if self.snapshot is None:
            return
        grouped, differing = self.session.query.group, self.snapshot.config_keys.differing
        choices = [(_NO_GROUPS, "no groups: one row per run")] if grouped else []
        if "seed" in differing and len(differing) > 1:
            choices.append((_BY_SETUP, "set-ups: runs that differ only in their seed"))
        keys = [*grouped, *(key for key in differing if key not in grouped)]
        choices += [(f"by {key}", f"{'without ' if key in grouped else ''}{describe_sort(key)}") for key in keys]
        self.app.push_screen(Picker("group by", choices), self._group_by)

    def _group_by(self, choice: str | None) -> None:
        """Add a key to the group keys, or remove it."""
        if choice is None or self.snapshot is None:
            return
        grouped = self.session.query.group
        if choice == _NO_GROUPS:
            grouped = ()
        elif choice == _BY_SETUP:
            grouped = tuple(key for key in (*grouped, *self.snapshot.config_keys.varying) if key != "seed")
        elif (key := choice.removeprefix("by ")) in grouped:
            grouped = tuple(other for other in grouped if other != key)
        else:
            grouped = (*grouped, key)
        grouped = tuple(dict.fromkeys(grouped))
        self.set_query(replace(self.session.query, group=grouped, opened=frozenset()))

    # Columns

    def action_columns(self) -> None:
        if self.columns:
            chosen = self.table.columns[self.table.column].id
            self.app.push_screen(
                ColumnsDialog(self.columns, self.session.layout, chosen=chosen), self._apply_column_layout
            )

    def _apply_column_layout(self, layout: ColumnLayout | None) -> None:
        if layout is not None:
            self.session.layout = layout
            self.show_table()

    def action_move_column(self, direction: int) -> None:
        visible = list(self.table.columns)
        index = self.table.column
        if index > 0 and 0 < index + direction < len(visible):
            order = [column.id for column in self.columns]
            column, neighbour = visible[index].id, visible[index + direction].id
            order.remove(column)
            order.insert(order.index(neighbour) + (direction > 0), column)
            self._apply_column_layout(replace(self.session.layout, order=tuple(order)))

    def action_widen(self, cells: int) -> None:
        if self.table.columns:
            column = self.table.columns[self.table.column]
            width = max(MIN_COLUMN_WIDTH, min(column.width + cells, MAX_COLUMN_WIDTH))
            self._apply_column_layout(
                replace(self.session.layout, widths={**self.session.layout.widths, column.id: width})
            )

    def action_hide(self) -> None:
        layout = self.session.layout
        if self.table.column:
            column = self.table.columns[self.table.column].id
            self._apply_column_layout(replace(layout, hidden=layout.hidden | {column}, shown=layout.shown - {column}))
