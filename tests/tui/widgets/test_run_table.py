"""The runs table: groups, baseline, marks and columns; keys in, screens out."""

from __future__ import annotations

import re
from pathlib import Path

from textual.pilot import Pilot

from helpers.golden import SMALL, choose, press, row_of, rows_of, screen, type_in, use, wait_for_words
from labbench.store.reader import Reader


def heading_of(screen: str) -> list[str]:
    """Return the words of the column titles."""
    line = next(line for line in screen.splitlines() if re.search(r"\b(name|optimizer) .*(best|lr) ", line))
    return re.sub("[▲▼↑↓]", " ", line.split("││")[0].strip("│ ")).split()


# Groups


def test_groups_of_runs_are_rows_with_count_mean_and_spread(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await choose(pilot, "b", "configurations")
        assert len(rows_of(now)) == 6
        assert re.search(r"name +n +last +best. +± 95 %", now)
        assert re.search(r"▸ adam lr=0.01 +2 +0.0937 +0.0621 +0.012\d", row_of(now, "▸ adam lr=0.01 "))
        assert "✗ ▸ adam lr=1" in rows_of(now)[0]
        assert "★" in rows_of(now)[0]

    use(database, look)


def test_a_group_opens_to_show_its_runs_and_is_marked_as_one(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await choose(pilot, "b", "optimizer")
        now = await press(pilot, "enter")
        assert len(rows_of(now)) == 8
        assert "▾ optimizer adam" in now
        now = await press(pilot, "j", "j", "space")
        assert "[●]✓   adam lr=0.01 s0" in now
        now = await press(pilot, "k", "k", "enter", "j", "space")
        assert len(rows_of(now)) == 2
        assert len(pilot.app.session.marks) == 7
        now = await choose(pilot, "b", "no groups")
        assert len(rows_of(now)) == 12

    use(database, look)


def test_groups_by_two_keys_are_sorted_by_their_means(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await choose(pilot, "b", "lr")
        now = await choose(pilot, "b", "optimizer")
        means = [float(match[1]) for row in rows_of(now) if (match := re.search(r"lr=\S+ \w+ +2 +\S+ +★?(\S+)", row))]
        assert len(means) == 5
        assert means == sorted(means)
        await choose(pilot, "b", "without lr")
        assert "▸ optimizer adam" in screen(pilot)

    use(database, look)


# The baseline and the marks


def test_every_run_shows_its_difference_from_the_baseline(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "j", "p")
        assert row_of(now, "adam lr=0.01 s0").startswith("│ ◆ ✓»")
        assert re.search(r"0.0545 +▲ −0\.006\d+", row_of(now, "adam lr=1 s1"))
        assert re.search(r"0.0631 +▼ \+0\.002\d+", row_of(now, "adam lr=0.01 s1"))
        assert "Δ best" not in await press(pilot, "p")

    use(database, look)


def test_all_matching_runs_are_marked_inverted_and_unmarked(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "f")
        await type_in(pilot, "lr=0.01")
        await press(pilot, "enter", "*")
        assert len(pilot.app.session.marks) == 4
        await press(pilot, "space", "I")
        assert len(pilot.app.session.marks) == 1
        await press(pilot, "U")
        assert len(pilot.app.session.marks) == 0

    use(database, look)


def test_a_deleted_run_frees_its_colour(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "j", "space")
        await press(pilot, "D", "y")
        assert "deleted adam lr=0.01 s0" in await wait_for_words(pilot, "deleted")
        assert pilot.app.session.marks == {}
        await wait_for_words(pilot, "1–11 of 11")  # the table without the run
        assert row_of(await press(pilot, "space"), "adam lr=0.01 s1").startswith("│[●]✓ ")

    use(database, look)
    with Reader(database) as reader:
        assert reader.count() == 11


# Columns


def test_columns_are_chosen_hidden_moved_and_widened(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert heading_of(screen(pilot))[:6] == ["optimizer", "lr", "seed", "last", "best", "best"]
        await press(pilot, *["right"] * 3, "shift+right")
        assert heading_of(screen(pilot))[:6] == ["optimizer", "lr", "seed", "best", "last", "best"]
        now = await press(pilot, "left", "|")
        assert heading_of(now)[:5] == ["optimizer", "lr", "seed", "last", "best"]
        await press(pilot, "C")
        await type_in(pilot, "batch_size")
        now = await press(pilot, "space", "enter")
        assert "batch_size" in [column.title for column in pilot.app.screen.table.columns]
        before = row_of(now, " optimizer ").index(" last")
        await press(pilot, "C")
        await type_in(pilot, "seed")
        now = await press(pilot, "right", "right", "enter")
        assert row_of(now, " optimizer ").index(" last") == before + 4
        await press(pilot, "C", "ctrl+r")
        assert heading_of(screen(pilot))[:6] == ["optimizer", "lr", "seed", "last", "best", "best"]

    use(database, look)


def test_a_key_sorts_by_the_column_of_the_cursor(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "right", ".")
        assert "sorted by lr ▲" in now
        assert "sorted by lr ▼" in await press(pilot, ".")

    use(database, look)


def test_a_column_shows_sparklines(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert re.search(r"190  █▆▅▄▃▂▂▁▁▁", row_of(screen(pilot), "adam lr=0.01 s0"))

    use(database, look)


def test_marks_show_on_which_side_columns_are_out_of_sight(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        marks = []
        for keys in ((), ("right",) * 8, ("right",) * 20):
            titles = (await press(pilot, *keys)).splitlines()[4]
            marks.append([mark for mark in "‹›" if mark in titles])
        assert marks == [["›"], ["‹", "›"], ["‹"]]

    use(database, look, size=SMALL)
