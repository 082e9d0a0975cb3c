"""Writing of spans of cells to a terminal, with the fewest changes of cursor and style."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from labbench.tui.graphics.board import ShownCell
from labbench.tui.graphics.output import PictureOutput, is_picture_cell
from labbench.tui.terminal.sgr_styles import is_background, shows_blank, style_change

_MIN_ERASED = 10
"""Minimum number of blank cells that are erased in place of writing spaces."""

Cell = tuple[str, str]
"""A character and its style, the parameters of the SGR sequence."""
Span = tuple[int, int, list[Cell]]
"""Row, column and cells."""


@dataclass(slots=True)
class Spans:
    """Spans of cells to write."""

    spans: list[Span] = field(default_factory=list)
    caret: tuple[int, int] | None = None
    """Row and column of the cursor at the end; None for any."""

    def write(self, row: int, column: int, cells: list[Cell]) -> None:
        """Add a span."""
        self.spans.append((row, column, cells))

    def overlap(self) -> bool:
        """Return True if a cell is written twice, so that the order of the spans matters."""
        end_of_row: dict[int, int] = {}
        for row, column, cells in sorted(self.spans, key=lambda span: span[:2]):
            if column < end_of_row.get(row, 0):
                return True
            end_of_row[row] = column + len(cells)
        return False

    def by_style(self) -> list[Span]:
        """Return the spans split into parts of one style, grouped by style."""
        parts: dict[str | None, list[Span]] = {None: []}
        for span in self.spans:
            for style, part in _split_by_style(span):
                parts.setdefault(style, []).append(part)
        return [part for parts_of_style in parts.values() for part in parts_of_style]


def _split_by_style(span: Span) -> Iterator[tuple[str | None, Span]]:
    """Yield the style of each part of a span; a span with texts of uncertain width is one part without a style."""
    row, column, cells = span
    if any(len(character) != 1 or is_picture_cell(character) for character, _ in cells):
        yield None, span
        return
    start, style, is_blank = 0, cells[0][1], True
    for index, (character, own_style) in enumerate(cells):
        if own_style != style and not (character == " " and shows_blank(style, own_style)):
            if not (is_blank and shows_blank(own_style, style)):
                yield style, (row, column + start, cells[start:index])
                start = index
            style, is_blank = own_style, True
        is_blank = is_blank and character == " "
    yield style, (row, column + start, cells[start:])


class SpanWriter:
    """Sequences that write spans of cells, with the fewest changes of cursor and style."""

    def __init__(
        self, cursor: tuple[int, int] | None, pictures: PictureOutput | None = None, *, erases: bool = False
    ) -> None:
        self.cursor = cursor
        self._erases = erases
        self.picture_cells: dict[tuple[int, int], ShownCell] = {}
        """Cells of pictures that were written, by row and column."""
        self._pictures = pictures
        self._previous = ""
        """Character of the picture's cell at the left of the cursor, if it was just written."""
        self._style = ""
        self._output: list[str] = []

    def move(self, row: int, column: int) -> None:
        """Move the cursor."""
        if self.cursor == (row, column):
            return
        self._previous = ""
        if self.cursor is not None and self.cursor[0] == row and column > self.cursor[1]:
            self._output.append(f"\x1b[{column - self.cursor[1]}C")
        else:
            self._output.append(f"\x1b[{row};{column}H")
        self.cursor = (row, column)

    def write(self, row: int, column: int, cells: list[Cell]) -> None:
        """Write neighbouring cells."""
        offset = 0
        while offset < len(cells):
            n_blanks = _count_blanks(cells, offset) if self._erases else 0
            if n_blanks >= _MIN_ERASED:
                self._erase(row, column + offset, n_blanks, cells[offset][1])
                offset += n_blanks
            else:
                self._write_cell(row, column + offset, *cells[offset])
                offset += 1

    def _write_cell(self, row: int, column: int, character: str, style: str) -> None:
        if not character:  # covered by the previous text, whose width differs between terminals
            self.cursor = None
            return
        self.move(row, column)
        if self._pictures is not None and is_picture_cell(character):
            character, style = self._picture_cell(row, column, character, style)
        else:
            self._previous = ""
        self._select(character, style)
        self._output.append(character)
        self.cursor = (row, column + 1) if len(character) == 1 or self._previous else None

    def _erase(self, row: int, column: int, count: int, style: str) -> None:
        """Erase cells to the background of the style; the cursor stays at the first."""
        self.move(row, column)
        self._previous = ""
        self._select(" ", style)
        self._output.append(f"\x1b[{count}X")

    def _select(self, character: str, style: str) -> None:
        """Change to the style of a character."""
        if style != self._style and not (character == " " and shows_blank(self._style, style)):
            self._output.append(style_change(self._style, style))
            self._style = style

    def _picture_cell(self, row: int, column: int, character: str, style: str) -> tuple[str, str]:
        """Return text and style of a picture's cell, and remember it."""
        assert self._pictures is not None
        self.picture_cells[row, column] = ShownCell(row, column, character, style)
        before, self._previous = self._previous, character
        return self._pictures.cell(character, style, before)

    def finish(self) -> str:
        """Return the sequences."""
        if self._style:
            self._output.append("\x1b[0m")
        return "".join(self._output)


def _count_blanks(cells: list[Cell], start: int) -> int:
    """Return the number of equal blank cells from `start` on, as far as they can be erased; 0 for any other cell."""
    blank = cells[start]
    if blank[0] != " " or not is_background(blank[1]):
        return 0
    end = start + 1
    while end < len(cells) and cells[end] == blank:
        end += 1
    return end - start
