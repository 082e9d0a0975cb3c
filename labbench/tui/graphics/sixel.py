"""Sixel images: encoding, and one for each rectangle of visible cells.

Source: https://vt100.net/docs/vt3xx-gp/chapter14.html
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.color import Color

from labbench.tui.graphics.board import Picture, PictureBoard, ShownCell

_GROUND = re.compile(r"(?:^|;)48;(?:2;(\d+);(\d+);(\d+)|5;(\d+))")
_BAND_ROWS = 6
_RUN = re.compile(rb"(.)\1{3,}")
"""A character four times or more, which is shorter as a count."""


def paint_cells(board: PictureBoard, cells: Iterable[ShownCell]) -> str:
    """Return the sequences that draw the parts of pictures that these cells show."""
    by_picture: dict[tuple[Picture, str], list[ShownCell]] = defaultdict(list)
    for cell in cells:
        picture = board.find(cell.character)
        if picture is not None:
            by_picture[picture, cell.style].append(cell)
    return "".join(
        part for (picture, style), shown in by_picture.items() for part in _paint(board, picture, style, shown)
    )


def _paint(board: PictureBoard, picture: Picture, style: str, cells: list[ShownCell]) -> Iterator[str]:
    image = board.image(picture)
    height, width = image.indices.shape
    cell_height, cell_width = height // picture.rows, width // picture.columns
    colours = _blend(image.palette, _ground(style))
    for area in _rectangles(picture, cells):
        rows = slice(area.first_row * cell_height, (area.first_row + area.rows) * cell_height)
        columns = slice(area.first_column * cell_width, (area.first_column + area.columns) * cell_width)
        part = image.indices[rows, columns]
        if part.any():
            yield f"\x1b[{area.row};{area.column}H{encode_sixel(part, colours)}"


@dataclass(frozen=True, order=True, slots=True)
class _Rectangle:
    """Rectangle of cells that shows a part of a picture."""

    column: int
    """Column on the screen."""
    first_column: int
    """Column in the picture."""
    columns: int
    row: int
    """Row on the screen."""
    first_row: int
    """Row in the picture."""
    rows: int = 1

    def continues(self, above: _Rectangle) -> bool:
        """Return True if it is as wide as another one, directly above it, and shows the part below."""
        is_below = (self.row, self.first_row) == (above.row + above.rows, above.first_row + above.rows)
        return is_below and (self.column, self.first_column, self.columns) == (
            above.column,
            above.first_column,
            above.columns,
        )


def _rectangles(picture: Picture, cells: list[ShownCell]) -> list[_Rectangle]:
    """Return the cells as few rectangles: runs of neighbouring cells, joined with equal runs below."""
    rectangles: list[_Rectangle] = []
    for run in sorted(_runs(picture, cells)):
        if rectangles and run.continues(rectangles[-1]):
            rectangles[-1] = replace(rectangles[-1], rows=rectangles[-1].rows + 1)
        else:
            rectangles.append(run)
    return rectangles


def _runs(picture: Picture, cells: list[ShownCell]) -> Iterator[_Rectangle]:
    ordered = sorted(cells, key=lambda cell: (cell.row, cell.column))
    start = 0
    for index, cell in enumerate(ordered, start=1):
        after = ordered[index] if index < len(ordered) else None
        if after is None or not _is_right_of(cell, after):
            first = ordered[start]
            first_row, first_column = picture.position(first.character)
            yield _Rectangle(first.column, first_column, index - start, first.row, first_row)
            start = index


def _is_right_of(cell: ShownCell, after: ShownCell) -> bool:
    """Return True if a cell follows another one on the screen and in the picture."""
    is_neighbour = (after.row, after.column) == (cell.row, cell.column + 1)
    return is_neighbour and ord(after.character) == ord(cell.character) + 1


def _ground(style: str) -> tuple[int, int, int]:
    match = _GROUND.search(style)
    if match is None:
        return 0, 0, 0
    red, green, blue, number = match.groups()
    if number is not None:
        triplet = Color.from_ansi(int(number)).get_truecolor()
        return triplet.red, triplet.green, triplet.blue
    return int(red), int(green), int(blue)


def _blend(palette: NDArray[np.uint8], ground: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return the colours of a palette, (colours, 4), over a ground, shape (colours, 3)."""
    opacity = palette[:, 3:] / 255
    blended: NDArray[np.uint8] = np.rint(palette[:, :3] * opacity + np.array(ground) * (1 - opacity)).astype(np.uint8)
    return blended


def encode_sixel(indices: NDArray[np.uint8], colours: NDArray[np.uint8]) -> str:
    """Return the sequence that draws an image at the cursor; pixels of index 0 stay as they are.

    indices: (height, width). colours: red, green and blue of each index, (colours, 3).
    """
    height, width = indices.shape
    registers = "".join(
        f"#{index};2;{';'.join(str(round(part / 2.55)) for part in colours[index].tolist())}"
        for index in np.unique(indices).tolist()
        if index
    )
    bands = "-".join("$".join(_encode_band(indices[row : row + _BAND_ROWS])) for row in range(0, height, _BAND_ROWS))
    return f'\x1bP0;1;0q"1;1;{width};{height}{registers}{bands}\x1b\\'


def _encode_band(band: NDArray[np.uint8]) -> Iterator[str]:
    """Yield the pixels of each colour in a band, (rows, width), of up to 6 rows."""
    weights = (1 << np.arange(len(band), dtype=np.uint8))[:, None]
    for index in np.unique(band).tolist():
        if index:
            characters = ((band == index) * weights).sum(axis=0, dtype=np.uint8) + ord("?")
            runs = _RUN.sub(lambda run: b"!%d%s" % (len(run[0]), run[1]), characters.tobytes().rstrip(b"?"))
            yield f"#{index}{runs.decode()}"
