"""Idle screens: an unchanged database draws nothing, and a change draws only the lines that show it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from textual.geometry import Region
from textual.pilot import Pilot
from textual.widget import Widget

from helpers.golden import press, screen, settle, use
from labbench.records import RunRecord
from labbench.tui import queries
from labbench.tui.screens.base import DataScreen


@contextmanager
def recorded_refreshes() -> Iterator[list[tuple[str, tuple[Region, ...]]]]:
    """Record which regions of which widgets are drawn again; no regions mean the whole widget."""
    refreshes: list[tuple[str, tuple[Region, ...]]] = []
    refresh = Widget.refresh

    def record(widget: Widget, *regions: Region, **options: bool) -> Widget:
        refreshes.append((type(widget).__name__, regions))
        return refresh(widget, *regions, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Widget, "refresh", record)
        yield refreshes


async def reread(pilot: Pilot[None]) -> None:
    """Read the database again, as after a commit."""
    assert isinstance(pilot.app.screen, DataScreen)
    pilot.app.screen.read()
    await settle(pilot)


@pytest.mark.parametrize("view", ["runs", "compare", "grid", "why", "run"])
def test_reading_an_unchanged_database_draws_nothing(database: Path, view: str) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "j", "space", *(["enter"] if view == "run" else []))
        if view in ("compare", "grid", "why"):
            await press(pilot, {"compare": "2", "grid": "3", "why": "4"}[view])
        await reread(pilot)  # sizes may settle after the first reading
        with recorded_refreshes() as refreshes:
            await reread(pilot)
        assert refreshes == []

    use(database, look)


def test_a_change_of_one_run_draws_its_row_only(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("UPDATE runs SET status = 'stopped' WHERE name = 'sgd lr=0.01 s1'")
        with recorded_refreshes() as refreshes:
            await reread(pilot)
        rows = [region for widget, regions in refreshes if widget == "RunsTable" for region in regions]
        assert [region.height for region in rows] == [1]
        assert {widget for widget, _ in refreshes} == {"RunsTable", "TopBar"}
        shown = screen(pilot)
        assert await press(pilot, "ctrl+l") == shown  # nothing old was left

    use(database, look)


def test_a_run_that_an_index_lacks_is_not_read_again_and_again(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[object] = []
    read_records = queries.read_records

    def count(path: Path, keys: Sequence[str]) -> Sequence[RunRecord]:
        reads.append(keys)
        return read_records(path, keys)

    async def look(pilot: Pilot[None]) -> None:
        await pilot.pause(0.5)
        assert len(reads) <= 2

    damage_index(database, "sgd lr=0.01 s1")
    monkeypatch.setattr(queries, "read_records", count)
    use(database, look)


def damage_index(database: Path, name: str) -> None:
    """Change the key of a run in the index of keys, so that the run is in the table but not found by its key."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        [key] = connection.execute("SELECT key FROM runs WHERE name = ?", (name,)).fetchone()
    sound = database.read_bytes()
    for match in re.finditer(key.encode(), sound):
        database.write_bytes(sound[: match.start()] + b"a" * len(key) + sound[match.end() :])
        with closing(sqlite3.connect(database)) as connection:
            in_table = connection.execute("SELECT count(*) FROM runs NOT INDEXED WHERE key = ?", (key,)).fetchone()
            in_index = connection.execute("SELECT count(*) FROM runs WHERE key = ?", (key,)).fetchone()
        if (in_table, in_index) == ((1,), (0,)):
            return
    raise AssertionError("no index holds the key")
