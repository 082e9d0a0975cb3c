"""Chart widget: draws lines with `charts.render` in theme colours and reports mouse events as messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.color import Color
from textual.content import Content
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from labbench import text
from labbench.charts import palette
from labbench.tui.theme import series_colours
from labbench.tui.widgets.partial_drawing import set_titles

if TYPE_CHECKING:  # numpy is not imported before the first paint
    from labbench.charts.axes import Frame
    from labbench.charts.lines import Line
    from labbench.charts.plot.braille import InkRun
    from labbench.charts.render import ChartRenderer
    from labbench.charts.view import Box, ChartView
    from labbench.tui.graphics.chart_picture import ChartPicture


_FADE_SHARES = {palette.BAND: 0.66, palette.LINE: 0.12, palette.BRIGHT: 0.0}
"""Share of the background in a line's colour, by style."""
_OTHER_SHARE = 0.35
"""Share of grey in the colour of the runs without a colour slot."""
_THEME_COLOURS = {
    palette.AXIS: "border",
    palette.LABEL: "secondary",
    palette.TEXT: "foreground",
    palette.BEST: "accent",
}


class Chart(Widget):
    """Chart of one metric of several runs."""

    DEFAULT_CSS = """
    Chart { border: round $border; border-title-color: $foreground; border-subtitle-color: $secondary; }
    Chart.-chosen { border: round $primary 60%; }
    """

    class Pointed(Message):
        """The mouse moved to an x value, or left the chart (None)."""

        def __init__(self, x: float | None) -> None:
            self.x = x
            super().__init__()

    class Scrolled(Message):
        """The wheel was turned: to zoom around an x value, or with Shift or Ctrl to pan sideways."""

        def __init__(self, direction: int, x: float | None, *, sideways: bool) -> None:
            self.direction, self.x, self.sideways = direction, x, sideways
            super().__init__()

    class Boxed(Message):
        """A zoom box (left, right, low, high) is being drawn over this chart, or is done."""

        def __init__(self, chart: Chart, box: Box, *, done: bool) -> None:
            self.chart, self.box, self.done = chart, box, done
            super().__init__()

    class Dragged(Message):
        """The plot was dragged with the mouse, by fractions of its width and height."""

        def __init__(self, chart: Chart, right: float, up: float) -> None:
            self.chart, self.right, self.up = chart, right, up
            super().__init__()

    class Clicked(Message):
        """The chart was clicked `times` in a row."""

        def __init__(self, chart: Chart, times: int) -> None:
            self.chart, self.times = chart, times
            super().__init__()

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.metric = ""
        self.view: ChartView | None = None
        self._lines: Sequence[Line] = ()
        self._description = ""
        self._renderer: ChartRenderer | None = None
        self._picture: ChartPicture | None = None
        self.is_picture_enabled = True
        """True if curves are drawn as a picture on terminals that show images."""
        self._strips: list[Strip] | None = None
        self._styles: dict[int, Style] = {}
        self._pressed: tuple[int, int, bool] | None = None
        self._pointed_column: int | None = None

    def show(self, lines: Sequence[Line], view: ChartView, *, metric: str, description: str) -> None:
        """Draw lines; the old drawing stays until the new one is ready."""
        if (
            (metric, view) == (self.metric, self.view)
            and list(lines) == list(self._lines)
            and description == self._description
        ):
            return
        self._lines, self.view, self.metric, self._description = lines, view, metric, description
        set_titles(self, title=Content.assemble((text.clean(metric), "bold"), (f"  {description}", "$secondary")))
        self.redraw()

    def clear(self) -> None:
        """Draw no lines."""
        if self.view is not None:
            self._lines, self.view, self.metric, self._description = (), None, "", ""
            set_titles(self, title=Content(""))
            self.redraw()

    def on_mount(self) -> None:
        output = getattr(self.app, "pictures", None)
        if output is not None:
            from labbench.tui.graphics.chart_picture import ChartPicture  # on terminals that show images only

            self._picture = ChartPicture(self, self.redraw, output)

    def on_unmount(self) -> None:
        if self._picture is not None:
            self._picture.remove()

    def on_resize(self) -> None:
        self.redraw()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles.clear()
        self.redraw()

    def redraw(self) -> None:
        """Draw again at the next refresh."""
        self._strips = None
        self.refresh()

    def enable_picture(self, enabled: bool) -> None:
        """Draw curves as a picture if the terminal shows images, or always in braille."""
        self.is_picture_enabled = enabled
        self.redraw()

    # Drawing

    @property
    def frame(self) -> Frame | None:
        """The frame of the plot; None before the first drawing."""
        return self._renderer.frame if self._renderer is not None else None

    def render_line(self, y: int) -> Strip:
        if self._strips is None:
            self._strips = self._draw()
        return self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width, self.rich_style)

    def _draw(self) -> list[Strip]:
        width, height = self.size
        if self.view is None:
            words = "curves of the marked or the best runs"
            hint = Strip([Segment(words.center(width)[:width], self._style(palette.LABEL))], width)
            return [hint if y == height // 2 else Strip.blank(width, self.rich_style) for y in range(height)]
        from labbench.charts.render import ChartRenderer  # imports numpy, which the lines have loaded by now

        if self._renderer is None:
            self._renderer = ChartRenderer()
        rows: Sequence[list[InkRun]] = self._renderer.draw(self._lines, self.view, width, height)
        if self._picture is not None and self.is_picture_enabled:
            rows = self._picture.cover(rows, self._renderer.plot, self._renderer.top)
        return [Strip([Segment(part, self._style(ink)) for part, ink in row], width) for row in rows]

    def _style(self, ink: int) -> Style:
        if ink not in self._styles:
            style = self.rich_style + self._ink(ink)
            for ground, shade in ((palette.CROSSHAIR_GROUND, 0.22), (palette.BOX_GROUND, 0.3)):
                if ink & ground:
                    colour = self.background_colors[1].blend(self._theme_colour("primary"), shade)
                    style += Style(bgcolor=colour.rich_color)
            self._styles[ink] = style
        return self._styles[ink]

    def _ink(self, ink: int) -> Style:
        line = palette.slot_and_style(ink)
        ink = palette.without_ground(ink)
        background = self.background_colors[1]
        if line is not None:
            slot, style = line
            colour = Color.parse(series_colours(self.app)[slot]).blend(background, _FADE_SHARES[style])
            return Style(color=colour.rich_color, bold=style == palette.BRIGHT)
        if ink == palette.OTHER:
            return Style(color=background.blend(self._theme_colour("secondary"), _OTHER_SHARE).rich_color)
        if ink in palette.DENSITY:
            fraction = (1 + palette.DENSITY.index(ink)) / len(palette.DENSITY)
            return Style(color=background.blend(self._theme_colour("primary"), fraction).rich_color)
        if ink not in _THEME_COLOURS:
            return Style()
        colour = self._theme_colour(_THEME_COLOURS[ink])
        return Style(color=colour.rich_color, bold=ink in (palette.TEXT, palette.BEST))

    def _theme_colour(self, name: str) -> Color:
        return Color.parse(self.app.theme_variables[name])

    # The mouse

    def _plot_shares(self, event: events.MouseEvent) -> tuple[float, float] | None:
        """Return the mouse position as fractions of the plot's width and (from the bottom) height."""
        offset, renderer, frame = event.get_content_offset(self), self._renderer, self.frame
        if renderer is None or frame is None or offset is None:
            return None
        return (offset.x - frame.column + 0.5) / frame.width, 1 - (offset.y - renderer.top + 0.5) / frame.height

    def _x_under(self, event: events.MouseEvent) -> float | None:
        shares = self._plot_shares(event)
        inside = shares is not None and 0 <= shares[0] <= 1
        return self.frame.x_at(shares[0]) if inside and shares and self.frame else None

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._pressed is not None:
            self._drag(event)
        elif event.x != self._pointed_column:
            self._pointed_column = event.x
            self.post_message(self.Pointed(self._x_under(event)))

    def on_leave(self, event: events.Leave) -> None:
        if self._pointed_column is not None and self._pressed is None:
            self._pointed_column = None
            self.post_message(self.Pointed(None))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._scroll(event, 1, sideways=event.shift or event.ctrl)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._scroll(event, -1, sideways=event.shift or event.ctrl)

    def on_mouse_scroll_right(self, event: events.MouseScrollRight) -> None:
        self._scroll(event, 1, sideways=True)

    def on_mouse_scroll_left(self, event: events.MouseScrollLeft) -> None:
        self._scroll(event, -1, sideways=True)

    def _scroll(self, event: events.MouseEvent, direction: int, *, sideways: bool) -> None:
        event.stop()
        self.post_message(self.Scrolled(direction, self._x_under(event), sideways=sideways))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if self.frame is not None:
            self._pressed = (event.x, event.y, event.button != 1 or event.ctrl)
            self.capture_mouse()

    def on_mouse_up(self, event: events.MouseUp) -> None:
        if self._pressed is not None:
            is_pan = self._pressed[2]
            box = self._box(event)
            self._pressed = None
            self.release_mouse()
            if box is not None and not is_pan:
                self.post_message(self.Boxed(self, box, done=True))

    def on_click(self, event: events.Click) -> None:
        self.post_message(self.Clicked(self, event.chain))

    def _drag(self, event: events.MouseEvent) -> None:
        """Draw a zoom box with the left button; pan with another button or with Ctrl held."""
        assert self._pressed is not None
        x, y, is_pan = self._pressed
        if is_pan and self.frame is not None:
            self._pressed = (event.x, event.y, is_pan)
            self.post_message(self.Dragged(self, (event.x - x) / self.frame.width, (y - event.y) / self.frame.height))
        else:
            box = self._box(event)
            if box is not None:
                self.post_message(self.Boxed(self, box, done=False))

    def _box(self, event: events.MouseEvent) -> Box | None:
        """Return the box from the pressed position to the mouse: full height if flat, None if narrow."""
        renderer, frame = self._renderer, self.frame
        if renderer is None or frame is None or self._pressed is None or abs(event.x - self._pressed[0]) < 2:
            return None
        border, first = 1, 1 + renderer.top
        left, right = sorted((event.x, self._pressed[0]))
        top, bottom = sorted((event.y, self._pressed[1]))
        if bottom - top < 2:
            top, bottom = first, first + frame.height - 1
        across = [min(max((x - border - frame.column) / frame.width, 0.0), 1.0) for x in (left, right + 1)]
        up = [min(max(1 - (y - first) / frame.height, 0.0), 1.0) for y in (bottom + 1, top)]
        return frame.x_at(across[0]), frame.x_at(across[1]), frame.y_at(up[0]), frame.y_at(up[1])
