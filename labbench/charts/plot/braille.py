"""Braille canvas in numpy: vertical spans in, rows of (text, ink) out. Independent of curves and of Textual.

A cell holds 2 x 4 dots and one ink. The layer drawn last owns the cells it touches and clears their earlier dots, so
that the top line stays readable where many lines overlap. The cost grows mainly with the number of touched cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from labbench.charts.palette import BLANK

InkRun: TypeAlias = tuple[str, int]
"""(text, ink): neighbouring cells of a row with the same ink."""

_LEFT_DOTS = (0x01, 0x02, 0x04, 0x40)  # bits of a braille cell's dots, from the top; U+2800 is the empty cell
_RIGHT_DOTS = (0x08, 0x10, 0x20, 0x80)
_BITS = np.array(  # (side, first dot, last dot)
    [[[sum(dots[first : last + 1]) for last in range(4)] for first in range(4)] for dots in (_LEFT_DOTS, _RIGHT_DOTS)],
    dtype=np.uint32,
)
_WIDE_TAIL = 0  # the character of a cell that is the right half of a wide character


class Canvas:
    """Grid of `width` x `height` cells; dot columns and dot rows count from the top left."""

    dots: tuple[int, int] = (2, 4)
    """Dot columns and dot rows of a cell."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._characters = np.full((height, width), ord(" "), dtype=np.uint32)
        self._inks = np.full((height, width), BLANK, dtype=np.int32)

    def draw(
        self,
        tops: NDArray[np.float64],
        bottoms: NDArray[np.float64],
        inks: NDArray[np.int32],
        *,
        left: int = 0,
        rows: int | None = None,
    ) -> None:
        """Draw layers, the last on top: a layer is one vertical span of dots per dot column.

        tops, bottoms: (layers, dot columns), dot rows, NaN for no span; spans are clipped to the first `rows` cell
        rows. inks: (layers,). left: the cell column of the first dot column.
        """
        rows = self.height if rows is None else rows
        with np.errstate(invalid="ignore"):
            visible = (bottoms > -0.5) & (tops < 4 * rows - 0.5)
        layer, column = np.nonzero(visible)  # in drawing order
        top = np.clip(np.rint(tops[visible]), 0, 4 * rows - 1).astype(np.int64)
        bottom = np.clip(np.rint(bottoms[visible]), 0, 4 * rows - 1).astype(np.int64)
        touched = bottom // 4 - top // 4 + 1
        span = np.repeat(np.arange(len(top)), touched)  # (cells touched,): the span of each
        nth = np.arange(len(span)) - np.repeat(np.cumsum(touched) - touched, touched)
        row = top[span] // 4 + nth
        first, last = np.maximum(top[span] - 4 * row, 0), np.minimum(bottom[span] - 4 * row, 3)
        column = column[span]
        cell = row * self.width + left + column // 2
        self._paint_cells(cell, layer[span], _BITS[column % 2, first, last], inks)

    def _paint_cells(
        self, cell: NDArray[np.int64], layer: NDArray[np.int64], bits: NDArray[np.uint32], inks: NDArray[np.int32]
    ) -> None:
        """Give each touched cell to the last layer that touches it, with only that layer's dots."""
        owner = np.full(self.width * self.height, -1, dtype=np.int64)
        owner[cell] = layer  # for a repeated index numpy keeps the last value
        visible = owner[cell] == layer
        dots = np.zeros(len(owner), dtype=np.uint32)
        np.bitwise_or.at(dots, cell[visible], bits[visible])
        owned = owner >= 0
        self._characters.reshape(-1)[owned] = 0x2800 + dots[owned]
        self._inks.reshape(-1)[owned] = inks[owner[owned]]

    def shade(self, counts: NDArray[np.int64], inks: Sequence[int], *, left: int = 0) -> None:
        """Draw every dot covered by a line; the ink of a cell shows the density of its densest dot.

        counts: (4 x cell rows, 2 x cell columns), number of lines that cover each dot. inks: from sparse to dense, on a
        logarithmic scale.
        """
        rows, columns = counts.shape[0] // 4, counts.shape[1] // 2
        cells = counts.reshape(rows, 4, columns, 2)
        bits = np.array([_LEFT_DOTS, _RIGHT_DOTS], dtype=np.uint32).T  # (4, 2)
        dots = ((cells > 0) * bits[None, :, None, :]).sum(axis=(1, 3), dtype=np.uint32)
        densest = cells.max(axis=(1, 3))
        fraction = np.log(np.maximum(densest, 1)) / max(1e-9, math.log(max(2, int(densest.max(initial=0)))))
        level = np.minimum((fraction * len(inks)).astype(np.int64), len(inks) - 1)
        area = (slice(0, rows), slice(left, left + columns))
        drawn = dots > 0
        self._characters[area][drawn] = 0x2800 + dots[drawn]
        self._inks[area][drawn] = np.array(inks, dtype=np.int32)[level[drawn]]

    def put(self, column: int, row: int, text: str, ink: int, *, widths: Sequence[int] | None = None) -> None:
        """Write text over cells, clipped to the canvas; `widths` is the cell width of each character (default: 1)."""
        if not 0 <= row < self.height:
            return
        if widths is None:
            text, column = text[max(0, -column) :], max(0, column)
            text = text[: max(0, self.width - column)]
            span = slice(column, column + len(text))
            self._characters[row, span] = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
            self._inks[row, span] = ink
            return
        for character, cells in zip(text, widths, strict=True):
            if cells and column >= 0 and column + cells <= self.width:
                self._characters[row, column] = ord(character)
                self._characters[row, column + 1 : column + cells] = _WIDE_TAIL
                self._inks[row, column : column + cells] = ink
            column += cells

    def add_ground(self, column: int, row: int, width: int, height: int, ground: int) -> None:
        """Add a background to the cells of a rectangle without changing their characters."""
        self._inks[max(0, row) : row + height, max(0, column) : column + width] |= ground

    def copy(self) -> Canvas:
        """Return an independent copy of the canvas."""
        twin = Canvas(0, 0)
        twin.width, twin.height = self.width, self.height
        twin._characters, twin._inks = self._characters.copy(), self._inks.copy()
        return twin

    def count_drawn(self, column: int, row: int, width: int, height: int) -> int:
        """Return the number of cells in a rectangle that are not blank."""
        return int(np.count_nonzero(self._inks[row : row + height, column : column + width]))

    def lines(self) -> list[list[InkRun]]:
        """Return each row as runs of one ink, left to right."""
        ink_changes = self._inks[:, 1:] != self._inks[:, :-1]
        lines = []
        for characters, inks, changes in zip(self._characters, self._inks, ink_changes, strict=True):
            text = characters.astype("<u4").tobytes().decode("utf-32-le")
            starts = [0, *(np.flatnonzero(changes) + 1).tolist(), self.width]
            runs = pairwise(starts)
            lines.append([(text[start:end].replace("\0", ""), int(inks[start])) for start, end in runs])
        return lines
