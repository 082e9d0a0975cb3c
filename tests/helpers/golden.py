"""Drive the terminal interface in tests and compare its screens with golden files.

A golden screen is the plain text of the terminal, stored in tests/golden/NAME.txt. After an intended change, rewrite
the files with

    LABBENCH_UPDATE_GOLDEN=1 python -m pytest -k golden

and review the difference before committing it.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot

from helpers.waiting import HANG_SECONDS
from labbench.tui.app import LabbenchApp
from labbench.tui.graphics.detection import Graphics
from labbench.tui.saved_state import SavedState
from labbench.tui.terminal.questions import TerminalAnswers

FOLDER = Path(__file__).parents[1] / "golden"
MAX_DIFFERENT_DOTS = 6
"""Maximum number of cells in which the dots of curves may differ."""
DOTS = {" ", *map(chr, range(0x2800, 0x2900))}

SMALL, LARGE = (80, 24), (200, 50)
"""Terminal sizes under test: columns and rows."""
SIZES = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "200x50"])


ONE_LINEAR_CHART: dict[str, object] = {"layout": 0, "linear": ["val/loss", "val/accuracy", "train/loss"]}
"""Chart settings under which one chart is drawn over linear axes, whatever the size of the screen and the values."""


def use(
    path: Path,
    script: Callable[[Pilot[None]], Awaitable[None]],
    *,
    size: tuple[int, int] = LARGE,
    view: str = "runs",
    saved_state: SavedState | None = None,
    chart: Mapping[str, object] = ONE_LINEAR_CHART,
    graphics: Graphics | None = None,
) -> None:
    """Open the database in a terminal of the given size, with these chart settings, and run the script against it."""

    async def run() -> None:
        app = LabbenchApp(path, view=view, saved_state=saved_state, terminal=TerminalAnswers(graphics=graphics))
        if saved_state is None:
            app.session.chart = dict(chart)
        async with app.run_test(size=size, notifications=True) as pilot:
            await settle(pilot)
            await script(pilot)

    asyncio.run(run())


async def press(pilot: Pilot[None], *keys: str) -> str:
    """Press keys, wait until their effects are on the screen, and return the screen."""
    for key in keys:
        await hit(pilot, key)
        await finish_readings(pilot)
    await settle(pilot)
    return screen(pilot)


async def hit(pilot: Pilot[None], key: str) -> None:
    """Press a key and wait for its messages only: `pilot.press` waits twice per key for an idle processor."""
    pressing = asyncio.ensure_future(pilot.app._press_keys([key]))
    await asyncio.sleep(0)  # the key is sent; only waits follow
    pressing.cancel()
    assert isinstance(pilot.app, LabbenchApp)
    received = asyncio.Event()
    pilot.app.call_later(received.set)
    with suppress(TimeoutError):  # the key has ended the program
        await asyncio.wait_for(received.wait(), 5.0)
    while pilot.app.has_pending_keys:
        await asyncio.sleep(0.001)
    for _ in range(2):  # the key itself, then the messages that it posted to the application
        await pilot._wait_for_screen()
        await asyncio.sleep(0.001)


async def type_in(pilot: Pilot[None], words: str) -> str:
    """Paste text into the focused widget: typing it would take a tenth of a second per key."""
    assert pilot.app.focused is not None
    pilot.app.focused.post_message(events.Paste(words))
    await settle(pilot)
    return screen(pilot)


async def choose(pilot: Pilot[None], key: str, words: str) -> str:
    """Press a key that opens a list and choose its first entry with these words."""
    await press(pilot, key)
    await type_in(pilot, words)
    return await press(pilot, "enter")


async def settle(pilot: Pilot[None]) -> None:
    """Wait for the reads in thread workers and for their effects; the worker that watches for changes never ends."""
    idle_rounds = 0
    while idle_rounds < 2:  # a finished worker may have posted a message that is not handled yet
        await pilot.pause()
        idle_rounds = 0 if await finish_readings(pilot) else idle_rounds + 1


async def finish_readings(pilot: Pilot[None]) -> bool:
    """Wait for the running reads in thread workers, and return True if there was one."""
    reading = [worker for worker in pilot.app.workers if worker.group != "watch" and not worker.is_finished]
    if reading:
        await asyncio.wait([worker._task for worker in reading if worker._task is not None])
        await pilot._wait_for_screen()
    return bool(reading)


async def wait_for_words(pilot: Pilot[None], words: str, *, seconds: float = HANG_SECONDS) -> str:
    """Wait, without pressing a key, until the words are on the screen or the time is up; return the screen."""
    for _ in range(int(seconds / 0.05)):
        if words in screen(pilot):
            break
        await pilot.pause(0.05)
    return screen(pilot)


def screen(pilot: Pilot[None]) -> str:
    """Return the content of the terminal as plain text."""
    return "\n".join(strip.text.rstrip() for strip in pilot.app.screen._compositor.render_strips())


def row_of(screen: str, words: str) -> str:
    """Return the first line of the table that contains the words, with settings in columns as the name of the run."""
    lines = (with_name(line.split("││")[0]) for line in screen.splitlines())
    return next(line for line in lines if words in line)


def with_name(row: str) -> str:
    """Return a row of the table with its columns optimizer, lr and seed as the name of the run."""
    return re.sub(r"(adam|sgd) +(\d\S*) +(\d)(?= |$)", r"\1 lr=\2 s\3", row)


def line_of(screen: str, words: str) -> str:
    """Return the first line of the screen that contains the words."""
    return next(line for line in screen.splitlines() if words in line)


def rows_of(screen: str) -> list[str]:
    """Return the rows of the table, without borders and sparklines."""
    lines = [line.split("││")[0] for line in screen.splitlines() if "││" in line]
    return [with_name(line.strip("│ ▁▂▃▄▅▆▇█")) for line in lines[2:] if re.search(r"\w", line)]


def golden_name(name: str, size: tuple[int, int]) -> str:
    """Return the name of the golden screen in a terminal of this size."""
    return f"{name}-{size[0]}x{size[1]}"


def compare(name: str, screen: str) -> None:
    """Assert that the screen equals the golden screen `name`; write it first if LABBENCH_UPDATE_GOLDEN is set."""
    file = FOLDER / f"{name}.txt"
    if os.environ.get("LABBENCH_UPDATE_GOLDEN"):
        file.write_text(screen + "\n", encoding="utf-8")
    assert file.exists(), f"no golden screen {file.name}: LABBENCH_UPDATE_GOLDEN=1 writes it"
    golden = file.read_text(encoding="utf-8").removesuffix("\n")
    if not differs_in_dots_only(screen, golden):
        assert screen == golden


def differs_in_dots_only(screen: str, golden: str) -> bool:
    """Return True if only a few dots of curves differ: the last digit of a logarithm depends on the processor."""
    if len(screen) != len(golden):
        return False
    apart = [(ours, theirs) for ours, theirs in zip(screen, golden, strict=True) if ours != theirs]
    return len(apart) <= MAX_DIFFERENT_DOTS and all(each in DOTS for pair in apart for each in pair)
