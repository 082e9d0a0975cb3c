"""Hostile names reach the terminal harmlessly, checked in the bytes that a pseudo-terminal receives."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from textual.content import Content
from textual.pilot import Pilot

from helpers.golden import SMALL, press, screen, type_in, use
from helpers.store_samples import points
from labbench.records import Failed, Finished, Log, NewRun, Started, Submission
from labbench.store.writer import Writer
from labbench.tui.saved_state import SavedState

HOSTILE = (
    "x [/nope] [@click=app.quit]y[/] [bold]",
    "\x1b]52;c;SEFDS0VE\x07copied",
    "\x9b31mred\x90dcs\x9c",
    "safe\u202egnp.exe\u2066",
    "学習率 👩\u200d🔬 é",
    "one\ntwo\rthree\ttab\x00null\x7f",
    "",
    "very long " * 1000,
)
"""Markup, clipboard, colour and direction sequences, wide characters, line breaks, an empty and a very long name."""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A run of each hostile name, with hostile config keys, values, metrics and errors."""
    path = tmp_path / "runs.db"
    bad = "\x1b]0;owned\x07[/x]"
    with Writer(path) as writer:
        new_runs = [NewRun(name, {f"key{bad}": f"{number}{bad}"}, str(number)) for number, name in enumerate(HOSTILE)]
        runs = writer.queue(Submission(f"experiment{bad}", "digits"), new_runs)
        for run in writer.claim([run.key for run in runs]):
            events = [Started(run.key, run.attempt, bad, os.getpid(), bad), points(run, f"loss{bad}", [2.0, 1.0])]
            outcome = Finished(run.key, run.attempt, "finished", bad) if run.id % 2 else Failed(run.key, 1, "user", bad)
            writer.write([*events, outcome])
    return path


def bytes_of(path: Path, keys: bytes, *, seconds: float) -> bytes:
    """Return the bytes sent to a terminal of 200 x 50 cells while keys are typed."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    code = f"from pathlib import Path; from labbench.tui import run_app; run_app(Path({str(path)!r}))"
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "200", "LINES": "50"}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    received = b""
    has_typed = False
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            try:
                received += os.read(master, 65536)
            except OSError:  # the program has closed the other side
                break
        if not has_typed and b"very long" in received:
            has_typed = True
            os.write(master, keys)
            deadline = time.monotonic() + seconds
    process.terminate()
    process.wait()
    os.close(master)
    return received


def test_no_name_sends_a_control_sequence_to_the_terminal(database: Path) -> None:
    received = bytes_of(database, b" jjj ?", seconds=2.0)
    text = received.decode("utf-8", errors="replace")
    assert "very long" in text
    assert "SEFDS0VE" in text, "the visible part of the name is shown"
    assert "]52;c" in text
    for harmful in ("\x1b]52", "\x1b]0;owned", "\x9b", "\x90", "\x9c", "\u202e", "\u2066", "\x00", "\x7f"):
        assert harmful not in text, repr(harmful)


@pytest.mark.parametrize(("value", "coloured"), [("1", False), ("", True)])
def test_no_color_removes_colours_unless_it_is_empty(
    database: Path, monkeypatch: pytest.MonkeyPatch, value: str, coloured: bool
) -> None:
    """As specified by no-color.org; the cursor's row is reversed instead."""
    monkeypatch.setenv("NO_COLOR", value)
    received = bytes_of(database, b" jjj 2341?\x1b\x10", seconds=3.0)
    codes = {code for codes in re.findall(rb"\x1b\[([0-9;]*)m", received) for code in codes.split(b";")}
    assert b"very long" in received
    attributes = {b"", b"0", b"1", b"2", b"3", b"4", b"7", b"9", b"22", b"23", b"24", b"27", b"29"}
    assert (codes <= attributes) == (not coloured)
    assert coloured or {b"1", b"2", b"7"} <= codes


def test_names_with_markup_are_shown_literally(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        everything = screen(pilot)
        for _ in HOSTILE:
            everything += await press(pilot, "space", "j")
        assert "x [/nope] [@click=app.quit]y" in everything
        assert "␛]52;c;SEFDS0VE␇copied" in everything
        assert "学習率" in everything
        assert "loss␛]0;owned␇[/x]" in everything
        for key in ("o", "escape", "question_mark", "escape", "ctrl+p", "escape"):
            await press(pilot, key)
        assert pilot.app.is_running

    use(database, look)
    use(database, look, size=SMALL)


def test_no_name_makes_a_line_wider_than_the_terminal(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "j", "space", "j", "space", "j", "space", "j", "space")
        for strip in pilot.app.screen._compositor.render_strips():
            assert strip.cell_length == SMALL[0]

    use(database, look, size=SMALL)


def test_a_database_with_an_invalid_run_key_is_refused_with_a_message(database: Path) -> None:
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("UPDATE runs SET key = '../../etc' WHERE id = 1")
    connection.close()

    async def look(pilot: Pilot[None]) -> None:
        shown = screen(pilot) + await press(pilot, "space", "j", "enter")
        assert "a key is letters and digits" in shown

    use(database, look)


MARKUP = "loss[/2] [@click=app.quit]MARK[/] [v2]"


@pytest.fixture
def marked_up(tmp_path: Path) -> Path:
    """A database in which every text of a user is markup."""
    path = tmp_path / f"{MARKUP.replace('/', '')}.db"
    with Writer(path) as writer:
        new_runs = [NewRun(f"{n} {MARKUP}", {f"a{MARKUP}": f"{n}{MARKUP}", "lr": n}, str(n)) for n in range(4)]
        runs = writer.queue(Submission(MARKUP, "digits", {MARKUP: "min"}), new_runs)
        for run in writer.claim([run.key for run in runs]):
            events = [Started(run.key, 1, MARKUP, 1, MARKUP), Log(run.key, 1, f"{MARKUP}\n" * 100)]
            events += [points(run, MARKUP, [2.0, run.id]), points(run, f"system/{MARKUP}", [1.0, 2.0])]
            failed = Failed(run.key, 1, "user", MARKUP, f"{MARKUP}\n" * 100)
            writer.write([*events, failed if run.id == 1 else Finished(run.key, 1, "finished", MARKUP)])
        writer.tag([run.key for run in runs], add=[MARKUP])
        writer.note(runs[0].key, MARKUP)
    return path


def test_no_text_of_a_user_is_parsed_as_markup(marked_up: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`[@click=app.quit]` would make an action of a run's name, and `[/2]` would end the program."""
    parsed: list[str] = []
    from_markup = Content.from_markup

    def record(markup: str | Content, **variables: object) -> Content:
        if isinstance(markup, str):
            parsed.append(markup)
        return from_markup(markup, **variables)

    monkeypatch.setattr(Content, "from_markup", record)
    saved = SavedState(marked_up)
    saved.save_view(MARKUP, {})

    async def look(pilot: Pilot[None]) -> None:
        shown = await press(pilot, "G", "space", "k", "space", "k", "space", "enter")
        assert f"1 {MARKUP}" in shown.replace("\n", "")
        await press(pilot, "slash")
        await type_in(pilot, MARKUP)
        assert f"100 lines with “{MARKUP.lower()}”" in await press(pilot, "enter")
        for key in ("t", "N", "R", "Y", "D"):  # dialogs that name the run
            await press(pilot, key, "escape")
        await press(pilot, "t")
        await type_in(pilot, f"more{MARKUP.replace(' ', '')}")
        await press(pilot, "enter")
        for screen_key in "2341":
            await press(pilot, screen_key, "question_mark", "escape", "e", "escape", "m", "j", "tab", "j")
        for key in ("o", "b", "C", "f"):
            await press(pilot, key, "escape")
        await press(pilot, "ctrl+p")
        assert MARKUP in await type_in(pilot, "Open the view")
        await press(pilot, "escape")
        assert pilot.app.is_running

    use(marked_up, look, saved_state=saved)
    unescaped = [text for text in parsed if re.search(r"(?<!\\)\[(/2|@click|v2)", text)]
    assert unescaped == []
