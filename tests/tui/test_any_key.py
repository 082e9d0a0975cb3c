"""Random keys and mouse events on every screen, with empty, small and extreme databases, never end the program."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot

from helpers.golden import SIZES, hit, press, settle, use
from helpers.store_samples import new_run, points, start
from labbench.records import Finished, Started
from labbench.store.reader import Reader
from labbench.store.run_reader import RunReader
from labbench.store.writer import Writer

EXAMPLE = Path(__file__).parents[2] / "runs.db.example"
FAR = (
    [2.0, 1.7e308],
    [1e308, -1e308, 5e-324],
    [2, 1e100, 1e200, 1.7e308, 1.5e308],
    [2, math.nan, math.inf, -math.inf, 1e300],
    [5e-324, 1e-323, 2e-320],
)
"""Curves of diverging and vanishing runs."""
CURVES: Mapping[str, Sequence[Sequence[float]] | None] = {
    "nothing": None,
    "one run": [[3.0, 2.0, 1.0]],
    "no metric": [[]] * 4,
    "nan": [[math.nan] * 5] * 4,
    "huge": [*FAR, *FAR],
    "example": None,
}
"""Curves of the runs of each database, by its name; None for no runs or a database of its own."""
KEYS = (
    *"1234jjkkllhhHLgGoyXsSx+-=[]FBi><wbznN*UIpvcCmMfO?atARDrKYeWu|/,.:0d",
    *("space", "tab", "shift+tab", "enter", "left", "right", "up", "down", "shift+up", "shift+down"),
    *("pageup", "pagedown", "home", "end", "ctrl+f", "ctrl+b", "number_sign", "backspace"),
    *("escape", "escape", "escape", "escape"),
)
"""All keys but `q`; Esc is more frequent, because an open dialog would take all other keys."""
KEYS_PER_CASE = 25
"""Keys per test case: 300 with all databases and sizes."""


def database(folder: Path, name: str) -> Path:
    path = folder / "runs.db"
    curves = CURVES[name]
    if name == "example":
        shutil.copy(EXAMPLE, path)
    elif curves is not None:
        with Writer(path) as writer:
            queued = [new_run(number, optimizer="sgd" if number % 2 else "adam") for number in range(len(curves))]
            for run, curve in zip(start(writer, queued, metrics={"val/loss": "min"}), curves, strict=True):
                logged = [points(run, metric, curve) for metric in ("val/loss", "train/loss", "epoch") if curve]
                status = "diverged" if len(curve) != 3 else "finished"
                writer.write([Started(run.key, run.attempt, "box", 1, "cpu"), *logged])
                writer.write([Finished(run.key, run.attempt, status, "as it is")])
    return path


@SIZES
@pytest.mark.parametrize("name", CURVES)
def test_no_key_ends_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, size: tuple[int, int]
) -> None:
    monkeypatch.chdir(tmp_path)  # an export is a file here
    keys = random.Random(f"{name} {size}").choices(KEYS, k=KEYS_PER_CASE)

    async def look(pilot: Pilot[None]) -> None:
        for key in ("asterisk", *keys):
            await hit(pilot, key)
            assert pilot.app.is_running, keys
        await settle(pilot)

    use(database(tmp_path, name), look, size=size)


async def gesture(pilot: Pilot[None], randomness: random.Random) -> None:
    """Perform a random mouse action over the charts, or press a key of the charts."""
    width, height = pilot.app.size

    def random_offset() -> tuple[int, int]:
        return randomness.randrange(width // 2, width), randomness.randrange(3, height)

    x, y = random_offset()
    kind = randomness.choice(["point", "click", "double click", "box", "move", "wheel", "key"])
    if kind == "point":
        await pilot.hover(offset=(x, y))
    elif kind in ("click", "double click"):
        await pilot.click(offset=(x, y), times=1 if kind == "click" else 2)
    elif kind in ("box", "move"):
        button = 1 if kind == "box" else 3
        await pilot._post_mouse_events([events.MouseDown], offset=(x, y), button=button)
        await pilot.hover(offset=random_offset())
        await pilot._post_mouse_events([events.MouseUp], offset=random_offset(), button=button)
    elif kind == "wheel":
        scroll = randomness.choice([events.MouseScrollUp, events.MouseScrollDown, events.MouseScrollLeft])
        for _ in range(randomness.randrange(1, 12)):
            pilot.app.screen._forward_event(scroll(None, x, y, 0, 0, 0, False, False, False, screen_x=x, screen_y=y))
    else:
        await pilot.press(randomness.choice("XyxBs><zhl=F"))


@pytest.mark.parametrize("name", ["one run", "nan", "huge", "example"])
def test_no_mouse_action_ends_the_program(tmp_path: Path, name: str) -> None:
    randomness = random.Random(name)

    async def look(pilot: Pilot[None]) -> None:
        await pilot.press("asterisk")
        for _ in range(12):
            await gesture(pilot, randomness)
            assert pilot.app.is_running
        await settle(pilot)

    use(database(tmp_path, name), look)


@pytest.mark.parametrize("screen_key", ["1", "2", "3", "4"])
def test_an_unexpected_error_while_reading_is_shown_and_the_program_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, screen_key: str
) -> None:
    path = tmp_path / "runs.db"
    with Writer(path) as writer:
        start(writer, 2)

    def fail(*_: object, **__: object) -> None:
        raise TypeError("unexpected")

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, screen_key)
        monkeypatch.setattr(RunReader, "goal", fail)
        monkeypatch.setattr(Reader, "metrics", fail)
        shown = await press(pilot, "1", "f", "x", "escape", screen_key, "m")
        pilot.app.screen.read()  # type: ignore[attr-defined]
        shown += await press(pilot, "j")
        assert "internal error in labbench, please report it: TypeError: unexpected" in shown
        assert pilot.app.is_running

    use(path, look)
