"""Drawing of the rows of the runs table: runs, groups and the column titles."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from textwrap import wrap

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.strip import Strip
from textual.widget import Widget

from labbench import text
from labbench.charts.glyphs import OTHER_GLYPH, OTHER_SLOT, SERIES_GLYPHS, SPINNER_GLYPHS, STATUS_GLYPHS
from labbench.metrics import Goal
from labbench.records import RunRecord, Status
from labbench.tui.columns.run_column import RunColumn
from labbench.tui.groups import RunGroup
from labbench.tui.theme import has_few_colours, reversed_style, series_colours

LEAD_CELLS = 5
"""Width of mark, status and baseline sign before the name, in cells."""
GAP_CELLS = 2
"""Gap between two columns, in cells."""
HEADING_ROWS = 2
"""Rows of the heading: metrics, then titles."""
_GOAL_ARROWS: Mapping[Goal, str] = {"min": " ↓", "max": " ↑", "none": ""}
"""Arrow beside a metric: the direction of better values."""
_UNMARKED_FADE = 0.35
"""Share of the background in the glyph of a curve that is drawn without a mark."""
_STATUS_PRIORITY: tuple[Status, ...] = (
    "running", "failed", "lost", "diverged", "stopped", "queued", "finished", "pruned",
)  # fmt: skip
"""A group shows the first of these statuses that one of its runs has."""


@dataclass(frozen=True, slots=True)
class RowState:
    """State of a row beside its record."""

    highlighted: bool = False
    slot: int | None = None
    """Colour slot of its curve; None if it is not drawn."""
    is_marked: bool = False
    stars: Collection[str] = ()
    """Metrics with their best value in this row."""
    is_baseline: bool = False
    is_member: bool = False
    """True if the run is shown below its group."""
    turn: int = 0
    """Animation frame of the glyph of a running run."""
    column: int | None = None
    """Index of the cursor's column."""


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Columns of a table, the name first, and the width of the name in cells."""

    columns: Sequence[RunColumn]
    name_width: int

    @classmethod
    def fit(cls, columns: Sequence[RunColumn], width: int, *, is_grouped: bool) -> RowLayout:
        """Return the layout for a table of `width` cells: the name has at most half of it, and the room left over."""
        if not columns:
            return cls(columns, 0)
        needed, limit = columns[0].width + 2 * is_grouped, max(12, width * (4 if is_grouped else 3) // 6)
        # one cell more for the arrow behind the title of the last column
        ends = accumulate((GAP_CELLS + column.width for column in columns[1:]), initial=LEAD_CELLS + limit + 1)
        return cls(columns, min(needed, limit + width - max((end for end in ends if end <= width), default=width)))

    @property
    def frozen_width(self) -> int:
        """Width of the cells that stay in view: mark, status and name."""
        return LEAD_CELLS + self.name_width

    def whole_columns(self, start: int, end: int) -> tuple[int, int]:
        """Return a range of the cells of a row without the columns of numbers that it cuts: they would read wrong."""
        first, last, left = start, end, self.frozen_width
        for column in self.columns[1:]:
            right = left + GAP_CELLS + column.width
            if column.numeric and left + GAP_CELLS < start < right:
                first = right
            if column.numeric and left < end < right:
                last = left
            left = right
        return first, last

    def visible_part(self, strip: Strip, scrolled: int, width: int, blank: Style) -> Strip:
        """Return `width` cells of a row: the frozen ones, then the columns at a scroll position; the rest is blank."""
        start = self.frozen_width + scrolled
        first, last = self.whole_columns(start, scrolled + width)
        cells = [
            strip.crop(0, self.frozen_width),
            Strip.blank(first - start, blank),
            strip.crop(first, max(first, last)),
        ]
        return Strip.join(cells).adjust_cell_length(width, blank)


class RowPainter:
    """Painter of rows in the colours of the widget's current theme."""

    def __init__(self, widget: Widget) -> None:
        self._widget = widget
        self._styles: dict[tuple[str, str, bool, float, bool], Style] = {}

    def clear_styles(self) -> None:
        """Clear cached styles: the theme or another style of the widget has changed."""
        self._styles.clear()

    def metrics_heading(self, layout: RowLayout) -> Strip:
        """Return the row above the titles: each metric with its direction, over all its columns side by side."""
        style = self.style("secondary", bold=True)
        segments = [Segment(" " * (LEAD_CELLS + layout.name_width + 2), style + Style.from_meta({"column": 0}))]
        for metric, columns in groupby(enumerate(layout.columns[1:], start=1), lambda item: item[1].metric):
            numbered = list(columns)
            goals: list[Goal] = [column.goal for _, column in numbered if column.goal != "none"]
            arrow = _GOAL_ARROWS[goals[0]] if goals else ""
            width = sum(column.width + 2 for _, column in numbered) - 2
            name = text.fit_to_width(f"{text.clean(metric)}{arrow}", width) if metric else " " * width
            segments.append(Segment(f"{name}  ", style + Style.from_meta({"column": numbered[0][0]})))
        return Strip(segments)

    def heading(self, layout: RowLayout, sorted_by: tuple[str | None, bool], current: int) -> Strip:
        """Return the row of titles, with an arrow at the sort column; `meta` holds column indices for clicks."""
        sort, descending = sorted_by
        segments = [Segment(" " * LEAD_CELLS, self.style("secondary"))]
        for index, column in enumerate(layout.columns):
            is_sorted = sort is not None and column.sort == sort
            arrow = ("▼" if descending else "▲") if is_sorted else " "
            title = text.fit_to_width(column.title, layout.name_width) if index == 0 else column.fit_title()
            style = self.style("primary" if is_sorted else "secondary", bold=True)
            if index == current:
                style += Style(underline=True)
            segments.append(Segment(title, style + Style.from_meta({"column": index})))
            arrow_style = self.style("primary" if is_sorted else "secondary")
            segments.append(Segment(f"{arrow} ", arrow_style + Style.from_meta({"column": index})))
        return Strip(segments)

    def row(self, record: RunRecord, layout: RowLayout, state: RowState) -> Strip:
        """Return the row of a run: mark, status and name, then a cell per other column."""
        status_style = STATUS_GLYPHS[record.status]
        glyph = SPINNER_GLYPHS[state.turn % len(SPINNER_GLYPHS)] if record.status == "running" else status_style.glyph
        name = f"{'  ' if state.is_member else ''}{layout.columns[0].cell(record)}"
        cells = [name, *(column.cell(record) for column in layout.columns[1:])]
        colour = "secondary" if record.archived or record.older_code else "foreground"
        lead = [*self._mark(state), Segment(glyph, self._row_style(status_style.colour, state))]
        return self._row(lead, cells, layout, state, colour)

    def group(self, group: RunGroup, layout: RowLayout, state: RowState) -> Strip:
        """Return the row of a group, with its settings as the name and means as values."""
        status: Status = next((status for status in _STATUS_PRIORITY if group.statuses.get(status)), "finished")
        status_style = STATUS_GLYPHS[status]
        cells = [column.group_cell(group) for column in layout.columns]
        lead = [*self._mark(state), Segment(status_style.glyph, self._row_style(status_style.colour, state))]
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
        segments = [*lead, Segment("»" if state.is_baseline else " ", self._row_style("accent", state))]
        name = text.fit_to_width(cells[0], layout.name_width)
        segments.append(Segment(name, self._row_style(colour, state, bold=bold, column=0)))
        for index, column in enumerate(layout.columns[1:], start=1):
            cell = column.fit_cell(cells[index])
            blank = len(cell) - len(cell.lstrip()) if column.best_of in state.stars else len(cell)
            ink = "secondary" if column.is_quiet else _cell_colour(cell.strip(), colour)
            if blank < len(cell):  # the star is right before the number
                segments.append(Segment(f" {' ' * blank}★", self._row_style("accent", state)))
                segments.append(Segment(cell[blank:], self._row_style(ink, state, column=index)))
            else:
                segments += [Segment("  ", plain), Segment(cell, self._row_style(ink, state, column=index))]
        return Strip([*segments, Segment(" ", plain)])

    def _mark(self, state: RowState) -> list[Segment]:
        """Return the glyph of the row's curve; a marked row has it in brackets, and brighter."""
        plain = self._row_style("foreground", state, bold=state.is_marked)
        left, right = "[]" if state.is_marked else "  "
        if state.slot is None:
            return [Segment(f"{left} {right}", plain)]
        style, app = plain, self._widget.app
        if state.slot == OTHER_SLOT:
            style = self._row_style("secondary", state, bold=state.is_marked)
        elif not (state.highlighted and has_few_colours(app)):
            colour = Color.parse(series_colours(app)[state.slot])
            if not state.is_marked and not has_few_colours(app):
                colour = colour.blend(self._widget.background_colors[1], _UNMARKED_FADE)
            style += Style(color=colour.rich_color)
        glyph = OTHER_GLYPH if state.slot == OTHER_SLOT else SERIES_GLYPHS[state.slot]
        return [Segment(left, plain), Segment(glyph, style), Segment(right, plain)]

    def _row_style(self, colour: str, state: RowState, *, bold: bool = False, column: int | None = None) -> Style:
        """Return the style of a cell, tinted in the cursor's row, and more strongly in the cursor's cell."""
        at_cursor = column is not None and column == state.column
        return self.style(colour, bold=bold, lit=0.0 if not state.highlighted else 0.42 if at_cursor else 0.22)

    def message(self, lines: Sequence[str], y: int, height: int, width: int) -> Strip:
        """Return line `y` of a message in the middle of an empty table with `height` rows; commands stand out."""
        parts = [(part, line.startswith("labbench ")) for line in lines for part in wrap(line, width) or [""]]
        index = y - max(0, (height + HEADING_ROWS - len(parts)) // 2)
        words, is_command = parts[index] if 0 <= index < len(parts) else ("", False)
        style = self.style("primary" if is_command else "secondary", bold=is_command)
        return Strip([Segment(words.center(width)[:width], style)], width)

    def style(self, colour: str, *, bold: bool = False, lit: float = 0.0) -> Style:
        """Return the style of a theme colour on the widget's background, tinted by `lit` (0 to 1)."""
        widget = self._widget
        key = (widget.app.theme, colour, bold, lit, widget.has_focus)
        if key not in self._styles:
            variables = widget.app.theme_variables
            background = widget.background_colors[1]
            if lit and has_few_colours(widget.app):
                self._styles[key] = reversed_style(widget.app, bold=bold)
                return self._styles[key]
            if lit:
                background = background.blend(Color.parse(variables["primary"]), lit if widget.has_focus else lit / 2)
            ink = Color.parse(variables[colour])
            self._styles[key] = Style(color=ink.rich_color, bgcolor=background.rich_color, bold=bold)
        return self._styles[key]


_CELL_COLOURS: Mapping[str, str] = {"▲": "success", "▼": "error", "n": "warning", "i": "warning"}


def _cell_colour(cell: str, default: str) -> str:
    """Return the colour of a cell: differences from the baseline and non-finite numbers stand out."""
    if cell[:2] in ("▲ ", "▼ ") or cell in ("nan", "inf"):
        return _CELL_COLOURS[cell[0]]
    return "warning" if cell == "-inf" else default
