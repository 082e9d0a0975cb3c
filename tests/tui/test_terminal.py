"""The program on a real pseudo-terminal: early keys, bursts, signals, suspension."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from textual.color import Color
from textual.theme import Theme

from helpers.tui_samples import grid_of_runs
from helpers.waiting import HANG_SECONDS
from labbench.tui.saved_state import SavedState
from labbench.tui.theme import DARK, LIGHT

LEAVE_ALTERNATE_SCREEN = b"\x1b[?1049l"


class Terminal:
    """The terminal interface on a pseudo-terminal of 120 x 40 cells."""

    def __init__(self, *arguments: str) -> None:
        self.output = b""
        environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40", "COLORTERM": "truecolor"}
        for variable in ("TMUX", "STY", "SSH_CONNECTION", "TEXTUAL_THEME"):
            environ.pop(variable, None)
        self._descriptor, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "labbench", *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=environ,
            start_new_session=True,
        )
        os.close(terminal)

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def read_until(self, words: str, *, seconds: float = HANG_SECONDS) -> None:
        """Read until these words were written one after another, with any cells written between them."""
        deadline = time.monotonic() + seconds
        while words.encode() not in re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", self.output):
            assert time.monotonic() < deadline, f"{words!r} was not written: {self.output[-3000:]!r}"
            self._read()

    def wait(self) -> int:
        """Read until the process has ended; return its exit status."""
        deadline = time.monotonic() + HANG_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still running: {self.output[-3000:]!r}"
            self._read()
        self._read()
        return self.process.returncode

    def wait_until_stopped(self) -> None:
        """Read until the process is suspended, and what it has written by then."""
        while b"(stopped)" not in Path(f"/proc/{self.process.pid}/status").read_bytes():
            self._read()
        while self._read():
            pass

    def _read(self) -> bool:
        """Read what there is; return False if there is nothing."""
        if not select.select([self._descriptor], [], [], 0.1)[0]:
            return False
        try:
            self.output += os.read(self._descriptor, 65536)
        except OSError:  # the process has closed the terminal
            return False
        return True

    def hang_up(self) -> None:
        os.close(self._descriptor)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        with suppress(OSError):
            os.close(self._descriptor)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    grid_of_runs(tmp_path / "runs.db")
    return tmp_path / "runs.db"


@pytest.fixture
def terminal(database: Path) -> Iterator[Terminal]:
    with closing(Terminal("tui", str(database))) as terminal:
        yield terminal


def test_keys_typed_before_the_first_paint_reach_the_table(terminal: Terminal, database: Path) -> None:
    terminal.type(" jj q")
    assert terminal.wait() == 0
    assert list(SavedState(database).last["marks"].values()) == [1, 2]


def test_a_burst_of_letters_loses_none_after_a_key_that_moves_the_focus(terminal: Terminal, database: Path) -> None:
    terminal.read_until("1–12 of 12")
    terminal.type("fexperiment=optimizers\rtnice tag\rq")
    assert terminal.wait() == 0
    assert SavedState(database).last["filter"] == "experiment=optimizers"


def test_a_paste_of_several_lines_is_joined(terminal: Terminal, database: Path) -> None:
    terminal.read_until("1–12 of 12")
    terminal.type("f\x1b[200~optimizer=adam\n  lr=1\n\x1b[201~\rq")
    assert terminal.wait() == 0
    assert SavedState(database).last["filter"] == "optimizer=adam lr=1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_restores_the_terminal_and_saves_the_state(
    terminal: Terminal, database: Path, number: signal.Signals
) -> None:
    terminal.read_until("1–12 of 12")
    terminal.type("flr=1\r")
    terminal.read_until("4 of 12")
    terminal.process.send_signal(number)
    assert terminal.wait() == 128 + number
    assert LEAVE_ALTERNATE_SCREEN in terminal.output
    assert SavedState(database).last["filter"] == "lr=1"


def test_closing_the_terminal_ends_the_program_and_saves_the_state(terminal: Terminal, database: Path) -> None:
    terminal.read_until("1–12 of 12")
    terminal.type("flr=1\r")
    terminal.read_until("4 of 12")
    terminal.hang_up()
    terminal.process.wait(HANG_SECONDS)
    assert SavedState(database).last["filter"] == "lr=1"


def test_ctrl_z_suspends_and_fg_paints_again(terminal: Terminal) -> None:
    terminal.read_until("1–12 of 12")
    terminal.type("\x1a")
    terminal.wait_until_stopped()
    assert LEAVE_ALTERNATE_SCREEN in terminal.output
    terminal.output = b""
    terminal.process.send_signal(signal.SIGCONT)
    terminal.read_until("1–12 of 12")
    terminal.type("q")
    assert terminal.wait() == 0


def test_keys_typed_before_the_first_paint_are_not_repeated_after_a_suspension(
    terminal: Terminal, database: Path
) -> None:
    terminal.type(" ")
    terminal.read_until("1–12 of 12")
    terminal.type("\x1a")
    terminal.wait_until_stopped()
    terminal.output = b""
    terminal.process.send_signal(signal.SIGCONT)
    terminal.read_until("1–12 of 12")
    terminal.type("q")
    assert terminal.wait() == 0
    assert list(SavedState(database).last["marks"].values()) == [1]


def test_escape_arrives_although_it_begins_other_keys(terminal: Terminal, database: Path) -> None:
    terminal.read_until("1–12 of 12")
    terminal.type("flr=1")
    terminal.read_until("4 of 12")
    terminal.output = b""
    terminal.type("\x1b")
    terminal.read_until("1–12 of 12")
    terminal.type("q")
    assert terminal.wait() == 0
    assert SavedState(database).last["filter"] == ""


@pytest.mark.parametrize("stream", ["stdin", "stderr"])
def test_without_a_terminal_the_message_says_so(database: Path, stream: str) -> None:
    descriptor, terminal = pty.openpty()
    with closing(os.fdopen(descriptor)), closing(os.fdopen(terminal, "rb")) as tty:
        streams = {"stdin": tty, "stdout": subprocess.PIPE, "stderr": tty} | {
            stream: subprocess.DEVNULL if stream == "stdin" else subprocess.PIPE
        }
        done = subprocess.run([sys.executable, "-m", "labbench", "tui", str(database)], timeout=HANG_SECONDS, **streams)
    assert done.returncode == 2
    if stream == "stderr":
        assert b"draws on stderr, which is not a terminal" in done.stderr


@pytest.mark.parametrize(("background", "theme"), [("ffff/ffff/ffff", LIGHT), ("1010/1010/1010", DARK)])
def test_the_theme_follows_the_background_of_the_terminal(terminal: Terminal, background: str, theme: Theme) -> None:
    terminal.read_until("]11;?")
    terminal.type(f"\x1b]11;rgb:{background}\x1b\\\x1b[?62;22c")
    red, green, blue = Color.parse(theme.background).rgb
    terminal.read_until("1–12 of 12")
    assert f"48;2;{red};{green};{blue}".encode() in terminal.output
    terminal.type("q")
    assert terminal.wait() == 0


def test_images_are_sent_to_the_terminal_and_deleted_at_the_end(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABBENCH_GRAPHICS", "kitty")
    with closing(Terminal("tui", str(database))) as terminal:
        terminal.read_until("a=T,U=1,f=100,q=2,")
        terminal.type("q")
        assert terminal.wait() == 0
        assert b"a=d,d=I,q=2," in terminal.output.partition(LEAVE_ALTERNATE_SCREEN)[0]
