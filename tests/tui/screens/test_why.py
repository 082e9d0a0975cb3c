"""The why screen: keys in, screens out."""

from __future__ import annotations

from pathlib import Path

from textual.pilot import Pilot

from helpers.golden import SIZES, compare, golden_name, press, type_in, use, wait_for_words
from helpers.tui_samples import grid_of_runs


@SIZES
def test_the_why_screen_matches_its_golden_screen(database: Path, size: tuple[int, int]) -> None:
    async def look(pilot: Pilot[None]) -> None:
        compare(golden_name("why", size), await press(pilot, "4"))

    use(database, look, size=size)


def test_the_answer_covers_the_filtered_runs_and_the_chosen_metric(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "f")
        await type_in(pilot, "optimizer=adam")
        now = await press(pilot, "enter", "4")
        assert "why val/loss   optimizer=adam" in now
        assert "best: lr" in now
        assert "optimizer   val" not in now
        assert "why val/accuracy" in await press(pilot, "m")
        await press(pilot, "Y")
        assert pilot.app.clipboard.startswith("best: lr")
        assert "sorted by best val/accuracy" in await press(pilot, "1")

    use(database, look)


def test_why_shows_an_answer_once_runs_have_ended(tmp_path: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert "no run has ended yet" in await press(pilot, "4")
        grid_of_runs(tmp_path / "runs.db")
        assert "best: adam" in await wait_for_words(pilot, "best: adam")

    use(tmp_path / "runs.db", look)
