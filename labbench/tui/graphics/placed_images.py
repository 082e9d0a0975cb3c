"""Images of a widget as pictures on the board, each sent once as long as it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from labbench.portraits.pixels import StyledLine, StyledText
from labbench.tui.graphics.detection import measure_cell
from labbench.tui.graphics.indexed_image import IndexedImage

if TYPE_CHECKING:
    from labbench.portraits.pixels import Image
    from labbench.tui.graphics.board import Picture
    from labbench.tui.graphics.output import PictureOutput

_MAX_BYTES = 30_000
"""Maximum bytes of an image, which has fewer pixels if need be."""
_PAGE_BYTES = 150_000
"""Maximum bytes of all images of the widget; those beyond are drawn as text."""
_MIN_PIXELS = 8


@dataclass(frozen=True, slots=True)
class _Key:
    """Image and its size in cells."""

    digest: bytes
    columns: int
    rows: int


class PlacedImages:
    """Pictures of the images that a widget shows."""

    def __init__(self, output: PictureOutput) -> None:
        self._output = output
        self._pictures: dict[_Key, Picture] = {}
        self._bytes: dict[_Key, int] = {}
        self._shown: set[_Key] = set()

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Keep the pictures that are placed within the block, and remove the others at its end."""
        self._shown = set()
        yield
        for key in self._pictures.keys() - self._shown:
            self._output.board.remove(self._pictures.pop(key))
            del self._bytes[key]

    def place(self, image: Image, columns: int, rows: int) -> list[StyledLine] | None:
        """Return the characters of an image, (height, width, 3), in this many cells; None if there is no room."""
        key = _Key(sha256(image.tobytes()).digest(), columns, rows)
        if key not in self._pictures and not self._add(key, image):
            return None
        self._shown.add(key)
        return [[StyledText(self._pictures[key].text(row, 0, columns))] for row in range(rows)]

    def _add(self, key: _Key, image: Image) -> bool:
        """Place a new picture; return True if there was room for it."""
        if max(key.columns, key.rows) > self._output.max_cells:
            return False
        used = sum(self._bytes[other] for other in self._shown)
        indexed, size = self._encode(image, key.columns, key.rows)
        if used + size > _PAGE_BYTES:
            return False
        picture = self._output.board.place(indexed, key.columns, key.rows)
        if picture is None:
            return False
        self._pictures[key], self._bytes[key] = picture, size
        return True

    def _encode(self, image: Image, columns: int, rows: int) -> tuple[IndexedImage, int]:
        """Return an image for this many cells, with fewer pixels if it would be too large, and its bytes."""
        from labbench.portraits.png_file import shrink

        width, height = measure_cell()
        largest = max(columns * width, rows * height)
        while True:
            pixels = shrink(image, largest)
            indexed = IndexedImage.from_rgb(pixels)
            if not self._output.scales:
                indexed = indexed.resize(rows * height, columns * width)
            size = self._output.count_bytes(indexed)
            if size <= _MAX_BYTES or largest <= _MIN_PIXELS:
                return indexed, size
            largest = max(_MIN_PIXELS, max(pixels.shape[:2]) * 2 // 3)
