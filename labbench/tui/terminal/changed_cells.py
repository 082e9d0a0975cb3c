"""Filter of Textual's output that passes on only the cells that change."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import repeat

from rich.cells import cell_len

from labbench.tui.graphics.board import Picture, ShownCell
from labbench.tui.graphics.output import PictureOutput, is_picture_cell
from labbench.tui.terminal.sgr_styles import blank_style
from labbench.tui.terminal.span_writer import Cell, Span, Spans, SpanWriter

_CURSOR_TO = re.compile(r"\x1b\[(\d+);(\d+)H")
_TOKEN = re.compile(r"\x1b\[([\d;]*)m|([^\x1b]+)")
"""A style or text."""
_PLAIN = re.compile(r"(?:\x1b\[[\d;]*m|[^\x1b\x00-\x1f\x7f]++)*+\Z")
"""A line of styles and text only."""
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
"""Bounds of a synchronized update."""
_GAP = 4
"""Maximum number of unchanged cells that are cheaper to write again than to skip."""


@dataclass(slots=True)
class _Row:
    """Known content of one row of the terminal."""

    cells: list[Cell | None] = field(default_factory=list)
    pieces: dict[int, tuple[int, str]] = field(default_factory=dict)
    """End and content of the pieces written last, by their first column; pieces never overlap."""


class ChangedCells:
    """Filter of the output of Textual: remembers the screen and passes on what changes it.

    Textual writes every line of a widget that was refreshed. Over a slow connection most of the time of a key press
    is spent on cells that stay as they are.
    """

    def __init__(self, pictures: PictureOutput | None = None, *, erases: bool = False) -> None:
        """Create a filter.

        Args:
            pictures: Output that writes the cells of pictures, if the terminal can show them.
            erases: The terminal erases cells to the background of the style, which is shorter than spaces.
        """
        self._erases = erases
        self._pictures = pictures
        self._rows: dict[int, _Row] = {}
        self._held = ""
        """Start of a synchronized update that has not changed anything yet."""
        self._cursor: tuple[int, int] | None = None
        """Row and column, 1-based; None if unknown."""

    def forget(self) -> None:
        """Write everything again: the terminal may show something else."""
        self._rows.clear()
        self._cursor = None

    def reduce(self, data: str) -> str:
        """Return the sequences that have the same effect on the terminal as `data`."""
        if data == _BEGIN:
            self._held = _BEGIN
            return ""
        if data == _END:
            ends, self._held = not self._held, ""
            return _END if ends else ""
        changes = self._changes(data)
        if changes:
            changes, self._held = self._held + changes, ""
        return changes

    def _changes(self, data: str) -> str:
        head, *parts = _CURSOR_TO.split(data)
        contents = [content.rstrip("\n") for content in parts[2::3]]
        if head or not parts or not all(map(_PLAIN.match, contents)):  # not an update of the screen by Textual
            self.forget()
            return data
        if self._pictures is not None and self._pictures.board.removed:
            self._forget_pictures(self._pictures.board.removed)
        spans = Spans()
        row = column = 1
        for line, start, content in zip(parts[0::3], parts[1::3], contents, strict=True):
            row, column = int(line), int(start)
            if content:
                self._write(spans, row, column, content)
        if contents[-1] == "":  # the position of the cursor in a text field
            spans.caret = row, column
        return self._with_pictures(spans) if self._pictures is not None else self._encode(spans)[0]

    def _encode(self, spans: Spans) -> tuple[str, Collection[ShownCell]]:
        """Return the shorter sequences that write spans, by row or by style, and the cells of pictures."""
        writers = [self._write_all(spans.spans, spans.caret)]
        if len(spans.spans) > 1 and not spans.overlap():
            writers.append(self._write_all(spans.by_style(), spans.caret))
        output, writer = min(((writer.finish(), writer) for writer in writers), key=lambda pair: len(pair[0]))
        self._cursor = writer.cursor
        return output, writer.picture_cells.values()

    def _write_all(self, spans: Iterable[Span], caret: tuple[int, int] | None) -> SpanWriter:
        writer = SpanWriter(self._cursor, self._pictures, erases=self._erases)
        for row, column, cells in spans:
            writer.write(row, column, cells)
        if caret is not None:
            writer.move(*caret)
        return writer

    def _forget_pictures(self, removed: Collection[Picture]) -> None:
        """Forget the cells of pictures whose characters may stand for other pictures from now on."""
        for row in self._rows.values():
            row.pieces.clear()
            for column, cell in enumerate(row.cells):
                if cell is not None and any(cell[0] in picture for picture in removed):
                    row.cells[column] = None

    def _with_pictures(self, spans: Spans) -> str:
        """Return what was written, between the images that changed and the parts of images to paint."""
        pictures = self._pictures
        assert pictures is not None
        changed = {*pictures.board.changed} if pictures.repaints else set()
        before = pictures.prepare()
        if changed:
            for number, row in self._rows.items():
                for column, cell in enumerate(row.cells):
                    if cell is not None and is_picture_cell(cell[0]) and pictures.board.find(cell[0]) in changed:
                        spans.write(number, column, [cell])
        cells, picture_cells = self._encode(spans)
        painted = pictures.paint(picture_cells)
        if painted and self._cursor is not None:
            painted += f"\x1b[{self._cursor[0]};{self._cursor[1]}H"
        return before + cells + painted

    def _write(self, spans: Spans, number: int, column: int, content: str) -> None:
        row = self._rows.setdefault(number, _Row())
        if (known := row.pieces.get(column)) is not None and known[1] == content:
            return
        cells = list(_cells(content))
        end = column + len(cells)
        row.pieces = {start: piece for start, piece in row.pieces.items() if start >= end or piece[0] <= column} | {
            column: (end, content)
        }
        if len(row.cells) < end:
            row.cells.extend(repeat(None, end - len(row.cells)))
        before = row.cells[column:end]
        row.cells[column:end] = cells
        _forget_cut_texts(row.cells, before[0], column, end)
        for first, last in _changed_spans(before, cells):
            spans.write(number, column + first, cells[first:last])
            self._write_cut_picture(spans, number, column + last, cells[last - 1])

    def _write_cut_picture(self, spans: Spans, number: int, column: int, left: Cell) -> None:
        """Write a picture's cell again if the changed cell at its left is no longer the one that it continues."""
        cells = self._rows[number].cells
        cell = cells[column] if column < len(cells) else None
        if self._pictures is None or self._pictures.repaints or cell is None or not is_picture_cell(cell[0]):
            return
        if not (is_picture_cell(left[0]) and ord(left[0]) + 1 == ord(cell[0])):
            spans.write(number, column, [cell])


def _cells(content: str) -> Iterator[Cell]:
    """Yield the cells of a line.

    A text with characters that are not one cell wide is one cell, and the cells that it covers follow as empty ones.
    """
    style = ""
    for match in _TOKEN.finditer(content):
        parameters, text = match.groups()
        if text is None:
            style = "" if parameters == "0" else parameters
        elif len(text) == (width := cell_len(text)):
            blank = (" ", blank_style(style))
            yield from (blank if character == " " else (character, style) for character in text)
        elif width:
            yield (text, style)
            yield from repeat(("", style), width - 1)


def _forget_cut_texts(cells: list[Cell | None], first_before: Cell | None, start: int, end: int) -> None:
    """Forget the texts that are partly overwritten by the cells from `start` to `end`."""
    if first_before is not None and not first_before[0]:
        left = start - 1
        while (cell := cells[left]) is not None and not cell[0]:
            cells[left] = None
            left -= 1
        cells[left] = None
    while end < len(cells) and (cell := cells[end]) is not None and not cell[0]:
        cells[end] = None
        end += 1


def _changed_spans(before: list[Cell | None], after: list[Cell]) -> list[tuple[int, int]]:
    """Return the spans of `after` to write, as pairs of first and last + 1."""
    spans: list[tuple[int, int]] = []
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        if old != new:
            if spans and index - spans[-1][1] <= _GAP:
                spans[-1] = (spans[-1][0], index + 1)
            else:
                spans.append((index, index + 1))
    return spans
