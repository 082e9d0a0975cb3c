"""The runs table: groups, baseline, columns, edits, completion and copying; keys in, screens out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from textual.pilot import Pilot

from helpers.golden import press, row_of, screen, settle, type_in, use, wait_for_words
from helpers.tui_samples import grid_of_runs
from labbench.errors import StoreError
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.tui import edits
from labbench.tui.edits import DatabaseChange


@pytest.fixture
def database(tmp_path: Path) -> Path:
    grid_of_runs(tmp_path / "runs.db")
    return tmp_path / "runs.db"


def heading_of(screen: str) -> list[str]:
    """Return the words of the column titles."""
    line = next(line for line in screen.splitlines() if re.search(r"\bname\b.*(best|lr)", line))
    return line.split("││")[0].strip("│ ").replace("▲", " ").replace("▼", " ").split()


def rows_of(screen: str) -> list[str]:
    lines = [line.split("││")[0] for line in screen.splitlines() if "││" in line]
    return [line.strip("│ ▁▂▃▄▅▆▇█") for line in lines[1:] if re.search(r"\w", line)]


async def choose(pilot: Pilot[None], key: str, words: str) -> str:
    """Press a key that opens a list and choose its first entry with these words."""
    await press(pilot, key)
    await type_in(pilot, words)
    return await press(pilot, "enter")


# Groups


def test_groups_of_runs_are_rows_with_count_mean_and_spread(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await choose(pilot, "b", "set-ups")
        assert len(rows_of(now)) == 6
        assert heading_of(now)[:5] == ["name", "n", "val/loss", "best", "±"]
        assert re.search(r"▸ optimizer adam · lr 0.01 +2 +0.0937 +0.0621 +1.4\d*e-3", row_of(now, "adam · lr 0.01 "))
        assert rows_of(now)[0].startswith("✗ ▸ optimizer adam · lr 1")
        assert "★" in rows_of(now)[0]

    use(database, look)


def test_a_group_opens_to_show_its_runs_and_is_marked_as_one(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await choose(pilot, "b", "optimizer")
        now = await press(pilot, "enter")
        assert len(rows_of(now)) == 8
        assert "▾ optimizer adam" in now
        now = await press(pilot, "j", "j", "space")
        assert "● ✓   adam lr=0.01 s0" in now
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
        means = [
            float(match[1]) for row in rows_of(now) if (match := re.search(r"· optimizer \w+ +2 +\S+ +★?(\S+)", row))
        ]
        assert len(means) == 5
        assert means == sorted(means)
        await choose(pilot, "b", "without lr")
        assert "▸ optimizer adam" in screen(pilot)

    use(database, look)


# The baseline and the marks


def test_every_run_shows_its_difference_from_the_baseline(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, "j", "p")
        assert row_of(now, "adam lr=0.01 s0").startswith("│»")
        assert re.search(r"0.0545 +▲ −6\.\d+e-3", row_of(now, "adam lr=1 s1"))
        assert re.search(r"0.0631 +▼ \+2\.\d+e-3", row_of(now, "adam lr=0.01 s1"))
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
        await choose(pilot, "D", "yes")
        assert "deleted adam lr=0.01 s0" in await wait_for_words(pilot, "deleted")
        assert pilot.app.session.marks == {}
        assert "● ✓ adam lr=0.01 s1" in await press(pilot, "space")

    use(database, look)
    with Reader(database) as reader:
        assert reader.count() == 11


# Columns


def test_columns_are_chosen_hidden_moved_and_widened(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert heading_of(screen(pilot))[:4] == ["name", "val/loss", "best", "step"]
        await press(pilot, "right", "right", "shift+right")
        assert heading_of(screen(pilot))[:4] == ["name", "val/loss", "step", "best"]
        now = await press(pilot, "left", "|")
        assert heading_of(now)[:3] == ["name", "val/loss", "best"]
        await press(pilot, "C")
        await type_in(pilot, "batch_size")
        now = await press(pilot, "space", "enter")
        assert "batch_size" in [column.title for column in pilot.app.screen.table.columns]
        before = row_of(now, " name").index(" lr")
        await press(pilot, "C")
        await type_in(pilot, "optimizer")
        now = await press(pilot, "right", "right", "enter")
        assert row_of(now, " name").index(" lr") == before + 4
        await press(pilot, "C", "ctrl+r")
        assert heading_of(screen(pilot))[:4] == ["name", "val/loss", "best", "step"]

    use(database, look)


def test_a_key_sorts_by_the_column_of_the_cursor(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        now = await press(pilot, *["right"] * 6, ".")
        assert "sorted by lr ▲" in now
        assert "sorted by lr ▼" in await press(pilot, ".")

    use(database, look)


def test_a_column_shows_sparklines(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert re.search(r"190  █▆▅▄▃▂▂▁▁▁", row_of(screen(pilot), "adam lr=0.01 s0"))

    use(database, look)


# Edits


def test_tags_are_added_and_edits_undone_in_reverse_order(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "t")
        await type_in(pilot, "best good")
        await press(pilot, "enter")
        assert "+best +good: adam lr=1 s1" in await wait_for_words(pilot, "+good")
        await press(pilot, "C")
        await type_in(pilot, "tags")
        assert "✓ tags" in screen(pilot)
        await press(pilot, "escape")
        await press(pilot, "t")
        await type_in(pilot, "-good new")
        await press(pilot, "enter")
        with Reader(database) as reader:
            assert reader.find("adam lr=1 s1").tags == ("best", "new")
        await press(pilot, "u")
        with Reader(database) as reader:
            assert reader.find("adam lr=1 s1").tags == ("best", "good")
        await press(pilot, "u")
        with Reader(database) as reader:
            assert reader.find("adam lr=1 s1").tags == ()
        await press(pilot, "u")
        assert "nothing to undo" in await wait_for_words(pilot, "nothing to undo")

    use(database, look)


def test_notes_names_and_the_archive_are_edited_in_place(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "N")
        await type_in(pilot, "look at this")
        await press(pilot, "enter", "R")
        await press(pilot, *["backspace"] * 12)
        await type_in(pilot, "the good one")
        now = await press(pilot, "enter")
        assert "the good one" in row_of(now, "★0.0545")
        with Reader(database) as reader:
            assert reader.find("the good one").note == "look at this"
        await press(pilot, "A")
        assert not any("the good one" in row for row in rows_of(screen(pilot)))
        await press(pilot, "u")
        assert any("the good one" in row for row in rows_of(screen(pilot)))

    use(database, look)


def test_an_edit_on_a_marked_run_applies_to_all_marked_runs(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "j", "space", "j")
        assert "tag adam lr=0.01 s1" in await press(pilot, "t")
        await press(pilot, "escape", "k")
        assert "tag 2 runs" in await press(pilot, "t")
        await type_in(pilot, "two")
        await press(pilot, "enter")

    use(database, look)
    with Reader(database) as reader:
        assert reader.count("tag=two") == 2


def test_nothing_is_deleted_without_confirmation(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert "no, keep them" in await press(pilot, "D")
        await press(pilot, "enter")
        await press(pilot, "D", "escape")

    use(database, look)
    with Reader(database) as reader:
        assert reader.count() == 12


def test_a_failed_run_is_retried_and_a_queued_run_is_stopped(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "r")
        assert "no selected run is failed" in await wait_for_words(pilot, "no selected run")
        await press(pilot, "f")
        await type_in(pilot, "status=failed")
        await press(pilot, "enter", "r")
        with Reader(database) as reader:
            assert reader.count("status=failed") == 0
        await press(pilot, "f", *["backspace"] * 13)
        await type_in(pilot, "status=queued")
        await press(pilot, "enter", "*", "K")

    use(database, look)
    with Reader(database) as reader:
        assert reader.count("status=queued") == 0
        assert reader.count("status=stopped") == 4


# The filter's completion


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


# Copying


def test_a_cell_and_the_training_command_are_copied_to_the_clipboard(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "right", "right")
        await choose(pilot, "Y", "cell of best")
        assert pilot.app.clipboard == "0.0545"
        await choose(pilot, "Y", "command")
        await settle(pilot)
        only = "--only 'optimizer=adam lr=1.0 seed=1'"
        assert pilot.app.clipboard == f"labbench --db {database} run optimizers.toml {only}"

    use(database, look)


def test_a_dialog_accepted_without_changes_changes_nothing(database: Path) -> None:
    with Writer(database) as writer, Reader(database) as reader:
        best = reader.find("adam lr=1 s1").key
        writer.note(best, "line one\nline two\ttab")
        writer.rename(best, "a\tname")

    async def look(pilot: Pilot[None]) -> None:
        assert "line one␊line two␉tab" in await press(pilot, "N")
        await press(pilot, "enter")
        assert "a␉name" in await press(pilot, "R")
        await press(pilot, "enter", "u")
        assert "nothing to undo" in await wait_for_words(pilot, "nothing to undo")

    use(database, look)
    with Reader(database) as reader:
        assert (reader.find(best).name, reader.find(best).note) == ("a\tname", "line one\nline two\ttab")


def test_undoing_an_irreversible_edit_says_so_and_keeps_older_edits(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "t")
        await type_in(pilot, "foo")
        await press(pilot, "enter", "j")
        await choose(pilot, "D", "yes")
        await press(pilot, "u")
        assert "cannot be undone: deleted adam lr=0.01 s0" in await wait_for_words(pilot, "cannot be undone")
        with Reader(database) as reader:
            assert reader.find("adam lr=1 s1").tags == ("foo",)
        await press(pilot, "u")
        with Reader(database) as reader:
            assert reader.find("adam lr=1 s1").tags == ()

    use(database, look)


def test_an_undo_that_failed_to_write_can_be_retried(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, change: DatabaseChange) -> None:
        raise StoreError("the disk is full")

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "t")
        await type_in(pilot, "foo")
        await press(pilot, "enter")
        with monkeypatch.context() as patched:
            patched.setattr(edits, "apply_change", full)
            assert "the disk is full" in await press(pilot, "u")
        await press(pilot, "u")

    use(database, look)
    with Reader(database) as reader:
        assert reader.find("adam lr=1 s1").tags == ()
