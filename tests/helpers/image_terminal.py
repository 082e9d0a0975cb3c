"""Terminal that shows images: it interprets what the interface writes, kitty placeholders and Sixel included."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.cells import cell_len

from labbench.tui.graphics import kitty

CELL_WIDTH, CELL_HEIGHT = 10, 20
_TOKEN = re.compile(
    r"\x1b_G([^;\x1b]*);?([^\x1b]*)\x1b\\|\x1bP([^\x1b]*)\x1b\\|\x1b\]([^\x1b\x07]*)(?:\x1b\\|\x07)"
    r"|\x1b\[([\d;?<>=]*)([ $]?[A-Za-z])|\x1b(.)|([^\x1b])",
    re.DOTALL,
)
_SIXEL = re.compile(r'"[\d;]+|#(\d+)(?:;2;(\d+);(\d+);(\d+))?|!(\d+)(.)|(\$)|(-)|([?-~])')


class ImageTerminal:
    """Cells with their text, and the pixels of images over them."""

    def __init__(self, columns: int, rows: int) -> None:
        self.texts = [[" "] * columns for _ in range(rows)]
        self.pixels = np.zeros((rows * CELL_HEIGHT, columns * CELL_WIDTH, 4), np.uint8)
        """Pixels of Sixel images, shape (height, width, 4)."""
        self.images: dict[int, tuple[NDArray[np.uint8], int, int]] = {}
        """Pixels, columns and rows of the images of the kitty protocol."""
        self.image_bytes = 0
        self._foreground = ""
        self._row = self._column = 0
        self._upload: tuple[dict[str, str], list[str]] = ({}, [])
        self._colours: dict[tuple[int, int], str] = {}

    def feed(self, data: str) -> None:
        for keys, payload, control, _, parameters, command, _, character in _TOKEN.findall(data):
            if keys:
                self.image_bytes += len(keys) + len(payload) + 6
                self._run_kitty(dict(word.split("=") for word in keys.split(",")), payload)
            elif "q" in control[:8]:
                self.image_bytes += len(control) + 4
                self._draw_sixel(control.partition("q")[2])
            elif command == "H":
                self._row, self._column = (int(word) - 1 for word in (parameters or "1;1").split(";"))
            elif command == "C":
                self._column += int(parameters or 1)
            elif command == "m":
                colours = re.findall(r"38;5;(\d+)", parameters)
                self._foreground = colours[-1] if colours else "" if parameters in ("", "0") else self._foreground
            elif character >= " ":
                self._put(character)

    def picture_cell(self, row: int, column: int) -> tuple[int, int, int] | None:
        """Return the (image, row, column) that a cell shows by the kitty protocol, or None."""
        text = self.texts[row][column]
        if not text.startswith(kitty.PLACEHOLDER):
            return None
        if len(text) == 1:  # continues the cell at its left
            left = self.picture_cell(row, column - 1)
            return left and (left[0], left[1], left[2] + 1)
        picture_row, picture_column, number = (kitty.DIACRITICS.index(mark) for mark in text[1:])
        return number << 24 | int(self._colours[row, column]), picture_row, picture_column

    def _put(self, character: str) -> None:
        width = cell_len(character)
        if not width:
            self.texts[self._row][self._column - 1] += character
            return
        self.texts[self._row][self._column : self._column + width] = [character] + [""] * (width - 1)
        self._colours[self._row, self._column] = self._foreground
        top, left = self._row * CELL_HEIGHT, self._column * CELL_WIDTH
        self.pixels[top : top + CELL_HEIGHT, left : left + CELL_WIDTH * width] = 0
        self._column += width

    def _run_kitty(self, keys: dict[str, str], payload: str) -> None:
        if keys.get("a") == "d":
            self.images.pop(int(keys["i"]), None)
            return
        if "a" in keys:
            self._upload = keys, []
        first, chunks = self._upload
        chunks.append(payload)
        if keys["m"] == "0":
            with Image.open(io.BytesIO(base64.b64decode("".join(chunks)))) as image:
                pixels = np.array(image.convert("RGBA"))
            self.images[int(first["i"])] = (pixels, int(first["c"]), int(first["r"]))

    def _draw_sixel(self, body: str) -> None:
        palette: dict[int, tuple[int, ...]] = {}
        top, left = self._row * CELL_HEIGHT, self._column * CELL_WIDTH
        x = colour = 0
        for number, red, green, blue, count, repeated, home, line, single in _SIXEL.findall(body):
            if number:
                colour = int(number)
                if red:
                    palette[colour] = (*(round(int(share) * 2.55) for share in (red, green, blue)), 255)
            elif home:
                x = 0
            elif line:
                x, top = 0, top + 6
            elif repeated or single:
                bits, width = ord(repeated or single) - ord("?"), int(count or 1)
                for bit in range(6):
                    if bits >> bit & 1:
                        self.pixels[top + bit, left + x : left + x + width] = palette[colour]
                x += width
