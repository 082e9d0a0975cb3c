"""Pictures on a terminal: the bytes sent, decoded, show the images where the cells are, and nothing is sent twice."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.image_terminal import CELL_HEIGHT, CELL_WIDTH, ImageTerminal
from labbench.tui.graphics.board import Picture, PictureBoard
from labbench.tui.graphics.indexed_image import IndexedImage
from labbench.tui.graphics.output import KittyOutput, PictureOutput, SixelOutput
from labbench.tui.terminal.changed_cells import ChangedCells

COLUMNS, ROWS = 30, 8
PLACE = (2, 4)
"""Row and column of the picture on the screen."""


def image(seed: int, columns: int = 6, rows: int = 3) -> IndexedImage:
    """Return an image of a few colours, with transparent pixels."""
    random = np.random.default_rng(seed)
    colours = np.array([[0, 0, 0, 0], [255, 0, 0, 255], [0, 102, 204, 255], [51, 255, 0, 128]], np.uint8)
    return IndexedImage.from_pixels(colours[random.integers(0, 4, (rows * CELL_HEIGHT, columns * CELL_WIDTH))])


def place(board: PictureBoard, content: IndexedImage, previous: Picture | None = None) -> Picture:
    picture = board.place(content, 6, 3, previous)
    assert picture is not None
    return picture


def update(picture: Picture, *, hidden: str = "") -> str:
    """Return the update of the screen that Textual writes, with a text over the middle of the picture."""
    lines = []
    for row in range(picture.rows):
        text = picture.text(row, 0, picture.columns)
        if hidden and row == 1:
            text = text[:2] + hidden + text[2 + len(hidden) :]
        lines.append(f"\x1b[{PLACE[0] + row + 1};{PLACE[1] + 1}H\x1b[48;2;0;0;0m{text}\x1b[0m")
    return "".join(lines)


class Screen:
    """A terminal behind the filter of the driver."""

    def __init__(self, output: PictureOutput) -> None:
        self.filter = ChangedCells(output)
        self.terminal = ImageTerminal(COLUMNS, ROWS)

    def write(self, data: str) -> str:
        written = self.filter.reduce(data)
        self.terminal.feed(written)
        return written

    def area(self) -> NDArray[np.uint8]:
        """Return the pixels in the place of the picture."""
        top, left = PLACE[0] * CELL_HEIGHT, PLACE[1] * CELL_WIDTH
        return self.terminal.pixels[top : top + 3 * CELL_HEIGHT, left : left + 6 * CELL_WIDTH]


def test_a_kitty_image_arrives_pixel_by_pixel_and_its_cells_name_row_and_column() -> None:
    board = PictureBoard()
    screen, content = Screen(KittyOutput(board)), image(1)
    screen.write(update(place(board, content)))
    [(identifier, (pixels, columns, rows))] = screen.terminal.images.items()
    assert (columns, rows) == (6, 3)
    np.testing.assert_array_equal(pixels, content.to_pixels())
    cells = [
        [screen.terminal.picture_cell(PLACE[0] + row, PLACE[1] + column) for column in range(6)] for row in range(3)
    ]
    assert cells == [[(identifier, row, column) for column in range(6)] for row in range(3)]
    assert screen.terminal.picture_cell(0, 0) is None


def test_a_kitty_image_is_sent_once_and_a_changed_one_without_its_cells() -> None:
    board = PictureBoard()
    screen = Screen(KittyOutput(board))
    picture = place(board, image(1))
    screen.write(update(picture))
    assert screen.write(update(picture)) == ""
    changed = image(2)
    assert place(board, changed, picture) == picture
    written = screen.write(update(picture))
    assert written.startswith("\x1b_G")
    assert "\U0010eeee" not in written
    [(pixels, _, _)] = screen.terminal.images.values()
    np.testing.assert_array_equal(pixels, changed.to_pixels())


def test_a_dialog_over_a_kitty_picture_costs_its_cells_alone() -> None:
    board = PictureBoard()
    screen, picture = Screen(KittyOutput(board)), place(board, image(1))
    screen.write(update(picture))
    assert len(screen.write(update(picture, hidden="ok"))) < 100
    assert screen.terminal.texts[PLACE[0] + 1][PLACE[1] + 2] == "o"
    assert screen.terminal.picture_cell(PLACE[0] + 1, PLACE[1] + 4) is not None
    screen.write(update(picture))
    cell = screen.terminal.picture_cell(PLACE[0] + 1, PLACE[1] + 3)
    assert cell is not None
    assert cell[1:] == (1, 3)


def test_kitty_images_are_deleted_when_they_are_gone_and_at_the_end() -> None:
    board = PictureBoard()
    output = KittyOutput(board)
    screen = Screen(output)
    gone, still = place(board, image(1)), place(board, image(2))
    screen.write(update(gone) + update(still))
    board.remove(gone)
    screen.write("\x1b[1;1Hx")
    assert len(screen.terminal.images) == 1
    screen.terminal.feed(output.finish())
    assert screen.terminal.images == {}


def test_tmux_passes_kitty_images_through() -> None:
    board = PictureBoard()
    picture = place(board, image(1))
    written = ChangedCells(KittyOutput(board, in_tmux=True)).reduce(update(picture))
    assert written.startswith("\x1bPtmux;\x1b\x1b_G")
    assert written.count("\x1bPtmux;") == written.count("\x1b\x1b_G")


def test_a_sixel_image_is_drawn_over_its_cells() -> None:
    board = PictureBoard()
    screen, content = Screen(SixelOutput(board)), image(1)
    picture = place(board, content)
    screen.write(update(picture))
    expected = content.to_pixels().astype(int)
    expected[..., :3] = expected[..., :3] * expected[..., 3:] // 255  # over black
    drawn = expected[..., 3] > 0
    assert np.abs(screen.area()[drawn][:, :3] - expected[drawn][:, :3]).max() <= 3  # Sixel has 101 levels
    assert (screen.area()[~drawn] == 0).all()
    assert screen.write(update(picture)) == ""


def test_a_changed_sixel_image_replaces_the_earlier_one() -> None:
    board = PictureBoard()
    screen, content = Screen(SixelOutput(board)), image(2)
    picture = place(board, image(1))
    screen.write(update(picture))
    place(board, content, picture)
    screen.write(update(picture))
    np.testing.assert_array_equal(screen.area()[..., 3] > 0, content.to_pixels()[..., 3] > 0)


def test_a_dialog_cuts_a_sixel_image() -> None:
    board = PictureBoard()
    screen, content = Screen(SixelOutput(board)), image(1)
    picture = place(board, content)
    screen.write(update(picture))
    screen.write(update(picture, hidden="ok"))
    under = screen.area()[CELL_HEIGHT : 2 * CELL_HEIGHT, 2 * CELL_WIDTH : 4 * CELL_WIDTH]
    assert (under == 0).all()
    place(board, content, picture)  # the part around the dialog is drawn again
    screen.write(update(picture, hidden="ok"))
    assert (under == 0).all()
    screen.write(update(picture))
    np.testing.assert_array_equal(screen.area()[..., 3] > 0, content.to_pixels()[..., 3] > 0)


def test_pictures_that_do_not_fit_into_the_free_cells_are_not_placed() -> None:
    board = PictureBoard()
    first = board.place(image(1), 200, 200)
    assert first is not None
    assert board.place(image(1), 200, 200) is None
    board.remove(first)
    assert board.place(image(1), 200, 200) is not None


def test_a_picture_in_the_place_of_a_removed_one_has_cells_of_its_own() -> None:
    board = PictureBoard()
    screen, first = Screen(KittyOutput(board)), place(board, image(1))
    screen.write(update(first))
    board.remove(first)
    second = place(board, image(2))
    screen.write(update(second))
    [identifier] = screen.terminal.images
    assert screen.terminal.picture_cell(*PLACE) == (identifier, 0, 0)
    assert screen.terminal.picture_cell(PLACE[0] + 2, PLACE[1] + 5) == (identifier, 2, 5)


@pytest.mark.parametrize("colours", [3, 1000])
def test_an_image_keeps_its_colours_as_far_as_the_palette_goes(colours: int) -> None:
    random = np.random.default_rng(0)
    palette = random.integers(0, 256, (colours, 4)).astype(np.uint8)
    palette[:, 3] |= 0x80
    pixels = palette[random.integers(0, colours, (40, 50))]
    restored = IndexedImage.from_pixels(pixels)
    assert len(restored.palette) <= 256
    tolerance = 0 if colours == 3 else 60
    assert np.abs(restored.to_pixels().astype(int) - pixels).mean() <= tolerance
