"""Braille drawing in numpy: vertical spans in, rows of (text, ink) out. Knows neither curves nor Textual.

A cell holds 2 x 4 dots and one ink. What is drawn last owns the cells it touches and clears what was under it, so that
the line that matters stays crisp where many meet. Cost follows the cells touched, not the size of the canvas.
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
"""Text in one ink: neighbouring cells of a row."""

_LEFT_DOTS = (0x01, 0x02, 0x04, 0x40)  # of a braille cell, from the top; U+2800 is the empty one
_RIGHT_DOTS = (0x08, 0x10, 0x20, 0x80)
_BITS = np.array(  # (side, first dot, last dot)
    [[[sum(dots[first : last + 1]) for last in range(4)] for first in range(4)] for dots in (_LEFT_DOTS, _RIGHT_DOTS)],
    dtype=np.uint32,
)
_WIDE_TAIL = 0  # a cell that is the right half of a wide character


class Canvas:
    """A grid of cells, `width` x `height`; dot columns and dot rows count from the top left."""

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

        tops, bottoms: (layers, dot columns), dot rows, NaN for nothing; what leaves the first `rows` cell rows is cut.
        inks: (layers,). left: the cell column where the first dot column is.
        """
        rows = self.height if rows is None else rows
        with np.errstate(invalid="ignore"):
            visible = (bottoms > -0.5) & (tops < 4 * rows - 0.5)
        layer, column = np.nonzero(visible)  # in drawing order
        top = np.clip(np.rint(tops[visible]), 0, 4 * rows - 1).astype(np.int64)
        bottom = np.clip(np.rint(bottoms[visible]), 0, 4 * rows - 1).astype(np.int64)
        touched = bottom // 4 - top // 4 + 1
        span = np.repeat(np.arange(len(top)), touched)  # (cells touched,): which span each belongs to
        nth = np.arange(len(span)) - np.repeat(np.cumsum(touched) - touched, touched)
        row = top[span] // 4 + nth
        first, last = np.maximum(top[span] - 4 * row, 0), np.minimum(bottom[span] - 4 * row, 3)
        column = column[span]
        cell = row * self.width + left + column // 2
        self._paint_cells(cell, layer[span], _BITS[column % 2, first, last], inks)

    def _paint_cells(
        self, cell: NDArray[np.int64], layer: NDArray[np.int64], bits: NDArray[np.uint32], inks: NDArray[np.int32]
    ) -> None:
        """Give each touched cell to the last layer that touches it, with that layer's dots alone."""
        owner = np.full(self.width * self.height, -1, dtype=np.int64)
        owner[cell] = layer  # of repeated indices numpy keeps the last
        kept = owner[cell] == layer
        dots = np.zeros(len(owner), dtype=np.uint32)
        np.bitwise_or.at(dots, cell[kept], bits[kept])
        owned = owner >= 0
        self._characters.reshape(-1)[owned] = 0x2800 + dots[owned]
        self._inks.reshape(-1)[owned] = inks[owner[owned]]

    def shade(self, counts: NDArray[np.int64], inks: Sequence[int], *, left: int = 0) -> None:
        """Draw the dots that something covers, each cell in the ink that its fullest dot deserves.

        counts: (4 x cell rows, 2 x cell columns), how many lines cover each dot. inks: from few to most, by logarithm.
        """
        rows, columns = counts.shape[0] // 4, counts.shape[1] // 2
        cells = counts.reshape(rows, 4, columns, 2)
        bits = np.array([_LEFT_DOTS, _RIGHT_DOTS], dtype=np.uint32).T  # (4, 2)
        dots = ((cells > 0) * bits[None, :, None, :]).sum(axis=(1, 3), dtype=np.uint32)
        fullest = cells.max(axis=(1, 3))
        share = np.log(np.maximum(fullest, 1)) / max(1e-9, math.log(max(2, int(fullest.max(initial=0)))))
        level = np.minimum((share * len(inks)).astype(np.int64), len(inks) - 1)
        place = (slice(0, rows), slice(left, left + columns))
        drawn = dots > 0
        self._characters[place][drawn] = 0x2800 + dots[drawn]
        self._inks[place][drawn] = np.array(inks, dtype=np.int32)[level[drawn]]

    def put(self, column: int, row: int, text: str, ink: int, *, widths: Sequence[int] | None = None) -> None:
        """Write text over cells; `widths` are its characters' cells where they are not all 1. What leaves is cut."""
        if not 0 <= row < self.height:
            return
        if widths is None:
            text, column = text[max(0, -column) :], max(0, column)
            text = text[: max(0, self.width - column)]
            here = slice(column, column + len(text))
            self._characters[row, here] = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
            self._inks[row, here] = ink
            return
        for character, cells in zip(text, widths, strict=True):
            if cells and column >= 0 and column + cells <= self.width:
                self._characters[row, column] = ord(character)
                self._characters[row, column + 1 : column + cells] = _WIDE_TAIL
                self._inks[row, column : column + cells] = ink
            column += cells

    def add_ground(self, column: int, row: int, width: int, height: int, ground: int) -> None:
        """Lay a ground under a rectangle: what is drawn there stays."""
        self._inks[max(0, row) : row + height, max(0, column) : column + width] |= ground

    def copy(self) -> Canvas:
        """The same cells, to draw on without touching these."""
        twin = Canvas(0, 0)
        twin.width, twin.height = self.width, self.height
        twin._characters, twin._inks = self._characters.copy(), self._inks.copy()
        return twin

    def drawn(self, column: int, row: int, width: int, height: int) -> int:
        """How many cells of a rectangle hold something."""
        return int(np.count_nonzero(self._inks[row : row + height, column : column + width]))

    def lines(self) -> list[list[InkRun]]:
        """Each row as runs of one ink, left to right."""
        turns = self._inks[:, 1:] != self._inks[:, :-1]
        lines = []
        for characters, inks, turn in zip(self._characters, self._inks, turns, strict=True):
            text = characters.astype("<u4").tobytes().decode("utf-32-le")
            starts = [0, *(np.flatnonzero(turn) + 1).tolist(), self.width]
            runs = pairwise(starts)
            lines.append([(text[start:end].replace("\0", ""), int(inks[start])) for start, end in runs])
        return lines
