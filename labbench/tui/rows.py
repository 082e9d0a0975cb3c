"""How a run looks as a row of the table, and how the row of titles looks: columns and a record in, a strip out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.strip import Strip
from textual.widget import Widget

from labbench import text
from labbench.records import RunRecord
from labbench.tui.columns import Column
from labbench.tui.looks import GLYPHS, MOVING, STATUS_LOOKS, series_colours

LEAD = 5
"""Cells before the name: the mark and the status."""


@dataclass(frozen=True, slots=True)
class RowState:
    """What a row shows beside its record."""

    highlighted: bool = False
    slot: int | None = None
    """Of its mark; None where it has none."""
    starred: bool = False
    turn: int = 0
    """How far the glyph of a run that is training has turned."""


class RowPainter:
    """Paints rows in the colours of the theme that its widget has at the moment."""

    def __init__(self, widget: Widget) -> None:
        self._widget = widget
        self._styles: dict[tuple[str, str, bool, bool, bool], Style] = {}

    def heading(self, columns: Sequence[Column], name_width: int, sort: str | None, *, descending: bool) -> Strip:
        """The titles; the one that is sorted by has an arrow. Each knows its column's index as `meta`, for clicks."""
        segments = [Segment(" " * LEAD, self.style("secondary"))]
        for index, column in enumerate(columns):
            is_sorted = sort is not None and column.sort == sort
            arrow = ("▼" if descending else "▲") if is_sorted else " "
            title = text.fit(column.title, name_width) if index == 0 else column.heading()
            style = self.style("primary" if is_sorted else "secondary", bold=True)
            segments.append(Segment(f"{title}{arrow} ", style + Style.from_meta({"column": index})))
        return Strip(segments)

    def row(self, record: RunRecord, columns: Sequence[Column], name_width: int, state: RowState) -> Strip:
        """Mark, status and name, then a cell for each other column."""
        on = state.highlighted
        plain = self.style("foreground", highlighted=on)
        look = STATUS_LOOKS[record.status]
        glyph = MOVING[state.turn % len(MOVING)] if record.status == "running" else look.glyph
        name = text.fit(columns[0].cell(record), name_width)
        segments = [
            Segment(" ", plain),
            self._mark(state.slot, plain),
            Segment(" ", plain),
            Segment(f"{glyph} ", self.style(look.colour, highlighted=on)),
            Segment(name, self.style("foreground", bold=on, highlighted=on)),
        ]
        for column in columns[1:]:
            cell = column.fitted(record)
            star = "★" if state.starred and column.is_best else " "
            strange = cell.strip() in ("nan", "inf", "-inf")
            segments.append(Segment(f" {star}", self.style("accent", highlighted=on)))
            segments.append(Segment(cell, self.style("warning", highlighted=on) if strange else plain))
        return Strip([*segments, Segment(" ", plain)])

    def _mark(self, slot: int | None, plain: Style) -> Segment:
        if slot is None:
            return Segment(" ", plain)
        return Segment(
            GLYPHS[slot], plain + Style(color=Color.parse(series_colours(self._widget.app)[slot]).rich_color)
        )

    def style(self, colour: str, *, bold: bool = False, highlighted: bool = False) -> Style:
        """The theme's colour of that name, on the widget's background or on the cursor's."""
        widget = self._widget
        key = (widget.app.theme, colour, bold, highlighted, widget.has_focus)
        if key not in self._styles:
            variables = widget.app.theme_variables
            background = widget.background_colors[1]
            if highlighted:
                background = background.blend(Color.parse(variables["primary"]), 0.22 if widget.has_focus else 0.12)
            ink = Color.parse(variables[colour])
            self._styles[key] = Style(color=ink.rich_color, bgcolor=background.rich_color, bold=bold)
        return self._styles[key]
