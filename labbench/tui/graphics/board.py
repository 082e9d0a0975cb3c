"""Board of the pictures on the screen: which characters stand for their cells, and what they show.

Textual draws, clips and scrolls text. A picture is therefore drawn as text: each of its cells is one character of a
private-use area, which the driver replaces by what the terminal needs (see `output.py`). Dialogs and scrolling cut
pictures as they cut any other text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy is not imported before the first paint
    from labbench.tui.graphics.indexed_image import IndexedImage

FIRST_CELL = 0x100000
"""Code point of the first cell: Unicode plane 16, in which no font has characters."""
_CELL_COUNT = 0xEEEE
"""Number of cells; the placeholder of kitty is the character after them."""
_MAX_NUMBER = 255


@dataclass(frozen=True, slots=True)
class ShownCell:
    """Cell of the terminal that belongs to a picture."""

    row: int
    """1-based."""
    column: int
    """1-based."""
    character: str
    style: str
    """Parameters of the SGR sequence."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Rectangle of cells that shows an image."""

    number: int
    """1 to 255."""
    first: int
    """Code point of its first cell."""
    columns: int
    rows: int

    @property
    def end(self) -> int:
        """Code point after its last cell."""
        return self.first + self.columns * self.rows

    def __contains__(self, character: str) -> bool:
        return len(character) == 1 and self.first <= ord(character) < self.end

    def text(self, row: int, column: int, width: int) -> str:
        """Return the characters of `width` cells of a row."""
        start = self.first + row * self.columns + column
        return "".join(map(chr, range(start, start + width)))

    def position(self, character: str) -> tuple[int, int]:
        """Return the (row, column) of a character of the picture."""
        return divmod(ord(character) - self.first, self.columns)


class PictureBoard:
    """Pictures that widgets show."""

    def __init__(self) -> None:
        self._images: dict[Picture, IndexedImage] = {}
        self.changed: set[Picture] = set()
        """Pictures whose image has not been sent."""
        self.removed: set[Picture] = set()
        """Pictures that are no longer shown and have not been deleted in the terminal."""

    def place(self, image: IndexedImage, columns: int, rows: int, previous: Picture | None = None) -> Picture | None:
        """Return the picture for an image in place of a previous one; None if there is no room for its cells."""
        picture = previous
        if previous is None or (previous.columns, previous.rows) != (columns, rows):
            if previous is not None:
                self.remove(previous)
            picture = self._allocate(columns, rows)
        if picture is not None:
            self._images[picture] = image
            self.changed.add(picture)
        return picture

    def remove(self, picture: Picture) -> None:
        """Free the cells of a picture, which is no longer shown."""
        if self._images.pop(picture, None) is not None:
            self.changed.discard(picture)
            self.removed.add(picture)

    def image(self, picture: Picture) -> IndexedImage:
        """Return the image of a picture."""
        return self._images[picture]

    def find(self, character: str) -> Picture | None:
        """Return the picture that a character belongs to."""
        return next((picture for picture in self._images if character in picture), None)

    def forget(self) -> None:
        """Send all images again: the terminal may have lost them."""
        self.changed.update(self._images)

    def __iter__(self) -> Iterator[Picture]:
        return iter(self._images)

    def _allocate(self, columns: int, rows: int) -> Picture | None:
        """Return a picture in the first free range of cells that is large enough."""
        start, needed = FIRST_CELL, columns * rows
        for picture in sorted(self._images, key=lambda picture: picture.first):
            if picture.first - start >= needed:
                break
            start = picture.end
        free = set(range(1, _MAX_NUMBER + 1)) - {picture.number for picture in {*self._images, *self.removed}}
        if start + needed > FIRST_CELL + _CELL_COUNT or not free:
            return None
        return Picture(min(free), start, columns, rows)
