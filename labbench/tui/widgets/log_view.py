"""View of a run's output, with live follow and search."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar

from rich.color import Color as RichColour
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.content import Content
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from labbench import text
from labbench.sgr import TextStyle, remove_styles, split_styles
from labbench.tui.widgets.partial_drawing import set_titles


class LogView(ScrollView, can_focus=True):
    """Scrollable lines of output that follow new lines while scrolled to the end."""

    DEFAULT_CSS = """
    LogView { border: round $border; border-title-color: $foreground; border-subtitle-color: $secondary;
             scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; }
    LogView:focus { border: round $primary 60%; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "scroll_by(1)", show=False, tooltip="Scroll the output down"),
        Binding("k,up", "scroll_by(-1)", show=False, tooltip="Scroll the output up"),
        Binding("g", "scroll_home", show=False, tooltip="Start of the output"),
        Binding("G", "scroll_end", show=False, tooltip="End of the output; follows new lines"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.lines: Sequence[str] = ()
        """Lines with SGR sequences."""
        self._texts: Sequence[str] = ()
        """The lines without SGR sequences."""
        self.words = ""
        """Search text, in lower case."""
        self.matches: list[int] = []
        """Indices of the matching lines."""

    def on_mount(self) -> None:
        self.border_title = Content("output")

    def show(self, lines: Sequence[str]) -> None:
        """Show lines, scrolled to the new end if scrolled to the end before."""
        if lines == self.lines:
            return
        at_end = self.scroll_offset.y >= self.max_scroll_y - 1
        self.lines, self._texts = lines, [*map(remove_styles, lines)]
        self._search()
        self._resize()
        if at_end:
            self.call_after_refresh(self.scroll_end, animate=False, force=True)

    def search(self, words: str) -> int:
        """Highlight a text, ignoring case, and scroll to its first match; return the number of matching lines."""
        self.words = words.lower()
        self._search()
        self.refresh()
        if self.matches:
            self.next_match(1)
        return len(self.matches)

    def next_match(self, direction: int) -> None:
        """Scroll to the next or previous matching line, wrapping around."""
        if not self.matches:
            return
        top = round(self.scroll_target_y)
        after = [line for line in self.matches if line > top] if direction > 0 else []
        before = [line for line in self.matches if line < top] if direction < 0 else []
        line = after[0] if after else before[-1] if before else self.matches[0 if direction > 0 else -1]
        self.scroll_to(y=line, animate=False, force=True, immediate=True)

    def _search(self) -> None:
        self.matches = [n for n, line in enumerate(self._texts) if self.words in line.lower()] if self.words else []
        lines = self.matches if self.words else self.lines
        count = f"{len(lines)} line{'s' * (len(lines) != 1)}"
        set_titles(self, subtitle=Content(text.clean(f"{count} with “{self.words}”" if self.words else count)))

    def on_resize(self) -> None:
        self._resize()

    def _resize(self) -> None:
        widest = max(map(text.cell_width, self._texts), default=0)
        self.virtual_size = Size(widest, len(self.lines))
        self.refresh()

    def action_scroll_by(self, lines: int) -> None:
        self.scroll_to(y=self.scroll_offset.y + lines, animate=False, force=True, immediate=True)

    def render_line(self, y: int) -> Strip:
        width, row = self.scrollable_content_region.width, self.scroll_offset.y + y
        if not self.lines:
            message = "no output is here: none was captured, or a pack left it out" if y == 0 else ""
            return Strip([Segment(text.fit_to_width(message, width), self._ink("secondary"))], width)
        if row >= len(self.lines):
            return Strip.blank(width, self.rich_style)
        strip = self._with_matches(self._texts[row], self._styled_line(self.lines[row]))
        return strip.crop(self.scroll_offset.x, self.scroll_offset.x + width).extend_cell_length(width, self.rich_style)

    def _styled_line(self, line: str) -> Strip:
        """Return a line in its own styles on the background of the view."""
        parts = split_styles(line)
        return Strip([Segment(part, self._readable(self.rich_style + _rich_style(style))) for part, style in parts])

    def _readable(self, style: Style) -> Style:
        """Return the style in the colours of the view if the text would be invisible."""
        if style.color is None or style.bgcolor is None:
            return style
        theme = self.app.ansi_theme
        ink, ground = (Color(*colour.get_truecolor(theme)) for colour in (style.color, style.bgcolor))
        return style if abs(ink.brightness - ground.brightness) > _MIN_BRIGHTNESS_STEP else style + self.rich_style

    def _with_matches(self, plain: str, strip: Strip) -> Strip:
        """Return the line with its matches highlighted; `plain` is its text."""
        if not self.words or self.words not in plain.lower():
            return strip
        highlight = self._ink("accent") + Style(reverse=True)
        ends, start, lower = [0], 0, plain.lower()
        while (match := lower.find(self.words, start)) >= 0:
            start = match + len(self.words)
            ends += [text.cell_width(plain[:match]), text.cell_width(plain[:start])]
        parts = [strip.crop(first, last) for first, last in pairwise([*ends, strip.cell_length])]
        return Strip.join([_repaint(part, highlight) if index % 2 else part for index, part in enumerate(parts)])

    def _ink(self, colour: str) -> Style:
        return self.rich_style + Style(color=Color.parse(self.app.theme_variables[colour]).rich_color)


def _repaint(strip: Strip, style: Style) -> Strip:
    """Return a strip in one style."""
    return Strip([Segment(strip.text, style)])


@lru_cache(1024)
def _rich_style(style: TextStyle) -> Style:
    attributes: dict[str, Any] = {name: True for code, name in _ATTRIBUTES.items() if code in style.attributes}
    return Style(color=_rich_colour(style.foreground), bgcolor=_rich_colour(style.background), **attributes)


_MIN_BRIGHTNESS_STEP = 0.15
"""Minimum difference in brightness between a text and its ground, 0 to 1."""
_ATTRIBUTES = {"1": "bold", "2": "dim", "3": "italic", "4": "underline", "7": "reverse", "9": "strike"}


def _rich_colour(parameters: str) -> RichColour | None:
    """Return the colour with these SGR parameters; None for the default colour."""
    if not parameters:
        return None
    code, *numbers = map(int, parameters.split(";"))
    match numbers:
        case [2, red, green, blue]:
            return RichColour.from_rgb(red, green, blue)
        case [5, number]:
            return RichColour.from_ansi(number)
        case _:
            return RichColour.from_ansi(code % 10 + (8 if code >= 90 else 0))
