"""Charts on a terminal that shows images: braille at once, the picture when nothing changes, text in exports."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from textual.pilot import Pilot

from helpers.golden import press, screen, settle, use
from helpers.waiting import HANG_SECONDS
from labbench.tui.charts.widget import Chart
from labbench.tui.graphics.board import FIRST_CELL
from labbench.tui.graphics.detection import Graphics
from labbench.tui.screens.export_view import text_of

KITTY = Graphics("kitty")


def has_picture(text: str) -> bool:
    return any(ord(character) >= FIRST_CELL for character in text)


def has_braille(text: str) -> bool:
    return any(0x2800 < ord(character) < 0x2900 for character in text)


async def wait_for_picture(pilot: Pilot[None]) -> None:
    """Wait until the curves on the screen are a picture."""
    deadline = time.monotonic() + HANG_SECONDS
    while has_braille(text := screen(pilot)) or not has_picture(text):
        assert time.monotonic() < deadline, text
        await settle(pilot)
        await asyncio.sleep(0.01)


def test_curves_become_a_picture_and_exports_stay_text(database: Path) -> None:
    async def script(pilot: Pilot[None]) -> None:
        await wait_for_picture(pilot)
        text = text_of(pilot.app.screen)
        assert has_braille(text)
        assert not has_picture(text)
        assert not has_picture(pilot.app.export_screenshot())
        await wait_for_picture(pilot)

    use(database, script, graphics=KITTY)


def test_other_axes_are_drawn_in_braille_until_their_picture_is_ready(database: Path) -> None:
    async def script(pilot: Pilot[None]) -> None:
        await wait_for_picture(pilot)
        chart = pilot.app.screen.query(Chart).first()
        await pilot.press("plus")
        assert has_braille("".join(strip.text for strip in chart._draw()))
        await wait_for_picture(pilot)

    use(database, script, graphics=KITTY)


def test_the_crosshair_leaves_the_picture_as_it_is(database: Path) -> None:
    async def script(pilot: Pilot[None]) -> None:
        await wait_for_picture(pilot)
        board = pilot.app.pictures.board  # type: ignore[attr-defined]
        board.changed.clear()
        assert has_picture(await press(pilot, "h", "h"))
        assert not board.changed

    use(database, script, graphics=KITTY)


def test_a_hidden_chart_frees_its_picture(database: Path) -> None:
    async def script(pilot: Pilot[None]) -> None:
        await wait_for_picture(pilot)
        await press(pilot, "enter")
        await wait_for_picture(pilot)
        await press(pilot, "escape")
        await wait_for_picture(pilot)
        assert len(list(pilot.app.pictures.board)) == 1  # type: ignore[attr-defined]

    use(database, script, graphics=KITTY)


def test_without_graphics_curves_are_braille(database: Path) -> None:
    async def script(pilot: Pilot[None]) -> None:
        text = screen(pilot)
        assert has_braille(text)
        assert not has_picture(text)

    use(database, script)
