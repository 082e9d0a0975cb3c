"""Names of lines beside their ends in the plot, where there is room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from labbench import text
from labbench.charts.axes import Frame
from labbench.charts.plot.braille import Canvas

_MAX_ENDS = 10
"""Maximum number of lines whose names are drawn at their ends."""
_MAX_END_LABEL = 30
"""Maximum width of such a name, in cells."""


@dataclass(frozen=True, slots=True)
class LineEnd:
    """Cell of the glyph at the end of a line."""

    column: int
    row: int
    label: str
    ink: int


def draw_end_labels(canvas: Canvas, frame: Frame, ends: Sequence[LineEnd]) -> None:
    """Write the name of each line beside the glyph at its end, if there is room in the plot.

    A name never covers a point or another name, and blank cells surround it.
    """
    if not 1 < len(ends) <= _MAX_ENDS:
        return
    for end in ends:
        width = text.cell_width(end.label)
        if width > min(_MAX_END_LABEL, 2 * frame.width // 3):
            continue
        for column, row in _positions(end, width):
            inside = frame.column < column and column + width < frame.column + frame.width and 0 <= row < frame.height
            if inside and not canvas.count_drawn(column - 1, row, width + 2, 1):
                canvas.put(column, row, end.label, end.ink, widths=text.cell_widths(end.label))
                break


def _positions(end: LineEnd, width: int) -> Iterator[tuple[int, int]]:
    """Yield the cells at which the name may begin: to the right of the glyph, above it, or below it."""
    yield end.column + 2, end.row
    for row in (end.row - 1, end.row + 1):
        yield end.column - width, row
