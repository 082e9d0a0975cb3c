"""The whole terminal interface without colours, as NO_COLOR asks (no-color.org): a filter over every line drawn.

Textual's own sends greys. Here what colour says is said by what has none: what stands on another ground than its
widget is reversed, and what is close to its ground is dim.
"""

from __future__ import annotations

from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

_LIT = 0.1
"""Difference of brightness, 0 to 1, from which on a ground is another one: that of the cursor's row is."""
_DIM = 0.3
"""The same between a character and its ground, up to which it is dim: borders, and the raw band of a curve."""


class ColourlessFilter(LineFilter):
    """Draws every line in the terminal's own two colours."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            Segment(text, None if style is None else _colourless(style, background), control)
            for text, style, control in segments
        ]


@lru_cache(4096)
def _colourless(style: Style, background: Color) -> Style:
    ground = background if style.bgcolor is None else Color.from_rich_color(style.bgcolor)
    ink = None if style.color is None else Color.from_rich_color(style.color)
    is_lit = abs(ground.brightness - background.brightness) > _LIT
    is_dim = ink is not None and abs(ink.brightness - ground.brightness) < _DIM
    return style.without_color + Style(reverse=(style.reverse or is_lit), dim=(style.dim or (is_dim and not is_lit)))
