"""Rows of the runs table: their order, the records read so far, the layout of the columns, and the drawing.

The cursor belongs to a run, not to a row: when the order changes, the run stays highlighted and on the same line of
the screen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from rich.segment import Segment
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from labbench.records import RunRecord
from labbench.tui.columns.run_column import RunColumn
from labbench.tui.groups import RunGroup
from labbench.tui.widgets.partial_drawing import DrawnLines, mark_hidden, set_titles
from labbench.tui.widgets.run_row import GAP_CELLS, HEADING_ROWS, LEAD_CELLS, RowLayout, RowPainter, RowState

_PREFETCH_ROWS = 40
"""Rows requested beyond the visible ones, so that small steps need no reading."""


class RunRows(ScrollView, can_focus=True):
    """Virtual rows of runs and groups; records of visible rows are requested."""

    class RunHighlighted(Message):
        """The cursor moved to another run."""

        def __init__(self, key: str) -> None:
            self.key = key
            super().__init__()

    class Resized(Message):
        """The table has another size."""

    class RowsNeeded(Message):
        """Rows without records scrolled into view."""

        def __init__(self, keys: Sequence[str]) -> None:
            self.keys = keys
            super().__init__()

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.keys: Sequence[str] = ()
        """Run keys and group ids of all rows, in order."""
        self.groups: Mapping[str, RunGroup] = {}
        self.cursor: str | None = None
        """Key or id of the highlighted row."""
        self.columns: Sequence[RunColumn] = ()
        self.column = 0
        """Index of the cursor's column."""
        self.sorted_by: tuple[str | None, bool] = (None, False)
        self.marks: Mapping[str, int] = {}
        """Colour slots of the marked runs."""
        self.drawn: Mapping[str, int] = {}
        """Colour slots of the drawn runs; for other runs, `marks` applies."""
        self.stars: Collection[tuple[str, str]] = ()
        """(metric, run key or group id) of the best value of each metric."""
        self.baseline: str | None = None
        self.values_at: dict[tuple[str, int, str], float] = {}
        """Values of metrics at steps, by (metric, step, run key)."""
        self.empty = ""
        """Message shown without rows."""
        self.turn = 0
        """Animation frame of the glyph of running runs."""
        self._records: dict[str, RunRecord] = {}
        self._row_by_key: dict[str, int] = {}
        self._requested: list[str] = []
        self._strips: dict[tuple[str, bool], Strip] = {}
        self._painter = RowPainter(self)
        self._drawn_lines = DrawnLines(self)

    # Contents

    def show_runs(
        self,
        keys: Sequence[str],
        records: Sequence[RunRecord],
        columns: Sequence[RunColumn],
        groups: Mapping[str, RunGroup] | None = None,
    ) -> None:
        """Show rows in this order; records missing in `records` are requested when they scroll into view."""
        before = self._cursor_row
        line = before - self.scroll_offset.y if self.keys else self._page - 1  # a first list scrolls only if it must
        is_growing = self._row_by_key.keys() <= set(keys)
        self.keys, self._row_by_key = keys, {key: row for row, key in enumerate(keys)}
        self._records = {record.key: record for record in records}
        self.groups = groups or {}
        self._requested = []
        self._set_columns(columns, keep_widths=is_growing)
        if self.cursor not in self._row_by_key:  # the run is gone: highlight the row at its position
            self.cursor = keys[min(before, len(keys) - 1)] if keys else None
            self._post_highlighted()
        self._relayout()
        if self.cursor is not None:
            self._scroll_to_row(self._row_by_key[self.cursor] - line)

    def _set_columns(self, columns: Sequence[RunColumn], *, keep_widths: bool) -> None:
        """Replace the columns; the cursor stays in its column. Other runs than before have widths of their own."""
        previous = {column.id: column for column in self.columns if keep_widths}
        current = self.columns[self.column].id if self.columns else "name"
        for column in columns:
            if column.id in previous and column.metric == previous[column.id].metric:
                column.widen_to(previous[column.id])
            column.widen_for((), self.groups.values())
        self.columns = columns
        self.column = next((index for index, column in enumerate(columns) if column.id == current), 0)

    def add_records(self, records: Sequence[RunRecord]) -> None:
        """Fill in the records of requested rows."""
        self._records.update((record.key, record) for record in records)
        self._relayout()

    def record(self, key: str) -> RunRecord | None:
        """Return the record of a run, or None if it has not been read."""
        return self._records.get(key)

    def redraw(self, keys: Iterable[str]) -> None:
        """Redraw the rows of these runs."""
        for key in keys:
            self._strips.pop((key, True), None)
            self._strips.pop((key, False), None)
            if key in self._row_by_key:
                self.refresh_line(self._row_by_key[key] + HEADING_ROWS)

    def advance_spinner(self) -> None:
        """Advance the glyphs of running runs by one frame."""
        self.turn += 1
        for line, key in enumerate(self._visible_keys(), start=HEADING_ROWS + self.scroll_offset.y):
            record = self._records.get(key)
            if record is not None and record.status == "running":
                self.refresh_line(line)

    def keys_to_load(self) -> Sequence[str]:
        """Return the runs on the screen and some rows around them."""
        top = self.scroll_offset.y
        around = self.keys[max(0, top - _PREFETCH_ROWS) : top + self._page + _PREFETCH_ROWS]
        return [key for key in around if key not in self.groups] if self.groups else around

    def records_on_screen(self) -> list[RunRecord]:
        """Return the records of the visible runs that have been read."""
        records = (self._records.get(key) for key in self._visible_keys())
        return [record for record in records if record is not None]

    def runs_of_cursor(self) -> tuple[str, ...]:
        """Return the highlighted run, or the runs of the highlighted group."""
        if self.cursor is None:
            return ()
        return self.groups[self.cursor].keys if self.cursor in self.groups else (self.cursor,)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._strips.clear()
        self._painter.clear_styles()

    @property
    def _cursor_row(self) -> int:
        return self._row_by_key.get(self.cursor or "", 0)

    @property
    def _page(self) -> int:
        return max(1, self.scrollable_content_region.height - HEADING_ROWS)

    def _scroll_to_row(self, top: int) -> None:
        if top != self.scroll_offset.y:
            self.scroll_to(y=max(0, top), animate=False, force=True, immediate=True)

    def _post_highlighted(self) -> None:
        if self.cursor is not None:
            self.post_message(self.RunHighlighted(self.cursor))

    # Layout

    def on_resize(self) -> None:
        self._relayout()
        self.post_message(self.Resized())

    def _relayout(self) -> None:
        rows = [record for key, record in self._records.items() if key in self._row_by_key]
        for column in self.columns:
            column.widen_for(rows)
        width = self._row_layout.frozen_width + sum(GAP_CELLS + column.width for column in self.columns[1:])
        self.virtual_size = Size(width, len(self.keys) + HEADING_ROWS)
        self._show_position()
        self._strips.clear()
        self._drawn_lines.refresh(self._line)

    @property
    def _row_layout(self) -> RowLayout:
        return RowLayout.fit(self.columns, self.scrollable_content_region.width, is_grouped=bool(self.groups))

    def _visible_keys(self) -> Sequence[str]:
        top = self.scroll_offset.y
        return self.keys[top : top + self._page]

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._show_position()

    def _show_position(self) -> None:
        top, rows = self.scroll_offset.y, len(self._visible_keys())
        position = f"{top + 1}–{top + rows} of {len(self.keys)}" if self.keys else ""
        set_titles(self, subtitle=Content(position))

    # Drawing

    def render_line(self, y: int) -> Strip:
        return self._drawn_lines.draw(y, self._line(y))

    def _line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        if not self.keys:
            return self._painter.message(self.empty.splitlines(), y, self._page, width)
        if y == 0:
            return self._visible_part(self._painter.metrics_heading(self._row_layout), width)
        if y < HEADING_ROWS:
            titles = self._visible_part(self._painter.heading(self._row_layout, self.sorted_by, self.column), width)
            frozen, end = self._row_layout.frozen_width, self.virtual_size.width
            return mark_hidden(titles, frozen, self.scroll_offset.x, end, self._painter.style("primary", bold=True))
        row = self.scroll_offset.y + y - HEADING_ROWS
        if row >= len(self.keys):
            return Strip.blank(width, self._painter.style("foreground"))
        key = self.keys[row]
        strip = self._row(key)
        if strip is None:
            self._request_rows()
            return Strip([Segment((" " * LEAD_CELLS + "…").ljust(width), self._painter.style("secondary"))], width)
        return self._visible_part(strip, width, highlighted=key == self.cursor)

    def _row(self, key: str) -> Strip | None:
        """Return the strip of a run or group, or None if its record has not been read."""
        highlighted = key == self.cursor
        record, group = self._records.get(key), self.groups.get(key)
        strip = self._strips.get((key, highlighted))
        if strip is not None and (record is None or record.status != "running"):  # a running one is animated
            return strip
        state = RowState(
            highlighted,
            self.drawn.get(key, self.marks.get(key)),
            any(run in self.marks for run in group.keys) if group is not None else key in self.marks,
            [metric for metric, row in self.stars if row == key],
            key == self.baseline,
            bool(self.groups),
            self.turn,
            self.column,
        )
        if group is not None:
            strip = self._painter.group(group, self._row_layout, state)
        elif record is not None:
            strip = self._painter.row(record, self._row_layout, state)
        else:
            return None
        self._strips[key, highlighted] = strip
        return strip

    def _request_rows(self) -> None:
        """Request the missing records of the visible rows; a newer request replaces an earlier one.

        The same records are not requested again: a run may have been deleted, or be missing from a damaged index.
        """
        missing = [key for key in self.keys_to_load() if key not in self._records]
        if missing != self._requested:
            self._requested = missing
            if missing:
                self.post_message(self.RowsNeeded(missing))

    def _visible_part(self, strip: Strip, width: int, *, highlighted: bool = False) -> Strip:
        """Return the visible part of a row: the frozen cells, then the cells at the scroll position."""
        blank = self._painter.style("foreground", lit=0.22 if highlighted else 0.0)
        return self._row_layout.visible_part(strip, self.scroll_offset.x, width, blank)
