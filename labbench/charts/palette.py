"""Inks of chart cells: small integers that `Chart` maps to the theme's colours."""

from __future__ import annotations

BLANK = 0
"""Ink of a cell without a drawing."""
AXIS, LABEL, TEXT, BEST = 1, 2, 3, 4
"""Inks of axes, labels, text and the star at the best value."""
DENSITY = (5, 6, 7, 8)
"""Inks of overlapping lines, from sparse to dense."""
OTHER = 9
"""Ink of the runs that are drawn in grey among very many."""
CROSSHAIR_GROUND, BOX_GROUND = 1 << 20, 1 << 21
"""Background bits, added to the ink of cells in the crosshair's column or inside a zoom box."""
GROUNDS = CROSSHAIR_GROUND | BOX_GROUND
_FIRST_LINE_INK = 10
BAND, LINE, BRIGHT = 0, 1, 2
"""Styles of a line in one colour: dim raw values, normal, highlighted."""


def line_ink(slot: int, style: int) -> int:
    """Return the ink of a line in a colour slot and a style (`BAND`, `LINE` or `BRIGHT`); grey for `OTHER_SLOT`."""
    return OTHER if slot < 0 else _FIRST_LINE_INK + 3 * slot + style


def slot_and_style(ink: int) -> tuple[int, int] | None:
    """Return the (slot, style) of a line's ink, or None for other inks."""
    ink = without_ground(ink)
    return divmod(ink - _FIRST_LINE_INK, 3) if ink >= _FIRST_LINE_INK else None


def without_ground(ink: int) -> int:
    """Return the ink without background bits."""
    return ink & ~GROUNDS
