"""The look of the screens, guarded by a few golden ones in a small and a large terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot

from helpers.golden import LARGE, SMALL, compare, press, screen, type_in, use
from helpers.tui_samples import grid_of_runs

SIZES = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "200x50"])


def named(name: str, size: tuple[int, int]) -> str:
    return f"{name}-{size[0]}x{size[1]}"


@SIZES
def test_the_runs_screen_looks_as_it_should(tmp_path: Path, size: tuple[int, int]) -> None:
    grid_of_runs(tmp_path / "runs.db")

    async def look(pilot: Pilot[None]) -> None:
        compare(named("runs", size), screen(pilot))

    use(tmp_path / "runs.db", look, size=size)


@SIZES
def test_marked_runs_are_drawn_together(tmp_path: Path, size: tuple[int, int]) -> None:
    grid_of_runs(tmp_path / "runs.db")

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "j", "j", "j", "space", "G", "k", "k", "space")
        compare(named("marked", size), await press(pilot, "m", "m", "y", "s"))

    use(tmp_path / "runs.db", look, size=size)


@SIZES
def test_the_chart_alone_takes_all_the_room(tmp_path: Path, size: tuple[int, int]) -> None:
    grid_of_runs(tmp_path / "runs.db")

    async def look(pilot: Pilot[None]) -> None:
        compare(named("chart", size), await press(pilot, "space", "j", "space"))

    use(tmp_path / "runs.db", look, size=size, view="chart")


@SIZES
def test_help_says_what_the_keys_do(tmp_path: Path, size: tuple[int, int]) -> None:
    grid_of_runs(tmp_path / "runs.db")

    async def look(pilot: Pilot[None]) -> None:
        compare(named("help", size), await press(pilot, "question_mark"))

    use(tmp_path / "runs.db", look, size=size)


@SIZES
def test_an_empty_database_says_what_to_do_next(tmp_path: Path, size: tuple[int, int]) -> None:
    async def look(pilot: Pilot[None]) -> None:
        compare(named("empty", size), screen(pilot))

    use(tmp_path / "runs.db", look, size=size)


@SIZES
def test_an_error_in_the_filter_stands_under_its_place(tmp_path: Path, size: tuple[int, int]) -> None:
    grid_of_runs(tmp_path / "runs.db")

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "f")
        compare(named("filter-error", size), await type_in(pilot, "optimizer=sgd lr=="))

    use(tmp_path / "runs.db", look, size=size)
