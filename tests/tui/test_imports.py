"""The TUI imports nothing heavy before the first paint, other screens when shown, and never torch for browsing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from helpers.tui_samples import grid_of_runs

SESSION = """
import asyncio, sys
from pathlib import Path
from labbench.tui.app import LabbenchApp

def loaded():
    screens = {f"labbench.tui.screens.{name}" for name in ("compare", "grid", "why", "run")}
    heavy = {"numpy", "torch", "ray", "sqlite_utils", "plotext", "labbench.analysis", "labbench.store.writer"}
    return sorted((heavy | screens) & set(sys.modules))

at_first_paint = []

async def browse():
    app = LabbenchApp(Path(sys.argv[1]))
    paint = app._display
    app._display = lambda *args: (at_first_paint.append(loaded()), paint(*args))
    async with app.run_test(size=(120, 40)) as pilot:
        for key in ("space", "j", "y", "s", "x", "o", "escape", "question_mark", "escape"):
            await pilot.press(key)
            await pilot.pause(0.1)
    print(at_first_paint[0], loaded())

asyncio.run(browse())
"""


def test_numpy_is_imported_after_the_first_paint_and_torch_never(tmp_path: Path) -> None:
    grid_of_runs(tmp_path / "runs.db")
    command = [sys.executable, "-c", SESSION, str(tmp_path / "runs.db")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] ['numpy']", result.stderr


def test_numpy_is_not_imported_without_curves(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SESSION, str(tmp_path / "runs.db")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] []", result.stderr
