"""How a run or a group looks as a row of the table, and how the row of titles looks: columns in, a strip out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.strip import Strip
from textual.widget import Widget

from labbench import text
from labbench.charts.glyphs import SERIES_GLYPHS, SPINNER_GLYPHS, STATUS_GLYPHS
from labbench.records import RunRecord, Status
from labbench.tui.groups import RunGroup
from labbench.tui.theme import series_colours
from labbench.tui.widgets.columns import RunColumn

LEAD_CELLS = 5
"""Cells before the name: the mark and the status."""
_STATUS_PRIORITY: tuple[Status, ...] = ("running", "failed", "lost", "diverged", "stopped", "queued", "finished")
"""A group shows the status of its runs that asks most for a look."""


@dataclass(frozen=True, slots=True)
class RowState:
    """What a row shows beside its record."""

    highlighted: bool = False
    slot: int | None = None
    """Of its mark; None where it has none."""
    stars: Collection[str] = ()
    """The metrics that are best here."""
    is_baseline: bool = False
    is_member: bool = False
    """It stands beneath its group."""
    turn: int = 0
    """How far the glyph of a run that is training has turned."""
    column: int | None = None
    """The column of the cursor."""


@dataclass(frozen=True, slots=True)
class RowLayout:
    """The columns of a table, the name first, and the cells that the name has."""

    columns: Sequence[RunColumn]
    name_width: int


class RowPainter:
    """Paints rows in the colours of the theme that its widget has at the moment."""

    def __init__(self, widget: Widget) -> None:
        self._widget = widget
        self._styles: dict[tuple[str, str, bool, float, bool], Style] = {}

    def clear_styles(self) -> None:
        """The widget looks different: a row painted right after a change of theme had the old one's background."""
        self._styles.clear()

    def heading(self, layout: RowLayout, sorted_by: tuple[str | None, bool], current: int) -> Strip:
        """The titles; the one that is sorted by has an arrow. Each knows its column's index as `meta`, for clicks."""
        sort, descending = sorted_by
        segments = [Segment(" " * LEAD_CELLS, self.style("secondary"))]
        for index, column in enumerate(layout.columns):
            is_sorted = sort is not None and column.sort == sort
            arrow = ("▼" if descending else "▲") if is_sorted else " "
            title = text.fit_to_width(column.title, layout.name_width) if index == 0 else column.heading()
            style = self.style("primary" if is_sorted else "secondary", bold=True)
            if index == current:
                style += Style(underline=True)
            segments.append(Segment(title, style + Style.from_meta({"column": index})))
            segments.append(Segment(f"{arrow} ", self.style("primary") + Style.from_meta({"column": index})))
        return Strip(segments)

    def row(self, record: RunRecord, layout: RowLayout, state: RowState) -> Strip:
        """Mark, status and name, then a cell for each other column."""
        look = STATUS_GLYPHS[record.status]
        glyph = SPINNER_GLYPHS[state.turn % len(SPINNER_GLYPHS)] if record.status == "running" else look.glyph
        name = f"{'  ' if state.is_member else ''}{layout.columns[0].cell(record)}"
        cells = [name, *(column.cell(record) for column in layout.columns[1:])]
        colour = "secondary" if record.archived or record.older_code else "foreground"
        lead = [self._mark_segment(state), Segment(f"{glyph} ", self._row_style(look.colour, state))]
        return self._row(lead, cells, layout, state, colour)

    def group(self, group: RunGroup, layout: RowLayout, state: RowState) -> Strip:
        """The same for a group: its settings in place of a name, means in place of values."""
        status: Status = next((status for status in _STATUS_PRIORITY if group.statuses.get(status)), "finished")
        look = STATUS_GLYPHS[status]
        cells = [column.group_cell(group) for column in layout.columns]
        lead = [self._mark_segment(state), Segment(f"{look.glyph} ", self._row_style(look.colour, state))]
        return self._row(lead, cells, layout, state, "foreground", bold=True)

    def _row(
        self,
        lead: Sequence[Segment],
        cells: Sequence[str],
        layout: RowLayout,
        state: RowState,
        colour: str,
        *,
        bold: bool = False,
    ) -> Strip:
        plain = self._row_style(colour, state)
        bold = bold or state.highlighted
        segments = [
            Segment("»" if state.is_baseline else " ", self._row_style("accent", state)),
            lead[0],
            Segment(" ", plain),
            lead[1],
        ]
        name = text.fit_to_width(cells[0], layout.name_width)
        segments.append(Segment(name, self._row_style(colour, state, bold=bold, column=0)))
        for index, column in enumerate(layout.columns[1:], start=1):
            cell = column.fit_cell(cells[index])
            blank = len(cell) - len(cell.lstrip()) if column.best_of in state.stars else len(cell)
            ink = "secondary" if column.is_quiet else _cell_colour(cell.strip(), colour)
            if blank < len(cell):  # the star stands right before the number
                segments.append(Segment(f" {' ' * blank}★", self._row_style("accent", state)))
                segments.append(Segment(cell[blank:], self._row_style(ink, state, column=index)))
            else:
                segments += [Segment("  ", plain), Segment(cell, self._row_style(ink, state, column=index))]
        return Strip([*segments, Segment(" ", plain)])

    def _mark_segment(self, state: RowState) -> Segment:
        plain = self._row_style("foreground", state)
        if state.slot is None:
            return Segment(" ", plain)
        colour = Color.parse(series_colours(self._widget.app)[state.slot])
        return Segment(SERIES_GLYPHS[state.slot], plain + Style(color=colour.rich_color))

    def _row_style(self, colour: str, state: RowState, *, bold: bool = False, column: int | None = None) -> Style:
        """A colour in a row: the cursor's row is lit, and its cell more so."""
        at_cursor = column is not None and column == state.column
        return self.style(colour, bold=bold, lit=0.0 if not state.highlighted else 0.42 if at_cursor else 0.22)

    def style(self, colour: str, *, bold: bool = False, lit: float = 0.0) -> Style:
        """The theme's colour of that name, on the widget's background or so far lit by the cursor's."""
        widget = self._widget
        key = (widget.app.theme, colour, bold, lit, widget.has_focus)
        if key not in self._styles:
            variables = widget.app.theme_variables
            background = widget.background_colors[1]
            if lit:
                background = background.blend(Color.parse(variables["primary"]), lit if widget.has_focus else lit / 2)
            ink = Color.parse(variables[colour])
            self._styles[key] = Style(color=ink.rich_color, bgcolor=background.rich_color, bold=bold)
        return self._styles[key]


_CELL_COLOURS: Mapping[str, str] = {"▲": "success", "▼": "error", "n": "warning", "i": "warning"}


def _cell_colour(cell: str, otherwise: str) -> str:
    """Better and worse than the baseline, and numbers that are none, have their own colours."""
    if cell[:2] in ("▲ ", "▼ ") or cell in ("nan", "inf"):
        return _CELL_COLOURS[cell[0]]
    return "warning" if cell == "-inf" else otherwise
