"""Every screen: help, size and tabs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from textual.pilot import Pilot

from helpers.golden import SIZES, SMALL, press, screen, settle, use
from helpers.store_samples import start
from labbench.records import Started
from labbench.store.writer import Writer


@SIZES
@pytest.mark.parametrize("view", ["runs", "compare", "grid", "why"])
def test_every_screen_has_help_and_fits_the_terminal(database: Path, view: str, size: tuple[int, int]) -> None:
    async def look(pilot: Pilot[None]) -> None:
        for keys in ((), ("question_mark",)):
            await press(pilot, *keys)
            assert all(strip.cell_length == size[0] for strip in pilot.app.screen._compositor.render_strips())
        assert "Quit" in screen(pilot) or await press(pilot, "G")

    use(database, look, size=size, view=view)


def test_a_click_on_a_tab_switches_the_screen(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        top = screen(pilot).splitlines()[0]
        await pilot.click(offset=(top.index("why") + 1, 0))
        await settle(pilot)
        assert "best: adam" in screen(pilot)

    use(database, look)


def test_tabs_stay_in_a_narrow_terminal_while_a_run_is_training(tmp_path: Path) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        [run] = start(writer, 1)
        writer.write([Started(run.key, run.attempt, "box", os.getpid(), "cpu")])

        async def look(pilot: Pilot[None]) -> None:
            top = screen(pilot).splitlines()[0]
            for words in ("runs.db", "1 runs", "4 why", "1 run", "0 %"):
                assert words in top

        use(tmp_path / "runs.db", look, size=SMALL)
