"""Table of runs and groups with a cursor that keys and the mouse move, and a border that can be dragged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from labbench.tui.columns.run_column import RunColumn
from labbench.tui.widgets.run_row import GAP_CELLS, HEADING_ROWS
from labbench.tui.widgets.run_rows import RunRows


class RunsTable(RunRows):
    """Table with one run per row; mark, status and name stay in view, other columns scroll sideways."""

    DEFAULT_CSS = """
    RunsTable { border: round $border; border-title-color: $foreground; border-subtitle-color: $secondary;
                scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; }
    RunsTable:focus { border: round $primary 60%; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1)", show=False, tooltip="Down"),
        Binding("k,up", "move(-1)", show=False, tooltip="Up"),
        Binding("ctrl+f,pagedown", "page(1)", show=False, tooltip="Page down"),
        Binding("ctrl+b,pageup", "page(-1)", show=False, tooltip="Page up"),
        Binding("g,home", "edge(0)", show=False, tooltip="First run"),
        Binding("G,end", "edge(-1)", show=False, tooltip="Last run"),
        Binding("right", "column(1)", show=False, tooltip="Next column"),
        Binding("left", "column(-1)", show=False, tooltip="Previous column"),
    ]

    class RunOpened(Message):
        """A run was double-clicked."""

    class HeadingClicked(Message):
        """A column's title was clicked."""

        def __init__(self, column: RunColumn) -> None:
            self.column = column
            super().__init__()

    class BorderDragged(Message):
        """The border beside or below the table was dragged to a cell of the screen."""

        def __init__(self, x: int, y: int) -> None:
            self.x, self.y = x, y
            super().__init__()

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._is_dragging = False

    def action_move(self, rows: int) -> None:
        self._move_cursor_to(self._cursor_row + rows)

    def action_page(self, pages: int) -> None:
        self._move_cursor_to(self._cursor_row + pages * max(1, self._page - 1))

    def action_edge(self, row: int) -> None:
        self._move_cursor_to(row % max(1, len(self.keys)))

    def go_to_next(self, keys: Sequence[str]) -> int:
        """Move the cursor to the next of some runs, in table order, after the current row; return its index."""
        rows = [self._row_by_key[key] for key in keys]
        place = next((place for place, row in enumerate(rows) if row > self._cursor_row), 0)
        self._move_cursor_to(rows[place])
        return place

    def action_column(self, direction: int) -> None:
        self._go_to_column(self.column + direction)

    def _go_to_column(self, index: int) -> None:
        """Move the cursor to another column and scroll it into view."""
        self.column = max(0, min(index, len(self.columns) - 1))
        self._strips.clear()
        self.refresh()
        if self.column:
            left = sum(GAP_CELLS + column.width for column in self.columns[1 : self.column])
            right = left + GAP_CELLS + self.columns[self.column].width
            width = self.scrollable_content_region.width - self._row_layout.frozen_width
            x = min(max(self.scroll_offset.x, right + 1 - width), left)
            self.scroll_to(x=x, animate=False, force=True, immediate=True)

    def _move_cursor_to(self, row: int) -> None:
        if not self.keys:
            return
        row, before = max(0, min(row, len(self.keys) - 1)), self._cursor_row
        if row == before:
            return
        self.cursor = self.keys[row]
        self.refresh_line(before + HEADING_ROWS)
        self.refresh_line(row + HEADING_ROWS)
        top = self.scroll_offset.y
        self._scroll_to_row(min(max(top, row - self._page + 1), row))
        self._post_highlighted()

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if event.x == self.outer_size.width - 1 or event.y == self.outer_size.height - 1:
            self._is_dragging = True
            self.capture_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._is_dragging:
            self.post_message(self.BorderDragged(event.screen_x, event.screen_y))

    def on_mouse_up(self) -> None:
        if self._is_dragging:
            self._is_dragging = False
            self.release_mouse()

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        if offset.y < HEADING_ROWS:
            column = event.style.meta.get("column")
            if column is not None:
                self._go_to_column(column)
                self.post_message(self.HeadingClicked(self.columns[column]))
        else:
            self._move_cursor_to(self.scroll_offset.y + offset.y - HEADING_ROWS)
            if event.chain == 2:
                self.post_message(self.RunOpened())
