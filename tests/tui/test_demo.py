"""What `labbench demo` opens: the terminal interface on one experiment of the example, until somebody has looked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from helpers.golden import LARGE, screen, settle
from labbench.cli.tui import EXAMPLE_FILTER
from labbench.tui import run_app
from labbench.tui.app import LabbenchApp

EXAMPLE = Path(__file__).parents[2] / "runs.db.example"


def test_the_example_begins_with_one_experiment_and_then_as_it_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    seen: list[str] = []

    def run(app: LabbenchApp) -> None:
        async def look() -> None:
            async with app.run_test(size=LARGE) as pilot:
                await settle(pilot)
                seen.append(screen(pilot))
                await pilot.press("f", "ctrl+u", "enter")  # an empty filter
                await settle(pilot)

        asyncio.run(look())

    monkeypatch.setattr(LabbenchApp, "run", run)
    for _ in range(2):
        run_app(EXAMPLE, first={"filter": EXAMPLE_FILTER})
    first, again = seen
    assert f"filter  {EXAMPLE_FILTER}" in first
    assert "189 of 295" in first
    assert "all runs" in again
