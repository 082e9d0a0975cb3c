"""Actions of the runs screen on its query and columns: filter, metric, order, groups, and the layout of the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from textual.binding import Binding

from labbench import text
from labbench.metrics import charted_metrics
from labbench.tui.columns.run_column import ColumnLayout, RunColumn
from labbench.tui.queries import Query, Snapshot
from labbench.tui.session import Session
from labbench.tui.widgets.columns_dialog import MAX_COLUMN_WIDTH, MIN_COLUMN_WIDTH, ColumnsDialog
from labbench.tui.widgets.filter_bar import FilterBar
from labbench.tui.widgets.picker import KeysPicker, Picker
from labbench.tui.widgets.run_table import RunsTable
from labbench.tui.widgets.top_bar import describe_sort

QUERY_BINDINGS = [
    Binding("f", "query('filter')", "filter", tooltip="Filter (search) the runs"),
    Binding("o", "query('sort')", "sort", tooltip="Sort (order) by a column"),
    Binding("O", "query('reverse')", "reverse", show=False, tooltip="Reverse the order"),
    Binding("full_stop", "query('sort_here')", "sort here", show=False, key_display=".", tooltip="Sort by this column"),
    Binding("b", "query('group')", "group by", tooltip="Group by config keys: mean and spread over seeds"),
    Binding("m", "query('metric', 1)", "metric", tooltip="Next metric"),
    Binding("C", "query('columns')", "columns", tooltip="Choose, hide, reorder and resize columns"),
    Binding("shift+right", "query('move_column', 1)", show=False, tooltip="Move this column right"),
    Binding("shift+left", "query('move_column', -1)", show=False, tooltip="Move this column left"),
    Binding("left_parenthesis", "query('widen', -2)", show=False, key_display="(", tooltip="Narrow this column"),
    Binding("right_parenthesis", "query('widen', 2)", show=False, key_display=")", tooltip="Widen this column"),
    Binding("vertical_line", "query('hide')", show=False, key_display="|", tooltip="Hide this column"),
]
"""Bindings of a screen whose `action_query(name, *arguments)` calls `QueryActions.perform`."""

_BY_CONFIGURATION = "configurations"
_NO_GROUPS = "none"


class QueryActions:
    """Actions that change the query of a session and the columns of its table."""

    def __init__(
        self,
        session: Session,
        table: RunsTable,
        *,
        set_query: Callable[[Query], None],
        show_table: Callable[[], None],
    ) -> None:
        """Create the actions; `set_query` sets a query and reads, `show_table` shows the table in a new layout."""
        self._session, self._table = session, table
        self._set_query, self._show_table = set_query, show_table
        self.snapshot: Snapshot | None = None
        """Result of the last read."""
        self.columns: Sequence[RunColumn] = ()
        """All columns, including hidden ones."""

    def perform(self, name: str, *arguments: Any) -> None:
        """Perform an action by name, for a key of the screen."""
        getattr(self, f"action_{name}")(*arguments)

    def action_filter(self) -> None:
        self._table.screen.query_one(FilterBar).begin()

    def action_metric(self, direction: int) -> None:
        if self.snapshot is None:
            return
        metrics = charted_metrics(self.snapshot.metrics)
        if metrics:
            present = self.snapshot.query.metric
            index = metrics.index(present) + direction if present in metrics else 0
            self._set_query(replace(self._session.query, metric=metrics[index % len(metrics)]))

    # The order

    def action_sort(self) -> None:
        if self.snapshot is None:
            return
        sorts = dict.fromkeys(column.sort for column in self.columns if column.sort is not None)
        metric = self.snapshot.query.metric
        smoothed = [f"smooth({metric})"] if metric is not None else []
        choices = [(sort, describe_sort(sort)) for sort in [*sorts, *smoothed, "created"]]
        self._table.app.push_screen(Picker("sort by", choices, chosen=self.snapshot.query.sort), self.sort_by)

    def sort_by(self, sort: str | None) -> None:
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
        self._set_query(replace(self._session.query, sort=sort, descending=descending))

    def action_sort_here(self) -> None:
        if self._table.columns:
            self.sort_by(self._table.columns[self._table.column].sort)

    def action_reverse(self) -> None:
        if self.snapshot is not None:
            now = self.snapshot.query
            self._set_query(replace(self._session.query, sort=now.sort, descending=not now.descending))

    # Groups

    def action_group(self) -> None:
        if self.snapshot is None:
            return
        grouped, differing = self._session.query.group, self.snapshot.config_keys.differing
        choices = [(_NO_GROUPS, "no groups: one row per run")] if grouped else []
        if "seed" in differing and len(differing) > 1:
            choices.append((_BY_CONFIGURATION, "configurations: runs that differ only in their seed"))
        keys = [*grouped, *(key for key in differing if key not in grouped)]
        choices += [(f"by {key}", f"{'without ' if key in grouped else ''}{describe_sort(key)}") for key in keys]
        title = f"group by   several keys: {keys[0]},{keys[1]}" if len(keys) > 1 else "group by"
        self._table.app.push_screen(KeysPicker(text.clean(title), choices, keys=keys), self._group_by)

    def _group_by(self, choice: str | None) -> None:
        """Add a key to the group keys, or remove it."""
        if choice is None or self.snapshot is None:
            return
        grouped = self._session.query.group
        if choice == _NO_GROUPS:
            grouped = ()
        elif choice == _BY_CONFIGURATION:
            grouped = tuple(key for key in (*grouped, *self.snapshot.config_keys.varying) if key != "seed")
        elif not choice.startswith("by "):
            grouped = tuple(choice.split(","))
        elif (key := choice.removeprefix("by ")) in grouped:
            grouped = tuple(other for other in grouped if other != key)
        else:
            grouped = (*grouped, key)
        grouped = tuple(dict.fromkeys(grouped))
        self._set_query(replace(self._session.query, group=grouped, opened=frozenset()))

    # Columns

    def action_columns(self) -> None:
        if self.columns:
            chosen = self._table.columns[self._table.column].id
            self._table.app.push_screen(
                ColumnsDialog(self.columns, self._session.layout, chosen=chosen), self._apply_column_layout
            )

    def _apply_column_layout(self, layout: ColumnLayout | None) -> None:
        if layout is not None:
            self._session.layout = layout
            self._show_table()

    def action_move_column(self, direction: int) -> None:
        visible = list(self._table.columns)
        index = self._table.column
        if index > 0 and 0 < index + direction < len(visible):
            order = [column.id for column in self.columns]
            column, neighbour = visible[index].id, visible[index + direction].id
            order.remove(column)
            order.insert(order.index(neighbour) + (direction > 0), column)
            self._apply_column_layout(replace(self._session.layout, order=tuple(order)))

    def action_widen(self, cells: int) -> None:
        if self._table.columns:
            column = self._table.columns[self._table.column]
            width = max(MIN_COLUMN_WIDTH, min(column.width + cells, MAX_COLUMN_WIDTH))
            self._apply_column_layout(
                replace(self._session.layout, widths={**self._session.layout.widths, column.id: width})
            )

    def action_hide(self) -> None:
        layout = self._session.layout
        if self._table.column:
            column = self._table.columns[self._table.column].id
            self._apply_column_layout(replace(layout, hidden=layout.hidden | {column}, shown=layout.shown - {column}))
