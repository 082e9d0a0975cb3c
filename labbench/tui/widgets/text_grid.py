"""Table of text cells with a cell cursor; titles and the first column stay in view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from labbench import text
from labbench.tui.theme import has_few_colours, heat_ground, reversed_style
from labbench.tui.widgets.partial_drawing import DrawnLines, mark_hidden

_GAP_CELLS = 2
_SHADES = "░▒▓█"
_MAX_CELL_WIDTH = 44
_ROW_TINT, _CELL_TINT = 0.14, 0.42
"""Strength of the cursor's colour in its row and in its cell, 0 to 1."""


@dataclass(frozen=True, slots=True)
class GridCell:
    """Text without control characters, with its style."""

    text: str = ""
    colour: str = "foreground"
    """Name of a theme colour."""
    bold: bool = False
    heat: float | None = None
    """Strength of the heat map background, 0 to 1; None for no background."""


@dataclass(frozen=True, slots=True)
class GridRow:
    """A label and its cells; a row without cells is a heading of the following rows."""

    label: GridCell
    cells: Sequence[GridCell] = ()
    key: str = ""
    """Identifier of the row, for its creator."""


def _shade(heat: float) -> str:
    return _SHADES[min(len(_SHADES) - 1, int(heat * len(_SHADES)))]


class TextGrid(ScrollView, can_focus=True):
    """Scrollable table of text cells."""

    DEFAULT_CSS = """
    TextGrid { border: round $border; border-title-color: $foreground; border-subtitle-color: $secondary;
            scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; }
    TextGrid:focus { border: round $primary 60%; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1, 0)", show=False, tooltip="Down"),
        Binding("k,up", "move(-1, 0)", show=False, tooltip="Up"),
        Binding("right", "move(0, 1)", show=False, tooltip="Right"),
        Binding("left", "move(0, -1)", show=False, tooltip="Left"),
        Binding("pagedown,ctrl+f", "page(1)", show=False, tooltip="A page down"),
        Binding("pageup,ctrl+b", "page(-1)", show=False, tooltip="A page up"),
        Binding("g,home", "move(-1000000, 0)", show=False, tooltip="First row"),
        Binding("G,end", "move(1000000, 0)", show=False, tooltip="Last row"),
    ]

    class Moved(Message):
        """The cursor moved to another cell."""

    class Opened(Message):
        """A cell was double-clicked."""

    def __init__(self, *, id: str | None = None, empty: str = "") -> None:
        super().__init__(id=id)
        self.titles: Sequence[GridCell] = ()
        self.rows: Sequence[GridRow] = ()
        self.row = self.column = 0
        """Position of the cursor."""
        self.empty = empty
        """Message shown without rows."""
        self._widths: list[int] = []
        self._drawn_lines = DrawnLines(self)

    def show(self, titles: Sequence[GridCell], rows: Sequence[GridRow]) -> None:
        """Show titles, the first for the labels, and rows; the cursor keeps its position if that cell exists."""
        rows = [self._with_shades(row) for row in rows] if self._has_shades else rows
        self.titles, self.rows = titles, rows
        columns = range(len(titles) - 1)
        widths = (
            [max([text.cell_width(titles[0].text), *(text.cell_width(row.label.text) for row in rows)])]
            if titles
            else []
        )
        for index in columns:
            cells = [row.cells[index].text for row in rows if index < len(row.cells)]
            widths.append(max(map(text.cell_width, [titles[index + 1].text, *cells])))
        self._widths = [min(width, _MAX_CELL_WIDTH) for width in widths]
        self.virtual_size = Size(sum(self._widths) + _GAP_CELLS * len(self._widths), len(rows) + 1)
        row = min(self.row, len(rows) - 1)
        first = next((index for index in range(max(0, row), len(rows)) if rows[index].cells), row)
        self._move_cursor_to(first, self.column)

    @property
    def _has_shades(self) -> bool:
        """True if the terminal has too few colours for a heat map."""
        return self.app.no_color or has_few_colours(self.app)

    def _with_shades(self, row: GridRow) -> GridRow:
        """Return the row with a shade character before each value instead of a background."""
        cells = [
            cell if cell.heat is None else replace(cell, text=f"{_shade(cell.heat)} {cell.text}") for cell in row.cells
        ]
        return replace(row, cells=cells)

    @property
    def content_width(self) -> int:
        """Width in cells in which all columns are visible, with the border and the scroll bar."""
        return sum(self._widths) + _GAP_CELLS * len(self._widths) + 3

    @property
    def current(self) -> GridRow | None:
        """Row of the cursor."""
        return self.rows[self.row] if self.row < len(self.rows) else None

    def texts(self) -> list[list[str]]:
        """Return all texts, row by row, titles first."""
        head = [cell.text for cell in self.titles]
        return [head, *([row.label.text, *(cell.text for cell in row.cells)] for row in self.rows)]

    def action_move(self, rows: int, columns: int) -> None:
        row, direction = self.row + rows, 1 if rows >= 0 else -1
        row = max(0, min(row, len(self.rows) - 1))
        while 0 <= row < len(self.rows) and not self.rows[row].cells and len(self.titles) > 1:
            row += direction  # skip headings
        if not 0 <= row < len(self.rows):
            row = self.row
        self._move_cursor_to(row, self.column + columns)
        self.post_message(self.Moved())

    def action_page(self, pages: int) -> None:
        self.action_move(pages * max(1, self.scrollable_content_region.height - 2), 0)

    def _move_cursor_to(self, row: int, column: int) -> None:
        self.row = max(0, min(row, len(self.rows) - 1))
        self.column = max(0, min(column, len(self.titles) - 2))
        page = self.scrollable_content_region.height - 1
        top = min(max(self.scroll_offset.y, self.row - page + 1), self.row)
        if self._widths:
            frozen = self._widths[0] + _GAP_CELLS
            left = sum(_GAP_CELLS + width for width in self._widths[1 : self.column + 1])
            right = left + _GAP_CELLS + self._widths[self.column + 1] if self.column + 1 < len(self._widths) else left
            width = self.scrollable_content_region.width - frozen
            x = min(max(self.scroll_offset.x, right - width), left)
            if (x, top) != self.scroll_offset:
                self.scroll_to(x=x, y=top, animate=False, force=True, immediate=True)
        self._drawn_lines.refresh(self._line_at)

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None or offset.y == 0:
            return
        row = self.scroll_offset.y + offset.y - 1
        column = event.style.meta.get("column", self.column)
        if row < len(self.rows) and self.rows[row].cells:
            self._move_cursor_to(row, column)
            self.post_message(self.Moved())
            if event.chain == 2:
                self.post_message(self.Opened())

    def render_line(self, y: int) -> Strip:
        return self._drawn_lines.draw(y, self._line_at(y))

    def _line_at(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        if not self.rows:
            lines = self.empty.splitlines()
            message = lines[y - 1] if 1 <= y <= len(lines) else ""
            return Strip([Segment(text.fit_to_width(" " + message, width), self._style("secondary"))], width)
        if y == 0:
            cells = [GridCell(cell.text, "secondary", bold=True) for cell in self.titles]
            titles, frozen = self._visible_part(cells, None, width), self._widths[0] + _GAP_CELLS
            end = self.virtual_size.width - _GAP_CELLS
            return mark_hidden(titles, frozen, self.scroll_offset.x, end, self._style("primary", bold=True))
        index = self.scroll_offset.y + y - 1
        if index >= len(self.rows):
            return Strip.blank(width, self._style("foreground"))
        row = self.rows[index]
        lit = self.column if index == self.row else None
        blank = [GridCell()] * (len(self.titles) - 1 - len(row.cells))
        return self._visible_part([row.label, *row.cells, *blank], lit, width)

    def _line(self, cells: Sequence[GridCell], lit: int | None, visible: range) -> list[Segment]:
        """Return the cells of a row side by side.

        `lit` is the cursor's column, None outside the cursor's row. Only the cells `visible` of the row are drawn: the
        text of a cell that they do not hold as a whole is cut with an ellipsis, a number is left out.
        """
        segments, start = [], 0
        for index, (cell, width) in enumerate(zip(cells, self._widths, strict=True)):
            at_cursor = lit is not None and index == lit + 1
            tint = 0.0 if lit is None else _CELL_TINT if at_cursor else _ROW_TINT
            style = self._style(cell.colour, bold=cell.bold or at_cursor, lit=tint, heat=cell.heat)
            words = _visible_words(cell.text, start, width, visible if index else range(width))
            segments.append(Segment(words, style + Style.from_meta({"column": max(0, index - 1)})))
            start += width + _GAP_CELLS
            segments.append(Segment(" " * _GAP_CELLS, self._style("foreground", lit=0.0 if lit is None else _ROW_TINT)))
        return segments

    def _visible_part(self, cells: Sequence[GridCell], lit: int | None, width: int) -> Strip:
        """Return the visible part of a row: the label, then the cells at the scroll position."""
        frozen = min(self._widths[0] + _GAP_CELLS, width)
        start = frozen + self.scroll_offset.x
        strip = Strip(self._line(cells, lit, range(start, start + max(0, width - frozen))))
        rest = strip.crop(start, start + max(0, width - frozen))
        return Strip.join([strip.crop(0, frozen), rest]).adjust_cell_length(width, self._style("foreground"))

    def _style(self, colour: str, *, bold: bool = False, lit: float = 0.0, heat: float | None = None) -> Style:
        variables = self.app.theme_variables
        background = self.background_colors[1]
        if heat is not None and not self._has_shades:
            background = heat_ground(self.app, background, heat)
        if has_few_colours(self.app):
            bold = bold or lit > 0
            if lit == _CELL_TINT and self.has_focus:
                return reversed_style(self.app, bold=bold)
        elif lit:
            background = background.blend(Color.parse(variables["primary"]), lit if self.has_focus else lit / 2)
        return Style(color=Color.parse(variables[colour]).rich_color, bgcolor=background.rich_color, bold=bold)


def _visible_words(words: str, start: int, width: int, visible: range) -> str:
    """Return the text of a cell of `width` cells at `start`, so that its part in `visible` shows no cut number."""
    hidden_left = min(width, max(0, visible.start - start))
    room = max(0, min(width - hidden_left, visible.stop - start - hidden_left))
    if room == width or (text.cell_width(words) <= room and not hidden_left):
        return text.fit_to_width(words, width)
    return " " * hidden_left + text.fit_number(words, room) + " " * (width - hidden_left - room)
