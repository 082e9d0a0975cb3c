"""Saved state of a session, and named views."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from textual.pilot import Pilot

from helpers.golden import press, row_of, screen, settle, type_in, wait_for_words
from helpers.tui_samples import grid_of_runs
from labbench.errors import InputError
from labbench.tui import run_app
from labbench.tui.app import LabbenchApp
from labbench.tui.saved_state import SavedState, state_file
from labbench.tui.session import Session


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    grid_of_runs(tmp_path / "runs.db")
    return tmp_path / "runs.db"


def use(
    path: Path,
    script: Callable[[Pilot[None]], Awaitable[None]],
    *,
    view: str = "runs",
    size: tuple[int, int] = (160, 40),
) -> None:
    """Open the database with its saved state, as the program does."""

    async def run() -> None:
        app = LabbenchApp(path, view=view, saved_state=SavedState(path))
        async with app.run_test(size=size, notifications=True) as pilot:
            await settle(pilot)
            await script(pilot)

    asyncio.run(run())


async def arrange(pilot: Pilot[None]) -> None:
    """Set a filter, a sort order, a mark, a baseline, a hidden column and a logarithmic axis."""
    await press(pilot, "f")
    await type_in(pilot, "optimizer=sgd")
    await press(pilot, "enter", *["right"] * 5, "|", "o")
    await type_in(pilot, "name")
    await press(pilot, "enter", "g", "space", "j", "p", "y")


def test_the_next_session_starts_with_the_state_of_the_last(database: Path) -> None:
    use(database, arrange)

    async def look(pilot: Pilot[None]) -> None:
        now = screen(pilot)
        assert "6 of 12" in now
        assert "optimizer=sgd" in now.splitlines()[1]
        assert "sorted by name ▲" in now
        assert row_of(now, "sgd lr=0.001 s0").startswith("│[●]")
        assert row_of(now, "sgd lr=0.001 s1")[4:6] == "!»"
        assert "Δ best" in now
        assert "best step" not in now
        assert "log y" in now
        assert pilot.app.session.highlighted == pilot.app.session.baseline

    use(database, look)


@pytest.mark.parametrize(("key", "rows"), [("j", "1–5 of 12"), ("G", "8–12 of 12")])
def test_the_next_session_scrolls_only_as_far_as_its_row_needs(database: Path, key: str, rows: str) -> None:
    async def move(pilot: Pilot[None]) -> None:
        await press(pilot, key)

    async def look(pilot: Pilot[None]) -> None:
        assert rows in screen(pilot)

    use(database, move, size=(80, 24))
    use(database, look, size=(80, 24))


def test_a_view_is_saved_and_opened_by_name(database: Path) -> None:
    async def save(pilot: Pilot[None]) -> None:
        await arrange(pilot)
        await press(pilot, "W")
        await type_in(pilot, "only sgd")
        await press(pilot, "enter", "f", *["backspace"] * 13)
        assert "12 runs" in await press(pilot, "enter")
        await press(pilot, "ctrl+p")
        await type_in(pilot, "only sgd")
        await pilot.pause(0.5)
        await press(pilot, "enter")
        assert "6 of 12" in await wait_for_words(pilot, "6 of 12")
        await press(pilot, "f", *["backspace"] * 13)
        await press(pilot, "enter")

    async def look(pilot: Pilot[None]) -> None:
        assert "6 of 12" in screen(pilot)

    use(database, save)
    use(database, look, view="only sgd")
    with pytest.raises(InputError, match="runs, chart, compare, grid, why, only sgd"):
        run_app(database, view="only adam")


def test_every_database_has_its_own_state(database: Path, tmp_path: Path) -> None:
    assert state_file(database) != state_file(tmp_path / "other.db")
    assert state_file(database).is_relative_to(tmp_path / "state")
    use(database, arrange)
    assert SavedState(tmp_path / "other.db").last == {}
    assert SavedState(database).last["filter"] == "optimizer=sgd"


@pytest.mark.parametrize(
    "text", ["", "not JSON", "[" * 100_000, "[]", '{"last": 3, "views": [1]}', '{"last": {"columns": 7}}'], ids=range(6)
)
def test_a_corrupt_state_file_is_ignored(database: Path, text: str) -> None:
    file = state_file(database)
    file.parent.mkdir(parents=True)
    file.write_text(text)

    async def look(pilot: Pilot[None]) -> None:
        assert "12 runs" in screen(pilot)

    use(database, look)


@pytest.mark.parametrize(
    "chart",
    [
        '{"log": null}', '{"log": 5}', '{"smoothing": "ema banana"}', '{"window": [-Infinity, Infinity]}',
        '{"window": [-1e308, 1e308], "x_axis": "clock"}', '{"heights": {"val/loss": [-Infinity, Infinity]}}',
        '{"heights": {"val/loss": [-1e308, 1e308]}}', '{"window": [-5, 5], "log_x": true}', '{"layout": 2.0}',
        '{"window": [NaN, 3]}', '{"x_axis": "clock", "window": [-1e17, 1e17]}', '{"window": [1e300, 1e301]}',
    ],
)  # fmt: skip
def test_invalid_chart_settings_are_ignored(database: Path, chart: str) -> None:
    file = state_file(database)
    file.parent.mkdir(parents=True)
    file.write_text('{"last": {"chart": %s}}' % chart)  # noqa: UP031  # braces

    async def look(pilot: Pilot[None]) -> None:
        assert "│" in await press(pilot, "*", "plus", "minus", "l", "y", "X", "plus")

    use(database, look)


def test_a_smoothing_close_to_1_is_restored(database: Path) -> None:
    async def smooth(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "number_sign")
        await type_in(pilot, "0.99999999")
        assert "ema 0.99999999" in await press(pilot, "enter")

    async def look(pilot: Pilot[None]) -> None:
        assert "ema 0.99999999" in screen(pilot)
        await press(pilot, "number_sign")
        await type_in(pilot, "gauss 1e308")
        assert "gauss 1e+308" in await press(pilot, "enter")

    use(database, smooth)
    use(database, look)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.fixed_dictionaries(dict.fromkeys(Session(Path("runs.db")).as_json(), ANYTHING)))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_state_can_be_restored(state: dict[str, Any]) -> None:
    session = Session(Path("runs.db"))
    session.restore(state)
    again, text = Session(Path("runs.db")), json.dumps(session.as_json())  # as text: NaN is not equal to itself
    again.restore(json.loads(text))
    assert json.dumps(again.as_json()) == text


def test_a_sort_column_that_no_longer_exists_is_ignored(database: Path) -> None:
    saved = SavedState(database)
    saved.save({"sort": "best(gone)", "marks": {"nobody": 3}, "baseline": "nobody"})

    async def look(pilot: Pilot[None]) -> None:
        assert "sorted by best val/loss ▲" in screen(pilot)
        assert pilot.app.session.marks == {}

    use(database, look)


def test_two_windows_on_one_database_keep_each_others_changes(database: Path) -> None:
    SavedState(database).save({"filter": "", "metric": "val/loss", "marks": {"a": 1, "b": 2}})
    one, two = SavedState(database), SavedState(database)
    one.save({"filter": "lr=1", "metric": "val/loss", "marks": {"a": 1, "b": 2, "c": 3}})
    one.save_view("mine", {"filter": "lr=1"})
    two.save_view("yours", {"filter": "lr=2"})
    two.save({"filter": "", "metric": "val/accuracy", "marks": {"b": 2}})
    both = SavedState(database)
    assert both.last == {"filter": "lr=1", "metric": "val/accuracy", "marks": {"b": 2, "c": 3}}
    assert both.views == {"mine": {"filter": "lr=1"}, "yours": {"filter": "lr=2"}}
