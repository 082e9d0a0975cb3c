"""Keys typed faster than the database answers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot

from helpers.golden import press, settle, use, wait_for_words
from labbench.store.reader import Reader
from labbench.tui import queries

_NAMES = {" ": "space", "=": "equals_sign", "\r": "enter"}


@pytest.fixture
def slow_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each read of the table take a quarter of a second more, as on a slow disk."""
    read_snapshot = queries.read_snapshot

    def read_slowly(*args: Any, **options: Any) -> Any:
        time.sleep(0.25)
        return read_snapshot(*args, **options)

    monkeypatch.setattr(queries, "read_snapshot", read_slowly)


@pytest.mark.usefixtures("slow_reads")
def test_a_key_after_a_filter_acts_on_the_runs_of_that_filter(database: Path) -> None:
    async def type_at_once(pilot: Pilot[None]) -> None:
        for letter in "foptimizer=sgd\rtslow\r":
            pilot.app.post_message(events.Key(_NAMES.get(letter, letter), letter))
        are_queued = asyncio.Event()
        pilot.app.call_later(are_queued.set)
        await are_queued.wait()
        while pilot.app.has_pending_keys:  # type: ignore[attr-defined]
            await pilot.pause()
        await settle(pilot)

    use(database, type_at_once)
    with Reader(database) as reader:
        [tagged] = [run for run in reader.runs() if "slow" in run.tags]
    assert tagged.config["optimizer"] == "sgd"


def test_keys_do_not_wait_for_a_database_that_cannot_be_read(tmp_path: Path) -> None:
    database = tmp_path / "runs.db"
    database.write_bytes(b"not a database at all, but long enough to look at" * 100)

    async def visit_all_screens(pilot: Pilot[None]) -> None:
        for key in ("2", "3", "4", "1"):
            await press(pilot, key)
            assert "not an SQLite database" in await wait_for_words(pilot, "not an SQLite database")
            assert pilot.app.screen.is_ready  # type: ignore[attr-defined]

    use(database, visit_all_screens)
