"""Golden screens in a small and a large terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot

from helpers.golden import SIZES, compare, golden_name, press, screen, type_in, use
from helpers.tui_samples import grid_of_runs


@SIZES
def test_the_runs_screen_matches_its_golden_screen(tmp_path: Path, size: tuple[int, int]) -> None:
    grid_of_runs(tmp_path / "runs.db")

    async def look(pilot: Pilot[None]) -> None:
        compare(golden_name("runs", size), screen(pilot))

    use(tmp_path / "runs.db", look, size=size)


@SIZES
def test_marked_runs_are_drawn_together(tmp_path: Path, size: tuple[int, int]) -> None:
    grid_of_runs(tmp_path / "runs.db")

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "j", "j", "j", "space", "G", "k", "k", "space")
        compare(golden_name("marked", size), await press(pilot, "m", "m", "y", "s"))

    use(tmp_path / "runs.db", look, size=size)


@SIZES
def test_a_full_screen_chart_fills_the_terminal(tmp_path: Path, size: tuple[int, int]) -> None:
    grid_of_runs(tmp_path / "runs.db")

    async def look(pilot: Pilot[None]) -> None:
        compare(golden_name("chart", size), await press(pilot, "space", "j", "space"))

    use(tmp_path / "runs.db", look, size=size, view="chart")


@SIZES
def test_help_explains_the_keys(tmp_path: Path, size: tuple[int, int]) -> None:
    grid_of_runs(tmp_path / "runs.db")

    async def look(pilot: Pilot[None]) -> None:
        compare(golden_name("help", size), await press(pilot, "question_mark"))

    use(tmp_path / "runs.db", look, size=size)


@SIZES
def test_an_empty_database_says_what_to_do_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.chdir(tmp_path)  # of the default database

    async def look(pilot: Pilot[None]) -> None:
        compare(golden_name("empty", size), screen(pilot))

    use(tmp_path / "runs.db", look, size=size)


@SIZES
def test_an_error_in_the_filter_is_shown_below_its_position(tmp_path: Path, size: tuple[int, int]) -> None:
    grid_of_runs(tmp_path / "runs.db")

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "f")
        compare(golden_name("filter-error", size), await type_in(pilot, "optimizer=sgd lr=="))

    use(tmp_path / "runs.db", look, size=size)
