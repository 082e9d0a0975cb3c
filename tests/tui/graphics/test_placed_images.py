"""Images of a run on a terminal that shows images: sharp pictures, sent once, and text everywhere else."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from textual.pilot import Pilot

import labbench
from helpers.golden import press, screen, settle, use
from helpers.image_terminal import ImageTerminal
from helpers.tui_samples import write_portraits
from labbench.portraits.pixels import Image
from labbench.store.reader import Reader
from labbench.tui.graphics.board import FIRST_CELL, PictureBoard
from labbench.tui.graphics.detection import Graphics
from labbench.tui.graphics.output import KittyOutput, PictureOutput, SixelOutput
from labbench.tui.graphics.placed_images import PlacedImages
from labbench.tui.screens.base import DataScreen
from labbench.tui.screens.export_view import text_of
from labbench.tui.terminal.changed_cells import ChangedCells

PICTURE = re.compile(f"[{chr(FIRST_CELL)}-\U0010ffff]")
KITTY = Graphics("kitty")


def gradient(height: int, width: int) -> Image:
    """Return an image that no coarser one equals, (height, width, 3)."""
    red, green = np.meshgrid(np.linspace(0, 255, height), np.linspace(0, 255, width), indexing="ij")
    return np.stack([red, green, 255 - red], axis=2).astype(np.uint8)


@pytest.mark.parametrize("output", [KittyOutput(PictureBoard()), SixelOutput(PictureBoard())], ids=["kitty", "sixel"])
def test_the_terminal_receives_an_image_once_at_its_resolution(output: PictureOutput) -> None:
    placed, cells, terminal = PlacedImages(output), ChangedCells(output), ImageTerminal(20, 8)
    for _ in range(2):
        with placed.drawing():
            lines = placed.place(gradient(90, 100), 10, 5)
        assert lines is not None
        rows = ["".join(piece.text for piece in line) for line in lines]
        terminal.feed(cells.reduce("".join(f"\x1b[{row + 1};1H{text}" for row, text in enumerate(rows))))
        if terminal.images:
            [(pixels, *size)] = terminal.images.values()
            assert size == [10, 5]
            assert pixels.shape[:2] == (90, 100)
        else:
            pixels = terminal.pixels[:100, :100]
        assert abs(pixels[-1, -1, :3].astype(int) - (255, 255, 0)).max() < 24
        sent = terminal.image_bytes
    assert 0 < sent < 30_000
    with placed.drawing():
        pass
    assert not list(output.board)


def test_an_image_without_room_is_drawn_as_text() -> None:
    placed = PlacedImages(KittyOutput(PictureBoard()))
    noise = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    with placed.drawing():
        fitting = [placed.place(noise + number, 64, 32) is not None for number in range(16)]
        assert placed.place(gradient(8, 8), 1000, 4) is None
    assert fitting[0]
    assert not fitting[-1]


def test_pictures_of_a_run_are_images_and_exports_stay_text(database: Path) -> None:
    with Reader(database) as reader:
        write_portraits(database, reader.runs(None))

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "enter")
        assert PICTURE.search(await press(pilot, "p"))
        board = pilot.app.pictures.board  # type: ignore[attr-defined]
        shown, titles = len(list(board)), re.findall("decision boundary|first-layer weights", screen(pilot))
        assert len(titles) == 2
        board.changed.clear()
        assert isinstance(pilot.app.screen, DataScreen)
        pilot.app.screen.read()
        await settle(pilot)
        assert not board.changed  # nothing is sent again
        text = text_of(pilot.app.screen)
        assert "▀" in text
        assert not PICTURE.search(text)
        await press(pilot, "p")
        assert len(list(board)) < shown

    use(database, look, graphics=KITTY)


def test_a_logged_image_is_shown_at_its_resolution(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with labbench.start("images", db=path, system_metrics=False) as run:
        run.log({"plot": labbench.Image(gradient(300, 400))})

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "enter")
        await press(pilot, "p")
        board = pilot.app.pictures.board  # type: ignore[attr-defined]
        sizes = [board.image(picture).indices.shape for picture in board]
        assert (300, 400) in sizes

    use(path, look, graphics=KITTY)
