"""Output of the pictures on a board: what the driver writes for their cells, and before and after them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from labbench.tui.graphics import kitty
from labbench.tui.graphics.board import FIRST_CELL, PictureBoard, ShownCell
from labbench.tui.graphics.detection import Graphics

if TYPE_CHECKING:  # numpy is not imported before the first paint
    from labbench.tui.graphics.indexed_image import IndexedImage


class PictureOutput(Protocol):
    """Output of pictures in one protocol."""

    board: PictureBoard
    repaints: bool
    """True if the cells of a changed image must be written again."""
    scales: bool
    """True if the terminal scales images to their cells; otherwise their pixels are its pixels."""
    max_cells: int
    """Maximum number of rows and of columns of a picture."""

    def prepare(self) -> str:
        """Return the sequences before the cells: images that changed, and images that are gone."""

    def cell(self, character: str, style: str, previous: str) -> tuple[str, str]:
        """Return text and style of a cell; `previous` is the character of the picture left of it, if just written."""

    def paint(self, cells: Iterable[ShownCell]) -> str:
        """Return the sequences after the cells."""

    def count_bytes(self, image: IndexedImage) -> int:
        """Return the number of bytes that sending an image takes, without its cells."""

    def finish(self) -> str:
        """Return the sequences that remove all images at the end."""


def is_picture_cell(character: str) -> bool:
    """Return True if a character is the cell of a picture."""
    return len(character) == 1 and ord(character) >= FIRST_CELL


def make_output(graphics: Graphics) -> PictureOutput:
    """Return the output of pictures for a terminal."""
    board = PictureBoard()
    return KittyOutput(board, in_tmux=graphics.in_tmux) if graphics.protocol == "kitty" else SixelOutput(board)


class KittyOutput:
    """Output in the kitty protocol, in tmux through its passthrough."""

    repaints = False
    scales = True
    max_cells = kitty.MAX_CELLS

    def __init__(self, board: PictureBoard, *, in_tmux: bool = False) -> None:
        self.board = board
        self._in_tmux = in_tmux
        self._colour = random.randint(1, 255)
        """Index of the foreground colour, so that other programs have other identifiers."""
        self._uploaded: set[int] = set()

    def prepare(self) -> str:
        return "".join(map(self._pass_through, self._changes()))

    def _changes(self) -> Iterator[str]:
        removed = {picture.number for picture in self.board.removed} & self._uploaded
        for number in removed:
            yield kitty.delete_image(number, self._colour)
        self._uploaded -= removed
        self.board.removed.clear()
        for picture in self.board.changed:
            png = self.board.image(picture).to_png()
            yield from kitty.upload_image(picture.number, self._colour, png, picture.columns, picture.rows)
            self._uploaded.add(picture.number)
        self.board.changed.clear()

    def cell(self, character: str, style: str, previous: str) -> tuple[str, str]:
        picture = self.board.find(character)
        if picture is None:
            return " ", style
        row, column = picture.position(character)
        style = f"{style};38;5;{self._colour}".lstrip(";")
        if previous and column and ord(previous) == ord(character) - 1:
            return kitty.PLACEHOLDER, style  # continues the row
        return kitty.placeholder(picture.number, row, column), style

    def paint(self, cells: Iterable[ShownCell]) -> str:
        return ""

    def count_bytes(self, image: IndexedImage) -> int:
        return len(image.to_png()) * 4 // 3

    def finish(self) -> str:
        deletions = [kitty.delete_image(number, self._colour) for number in sorted(self._uploaded)]
        self._uploaded.clear()
        return "".join(map(self._pass_through, deletions))

    def _pass_through(self, sequence: str) -> str:
        if not self._in_tmux:
            return sequence
        return "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\"


class SixelOutput:
    """Output as Sixel: the visible rectangles of a picture are drawn over its cells."""

    repaints = True
    scales = False
    max_cells = 1000

    def __init__(self, board: PictureBoard) -> None:
        self.board = board

    def prepare(self) -> str:
        self.board.removed.clear()
        return ""

    def cell(self, character: str, style: str, previous: str) -> tuple[str, str]:
        return " ", style

    def paint(self, cells: Iterable[ShownCell]) -> str:
        from labbench.tui.graphics.sixel import paint_cells  # imports numpy, which the images have loaded

        self.board.changed.clear()
        return paint_cells(self.board, cells)

    def count_bytes(self, image: IndexedImage) -> int:
        from labbench.tui.graphics.sixel import encode_sixel

        return len(encode_sixel(image.indices, image.palette[:, :3]))

    def finish(self) -> str:
        return ""
