"""Edits of runs, undo and copying; keys in, screens out."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot

from helpers.golden import choose, press, row_of, rows_of, screen, settle, type_in, use, wait_for_words
from labbench.errors import StoreError
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.tui import edits
from labbench.tui.edits import DatabaseChange


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
        assert "n keep" in await press(pilot, "D")
        await press(pilot, "enter", "n")
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
        assert "stop 3 runs?" in await press(pilot, "enter", "*", "K")
        await press(pilot, "n", "K", "y")

    use(database, look)
    with Reader(database) as reader:
        assert reader.count("status=queued") == 0
        assert reader.count("status=stopped") == 4


def test_a_cell_and_the_training_command_are_copied_to_the_clipboard(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, *["right"] * 4)
        await choose(pilot, "Y", "cell of best")
        assert pilot.app.clipboard == "0.0545"
        await choose(pilot, "Y", "command")
        await settle(pilot)
        only = "--rerun --engine loop --only 'optimizer=adam lr=1.0 seed=1'"
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
        await press(pilot, "D", "y")
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


def test_changes_of_the_marks_are_undone_one_by_one(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        marks = pilot.app.session.marks  # type: ignore[attr-defined]
        await press(pilot, "space", "j", "space", "*", "U")
        for count in (12, 2, 1, 0):
            await press(pilot, "u")
            assert len(marks) == count

    use(database, look)


def test_an_edit_and_the_marks_before_it_are_undone_in_reverse_order(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "A", "u")
        assert "undone: archived: adam lr=1 s1" in await wait_for_words(pilot, "undone")
        assert len(pilot.app.session.marks) == 1  # type: ignore[attr-defined]
        await press(pilot, "u")
        assert not pilot.app.session.marks  # type: ignore[attr-defined]

    use(database, look)
