"""The compare screen: keys in, screens out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from textual.pilot import Pilot

from helpers.golden import SIZES, SMALL, choose, compare, golden_name, line_of, press, screen, use
from helpers.tui_samples import many_runs
from labbench.tui.charts.page import ChartPage


@SIZES
def test_the_compare_screen_matches_its_golden_screen(database: Path, size: tuple[int, int]) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "j", "j", "space", "j", "j", "space", "2")
        compare(golden_name("compare", size), screen(pilot))

    use(database, look, size=size)


def test_settings_that_differ_are_compared_and_a_key_shows_all(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "space", "j", "j", "space", "c")
        assert "compare 2 runs" in now
        assert re.search(r"│lr +1 +0\.01 ", line_of(now, "│lr"))
        assert "batch_size" not in now
        assert re.search(r"★0\.0545 +0\.0631 ▼ \+0\.0086", line_of(now, "│val/loss"))
        assert re.search(r"│batch_size +64 +=", await press(pilot, "a"))

    use(database, look)


def test_the_baseline_comes_first_and_a_run_can_be_unmarked(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "j", "space", "2")
        now = await press(pilot, "right", "p")
        assert line_of(now, "│lr").split()[1:3] == ["0.01", "1"]
        now = await press(pilot, "right", "space")
        assert "compare 1 run " in now
        assert len(pilot.app.session.marks) == 1

    use(database, look)


def test_at_most_a_hundred_marked_runs_are_compared_and_the_title_says_so(tmp_path: Path) -> None:
    many_runs(tmp_path / "runs.db", 120)

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "asterisk")
        assert "compare 100 of 120 marked runs" in await press(pilot, "2")

    use(tmp_path / "runs.db", look)


def test_comparing_without_marks_explains_what_to_do(tmp_path: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert "mark two or more runs on screen 1 (␣)" in await press(pilot, "2")
        assert "no runs yet" in await press(pilot, "escape")

    use(tmp_path / "runs.db", look, size=SMALL)


def test_without_marks_the_first_run_of_each_group_of_the_table_is_compared(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await choose(pilot, "b", "configurations")
        now = await press(pilot, "c")
        assert "compare 6 runs, the first of each group (none is marked)" in now
        assert re.search(r"● adam lr=1 +◆ adam lr=0.01 +■ adam lr=0.001 ", now)
        assert re.search(r"│seed +1 +0 ", now)

    use(database, look)


def test_the_runs_of_a_cell_have_colours_and_a_title_of_their_own(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "3", "down", "enter")
        assert "compare 2 runs of optimizer sgd · lr 0.001" in now
        assert re.search(r"● s0 +◆ s1", now)
        assert len(set(pilot.app.screen.query_one(ChartPage).slots.values())) == 2

    use(database, look)


@pytest.mark.parametrize("view", ["compare", "runs"])
def test_without_marks_the_runs_on_the_charts_are_compared(database: Path, view: str) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "2")
        assert re.search(r"compare [2-5] runs, the best of their configurations \(none is marked\)", now)
        now = await press(pilot, "right", "space")
        assert re.search(r"compare [1-4] runs ", now)
        assert "none is marked" not in now

    use(database, look, view=view)
