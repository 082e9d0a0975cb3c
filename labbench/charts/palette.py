"""What a cell of a chart is drawn in: small numbers, which `Chart` turns into the theme's colours."""

from __future__ import annotations

BLANK = 0
"""Nothing was drawn into the cell."""
AXIS, LABEL, TEXT, BEST = 1, 2, 3, 4
"""Everything that is no line."""
DENSITY = (5, 6, 7, 8)
"""Where many lines meet, from few to most of them."""
CROSSHAIR_GROUND, BOX_GROUND = 1 << 20, 1 << 21
"""Grounds: added to the ink of a cell in the crosshair's column, or inside a box."""
_FIRST_LINE_INK = 9
BAND, LINE, BRIGHT = 0, 1, 2
"""Ways to draw a line of one colour."""


def line_ink(slot: int, style: int) -> int:
    """The ink of a line of that slot, drawn as `BAND`, `LINE` or `BRIGHT`."""
    return _FIRST_LINE_INK + 3 * slot + style


def slot_and_style(ink: int) -> tuple[int, int] | None:
    """What is behind a line's ink; None for the other inks."""
    ink = without_ground(ink)
    return divmod(ink - _FIRST_LINE_INK, 3) if ink >= _FIRST_LINE_INK else None


def without_ground(ink: int) -> int:
    """The ink alone."""
    return ink & ~(CROSSHAIR_GROUND | BOX_GROUND)
