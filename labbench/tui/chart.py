"""The chart widget: lines and a view in, braille on the screen. What it shows is computed in `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.content import Content
from textual.strip import Strip
from textual.widget import Widget

from labbench import text
from labbench.tui import inks
from labbench.tui.looks import series_colours

if TYPE_CHECKING:  # numpy is not imported before the first paint
    from labbench.tui.plot import Line, Plot, View


_FADED = {inks.BAND: 0.62, inks.LINE: 0.18, inks.BRIGHT: 0.0}
"""How far a line's colour goes towards the background."""
_THEME_COLOURS = {inks.AXIS: "border", inks.LABEL: "secondary", inks.TEXT: "foreground", inks.BEST: "accent"}


class Chart(Widget):
    """One metric of several runs over steps, epochs or time."""

    DEFAULT_CSS = """
    Chart { border: round $border; border-title-color: $foreground; border-subtitle-color: $secondary; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: Sequence[Line] = ()
        self._view: View | None = None
        self._plot: Plot | None = None
        self._strips: list[Strip] | None = None
        self._styles: dict[tuple[str, int], Style] = {}

    def show(self, lines: Sequence[Line], view: View, *, metric: str) -> None:
        """Draw these lines in this way; what was drawn before stays until the new drawing is there."""
        self._lines, self._view = lines, view
        smoothing = f"ema {view.smoothing:g}" if view.smoothing else ""
        ways = " · ".join(filter(None, ["log y" if view.log else "", smoothing, f"by {view.x_axis}"]))
        self.border_title = Content.assemble((text.clean(metric), "bold"), (f"  {ways}", "$secondary"))
        self._redraw()

    def on_resize(self) -> None:
        self._redraw()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._redraw()

    def _redraw(self) -> None:
        self._strips = None
        self.refresh()

    def render_line(self, y: int) -> Strip:
        if self._strips is None:
            self._strips = self._draw()
        return self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width, self.rich_style)

    def _draw(self) -> list[Strip]:
        width, height = self.size
        if self._view is None:
            hint = Strip([Segment("the curves of marked runs".center(width)[:width], self._style(inks.LABEL))], width)
            return [hint if y == height // 2 else Strip.blank(width, self.rich_style) for y in range(height)]
        from labbench.tui.plot import Plot  # numpy, 0.1 s: loaded by now, for the lines are made of it

        if self._plot is None:
            self._plot = Plot()
        rows = self._plot.draw(self._lines, self._view, width, height)
        return [Strip([Segment(part, self._style(ink)) for part, ink in row], width) for row in rows]

    def _style(self, ink: int) -> Style:
        key = (self.app.theme, ink)
        if key not in self._styles:
            self._styles[key] = self.rich_style + self._ink(ink)
        return self._styles[key]

    def _ink(self, ink: int) -> Style:
        line = inks.slot_and_way(ink)
        if line is not None:
            slot, way = line
            colour = Color.parse(series_colours(self.app)[slot]).blend(self.background_colors[1], _FADED[way])
            return Style(color=colour.rich_color, bold=way == inks.BRIGHT)
        if ink not in _THEME_COLOURS:
            return Style()
        colour = Color.parse(self.app.theme_variables[_THEME_COLOURS[ink]])
        return Style(color=colour.rich_color, bold=ink in (inks.TEXT, inks.BEST))
