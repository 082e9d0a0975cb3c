"""`labbench demo` opens the example filtered to one experiment, and later as it was left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from helpers.golden import LARGE, screen, settle
from labbench.cli.tui import EXAMPLE_FILTER
from labbench.tui import run_app
from labbench.tui.app import LabbenchApp

EXAMPLE = Path(__file__).parents[2] / "runs.db.example"


def test_the_example_opens_with_one_experiment_and_later_as_it_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    screens: list[str] = []

    def run(app: LabbenchApp) -> None:
        async def look() -> None:
            async with app.run_test(size=LARGE) as pilot:
                await settle(pilot)
                screens.append(screen(pilot))
                await pilot.press("f", "ctrl+u", "enter")  # an empty filter
                await settle(pilot)

        asyncio.run(look())

    monkeypatch.setattr(LabbenchApp, "run", run)
    for _ in range(2):
        run_app(EXAMPLE, first={"filter": EXAMPLE_FILTER})
    first, second = screens
    assert f"filter  {EXAMPLE_FILTER}" in first
    assert "189 of 295" in first
    assert "all runs" in second
