"""The filter line: completion."""

from __future__ import annotations

from pathlib import Path

from textual.pilot import Pilot
from textual.widgets import Input

from helpers.golden import press, screen, type_in, use


def test_tab_completes_keys_and_values(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "f")
        now = await type_in(pilot, "opt")
        assert "optimizer" in now.splitlines()[2]
        await press(pilot, "tab")
        await type_in(pilot, "=")
        assert "adam   sgd" in screen(pilot).splitlines()[2]
        now = await press(pilot, "tab", "tab")
        assert "optimizer=sgd" in now
        assert "6 of 12" in now
        now = await press(pilot, "enter")
        assert "adam   sgd" not in now

    use(database, look)


def test_the_cursor_does_not_blink(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "f")
        focused = pilot.app.focused
        assert isinstance(focused, Input)
        assert not focused.cursor_blink

    use(database, look)
