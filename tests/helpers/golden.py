"""The terminal interface under test: opened on a database, pressed as a person would, compared with golden screens.

A golden screen is the plain text of the terminal, kept in tests/golden/NAME.txt. After a change that is meant,

    LABBENCH_UPDATE_GOLDEN=1 python -m pytest tests/test_tui_golden.py

writes them anew: look at the difference before it is committed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from textual import events
from textual.pilot import Pilot

from labbench.tui.app import LabbenchApp

FOLDER = Path(__file__).parents[1] / "golden"
MAX_DIFFERENT_DOTS = 6
"""Cells of a screen at the most in which curves may have other dots."""
DOTS = {" ", *map(chr, range(0x2800, 0x2900))}

SMALL, LARGE = (80, 24), (200, 50)
"""Terminals to design for: columns and rows."""


def use(
    path: Path, script: Callable[[Pilot[None]], Awaitable[None]], *, size: tuple[int, int] = LARGE, view: str = "runs"
) -> None:
    """Open the database in a terminal of that size and run the script against it."""

    async def run() -> None:
        async with LabbenchApp(path, view=view).run_test(size=size, notifications=True) as pilot:
            await settle(pilot)
            await script(pilot)

    asyncio.run(run())


async def press(pilot: Pilot[None], *keys: str) -> str:
    """Press keys, wait until everything they caused is on the screen, and return the screen."""
    for key in keys:
        await hit(pilot, key)
        await finish_readings(pilot)
    await settle(pilot)
    return screen(pilot)


async def hit(pilot: Pilot[None], key: str) -> None:
    """Press a key and wait for its messages, not until the processor idles, as `pilot.press` does twice a key."""
    pressing = asyncio.ensure_future(pilot.app._press_keys([key]))
    await asyncio.sleep(0)  # the key is sent; what follows are the waits
    pressing.cancel()
    for _ in range(2):  # the key itself, then what it has asked the application for
        await pilot._wait_for_screen()
        await asyncio.sleep(0.001)


async def type_in(pilot: Pilot[None], words: str) -> str:
    """Type text where the keyboard is; all at once, as from the clipboard, for a key takes a tenth of a second."""
    assert pilot.app.focused is not None
    pilot.app.focused.post_message(events.Paste(words))
    await settle(pilot)
    return screen(pilot)


async def settle(pilot: Pilot[None]) -> None:
    """Wait for the readings in thread workers, and for what they cause; the watch for changes never ends."""
    quiet = 0
    while quiet < 2:  # a worker that has ended may have sent a message that is not taken yet
        await pilot.pause()
        quiet = 0 if await finish_readings(pilot) else quiet + 1


async def finish_readings(pilot: Pilot[None]) -> bool:
    """Wait for the thread workers that read now, and return True if there was one."""
    reading = [worker for worker in pilot.app.workers if worker.group != "watch" and not worker.is_finished]
    if reading:
        await asyncio.wait([worker._task for worker in reading if worker._task is not None])
        await pilot._wait_for_screen()
    return bool(reading)


async def wait_for_words(pilot: Pilot[None], words: str, *, seconds: float = 10.0) -> str:
    """Wait until the words are on the screen, without a key; returns the screen, whatever it is after that long."""
    for _ in range(int(seconds / 0.05)):
        if words in screen(pilot):
            break
        await pilot.pause(0.05)
    return screen(pilot)


def screen(pilot: Pilot[None]) -> str:
    """What the terminal shows, as plain text."""
    return "\n".join(strip.text.rstrip() for strip in pilot.app.screen._compositor.render_strips())


def row_of(screen: str, words: str) -> str:
    """The first line of the table with these words."""
    return next(line for line in (line.split("││")[0] for line in screen.splitlines()) if words in line)


def compare(name: str, screen: str) -> None:
    """Assert that the screen is the golden one of that name; writes it if the environment says so."""
    file = FOLDER / f"{name}.txt"
    if os.environ.get("LABBENCH_UPDATE_GOLDEN"):
        file.write_text(screen + "\n", encoding="utf-8")
    assert file.exists(), f"no golden screen {file.name}: LABBENCH_UPDATE_GOLDEN=1 writes it"
    golden = file.read_text(encoding="utf-8").removesuffix("\n")
    if not differs_in_dots_only(screen, golden):
        assert screen == golden


def differs_in_dots_only(screen: str, golden: str) -> bool:
    """Whether they differ in nothing but a few dots of curves: a logarithm's last digit depends on the processor."""
    if len(screen) != len(golden):
        return False
    apart = [(ours, theirs) for ours, theirs in zip(screen, golden, strict=True) if ours != theirs]
    return len(apart) <= MAX_DIFFERENT_DOTS and all(each in DOTS for pair in apart for each in pair)
