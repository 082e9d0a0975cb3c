"""Line filters for limited terminals: ASCII for terminals without UTF-8, no colours with NO_COLOR."""

from __future__ import annotations

from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

from labbench.ascii_text import to_ascii


class AsciiFilter(LineFilter):
    """Line filter that draws in ASCII."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(to_ascii(text), style, control) for text, style, control in segments]


_MIN_LIT_DIFFERENCE = 0.1
"""Minimum brightness difference, 0 to 1, of a highlighted background: the cursor's row, for example."""


_MAX_DIM_DIFFERENCE = 0.3
"""Maximum brightness difference, 0 to 1, of dim text and its background: borders and the raw bands of curves."""


class ColourlessFilter(LineFilter):
    """Line filter that draws in the terminal's two default colours."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            Segment(text, None if style is None else _remove_colours(style, background), control)
            for text, style, control in segments
        ]


@lru_cache(4096)
def _remove_colours(style: Style, background: Color) -> Style:
    ground = background if style.bgcolor is None else Color.from_rich_color(style.bgcolor)
    ink = None if style.color is None else Color.from_rich_color(style.color)
    is_lit = abs(ground.brightness - background.brightness) > _MIN_LIT_DIFFERENCE
    is_dim = ink is not None and abs(ink.brightness - ground.brightness) < _MAX_DIM_DIFFERENCE
    return style.without_color + Style(reverse=(style.reverse or is_lit), dim=(style.dim or (is_dim and not is_lit)))
