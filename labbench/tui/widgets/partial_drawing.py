"""Drawing of what changed only: texts, titles and lines of a widget that stay the same are not drawn again."""

from __future__ import annotations

from collections.abc import Callable

from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.geometry import Region
from textual.strip import Strip
from textual.visual import VisualType
from textual.widget import Widget
from textual.widgets import Static


class StaticText(Static):
    """Text, never parsed as markup, that is laid out and drawn again only when it changes."""

    def __init__(self, content: Content | str = "", *, id: str | None = None) -> None:
        super().__init__(content, id=id, markup=False)

    def update(self, content: VisualType = "", *, layout: bool = True) -> None:
        """Show another text, with another layout of the screen unless `layout` is False."""
        present = self.content
        if not (isinstance(present, Content) and isinstance(content, Content) and present.is_same(content)):
            super().update(content, layout=layout)


def set_titles(widget: Widget, *, title: Content | None = None, subtitle: Content | None = None) -> None:
    """Set the titles in the border of a widget; a new one draws the whole widget again."""
    if title is not None and title.markup != (widget.border_title or ""):
        widget.border_title = title
    if subtitle is not None and subtitle.markup != (widget.border_subtitle or ""):
        widget.border_subtitle = subtitle


def set_height(widget: Widget, rows: int | None) -> None:
    """Set the height of a widget; None restores the height of the style sheet."""
    if rows is not None or widget.styles.inline.has_rule("height"):  # a reset lays out the screen again
        widget.styles.height = rows


class DrawnLines:
    """Lines of a widget as they were drawn last.

    Textual draws every line of a widget that is refreshed as a whole.
    """

    def __init__(self, widget: Widget) -> None:
        self._widget = widget
        self._strips: dict[int, Strip] = {}

    def draw(self, y: int, strip: Strip) -> Strip:
        """Remember a line that is being drawn."""
        self._strips[y] = strip
        return strip

    def refresh(self, line: Callable[[int], Strip]) -> None:
        """Draw the lines again that differ from `line(y)`."""
        width, height = self._widget.size
        changed = [y for y in range(height) if self._strips.get(y) != line(y)]
        if changed:
            self._widget.refresh(*(Region(0, y, width, 1) for y in changed))


def mark_hidden(titles: Strip, frozen: int, scrolled: int, end: int, style: Style) -> Strip:
    """Return the visible titles of a table with a mark at each side where columns are out of sight.

    Args:
        titles: Titles, as wide as the table.
        frozen: Width of the cells that stay in view.
        scrolled: Number of cells behind them.
        end: Width of all columns.
        style: Style of the marks.
    """
    width = titles.cell_length
    marks = {frozen - 1: "‹"} if scrolled else {}
    if scrolled + width < end:
        marks[width - 1] = "›"
    for column, mark in marks.items():
        parts = [titles.crop(0, column), Strip([Segment(mark, style)]), titles.crop(column + 1, width)]
        titles = Strip.join(parts)
    return titles
