"""The filter line: completion."""

from __future__ import annotations

import re
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


def test_keys_that_would_be_typed_into_the_filter_are_not_offered(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert "f filter" in screen(pilot).splitlines()[-1]
        keys = (await press(pilot, "f")).splitlines()[-1]
        assert "⏎ done" in keys
        assert "zoom" not in keys
        assert "help" not in keys

    use(database, look)


def test_a_filter_without_matches_leaves_no_curves(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        before = await press(pilot, "f")
        now = await type_in(pilot, "optimizer=none")
        assert "no run matches" in now
        assert not re.search("[\u2801-\u28ff]|val/loss", now)
        await press(pilot, "escape")
        assert await press(pilot, "f") == before

    use(database, look)


def test_a_regular_expression_is_answered_and_a_long_answer_begins_with_its_suggestion(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "f")
        assert "matches no run: `~` searches for" in await type_in(pilot, "name~^adam")

    async def look_at_cut_line(pilot: Pilot[None]) -> None:
        await press(pilot, "f")
        assert "did you mean `status`?  no run has a" in await type_in(pilot, "state=finished")

    use(database, look)
    use(database, look_at_cut_line, size=(60, 20))
