"""Dialog to show, hide, reorder and resize the columns of the runs table. Esc discards the changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from labbench.tui.columns.run_column import ColumnLayout, RunColumn
from labbench.tui.widgets.prompt import LineInput

MIN_COLUMN_WIDTH, MAX_COLUMN_WIDTH = 3, 120
"""Limits of the column width, in cells."""


class _SearchInput(LineInput):
    """Input that passes the space key to the dialog."""

    def check_consume_key(self, key: str, character: str | None) -> bool:
        return key != "space" and super().check_consume_key(key, character)


class ColumnsDialog(ModalScreen[ColumnLayout | None]):
    """Dialog that returns the new layout, or None if cancelled."""

    DEFAULT_CSS = """
    ColumnsDialog { align: center middle; background: $background 60%; }
    ColumnsDialog > Vertical { width: 64; max-width: 96%; height: auto; max-height: 90%; border: round $primary;
                               background: $surface; border-title-color: $foreground; padding: 0 1; }
    ColumnsDialog Input { border: none; height: 1; padding: 0 1; background: $surface; margin-bottom: 1; }
    ColumnsDialog OptionList { height: auto; max-height: 30; border: none; background: $surface; padding: 0;
                               scrollbar-size-vertical: 1; }
    ColumnsDialog Static { color: $secondary; height: auto; margin-top: 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Back", show=False),
        Binding("enter", "accept", "Accept", show=False, priority=True),
        Binding("space", "show_or_hide", "Show", show=False, priority=True),
        Binding("down", "step(1)", "Down", show=False, priority=True),
        Binding("up", "step(-1)", "Up", show=False, priority=True),
        Binding("shift+down,ctrl+down", "move(1)", "Move down", show=False, priority=True),
        Binding("shift+up,ctrl+up", "move(-1)", "Move up", show=False, priority=True),
        Binding("right", "widen(2)", "Wider", show=False, priority=True),
        Binding("left", "widen(-2)", "Narrower", show=False, priority=True),
        Binding("ctrl+r", "reset", "Defaults", show=False, priority=True),
    ]

    def __init__(self, columns: Sequence[RunColumn], layout: ColumnLayout, *, chosen: str) -> None:
        """Open the dialog on all columns in their order, with the column id `chosen` highlighted."""
        super().__init__()
        self._columns = list(columns)
        self._shown_ids = {column.id for column in columns if layout.is_shown(column)}
        self._widths = dict(layout.widths)
        self._chosen = chosen
        self._is_reordered = bool(layout.order)

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Content("columns")
            yield _SearchInput(placeholder="type to search", compact=True)
            yield OptionList(compact=True)
            keys = "␣ show or hide   shift+↑↓ move   ←→ narrower, wider   ctrl+r defaults   ⏎ done"
            yield Static(Content(keys))

    def on_mount(self) -> None:
        self._fill()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._fill()

    def on_option_list_option_selected(self) -> None:
        self.action_show_or_hide()

    @property
    def _list(self) -> OptionList:
        return self.query_one(OptionList)

    def _fill(self) -> None:
        words = self.query_one(Input).value.lower().split()
        fitting = [column for column in self._columns if all(word in column.full_title.lower() for word in words)]
        options = [Option(self._line(column), id=str(self._columns.index(column))) for column in fitting]
        self._list.set_options(options)
        ids = [column.id for column in fitting]
        self._list.highlighted = ids.index(self._chosen) if self._chosen in ids else 0 if fitting else None

    def _line(self, column: RunColumn) -> Content:
        is_shown = column.id in self._shown_ids
        width = f"  {self._widths[column.id]} wide" if column.id in self._widths else ""
        colour = "$foreground" if is_shown else "$secondary"
        return Content.assemble(
            ("✓ " if is_shown else "  ", "$success"), (column.full_title, colour), (width, "$secondary")
        )

    def _current(self) -> RunColumn | None:
        index = self._list.highlighted
        if index is None:
            return None
        return self._columns[int(self._list.get_option_at_index(index).id or 0)]

    def action_step(self, direction: int) -> None:
        if direction > 0:
            self._list.action_cursor_down()
        else:
            self._list.action_cursor_up()

    def _refresh_list(self, column: RunColumn | None) -> None:
        """Update the list, with the cursor on the same column."""
        if column is not None:
            self._chosen = column.id
        self._fill()

    def action_show_or_hide(self) -> None:
        column = self._current()
        if column is not None and column.id != "name":
            self._shown_ids ^= {column.id}
        self._refresh_list(column)

    def action_move(self, direction: int) -> None:
        column = self._current()
        if column is None or column.id == "name":
            return
        index = self._columns.index(column)
        new_index = max(1, min(index + direction, len(self._columns) - 1))
        self._columns.insert(new_index, self._columns.pop(index))
        self._is_reordered = True
        self._refresh_list(column)

    def action_widen(self, cells: int) -> None:
        column = self._current()
        if column is not None:
            width = self._widths.get(column.id, column.width) + cells
            self._widths[column.id] = max(MIN_COLUMN_WIDTH, min(width, MAX_COLUMN_WIDTH))
        self._refresh_list(column)

    def action_reset(self) -> None:
        self.dismiss(ColumnLayout())

    def action_accept(self) -> None:
        optional = {column.id for column in self._columns if column.optional}
        all_ids = {column.id for column in self._columns}
        self.dismiss(
            ColumnLayout(
                order=tuple(column.id for column in self._columns) if self._is_reordered else (),
                hidden=frozenset(all_ids - optional - self._shown_ids),
                shown=frozenset(optional & self._shown_ids),
                widths=self._widths,
            )
        )
