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
from labbench.tui.looks import series_colours

if TYPE_CHECKING:  # numpy is not imported before the first paint
    from labbench.tui.plot import Line, Plot, View


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
        if self._view is None or not width or not height:
            return []
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
        from labbench.tui import plot

        background = self.background_colors[1]
        line = plot.slot_and_way(ink)
        if line is not None:
            colour = Color.parse(series_colours(self.app)[line[0]])
            faded = {plot.BAND: 0.62, plot.LINE: 0.18, plot.BRIGHT: 0.0}[line[1]]
            return Style(color=colour.blend(background, faded).rich_color, bold=line[1] == plot.BRIGHT)
        variables = self.app.theme_variables
        named = {plot.AXIS: "border", plot.LABEL: "secondary", plot.TEXT: "foreground", plot.BEST: "accent"}
        if ink not in named:
            return Style()
        return Style(color=Color.parse(variables[named[ink]]).rich_color, bold=ink in (plot.TEXT, plot.BEST))
