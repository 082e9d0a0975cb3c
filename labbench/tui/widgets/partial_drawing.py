"""Drawing of what changed only: texts, titles and lines of a widget that stay the same are not drawn again."""

from __future__ import annotations

from collections.abc import Callable

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
