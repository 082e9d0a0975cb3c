"""Size of the terminal's cells in pixels."""

from __future__ import annotations

import struct
import sys

DEFAULT_CELL = (10, 20)
"""Width and height of a cell of the VT340, which terminals emulate that do not report a size."""


def measure_cell() -> tuple[int, int]:
    """Return the width and the height of a cell in pixels, as the terminal reports them."""
    try:
        import fcntl
        import termios

        answer = fcntl.ioctl(sys.__stderr__ or 2, termios.TIOCGWINSZ, bytes(8))
    except (ImportError, OSError, ValueError):  # Windows; no terminal
        return DEFAULT_CELL
    rows, columns, width, height = struct.unpack("HHHH", answer)
    if not (rows and columns and width >= columns and height >= rows):
        return DEFAULT_CELL
    return width // columns, height // rows
